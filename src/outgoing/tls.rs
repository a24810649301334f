//! How certificates are verified.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use crate::config::TlsRule;
use crate::sys::text::io_words;

/// Larger than any list of root certificates.
const MAX_PEM: u64 = 4 << 20;

/// ureq's TLS settings for the value of a `_TLS` setting.
///
/// # Errors
/// Why the file of `ca:` cannot be used.
pub(crate) fn tls(rule: &TlsRule) -> Result<TlsConfig, String> {
    let builder = TlsConfig::builder();
    Ok(match rule {
        TlsRule::Verify => builder.root_certs(RootCerts::WebPki).build(),
        TlsRule::Insecure => builder.disable_verification(true).build(),
        TlsRule::Ca(path) => builder.root_certs(RootCerts::Specific(Arc::new(certificates(path)?))).build(),
    })
}

fn certificates(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|why| format!("cannot open {path}: {}", io_words(&why)))?;
    file.take(MAX_PEM).read_to_end(&mut pem).map_err(|why| format!("cannot read {path}: {}", io_words(&why)))?;
    let mut all = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(one) = item.map_err(|why| format!("{path} is not a PEM file: {why}"))? {
            all.push(one);
        }
    }
    if all.is_empty() { Err(format!("{path} contains no PEM certificate")) } else { Ok(all) }
}
