//! Rows about the probes of models.

use super::*;
use crate::ollama::probe::row::{ProbeFacts, ProbeResult, ProbeRow};

fn last(result: ProbeResult, why: &str) -> Option<ProbeRow> {
    Some(ProbeRow { at: NOW, result, why: Some(why.into()), ..ProbeRow::empty() })
}

fn row(model: &str, probes: ProbeFacts) -> KeeperRow {
    let mut row = KeeperRow::new(model);
    row.probes = probes;
    row
}

fn unanswered(unanswered: u32, result: ProbeResult, why: &str) -> ProbeFacts {
    ProbeFacts { last: last(result, why), unanswered, ..ProbeFacts::default() }
}

fn slow(median: f64, best: f64) -> ProbeFacts {
    ProbeFacts { slow: Some((median, best)), ..ProbeFacts::default() }
}

fn idle() -> ProbeFacts {
    ProbeFacts { idle_gpus: Some("GPU 0 at most 0 % in 5 samples, 30 W".into()), ..ProbeFacts::default() }
}

fn case(keepers: Vec<KeeperRow>, ollama: OllamaState) -> Case {
    Case { keepers, ollama, ..Case::default() }
}

fn down() -> OllamaState {
    OllamaState { reach: Reach::Down("x".to_owned().into()), ..up() }
}

#[test]
fn two_probes_without_an_answer_are_a_reason() {
    let hangs = |count| unanswered(count, ProbeResult::Hangs, "no answer within 30 s");
    case(vec![row("a:1", ProbeFacts::default())], up()).check(&[]);
    case(vec![row("a:1", hangs(1))], up()).check(&[]);
    let one = case(vec![row("a:1", hangs(2)), row("b:1", hangs(1))], up());
    one.check(&[(ModelHangs, Unhealthy)]);
    let message = |case: &Case| case.reasons(&[], NOW)[0].message.clone();
    assert_eq!(message(&one), "Model a:1 did not answer 2 probes in a row (no answer within 30 s)");
    let error =
        unanswered(3, ProbeResult::Failed, &format!("llama runner process has terminated\n{}", "x".repeat(999)));
    let both = case(vec![row("a:1", hangs(2)), row("b:1", error)], up());
    both.check(&[(ModelHangs, Unhealthy)]);
    let text = message(&both);
    let expected = "Models a:1 did not answer 2 probes in a row (no answer within 30 s) and b:1 did not answer 3 probes in a \
                    row (llama runner process has terminated x";
    assert!(text.starts_with(expected) && text.len() < 350 && !text.contains('\n'), "{text}");
    // Why the last one was skipped is not why the others had no answer.
    let skipped = case(vec![row("a:1", unanswered(2, ProbeResult::Skipped, "GPU 0 is busy"))], up());
    skipped.check(&[(ModelHangs, Unhealthy)]);
    assert_eq!(message(&skipped), "Model a:1 did not answer 2 probes in a row");
    case(vec![row("a:1", hangs(2))], down()).check(&[(OllamaDown, Unhealthy)]);
    // One poll of Ollama was lost.
    case(vec![row("a:1", hangs(2))], OllamaState::PENDING).check(&[(ModelHangs, Unhealthy), (OllamaNoAnswer, Unknown)]);
}

/// Each second probe is answered, so that no two in a row fail.
#[test]
fn a_runner_that_dies_again_and_again_is_a_reason() {
    let mut row = row("a:1", ProbeFacts::default());
    let mut die = |answered: bool| {
        if answered {
            row.deaths.answered();
        } else {
            row.deaths.add("llama runner process has terminated: exit status 2", Duration::ZERO);
        }
        case(vec![row.clone()], up())
    };
    for answered in [false, true, false, true] {
        die(answered).check(&[]);
    }
    let found = die(false);
    found.check(&[(ModelHangs, Degraded)]);
    let reason = &found.reasons(&[], NOW)[0];
    let expected =
        "Model a:1 lost its runner 3 times within 30 minutes (llama runner process has terminated: exit status 2)";
    assert_eq!(reason.message, expected);
    assert!(reason.action.contains("dmesg") && reason.action.contains("memory"), "{reason:?}");
    die(false).check(&[(ModelHangs, Degraded)]);
    die(false).check(&[(ModelHangs, Unhealthy)]);
    die(true).check(&[(ModelHangs, Degraded)]);
}

#[test]
fn a_model_below_its_usual_speed_is_a_reason() {
    let one = case(vec![row("a:1", slow(12.345, 32.0)), row("b:1", ProbeFacts::default())], up());
    one.check(&[(ModelSlow, Degraded)]);
    let reason = |case: &Case| case.reasons(&[], NOW).into_iter().find(|reason| reason.code == ModelSlow).unwrap();
    let found = reason(&one);
    assert_eq!(found.message, "Model a:1 (12.3 of its usual 32.0 tokens/s) is slow");
    assert_eq!((found.value, found.threshold), (Some(12.35), Some(16.0)));
    assert!(found.action.starts_with("Look for heat"), "{found:?}");
    // The numbers are those of the slowest, measured by itself.
    let found = reason(&case(vec![row("a:1", slow(4.0, 10.0)), row("b:1", slow(30.0, 100.0))], up()));
    assert_eq!(
        found.message,
        "Models a:1 (4.0 of its usual 10.0 tokens/s) and b:1 (30.0 of its usual 100.0 tokens/s) are slow"
    );
    assert_eq!((found.value, found.threshold), (Some(30.0), Some(50.0)));
    case(vec![row("a:1", slow(1.0, 9.0))], down()).check(&[(OllamaDown, Unhealthy)]);
}

#[test]
fn the_cause_of_a_slow_model_is_named_where_it_is_known() {
    let action = |case: Case| {
        let reasons = case.reasons(&[], NOW);
        reasons.iter().find(|reason| reason.code == ModelSlow).unwrap().action.clone().into_owned()
    };
    let slow = || vec![row("m", slow(1.0, 9.0))];
    let hot = Case { keepers: slow(), ..of(r#"{"temperature_c":90}"#) };
    hot.check(&[(TempHigh, Degraded), (ModelSlow, Degraded)]);
    assert_eq!(action(hot), "Fix TEMP_HIGH first: it makes models slow.");
    let two = Case { keepers: slow(), ollama: holding(0), ..of(r#"{"temperature_c":90}"#) };
    assert_eq!(action(two), "Fix TEMP_HIGH and MODEL_ON_CPU first: they make models slow.");
    assert!(action(case(slow(), holding(5))).contains("a part of the model on the CPU"));
    assert!(action(case(slow(), holding(9))).starts_with("Look for heat"));
    // Another finding is not a cause.
    let other = Case { keepers: slow(), ..of(r#"{"inforom_corrupt":true}"#) };
    assert!(action(other).starts_with("Look for heat"));
}

#[test]
fn a_gpu_that_does_not_work_during_probes_is_a_reason() {
    let seen = case(vec![row("m", idle())], holding(9));
    seen.check(&[(ModelOnCpu, Degraded)]);
    let reason = |case: &Case| case.reasons(&[], NOW)[0].clone();
    assert_eq!(
        reason(&seen).message,
        "Ollama reports m on the GPU, but no GPU worked during two probes: GPU 0 at most 0 % in 5 samples, 30 W"
    );
    assert!(reason(&seen).action.contains("does not list"));
    // By the list alone, and by both: one reason, in the words of the list.
    let listed = case(vec![], holding(0));
    let both = case(vec![row("M:latest", idle())], holding(0));
    both.check(&[(ModelOnCpu, Degraded)]);
    assert_eq!(reason(&both), reason(&listed));
    assert_eq!(reason(&both).message, "Model m is running on the CPU, not the GPU");
    assert!(!reason(&both).action.contains("does not list"));
    let another = case(vec![row("other", idle())], holding(0));
    another.check(&[(ModelOnCpu, Degraded)]);
    let message = reason(&another).message;
    assert!(message.starts_with("Model m is running on the CPU, not the GPU. Ollama reports other on"), "{message}");
    // Not while Ollama or the GPUs are away.
    case(vec![row("m", idle())], down()).check(&[(OllamaDown, Unhealthy)]);
    let gone = Case { gpu: fault(FaultKind::DriverNotLoaded, 0.0), ..case(vec![row("m", idle())], holding(9)) };
    gone.check(&[(DriverNotLoaded, Unhealthy)]);
}

#[test]
fn who_holds_the_memory_is_named_where_a_model_lacks_it() {
    let process = |pid, name: Option<&str>, mib: u64| {
        let (name, vram_bytes) = (name.map(str::to_owned), Some(mib << 20));
        crate::gpu::value::Process { pid, name, vram_bytes, ..Default::default() }
    };
    let check = |processes: &[crate::gpu::value::Process], case: Case, code, message: &str, action: &str| {
        let gpu = sample(vec![Gpu { processes: Some(processes.to_vec()), ..gpu() }]);
        let reasons = Case { gpu, ..case }.reasons(&[], NOW);
        let reason = reasons.iter().find(|reason| reason.code == code).unwrap();
        assert!(reason.message.ends_with(message) && reason.action.starts_with(action), "{reason:?}");
    };
    let named = [process(4242, Some("ollama"), 1200), process(99, Some("python3"), 4000), process(7, None, 1)];
    let held = ". VRAM: python3 (pid 99) holds 4000 MiB, ollama (pid 4242) holds 1200 MiB, process 7 holds 1 MiB";
    let stop = "Stop python3 (pid 99), or give Ollama another GPU. ";
    let slow = || case(vec![row("m", slow(1.0, 9.0))], holding(5));
    let displaced = || {
        let mut row = KeeperRow::new("a:1");
        row.displaced_by = Some("b:1".into());
        case(vec![row], up())
    };
    let on_cpu = || case(vec![], holding(0));
    check(&named, on_cpu(), ModelOnCpu, &format!("the CPU, not the GPU{held}"), &format!("{stop}Restart Ollama"));
    check(&named, slow(), ModelSlow, &format!("is slow{held}"), &format!("{stop}Free VRAM"));
    check(&named, displaced(), ModelsDisplaced, &format!("all of them{held}"), &format!("{stop}Raise OLLAMA_"));
    // Without a name no process is to be stopped, and with none at all nothing is added.
    check(&named[2..], on_cpu(), ModelOnCpu, "the GPU. VRAM: process 7 holds 1 MiB", "Restart Ollama");
    check(&[], slow(), ModelSlow, "tokens/s) is slow", "Free VRAM");
    // What a probe saw names them by itself.
    check(&named, case(vec![row("m", idle())], holding(9)), ModelOnCpu, "in 5 samples, 30 W", stop);
}
