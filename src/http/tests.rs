//! A port whose handler waits.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};

use super::reply::Reply;
use super::*;

/// An answer that waits for memory, or for anything else, keeps its turn meanwhile.
#[test]
fn a_probe_waits_for_no_other_request() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let begun = Arc::new(AtomicU64::new(0));
    let ends = Arc::new((Mutex::new(false), Condvar::new()));
    let (counted, end) = (Arc::clone(&begun), Arc::clone(&ends));
    let service = Service::new(
        Box::new(move |request| {
            if request.target == "/slow" {
                counted.fetch_add(1, Ordering::AcqRel);
                drop(end.1.wait_while(end.0.lock().unwrap(), |ends| !*ends).unwrap());
            }
            Reply::json(if request.surplus { 503 } else { 200 }, "{}".to_owned())
        }),
        |target| target == "/health",
    );
    let limits = GateLimits { connections: 64, jobs: 8, body: 1024, memory: 1 << 20 };
    let port = start(vec![listener], service, limits, Pulse::default(), false).unwrap();
    let ask = |target: &str| {
        let mut stream = TcpStream::connect(addr).unwrap();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        stream
    };
    let slow: Vec<TcpStream> = (0..4).map(|_| ask("/slow")).collect();
    while begun.load(Ordering::Acquire) < 4 {
        std::thread::yield_now();
    }
    let status = |mut stream: TcpStream| {
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        String::from_utf8_lossy(&head[9..]).into_owned()
    };
    assert_eq!(status(ask("/health")), "200");
    assert_eq!(port.health(Duration::from_secs(60)), Some(200), "nor does the watchdog");
    assert_eq!(status(ask("/gpu")), "503", "all turns of its kind are taken, and it reaches the handler to be counted");
    *ends.0.lock().unwrap() = true;
    ends.1.notify_all();
    for stream in slow {
        assert_eq!(status(stream), "200");
    }
}
