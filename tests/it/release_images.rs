//! The images of a release in what people use: `docker load`, and a real registry (Debian's docker-registry), filled by
//! the real skopeo. And scripts/up.sh as it comes in the archive.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{self, from_env, static_server};
use crate::http;
use crate::image::{Container, docker, unique, unpacked};
use crate::release::{self, ARCHITECTURES, VERSION, checked, release};
use crate::static_build::files_below;
use crate::up::FakeDocker;

/// The architecture of this machine.
fn own() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[test]
fn a_release_loads_into_docker_and_is_what_the_dockerfile_makes() {
    let (Some(release), Some(built)) = (release(), from_env("AGENT_NET_IMAGE")) else { return };
    for arch in ARCHITECTURES {
        docker(&[
            "load",
            "--input",
            release.path(&format!("agent-net-{VERSION}-linux-{arch}-image.tar")).to_str().unwrap(),
        ]);
        let image = format!("agent-net:{VERSION}");
        let inspect = |image: &str| -> Value {
            serde_json::from_str(&docker(&["image", "inspect", "--format", "{{json .}}", image])).unwrap()
        };
        let (loaded, built) = (inspect(&image), inspect(&built));
        assert_eq!((&loaded["Architecture"], &loaded["Os"]), (&json!(arch), &json!("linux")));
        let ids = fs::read_to_string(release.path("image-digests")).unwrap();
        assert!(ids.contains(loaded["Id"].as_str().unwrap()), "{} is not in {ids}", loaded["Id"]);
        for key in ["User", "ExposedPorts", "Entrypoint", "Healthcheck", "Env", "Cmd", "Volumes", "StopSignal"] {
            assert_eq!(sorted(&loaded["Config"][key]), sorted(&built["Config"][key]), "{key}");
        }
        let labels = &loaded["Config"]["Labels"];
        for (label, value) in built["Config"]["Labels"].as_object().unwrap() {
            assert_eq!(&labels[label], value, "{label}");
        }
        assert_eq!(labels["org.opencontainers.image.version"], VERSION);
        if arch == own() {
            let container = Container::run(&image, &[]);
            assert_eq!(container.job().status, 200);
            let version = docker(&["exec", &container.name, "/agent-net", "--version"]);
            let revision = labels["org.opencontainers.image.revision"].as_str().unwrap();
            assert!(version.contains(&revision[..12]), "{version} is not of {revision}");
        }
        if let Some(server) = static_server().filter(|_| arch == own()) {
            let (root, files) = (unpacked(&image), server.parent().unwrap());
            for entry in files_below(files, Path::new("")) {
                assert!(fs::read(root.join(&entry)).unwrap() == fs::read(files.join(&entry)).unwrap(), "{entry:?}");
            }
            fs::remove_dir_all(root).unwrap();
        }
        docker(&["image", "rm", &image]);
    }
}

/// Docker orders variables in its own way.
fn sorted(value: &Value) -> Value {
    let Some(list) = value.as_array() else { return value.clone() };
    let mut list = list.clone();
    list.sort_by_key(Value::to_string);
    list.into()
}

#[test]
fn layers_belong_to_root_and_have_the_commits_time() {
    let Some(release) = release() else { return };
    let folder = harness::folder(&unique("layout"));
    let archive = release.path(&format!("agent-net-{VERSION}-oci.tar"));
    checked(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&folder));
    let blob = |digest: &Value| folder.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    assert_eq!(read(&folder.join("oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
    let named = &read(&folder.join("index.json"))["manifests"][0];
    assert_eq!(named["annotations"]["org.opencontainers.image.ref.name"], VERSION);
    let index = read(&blob(&named["digest"]));
    let platforms: Vec<_> = index["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]).collect();
    let expected = ARCHITECTURES.map(|arch| json!({"architecture": arch, "os": "linux"}));
    assert_eq!(platforms, expected.iter().collect::<Vec<_>>());
    for (image, arch) in index["manifests"].as_array().unwrap().iter().zip(ARCHITECTURES) {
        let manifest = read(&blob(&image["digest"]));
        let config = read(&blob(&manifest["config"]["digest"]));
        assert_eq!((&config["architecture"], &config["config"]["User"]), (&json!(arch), &json!("65532:65532")));
        for (described, path) in
            [&manifest["config"], &manifest["layers"][0], image].map(|one| (one, blob(&one["digest"])))
        {
            assert_eq!(described["size"], fs::metadata(&path).unwrap().len(), "{described}");
            assert_eq!(described["digest"].as_str().unwrap(), release::digest_of(&path));
        }
        let layer = blob(&manifest["layers"][0]["digest"]);
        let listed = checked(Command::new("tar").args(["-tvzf"]).arg(&layer).arg("--numeric-owner").env("TZ", "UTC"));
        let created = config["created"].as_str().unwrap().replace('T', " ");
        assert!(listed.lines().count() > 20, "{listed}");
        for line in listed.lines() {
            let mut words = line.split_whitespace();
            let (_mode, owner) = (words.next(), words.next());
            assert_eq!(owner, Some("0/0"), "{line}");
            assert!(line.contains(&created[..16]), "{line} is not of {created}");
        }
        let plain = checked(Command::new("sh").args(["-c", "gzip -dc \"$1\" | sha256sum", "sh"]).arg(&layer));
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", plain.split(' ').next().unwrap()));
    }
    fs::remove_dir_all(folder).unwrap();
}

/// Debian's docker-registry on a free port; ended on drop.
struct Registry {
    child: Child,
    addr: SocketAddr,
    folder: std::path::PathBuf,
}

impl Registry {
    fn start() -> Self {
        let folder = harness::folder(&unique("registry"));
        let config = json!({
            "version": 0.1, "http": {"addr": "127.0.0.1:0"},
            "storage": {"filesystem": {"rootdirectory": folder.join("data")}},
        });
        // JSON is YAML.
        fs::write(folder.join("config.yml"), config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(folder.join("config.yml")).env("OTEL_TRACES_EXPORTER", "none");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("docker-registry: run scripts/test.sh, which sees to it");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let addr = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, rest) = line.split_once("listening on ")?;
            rest.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').next()?.parse().ok()
        });
        // What it writes later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addr: addr.expect("the registry listens"), folder }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn a_registry_has_both_images_under_the_digest_of_the_release() {
    let (Some(release), Some(_)) = (release(), from_env("AGENT_NET_IMAGE")) else { return };
    let registry = Registry::start();
    let name = format!("{}/agent-net", registry.addr);
    let mut copy = Command::new("skopeo");
    copy.args(["--insecure-policy", "copy", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
    copy.arg(format!("oci-archive:{}", release.path(&format!("agent-net-{VERSION}-oci.tar")).display()));
    checked(copy.arg(format!("docker://{name}:{VERSION}")));
    let digests = fs::read_to_string(release.path("image-digests")).unwrap();
    let digest = digests.split("  ").next().unwrap();
    let accept = "application/vnd.oci.image.index.v1+json";
    let path = format!("/v2/agent-net/manifests/{VERSION}");
    let answer = http::request(registry.addr, "GET", &path, &[&format!("Accept: {accept}")], b"");
    assert_eq!((answer.status, answer.header("docker-content-digest")), (200, Some(digest)), "{answer:?}");
    // By its digest, as a machine that earns money does it. Docker trusts registries on 127.0.0.1 without TLS.
    let image = format!("{name}@{digest}");
    docker(&["pull", "--quiet", &image]);
    let container = Container::run(&image, &[]);
    assert_eq!(container.job().status, 200);
    harness::wait_for("a healthy container", || {
        (container.inspect("{{.State.Health.Status}}") == "healthy").then_some(())
    });
    drop(container);
    docker(&["image", "rm", &image]);
}

#[test]
fn up_sh_of_a_release_builds_nothing() {
    let Some(release) = release() else { return };
    let folder = release::unpacked(release, own());
    let docker = FakeDocker::with_curl();
    let up = |args: &[&str], image: &str| {
        docker.up(&folder, args, &[("AGENT_NET_IMAGE", image), ("SERVER_PORT", "0"), ("MODEL", "")])
    };
    let called = |image: &str| {
        let (code, _, err, calls) = up(&["--docker"], image);
        assert_eq!(code, 1, "the fake starts nothing: {err}");
        (calls, err)
    };
    let (text, err) = called("");
    assert!(text.contains(&format!("image=agent-net:{VERSION} compose -p agent-net")), "{text}{err}");
    assert!(text.contains("up -d --no-build\n"), "{text}");
    let (text, _) = called("registry.example/agent-net@sha256:12");
    assert!(text.starts_with("pull registry.example/agent-net@sha256:12\n"), "Compose 1 would not: {text}");
    assert!(text.contains("image=registry.example/agent-net@sha256:12 "), "{text}");
    let (text, err) = called("missing");
    assert!(text.is_empty() && err.contains("the image missing is missing: load it with docker load -i"), "{err}");
    // The programs of the archive. It has no cargo.
    let pid = || fs::read_to_string(folder.join(".run/agent-net.pid")).unwrap();
    let (code, out, err, _) = up(&["--native"], "");
    assert!(code == 0 && out.contains(r#""agent_id":"demo-agent""#), "{out}{err}");
    let first = pid();
    let (code, out, err, _) = up(&["--native", "--upgrade"], "");
    assert!(code == 0 && out.contains(r#""agent_id":"demo-agent""#), "{out}{err}");
    assert_ne!(pid(), first);
    let (code, _, err, _) = up(&["--down"], "");
    assert!(code == 0 && err.contains("stopped the worker"), "{err}");
    fs::remove_dir_all(folder.parent().unwrap()).unwrap();
}
