//! The sentence of a message, as it is read on a lock screen: which worker, what is wrong, what to do.

use std::time::Duration;

use super::event::{Event, EventKind};
use crate::health::standing::Standing;
use crate::health::verdict::Verdict;
use crate::sys::text::{counted, middle, one_line};

/// Reasons that are spelled out, and characters of each: names of GPUs and models may be long.
const REASONS: usize = 3;
const MOST: usize = 300;

/// `previous`: what the receiver knows; None: nothing.
pub(super) fn of(event: &Event, previous: Option<Verdict>) -> String {
    let worker = middle(&event.worker, MOST);
    let Some(standing) = &event.standing else {
        if event.kind == EventKind::Stopping {
            return format!("{worker} is stopping");
        }
        return format!(
            "{worker}: this is a test of Agent-Net's notifications. No worker's verdict could be read here"
        );
    };
    let is = condition(standing);
    match (event.kind, event.flapping) {
        (EventKind::Test, _) => format!("{worker}: this is a test of Agent-Net's notifications. The worker is {is}"),
        (EventKind::Stopping, _) => format!("{worker} is stopping. It was {is}"),
        (kind, Some(flapping)) => {
            let started = if kind == EventKind::Started { "has started and " } else { "" };
            let changes = counted(flapping.changes, "change");
            let during = lasted(flapping.during);
            format!("{worker} {started}is flapping: {changes} in {during}. The worst state was {is}")
        }
        (EventKind::Started, None) => format!("{worker} has started and is {is}"),
        (EventKind::Verdict, None) if standing.verdict == Verdict::Ok => {
            let again = if previous.is_some_and(|previous| previous != Verdict::Ok) { " again" } else { "" };
            let after = event.lasted.map_or_else(String::new, |time| format!(" after {}", lasted(time)));
            format!("{worker} is ok{again}{after}: {}", usable(standing))
        }
        (EventKind::Verdict, None) => match previous {
            Some(previous) if previous == standing.verdict => format!("{worker} is still {is}"),
            Some(previous) if previous > standing.verdict => format!("{worker} is no longer {previous} but {is}"),
            _ => format!("{worker} is {is}"),
        },
    }
}

/// A heading of a few words.
pub(super) fn title(event: &Event) -> String {
    let state = match (event.kind, event.flapping, event.verdict()) {
        (EventKind::Test, ..) => "test",
        (EventKind::Stopping, ..) => "stopping",
        (_, Some(_), _) => "flapping",
        (.., verdict) => verdict.unwrap_or(Verdict::Unknown).name(),
    };
    format!("{}: {state}", middle(&event.worker, MOST))
}

/// `unhealthy: GPU 0: … (GPU_LOST). Reboot the host.`
fn condition(standing: &Standing) -> String {
    let Some(first) = standing.reasons.first() else {
        return format!("{} with {}", standing.verdict, usable(standing));
    };
    let reason = |text: &str, code: &str| format!("{} ({code})", middle(text.trim_end_matches('.'), MOST));
    let mut said: Vec<String> =
        standing.reasons.iter().take(REASONS).map(|each| reason(&each.message, each.code.name())).collect();
    let more = standing.reasons.len().saturating_sub(REASONS);
    if more > 0 {
        said.push(format!("and {}", counted(more, "other reason")));
    }
    let action = one_line(&first.action);
    format!("{}: {}. {}", standing.verdict, said.join("; "), middle(&action, MOST * 2))
}

fn usable(standing: &Standing) -> String {
    format!("{} usable", counted(standing.gpus, "GPU"))
}

/// `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`
fn lasted(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, 0) => format!("{hours} h"),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::health::verdict::{Code, Verdict::*};
    use crate::notify::event::{Flapping, samples};

    fn event(kind: EventKind, standing: Standing) -> Event {
        Event::new(kind, &Arc::from("gpu-cellar"), Some(standing), 1000.0)
    }

    #[test]
    fn a_sleeping_operator_understands_it() {
        #[track_caller]
        fn check(event: &Event, previous: Option<Verdict>, expect: &str) {
            assert_eq!(of(event, previous), expect);
        }
        let lost = event(EventKind::Verdict, samples::lost());
        let wrong = "unhealthy: GPU 0: gpu_lost (GPU_LOST). Reboot the host.";
        check(&lost, Some(Ok), &format!("gpu-cellar is {wrong}"));
        check(&lost, None, &format!("gpu-cellar is {wrong}"));
        check(&lost, Some(Unhealthy), &format!("gpu-cellar is still {wrong}"));
        let hot = event(EventKind::Verdict, samples::hot());
        let warm = "degraded: GPU 0: temp_high (TEMP_HIGH). Reboot the host.";
        check(&hot, Some(Unhealthy), &format!("gpu-cellar is no longer unhealthy but {warm}"));
        let ok = Event { lasted: Some(Duration::from_secs(725)), ..event(EventKind::Verdict, samples::ok()) };
        check(&ok, Some(Unhealthy), "gpu-cellar is ok again after 12 min: 2 GPUs usable");
        check(&event(EventKind::Started, samples::ok()), None, "gpu-cellar has started and is ok with 2 GPUs usable");
        check(
            &event(EventKind::Stopping, samples::lost()),
            Some(Ok),
            &format!("gpu-cellar is stopping. It was {wrong}"),
        );
        let flapping = Some(Flapping { changes: 12, during: Duration::from_secs(120) });
        let flapping = Event { flapping, ..lost };
        check(
            &flapping,
            Some(Ok),
            &format!("gpu-cellar is flapping: 12 changes in 2 min. The worst state was {wrong}"),
        );
        let test = Event { standing: None, ..event(EventKind::Test, samples::ok()) };
        check(
            &test,
            None,
            "gpu-cellar: this is a test of Agent-Net's notifications. No worker's verdict could be read here",
        );
        let titles = [&lost_title(), &title(&flapping), &title(&test)].map(String::as_str).join(", ");
        assert_eq!(titles, "gpu-cellar: unhealthy, gpu-cellar: flapping, gpu-cellar: test");
    }

    fn lost_title() -> String {
        title(&event(EventKind::Verdict, samples::lost()))
    }

    #[test]
    fn many_long_reasons_with_odd_characters_stay_a_short_line() {
        let codes: Vec<(Code, Verdict)> = (0..40).map(|_| (Code::GpuLost, Unhealthy)).collect();
        let mut standing = samples::standing(&codes);
        for reason in &mut standing.reasons {
            reason.message = format!("GPU 0: \u{202e}name\n\u{7}{}", "模".repeat(5000));
        }
        let text = of(&event(EventKind::Verdict, standing), None);
        assert!(text.chars().count() < 1800 && text.contains("; and 37 other reasons. Reboot"), "{text}");
        assert_eq!(one_line(&text), text);
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let words = [0, 59, 60, 3599, 3600, 11_100, 187_200].map(|s| lasted(Duration::from_secs(s)));
        assert_eq!(words.join(", "), "0 s, 59 s, 1 min, 59 min, 1 h, 3 h 5 min, 2 d 4 h");
    }
}
