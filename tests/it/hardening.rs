//! What the image gives an attacker: no shell, no rights, nothing to write to but its volume. `image` has what works in it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::json;

use crate::harness::{self, from_env, static_server, wait_for, wait_until};
use crate::image::{client, docker, one_card, unique};
use crate::nvml::{self, FakeNvml};
use crate::static_build::triplet;

/// A file of a root file system.
#[derive(Debug)]
struct Entry {
    path: String,
    /// `-` file, `d` folder, `l` link, as in `ls`.
    kind: char,
    mode: u32,
    /// User and group; None: where they depend on who built it.
    owner: Option<String>,
}

/// The glibc files of the helper, besides the loader.
const LIBRARIES: [&str; 6] = ["libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"];
/// Text for the loader and for scanners.
const TEXTS: [&str; 6] = [
    "etc/debian_version",
    "etc/group",
    "etc/ld.so.cache",
    "etc/ld.so.conf",
    "etc/passwd",
    "usr/share/sbom/agent-net.cdx.json",
];

/// The programs and libraries that may be started or loaded.
fn programs() -> Vec<String> {
    let loader =
        if triplet().starts_with("aarch64") { "lib/ld-linux-aarch64.so.1" } else { "lib64/ld-linux-x86-64.so.2" };
    let libraries = LIBRARIES.map(|name| format!("lib/{}/{name}", triplet()));
    let mut all: Vec<String> = ["agent-net", "agent-net-nvml", loader].map(str::to_owned).into();
    all.extend(libraries);
    all.sort();
    all
}

/// Every file is an expected one, so there is no shell, no package manager and no secret. None gives rights.
fn check_files(entries: &[Entry]) {
    for Entry { path, kind, mode, owner } in entries {
        assert!(matches!(kind, '-' | 'd' | 'l'), "{path} is a {kind}");
        assert_eq!(mode & 0o6000, 0, "{path} is setuid or setgid: {mode:o}");
        // A link has no mode of its own.
        let expected = if matches!(path.as_str(), "tmp" | "state") { 0o1002 } else { 0 };
        assert!(*kind == 'l' || mode & 0o1002 == expected, "{path} has the mode {mode:o}");
        assert!(owner.as_ref().is_none_or(|owner| owner == "0/0"), "{path} belongs to {owner:?}");
    }
    let files = || entries.iter().filter(|entry| entry.kind != 'd');
    let (mut runnable, texts): (Vec<_>, Vec<_>) = files().partition(|entry| entry.mode & 0o111 != 0);
    runnable.sort_by(|a, b| a.path.cmp(&b.path));
    assert_eq!(runnable.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>(), programs());
    for Entry { path, .. } in texts {
        assert!(TEXTS.contains(&path.as_str()) || path.starts_with("etc/ld.so.conf.d/"), "{path} is unexpected");
    }
}

/// No user has a shell or a password.
fn check_users(passwd: &str) {
    for user in passwd.lines() {
        let fields: Vec<_> = user.split(':').collect();
        assert!(
            matches!(
                fields[..],
                [_, "x" | "*" | "!", .., "/nonexistent" | "/sbin/nologin" | "/usr/sbin/nologin" | "/bin/false"]
            ),
            "{user}"
        );
    }
}

#[test]
fn the_root_file_system_holds_no_shell_and_gives_no_rights() {
    let Some(server) = static_server() else { return };
    let root = server.parent().unwrap();
    let (mut entries, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap().map(Result::unwrap) {
            let (path, kind) = (folder.join(entry.file_name()), entry.file_type().unwrap());
            let meta = entry.metadata().unwrap();
            let kind = if kind.is_dir() {
                'd'
            } else if kind.is_symlink() {
                'l'
            } else if kind.is_file() {
                '-'
            } else {
                '?'
            };
            if kind == 'd' {
                folders.push(path.clone());
            }
            let mode = meta.permissions().mode() & 0o7777;
            entries.push(Entry { path: path.to_str().unwrap().into(), kind, mode, owner: None });
        }
    }
    check_files(&entries);
    check_users(&fs::read_to_string(root.join("etc/passwd")).unwrap());
}

/// `-rwsr-xr-t` as a number.
fn mode_of(letters: &str) -> u32 {
    let letters: Vec<char> = letters.chars().skip(1).collect();
    let special = [(2, 0o4000), (5, 0o2000), (8, 0o1000)];
    let bits = letters.iter().enumerate().filter(|(_, letter)| !matches!(letter, '-' | 'S' | 'T'));
    bits.map(|(at, _)| 0o400 >> at).sum::<u32>()
        + special
            .iter()
            .filter(|(at, _)| matches!(letters[*at], 's' | 'S' | 't' | 'T'))
            .map(|(_, bit)| bit)
            .sum::<u32>()
}

/// As Docker packs it: owners and file capabilities are those that a container gets.
#[test]
fn the_image_holds_no_shell_and_gives_no_rights() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    assert_eq!(mode_of("-rwsr-x--T"), 0o5750);
    let (name, folder) = (unique("export"), harness::folder(&unique("hardening")));
    let tar = folder.join("root.tar");
    docker(&["create", "--name", &name, &image]);
    let exported = client().args(["export", "--output"]).arg(&tar).arg(&name).status();
    docker(&["rm", &name]);
    assert!(exported.unwrap().success());
    let bytes = fs::read(&tar).unwrap();
    let holds = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    assert!(!holds(b"security.capability"), "a file has capabilities");
    let mut list = Command::new("tar");
    list.args(["--list", "--verbose", "--numeric-owner", "--file"]).arg(&tar);
    let (status, text, error) = harness::run(&mut list);
    assert!(status.success(), "{error}");
    // These Docker puts into each container.
    let dockers = |path: &str| {
        path == ".dockerenv"
            || path.starts_with("dev/")
            || matches!(path, "etc/hostname" | "etc/hosts" | "etc/mtab" | "etc/resolv.conf")
    };
    let entries = text.lines().map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let path = words[5].trim_end_matches('/').to_owned();
        let kind = line.chars().next().unwrap();
        Entry { path, kind, mode: mode_of(words[0]), owner: Some(words[1].to_owned()) }
    });
    let entries: Vec<_> = entries.filter(|entry| !dockers(&entry.path)).collect();
    assert!(entries.len() > 20, "{text}");
    check_files(&entries);
    fs::remove_dir_all(folder).unwrap();
}

/// What the image says of itself: no secret in its variables, no user 0, no shell to start.
#[test]
fn the_image_starts_its_program_as_a_user_without_rights() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let inspect = |what: &str| docker(&["image", "inspect", "--format", what, &image]).trim().to_owned();
    assert_eq!(inspect("{{.Config.User}}"), "65532:65532");
    assert_eq!(inspect("{{json .Config.Entrypoint}} {{json .Config.Cmd}}"), r#"["/agent-net"] null"#);
    assert_eq!(inspect("{{json .Config.Healthcheck.Test}}"), r#"["CMD","/agent-net","health"]"#);
    let variables = inspect("{{range .Config.Env}}{{println .}}{{end}}");
    let others: Vec<_> = variables.lines().filter(|line| !line.is_empty() && !line.starts_with("PATH=")).collect();
    assert_eq!(others, ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility"]);
}

/// A container without a network, removed on drop.
struct Alone(String);

impl Alone {
    fn run(image: &str, options: &[&str]) -> Self {
        let container = Self(unique("alone"));
        let mut run = vec!["run", "--detach", "--name", &container.0, "--network", "none"];
        run.extend(["--env", "OLLAMA_URL=http://127.0.0.1:9", "--env", "SAMPLE_INTERVAL=200ms"]);
        run.extend(options);
        run.push(image);
        docker(&run);
        container
    }

    fn exec(&self, command: &str) -> (Option<i32>, String) {
        let (status, out, error) = harness::run(client().args(["exec", &self.0, "/agent-net", command]));
        (status.code(), out + &error)
    }

    fn log(&self) -> String {
        harness::run(client().args(["logs", &self.0])).2
    }

    /// Waits until it serves and has looked for GPUs, of which there are none.
    fn works(&self) {
        let healthy = wait_until(|| (self.exec("health") == (Some(0), "ok\n".into())).then_some(()));
        assert!(healthy.is_some(), "{}", self.log());
        let checked = wait_until(|| {
            let (code, text) = self.exec("check");
            (code == Some(2) && text.starts_with("agent-net unhealthy (NO_GPU")).then_some(())
        });
        assert!(checked.is_some(), "{:?}\n{}", self.exec("check"), self.log());
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = client().args(["rm", "--force", "--volumes", &self.0]).output();
    }
}

const LOCKED: [&str; 5] = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];

#[test]
fn it_runs_without_rights_for_any_user() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    for user in ["65532", "12345"] {
        let named = format!("{user}:{user}");
        let mut options = LOCKED.to_vec();
        options.extend(["--user", &named, "--pids-limit", "64"]);
        let container = Alone::run(&image, &options);
        container.works();
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &container.0]);
        let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("Docker runs on this machine");
        let value = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.unwrap_or_else(|| panic!("{name}: {status}")).trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(value(set), "0000000000000000", "{set}");
        }
        let ids = [user; 4].join("\t");
        assert_eq!([value("Uid"), value("Gid")], [ids.clone(), ids]);
        assert_eq!(
            [value("NoNewPrivs"), value("Seccomp")],
            ["1", "2"],
            "no new privileges, and Docker's seccomp filter"
        );
    }
}

/// Also with a root file system that could be written: what user 65532 may write to is nothing but its volume.
#[test]
fn it_writes_to_its_volume_alone() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let volume = ["--volume", "/state", "--env", "STATE_DIR=/state"];
    let container = Alone::run(&image, &volume);
    container.works();
    let kept =
        || client().args(["cp", &format!("{}:/state/uptime.bin", container.0), "-"]).output().unwrap().stdout.len();
    wait_for("the uptime file", || (kept() > 345_000).then_some(()));
    assert_eq!(docker(&["diff", &container.0]).trim(), "", "files that differ from the image's");
    for folder in ["/", "/etc", "/usr/share", "/proc", "/sys"] {
        let dir = format!("STATE_DIR={folder}");
        let container = Alone::run(&image, &["--env", &dir]);
        wait_for("a warning", || container.log().contains("cannot write").then_some(()));
        container.works();
        assert_eq!(docker(&["diff", &container.0]).trim(), "", "{folder}");
    }
}

/// All system calls that server, helper and NVML's loader make, with those of Docker's own start of a process. None of
/// them mounts, traces, loads code into the kernel, changes users or makes namespaces.
const SYSTEM_CALLS: &str = "accept4 access arch_prctl bind brk capget capset chdir chmod clock_gettime clock_nanosleep close \
     connect dup2 dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group fallocate fchmod fchmodat fcntl fdatasync flock fstat \
     fstatfs fsync ftruncate futex getcwd getdents64 getegid geteuid getgid getpid getppid getrandom getsockname \
     getsockopt gettid getuid ioctl kill listen lseek lstat madvise mkdir mkdirat mmap mprotect mremap munmap nanosleep \
     newfstatat open openat pause pipe2 poll ppoll prctl pread64 prlimit64 pwrite64 read readlink readlinkat recvfrom \
     recvmsg rename renameat restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield \
     sendmsg sendto set_robust_list set_tid_address setgid setgroups setsockopt setuid shutdown sigaltstack socket \
     socketpair stat statfs statx sysinfo tgkill umask uname unlink unlinkat wait4 waitid write writev";

/// A filter stricter than Docker's, which allows some 350 calls.
#[test]
fn it_works_with_few_system_calls() {
    let Some(image) = from_env("AGENT_NET_IMAGE") else { return };
    let names: Vec<_> = SYSTEM_CALLS.split_whitespace().collect();
    let namespaces = 0x7e02_0000_u64;
    let filter = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": names, "action": "SCMP_ACT_ALLOW"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": namespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        // As Docker's own filter: the C library then takes clone.
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ]});
    let folder = harness::folder(&unique("seccomp"));
    fs::write(folder.join("filter.json"), filter.to_string()).unwrap();
    let (fake, bus) = (FakeNvml::new("gpus=2"), one_card());
    let filter = format!("seccomp={}", folder.join("filter.json").display());
    let library = format!("{}:/usr/lib64/libnvidia-ml.so.1:ro", nvml::library().display());
    let gpus = format!("{}:/gpus:ro", fake.file().display());
    let cards = format!("{}:/sys/bus/pci/devices:ro", bus.display());
    let mut options = LOCKED.to_vec();
    options.extend(["--security-opt", &filter, "--volume", "/state", "--env", "STATE_DIR=/state"]);
    options.extend(["--volume", &library, "--volume", &gpus, "--volume", &cards, "--env", "FAKE_NVML=/gpus"]);
    let container = Alone::run(&image, &options);
    let read = wait_until(|| container.exec("check").1.contains(": 2 of 2 GPUs usable").then_some(()));
    assert!(read.is_some(), "{:?}\n{}", container.exec("check"), container.log());
    assert_eq!(container.exec("health"), (Some(0), "ok\n".into()));
    wait_for("ack", || container.exec("ack").1.starts_with("acknowledged; the verdict is ").then_some(()));
    assert!(!container.log().contains("cannot write"), "{}", container.log());
    docker(&["stop", &container.0]);
    assert_eq!(
        docker(&["inspect", "--format", "{{.State.ExitCode}}", &container.0]).trim(),
        "0",
        "{}",
        container.log()
    );
    fs::remove_dir_all(folder).unwrap();
}
