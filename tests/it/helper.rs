//! The helper itself: its protocol on stdin, the fake library below it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use crate::harness::{TIMEOUT, command};
use crate::nvml::FakeNvml;
use crate::programs;

/// A helper of its own; killed on drop.
pub struct Helper {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<Value>,
    asks: u64,
}

impl Helper {
    pub fn start(nvml: &FakeNvml) -> Self {
        Self::of(command(programs::helper()), nvml)
    }

    pub fn of(mut program: Command, nvml: &FakeNvml) -> Self {
        for (name, value) in nvml.settings() {
            // A caller may have named another library.
            if program.get_envs().all(|(known, _)| known != name) {
                program.env(name, value);
            }
        }
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let hello: Value = lines.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(hello["protocol"], 6);
        Self { child, stdin, lines, asks: 0 }
    }

    /// A sample; `activity`: `mark` or `since_mark`.
    pub fn ask(&mut self, activity: Option<&str>) -> Value {
        let mut wanted = json!({"slow": false, "events": false});
        if let Some(activity) = activity {
            wanted["activity"] = activity.into();
        }
        self.sample(&wanted)
    }

    /// A sample with the slow readings.
    pub fn ask_slow(&mut self) -> Value {
        self.sample(&json!({"slow": true, "events": false}))
    }

    fn sample(&mut self, wanted: &Value) -> Value {
        self.asks += 1;
        writeln!(self.stdin, "{}", json!({"id": self.asks, "ask": {"sample": wanted}})).unwrap();
        let mut answer = self.lines.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(answer["id"], self.asks);
        answer["answer"]["Ok"].take()
    }

    /// What the GPUs did between `before` and `after`, with the whole sample.
    pub fn activity(&mut self, nvml: &FakeNvml, before: &str, after: &str) -> Value {
        nvml.set(before);
        self.ask(Some("mark"));
        nvml.set(after);
        self.ask(Some("since_mark"))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
