//! The floor that scripts/bench.sh compares the worker with: rouille alone, one fixed JSON, no guard in front.

use std::io::Write;

fn main() {
    let server = rouille::Server::new("127.0.0.1:0", |_| {
        rouille::Response::from_data("application/json", r#"{"status":"success"}"#)
    })
    .expect("a loopback port");
    let _ = writeln!(std::io::stdout(), "{}", server.server_addr());
    server.pool_size(8).run();
}
