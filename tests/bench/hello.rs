//! What scripts/bench.sh runs beside the worker: the floor, which is rouille alone with one fixed JSON and no guard in
//! front; and, at /ollama/MODELS, an Ollama with so many models, of which one in ten is loaded.
//!
//! Usage: hello [THREADS]

use std::io::Write;

use rouille::Response;

fn main() {
    let server = rouille::Server::new("127.0.0.1:0", |request| {
        let body = request.raw_url().strip_prefix("/ollama/").map(ollama);
        Response::from_data("application/json", body.unwrap_or_else(|| r#"{"status":"success"}"#.into()))
    })
    .expect("a loopback port");
    let _ = writeln!(std::io::stdout(), "{}", server.server_addr());
    let threads = std::env::args().nth(1).map_or(8, |threads| threads.parse().expect("a number of threads"));
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
