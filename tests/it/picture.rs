//! The picture of the status page, from a run on the fakes: two L40S, one of them too hot. Only their last hour and the
//! model's probes are made up, since no test takes so long. AGENT_NET_PICTURE=1 puts the picture into tests/pictures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use serde_json::{Value, json};

use crate::fake_ollama::{Answer, FakeOllama, MODEL, PS};
use crate::gpus::{has, start};
use crate::harness::{folder, run};
use crate::http;
use crate::nvml::FakeNvml;
use crate::page::{browser, probe};

/// As the library reports an L40S with the model of [`PS`], and an idle one.
const GPUS: &str = "gpus=2
gpu*.name=NVIDIA L40S
gpu*.max=91
gpu0.memory=46068/21893/512
gpu0.processes=4200042:21375
gpu0.temperature=46
gpu0.power=88200
gpu1.memory=46068/455/512
gpu1.processes=
gpu1.temperature=94";

/// The last hour, and probes since yesterday.
fn changed(path: &str, answer: Value) -> Value {
    match path {
        "/history" => last_hour(&answer),
        "/gpu" => {
            let mut report = answer;
            report["models"][0]["probe"] = probe(&report, "ok", None, speeds().last());
            report
        }
        _ => answer,
    }
}

fn speeds() -> impl DoubleEndedIterator<Item = f64> {
    (0..48).map(|at| 31.9 + 0.7 * f64::from(at * at % 11 - 5) / 5.0)
}

/// Sixty minutes that end with what the GPUs report now.
fn last_hour(history: &Value) -> Value {
    let mut history = history.clone();
    for gpu in history["gpus"].as_array_mut().expect("GPUs") {
        for (name, swing) in [("temperature_c", 3.0), ("power_w", 9.0), ("utilization_percent", 2.5)] {
            let now = gpu[name].as_array().and_then(|all| all.last()).and_then(Value::as_f64).expect("a reading");
            let before = (0..60).map(|minute| now + swing * (f64::from(59 - minute) / 6.0).sin());
            gpu[name] = before.map(|value| json!((value * 10.0).round() / 10.0)).collect();
        }
        let used = gpu["vram_used_mb"].as_array().and_then(|all| all.last()).cloned().expect("a reading");
        gpu["vram_used_mb"] = vec![used; 60].into();
    }
    history["models"] = json!([{"model": MODEL, "tokens_per_second": speeds().collect::<Vec<_>>()}]);
    history
}

/// Passes on what a browser asks `to` a worker, with `changed` answers by path. What is not JSON is a string.
pub fn relay(to: SocketAddr, changed: fn(&str, Value) -> Value) -> SocketAddr {
    fn answer(mut browser: TcpStream, to: SocketAddr, changed: fn(&str, Value) -> Value) -> std::io::Result<()> {
        let mut bytes = [0; 4096];
        let mut head = String::new();
        while !head.contains("\r\n\r\n") {
            match browser.read(&mut bytes)? {
                0 => return Ok(()),
                read => head.push_str(&String::from_utf8_lossy(&bytes[..read])),
            }
        }
        let path = head.split(' ').nth(1).unwrap_or("/");
        let answer = http::request(to, "GET", path, &[], b"");
        let kind = answer.header("content-type").unwrap_or_default();
        let body = if kind.contains("json") { answer.json() } else { answer.text().into() };
        let body = match changed(path, body) {
            Value::String(text) => text,
            json => json.to_string(),
        };
        write!(
            browser,
            "HTTP/1.1 {} x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            answer.status,
            body.len()
        )
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            thread::spawn(move || answer(browser, to, changed));
        }
    });
    addr
}

#[test]
fn a_picture_of_the_page_is_plausible() {
    let (ollama, nvml) = (FakeOllama::new(), FakeNvml::new(GPUS));
    let vram = 21_375_u64 << 20;
    ollama.set("/api/ps", Answer::Json(PS.replace("6628048896", &vram.to_string())));
    let worker = start(&ollama, &nvml, &[("MODEL", MODEL), ("CAPABILITY_NAME", "agent-net-nyc")]);
    let report = worker.report_when("a hot GPU with its model", |report| {
        has("TEMP_HIGH")(report) && report["model_keeper"][0]["state"] == "loaded"
    });
    assert_eq!(report["health"]["reasons"].as_array().map(Vec::len), Some(1), "{report:#}");
    // A model is in the memory of its process, and that in the memory of its GPU.
    let (model, gpu) = (&report["models"][0], &report["gpus"][0]);
    let sizes = [&model["size_mb"], &model["vram_mb"], &gpu["processes"][0]["vram_mb"], &gpu["vram_used_mb"]];
    let sizes: Vec<u64> = sizes.iter().map(|size| size.as_u64().expect("a number")).collect();
    assert!(sizes.is_sorted() && gpu["vram_total_mb"] == 46_068, "{sizes:?}");

    let Some(mut browser) = browser("picture") else { return };
    let file = folder("picture-file").join("status.png");
    browser.args(["--hide-scrollbars", "--window-size=1000,880", "--virtual-time-budget=8000"]);
    browser.arg(format!("--screenshot={}", file.display())).arg(format!("http://{}/", relay(worker.addr, changed)));
    let (status, _, err) = run(&mut browser);
    assert!(status.success(), "{err}");
    let picture = std::fs::read(&file).expect("a picture");
    assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{}", picture.len());
    if std::env::var("AGENT_NET_PICTURE").as_deref() == Ok("1") {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pictures/status.png"), picture)
            .expect("it is written");
    }
}
