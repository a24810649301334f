//! Look-ups with resolvers that answer as a test wants.

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

/// Longer than anybody here waits.
fn silent(_: &str) -> io::Result<Vec<SocketAddr>> {
    std::thread::sleep(Duration::from_secs(30));
    good("")
}

const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(60);

#[test]
fn the_last_addresses_are_used_while_the_name_cannot_be_resolved() {
    let names: Arc<Names> = Arc::default();
    let why = names.find("ollama:1", LONG, failing).unwrap_err().to_string();
    assert_eq!(why, "the name ollama cannot be resolved (the DNS server fails or does not answer)");
    assert_eq!(names.find("ollama:1", LONG, good).unwrap(), Found { addresses: good("").unwrap(), old: None });
    let found = names.find("ollama:1", LONG, failing).unwrap();
    assert_eq!((found.addresses, found.old.map(|old| old.to_string())), (good("").unwrap(), Some(why)));
    // A name that moved is followed at once.
    assert_eq!(names.find("ollama:1", LONG, moved).unwrap(), Found { addresses: moved("").unwrap(), old: None });
    let late = names.find("ollama:1", SHORT, silent).unwrap();
    assert_eq!(late.addresses, moved("").unwrap());
    assert!(late.old.unwrap().to_string().contains("no answer from the DNS within 50.0ms"));
    assert!(names.find("[::1:1", LONG, |name| name.to_socket_addrs().map(Iterator::collect)).is_err());
}

#[test]
fn a_silent_dns_costs_one_look_up_and_is_named() {
    let names: Arc<Names> = Arc::default();
    for _ in 0..3 {
        let why = names.find("orchestrator:1", SHORT, silent).unwrap_err().to_string();
        assert!(why.contains("the name orchestrator cannot be resolved (no answer from the DNS"), "{why}");
    }
    assert_eq!(names.under_way.now(), 1);
}

#[test]
fn both_c_libraries_mean_the_same() {
    #[track_caller]
    fn check(said: &str, words: &str) {
        assert_eq!(in_words(&format!("failed to lookup address information: {said}")), words);
    }
    check("Try again", "the DNS server fails or does not answer");
    check("Temporary failure in name resolution", "the DNS server fails or does not answer");
    check("Name does not resolve", "the DNS knows no such name");
    check("Name or service not known", "the DNS knows no such name");
    check("Name has no usable address", "it has no address");
    check("Something new", "Something new");
}
