//! Starts a worker and measures how long it takes to answer GET /health, for scripts/bench.sh.
//!
//! Usage: first PORT TIMES PROGRAM [ARGUMENT...]
//!   PORT: of the program on 127.0.0.1. Prints milliseconds, one line per start.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [port, times, program, rest @ ..] = args.as_slice() else { panic!("PORT TIMES PROGRAM are missing") };
    let port: u16 = port.parse().expect("a port");
    for _ in 0..times.parse::<u32>().expect("a number") {
        let start = Instant::now();
        let mut child = Command::new(program).args(rest).stderr(Stdio::null()).spawn().expect("it starts");
        while !answers(port) {
            assert!(start.elapsed() < Duration::from_secs(10), "no answer within 10 s");
            thread::sleep(Duration::from_micros(200));
        }
        let _ = writeln!(std::io::stdout(), "{:.2}", start.elapsed().as_secs_f64() * 1000.0);
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut answer = [0; 12];
    let asked = stream.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer.ends_with(b" 200")
}
