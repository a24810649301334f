//! Both families of addresses: where the worker listens, how it is found there, and addresses in URLs.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use serde_json::Value;

use crate::harness::{Worker, agent_net, command, run, wait_for};
use crate::http;
use crate::programs;

/// Unset is what nearly everybody has.
const UNSET: (&str, &str) = ("SERVER_HOST", "");

#[test]
fn both_families_are_served_and_the_worker_is_found() {
    for host in [UNSET, ("SERVER_HOST", "::")] {
        let worker = Worker::start(&[host]);
        let port = worker.addr.port();
        if !worker.addr.is_ipv6() {
            assert!(host == UNSET && worker.log().contains("IPv6 is off here"), "{}", worker.log());
            println!("skipped: IPv6 is off here");
            return;
        }
        assert_eq!(worker.addr.ip(), Ipv6Addr::UNSPECIFIED);
        for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
            let job = http::request(address, "POST", "/gpu-check", &[], br#"{"agent_id":"both"}"#);
            assert_eq!(job.status, 200, "{address}");
        }
        let port = port.to_string();
        let (status, out, err) = run(agent_net().arg("health").envs([UNSET, ("SERVER_PORT", &port)]));
        assert_eq!((status.code(), out.as_str(), err.as_str()), (Some(0), "ok\n", ""));
        let (_, out, err) = run(agent_net().args(["check", "--json"]).envs([UNSET, ("SERVER_PORT", &port)]));
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {err}"));
        assert!(report["uptime"]["process_seconds"].is_number(), "the worker's own: {out}");
    }
}

/// net.ipv6.bindv6only=1, which makes every other program's `::` a socket of IPv6 alone; and no IPv6 addresses at all.
#[test]
fn ipv4_is_served_whatever_the_kernel_is_set_to() {
    let as_set = UNSET.1;
    for (sysctl, hosts) in
        [("bindv6only", &["127.0.0.1", "::1", as_set][..]), ("conf/all/disable_ipv6", &["127.0.0.1", "::", as_set])]
    {
        let inside = format!("echo 1 >/proc/sys/net/ipv6/{sysctl} && ip link set lo up");
        if !command("unshare").args(["--net", "sh", "-c", &inside]).status().is_ok_and(|status| status.success()) {
            println!("skipped: no namespaces may be made here, or IPv6 is off");
            return;
        }
        let mut program = command("unshare");
        let script = format!("{inside} && exec {} serve", programs::server());
        program.args(["--net", "sh", "-c", &script]);
        let worker = Worker::of(program, &[UNSET]);
        let port = worker.addr.port().to_string();
        for host in hosts {
            wait_for("an answer", || {
                let mut health = command("nsenter");
                health.args(["--net", "--target", &worker.pid().as_raw_nonzero().to_string()]);
                health.args([programs::server(), "health", "--server-host", host, "--server-port", &port]);
                run(&mut health).0.success().then_some(())
            });
        }
    }
}

/// What the registries get of a CAPABILITY_URL; or what is said against it.
fn registered(url: &str) -> Result<String, String> {
    let (status, out, err) = run(agent_net().args(["config", "--runner-json"]).env("CAPABILITY_URL", url));
    if !status.success() {
        assert_eq!((status.code(), err.lines().count()), (Some(78), 1), "{err}");
        return Err(err);
    }
    let entry: Value = serde_json::from_str(&out).unwrap();
    Ok(entry["runners"][0]["runner_url"].as_str().unwrap().to_owned())
}

#[test]
fn an_ipv6_address_without_brackets_is_shown_with_them() {
    for name in ["CAPABILITY_URL", "OLLAMA_URL", "ORCH_URL", "TICKET_SUBMIT_URL"] {
        let mut config = agent_net();
        config.args(["config"]).env("STATE_DIR", "/nonexistent").env("CAPABILITY_NAME", "a");
        let (status, _, err) = run(config.env(name, "http://2600:1f13:abcd:1::a:9876"));
        let part = "must have its IPv6 address in brackets: http://[2600:1f13:abcd:1::a]:9876";
        assert!(status.code() == Some(78) && err.contains(name) && err.contains(part), "{name}: {err}");
    }
    let (status, _, err) = run(agent_net().args(["check", "--url", "http://::1:9876"]));
    assert!(status.code() == Some(64) && err.contains("http://[::1]:9876"), "{err}");
    assert_eq!(registered("http://[::1]:9876").as_deref(), Ok("http://[::1]:9876"));
}

#[test]
fn the_kubernetes_manifest_is_right_for_nodes_of_both_families() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/kubernetes.yaml");
    let manifest = fs::read_to_string(manifest).unwrap();
    let (_, rest) = manifest.split_once("name: CAPABILITY_URL, value: \"").expect("CAPABILITY_URL is set");
    let url = rest.split_once('"').unwrap().0;
    for (node, expected) in
        [("10.0.0.5", "http://10.0.0.5:9876"), ("2600:1f13:abcd:1::a", "http://[2600:1f13:abcd:1::a]:9876")]
    {
        assert_eq!(registered(&url.replace("$(NODE_ADDRESS)", node)).as_deref(), Ok(expected));
    }
}

/// The defaults of clusters that restrict pods allow neither.
#[test]
fn the_kubernetes_namespace_allows_ports_and_folders_of_the_node() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/kubernetes.yaml")).unwrap();
    assert!(manifest.contains("hostPort: ") && manifest.contains("hostPath: "));
    assert!(manifest.contains("    pod-security.kubernetes.io/enforce: privileged\n"));
}

/// A lost GPU takes a pod out of its services. It does not restart the worker, which is there to report it.
#[test]
fn the_kubernetes_probes_restart_no_worker_that_reports_a_lost_gpu() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/kubernetes.yaml")).unwrap();
    let path = |probe: &str| {
        let (_, rest) = manifest.split_once(&format!(" {probe}:\n")).expect(probe);
        let line = rest.lines().next().unwrap().trim();
        line.strip_prefix("httpGet: {path: ")
            .and_then(|line| line.strip_suffix(", port: http}"))
            .expect(line)
            .to_owned()
    };
    let worker = Worker::start(&[]);
    worker.report_when("no GPU", |report| report["health"]["verdict"] == "unhealthy");
    let status = |probe: &str| worker.get(&path(probe)).status;
    assert_eq!(["startupProbe", "livenessProbe", "readinessProbe"].map(status), [200, 200, 503]);
    // Those of Kubernetes bring no token.
    let worker = Worker::start(&[("WORKER_TOKEN", "s3cret")]);
    let status = |probe: &str| worker.get(&path(probe)).status;
    assert_eq!(["startupProbe", "livenessProbe", "readinessProbe"].map(status), [200, 200, 401]);
    let (_, grace) = manifest.split_once("terminationGracePeriodSeconds: ").expect("a grace period");
    let grace: u32 = grace.lines().next().and_then(|number| number.parse().ok()).expect("seconds");
    assert!(grace > 17, "a stop can take 17 s, not {grace} s");
}
