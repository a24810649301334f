//! `agent-net pm check` for Live Runners: files that hold several programs, and what an operator is to hear before a paid
//! call. The numbers are those of the unit tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{agent_net, command, folder, run};
use crate::pm::words;
use crate::programs;

const SECRET: &str = "a-secret-of-both";

/// `pm check --json` in this repository with these variables: exit code, findings.
fn check(variables: &[(&str, &str)], line: &str) -> (i32, Value) {
    let mut check = command(programs::server());
    check.args(["pm", "check", "--json"]).args(words(line)).current_dir(env!("CARGO_MANIFEST_DIR"));
    let (status, out, err) = run(check.env("ORCH_SECRET", SECRET).envs(variables.iter().copied()));
    assert!(!out.contains(SECRET) && !err.contains(SECRET), "{out}{err}");
    (status.code().unwrap(), serde_json::from_str(&out).unwrap_or_else(|why| panic!("{line}: {why}: {out}{err}")))
}

fn refused(check: &mut Command) -> (i32, String) {
    let (status, out, err) = run(check);
    assert!(out.is_empty() && err.lines().count() == 1, "{out}{err}");
    (status.code().unwrap(), err)
}

const ONCHAIN: (&str, &str) = ("NETWORK", "arbitrum-one-mainnet");
const SHIPPED: &str = "--orchestrator compose/live-runner.yaml";

#[test]
fn what_this_repository_ships_is_free_off_chain_and_paid_on_chain() {
    let (code, found) = check(&[], SHIPPED);
    let live = &found["live_runner"];
    assert_eq!((code, &live["check"], &live["accepted"]), (0, &json!("offchain"), &json!(true)));
    assert_eq!((&found["eras"], &live["tickets"]), (&json!([]), &Value::Null));
    assert!(found["notes"].to_string().contains("RUNNER_PRICE=0.0005usd/fixed is ignored off-chain"), "{found}");

    // The same by the worker's ORCH_PROTOCOL alone, without any file being named.
    for (more, line) in [(&[][..], SHIPPED), (&[("ORCH_PROTOCOL", "live-runner")], "")] {
        let (code, found) = check(&[&[ONCHAIN], more].concat(), &format!("{line} --eth-price 3000"));
        let live = &found["live_runner"];
        assert_eq!((code, &live["check"], &live["tickets"]), (0, &json!("ok"), &json!(17)), "{found}");
        assert_eq!((&live["price"], &live["credit"]), (&json!("166666666666"), &json!("170000000000")));
        assert_eq!((&live["eth_price_floor"], &found["suggestions"]), (&json!("500"), &json!([])));
        assert_eq!((&found["eras"], &found["needed_deposit"]), (&json!([]), &json!("1200000000000000")));
        let inputs = found["inputs"].to_string();
        assert!(inputs.contains("compose/live-runner.yaml:") && inputs.contains("***"), "{inputs}");
        for row in found["table"].as_array().unwrap() {
            assert_ne!(row["ok"], json!(false), "{row}");
        }
    }
    let mut ask = command(programs::server());
    ask.args(["pm", "check"]).args(words(SHIPPED)).current_dir(env!("CARGO_MANIFEST_DIR")).envs([ONCHAIN]);
    let (code, err) = refused(ask.env("ORCH_SECRET", "x"));
    assert!(code == 64 && err.contains("add --eth-price, the price of an ETH"), "{code} {err}");
    let (code, err) = refused(ask.env("ORCH_SECRET", ""));
    assert!(code == 78 && err.contains("live-runner.yaml:") && err.contains("ORCH_SECRET"), "{code} {err}");
}

#[test]
fn each_refusal_is_reported_before_money_is_lost() {
    for (variables, more, name, message) in [
        (&[][..], "--ticketEV 29000000000000", "maxTicketEV", "its -maxTicketEV is 3000 gwei"),
        (&[], "--ticketEV 1000000000", "tooManyTickets", "numTickets 167 exceeds maximum of 100"),
        (&[], "--ticketEV 0", "noTickets", "-ticketEV=0"),
        (&[], "--deposit 0", "deposit", "no deposit"),
        (&[], "--deposit 0.001eth", "faceValueOverDeposit", "above 0.001 ETH, its deposit"),
        (&[], "--reserve 0.001eth", "senderReserve", "insufficient sender reserve"),
        (&[], "--maxTotalEV 170gwei", "maxTotalEV", "17 tickets of 10 gwei, more than 170 gwei in total"),
        (&[("RUNNER_PRICE", "0.01usd/fixed")], "", "maxPricePerUnit", "its -maxPricePerUnit of 333,333,333,333"),
        (&[("RUNNER_PRICE", "0.0000000000000000001usd/fixed")], "", "weiPrice", "less than 1 wei for a call"),
        (
            &[("RUNNER_PRICE", "1.2usd/hour")],
            "",
            "tooManyTickets",
            "1111.11111111 gwei has to be paid for the first 10 s",
        ),
        (&[("ORCH_PROTOCOL", "auto")], "", "freeByByoc", "serves BYOC jobs for free"),
    ] {
        let (code, found) = check(&[&[ONCHAIN], variables].concat(), &format!("{SHIPPED} --eth-price 3000 {more}"));
        let live = &found["live_runner"];
        assert_eq!((code, &live["check"], &live["accepted"]), (1, &json!(name), &json!(false)), "{more}: {found}");
        assert!(live["message"].as_str().unwrap().contains(message), "{message:?} is not in {live}");
        assert!(!found["suggestions"].as_array().unwrap().is_empty(), "{more}: {found}");
    }
}

/// One file of an operator, as an argument.
fn file(name: &str, text: &str) -> String {
    let path = folder(&format!("pm-live-{name}")).join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

#[test]
fn the_registry_refuses_before_money_decides() {
    for (flags, price, code, name) in [
        ("-orchestrator -network arbitrum-one-mainnet -orchSecret x", "1usd/fixed", 1, "useLiveRunners"),
        ("-orchestrator -useLiveRunners -network arbitrum-one-mainnet", "1usd/fixed", 1, "orchSecret"),
        ("-orchestrator -useLiveRunners -network arbitrum-one-mainnet -orchSecret=", "1usd/fixed", 1, "orchSecret"),
        ("-orchestrator -useLiveRunners -network arbitrum-one-mainnet -orchSecret x", "", 1, "runnerPrice"),
        // go-livepeer's own default.
        ("-orchestrator -useLiveRunners -orchSecret x", "1usd/fixed", 0, "offchain"),
    ] {
        let script = file("orch.sh", &format!("exec livepeer {flags}\n"));
        let (status, found) = check(&[("RUNNER_PRICE", price)], &format!("--orchestrator {script}"));
        assert_eq!((status, &found["live_runner"]["check"]), (code, &json!(name)), "{flags}: {found}");
    }
}

/// As in Livepeer's examples: everything in one file, and an app with an option that is not a mode.
const EXAMPLE: &str = "\
services:
  signer:
    command:
      - -network=arbitrum-one-mainnet
      - -maxTicketEV=${SIGNER_EV}
      - -remoteSigner
      - -httpAddr=0.0.0.0:7936
  app:
    command: [\"--orchestrator=https://orchestrator:8935\", \"--orchSecret=abcdef\", \"--price\", \"0.01\"]
  other:
    command: --orchestrator https://orchestrator:8935 --orchSecret abcdef
  orchestrator:
    command: [\"-network=arbitrum-one-mainnet\", \"-orchestrator\", \"-useLiveRunners\", \"-orchSecret=abcdef\",
      \"-ticketEV=29000000000000\"]
  gateway:
    command: -gateway -maxTicketEV=300000000000000 -maxTotalEV=18000000000000000
  worker:
    environment:
      RUNNER_PRICE: 0.0005usd/fixed
";

#[test]
fn the_programs_of_one_file_are_distinguished() {
    let path = file("example.yml", EXAMPLE);
    for (ev, code, name) in [("3000000000000", 1, "maxTicketEV"), ("30000000000000", 1, "maxTotalEV")] {
        let line = format!("--orchestrator {path} --eth-price 3000 --orch-protocol both --era c");
        let (status, found) = check(&[("SIGNER_EV", ev), ("CAPABILITY_PRICE_PER_UNIT", "483333333333")], &line);
        assert_eq!((status, &found["live_runner"]["check"]), (code, &json!(name)), "{found}");
        // The gateway has limits of its own.
        assert_eq!(
            (&found["eras"][0]["check"], &found["eras"][0]["accepted"]),
            (&json!("ok"), &json!(true)),
            "{found}"
        );
        let rows = found["table"].as_array().unwrap();
        let limit = |name: &str| rows.iter().find(|row| row["parameter"] == name).unwrap()["gateway"].clone();
        assert_eq!(limit("ticketEV / maxTicketEV"), "300000000000000");
        assert_eq!(limit("Live Runner: ticketEV / maxTicketEV"), ev);
        assert!(found["notes"].to_string().contains("clients pay 174 times the price of the call"), "{found}");
    }
    // A signer's own file, and the command line, which is for all.
    let signer =
        file("signer.txt", "-maxTicketEV=30000000000000 -maxTotalEV=30000000000001 -maxPricePerUnit=0.001USD\n");
    let orchestrator = file("orch.txt", "-orchestrator -useLiveRunners -orchSecret=x -network=arbitrum-one-mainnet\n");
    let line = format!("--orchestrator {orchestrator} --signer {signer} --eth-price 3000 --ticketEV 29000000000000");
    let price = ("RUNNER_PRICE", "0.0005usd/fixed");
    let (_, found) = check(&[price, ("ORCH_PROTOCOL", "live-runner")], &line);
    assert_eq!(found["live_runner"]["check"], "ok", "{found}");
    let (_, found) = check(&[price, ("ORCH_PROTOCOL", "live-runner")], &format!("{line} --maxTicketEV 1"));
    assert_eq!(found["live_runner"]["check"], "maxTicketEV", "{found}");
    let twice = file("twice.txt", "-remoteSigner -maxTicketEV=1 -maxTicketEV=2\n");
    let (code, err) = refused(agent_net().args(["pm", "check", "--signer", &twice]));
    assert!(code == 78 && err.contains("-maxTicketEV is 1 here and 2 at"), "{err}");
    let twice = file("secrets.txt", "-orchestrator -orchSecret=aaaa -orchSecret=bbbb\n");
    let (code, err) = refused(agent_net().args(["pm", "check", "--orchestrator", &twice]));
    assert!(code == 78 && err.contains("-orchSecret") && !err.contains("aaaa") && !err.contains("bbbb"), "{err}");
}

#[test]
fn a_paid_runner_is_never_called_free() {
    let flags = "--runner-price 0.0005usd/fixed --eth-price 3000";
    for (variables, line) in [
        (&[][..], flags.to_owned()),
        (&[("RUNNER_PRICE", "0.0005usd/fixed")], "--eth-price 3000".to_owned()),
        (&[("RUNNER_PRICE", "0.0005usd/fixed")], "--eth-price 3000 --orch-protocol both".to_owned()),
        (&[], format!("{flags} --orch-protocol live-runner")),
        (&[], format!("{flags} --useLiveRunners=true")),
    ] {
        let (_, found) = check(variables, &line);
        assert_eq!(found["eras"], json!([]), "{line}: {found}");
        assert_ne!(found["live_runner"]["check"], "free");
        let settled = line.contains("live-runner");
        assert_eq!(found.to_string().contains("BYOC"), !settled, "{line}: {found}");
    }
    // Without anything about Live Runners all is as it was.
    let (_, found) = check(&[], "--ticketEV 1");
    assert_eq!((found["eras"].as_array().unwrap().len(), &found["live_runner"]), (3, &Value::Null));
    let (_, found) = check(&[("RUNNER_PRICE", "1usd/fixed")], "--orch-protocol byoc --ticketEV 1");
    assert_eq!((found["eras"].as_array().unwrap().len(), &found["live_runner"]), (3, &Value::Null));
    assert!(found["notes"].to_string().contains("RUNNER_PRICE=1usd/fixed has no effect: ORCH_PROTOCOL is byoc"));
    // Tickets of no value have no odds.
    let (_, found) = check(&[], "--ticketEV 0 --price-per-unit 1");
    assert_eq!(found["eras"][2]["check"], "minBalance", "{found}");
}

#[test]
fn prices_that_cannot_be_used_are_named() {
    for (line, part) in [
        ("--runner-price 5", "0.0005usd/fixed"),
        ("--runner-price 1usd/fixed --eth-price 0", "price of an ETH in dollars"),
        ("--runner-price 1usd/fixed --eth-price 3e3", "price of an ETH in dollars"),
        ("--runner-price 1usd/fixed --maxPricePerUnit 1lpt", "must be in wei, ETH or USD"),
        ("--orch-protocol tcp", "auto, byoc, live-runner or both"),
        ("--useLiveRunners=yes", "true or false"),
        ("--remoteSigner=true", "unknown option -remoteSigner"),
    ] {
        let (code, err) = refused(agent_net().args(["pm", "check"]).args(words(line)));
        assert!(code == 64 && err.contains(part), "{line}: {err}");
    }
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("compose").join(name)).unwrap()
}

#[test]
fn the_worker_takes_what_the_compose_file_sets() {
    let text = read("live-runner.yaml");
    let (worker, _) = text.split_once("  orchestrator:\n").unwrap();
    let mut settings = Vec::new();
    for line in worker.lines() {
        if let Some((name, value)) = line.trim().split_once(": ${") {
            settings.push((name, value.split_once(":-").unwrap().1.trim_end_matches('}')));
        }
    }
    assert!(settings.len() >= 4, "{settings:?}");
    let (status, out, err) = run(agent_net().arg("config").envs(settings.iter().copied()));
    assert!(status.success(), "{err}");
    for (name, value) in settings {
        assert!(out.contains(&format!("{name}={value}  # environment\n")), "{name}: {out}");
    }
}

#[test]
fn the_compose_file_says_what_it_was_tested_against() {
    for name in ["live-runner.yaml", "orchestrator.yaml"] {
        let text = read(name);
        assert!(text.contains("176aa415c") && text.contains("Not run:"), "{name}");
        // v0.9.2 refuses these.
        let address = text.lines().find(|line| line.contains("-serviceAddr=")).unwrap();
        assert!(
            !address.contains("127.0.0.1") && !address.contains("localhost") && !address.contains("0.0.0.0"),
            "{address}"
        );
    }
}

#[test]
fn calls_are_accepted_at_the_least_price_of_an_eth_that_is_shown() {
    // A hundred tickets of 0.41 gwei are 0.0005 dollars at 12195.1219 of them.
    let terms = "-ticketEV 410000000 --runner-price 0.0005usd/fixed --eth-price";
    let (_, found) = check(&[], &format!("{terms} 20000"));
    assert_eq!(found["live_runner"]["eth_price_floor"], json!("12195.13"), "{found}");
    for (price, code) in [("12195.13", 0), ("12195.12", 1)] {
        assert_eq!(check(&[], &format!("{terms} {price}")).0, code, "{price}");
    }
}
