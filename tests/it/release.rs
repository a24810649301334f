//! scripts/release.sh, on the root file systems that scripts/test.sh has built for both architectures: what is in a
//! release, that its sums and its signature hold (by the real minisign), and that a second one is the same.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use crate::harness::{self, from_env};
use crate::image::unique;

/// A release that the tests share, signed with a key of their own.
pub struct Release {
    pub folder: PathBuf,
    key: PathBuf,
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
pub const ARCHITECTURES: [&str; 2] = ["amd64", "arm64"];

/// None where scripts/test.sh has not built for both architectures.
pub fn release() -> Option<&'static Release> {
    static MADE: OnceLock<Release> = OnceLock::new();
    from_env("AGENT_NET_RELEASE")?;
    Some(MADE.get_or_init(|| {
        let folder = harness::folder(&unique("release"));
        let key = folder.join("agent-net.key");
        let public = folder.join("agent-net.pub");
        checked(Command::new("minisign").args(["-GW", "-p"]).arg(&public).arg("-s").arg(&key));
        let made = Release { folder: folder.join("made"), key };
        made.make(&made.folder);
        made
    }))
}

impl Release {
    fn make(&self, folder: &Path) {
        checked(&mut self.script(folder));
    }

    fn script(&self, folder: &Path) -> Command {
        let mut script = script(Path::new(env!("CARGO_MANIFEST_DIR")));
        // Developers run tests before they commit.
        script.args(["--prebuilt", "--allow-dirty", "--key"]).arg(&self.key).arg("--out").arg(folder);
        script
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn script(root: &Path) -> Command {
    let mut script = Command::new(root.join("scripts/release.sh"));
    // The time is that of the commit.
    script.current_dir("/").env_remove("SOURCE_DATE_EPOCH");
    script
}

#[track_caller]
pub fn checked(command: &mut Command) -> String {
    let (status, out, err) = harness::run(command);
    assert!(status.success(), "{command:?}: {out}{err}");
    out
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_release_has_these_files_and_true_sums() {
    let Some(release) = release() else { return };
    let mut expected = vec![format!("agent-net-{VERSION}-oci.tar")];
    for arch in ARCHITECTURES {
        for end in ["-image.tar", ".tar.gz", ".cdx.json"] {
            expected.push(format!("agent-net-{VERSION}-linux-{arch}{end}"));
        }
    }
    expected.extend(["agent-net.pub", "image-digests", "provenance.json"].map(String::from));
    expected.sort();
    let sums = fs::read_to_string(release.path("SHA256SUMS")).unwrap();
    assert_eq!(sums.lines().map(|line| line.split_once("  ").unwrap().1).collect::<Vec<_>>(), expected);
    checked(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&release.folder));
    expected.extend(["SHA256SUMS", "SHA256SUMS.minisig"].map(String::from));
    expected.sort();
    assert_eq!(names(&release.folder), expected);
}

#[test]
fn a_changed_file_or_another_key_is_noticed() {
    let Some(release) = release() else { return };
    let folder = harness::folder(&unique("changed"));
    for name in ["SHA256SUMS", "SHA256SUMS.minisig", "agent-net.pub", "image-digests"] {
        fs::copy(release.path(name), folder.join(name)).unwrap();
    }
    let verified = |key: &Path| {
        let mut verify = Command::new("minisign");
        verify.args(["-Vm", "SHA256SUMS", "-p"]).arg(key).current_dir(&folder);
        let (status, out, _) = harness::run(&mut verify);
        (status.success(), out)
    };
    let key = folder.join("agent-net.pub");
    let (valid, comment) = verified(&key);
    assert!(valid && comment.contains(&format!("agent-net {VERSION}, commit ")), "{comment}");
    let other = folder.join("other.pub");
    checked(Command::new("minisign").args(["-GW", "-p"]).arg(&other).arg("-s").arg(folder.join("other.key")));
    assert!(!verified(&other).0);
    let sums = fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    fs::write(folder.join("SHA256SUMS"), sums.replacen(|c: char| c.is_ascii_digit(), "a", 1)).unwrap();
    assert!(!verified(&key).0);
    // And a file that differs from its sum.
    fs::write(folder.join("SHA256SUMS"), &sums).unwrap();
    fs::write(folder.join("image-digests"), "sha256:0").unwrap();
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--ignore-missing", "SHA256SUMS"]).current_dir(&folder);
    let (status, out, _) = harness::run(&mut check);
    assert!(!status.success() && out.contains("image-digests: FAILED"), "{out}");
}

/// By a user with other variables and another umask, into a folder whose group is inherited, through a link, with a space
/// in its name.
#[test]
fn a_second_release_is_the_same() {
    let Some(release) = release() else { return };
    let folder = harness::folder(&unique("again"));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o2775)).unwrap();
    let (made, link) = (folder.join("as it is"), folder.join("link"));
    for name in ["as it is", "as it is.new", "as it is.old"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    fs::write(folder.join("as it is.old/mine"), "").unwrap();
    std::os::unix::fs::symlink(&made, &link).unwrap();
    let mut script = release.script(&link);
    script.envs([("TAR_OPTIONS", "--exclude=*.md"), ("GZIP", "-1"), ("GIT_DIR", "/nonexistent"), ("TZ", "Asia/Tokyo")]);
    let mut as_another = Command::new("sh");
    as_another.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(script.get_program()).args(script.get_args());
    as_another.envs(script.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    checked(as_another.env_remove("SOURCE_DATE_EPOCH"));
    assert_eq!(names(&made), names(&release.folder));
    for name in names(&made) {
        // A signature contains a random number, and minisign's own comment the time.
        if name != "SHA256SUMS.minisig" {
            assert!(fs::read(made.join(&name)).unwrap() == fs::read(release.path(&name)).unwrap(), "{name}");
        }
    }
    assert_eq!(names(&folder), ["as it is", "as it is.new", "as it is.old", "link"]);
    assert!(folder.join("as it is.old/mine").exists() && link.is_symlink());
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_key_with_a_password_signs_and_a_failed_run_leaves_the_release() {
    let Some(release) = release() else { return };
    let folder = harness::folder(&unique("password"));
    let (key, out) = (folder.join("own.key"), folder.join("made"));
    let generate = "printf 'pass word\npass word\n' | minisign -G -p own.pub -s own.key";
    checked(Command::new("sh").args(["-c", generate]).current_dir(&folder));
    let sign = |password: &str| {
        let mut script = script(Path::new(env!("CARGO_MANIFEST_DIR")));
        script.args(["--prebuilt", "--allow-dirty", "--key"]).arg(&key).arg("--out").arg(&out);
        let (status, _, err) = harness::run(script.env("MINISIGN_PASSWORD", password));
        (status.code(), err)
    };
    let (code, err) = sign("wrong");
    assert!(code == Some(1) && err.contains("minisign could not sign with"), "{err}");
    assert!(!out.exists());
    let (code, err) = sign("pass word");
    assert!(code == Some(0) && !err.contains("not signed"), "{err}");
    let signature = fs::read(out.join("SHA256SUMS.minisig")).unwrap();
    // The release that was there stays where the next one fails.
    fs::copy(release.path("agent-net.pub"), folder.join("own.pub")).unwrap();
    let (code, err) = sign("pass word");
    assert!(code == Some(1) && err.contains("own.pub is not the public key of"), "{err}");
    assert!(fs::read(out.join("SHA256SUMS.minisig")).unwrap() == signature);
    assert_eq!(names(&folder), ["made", "own.key", "own.pub"]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_that_is_not_a_release_is_not_replaced() {
    let folder = harness::folder(&unique("mine"));
    fs::write(folder.join("mine"), "").unwrap();
    let mut script = script(Path::new(env!("CARGO_MANIFEST_DIR")));
    let (status, _, err) = harness::run(script.args(["--prebuilt", "--allow-dirty", "--out"]).arg(&folder));
    assert!(status.code() == Some(64) && err.contains("must be a new folder, an empty one or a release"), "{err}");
    assert_eq!(names(&folder), ["mine"]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_archive_has_all_that_a_user_without_a_clone_needs() {
    let Some(release) = release() else { return };
    for (arch, machine) in ARCHITECTURES.into_iter().zip([62_u16, 183]) {
        let name = format!("agent-net-{VERSION}-linux-{arch}");
        let folder = unpacked(release, arch);
        for program in ["agent-net", "agent-net-nvml"] {
            let bytes = fs::read(folder.join(program)).unwrap();
            assert_eq!(u16::from_le_bytes([bytes[18], bytes[19]]), machine, "{name}/{program}");
            assert_eq!(fs::metadata(folder.join(program)).unwrap().mode() & 0o7777, 0o755);
        }
        for file in
            ["README.md", "CHANGELOG.md", "LICENSE", "compose/README.md", "src/reference.md", "compose/gpu.yaml"]
        {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(fs::read(folder.join(file)).unwrap() == fs::read(root.join(file)).unwrap(), "{file}");
        }
        for (file, word) in [
            ("completions/agent-net.bash", "complete -F"),
            ("completions/_agent-net", "#compdef agent-net"),
            ("completions/agent-net.fish", "complete -c agent-net"),
            ("man/agent-net.1", ".TH"),
            ("compose/agent-net.service", "[Service]"),
        ] {
            assert!(fs::read_to_string(folder.join(file)).unwrap().contains(word), "{file}");
        }
        assert!(!folder.join("compose/.env").exists());
        // `up --build`, as the documents have it, builds nothing.
        for (file, image) in [("compose.yaml", "AGENT_NET_IMAGE"), ("hold-port.yaml", "AGENT_NET_PORT_IMAGE")] {
            let text = fs::read_to_string(folder.join("compose").join(file)).unwrap();
            assert!(text.contains(&format!("    image: ${{{image}:-agent-net:{VERSION}}}\n")), "{text}");
            let gone = ["build:", "context:", "dockerfile:"].iter().all(|word| !text.contains(word));
            assert!(gone && text.contains("\n    ports:\n"), "{text}");
        }
        // Every link in its documents that is a file leads somewhere, but for sources, which are in the clone.
        for document in ["README.md", "compose/README.md"] {
            let text = fs::read_to_string(folder.join(document)).unwrap();
            let from = folder.join(document).parent().unwrap().to_owned();
            for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                let outside = link.is_empty() || link.contains("://");
                assert!(outside || from.join(link).exists(), "{document}: {link}");
            }
        }
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}

/// The archive for people, in a folder of its own.
pub fn unpacked(release: &Release, arch: &str) -> PathBuf {
    let folder = harness::folder(&unique("archive"));
    let name = format!("agent-net-{VERSION}-linux-{arch}");
    checked(Command::new("tar").arg("-xzf").arg(release.path(&format!("{name}.tar.gz"))).arg("-C").arg(&folder));
    folder.join(name)
}

#[test]
fn provenance_names_the_commit_the_compilers_and_what_came_of_them() {
    let Some(release) = release() else { return };
    let provenance = release.json("provenance.json");
    let head = checked(Command::new("git").args(["rev-parse", "HEAD"]).current_dir(env!("CARGO_MANIFEST_DIR")));
    let commit = provenance["commit"].as_str().unwrap();
    assert_eq!(commit.trim_end_matches("-dirty"), head.trim());
    assert!(["checked", "not checked"].contains(&provenance["advisories"].as_str().unwrap()), "{provenance:#}");
    let digests = fs::read_to_string(release.path("image-digests")).unwrap();
    assert!(digests.starts_with(provenance["index"].as_str().unwrap()), "{digests}");
    let images = provenance["images"].as_array().unwrap();
    for (image, arch) in images.iter().zip(ARCHITECTURES) {
        assert_eq!((&image["platform"], &image["build"]["arch"]), (&format!("linux/{arch}").into(), &arch.into()));
        assert!(image["build"]["rustc"].as_str().unwrap().starts_with("rustc 1."), "{image:#}");
        for key in ["manifest", "config"] {
            assert!(digests.contains(image[key].as_str().unwrap()), "{key}: {digests}");
        }
        let folder = unpacked(release, arch);
        for (program, sum) in image["programs"].as_object().unwrap() {
            assert_eq!(sum.as_str().unwrap(), digest_of(&folder.join(program)), "{program}");
        }
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
    assert_eq!(images.len(), ARCHITECTURES.len());
}

/// As `sha256:…`.
pub fn digest_of(path: &Path) -> String {
    let line = checked(Command::new("sha256sum").arg(path));
    format!("sha256:{}", line.split(' ').next().unwrap())
}

#[test]
fn a_release_needs_a_commit_that_is_the_work_tree() {
    let root = harness::folder(&unique("clone"));
    let clone = |to: &Path| {
        let mut clone = Command::new("git");
        clone
            .args(["clone", "--quiet", "--no-local", "--depth", "1"])
            .arg(format!("file://{}", env!("CARGO_MANIFEST_DIR")));
        checked(clone.arg(to));
    };
    let dirty = root.join("dirty");
    clone(&dirty);
    // Uncommitted changes of the script itself are tried as well.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    checked(Command::new("cp").arg("-r").arg(own).arg(&dirty));
    fs::write(dirty.join("README.md"), "changed").unwrap();
    let refused = |folder: &Path, args: &[&str]| {
        let (status, out, err) = harness::run(script(folder).args(args));
        assert_eq!(out, "");
        (status.code(), err)
    };
    let (code, err) = refused(&dirty, &["--prebuilt"]);
    assert!(code == Some(1) && err.contains("files differ from the commit") && err.contains(" M README.md"), "{err}");
    let (code, err) = refused(&dirty, &["--prebuilt", "--allow-dirty"]);
    assert!(code == Some(1) && err.contains("run scripts/build-static.sh --arch amd64"), "{err}");
    let (code, err) = refused(&dirty, &["--key", "/nonexistent"]);
    assert!(code == Some(64) && err.contains("--key /nonexistent: not a file"), "{err}");
    // A variable that is not set must not make an unsigned release.
    for args in [&["--key", ""][..], &["--key="], &["--out", ""], &["--out="]] {
        let (code, err) = refused(&dirty, args);
        assert!(code == Some(64) && err.contains(" needs a value: "), "{args:?}: {err}");
    }
    checked(Command::new("git").args(["checkout", "--quiet", "README.md"]).current_dir(&dirty));
    fs::write(dirty.join("src/forgotten.rs"), "").unwrap();
    let (code, err) = refused(&dirty, &["--prebuilt"]);
    assert!(
        code == Some(1) && err.contains("files differ from the commit") && err.contains("src/forgotten.rs"),
        "{err}"
    );
    fs::remove_dir_all(dirty.join(".git")).unwrap();
    let (code, err) = refused(&dirty, &[]);
    assert!(code == Some(1) && err.contains("run this in a clone"), "{err}");
    assert!(!dirty.join("dist").exists());
    fs::remove_dir_all(root).unwrap();
}

#[test]
fn the_bills_of_materials_are_those_of_the_images() {
    let Some(release) = release() else { return };
    for arch in ARCHITECTURES {
        let bill = release.json(&format!("agent-net-{VERSION}-linux-{arch}.cdx.json"));
        let components = bill["components"].as_array().unwrap();
        let by_name: BTreeMap<_, _> = components.iter().map(|one| (one["name"].as_str().unwrap(), one)).collect();
        let program = by_name.get("agent-net-nvml").unwrap_or_else(|| panic!("{:?}", by_name.keys()));
        let folder = unpacked(release, arch);
        let digest = digest_of(&folder.join("agent-net-nvml"));
        assert_eq!(program["hashes"][0]["content"].as_str().unwrap(), digest.trim_start_matches("sha256:"), "{arch}");
        fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}
