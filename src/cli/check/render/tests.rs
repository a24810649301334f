use super::*;

#[test]
fn a_report_becomes_lines() {
    let json = r#"{"gpu_count":1,"gpus":[{},{}],"total_models":2,"model_name":"a|b\nc","source":"nvml+ollama","x":1,
        "health":{"verdict":"unhealthy","reasons":[{"code":"GPU_LOST","severity":"unhealthy","gpu":"GPU-1",
        "message":"gone","action":"reboot","since":1.5}]}}"#;
    let (verdict, text) = summary(json).unwrap();
    assert_eq!(verdict, Verdict::Unhealthy);
    assert_eq!(
        text,
        "agent-net unhealthy (GPU_LOST): 1 of 2 GPUs usable, 2 models, a b c loaded [nvml+ollama]\n\
         GPU 0: no readings\n\
         GPU 1: no readings\n\
         unhealthy GPU_LOST (GPU-1): gone\n  -> reboot\n"
    );
    let list = r#"[1,[],2,"m",{"verdict":"ok","reasons":[]},"nvml"]"#;
    for junk in ["", "{}", "[]", list, "<html>", r#"{"status":"success"}"#] {
        assert!(summary(junk).is_err(), "{junk}");
    }
}

#[test]
fn a_worker_does_not_pass_for_another_one() {
    let report = |more: &str| {
        format!(
            r#"{{"gpu_count":1,"total_models":0,"source":"nvml","health":{{"verdict":"ok","reasons":[]}},"a":{{"url":1}}{more}}}"#
        )
    };
    let (verdict, text) = json_report_of("http://a", &report("")).unwrap();
    assert_eq!((verdict, text.starts_with(r#"{"url":"http://a","gpu_count":1,"#)), (Verdict::Ok, true));
    for own in [r#","url":"http://b""#, r#","url":null"#, r#","\u0075rl":"http://b""#] {
        assert!(json_report_of("http://a", &report(own)).is_err(), "{own}");
    }
}

#[test]
fn what_was_acknowledged_is_a_line() {
    let reason = r#"{"code":"NO_GPU","severity":"unhealthy","message":"a","action":"b","since":1}"#;
    let check = |json: &str| acknowledged(json).ok();
    let line = |text: &str| Some(format!("acknowledged; the verdict is {text}\n"));
    assert_eq!(check(r#"{"status":"ready","verdict":"ok","reasons":[],"registrations":[]}"#), line("ok"));
    assert_eq!(check(&format!(r#"{{"verdict":"unhealthy","reasons":[{reason}]}}"#)), line("unhealthy (NO_GPU)"));
    let not_kept = check(r#"{"verdict":"ok","reasons":[],"not_kept":"disk full"}"#);
    assert_eq!(not_kept, line("ok; it ends with a restart of the worker: disk full"));
    assert_eq!(check("{}"), None);
}

#[test]
fn the_text_form_begins_with_its_verdict() {
    assert_eq!(verdict_of_text("verdict=degraded\nreasons='X'\n"), Ok(Verdict::Degraded));
    let why = verdict_of_text("verdict=ok\nreasons=''; reboot\n").unwrap_err();
    assert!(why.contains("line 2"), "{why}");
    for junk in ["", "verdict=fine\n", "status=ok\nverdict=ok\n", "verdict='ok'\n"] {
        assert!(verdict_of_text(junk).is_err(), "{junk}");
    }
}

/// The lines below the first of a report with these GPUs and reasons.
fn below(gpus: &str, reasons: &str) -> String {
    let json = format!(
        r#"{{"gpu_count":1,"gpus":[{gpus}],"total_models":0,"source":"nvml",
        "health":{{"verdict":"degraded","reasons":[{reasons}]}}}}"#
    );
    summary(&json).unwrap().1.split_once('\n').unwrap().1.to_owned()
}

#[test]
fn a_gpu_is_a_line() {
    #[track_caller]
    fn check(gpu: &str, expect: &str) {
        assert_eq!(below(gpu, ""), format!("{expect}\n"));
    }
    let all = r#"{"index":0,"name":"NVIDIA L40S","temperature_c":41,"power_w":63.2,"power_limit_w":350.0,
        "vram_used_mb":7012,"vram_total_mb":46068,"utilization_percent":3}"#;
    check(all, "GPU 0 NVIDIA L40S: 41 °C, 63 W of 350 W, 7012 of 46068 MiB, 3 %");
    // What is not known is never 0, and what is 0 is shown.
    check(
        r#"{"index":3,"temperature_c":null,"power_limit_w":350,"vram_total_mb":46068,"utilization_percent":0}"#,
        "GPU 3: - W of 350 W, - of 46068 MiB, 0 %",
    );
    check(r#"{"index":3,"power_w":9.6,"vram_used_mb":0}"#, "GPU 3: 10 W, 0 MiB in use");
    check(r#"{"index":1,"asleep":true,"vram_used_mb":38,"vram_total_mb":16368}"#, "GPU 1: asleep, 38 of 16368 MiB");
    check(r#"{"name":"A"}"#, "GPU 0 A: no readings");
    check(r#"{"name":"A","error":"gone"}"#, "GPU 0 A: no readings: gone");
    // A name is text of a driver, or of whoever answers at a URL.
    check(r#"{"name":"A\u001b[2J\nB|C\u009b1m\u202eD","temperature_c":41}"#, "GPU 0 A [2J B C 1m D: 41 °C");
    check(
        &format!(r#"{{"name":"{}","temperature_c":41}}"#, "x".repeat(500)),
        &format!("GPU 0 {}: 41 °C", "x".repeat(96)),
    );
}

#[test]
fn a_code_is_printed_once() {
    #[track_caller]
    fn check(gpus: usize, reasons: &[(&str, &str, Option<usize>, &str, &str)], expect: &str) {
        let gpu = |i| format!(r#"{{"index":{i},"uuid":"GPU-{i}","temperature_c":41}}"#);
        let gpus: Vec<String> = (0..gpus).map(gpu).collect();
        let reason = |(code, severity, gpu, message, action): &(&str, &str, Option<usize>, &str, &str)| {
            let gpu = gpu.map_or("null".into(), |gpu| format!("\"GPU-{gpu}\""));
            format!(
                r#"{{"code":"{code}","severity":"{severity}","gpu":{gpu},"message":"{message}","action":"{action}"}}"#
            )
        };
        let reasons: Vec<String> = reasons.iter().map(reason).collect();
        let text = below(&gpus.join(","), &reasons.join(","));
        let lines: Vec<&str> = text.lines().skip(gpus.len()).collect();
        assert_eq!(lines.join("\n"), expect);
    }
    let hot = |gpu, message| ("TEMP_HIGH", "degraded", Some(gpu), message, "Cool it.");
    check(2, &[hot(1, "GPU 1: 95 °C")], "degraded TEMP_HIGH (GPU 1): 95 °C\n  -> Cool it.");
    // The same of all.
    let same = [hot(0, "GPU 0: 95 °C"), hot(3, "GPU 3: 95 °C")];
    check(4, &same, "degraded TEMP_HIGH (GPU 0, GPU 3): 95 °C\n  -> Cool it.");
    // GPU 1 is not GPU 11, nor is its index.
    let reset = |gpu, action| ("RESET_REQUIRED", "unhealthy", Some(gpu), "reset", action);
    let many: Vec<String> =
        (0..12).map(|gpu| format!("Run `nvidia-smi -i {gpu} -r`, not `nvidia-smi -i 99 -r`.")).collect();
    let all: Vec<_> = many.iter().enumerate().map(|(gpu, action)| reset(gpu, action.as_str())).collect();
    let names: Vec<String> = (0..12).map(|gpu| format!("GPU {gpu}")).collect();
    let expect = format!(
        "unhealthy RESET_REQUIRED ({}): reset\n  -> Run `nvidia-smi -i 0,1,2,3,4,5,6,7,8,9,10,11 -r`, not `nvidia-smi -i 99 -r`.",
        names.join(", ")
    );
    check(12, &all, &expect);
    // A worker in a container names them by their PCI bus IDs.
    check(
        2,
        &[
            reset(0, "Run `nvidia-smi -i 00000000:41:00.0 -r` on the host."),
            reset(1, "Run `nvidia-smi -i 00000000:81:00.0 -r` on the host."),
        ],
        "unhealthy RESET_REQUIRED (GPU 0, GPU 1): reset\n  -> Run `nvidia-smi -i 00000000:41:00.0,00000000:81:00.0 -r` on the host.",
    );
    // Something else of each, or of some.
    check(
        4,
        &[hot(0, "GPU 0: 95 °C"), hot(1, "GPU 1: 95 °C"), hot(3, "GPU 3: 97 °C")],
        "degraded TEMP_HIGH (GPU 0, GPU 1, GPU 3):\n  GPU 0, GPU 1: 95 °C\n  GPU 3: 97 °C\n  -> Cool it.",
    );
    check(
        2,
        &[
            ("RESET_REQUIRED", "unhealthy", Some(0), "GPU 0: driver requests a reset", "Reset."),
            ("RESET_REQUIRED", "degraded", Some(1), "GPU 1: driver requests a restart", "Restart."),
        ],
        "unhealthy RESET_REQUIRED (GPU 0, GPU 1):\n  unhealthy: GPU 0: driver requests a reset\n    -> Reset.\n  degraded: GPU 1: driver requests a restart\n    -> Restart.",
    );
    // Of the machine, beside that of a GPU.
    check(
        1,
        &[("XID_FATAL", "unhealthy", Some(0), "GPU 0: a", "A."), ("XID_FATAL", "unhealthy", None, "another", "A.")],
        "unhealthy XID_FATAL (GPU 0):\n  GPU 0: a\n  another\n  -> A.",
    );
    check(1, &[("NO_GPU", "unhealthy", None, "none", "A.")], "unhealthy NO_GPU: none\n  -> A.");
}

#[test]
fn without_a_report_there_is_a_line_as_well() {
    assert_eq!(unknown("a\nb|c"), "agent-net unknown: a b c\n");
    assert_eq!(unknown_text("it's\n"), "verdict=unknown\nerror='it'\\''s '\n");
    assert_eq!(json_line("{\r\n \"a\": 1\n}\n\n"), "{   \"a\": 1 }\n");
}

#[test]
fn what_was_not_read_is_not_counted() {
    #[track_caller]
    fn check(source: &str, gpus: &str, verdict: &str, expect: &str) {
        let json = format!(
            r#"{{"gpu_count":1,"gpus":[{gpus}],"total_models":0,"source":"{source}",
            "health":{{"verdict":"{verdict}","reasons":[]}}}}"#
        );
        let text = summary(&json).unwrap().1;
        assert!(text.starts_with(&format!("agent-net {verdict}: {expect}, 0 models [{source}]\n")), "{text}");
    }
    check("ollama", "", "unhealthy", "no GPU could be read");
    check("ollama", "{},{}", "unhealthy", "none of 2 GPUs could be read");
    check("none", "{},{}", "unhealthy", "none of 2 GPUs could be read");
    for source in ["nvml", "tegra+ollama", "amdgpu+ollama", "nvml+amdgpu+ollama"] {
        check(source, "{},{}", "degraded", "1 of 2 GPUs usable");
    }
    // EXPECTED_GPUS=0
    check("ollama", "", "ok", "no GPU");
}
