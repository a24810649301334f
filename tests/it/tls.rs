//! ORCH_TLS against an orchestrator with TLS.
//!
//! `tls/orchestrator.pem` is made as go-livepeer makes its own at each start: self-signed, a CA, no subject, the address
//! as a critical name. `tls/own.pem` is an ordinary one, signed by `tls/root.pem`. All are valid for a century.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::fake_runners::Runners;
use crate::harness::{Worker, wait_for};

pub fn file(name: &str) -> String {
    format!("{}/tests/it/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A server with the certificate of this name.
pub fn server(certificate: &str) -> Arc<ServerConfig> {
    let certificates = vec![CertificateDer::from_pem_file(file(&format!("{certificate}.pem"))).unwrap()];
    let key = PrivateKeyDer::from_pem_file(file(&format!("{certificate}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    Arc::new(config)
}

/// Takes the TLS off before `inner`, with the certificate of this name. Its thread ends with the test.
pub fn in_front_of(inner: SocketAddr, certificate: &str) -> SocketAddr {
    let config = server(certificate);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || forward(StreamOwned::new(connection, stream), inner));
        }
    });
    addr
}

/// One request and its answer; None as soon as either side is gone.
fn forward(mut client: StreamOwned<ServerConnection, TcpStream>, inner: SocketAddr) -> Option<()> {
    let mut inner = TcpStream::connect(inner).ok()?;
    inner.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    let mut buffer = [0; 4096];
    loop {
        let read = client.read(&mut buffer).ok().filter(|n| *n > 0)?;
        inner.write_all(&buffer[..read]).ok()?;
        // It answers once it has the whole request.
        while let Ok(read) = inner.read(&mut buffer) {
            if read == 0 {
                client.conn.send_close_notify();
                return client.flush().ok();
            }
            client.write_all(&buffer[..read]).ok()?;
        }
    }
}

/// Starts a worker with this rule for a server with this certificate; the log must come to say `words`.
#[track_caller]
fn check(certificate: &str, rule: &str, words: &str, registered: bool) {
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    let inner = orchestrator.url().strip_prefix("http://").unwrap().parse().unwrap();
    let url = format!("https://{}", in_front_of(inner, certificate));
    let settings = [("ORCH_URL", &*url), ("ORCH_TLS", rule), ("CAPABILITY_NAME", "n"), ("ORCH_SECRET", "s3cret")];
    let worker = Worker::start(&settings);
    wait_for(words, || worker.log().contains(words).then_some(()));
    assert_eq!(!orchestrator.requests("/capability/register").is_empty(), registered, "{}", worker.log());
    assert_eq!(
        worker.log().matches("WARN  [agent_net::cli::serve] ORCH_TLS=insecure: ").count(),
        usize::from(rule == "insecure")
    );
}

#[test]
fn insecure_takes_go_livepeers_own_certificate_and_warns() {
    check("orchestrator", "insecure", "registered n at", true);
}

#[test]
fn verify_sends_nothing_to_a_stranger() {
    check("orchestrator", "verify", "certificate not trusted", false);
    check("own", "verify", "certificate not trusted", false);
}

#[test]
fn a_root_of_ones_own_is_trusted_and_no_other() {
    check("own", &format!("ca:{}", file("root.pem")), "registered n at", true);
    check("own", &format!("ca:{}", file("orchestrator.pem")), "certificate not trusted", false);
}

/// A root that is itself the server's certificate is refused by every verifier: go-livepeer's own is of that kind.
#[test]
fn go_livepeers_own_certificate_as_a_root_names_the_cure_on_both_protocols() {
    let cure = "go-livepeer's own, made at each start: no ORCH_TLS=ca: can verify it. Set ORCH_TLS=insecure";
    check("orchestrator", &format!("ca:{}", file("orchestrator.pem")), cure, false);
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    orchestrator.runners(|runners| *runners = Some(Runners::new("s3cret")));
    let inner = orchestrator.url().strip_prefix("http://").unwrap().parse().unwrap();
    let url = format!("https://{}", in_front_of(inner, "orchestrator"));
    let rule = format!("ca:{}", file("orchestrator.pem"));
    let settings = [("ORCH_URL", &*url), ("ORCH_TLS", &rule), ("RUNNER_ID", "n"), ("ORCH_SECRET", "s3cret")];
    let worker = Worker::start(&[&settings[..], &[("ORCH_PROTOCOL", "live-runner")]].concat());
    wait_for(cure, || {
        let log = worker.log();
        log.lines().any(|line| line.contains("live runner") && line.contains(cure)).then_some(())
    });
    assert_eq!(orchestrator.count(), 0);
}
