//! Settings that can be used, and that an operator has to hear about.

use crate::fake_orchestrator::Behavior;
use crate::visibility::{Scene, orchestrator};

#[test]
fn an_address_that_means_this_machine_is_warned_of() {
    for (url, words) in [
        ("http://0.0.0.0:9876", "it stands for all addresses of a machine"),
        ("http://[::]:9876", "it stands for all addresses of a machine"),
        ("http://[::ffff:127.0.0.1]:9876", "only orchestrators on this machine"),
        ("http://localhost:9876", "only orchestrators on this machine"),
    ] {
        let orchestrator = orchestrator(Behavior::Ok, false);
        let scene = Scene::new(&[&orchestrator], &[("CAPABILITY_URL", url)]);
        let line = scene.says(&format!("CAPABILITY_URL is {url}: {words}"));
        assert!(line.contains("WARN"), "{line}");
    }
}

#[test]
fn a_price_for_one_registry_alone_is_warned_of() {
    let orchestrator = orchestrator(Behavior::Ok, false);
    let (price, free) = (("RUNNER_PRICE", "0.0005usd/fixed"), "BYOC jobs are served for free");
    assert!(Scene::new(&[&orchestrator], &[price]).says(free).contains("WARN"));
    for other in [("CAPABILITY_PRICE_PER_UNIT", "5"), ("ORCH_PROTOCOL", "live-runner"), ("RUNNER_PRICE", "")] {
        let scene = Scene::new(&[&orchestrator], &[price, other]);
        scene.says("listening on");
        scene.worker.report_when("a registration", |report| report["registrations"][0]["state"] != "waiting");
        assert!(!scene.worker.log().contains(free), "{other:?}: {}", scene.worker.log());
    }
}
