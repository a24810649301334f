//! A worker is replaced while a job comes every 100 ms through an orchestrator. Where the port outlives the worker, no job
//! is lost.

use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::fake_gateway::{Gateway, Outcome};
use crate::fake_orchestrator::{Behavior, FakeOrchestrator};
use crate::harness::{agent_net, command, from_env, lock, run, wait_for};
use crate::hold_port::{Holder, NAME, Scene, ends_well, free_port};
use crate::http::Connection;
use crate::image::{client, docker, unique};
use crate::jobs::job;
use crate::nvml::FakeNvml;
use crate::programs;

const PAUSE: Duration = Duration::from_millis(100);
/// The orchestrator's limit for idle connections.
const IDLE: Duration = Duration::from_secs(60);
const MOST_JOBS: usize = 3000;
const MOST_EAGER: usize = 50_000;
/// The machine has other tests to run.
const BREATH: Duration = Duration::from_millis(5);
const RESTARTS: usize = 6;
const JOBS_BETWEEN: usize = 14;

/// Jobs that came of an upgrade.
#[derive(Debug, Default)]
struct Tally {
    answered: usize,
    /// With the moment at which each was sent, and what became of it.
    lost: Vec<String>,
}

/// Who sends jobs.
#[derive(Clone, Copy, PartialEq)]
enum Clients {
    /// One that sends a job every 100 ms, whether the one before was answered or not.
    Steady,
    /// The same, and one that sends each job as soon as the one before was answered: the worst that a connection can meet
    /// that is closed.
    Eager,
}

/// Jobs from before the restarts to after them.
fn while_jobs_come(orchestrator: &FakeOrchestrator, clients: Clients, mut restart: impl FnMut()) -> Tally {
    let gateway = Gateway::new(orchestrator, IDLE);
    let (tally, ends, steady) = (Mutex::new(Tally::default()), AtomicBool::new(false), AtomicUsize::new(0));
    let start = Instant::now();
    let send = || {
        let at = start.elapsed();
        let outcome = gateway.job(NAME, "/gpu-check", &job("upgrade"), false);
        let mut tally = lock(&tally);
        match outcome {
            Outcome::Answer(answer) if answer.status == 200 => tally.answered += 1,
            other => {
                tally.lost.push(format!("{at:?}: {other:?}"));
                drop(tally);
                thread::sleep(PAUSE);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MOST_JOBS {
                if ends.load(Ordering::Acquire) {
                    return;
                }
                scope.spawn(send);
                steady.fetch_add(1, Ordering::AcqRel);
                thread::sleep(PAUSE);
            }
        });
        if clients == Clients::Eager {
            scope.spawn(|| {
                for number in 0..MOST_EAGER {
                    if ends.load(Ordering::Acquire) {
                        return;
                    }
                    send();
                    if number % 10 == 9 {
                        thread::sleep(BREATH);
                    }
                }
            });
        }
        let some = || {
            let (sent, answered) = (steady.load(Ordering::Acquire), lock(&tally).answered);
            let more = || steady.load(Ordering::Acquire) >= sent + JOBS_BETWEEN && lock(&tally).answered > answered;
            wait_for("jobs", || more().then_some(()));
        };
        some();
        for _ in 0..RESTARTS {
            restart();
            some();
        }
        ends.store(true, Ordering::Release);
    });
    tally.into_inner().unwrap()
}

/// Without a port that outlives the worker jobs are lost: the number is printed, and depends on the machine.
#[test]
fn after_a_plain_restart_the_worker_is_registered_again() {
    let scene = Scene::new("plain", free_port());
    let port = scene.port.to_string();
    let start = || scene.worker(agent_net(), &[("SERVER_PORT", &port)]);
    let mut worker = Some(start());
    scene.is_registered();
    let tally = while_jobs_come(&scene.orchestrator, Clients::Steady, || {
        worker.take().unwrap().stop();
        worker = Some(start());
        scene.is_registered();
    });
    println!("plain: {} jobs lost in {RESTARTS} restarts: {tally:#?}", tally.lost.len());
    assert!(scene.unregistered() >= RESTARTS);
}

/// The test in the place of systemd: it listens, and passes the socket on as file 3. Compared with systemd's
/// sd_listen_fds(3).
fn activated(listener: &TcpListener) -> Command {
    let mut shell = command("sh");
    let start = format!("exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec {} \"$@\"", programs::server());
    shell.arg("-c").arg(start).arg("sh").envs(programs::environment());
    shell.stdin(Stdio::from(OwnedFd::from(listener.try_clone().unwrap())));
    shell
}

#[test]
fn with_the_socket_of_systemd_a_restart_loses_no_job() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let scene = Scene::new("systemd", listener.local_addr().unwrap().port());
    let gpus = FakeNvml::new("");
    let start = || scene.worker(activated(&listener), &gpus.settings());
    let mut worker = Some(start());
    assert_eq!(worker.as_ref().unwrap().addr.port(), scene.port, "it takes the port that it was given");
    scene.is_registered();
    let tally = while_jobs_come(&scene.orchestrator, Clients::Eager, || {
        ends_well(worker.take().unwrap());
        worker = Some(start());
    });
    println!("systemd's socket: {} answered", tally.answered);
    assert!(tally.lost.is_empty(), "{tally:#?}");
    assert_eq!(scene.unregistered(), 0);
    let worker = worker.unwrap();
    let helper = wait_for("a helper", || worker.helpers().pop());
    let files = |process: &str| std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let of = |process: &str| files(process).filter_map(|file| std::fs::read_link(file.path()).ok()).collect::<Vec<_>>();
    let socket = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
    assert!(of(&worker.pid().as_raw_nonzero().to_string()).contains(&socket));
    assert!(!of(&helper.as_raw_nonzero().to_string()).contains(&socket), "the helper must not keep the port");
    worker.signal(Signal::INT);
    worker.wait();
    assert!(scene.orchestrator.registered(NAME).is_none(), "SIGINT leaves");
}

#[test]
fn with_a_held_port_a_restart_loses_no_job() {
    let scene = Scene::new("held", free_port());
    let holder = Holder::start(scene.port, &scene.socket());
    let (mut worker, mut both) = (Some(scene.beside_holder(&[])), true);
    scene.is_registered();
    let tally = while_jobs_come(&scene.orchestrator, Clients::Eager, || {
        both = !both;
        if both {
            // Both accept for a while.
            let next = scene.beside_holder(&[]);
            ends_well(worker.replace(next).unwrap());
        } else {
            ends_well(worker.take().unwrap());
            worker = Some(scene.beside_holder(&[]));
        }
    });
    println!("held port: {} answered", tally.answered);
    assert!(tally.lost.is_empty(), "{tally:#?}");
    assert_eq!(scene.unregistered(), 0);
    assert_eq!(worker.unwrap().get("/health").status, 200, "its own port is there as well");
    assert_eq!(holder.end(Signal::TERM), Some(0));
    assert!(!scene.socket().exists());
}

#[test]
fn with_a_held_port_kill_9_loses_only_jobs_in_flight() {
    let scene = Scene::new("killed", free_port());
    let _holder = Holder::start(scene.port, &scene.socket());
    let mut worker = Some(scene.beside_holder(&[]));
    scene.is_registered();
    let tally = while_jobs_come(&scene.orchestrator, Clients::Steady, || {
        let killed = worker.take().unwrap();
        killed.signal(Signal::KILL);
        killed.wait();
        worker = Some(scene.beside_holder(&[]));
        scene.is_registered();
    });
    let broken = tally.lost.iter().filter(|lost| lost.contains("Removed")).count();
    println!("held port, kill -9: {} answered, {broken} broken, {} lost", tally.answered, tally.lost.len());
    // At most one job is in flight at a time.
    assert!(broken <= RESTARTS, "{tally:#?}");
}

/// What `compose/hold-port.yaml` starts; both removed on drop, with the volume.
struct Containers {
    image: String,
    volume: String,
    holder: String,
    worker: String,
}

impl Containers {
    fn start(image: String) -> Self {
        let all = Self { image, volume: unique("port"), holder: unique("holder"), worker: unique("worker") };
        let memory =
            ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=64k,mode=0700,uid=65532,gid=65532"];
        docker(&[&["volume", "create", "--driver", "local"], &memory[..], &[&all.volume]].concat());
        all.run(&all.holder, &["--memory", "16m", "--env", "SERVER_PORT=9877"], &["hold-port"]);
        all.start_worker();
        all
    }

    fn run(&self, name: &str, options: &[&str], command: &[&str]) {
        let mounted = format!("{}:/port", self.volume);
        let mut run =
            vec!["run", "--detach", "--name", name, "--read-only", "--cap-drop", "ALL", "--user", "65532:65532"];
        run.extend(["--security-opt", "no-new-privileges", "--restart", "unless-stopped", "--stop-timeout", "20"]);
        run.extend(["--volume", &mounted, "--env", "PORT_SOCKET=/port/port.sock"]);
        docker(&[&run[..], options, &[&self.image], command].concat());
    }

    fn start_worker(&self) {
        let settings = ["EXPECTED_GPUS=0", "OLLAMA_URL=http://127.0.0.1:9", "CAPABILITY_URL=http://port:9877"];
        let settings: Vec<_> = settings.iter().flat_map(|setting| ["--env", setting]).collect();
        self.run(&self.worker, &[&["--memory", "64m"], &settings[..]].concat(), &[]);
    }

    fn inspect(name: &str, what: &str) -> String {
        docker(&["inspect", "--format", what, name]).trim().to_owned()
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for name in [&self.worker, &self.holder] {
            if thread::panicking() {
                let (_, _, log) = run(client().args(["logs", name]));
                eprintln!("--- the log of {name}\n{log}---");
            }
            let _ = client().args(["rm", "--force", name]).output();
        }
        let _ = client().args(["volume", "rm", "--force", &self.volume]).output();
    }
}

#[test]
fn a_container_that_is_replaced_beside_a_holder_loses_no_job() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let containers = Containers::start(image);
    // Not through Docker's proxy, which accepts on its own.
    let addr = Containers::inspect(&containers.holder, "{{.NetworkSettings.IPAddress}}:9877");
    let orchestrator = FakeOrchestrator::new(Behavior::Ok);
    wait_for("the held port", || Connection::try_open(addr.parse().expect("an address")).ok());
    orchestrator.put(NAME, serde_json::json!({"name": NAME, "url": format!("http://{addr}")}));
    let tally = while_jobs_come(&orchestrator, Clients::Eager, || {
        docker(&["stop", &containers.worker]);
        assert_eq!(Containers::inspect(&containers.worker, "{{.State.ExitCode}}"), "0");
        docker(&["rm", &containers.worker]);
        containers.start_worker();
    });
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", Containers::inspect(&containers.holder, "{{.State.Pid}}")));
    let memory = status.unwrap_or_default().lines().find(|line| line.starts_with("VmRSS:")).map(str::to_owned);
    println!("containers: {} answered; the holder has {memory:?}", tally.answered);
    assert!(tally.lost.is_empty(), "{tally:#?}");
    // SIGINT is how to leave: it is not started again.
    docker(&["kill", "--signal", "SIGINT", &containers.worker]);
    wait_for("its end", || (Containers::inspect(&containers.worker, "{{.State.Status}}") == "exited").then_some(()));
    assert_eq!(Containers::inspect(&containers.worker, "{{.State.ExitCode}}"), "0");
    docker(&["stop", &containers.holder]);
    assert_eq!(Containers::inspect(&containers.holder, "{{.State.ExitCode}}"), "0", "it is process 1 there");
}
