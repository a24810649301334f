//! The field `orchestrator` of an answer: where a registry wants further beats. Behind a load balancer each process has
//! its own registry, so it must be followed. Without -liveRunnerAddr it is a public address, which a container beside the
//! orchestrator often cannot reach, so beats must come back. Only the entry's secret is sent there, never ORCH_SECRET.

use std::time::Duration;

use super::answer::BeatAnswer;
use crate::config::url::{HttpUrl, Scope};

/// How long an address that failed is not used.
const AVOIDED: Duration = Duration::from_secs(300);
/// A message is repeated only after this long without its cause, and only this many are remembered: two servers may name
/// each other in turn, at every beat.
const QUIET: Duration = Duration::from_secs(600);
const MOST_SAID: usize = 8;

/// Where beats go, and the last messages about that.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    /// ORCH_URL.
    base: HttpUrl,
    named: Option<HttpUrl>,
    /// `named` has accepted a beat.
    proven: bool,
    avoided: Option<(HttpUrl, Duration)>,
    /// Messages, and when each was last true: see [`QUIET`].
    said: Vec<(String, Duration)>,
}

impl Follow {
    pub(crate) fn new(base: HttpUrl) -> Self {
        Self { base, named: None, proven: false, avoided: None, said: Vec::new() }
    }

    /// None: ORCH_URL.
    pub(crate) fn target(&self) -> Option<&HttpUrl> {
        self.named.as_ref()
    }

    /// The next beat is a first one, which goes to ORCH_URL.
    pub(crate) fn reset(&mut self) {
        (self.named, self.proven) = (None, false);
    }

    /// The answer to a beat to `target` names this address; returns a line for the log.
    pub(crate) fn taken(&mut self, now: Duration, orchestrator: Option<&str>) -> Option<String> {
        let note = match &self.named {
            Some(named) if !self.proven => {
                self.proven = true;
                Some(format!("beats go to {}, as {} asks", named.as_str(), self.base.as_str()))
            }
            _ => None,
        };
        let note = note.and_then(|note| self.once(now, note));
        let here = self.named.as_ref().unwrap_or(&self.base);
        let Some(text) = orchestrator else { return note };
        let url = match self.allowed(text) {
            Ok(url) => url,
            Err(why) => {
                // It may contain a password.
                let shown = if text.contains('@') { "…".into() } else { crate::sys::text::start(text, 200) };
                let base = self.base.as_str();
                return self.once(now, format!("{base} asks for beats at {shown:?}, which is not used: {why}"));
            }
        };
        if url.is_same(here) {
            return note;
        }
        if url.is_same(&self.base) {
            self.reset();
            return note;
        }
        let avoided = self.avoided.as_ref().is_some_and(|(bad, until)| url.is_same(bad) && now < *until);
        if !avoided {
            (self.named, self.proven) = (Some(url), false);
        }
        note
    }

    /// Some when `answer` from `target` means that beats go to ORCH_URL again, this one first: no server is there, or one
    /// that does not know the entry. With a line for the log, if due.
    pub(crate) fn falls_back(&mut self, now: Duration, answer: &BeatAnswer) -> Option<Option<String>> {
        let failed = match answer {
            BeatAnswer::Taken { .. } => false,
            BeatAnswer::Failed { .. } => true,
            _ => !self.proven,
        };
        let named = self.named.take_if(|_| failed)?;
        let why = match answer {
            BeatAnswer::Failed { why, .. } => why.as_str(),
            _ => "it does not know this runner",
        };
        let note = format!("beats go back to {} from {}: {why}", self.base.as_str(), named.as_str());
        self.proven = false;
        self.avoided = Some((named, now + AVOIDED));
        Some(self.once(now, note))
    }

    fn once(&mut self, now: Duration, note: String) -> Option<String> {
        // Only the part before the error decides whether a message is new.
        let news = note.split(": ").next().unwrap_or_default().to_owned();
        self.said.retain(|(_, last)| now - *last < QUIET);
        if let Some((_, last)) = self.said.iter_mut().find(|(said, _)| *said == news) {
            *last = now;
            return None;
        }
        let room = self.said.len() < MOST_SAID;
        room.then(|| {
            self.said.push((news, now));
            note
        })
    }

    fn allowed(&self, text: &str) -> Result<HttpUrl, String> {
        let url = HttpUrl::parse(text.trim()).map_err(|why| why.to_string())?;
        if self.base.is_https() && !url.is_https() {
            return Err("it is plain http while ORCH_URL is https".into());
        }
        // The orchestrator means its own machine, not this one.
        if url.scope() == Scope::Nowhere || (url.scope(), self.base.scope()) == (Scope::ThisMachine, Scope::Anywhere) {
            return Err("from here that is this machine. Set the orchestrator's -liveRunnerAddr".into());
        }
        if url.is_link_local() && !self.base.is_link_local() {
            return Err("it is a link-local address".into());
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn follow(base: &str) -> Follow {
        Follow::new(HttpUrl::parse(base).unwrap())
    }

    fn taken() -> BeatAnswer {
        BeatAnswer::Taken { secret: None, interval: None, ttl: None, orchestrator: None }
    }

    fn trouble() -> BeatAnswer {
        BeatAnswer::Failed { kind: "no_answer", why: "connection refused: 7".into() }
    }

    fn target(follow: &Follow) -> &str {
        follow.target().map_or("", HttpUrl::as_str)
    }

    #[test]
    fn an_address_is_used_while_it_answers() {
        let mut follow = follow("https://lb:8935");
        assert_eq!((follow.taken(s(0), Some("https://LB:8935/")), target(&follow)), (None, ""));
        assert_eq!((follow.taken(s(0), Some("https://a:8935")), target(&follow)), (None, "https://a:8935"));
        assert_eq!(
            follow.taken(s(5), Some("https://a:8935")).unwrap(),
            "beats go to https://a:8935, as https://lb:8935 asks"
        );
        assert_eq!((follow.taken(s(10), None), target(&follow)), (None, "https://a:8935"));
        // An address that has accepted a beat stays in use even if it loses the entry.
        assert_eq!(follow.falls_back(s(12), &BeatAnswer::NotRegistered), None);
        assert_eq!(follow.falls_back(s(12), &taken()), None);
        assert!(
            follow
                .falls_back(s(15), &trouble())
                .unwrap()
                .unwrap()
                .contains("go back to https://lb:8935 from https://a:8935: connection")
        );
        assert_eq!(target(&follow), "");
        // It is avoided for a while, and not logged again.
        assert_eq!((follow.taken(s(20), Some("https://a:8935")), target(&follow)), (None, ""));
        assert_eq!((follow.taken(s(400), Some("https://a:8935")), target(&follow)), (None, "https://a:8935"));
        assert_eq!(follow.falls_back(s(405), &trouble()), Some(None));
        assert_eq!(follow.falls_back(s(405), &trouble()), None, "nothing is followed");
        // Another address is used, and ORCH_URL ends that.
        follow.taken(s(410), Some("https://b:8935"));
        assert_eq!(target(&follow), "https://b:8935");
        follow.taken(s(415), Some("https://lb:8935"));
        assert_eq!(target(&follow), "");
    }

    #[test]
    fn servers_that_name_each_other_do_not_fill_the_log() {
        let mut follow = follow("http://lb");
        let said = |follow: &mut Follow, from: u64, hosts: u64| {
            (0..100).filter(|i| follow.taken(s(from + i), Some(&format!("http://h{}", i % hosts))).is_some()).count()
        };
        assert_eq!(said(&mut follow, 0, 2), 2);
        assert_eq!(target(&follow), "http://h1", "they are followed anyway");
        assert_eq!(said(&mut follow, 100, 100), 6);
        assert_eq!(said(&mut follow, 1000, 2), 3, "later it is news");
    }

    #[test]
    fn an_address_that_does_not_know_the_entry_is_dropped() {
        for answer in [
            BeatAnswer::NotRegistered,
            BeatAnswer::Held,
            BeatAnswer::Expired,
            BeatAnswer::Absent,
            BeatAnswer::Rejected("x".into()),
        ] {
            let mut follow = follow("http://o:8935");
            follow.taken(s(0), Some("https://elsewhere:8935"));
            assert!(follow.falls_back(s(5), &answer).unwrap().unwrap().contains("does not know this runner"));
            assert_eq!(target(&follow), "");
        }
    }

    #[test]
    fn an_address_that_must_not_get_the_secret_is_not_used() {
        #[track_caller]
        fn check(base: &str, named: &str, part: &str) {
            let mut follow = follow(base);
            let note = follow.taken(s(0), Some(named)).unwrap_or_default();
            assert_eq!((note.contains(part), target(&follow)), (true, ""), "{note}");
            assert_eq!(follow.taken(s(5), Some(named)), None, "once");
        }
        check("https://o:8935", "http://o:8935", "plain http");
        check("https://o:8935", "o:8935", "http:// or https://");
        check("https://o:8935", "/runners", "http:// or https://");
        check("https://o:8935", "ftp://o", "http:// or https://");
        check("https://o:8935", "https://u:p@o", "user:password");
        check("https://o:8935", "https://o/?q", "query");
        check("https://o:8935", "https://o/a\nb", "visible ASCII");
        check("http://o:8935", "https://127.0.0.1:8935", "this machine");
        check("http://o:8935", "https://[::ffff:127.0.0.1]:8935", "this machine");
        check("http://o:8935", "https://localhost:8935", "this machine");
        check("http://127.0.0.1:8935", "https://0.0.0.0:8935", "this machine");
        check("http://o:8935", "http://169.254.169.254", "link-local");
        // On one machine everything is there.
        let mut follow = follow("http://127.0.0.1:8935");
        follow.taken(s(0), Some("https://localhost:8936"));
        assert_eq!(target(&follow), "https://localhost:8936");
    }
}
