//! Misbehaving clients and a well-behaved one against the worker at ADDRESS, for scripts/attack.sh.
//!
//! Usage: hostile ADDRESS SECONDS [SCALE]
//!   SCALE: percent of the usual number of clients, default 100; 0: only the well-behaved client
//!
//! Misbehaving: 2,000 idle clients, 300 that send a header byte by byte, 300 that send a body byte by byte, 50 with an
//! endless header line, 100 that request much and read nothing. A disconnected client returns within a second. The
//! well-behaved client sends a job every 5 ms, alternating between a kept connection and a new one. Prints one line:
//! `jobs N failed N p50_ms X p99_ms X p999_ms X max_ms X reconnects N`

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::{Resource, getrlimit, setrlimit};

const JOB: &[u8] = b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 19\r\n\r\n{\"agent_id\":\"good\"}";
/// Between two bytes of a slow client, and between two rounds over all clients of a kind.
const TICK: Duration = Duration::from_millis(100);

/// A kind of misbehaving client: what it sends first, and with every tick.
#[derive(Clone, Copy)]
struct Kind {
    count: usize,
    first: &'static [u8],
    more: &'static [u8],
    reads: bool,
}

const CROWD: [Kind; 5] = [
    Kind { count: 2000, first: b"", more: b"", reads: true },
    Kind { count: 300, first: b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nX-Slow: ", more: b"a", reads: true },
    Kind {
        count: 300,
        first: b"POST /gpu-check HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{",
        more: b" ",
        reads: true,
    },
    Kind { count: 50, first: b"GET / HTTP/1.1\r\nX-Endless: ", more: &[b'a'; 2048], reads: true },
    Kind { count: 100, first: b"", more: b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", reads: false },
];

fn main() {
    let mut args = std::env::args().skip(1);
    let mut next = |what: &str| args.next().unwrap_or_else(|| panic!("{what} is missing"));
    let address: SocketAddr = next("ADDRESS").parse().expect("an address");
    let seconds: u64 = next("SECONDS").parse().expect("a number of seconds");
    let scale: usize = args.next().map_or(100, |scale| scale.parse().expect("percent"));
    let (over, reconnects) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // A descriptor for each of them.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map_or(Some(8192), |most| Some(most.min(8192)));
    setrlimit(Resource::Nofile, limit).expect("as many as are allowed");
    let crowd: Vec<_> = CROWD
        .into_iter()
        .map(|kind| {
            let (over, reconnects) = (Arc::clone(&over), Arc::clone(&reconnects));
            thread::spawn(move || attack(address, kind, kind.count * scale / 100, &over, &reconnects))
        })
        .collect();
    if scale > 0 {
        // All are connected.
        thread::sleep(Duration::from_secs(2));
    }
    let line = good_client(address, Duration::from_secs(seconds));
    over.store(true, Ordering::Release);
    for one in crowd {
        let _ = one.join();
    }
    let _ = writeln!(std::io::stdout(), "{line} reconnects {}", reconnects.load(Ordering::Acquire));
}

fn attack(address: SocketAddr, kind: Kind, count: usize, over: &AtomicBool, reconnects: &AtomicUsize) {
    let mut all: Vec<Option<TcpStream>> = (0..count).map(|_| None).collect();
    for tick in 0.. {
        if over.load(Ordering::Acquire) {
            return;
        }
        for (number, one) in all.iter_mut().enumerate() {
            let lives = one.as_mut().is_some_and(|stream| goes_on(stream, kind));
            if !lives {
                *one = None;
                // One in ten reconnects with each tick.
                if number % 10 == tick % 10 {
                    *one = connect(address, kind).ok();
                    reconnects.fetch_add(1, Ordering::AcqRel);
                }
            }
        }
        thread::sleep(TICK);
    }
}

fn connect(address: SocketAddr, kind: Kind) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    if !kind.reads {
        set_socket_recv_buffer_size(&stream, 1024)?;
    }
    stream.set_nonblocking(true)?;
    stream.write_all(kind.first)?;
    Ok(stream)
}

/// One tick of a misbehaving client; false if it was disconnected.
fn goes_on(stream: &mut TcpStream, kind: Kind) -> bool {
    let blocked = |why: &std::io::Error| why.kind() == ErrorKind::WouldBlock;
    if kind.reads {
        match stream.read(&mut [0; 1024]) {
            Ok(0) => return false,
            Err(why) if !blocked(&why) => return false,
            _ => {}
        }
    }
    // What does not fit now is sent later.
    kind.more.is_empty() || stream.write(kind.more).map_or_else(|why| blocked(&why), |_| true)
}

fn good_client(address: SocketAddr, time: Duration) -> String {
    let mut kept = None;
    let (mut took, mut failed) = (Vec::new(), 0);
    let end = Instant::now() + time;
    while Instant::now() < end {
        let start = Instant::now();
        let on_new = took.len() % 2 == 1;
        let done = if on_new { job_on(&mut None, address) } else { job_on(&mut kept, address) };
        match done {
            Ok(()) => {}
            Err(why) => {
                failed += 1;
                if failed <= 3 {
                    let what = if on_new { "new" } else { "kept" };
                    let _ = writeln!(std::io::stderr(), "a job failed on a {what} connection: {why}");
                }
                kept = None;
            }
        }
        took.push(start.elapsed());
        thread::sleep(Duration::from_millis(5));
    }
    took.sort_unstable();
    let at = |per_mille: usize| took[(took.len() - 1) * per_mille / 1000].as_secs_f64() * 1000.0;
    format!(
        "jobs {} failed {failed} p50_ms {:.2} p99_ms {:.2} p999_ms {:.2} max_ms {:.2}",
        took.len(),
        at(500),
        at(990),
        at(999),
        at(1000)
    )
}

/// One job; opens a connection if there is none.
fn job_on(connection: &mut Option<TcpStream>, address: SocketAddr) -> std::io::Result<()> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(TcpStream::connect(address)?),
    };
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(JOB)?;
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 16 * 1024];
        match stream.read(&mut piece)? {
            0 => return Err(std::io::Error::other(format!("cut short: {}", String::from_utf8_lossy(&answer)))),
            read => answer.extend_from_slice(&piece[..read]),
        }
        if is_whole(&answer) {
            break;
        }
    }
    let right = answer.starts_with(b"HTTP/1.1 200 ") && answer.windows(17).any(|w| w == b"\"agent_id\":\"good\"");
    if right { Ok(()) } else { Err(std::io::Error::other(String::from_utf8_lossy(&answer).into_owned())) }
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}
