//! The baseline of scripts/bench.sh: rouille alone with a fixed JSON and without limits. At /ollama/MODELS it is an Ollama
//! with MODELS models, one in ten of them loaded.
//!
//! Usage: hello [THREADS]
//!        hello warm ADDRESS CONNECTIONS
//!   warm: gives the server at ADDRESS one thread per connection for the next 5 s. tiny_http, below rouille, queues a
//!   burst of connections behind threads that serve others, so a benchmark would measure fewer connections than it says.

use std::io::{Read, Write};
use std::net::TcpStream;

use rouille::Response;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [word, address, connections] if word == "warm" => {
            warm(address, connections.parse().expect("a number of connections"));
        }
        [] => serve(8),
        [threads] => serve(threads.parse().expect("a number of threads")),
        _ => panic!("see the usage at the start of this file"),
    }
}

/// A connection that was answered has its own thread, which waits for another one when it is closed.
fn warm(address: &str, connections: usize) {
    let open = |_| {
        let mut stream = TcpStream::connect(address).expect("a server");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it reads");
        assert_ne!(stream.read(&mut [0; 1024]).expect("an answer"), 0);
        stream
    };
    drop((0..connections).map(open).collect::<Vec<_>>());
}

fn serve(threads: usize) {
    let server = rouille::Server::new("127.0.0.1:0", |request| {
        let body = request.raw_url().strip_prefix("/ollama/").map(ollama);
        Response::from_data("application/json", body.unwrap_or_else(|| r#"{"status":"success"}"#.into()))
    })
    .expect("a loopback port");
    let _ = writeln!(std::io::stdout(), "{}", server.server_addr());
    server.pool_size(threads).run();
}

fn ollama(asked: &str) -> String {
    let (models, path) = asked.split_once('/').unwrap_or((asked, ""));
    let models: usize = models.parse().unwrap_or(0);
    let one = |i: usize| {
        format!(
            r#"{{"name":"model-{i}:8b-instruct-q4_K_M","size":4920753328,"size_vram":400000000,"digest":"{i:064x}"}}"#
        )
    };
    let list = |of: usize| format!(r#"{{"models":[{}]}}"#, (0..of).map(one).collect::<Vec<_>>().join(","));
    match path {
        "api/version" => r#"{"version":"0.32.4"}"#.into(),
        "api/tags" => list(models),
        _ => list(models.div_ceil(10)),
    }
}
