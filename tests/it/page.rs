//! The status page, as browsers get it and as Chromium renders it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::fake_amd::boards::RX_7900_XTX;
use crate::fake_amd::{FakeAmd, idle_ollama};
use crate::fake_ollama::{Answer, FakeOllama, MODEL};
use crate::gpus::{has, is_ok, start};
use crate::harness::{Worker, folder, run, skip};
use crate::http;
use crate::jobs::job;
use crate::nvml::FakeNvml;
use crate::picture::relay;

#[test]
fn it_comes_with_a_strict_policy_and_only_once() {
    let worker = Worker::start(&[]);
    let page = worker.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().starts_with("<!doctype html>") && page.text().len() < 40_000);
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let etag = page.header("etag").expect("an ETag").to_owned();
    let again = |value: &str| http::request(worker.addr, "GET", "/", &[&format!("If-None-Match: {value}")], b"");
    for value in [etag.as_str(), &format!("W/{etag}"), &format!("\"x\", {etag}"), "*"] {
        let answer = again(value);
        assert_eq!((answer.status, answer.text(), answer.header("etag")), (304, "", Some(etag.as_str())), "{value}");
        assert_eq!(answer.header("content-length"), None);
    }
    assert_eq!(again("\"x\"").status, 200);
    let stranger = http::request(worker.addr, "GET", "/", &["Livepeer-Runner-Route: x"], b"");
    assert_eq!(stranger.header("content-type"), Some("application/json"));
}

#[test]
fn the_last_hour_of_each_gpu_is_shown() {
    let nvml = FakeNvml::new("gpus=2\ngpu1.power=err:3");
    let worker = Worker::start(&nvml.settings());
    worker.report_when("two GPUs", |report| report["gpu_count"] == 2);
    let history = worker.get("/history").json();
    assert_eq!(history["step_seconds"], 60);
    assert_eq!(history["gpus"][0]["gpu"], "GPU-00000000-0000-0000-0000-000000000000");
    assert_eq!(history["gpus"][0]["temperature_c"][0], 41.0);
    assert_eq!(history["gpus"][0]["vram_used_mb"][0], 7012.0);
    assert_eq!(history["gpus"][1]["power_w"].as_array().expect("a list").last(), Some(&serde_json::Value::Null));
}

/// A headless Chromium with a home of its own; None, with a message, where it is missing.
pub fn browser(name: &str) -> Option<Command> {
    let program = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|program| Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success()));
    let Some(program) = program else {
        skip("chromium is missing");
        return None;
    };
    let mut browser = crate::harness::command(program);
    browser.env("HOME", folder(name)).args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    Some(browser)
}

/// The DOM after some seconds of the page's own time; None without Chromium.
pub fn rendered(addr: SocketAddr, name: &str) -> Option<String> {
    let mut browser = browser(name)?;
    browser.args(["--virtual-time-budget=8000", "--dump-dom"]).arg(format!("http://{addr}/"));
    let (status, dom, err) = run(&mut browser);
    assert!(status.success() && dom.contains("</html>"), "{err}");
    Some(dom)
}

#[test]
fn a_browser_shows_the_current_state() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpus=2\ngpu1.temperature=95"));
    let worker = start(&ollama, &nvml, &[("CAPABILITY_NAME", "agent-net-nyc"), ("MODEL", "none:1")]);
    worker.report_when("a hot GPU", |report| report["health"]["verdict"] == "degraded");
    for (agent, status) in [("a", 200), ("", 400), ("b", 200)] {
        assert_eq!(worker.post("/agent-net", &job(agent)).status, status);
    }
    let Some(dom) = rendered(worker.addr, "page-degraded") else { return };
    for part in [
        r#"class="degraded" tabindex="-1" aria-label="Verdict""#,
        "<strong>degraded</strong>",
        "degraded TEMP_HIGH",
        "What to do: ",
        r#"<a href="codes#TEMP_HIGH">about TEMP_HIGH</a>"#,
        "<code>model_keeper</code> in GET /gpu",
        "<h3>Fake RTX 0</h3>",
        "<h3>Fake RTX 1</h3>",
        "95 °C",
        "6.8 / 24.0 GiB",
        MODEL,
        "on the GPU",
        "Not registering: ORCH_URL is not set.",
        "agent-net-nyc",
        r#"<th scope="row">/agent-net</th><td>served</td><td class="number">2</td>"#,
        r#"<th scope="row">/agent-net</th><td>rejected (4xx)</td><td class="number">1</td>"#,
        "0 of 10 in progress",
        "Utilization",
    ] {
        assert!(dom.contains(part), "{part} is not in {dom}");
    }
}

/// The probe of a model 72 s before this report, and the answer of this speed.
pub fn probe(report: &Value, result: &str, why: Option<&str>, speed: Option<f64>) -> Value {
    let at = report["timestamp"].as_f64().expect("a time") - 72.0;
    let answered = if matches!(result, "ok" | "slow") { at } else { at - 600.0 };
    json!({
        "at": at, "result": result, "why": why, "answered_at": speed.map(|_| answered), "tokens_per_second": speed,
        "load_ms": 4, "queue_ms": 0, "gpu_utilization_percent": 97,
        "usual_tokens_per_second": if result == "ok" { Some(32.2) } else { None }
    })
}

#[test]
fn the_last_probe_of_a_model_is_shown_with_its_curve() {
    fn probed(path: &str, mut answer: Value) -> Value {
        if path == "/gpu" {
            let row = |name: &str, probe: Value| json!({"name": name, "pulled": true, "loaded": true, "vram_mb": 1, "on_gpu_percent": 100, "size_mb": 1, "probe": probe});
            let of = |result, why, speed| probe(&answer, result, why, speed);
            let models = [
                row("well:1", of("ok", None, Some(31.8))),
                row("slow:1", of("slow", Some("<b>half</b> of its usual speed"), Some(16.0))),
                row("new:1", of("skipped", Some("the GPU is busy"), None)),
                row("dead:1", of("hangs", Some("no answer within 30 s"), Some(31.8))),
                json!({"name": "other:1", "pulled": true, "loaded": false, "vram_mb": 0, "on_gpu_percent": null, "size_mb": 1}),
            ];
            answer["models"] = models.into_iter().collect();
        }
        if path == "/history" {
            answer["models"] = json!([{"model": "well:1", "tokens_per_second": [30.0, 32.4, 32.0, 31.9, 31.8]}]);
        }
        answer
    }
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let Some(dom) = rendered(relay(worker.addr, probed), "page-probes") else { return };
    let cell = |name: &str| {
        let row = dom.split(&format!("<th scope=\"row\">{name}</th>")).nth(1).expect("a row").split("</tr>").next();
        row.and_then(|row| row.split("<div class=\"speed\">").nth(1)).expect("a cell").to_owned()
    };
    let well = cell("well:1");
    let curve = r#"aria-label="speed of well:1 in its last probes: 30.0 tokens/s to 32.4 tokens/s"><path d="M55 "#;
    for part in ["<p>31.8 tokens/s, usually 32.2</p><p class=\"soft\">answered 1 min ago</p>", r#"role="img""#, curve] {
        assert!(well.contains(part), "{part} is not in {well}");
    }
    assert!(!well.contains("badge"), "{well}");
    let slow = cell("slow:1");
    let words =
        "<p><span class=\"badge degraded\">slow</span> 1 min ago</p><p>&lt;b&gt;half&lt;/b&gt; of its usual speed</p>";
    assert!(
        slow.starts_with(&format!("{words}<p>16.0 tokens/s</p><p class=\"soft\">answered 1 min ago</p>")),
        "{slow}"
    );
    let new = cell("new:1");
    assert!(
        new.contains(r#"<span class="badge unknown">skipped</span> 1 min ago</p><p>the GPU is busy</p></div>"#),
        "{new}"
    );
    let dead = cell("dead:1");
    assert!(dead.contains(r#"<span class="badge unhealthy">hangs</span> 1 min ago"#), "{dead}");
    assert!(dead.contains(r#"<p>31.8 tokens/s</p><p class="soft">answered 11 min ago</p>"#), "{dead}");
    assert!(cell("other:1").starts_with("</div>"), "{dom}");
}

/// Opens the details of the first GPU, a refresh before the end.
const OPEN: &str = "
  setTimeout(() => {
    window.box = document.querySelector('details');
    box.open = true;
    box.firstChild.focus();
  }, 2000);
  setTimeout(() => {
    const focus = document.activeElement === box.firstChild;
    document.body.dataset.seen = `connected: ${box.isConnected}, open: ${box.open}, focus: ${focus}`;
  }, 7500);
  look();";

/// Times that the report was asked for.
static LOOKS: AtomicUsize = AtomicUsize::new(0);

/// What the report and the page are changed to.
fn opened(path: &str, mut answer: Value) -> Value {
    if path == "/" {
        return answer.as_str().expect("the page").replacen("\nlook();", OPEN, 1).into();
    }
    if path == "/gpu" {
        answer["gpus"][0]["processes"] = json!([
            {"pid": 4242, "name": "ollama", "vram_mb": 6321, "utilization_percent": 37},
            {"pid": 7, "name": null, "vram_mb": null, "utilization_percent": null},
            {"pid": 8, "name": "<b>x</b>", "vram_mb": 0, "utilization_percent": 0}
        ]);
        answer["gpus"][0]["mig"] = json!([
            {"uuid": "MIG-1", "profile": "1g.10gb", "vram_total_mb": 9984, "vram_used_mb": 9},
            {"uuid": null, "profile": null, "vram_total_mb": null, "vram_used_mb": null}
        ]);
        let looks = LOOKS.fetch_add(1, Ordering::SeqCst);
        answer["gpus"][0]["pci_bus_id"] = format!("look {looks}").into();
        answer["gpus"][0]["throttle_reasons"] = json!(["idle", "sw_power", "hw_thermal", "new"]);
        answer["gpus"][0]["throttle_seconds"] = json!({"sw_thermal": 7384.2, "sw_power": 0.2});
        for unknown in
            ["memory_clock_mhz", "performance_state", "pcie_replays", "pcie_width", "mig_mode", "remapped_rows"]
        {
            answer["gpus"][0][unknown] = Value::Null;
        }
    }
    answer
}

/// Of the first GPU, as [`opened`] shows it.
const DETAILS: [(&str, &str); 19] = [
    ("Graphics clock", "210 of 2520&nbsp;MHz"),
    ("Memory clock", "unknown of 9001&nbsp;MHz"),
    ("P-state", "unknown"),
    ("Throttled now", "power limit, heat (hardware), new"),
    ("Throttled since driver load", "heat (driver): 2 h 3 min"),
    ("Power limit", "350&nbsp;W, default 350&nbsp;W"),
    ("Temperature limits", "maximum 90&nbsp;°C, throttles at 95&nbsp;°C, shuts down at 98&nbsp;°C"),
    ("Memory temperature", "unknown, maximum 105&nbsp;°C"),
    ("Fans", "30&nbsp;%, 30&nbsp;%"),
    ("PCIe link", "Gen&nbsp;1, maximum Gen&nbsp;4&nbsp;x16"),
    ("PCIe replays", "unknown"),
    ("ECC", "on"),
    ("Uncorrectable ECC errors", "0 since driver load, 0 in total"),
    ("Remapped rows", "unknown"),
    ("Banks by spare rows", "2560 max, 1 none"),
    ("Repairs pending", "compute unit"),
    ("Errors beyond repair", "no"),
    ("NVLink fabric", "in progress"),
    ("MIG mode", "not supported"),
];

const NEWER: &str =
    "gpus=2\ngpu0.fans=2\ngpu0.spares=2560/0/0/0/1\ngpu0.repair=0/1\ngpu0.unrepairable=0\ngpu0.fabric=2/0/0/0";

/// The details of the first GPU are opened, and a refresh comes after that.
#[test]
fn the_details_of_a_gpu_are_shown_on_demand_and_stay_open() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(NEWER));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("degraded", has("REPAIR_PENDING"));
    let Some(dom) = rendered(relay(worker.addr, opened), "page-details") else { return };
    assert!(dom.contains(r#"data-seen="connected: true, open: true, focus: true""#), "{dom}");
    let details: Vec<&str> = dom.split("<details").skip(1).map(|all| all.split("</details>").next().unwrap()).collect();
    assert_eq!(details.len(), 2, "{dom}");
    assert_eq!(details[1], r#"><summary aria-label="Details of Fake RTX 1">Details</summary><div></div>"#);
    for (name, value) in DETAILS {
        let row = format!(r#"<dt class="soft">{name}</dt><dd>{value}</dd>"#);
        assert!(details[0].contains(&row), "{row} is not in {}", details[0]);
    }
    // The refresh has reached them.
    assert!(details[0].contains("PCI address</dt><dd>look ") && !details[0].contains("look 0"), "{}", details[0]);
    for row in [
        r#"<th scope="row"><div>1g.10gb<p class="soft">MIG-1</p></div></th><td class="number">9 of 9984&nbsp;MiB</td>"#,
        r#"<th scope="row"><div>unknown<p class="soft">no UUID</p></div></th><td class="number">unknown</td>"#,
        r#"<th scope="row">4242</th><td>ollama</td><td class="number">6321 MiB</td><td class="number">37 %</td>"#,
        r#"<th scope="row">7</th><td>unknown</td><td class="number">unknown</td><td class="number">unknown</td>"#,
        r#"<th scope="row">8</th><td>&lt;b&gt;x&lt;/b&gt;</td><td class="number">0 MiB</td><td class="number">0 %</td>"#,
    ] {
        assert!(details[0].contains(row), "{row} is not in {}", details[0]);
    }
}

/// A GPU of AMD has no rows for what NVIDIA's alone have, and one that sleeps none for what is not read.
#[test]
fn details_are_those_that_a_gpu_can_have() {
    fn first_opened(path: &str, answer: Value) -> Value {
        if path == "/" { opened(path, answer) } else { answer }
    }
    let (machine, ollama) = (FakeAmd::new(&[RX_7900_XTX]), idle_ollama());
    let worker = machine.start(&ollama, &[]);
    worker.report_when("verdict ok", is_ok);
    let Some(dom) = rendered(relay(worker.addr, first_opened), "page-amd") else { return };
    for part in
        ["<dd>73&nbsp;MHz</dd>", "<dd>61&nbsp;°C, throttles at 110&nbsp;°C</dd>", "<dd>0&nbsp;%, 0&nbsp;RPM</dd>"]
    {
        assert!(dom.contains(part), "{part} is not in {dom}");
    }
    assert!(!dom.contains("<dd>not supported") && !dom.contains("<dt class=\"soft\">MIG mode"), "{dom}");
    machine.card(0).sleep();
    worker.report_when("asleep", |report| report["gpus"][0]["asleep"] == true);
    let dom = rendered(relay(worker.addr, first_opened), "page-asleep").unwrap();
    assert!(dom.contains("<span>asleep</span>") && dom.contains("Host memory in use (GTT)"), "{dom}");
    assert!(!dom.contains("<dd>unknown") && !dom.contains("<dd>asleep"), "{dom}");
}

/// Names come from the driver and from Ollama: they are text, whatever they look like.
#[test]
fn names_are_never_markup() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new("gpu0.name=<img src=x onerror=document.title='owned'>"));
    let tags = r#"{"models":[{"name":"<b>\"quoted\"</b>'\u0000:latest","size":1}]}"#;
    ollama.set("/api/tags", Answer::Json(tags.into()));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("a strange GPU", |report| report["gpu_count"] == 1 && report["total_models"] == 1);
    let Some(dom) = rendered(worker.addr, "page-names") else { return };
    assert!(dom.contains("<h3>&lt;img src=x onerror=document.title='owned'&gt;</h3>"), "{dom}");
    assert!(dom.contains("&lt;b&gt;\"quoted\"&lt;/b&gt;'"), "{dom}");
    assert!(!dom.contains("<img") && !dom.contains("<title>owned"), "{dom}");
}

#[test]
fn without_a_gpu_it_says_what_to_do() {
    let worker = Worker::start(&[]);
    worker.report_when("a verdict", |report| !is_ok(report));
    let Some(dom) = rendered(worker.addr, "page-none") else { return };
    assert!(dom.contains("<strong>unhealthy</strong>") || dom.contains("<strong>unknown</strong>"), "{dom}");
    assert!(dom.contains("No GPU detected.") && dom.contains("Ollama does not respond"), "{dom}");
}

#[test]
fn a_model_is_shown_once_whatever_the_spelling_of_its_name() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let spelled = format!("registry.ollama.ai/library/{}", MODEL.to_uppercase());
    let worker = start(&ollama, &nvml, &[("MODEL", &spelled)]);
    worker.report_when("a kept model", |report| report["model_keeper"][0]["state"] == "loaded");
    let Some(dom) = rendered(worker.addr, "page-spelling") else { return };
    assert!(dom.contains("<td>loaded</td>") && !dom.contains(&spelled), "{dom}");
}

#[test]
fn what_is_unknown_of_ollama_is_not_shown_as_missing() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    ollama.set("/api/tags", Answer::Status(500, "broken".into()));
    let worker = start(&ollama, &nvml, &[("MODEL", "kept:1b")]);
    worker.report_when("an unusable list", |report| report["ollama"]["error"].is_string());
    let Some(dom) = rendered(worker.addr, "page-lists") else { return };
    let unknown = r#"<th scope="row">kept:1b</th><td>unknown</td><td>unknown</td>"#;
    assert!(dom.contains(unknown) && dom.contains("Ollama's models are unknown: "), "{dom}");

    ollama.set_all(&Answer::Status(500, "broken".into()));
    worker.report_when("no answer", |report| report["ollama"]["reachable"] == false);
    let dom = rendered(worker.addr, "page-down").expect("Chromium");
    assert!(dom.contains(unknown) && dom.contains("Ollama does not respond: "), "{dom}");

    let silent = FakeOllama::new();
    silent.set_all(&Answer::Hang);
    let worker = start(&silent, &nvml, &[]);
    worker.report_when("a report", |report| report["ollama"]["reachable"].is_null());
    let dom = rendered(worker.addr, "page-silent").expect("Chromium");
    assert!(!dom.contains("<p class=\"card\">Ollama has no models."), "{dom}");
}

/// Passes on what a browser asks `to` a worker, until it asks for the version a second time: then the connection is refused.
fn goes_away(to: SocketAddr) -> SocketAddr {
    fn pass_on(mut browser: TcpStream, to: SocketAddr, looks: &AtomicUsize) -> std::io::Result<()> {
        let mut worker = TcpStream::connect(to)?;
        let (mut answers, mut back) = (worker.try_clone()?, browser.try_clone()?);
        thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mut bytes = [0; 4096];
        while let read @ 1.. = browser.read(&mut bytes)? {
            let asked = String::from_utf8_lossy(&bytes[..read]).starts_with("GET /version");
            if looks.fetch_add(usize::from(asked), Ordering::SeqCst) + usize::from(asked) >= 2 {
                break;
            }
            worker.write_all(&bytes[..read])?;
        }
        worker.shutdown(Shutdown::Both)?;
        browser.shutdown(Shutdown::Both)
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let looks = Arc::new(AtomicUsize::new(0));
    thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            let looks = Arc::clone(&looks);
            if looks.load(Ordering::SeqCst) < 2 {
                thread::spawn(move || pass_on(browser, to, &looks));
            }
        }
    });
    addr
}

#[test]
fn a_worker_that_is_gone_is_reported() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(""));
    let worker = start(&ollama, &nvml, &[]);
    worker.report_when("verdict ok", is_ok);
    let Some(dom) = rendered(goes_away(worker.addr), "page-gone") else { return };
    assert!(dom.contains(r#"<body class="lost">"#) && dom.contains("No response from the worker since"), "{dom}");
    assert!(dom.contains("<title>no response") && dom.contains("<h3>Fake RTX 0</h3>"), "{dom}");
}
