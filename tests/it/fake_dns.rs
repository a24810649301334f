//! A DNS server on port 53 of a loopback address, and a worker that asks no other. Its answers have the form of
//! RFC 1035; nothing of it is a real server's.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{command, folder, lock};
use crate::programs;

/// What each question is answered with.
#[derive(Debug, Clone, Copy)]
pub enum Behavior {
    Address(Ipv4Addr),
    /// This address, and `::1`.
    Both(Ipv4Addr),
    ServFail,
    NxDomain,
    Silent,
    /// This address after this many milliseconds.
    Late(u64, Ipv4Addr),
}

/// Its thread ends with the test.
pub struct FakeDns {
    behavior: Arc<Mutex<Behavior>>,
    questions: Arc<AtomicUsize>,
    resolv_conf: String,
}

impl FakeDns {
    /// None, with a line that says so, where port 53 or a mount of its own is not available. `host`: the last number of its
    /// address, which only one test may use.
    pub fn new(host: u8, behavior: Behavior) -> Option<Self> {
        let addr = SocketAddr::from(([127, 0, 0, host], 53));
        let mounts = Command::new("unshare").args(["-m", "true"]).output().is_ok_and(|ran| ran.status.success());
        let Some(socket) = UdpSocket::bind(addr).ok().filter(|_| mounts) else {
            println!("skipped: port 53 or a private mount is not available here");
            return None;
        };
        let folder = folder(&format!("dns-{host}"));
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        write("resolv.conf", &format!("nameserver {}\n", addr.ip()));
        write("nsswitch.conf", "hosts: files dns\n");
        let (behavior, questions) = (Arc::new(Mutex::new(behavior)), Arc::new(AtomicUsize::new(0)));
        let (answers, asked) = (Arc::clone(&behavior), Arc::clone(&questions));
        thread::spawn(move || {
            let socket = Arc::new(socket);
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                asked.fetch_add(1, Ordering::SeqCst);
                let behavior = *lock(&answers);
                let (socket, question) = (Arc::clone(&socket), buffer[..length].to_vec());
                thread::spawn(move || {
                    if let Behavior::Late(millis, _) = behavior {
                        thread::sleep(Duration::from_millis(millis));
                    }
                    answer(&question, behavior).map(|answer| socket.send_to(&answer, peer))
                });
            }
        });
        Some(Self { behavior, questions, resolv_conf: folder.to_str().unwrap().to_owned() })
    }

    pub fn set(&self, behavior: Behavior) {
        *lock(&self.behavior) = behavior;
    }

    /// Questions so far: two for each look-up, one of them for IPv6.
    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }

    /// `agent-net` that asks it alone.
    pub fn agent_net(&self) -> Command {
        let script = r#"for file in resolv.conf nsswitch.conf; do
            [ ! -e "/etc/$file" ] || mount --bind "$1/$file" "/etc/$file" || exit 99
        done; shift; exec "$@""#;
        let program = programs::server();
        let mut command = command("unshare");
        command.args(["-m", "sh", "-c", script, "sh", &self.resolv_conf]).arg(program);
        command
    }
}

fn answer(question: &[u8], behavior: Behavior) -> Option<Vec<u8>> {
    let name = question.get(12..)?;
    let end = 12 + name.iter().position(|byte| *byte == 0)? + 5;
    let (code, address) = match behavior {
        Behavior::Silent => return None,
        Behavior::ServFail => (2, None),
        Behavior::NxDomain => (3, None),
        Behavior::Address(address) | Behavior::Both(address) | Behavior::Late(_, address) => (0, Some(address)),
    };
    // A question for an A or AAAA record; for others there is none.
    let (kind, both) = (&question[end - 4..end], matches!(behavior, Behavior::Both(_)));
    let address = address.and_then(|address| match kind {
        [0, 1, 0, 1] => Some(address.octets().to_vec()),
        [0, 28, 0, 1] if both => Some(Ipv6Addr::LOCALHOST.octets().to_vec()),
        _ => None,
    });
    let answers = u8::from(address.is_some());
    let mut all = [&question[..2], &[0x81, 0x80 | code, 0, 1, 0, answers, 0, 0, 0, 0], &question[12..end]].concat();
    if let Some(address) = address {
        all.extend([0xc0, 12, 0, kind[1], 0, 1, 0, 0, 0, 1, 0, u8::try_from(address.len()).unwrap()]);
        all.extend(address);
    }
    Some(all)
}
