use super::*;
use crate::ollama::models::{Loaded, ModelStatus};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// On the CPU.
fn status() -> ModelStatus {
    let loaded = Loaded { size_bytes: Some(1 << 30), expires_at: Some(1000), ..Loaded::default() };
    ModelStatus { pulled: true, loaded: Some(loaded), digest: None, remote_host: None }
}

fn look(status: &ModelStatus) -> Look<'_> {
    Look { status, clock: 0, since_client: None, left_alone: false }
}

const ROOM: Option<u64> = Some((1 << 30) + SPARE);

#[test]
fn a_model_that_stays_on_the_cpu_is_loaded_again_once_an_hour() {
    let (status, mut heal) = (status(), HealState::default());
    assert_eq!(heal.due(&look(&status), false, seconds(0)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(29)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(30)), ROOM);
    heal.tried(seconds(40));
    assert_eq!(heal.due(&look(&status), false, seconds(50)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(3639)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(3640)), ROOM);
    heal.tried(seconds(3650));
    // It did not help: twice as long.
    heal.due(&look(&status), false, seconds(3700));
    assert_eq!(heal.due(&look(&status), false, seconds(3650 + 7199)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(3650 + 7200)), ROOM);
    // Ollama was away for longer than that: it may be loading the model now.
    heal.tried(seconds(11_000));
    assert_eq!(heal.due(&look(&status), false, seconds(90_000)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(90_030)), ROOM);
}

/// A client that loads it on the CPU on purpose is disturbed less and less.
#[test]
fn only_an_hour_on_a_gpu_resets_the_waits() {
    #[track_caller]
    fn check(on_gpu_for: u64, expect: u64) {
        let (status, mut heal) = (status(), HealState::default());
        let mut on_gpu = status.clone();
        on_gpu.loaded.as_mut().unwrap().vram_bytes = 1;
        heal.tried(seconds(0));
        heal.due(&look(&on_gpu), false, seconds(10));
        heal.due(&look(&on_gpu), false, seconds(10 + on_gpu_for));
        heal.due(&look(&status), false, seconds(3700));
        heal.tried(seconds(4000));
        heal.due(&look(&status), false, seconds(4100));
        assert_eq!(heal.due(&look(&status), false, seconds(4000 + expect - 1)), None);
        assert_eq!(heal.due(&look(&status), false, seconds(4000 + expect)), ROOM);
    }
    check(3599, 7200);
    check(3600, 3600);
}

#[test]
fn a_load_on_the_cpu_is_given_time_each_time() {
    let (status, mut heal) = (status(), HealState::default());
    let unloaded = ModelStatus { loaded: None, ..status.clone() };
    heal.due(&look(&status), false, seconds(0));
    heal.due(&look(&unloaded), false, seconds(20));
    assert_eq!(heal.due(&look(&status), false, seconds(30)), None);
    assert_eq!(heal.due(&look(&status), false, seconds(60)), ROOM);
}

#[test]
fn a_model_in_use_is_left_to_its_clients() {
    #[track_caller]
    fn check(look: &Look<'_>, fell: bool, expect: Option<u64>) {
        let mut heal = HealState::default();
        heal.due(look, fell, seconds(0));
        assert_eq!(heal.due(look, fell, seconds(30)), expect, "{look:?}");
    }
    let with = |change: fn(&mut Loaded)| {
        let mut status = status();
        change(status.loaded.as_mut().unwrap());
        status
    };
    let status = status();
    check(&Look { since_client: Some(seconds(179)), ..look(&status) }, false, None);
    check(&Look { since_client: Some(seconds(180)), ..look(&status) }, false, ROOM);
    check(&Look { left_alone: true, ..look(&status) }, false, None);
    check(&Look { clock: 1000, ..look(&status) }, false, None);
    check(&look(&with(|loaded| loaded.expires_at = None)), false, None);
    check(&look(&with(|loaded| loaded.outdated = true)), false, None);
    check(&look(&with(|loaded| loaded.size_bytes = None)), false, None);
    check(&look(&with(|loaded| loaded.size_bytes = Some(u64::MAX))), false, None);
    check(&look(&with(|loaded| loaded.vram_bytes = 1)), false, None);
    check(&look(&with(|loaded| loaded.vram_bytes = 1)), true, ROOM);
    check(&look(&ModelStatus { loaded: None, ..status.clone() }), true, None);
}
