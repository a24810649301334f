//! The rows' sides: how each part is made to fail in each way, how that shows, and how it is repaired.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};

use super::{Fault, Meanwhile, Scene};
use crate::fake_ollama::{Answer, PS, TAGS, VERSION};
use crate::fake_orchestrator::Behavior;
use crate::harness::{run, wait_for};
use crate::programs;

/// What a worker depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    GpuHelper,
    Ollama,
    Orchestrator,
    Disk,
    Clock,
    Memory,
    Descriptors,
    Threads,
    Names,
}

use Fault::{AwayAtStart, ComesBack, Dies, Garbage, HalfAnswer, Hangs, Slow};

impl Part {
    /// Its number in preload.rs.
    fn number(self) -> Option<u64> {
        match self {
            Self::Disk => Some(0),
            Self::Clock => Some(1),
            Self::Descriptors => Some(2),
            Self::Threads => Some(3),
            Self::Names => Some(4),
            Self::GpuHelper | Self::Ollama | Self::Orchestrator | Self::Memory => None,
        }
    }

    fn tamper(self, scene: &Scene, mode: u8) {
        scene.tamper(self.number().expect("a part of the C library"), mode);
    }

    /// Without it there is no worker, only a sentence that says so.
    pub fn is_needed_to_start(self) -> bool {
        matches!(self, Self::Memory | Self::Descriptors | Self::Threads)
    }

    #[track_caller]
    pub fn refuses_to_start(self, scene: &Scene) {
        let mut command = scene.command();
        if self == Self::Memory {
            // In a container it is the kernel that ends it; this is what a process can do to itself.
            let (program, args) = (command.get_program().to_owned(), "ulimit -v 24000; exec \"$0\" serve");
            let mut shell = std::process::Command::new("sh");
            shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            shell.arg("-c").arg(args).arg(program);
            command = shell;
        }
        let (status, _, stderr) = run(&mut command);
        assert!(!status.success(), "{stderr}");
        assert!(!stderr.contains("listening") && stderr.contains("cannot"), "{stderr}");
    }

    /// What must be so before the worker starts.
    pub fn prepare(self, scene: &mut Scene, fault: Fault) {
        if (self, fault) == (Self::Memory, Garbage) {
            // The C library fills what it hands out, and what it takes back.
            scene.set("MALLOC_PERTURB_", "165");
        }
    }

    pub fn inject(self, scene: &mut Scene, fault: Fault) {
        if fault == ComesBack {
            for _ in 0..3 {
                let before = self.number().map(|part| scene.tampered(part));
                self.inject(scene, Dies);
                thread::sleep(Duration::from_millis(300));
                wait_for("a call that suffers", || {
                    (self.number().map(|part| scene.tampered(part)) > before || before.is_none()).then_some(())
                });
                self.heal(scene, Dies);
                thread::sleep(Duration::from_millis(300));
            }
            return;
        }
        match self {
            Self::GpuHelper => helper(scene, fault),
            Self::Ollama => ollama(scene, fault),
            Self::Orchestrator => match fault {
                AwayAtStart | Dies => scene.orchestrator.stop(),
                Hangs => scene.orchestrator.set(Behavior::Hang),
                Slow => scene.orchestrator.set(Behavior::Slow),
                Garbage => scene.orchestrator.set(Behavior::Garbage),
                HalfAnswer | ComesBack => scene.orchestrator.set(Behavior::Half),
            },
            Self::Memory => memory(scene, fault),
            Self::Disk | Self::Clock | Self::Descriptors | Self::Threads | Self::Names => {
                let mode = match fault {
                    AwayAtStart if self == Self::Names => b'a',
                    AwayAtStart | Dies => b'd',
                    Hangs => b'h',
                    Slow => b's',
                    Garbage => b'g',
                    HalfAnswer | ComesBack => b'p',
                };
                self.tamper(scene, mode);
                match self {
                    // Whoever is connected needs no name.
                    Self::Names => scene.ollama.start(),
                    // More than the threads that stay.
                    Self::Threads if fault != AwayAtStart => scene.crowd(20),
                    _ => {}
                }
            }
        }
    }

    pub fn heal(self, scene: &mut Scene, fault: Fault) {
        match self {
            Self::GpuHelper => {
                scene.nvml.set("");
                let _ = fs::remove_file(&scene.helper);
                symlink(programs::helper(), &scene.helper).unwrap();
            }
            Self::Ollama => {
                scene.ollama.start();
                for (path, body) in [("/api/version", VERSION), ("/api/tags", TAGS), ("/api/ps", PS)] {
                    scene.ollama.set(path, Answer::Json(body.into()));
                }
            }
            Self::Orchestrator => {
                scene.orchestrator.set(Behavior::Ok);
                if matches!(fault, AwayAtStart | Dies) {
                    scene.orchestrator.start();
                }
            }
            Self::Memory if matches!(fault, Dies | HalfAnswer) => limit(scene, Resource::As, None),
            Self::Memory => {}
            Self::Disk | Self::Clock | Self::Descriptors | Self::Threads | Self::Names => {
                self.tamper(scene, 0);
            }
        }
    }

    /// A new connection is answered meanwhile, not only one that is there.
    pub fn takes_connections(self, fault: Fault) -> bool {
        !matches!((self, fault), (Self::Descriptors, Dies | Hangs) | (Self::Threads, Hangs))
    }

    /// The fault is there, and not only meant to be.
    #[track_caller]
    pub fn is_felt(self, scene: &mut Scene, fault: Fault) {
        match self {
            Self::Orchestrator if fault != ComesBack => {
                let before = scene.orchestrator.count();
                let asked = |scene: &Scene| scene.orchestrator.count() > before;
                let failing = |scene: &Scene| scene.metric("agent_net_registration_failures_total") > 0.0;
                wait_for("a registration that suffers", || {
                    let suffers = if fault == Slow { asked(scene) } else { failing(scene) };
                    suffers.then_some(())
                });
            }
            _ => {}
        }
        if let Some(part) = self.number() {
            wait_for("a call that suffers", || (scene.tampered(part) > 0).then_some(()));
        }
    }

    pub fn meanwhile(self, fault: Fault) -> Meanwhile {
        match (self, fault) {
            (Self::GpuHelper, AwayAtStart) => Meanwhile::Says(&["NVML_HELPER_MISSING"]),
            (Self::GpuHelper, Dies | Garbage | HalfAnswer) => Meanwhile::Says(&["NVML_HELPER_FAILED"]),
            (Self::GpuHelper, Hangs) => Meanwhile::Says(&["DRIVER_STUCK"]),
            (Self::Ollama, AwayAtStart | Dies) => Meanwhile::Says(&["OLLAMA_DOWN"]),
            (Self::Ollama, Hangs) => Meanwhile::Says(&["OLLAMA_NO_ANSWER"]),
            (Self::Ollama, Garbage | HalfAnswer) => Meanwhile::Says(&["OLLAMA_LIST_FAILED", "OLLAMA_NO_ANSWER"]),
            // Where a name led before, it is found without a look-up.
            (Self::Names, AwayAtStart | Garbage) => Meanwhile::Says(&["OLLAMA_DOWN"]),
            _ => Meanwhile::Ok,
        }
    }

    #[track_caller]
    pub fn is_well(self, scene: &mut Scene) {
        match self {
            Self::Disk => wait_for("a minute on the disk", || {
                let written = scene.metric("agent_net_state_last_write_timestamp_seconds");
                let file = fs::read(scene.state.join("uptime.bin")).unwrap_or_default();
                (written > 0.0 && file.starts_with(b"AGNTUP1\n")).then_some(())
            }),
            Self::Clock => {
                let reported = scene.report()["timestamp"].as_f64().unwrap();
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
                assert!((now - reported).abs() < 60.0, "{reported} instead of {now}");
            }
            _ => {}
        }
    }
}

fn helper(scene: &Scene, fault: Fault) {
    match fault {
        AwayAtStart => fs::remove_file(&scene.helper).unwrap(),
        Dies | ComesBack => scene.nvml.set("at_init=crash\nat_sample=crash"),
        Hangs => scene.nvml.set("at_sample=hang"),
        Slow => scene.nvml.set("at_sample=sleep:700"),
        Garbage => replace_helper(scene, "while read -r line; do echo nonsense; done"),
        HalfAnswer => replace_helper(scene, "printf '{\"version\":'"),
    }
}

/// Something else answers in its place.
fn replace_helper(scene: &Scene, script: &str) {
    let new = scene.helper.with_extension("new");
    fs::write(&new, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(&new, &scene.helper).unwrap();
    for helper in scene.worker().helpers() {
        let _ = kill_process(helper, Signal::KILL);
    }
}

fn ollama(scene: &mut Scene, fault: Fault) {
    match fault {
        AwayAtStart | Dies | ComesBack => scene.ollama.stop(),
        Hangs => scene.ollama.set_all(&Answer::Hang),
        Slow => {
            for (path, body) in [("/api/version", VERSION), ("/api/tags", TAGS), ("/api/ps", PS)] {
                scene.ollama.set(path, Answer::Late(400, Box::new(Answer::Json(body.into()))));
            }
        }
        Garbage => scene.ollama.set_all(&Answer::Json("{\"models\":[{\"name\":7,]}\u{0}".into())),
        HalfAnswer => scene.ollama.set_all(&Answer::WrongLength),
    }
}

/// None: what this process may have.
fn limit(scene: &Scene, what: Resource, to: Option<u64>) {
    let all = getrlimit(what);
    let limit = Rlimit { current: to.or(all.current), maximum: all.maximum };
    prlimit(Some(scene.worker().pid()), what, limit).expect("it is our child");
}

/// Bytes of the worker's address space.
fn size(scene: &Scene) -> u64 {
    let pid = scene.worker().pid().as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn memory(scene: &mut Scene, fault: Fault) {
    match fault {
        // It is what `refuses_to_start` does.
        AwayAtStart => {}
        // There are no more.
        Dies | ComesBack => limit(scene, Resource::As, Some(size(scene))),
        HalfAnswer => limit(scene, Resource::As, Some(size(scene) + (1 << 20))),
        // A machine that swaps: nothing of it runs for seconds, or it runs every other moment.
        Hangs => {
            scene.worker().signal(Signal::STOP);
            thread::sleep(Duration::from_secs(3));
            scene.worker().signal(Signal::CONT);
        }
        Slow => {
            for _ in 0..50 {
                scene.worker().signal(Signal::STOP);
                thread::sleep(Duration::from_millis(20));
                scene.worker().signal(Signal::CONT);
                thread::sleep(Duration::from_millis(20));
            }
        }
        Garbage => {}
    }
}
