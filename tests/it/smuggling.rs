//! Requests that two servers on the way could part differently: each is refused and the connection closed, and nginx in
//! front of the worker never sees other requests than the worker does.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::bad_input::{JOB, still_works, worker};
use crate::harness::{TIMEOUT, Worker, folder, skip, wait_for};
use crate::nvml::FakeNvml;

/// What an attacker wants to have taken for a request of its own.
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nHost: smuggled\r\n\r\n";

/// Lines between request line and body that leave it open where the body ends, or where the lines do.
const HEADERS: &[&str] = &[
    "Content-Length: 0\r\nContent-Length: 44\r\n",
    "Content-Length: 44\r\nContent-Length: 0\r\n",
    "Content-Length: 44\r\nContent-Length: 44\r\n",
    "Content-Length: 44\r\ncontent-length: 0\r\n",
    "Content-Length: 0, 44\r\n",
    "Content-Length: 44, 44\r\n",
    "Content-Length: +44\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 0x2c\r\n",
    "Content-Length: 4 4\r\n",
    "Content-Length: 44a\r\n",
    "Content-Length: 44;q=1\r\n",
    "Content-Length: \"44\"\r\n",
    "Content-Length:\r\n",
    "Content-Length: 18446744073709551660\r\n",
    "Content-Length: 99999999999999999999999\r\n",
    "Content-Length : 44\r\n",
    "Content-Length\t: 44\r\n",
    "Content-Length\0: 44\r\n",
    " Content-Length: 44\r\n",
    "\tContent-Length: 44\r\n",
    "Content-Length: 4\r\n 4\r\n",
    "Content-Length: \r\n 44\r\n",
    "X: a\r\n Content-Length: 44\r\n",
    "X: a\nContent-Length: 44\r\n",
    "X: a\rContent-Length: 44\r\n",
    "X: a\r\r\nContent-Length: 44\r\n",
    "X: a\0\r\nContent-Length: 44\r\n",
    "Content-Length: 44\n",
    "Content-Length: 44\r",
    "Content-Length 44\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 44\r\n",
    "Content-Length: 44\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 44\r\nTransfer-Encoding: identity\r\n",
    "Content-Length: 44\r\nTransfer-Encoding: \r\n",
    "Content-Length: 44\r\nTransfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: xchunked\r\n",
    "Transfer-Encoding: chunkedx\r\n",
    "Transfer-Encoding: chunked, identity\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: chunked, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\ntransfer-encoding: x\r\n",
    "Transfer-Encoding: \"chunked\"\r\n",
    "Transfer-Encoding: chunked;a=b\r\n",
    "Transfer-Encoding: chun ked\r\n",
    "Transfer-Encoding: chu\r\n nked\r\n",
    "Transfer-Encoding:\r\n chunked\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: \x0cchunked\r\n",
    "Transfer-Encoding: \0chunked\r\n",
    "Transfer-Encoding: chunked\0\r\n",
    "Transfer-Encoding: \u{a0}chunked\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer-Encoding\t: chunked\r\n",
    " Transfer-Encoding: chunked\r\n",
    "X: a\nTransfer-Encoding: chunked\r\n",
    "X: a\rTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding\r\n: chunked\r\n",
    "Transfer_Encoding: chunked\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "Host: other\r\nContent-Length: 0\r\n",
    ": chunked\r\nContent-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\nContent-Length: 44\r\n",
];

/// Chunked bodies whose end is not where it seems.
const CHUNKS: &[&str] = &[
    "0x0\r\n\r\n",
    "+0\r\n\r\n",
    "-0\r\n\r\n",
    " 0\r\n\r\n",
    "\t0\r\n\r\n",
    "0\n\n",
    "0\n\r\n",
    "0\r\r\n\r\n",
    "0\r\nX: y\n\r\n",
    "0 0\r\n\r\n",
    "g\r\n\r\n",
    "\r\n0\r\n\r\n",
    "2\r\n{}0\r\n\r\n",
    "2\r\n{}\n0\r\n\r\n",
    "2\n{}\r\n0\r\n\r\n",
    "2\r\n{}\r\r\n0\r\n\r\n",
    "1\r\n{}\r\n0\r\n\r\n",
    "3\r\n{}\r\n0\r\n\r\n",
    "2;a\nb\r\n{}\r\n0\r\n\r\n",
    "10000000000000002\r\n{}\r\n0\r\n\r\n",
    "ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "00000000000000000000000000000000000002\r\n{}\r\n0\r\n\r\n",
];

fn attacks() -> Vec<String> {
    let by_headers = HEADERS.iter().map(|headers| {
        let host = "Host: worker\r\n";
        format!("POST /gpu-check HTTP/1.1\r\n{host}{headers}\r\n{SMUGGLED}")
    });
    let by_chunks = CHUNKS.iter().map(|chunks| {
        format!("POST /gpu-check HTTP/1.1\r\nHost: worker\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}{SMUGGLED}")
    });
    by_headers.chain(by_chunks).collect()
}

/// Everything that comes back for these bytes, after which nothing more is sent.
fn all_answers(addr: SocketAddr, bytes: &[u8]) -> Vec<(u16, String)> {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    // It may have been refused and closed halfway.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut piece) {
        all.extend_from_slice(&piece[..read]);
    }
    parted(&all)
}

/// Answers that follow each other: status and body. Interim ones are left out.
fn parted(mut bytes: &[u8]) -> Vec<(u16, String)> {
    let mut answers = Vec::new();
    while let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]);
        let rest = &bytes[end + 4..];
        let status = head.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.parse().ok()).unwrap_or(0);
        let (body, rest) = rest.split_at(rest.len().min(length));
        if status >= 200 {
            answers.push((status, String::from_utf8_lossy(body).into_owned()));
        }
        bytes = rest;
    }
    answers
}

#[test]
fn whatever_has_two_readings_is_refused_and_closes() {
    let worker = worker();
    let attacks = attacks();
    assert!(attacks.len() >= 60);
    for attack in attacks {
        let answers = all_answers(worker.addr, attack.as_bytes());
        let [(status, body)] = answers.as_slice() else { panic!("{attack:?}: {answers:?}") };
        assert!((400..500).contains(status) && body.contains("\"status\":\"error\""), "{attack:?}: {answers:?}");
    }
    still_works(&worker, "all of them");
}

/// nginx, as it is; stopped on drop.
struct Nginx {
    child: Child,
    /// It answers by itself with what it has understood.
    reported: SocketAddr,
    /// It passes on to the worker, over one connection that it keeps.
    front: SocketAddr,
}

impl Nginx {
    /// None, with a line that says so, where there is none. With CI=true it must be there.
    fn start(dir: &Path, worker: &Worker) -> Option<Self> {
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"].iter().find(|p| Path::new(p).exists());
        let Some(program) = program else {
            skip("nginx is missing");
            return None;
        };
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
        let (reported, front) = (free(), free());
        let at = dir.display();
        let config = format!(
            r#"daemon off; master_process off; pid {at}/pid; error_log {at}/error.log; events {{ worker_connections 64; }}
http {{
    access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; proxy_ignore_client_abort on; underscores_in_headers on;
    ignore_invalid_headers off;
    upstream worker {{ server {worker}; keepalive 1; }}
    server {{ listen {reported}; location / {{ return 200 "$request_method $request_uri"; }} }}
    server {{
        listen {front};
        location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
}}"#,
            worker = worker.addr
        );
        fs::write(dir.join("nginx.conf"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("-e").arg(dir.join("start.log")).arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf"));
        let child = command.stderr(Stdio::null()).spawn().expect("nginx starts");
        wait_for("nginx", || TcpStream::connect(front).ok());
        Some(Self { child, reported, front })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A small generator of our own, so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }
}

/// Attacks and good requests, each changed in a few places.
fn variant(dice: &mut Dice, attacks: &[String]) -> Vec<u8> {
    let length = JOB.len();
    let good = [
        format!("POST /gpu-check HTTP/1.1\r\nHost: w\r\nContent-Length: {length}\r\n\r\n{JOB}{SMUGGLED}"),
        format!(
            "POST /gpu-check HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{JOB}\r\n0\r\n\r\n{SMUGGLED}"
        ),
        format!("GET /health HTTP/1.1\r\nHost: w\r\nContent-Length: {}\r\n\r\n{SMUGGLED}{SMUGGLED}", SMUGGLED.len()),
    ];
    let from = dice.roll(attacks.len() + 40);
    let mut bytes = attacks.get(from).unwrap_or(&good[from % 3]).clone().into_bytes();
    for _ in 0..dice.roll(4) {
        let at = dice.roll(bytes.len());
        let new = b"\r\n \t\0:;,0159aAfx\x0b\x7f\xff-_\"";
        match dice.roll(4) {
            0 => bytes.insert(at, new[dice.roll(new.len())]),
            1 => bytes[at] = new[dice.roll(new.len())],
            2 => drop(bytes.remove(at)),
            _ => {
                let end = (at + dice.roll(24)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// What a server took these answers' requests for, and whether it refused the rest of what came.
fn understood(
    answers: &[(u16, String)],
    word: impl Fn(&(u16, String)) -> Option<&'static str>,
) -> (Vec<&'static str>, bool) {
    let words: Vec<_> = answers.iter().map_while(word).collect();
    let refused = words.len() < answers.len();
    (words, refused)
}

/// The stricter one stops earlier; until then they agree.
fn agree(theirs: &(Vec<&str>, bool), ours: &(Vec<&str>, bool)) -> bool {
    let alike = theirs.0.iter().zip(&ours.0).all(|(a, b)| a == b || *a == "other" || *b == "other");
    alike && (theirs.1 || ours.0.len() <= theirs.0.len()) && (ours.1 || theirs.0.len() <= ours.0.len())
}

#[test]
fn nginx_in_front_sees_the_same_requests() {
    let nvml = FakeNvml::new("");
    let worker = Worker::start(&[nvml.settings().as_slice(), &[("CAPABILITY_CAPACITY", "1000")]].concat());
    let Some(nginx) = Nginx::start(&folder("nginx"), &worker) else { return };
    let attacks = attacks();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let cases = std::env::var("AGENT_NET_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    let (mut both, mut marks) = (0, 0);
    for case in 0..cases {
        let bytes = attacks.get(case).map_or_else(|| variant(&mut dice, &attacks), |a| a.clone().into_bytes());
        let theirs =
            understood(&all_answers(nginx.reported, &bytes), |(status, body)| match (*status, body.as_str()) {
                (200, "POST /gpu-check") => Some("job"),
                (200, "GET /health") => Some("health"),
                (200 | 404 | 405 | 411, _) => Some("other"),
                _ => None,
            });
        let ours = understood(&all_answers(worker.addr, &bytes), |(status, body)| {
            let framing = ["bad_request", "bad_framing", "incomplete_body", "timeout", "head_too_large"];
            match status {
                200 if body == r#"{"status":"ok"}"# => Some("health"),
                _ if framing.iter().any(|code| body.contains(&format!("\"code\":\"{code}\""))) => None,
                200 | 400 | 413 if !body.contains("not_found") => Some("job"),
                _ => Some("other"),
            }
        });
        assert!(
            agree(&theirs, &ours),
            "{case}: nginx {theirs:?}, worker {ours:?}: {:?}",
            String::from_utf8_lossy(&bytes)
        );
        both += usize::from(!theirs.0.is_empty() && !ours.0.is_empty());
        // Through nginx: no client gets the answer to another one's request.
        let _ = all_answers(nginx.front, &bytes);
        let mark = format!("{{\"agent_id\":\"mark-{case}\"}}");
        let probe = format!(
            "POST /gpu-check HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{mark}",
            mark.len()
        );
        let answers = all_answers(nginx.front, probe.as_bytes());
        let own = answers.len() == 1 && answers[0].1.contains(&format!("\"mark-{case}\""));
        assert!(own, "{case}: {answers:?} after {:?}", String::from_utf8_lossy(&bytes));
        marks += 1;
    }
    println!("{cases} cases, {both} of them understood by both, {marks} marks answered to their senders");
    assert!(both > cases / 10, "only {both} of {cases} were understood by both");
}
