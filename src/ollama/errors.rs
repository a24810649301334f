//! Why a request to Ollama failed: a connection error, or an answer that is not Ollama's, in words.

use ureq::Body;
use ureq::http::Response;

use crate::config::url::HttpUrl;
use crate::outgoing::refusal::{Refusal, Trouble};
use crate::outgoing::{Cause, words};

/// What a failed request means and what to do.
pub(super) fn trouble(why: &ureq::Error) -> Trouble {
    let said = words(why);
    match Cause::of(why) {
        Cause::Name => Trouble::new(
            said,
            "Check the name in OLLAMA_URL, and DNS. Docker resolves a container's name only on a network that both share.",
        ),
        Cause::SpeaksTls => Trouble::new(said, "Use https:// in OLLAMA_URL."),
        Cause::SpeaksPlain => Trouble::new(said, "Use http:// in OLLAMA_URL."),
        Cause::Untrusted => Trouble::new(
            format!("its certificate is not trusted: {said}"),
            "Set OLLAMA_TLS=ca:/path.pem to the authority that signed it, or OLLAMA_TLS=insecure to skip verification.",
        ),
        Cause::Other => said.into(),
    }
}

/// Why Ollama did not answer, and what to do.
pub(super) fn no_answer(why: &ureq::Error) -> String {
    let trouble = trouble(why);
    let what = trouble.cure.map_or("Ollama is not responding: ", |_| "");
    format!("{what}{}. {}", trouble.why, trouble.cure())
}

/// What is wrong with an answer to `path` whose body begins with `text`; None: its head and form look right.
pub(super) fn refusal(
    reply: &Response<Body>,
    text: &str,
    base: &HttpUrl,
    path: &str,
    login: Option<&'static str>,
) -> Option<Trouble> {
    let header = |name: &str| reply.headers().get(name)?.to_str().ok();
    let refusal = Refusal {
        status: reply.status().as_u16(),
        location: header("location"),
        content_type: header("content-type"),
        encoding: header("content-encoding"),
        text,
        login,
    };
    refusal.explain(base, path)
}
