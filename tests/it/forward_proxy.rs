//! A forward proxy on the way to the receivers of NOTIFY_URL. As RFC 9110 has it for CONNECT: the proxy looks the name up.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::fake_receiver::FakeReceiver;
use crate::harness::{Worker, lock, wait_for};

/// It connects to this machine, whatever name it is asked for. The second: the names.
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
fn through(mut client: TcpStream, names: &Mutex<Vec<String>>) -> Option<()> {
    // The client sends nothing else before the answer.
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut line = first.clone();
    while line.trim() != "" {
        line.clear();
        reader.read_line(&mut line).ok()?;
    }
    let name = first.strip_prefix("CONNECT ")?.split(' ').next()?;
    lock(names).push(name.to_owned());
    let port = name.rsplit_once(':')?.1.parse().ok()?;
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    let (mut to_client, mut from_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    thread::spawn(move || io::copy(&mut from_server, &mut to_client));
    io::copy(&mut client, &mut server).ok()?;
    None
}

/// The names that the proxy was asked for.
fn notified_through(host: &str, more: &[(&str, &str)]) -> Vec<String> {
    let (receiver, (proxy, asked)) = (FakeReceiver::new(), forward_proxy());
    let port = receiver.addr.port().to_string();
    let (proxy, url) = (format!("http://{proxy}"), format!("http://{host}:{port}/hook"));
    let settings =
        [("EXPECTED_GPUS", "0"), ("NOTIFY_AFTER", "0s"), ("NOTIFY_URL", url.as_str()), ("HTTPS_PROXY", &proxy)];
    let _worker = Worker::start(&[&settings[..], more].concat());
    wait_for("the message", || (receiver.words().len() == 1).then_some(()));
    let names = lock(&asked).clone();
    names.into_iter().map(|name| name.replace(&port, "PORT")).collect()
}

#[test]
fn a_name_that_only_the_proxy_knows_reaches_the_receiver() {
    assert_eq!(notified_through("hooks.invalid", &[]), ["hooks.invalid:PORT"]);
}

#[test]
fn no_proxy_goes_straight_to_the_receiver() {
    assert_eq!(notified_through("127.0.0.1", &[("NO_PROXY", "127.0.0.1")]), [""; 0]);
}
