//! Notifications through a forward proxy, as HTTPS_PROXY and NO_PROXY name it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::fake_receiver::FakeReceiver;
use crate::harness::{Worker, lock};

/// A forward proxy: it connects to this machine, whatever name it is asked for. The names that it was asked for.
fn forward_proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (addr, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let names = Arc::clone(&asked);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let names = Arc::clone(&names);
            thread::spawn(move || through(client, &names));
        }
    });
    (addr, asked)
}

/// One CONNECT, and then what both sides send.
fn through(mut client: TcpStream, names: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(name) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else { return };
    lock(names).push(name.to_owned());
    let port = name.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    let (mut to_client, mut from_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || io::copy(&mut from_server, &mut to_client));
    let _ = io::copy(&mut client, &mut server);
}

/// A worker without GPU and Ollama, which notifies `url`.
fn start(url: &str, more: &[(&str, &str)]) -> Worker {
    let settings = [("NOTIFY_URL", url), ("NOTIFY_AFTER", "0s"), ("EXPECTED_GPUS", "0")];
    Worker::start(&[&settings[..], more].concat())
}

#[test]
fn a_forward_proxy_looks_names_up_and_no_proxy_goes_around_it() {
    let (proxy, asked) = forward_proxy();
    let proxy = format!("http://{proxy}");
    let hidden = FakeReceiver::new();
    let url = hidden.url("/hook/secret99").replace("127.0.0.1", "hooks.invalid");
    let worker = start(&url, &[("HTTPS_PROXY", &proxy)]);
    hidden.wait_for(&["started unhealthy"]);
    let names = lock(&asked).clone();
    assert!(!names.is_empty() && names.iter().all(|name| name.starts_with("hooks.invalid:")), "{names:?}");
    assert!(!worker.log().contains("secret99"), "{}", worker.log());

    let near = FakeReceiver::new();
    let _worker = start(&near.url("/hook"), &[("HTTPS_PROXY", &proxy), ("NO_PROXY", "127.0.0.1")]);
    near.wait_for(&["started unhealthy"]);
    assert_eq!(lock(&asked).len(), names.len(), "{:?}", lock(&asked));
}
