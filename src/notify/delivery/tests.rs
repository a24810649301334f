mod answers;

use super::*;
use crate::health::standing::Standing;
use crate::notify::event::samples::{hot, lost, ok};

fn target(format: NotifyFormat) -> NotifyTarget {
    NotifyTarget { url: SecretUrl::parse("https://hooks.example/services/secret99").unwrap(), format }
}

const UNIX: f64 = 784_111_777.0;

/// A receiver with its clock.
struct Scene {
    delivery: Delivery,
    now: Duration,
}

impl Scene {
    fn new() -> Self {
        Self { delivery: Delivery::new(&target(NotifyFormat::Json)), now: Duration::ZERO }
    }

    fn offer(&mut self, kind: EventKind, standing: Standing) -> Arc<Event> {
        let event = Arc::new(Event::new(kind, &Arc::from("w"), Some(standing), UNIX));
        self.delivery.offer(&event, self.now, UNIX);
        event
    }

    /// What is sent now, and then this happens to it; the line of the log.
    fn send(&mut self, outcome: Outcome) -> Option<Line> {
        let Next::Send(event, _) = self.delivery.next(self.now) else { panic!("{:?}", self.delivery) };
        self.delivery.see(&event, outcome, self.now, UNIX, 0.0)
    }

    fn wait(&self) -> Option<u64> {
        match self.delivery.next(self.now) {
            Next::Wait(wait) => wait.map(|wait| wait.as_secs()),
            Next::Send(..) => Some(0),
        }
    }

    /// A receiver that knows that all is ok.
    fn ok() -> Self {
        let mut scene = Self::new();
        scene.offer(EventKind::Started, ok());
        scene.send(Outcome::Accepted);
        assert_eq!(scene.wait(), None);
        scene
    }

    fn state(&self) -> (NotificationState, bool) {
        (self.delivery.row().state, self.delivery.row().pending)
    }
}

fn down() -> Outcome {
    Outcome::Retry { why: "connection refused".into(), wait: None, unclear: false }
}

fn refused() -> Outcome {
    Outcome::Refused { why: "404".into(), fix: "Check NOTIFY_URL.", url: true }
}

#[test]
fn a_receiver_that_was_away_gets_the_newest_state() {
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, hot());
    assert!(
        matches!(scene.send(down()), Some(Line::Warn(line)) if line.contains("https://hooks.example/…: connection refused"))
    );
    assert_eq!(scene.state(), (NotificationState::Waiting, true));
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(scene.wait().unwrap());
        scene.now += Duration::from_secs(*waits.last().unwrap());
        assert_eq!(scene.send(down()), None, "one line for an outage");
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 300, 300, 300]);
    // Another state does not shorten the wait, and takes the other's place.
    let newest = scene.offer(EventKind::Verdict, lost());
    assert_eq!(scene.wait(), Some(300));
    scene.now += Duration::from_secs(300);
    assert_eq!(scene.delivery.next(scene.now), Next::Send(newest, Some(Verdict::Ok)));
    let line = scene.send(Outcome::Accepted);
    assert_eq!(line, Some(Line::Info("https://hooks.example/… accepts notifications again".into())));
    let row = scene.delivery.row();
    assert_eq!((row.counts.sent, row.counts.failed, row.counts.dropped), (2, 10, 1));
    assert_eq!((row.state, row.pending, row.last_error), (NotificationState::Ok, false, None));
}

#[test]
fn the_wait_that_a_receiver_names_is_kept() {
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    for (named, jitter, expect) in [(1, 0.0, 1), (1, 0.0, 10), (65, 0.0, 65), (600, 1.0, 660)] {
        let Next::Send(event, _) = scene.delivery.next(scene.now) else { panic!("{:?}", scene.delivery) };
        let outcome = Outcome::Retry { why: "429".into(), wait: Some(Duration::from_secs(named)), unclear: false };
        scene.delivery.see(&event, outcome, scene.now, UNIX, jitter);
        assert_eq!(scene.wait(), Some(expect));
        scene.now += Duration::from_secs(expect);
    }
}

#[test]
fn a_state_that_came_and_went_while_it_was_away_is_not_sent() {
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    scene.send(down());
    scene.offer(EventKind::Verdict, ok());
    assert_eq!((scene.wait(), scene.state()), (None, (NotificationState::Ok, false)));
    // The same while a try is on its way.
    let first = scene.offer(EventKind::Verdict, lost());
    let second = scene.offer(EventKind::Verdict, hot());
    scene.delivery.see(&first, Outcome::Accepted, scene.now, UNIX, 0.0);
    assert_eq!(scene.delivery.next(Duration::from_secs(900)), Next::Send(second, Some(Verdict::Unhealthy)));
    scene.offer(EventKind::Verdict, lost());
    assert_eq!(scene.wait(), None);
}

#[test]
fn a_recovery_is_sent_where_the_failure_may_have_arrived() {
    // The failure arrives while the recovery is offered.
    let mut scene = Scene::ok();
    let failure = scene.offer(EventKind::Verdict, lost());
    let recovery = scene.offer(EventKind::Verdict, ok());
    scene.delivery.see(&failure, Outcome::Accepted, scene.now, UNIX, 0.0);
    assert_eq!(scene.delivery.next(scene.now), Next::Send(recovery, Some(Verdict::Unhealthy)));
    // It was taken, and the answer did not come.
    let silent = || Outcome::Retry { why: "timed out".into(), wait: None, unclear: true };
    for recovers_meanwhile in [false, true] {
        let mut scene = Scene::ok();
        let failure = scene.offer(EventKind::Verdict, lost());
        let meanwhile = recovers_meanwhile.then(|| scene.offer(EventKind::Verdict, ok()));
        scene.delivery.see(&failure, silent(), scene.now, UNIX, 0.0);
        let recovery = meanwhile.unwrap_or_else(|| scene.offer(EventKind::Verdict, ok()));
        scene.now += Duration::from_secs(scene.wait().unwrap());
        assert_eq!(scene.delivery.next(scene.now), Next::Send(recovery, Some(Verdict::Ok)));
        scene.send(Outcome::Accepted);
        scene.offer(EventKind::Verdict, ok());
        assert_eq!(scene.wait(), None, "it is known now");
    }
    // A later try that did not arrive says nothing of the one before.
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    for outcome in [silent(), down()] {
        scene.send(outcome);
        scene.now += Duration::from_secs(scene.wait().unwrap());
    }
    let recovery = scene.offer(EventKind::Verdict, ok());
    assert_eq!(scene.delivery.next(scene.now), Next::Send(recovery, Some(Verdict::Ok)));
    // It was refused: the receiver does not have it.
    let mut scene = Scene::ok();
    let failure = scene.offer(EventKind::Verdict, lost());
    scene.offer(EventKind::Verdict, ok());
    scene.delivery.see(&failure, refused(), scene.now, UNIX, 0.0);
    assert_eq!(scene.wait(), None);
}

#[test]
fn what_was_refused_is_not_repeated_until_something_changes() {
    let mut scene = Scene::ok();
    let first = scene.offer(EventKind::Verdict, lost());
    let line = scene.send(refused());
    assert_eq!(line, Some(Line::Warn("https://hooks.example/… refused a notification: 404. Check NOTIFY_URL.".into())));
    assert_eq!((scene.wait(), scene.state()), (None, (NotificationState::Failed, false)));
    assert_eq!(scene.delivery.row().last_error.as_deref(), Some("404. Check NOTIFY_URL."));
    // With another URL it is.
    scene.delivery.renewed(&target(NotifyFormat::Json));
    assert_eq!(scene.delivery.next(scene.now), Next::Send(first, Some(Verdict::Ok)));
    assert_eq!(scene.send(refused()), None, "one line");
    scene.offer(EventKind::Verdict, hot());
    assert!(matches!(scene.send(Outcome::Accepted), Some(Line::Info(_))));
    // The refused one is out of date by then.
    scene.delivery.renewed(&target(NotifyFormat::Json));
    assert_eq!(scene.wait(), None);
}

#[test]
fn a_restart_repeats_nothing_that_the_receiver_knows() {
    let mut known = Scene::ok().delivery.known().cloned();
    let load = |known: &Option<Known>| {
        let mut scene = Scene::new();
        scene.delivery.load(known.clone(), false, scene.now, UNIX);
        scene
    };
    let mut scene = load(&known);
    scene.offer(EventKind::Started, ok());
    assert_eq!((scene.wait(), scene.state().0), (None, NotificationState::Ok));
    scene.offer(EventKind::Verdict, lost());
    assert_eq!(scene.wait(), Some(0));
    let mut scene = load(&known);
    scene.offer(EventKind::Started, lost());
    assert!(matches!(scene.delivery.next(scene.now), Next::Send(_, Some(Verdict::Ok))));
    // It was said that the worker stops.
    let stop = Arc::new(Event::new(EventKind::Stopping, &Arc::from("w"), Some(ok()), UNIX));
    let mut scene = load(&known);
    assert!(scene.delivery.stop(&stop));
    scene.send(Outcome::Accepted);
    known = scene.delivery.known().cloned();
    let mut scene = load(&known);
    assert!(!scene.delivery.stop(&stop), "it is known");
    scene.offer(EventKind::Started, ok());
    assert_eq!(scene.wait(), Some(0));
}

/// A container in a crash loop, and one that its supervisor stops all the time.
#[test]
fn a_worker_that_restarts_often_sends_its_start_seldom() {
    let known = Scene::ok().delivery.known().cloned();
    for (age, wait) in [(0.0, 600), (599.0, 1), (600.0, 0), (1e9, 0), (-1e9, 600)] {
        let mut scene = Scene::new();
        scene.delivery.load(known.clone(), true, scene.now, UNIX);
        let event = Arc::new(Event::new(EventKind::Started, &Arc::from("w"), Some(lost()), UNIX));
        scene.delivery.offer(&event, scene.now, UNIX + age);
        assert_eq!(scene.wait(), Some(wait), "{age}");
        // A change while it is up is an ordinary one.
        scene.now += Duration::from_secs(600);
        scene.send(Outcome::Accepted);
        scene.offer(EventKind::Verdict, ok());
        assert_eq!(scene.wait(), Some(0));
    }
    // A change is not held back with the start.
    let mut scene = Scene::new();
    scene.delivery.load(known.clone(), true, scene.now, UNIX);
    scene.offer(EventKind::Started, hot());
    assert_eq!(scene.wait(), Some(600));
    scene.offer(EventKind::Verdict, lost());
    assert_eq!(scene.wait(), Some(0));
    // The file is read after the first message has come.
    let mut scene = Scene::new();
    scene.offer(EventKind::Started, ok());
    scene.delivery.load(known, false, scene.now, UNIX);
    assert_eq!(scene.wait(), None);
}

#[test]
fn a_worker_that_stops_tries_once_and_says_nothing_to_whom_it_never_spoke() {
    let stop = Arc::new(Event::new(EventKind::Stopping, &Arc::from("w"), Some(ok()), UNIX));
    let mut scene = Scene::new();
    scene.offer(EventKind::Started, ok());
    scene.send(down());
    assert!(!scene.delivery.stop(&stop));
    assert_eq!(scene.wait(), None);
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    scene.send(down());
    assert!(scene.delivery.stop(&stop));
    assert_eq!(scene.delivery.next(scene.now), Next::Send(stop, Some(Verdict::Ok)), "although another try is not due");
}

#[test]
fn the_last_message_is_the_last_one() {
    let stop = Arc::new(Event::new(EventKind::Stopping, &Arc::from("w"), Some(ok()), UNIX));
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    scene.send(down());
    assert!(scene.delivery.stop(&stop));
    scene.send(Outcome::Accepted);
    assert_eq!(scene.wait(), None, "what waited before it is out of date");
}

#[test]
fn after_a_success_the_waits_are_short_again() {
    let mut scene = Scene::ok();
    scene.offer(EventKind::Verdict, lost());
    for wait in [5, 10, 20] {
        scene.send(down());
        assert_eq!(scene.wait(), Some(wait));
        scene.now += Duration::from_secs(wait);
    }
    scene.send(Outcome::Accepted);
    scene.offer(EventKind::Verdict, hot());
    scene.send(down());
    assert_eq!(scene.wait(), Some(5));
}

#[test]
fn a_reminder_is_sent_although_the_state_is_known() {
    let mut scene = Scene::ok();
    let event = Event { reminder: true, ..Event::new(EventKind::Verdict, &Arc::from("w"), Some(ok()), UNIX) };
    scene.delivery.offer(&Arc::new(event), scene.now, UNIX);
    assert_eq!(scene.wait(), Some(0));
}
