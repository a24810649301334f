//! Look-ups with fake resolvers.

use super::*;

fn good(_: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(vec![SocketAddr::from(([127, 0, 0, 1], 1))])
}

fn moved(_: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(vec![SocketAddr::from(([127, 0, 0, 2], 1))])
}

fn failing(_: &str) -> io::Result<Vec<SocketAddr>> {
    Err(io::Error::other("failed to lookup address information: Try again"))
}

/// Longer than any test waits.
fn silent(_: &str) -> io::Result<Vec<SocketAddr>> {
    std::thread::sleep(Duration::from_secs(30));
    good("")
}

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_last_addresses_are_used_while_the_name_cannot_be_resolved() {
    let resolver: Arc<Resolver> = Arc::default();
    let why = resolver.find("ollama:1", LONG, failing).unwrap_err().to_string();
    assert_eq!(why, "cannot resolve ollama: the DNS server fails or does not answer");
    assert_eq!(resolver.find("ollama:1", LONG, good).unwrap(), Found { addresses: good("").unwrap(), old: None });
    let found = resolver.find("ollama:1", LONG, failing).unwrap();
    assert_eq!((found.addresses, found.old.map(|old| old.to_string())), (good("").unwrap(), Some(why)));
    // New addresses are used immediately.
    assert_eq!(resolver.find("ollama:1", LONG, moved).unwrap(), Found { addresses: moved("").unwrap(), old: None });
    let late = resolver.find("ollama:1", SHORT, silent).unwrap();
    assert_eq!(late.addresses, moved("").unwrap());
    assert!(late.old.unwrap().to_string().contains("no answer from DNS within 50.0ms"));
    assert!(resolver.find("[::1:1", LONG, |name| name.to_socket_addrs().map(Iterator::collect)).is_err());
}

#[test]
fn a_silent_dns_costs_one_look_up_and_is_named() {
    let resolver: Arc<Resolver> = Arc::default();
    for _ in 0..3 {
        let why = resolver.find("orchestrator:1", SHORT, silent).unwrap_err().to_string();
        assert!(why.contains("cannot resolve orchestrator: no answer from DNS"), "{why}");
    }
    assert_eq!(resolver.under_way.now(), 1);
}

#[test]
fn both_c_libraries_mean_the_same() {
    #[track_caller]
    fn check(said: &str, words: &str) {
        assert_eq!(in_words(&format!("failed to lookup address information: {said}")), words);
    }
    check("Try again", "the DNS server fails or does not answer");
    check("Temporary failure in name resolution", "the DNS server fails or does not answer");
    check("Name does not resolve", "DNS does not know this name");
    check("Name or service not known", "DNS does not know this name");
    check("Name has no usable address", "it has no address");
    check("Something new", "Something new");
}
