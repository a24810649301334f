//! scripts/up.sh beside a Docker that only writes down what it is called with, and a worker that responds. With a real
//! Docker: `stack`, and `release_images` for the files of a release.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness;
use crate::image::unique;

/// RUNNING: the ID of the worker's container, which is gone after `up` if GONE is set. USED: its Compose files. SERVICES:
/// those of all containers. RESTARTS: it is restarted again and again. HEALTH: what `agent-net health` in it exits with.
/// CURL: what curl exits with. UP: what `up` exits with. REFUSES: what `info` fails with.
const DOCKER: &str = r#"#!/bin/sh
case "$*" in
"info"*) [ -z "$REFUSES" ] || { echo "$REFUSES" >&2; exit 1; } ;;
"ps -q --filter status=running "*) [ -n "$RESTARTS" ] || [ -n "$GONE" ] || echo "$RUNNING" ;;
"ps -q -a "*) echo "$RUNNING" ;;
"ps -q "*) [ -n "$GONE" ] && grep -q ' up ' "$CALLS" || echo "$RUNNING" ;;
"ps -a "*) printf '%b' "$SERVICES" ;;
"inspect "*config_files*) echo "$USED" ;;
"inspect "*) echo sha256:0ld ;;
"image inspect missing"* | "image inspect "*/*) exit 1 ;;
"image inspect "*) echo sha256:new ;;
"exec c0ffee /agent-net health") exit "${HEALTH:-0}" ;;
"exec "*health) exit 1 ;;
"compose -p"*" up "*) echo "commit=$AGENT_NET_COMMIT image=$AGENT_NET_IMAGE $*" >>"$CALLS"; exit "${UP:-1}" ;;
"compose -p"*" rm "* | "compose -p"*" down"* | "pull "* | "tag "* | "kill "*) echo "$*" >>"$CALLS" ;;
esac
exit 0
"#;

/// A folder with programs in place of Docker and curl.
pub struct FakeDocker(PathBuf);

impl FakeDocker {
    pub fn new() -> Self {
        let bin = harness::folder(&unique("bin"));
        for (name, text) in [("docker", DOCKER), ("curl", "#!/bin/sh\nexit ${CURL:-0}\n")] {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Self(bin)
    }

    /// With the machine's own curl.
    pub fn with_curl() -> Self {
        let docker = Self::new();
        fs::remove_file(docker.0.join("curl")).unwrap();
        docker
    }

    /// The script of that folder, with these settings: exit code, stdout, stderr, and how Docker was called.
    pub fn up(&self, home: &Path, args: &[&str], settings: &[(&str, &str)]) -> (i32, String, String, String) {
        let calls = self.0.join("calls");
        fs::write(&calls, "").unwrap();
        let mut up = Command::new(home.join("scripts/up.sh"));
        up.args(args).env("CALLS", &calls).env("PATH", format!("{}:/usr/bin:/bin", self.0.display()));
        for unset in ["AGENT_NET_IMAGE", "AGENT_NET_COMMIT", "DOCKER_HOST", "SERVER_PORT", "WORKER_TOKEN"] {
            up.env_remove(unset);
        }
        let (status, out, err) = harness::run(up.envs(settings.iter().copied()));
        (status.code().unwrap(), out, err, fs::read_to_string(&calls).unwrap())
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With files as in a clone, but not of this one: a worker may run in it, and its compose/.env may have settings.
fn up(args: &[&str], settings: &[(&str, &str)]) -> (i32, String, String, String) {
    let (clone, home) = (Path::new(env!("CARGO_MANIFEST_DIR")), harness::folder(&unique("clone")));
    for folder in ["scripts", "compose"] {
        fs::create_dir(home.join(folder)).unwrap();
        for file in fs::read_dir(clone.join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_some_and(|ending| ending == "sh" || ending == "yaml") {
                fs::copy(&file, home.join(folder).join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    fs::write(home.join("Cargo.toml"), "").unwrap();
    if clone.join(".git").exists() {
        symlink(clone.join(".git"), home.join(".git")).unwrap();
    }
    let ran = FakeDocker::new().up(&home, args, settings);
    fs::remove_dir_all(home).unwrap();
    ran
}

#[test]
fn an_upgrade_that_fails_leaves_the_worker_that_runs() {
    let (code, _, err, calls) = up(&["--upgrade"], &[("RUNNING", "c0ffee"), ("AGENT_NET_IMAGE", "there")]);
    assert!(code == 1 && err.contains("the running worker was left alone"), "{err}");
    assert!(calls.contains(" up -d --no-build") && !calls.contains(" rm "), "{calls}");
}

#[test]
fn an_upgrade_that_stopped_the_worker_says_how_to_return() {
    let settings = [("RUNNING", "c0ffee"), ("GONE", "1"), ("AGENT_NET_IMAGE", "there")];
    for (ended, why) in [("1", "and the worker is stopped"), ("0", "the worker does not respond at")] {
        let (code, _, err, calls) = up(&["--upgrade"], &[&settings[..], &[("UP", ended)]].concat());
        assert!(code == 1 && err.contains(why), "{err}");
        assert!(err.contains("AGENT_NET_IMAGE=agent-net:previous scripts/up.sh --upgrade"), "{err}");
        assert!(calls.ends_with("\ntag sha256:0ld agent-net:previous\n"), "{calls}");
        // Without Docker a worker would have other settings and no Ollama.
        assert!(!err.contains("running natively") && !calls.contains(" rm "), "{err}{calls}");
    }
}

/// The new version may be given another port, at which the old one does not respond.
#[test]
fn the_former_worker_is_asked_inside_its_container() {
    let settings = [("RUNNING", "c0ffee"), ("UP", "0"), ("AGENT_NET_IMAGE", "there"), ("RESTARTS", "1"), ("CURL", "7")];
    for (health, named) in [("0", true), ("1", false), ("3", false)] {
        let more = [("SERVER_PORT", "19877"), ("HEALTH", health)];
        let (code, _, err, calls) = up(&["--upgrade"], &[&settings[..], &more].concat());
        assert!(code == 1 && err.contains("does not respond at http://127.0.0.1:19877"), "{err}");
        assert_eq!(err.contains("AGENT_NET_IMAGE=agent-net:previous scripts/up.sh"), named, "{health}: {err}");
        assert_eq!(calls.contains("tag sha256:0ld agent-net:previous\n"), named, "{health}: {calls}");
    }
}

/// It would be waited for a minute. And without --upgrade it would keep the setting that was wrong.
#[test]
fn a_worker_that_docker_restarts_again_and_again_is_reported() {
    let settings = [("RUNNING", "c0ffee"), ("UP", "0"), ("AGENT_NET_IMAGE", "there"), ("RESTARTS", "1"), ("CURL", "7")];
    let (code, _, err, _) = up(&["--docker"], &settings);
    let next = "see docker logs c0ffee, fix the cause, and run scripts/up.sh --upgrade";
    assert!(code == 1 && err.contains("already running") && err.contains(next), "{err}");
    let (code, _, err, _) = up(&["--docker", "--upgrade"], &settings);
    assert!(code == 1 && err.contains("does not respond at"), "{err}");
}

#[test]
fn an_upgrade_uses_the_files_that_the_worker_was_started_with() {
    let started = [("RUNNING", "c0ffee"), ("UP", "0"), ("AGENT_NET_IMAGE", "there")];
    let with = |used: &'static str| up(&["--upgrade"], &[&started[..], &[("USED", used)]].concat());
    // As Compose 2 and 1 note them.
    for used in ["/old/compose/compose.yaml,/old/compose/hold-port.yaml", "compose/compose.yaml,compose/hold-port.yaml"]
    {
        let (code, _, err, calls) = with(used);
        assert_eq!(code, 0, "{err}");
        // The container that holds the port stays.
        let expected = "-f compose/hold-port.yaml up -d --no-build agent-net ollama\n";
        assert!(calls.ends_with(expected) && calls.contains("-p agent-net -f compose/compose.yaml"), "{calls}");
    }
    let (_, _, _, calls) = with("/old/compose/compose.yaml,/old/compose/gpu.yaml,/old/compose/amd.yaml");
    assert!(calls.contains("-p agent-net -f compose/compose.yaml -f compose/amd.yaml up "), "{calls}");
    let (code, _, err, calls) = with("/old/compose/compose.yaml,/home/me/mine.yaml");
    assert!(code == 1 && err.contains("mine.yaml, which is not in compose/") && calls.is_empty(), "{err}{calls}");
}

#[test]
fn a_build_names_the_commit() {
    let git = |args: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(args);
        let (status, out, _) = harness::run(&mut git);
        status.success().then_some(out)
    };
    let Some(head) = git(&["rev-parse", "HEAD"]) else { return };
    let (_, _, err, calls) = up(&["--docker"], &[("CDPATH", "/")]);
    assert!(calls.contains(&format!("commit={}", &head[..12])) && calls.contains("up -d --build\n"), "{calls}{err}");
    let compose = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/compose.yaml")).unwrap();
    assert!(compose.contains(r#"args: {COMMIT: "${AGENT_NET_COMMIT:-}"}"#), "the build gets it");
}

#[test]
fn down_leaves_what_other_files_started() {
    let (code, _, err, calls) = up(&["--down"], &[("SERVICES", "agent-net\ngrafana\nollama\nprometheus\n")]);
    assert!(code == 0 && err.contains("left running: grafana prometheus (to stop all: docker compose -p"), "{err}");
    assert_eq!(calls, "compose -p agent-net -f compose/compose.yaml rm -s -f\n");
    let (code, _, err, calls) = up(&["--down"], &[("SERVICES", "agent-net\nollama\n")]);
    assert!(code == 0 && !err.contains("left running"), "{err}");
    assert_eq!(calls, "compose -p agent-net -f compose/compose.yaml down\n");
    // With a held port SIGTERM keeps the registrations, and no worker would answer the jobs.
    let (code, _, err, calls) = up(&["--down"], &[("SERVICES", "agent-net\nollama\nport\n"), ("RUNNING", "c0ffee")]);
    assert!(code == 0 && err.contains("left running: port"), "{err}");
    assert_eq!(calls, "kill -s INT c0ffee\ncompose -p agent-net -f compose/compose.yaml rm -s -f\n");
    let (code, _, err, calls) = up(&["--down"], &[]);
    assert!(code == 0 && err.contains("nothing was running") && calls.is_empty(), "{err}{calls}");
}

/// Docker's own words: a user who may not use it would else look for a daemon that does not respond.
#[test]
fn a_docker_that_cannot_be_used_says_why() {
    let (code, _, err, _) = up(&["--docker"], &[("REFUSES", "permission denied while trying to connect")]);
    assert!(code == 1 && err.contains("Docker cannot be used: permission denied while trying"), "{err}");
}
