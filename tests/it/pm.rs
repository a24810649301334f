//! `agent-net pm`: odds, the pre-flight and tickets, against go-livepeer's numbers and a second implementation.

use std::fs;
use std::path::Path;

use num_bigint::BigInt;
use num_rational::BigRational;
use serde_json::{Value, json};

use crate::harness::{agent_net, command, folder, run};
use crate::pm_naive::{self, Flags};
use crate::programs;
use crate::wallet::Wallet;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/pm_vectors.json")).unwrap()
}

/// `agent-net pm` with these arguments: exit code, stdout, stderr.
fn pm(args: &[String]) -> (i32, String, String) {
    let (status, out, err) = run(agent_net().arg("pm").args(args));
    (status.code().unwrap(), out, err)
}

pub fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

pub fn json_of(line: &str) -> (i32, Value) {
    let (code, out, err) = pm(&words(&format!("{line} --json")));
    (code, serde_json::from_str(&out).unwrap_or_else(|why| panic!("{line}: {why}: {out}{err}")))
}

#[track_caller]
fn check_refused(args: &[String], code: i32, part: &str) {
    let (found, out, err) = pm(args);
    assert_eq!((found, out.as_str()), (code, ""), "{args:?}: {err}");
    assert!(err.contains(part) && err.lines().count() == 1, "{args:?}: {part:?} is not in {err}");
}

#[test]
fn the_worked_example_and_every_odds_vector() {
    let (code, odds) = json_of("winprob --ticket-ev 18gwei --face-value 180gwei");
    assert_eq!(code, 0);
    assert_eq!((&odds["probability"], &odds["one_in"]), (&json!("0.1"), &json!("10")));
    assert_eq!(odds["ev_floor"], "18000000000");
    assert_eq!(odds["no_win"][1], json!({"tickets": 10, "chance": "0.348678"}));
    let mut checked = 0;
    for case in vectors()["win_prob"].as_array().unwrap() {
        let (ev, face_value) = (case["ticket_ev"].as_str().unwrap(), case["face_value"].as_str().unwrap());
        if face_value == "0" {
            check_refused(&words(&format!("winprob --ticket-ev {ev} --face-value 0")), 64, "above --face-value");
            continue;
        }
        let (_, odds) = json_of(&format!("winprob --ticket-ev {ev} --face-value {face_value}"));
        assert_eq!(odds["win_prob"], case["win_prob"], "{case}");
        let hex = odds["win_prob_hex"].as_str().unwrap();
        let number = BigInt::parse_bytes(hex.trim_start_matches("0x").as_bytes(), 16).unwrap();
        assert_eq!((number.to_string(), hex.len()), (case["win_prob"].as_str().unwrap().to_owned(), 66));
        checked += 1;
    }
    assert!(checked >= 6);
    let (_, text, _) = pm(&words("winprob --ticket-ev 0.0001eth --face-value 0.001eth --tickets 100"));
    for part in ["100000000000000 wei (0.0001 ETH)", "1 in 10 tickets", "no win in 100 tickets: 0.0000265614"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

#[test]
fn bad_amounts_are_refused() {
    for (line, part) in [
        ("winprob --ticket-ev 0 --face-value 1", "0 < ticket EV"),
        ("winprob --ticket-ev 2 --face-value 1", "above"),
        ("winprob --ticket-ev 1.5 --face-value 2", "not a whole number of wei"),
        ("winprob --ticket-ev 1e3 --face-value 2000", "must be whole wei"),
        ("winprob --ticket-ev 1lpt --face-value 2", "must be whole wei"),
        ("winprob --ticket-ev 1", "missing option --face-value"),
        ("winprob --ticket-ev 1 --face-value 2 --x", "unknown option \"--x\""),
        ("check --ticketEV x", "--ticketEV=x"),
        ("check --timeout 0 --ticketEV 1", "whole seconds"),
        ("check --pool-size 0 --ticketEV 1", "from 1"),
        ("check --price-currency usd --price-per-unit 5", "must be wei or eth"),
        ("check --era d --ticketEV 1", "a, b, c or all"),
        ("check --ticketEVs 1", "unknown option -ticketEVs"),
        ("check --ticketEV 1 -ticketEV 2", "twice"),
        ("check --ticketEV", "no value"),
        ("check ticketEV", "unexpected argument \"ticketEV\""),
        ("check --price-per-unit 9223372036854775808", "64 bits"),
        ("nothing", "unknown command \"nothing\"; available: check, winprob"),
        ("", "missing command; available: "),
    ] {
        check_refused(&words(line), 64, part);
    }
    check_refused(&words("check --orchestrator /nonexistent"), 78, "/nonexistent: cannot open it");
}

/// What the sentences of the vectors say decided.
fn check_of(why: &str) -> &'static str {
    for (part, check) in [
        ("balance already covers", "covered"),
        ("price is zero", "free"),
        ("insufficient sender reserve", "senderReserve"),
        ("max total ticket EV", "maxTotalEV"),
        ("max ticket EV", "maxTicketEV"),
        ("faceValue too low", "faceValueTooLow"),
        ("max faceValue", "faceValueOverDeposit"),
        ("no sender deposit", "deposit"),
        ("senderNonce", "nonces"),
        ("Insufficient balance", "minBalance"),
    ] {
        if why.contains(part) {
            return check;
        }
    }
    assert_eq!(why, "ok");
    "ok"
}

fn arguments(flags: &Flags, era: char) -> Vec<String> {
    let mut args = words("check --json --era");
    args.push(era.to_string());
    let mut put = |name: &str, value: &dyn ToString| args.push(format!("--{name}={}", value.to_string()));
    put("price-per-unit", &flags.price_per_unit);
    put("price-scaling", &flags.price_scaling);
    put("ticketEV", &flags.ticket_ev);
    put("maxFaceValue", &flags.max_face_value);
    put("autoAdjustPrice", &flags.auto_adjust);
    put("maxTicketEV", &flags.max_ticket_ev);
    put("maxTotalEV", &flags.max_total_ev);
    put("depositMultiplier", &flags.deposit_multiplier);
    put("deposit", &flags.deposit);
    put("reserve", &flags.reserve);
    put("pool-size", &flags.pool_size);
    put("redeem-gas", &flags.redeem_gas);
    put("gas-price", &flags.gas_price);
    put("balance", &flags.balance);
    put("timeout", &flags.timeout);
    args
}

/// The finding of one era; the exit code must agree.
pub fn finding(flags: &Flags, era: char) -> Value {
    let (code, out, err) = pm(&arguments(flags, era));
    let found: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{flags:?}: {why}: {err}"));
    assert_eq!(code == 0, found["eras"][0]["accepted"].as_bool().unwrap(), "{code}: {out}");
    found
}

#[test]
fn every_preflight_vector() {
    let vectors = vectors();
    let cases = vectors["preflight"]["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 42);
    for case in cases {
        let (flags, era) = pm_naive::from_vector(&case["input"]);
        let (found, expected) = (&finding(&flags, era)["eras"][0], &case["expect"]);
        assert_eq!(found["accepted"], expected["accepted"], "{case}");
        assert_eq!(found["check"], check_of(expected["why"].as_str().unwrap()), "{case}");
        for (ours, theirs) in
            [("price", "price"), ("face_value", "faceValue"), ("win_prob", "winProb"), ("credit", "credit")]
        {
            if let Some(value) = expected.get(theirs) {
                assert_eq!(&found[ours], value, "{ours}: {case}");
            }
        }
        if let Some(tickets) = expected.get("tickets") {
            assert_eq!(&found["tickets"], tickets, "{case}");
        }
        if let Some(units) = expected.get("paid_units").and_then(Value::as_f64).filter(|units| *units < 1e6) {
            let ours: f64 = found["prepaid_units"].as_str().unwrap().parse().unwrap();
            assert!((ours - units).abs() < 1e-6, "{ours}: {case}");
        }
        // The second implementation knows them, too: it is worth comparing with.
        let naive = pm_naive::answer(&flags, era);
        assert_eq!((naive.check, naive.accepted), (found["check"].as_str().unwrap(), expected["accepted"] == true));
    }
}

/// The flags of the product's first compose files, as they were written there.
const ORCHESTRATOR: &str = "\
services:
  orchestrator:
    image: livepeer/go-livepeer:sha-5627b90
    command: >
      -orchestrator
      -network arbitrum-one-mainnet
      -pricePerUnit 100000000000000
      -ticketEV=29000000000000
      -maxFaceValue=1000000000000000
      -autoAdjustPrice=false
      -maxGasPrice=1000000000
  worker:
    environment:
      - CAPABILITY_PRICE_PER_UNIT=29000000000000
";
const GATEWAY: &str = "\
services:
  gateway:
    command: [\"-gateway\", \"-maxTicketEV=300000000000000\", \"-maxTotalEV\", \"300000000000000\",
      \"-maxFaceValue=1000000000000000\", \"-maxPricePerUnit=130000000000000\"]
";

/// Both files in a folder of their own, as arguments.
fn files(name: &str, orchestrator: &str, gateway: &str) -> String {
    let dir = folder(name);
    let put = |file: &str, text: &str| {
        fs::write(dir.join(file), text).unwrap();
        dir.join(file).display().to_string()
    };
    let (orchestrator, gateway) = (put("orchestrator.yml", orchestrator), put("gateway.yml", gateway));
    format!("--orchestrator {orchestrator} --gateway {gateway}")
}

#[test]
fn the_first_compose_files_work_in_the_first_era_only() {
    let files = files("pm-first", ORCHESTRATOR, GATEWAY);
    let (code, found) = json_of(&format!("check {files}"));
    assert_eq!(code, 1);
    let era = |at: usize| &found["eras"][at];
    let seen = |at: usize| (era(at)["accepted"].clone(), era(at)["check"].clone(), era(at)["longest_timeout"].clone());
    assert_eq!(seen(0), (json!(true), json!("ok"), json!(600)));
    assert_eq!(seen(1), (json!(false), json!("maxTotalEV"), json!(10)));
    assert_eq!(seen(2), (json!(false), json!("maxTotalEV"), Value::Null));
    assert_eq!(era(0)["gas_price_limit"], "833333333");
    // One ticket of 29000 gwei and a second of use, which costs as much.
    assert_eq!((&era(0)["credit"], &era(0)["credit_at_risk"]), (&json!("29000000000000"), &json!("0")));
    assert_eq!((&era(0)["redeem_cost_share"], &era(2)["tickets"]), (&json!("0.012"), &json!(60)));
    let suggestions = found["suggestions"].as_array().unwrap();
    assert!(suggestions[0].as_str().unwrap().starts_with("-maxTotalEV=1740000000000001 (gateway)"), "{suggestions:?}");
    let price =
        suggestions.iter().find(|text| text.as_str().unwrap().starts_with("CAPABILITY_PRICE_PER_UNIT=483333333333 "));
    assert!(price.unwrap().as_str().unwrap().contains("c 1-600 s"), "{suggestions:?}");
    let rows = found["table"].as_array().unwrap();
    let row = |name: &str| rows.iter().find(|row| row["parameter"].as_str().unwrap().starts_with(name)).unwrap();
    assert_eq!(row("ticketEV / maxTicketEV")["ok"], true);
    assert_eq!(row("tickets x ticketEV")["ok"], false);
    assert_eq!((&row("pricePerUnit")["ok"], &row("maxFaceValue /")["ok"]), (&Value::Null, &Value::Null));
    assert_eq!(row("pricePerUnit")["orchestrator"], "100000000000000");
    assert_eq!(
        (&found["needed_deposit"], &found["needed_reserve"]),
        (&json!("1000000000000000"), &json!("2900000000000100"))
    );
    let (_, passes) = json_of(&format!("check {files} --price-per-unit 483333333333 --era c"));
    assert_eq!((&passes["eras"][0]["accepted"], &passes["eras"][0]["longest_timeout"]), (&json!(true), &json!(600)));
    let (_, text, _) = pm(&words(&format!("check {files}")));
    for part in [
        "era b (v0.8.7 and v0.8.8): REFUSED by maxTotalEV",
        "MISMATCH",
        "orchestrator.yml:8)",
        "smallest changes first",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let names =
        |line: &str| json_of(line).1["eras"].as_array().unwrap().iter().map(|e| e["era"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&format!("check {files} --era A")), ["a"]);
}

#[test]
fn what_this_repository_ships_passes_in_every_era() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for timeout in [1, 2, 10, 59, 60, 61, 119, 120, 300, 599, 600] {
        let mut check = command(programs::server());
        let (status, out, err) =
            run(check.args(["pm", "check", "--json", "--timeout", &timeout.to_string()]).current_dir(root));
        let found: Value = serde_json::from_str(&out).unwrap_or_else(|why| panic!("{why}: {err}"));
        assert!(status.success(), "{timeout}: {out}");
        let inputs = found["inputs"].to_string();
        for file in ["compose/orchestrator.yaml", "compose/gateway.yaml"] {
            assert!(inputs.contains(file), "{file} is not in {inputs}");
        }
        for era in found["eras"].as_array().unwrap() {
            assert_eq!((&era["shortest_timeout"], &era["check"]), (&json!(1), &json!("ok")), "{era}");
            if era["tickets"] == 1 {
                // 29000 gwei less a second.
                assert_eq!(era["credit_at_risk"], "28516666666667", "{era}");
            }
            assert!(era["longest_timeout"].as_u64().unwrap() >= 600, "{era}");
        }
    }
    let empty = folder("pm-empty");
    let mut check = command(programs::server());
    let (status, _, err) = run(check.args(["pm", "check"]).current_dir(&empty));
    assert_eq!(status.code(), Some(64));
    assert!(err.contains("nothing to check"), "{err}");
}

#[test]
fn files_and_variables_that_cannot_be_used_are_named_with_their_line() {
    for (name, orchestrator, part) in [
        (
            "quoted",
            "x\n  -ticketEV=\"29\"",
            "orchestrator.yml:2: -ticketEV=\"29\": must be a whole number in decimal wei, without quotes",
        ),
        ("hex", "-ticketEV=0x1d", "orchestrator.yml:1: -ticketEV=0x1d"),
        ("unit", "-ticketEV=29gwei", "in decimal wei, without quotes"),
        ("point", "-ticketEV=2.9e13", "decimal wei"),
        ("negative", "-ticketEV=-1", "from 0"),
        ("switch", "-autoAdjustPrice false", "write -autoAdjustPrice=false"),
        ("value", "-ticketEV -maxFaceValue=1", "has no value"),
        ("twice", "-ticketEV=1\n-ticketEV=2", "-ticketEV is 1 here and 2 at"),
        ("secret", "-orchSecret=hunter1\n-orchSecret=hunter2", "-orchSecret is one value here and another at"),
        ("unset", "-ticketEV=${PM_TEST_NONE}", "${PM_TEST_NONE} is not set"),
        ("list", "  - CAPABILITY_PRICE_PER_UNIT=\"5\"", "orchestrator.yml:1: CAPABILITY_PRICE_PER_UNIT=\"5\""),
        ("large", "CAPABILITY_PRICE_PER_UNIT=9223372036854775808", "64 bits"),
    ] {
        check_refused(&words(&format!("check {}", files(&format!("pm-{name}"), orchestrator, ""))), 78, part);
    }
    // An .env beside the file, then the environment, fill in what it leaves open.
    let line = files("pm-env", "-ticketEV=${PM_TEST_EV}\nCAPABILITY_PRICE_PER_UNIT=${PM_TEST_PRICE:-7}", "");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pm-env-{}", std::process::id()));
    fs::write(dir.join(".env"), "PM_TEST_EV=31\n").unwrap();
    let with = |variables: &[(&str, &str)]| {
        let mut check = agent_net();
        let check = check.arg("pm").args(words(&format!("check --json {line}"))).envs(variables.iter().copied());
        let found: Value = serde_json::from_str(&run(check).1).unwrap();
        (found["table"][0]["orchestrator"].clone(), found["eras"][2]["price"].clone())
    };
    assert_eq!(with(&[]), (json!("31"), json!("7")));
    assert_eq!(with(&[("PM_TEST_EV", "32"), ("PM_TEST_PRICE", "8")]), (json!("32"), json!("8")));
    // The worker's own variable counts where no file says otherwise.
    let (_, out, _) = {
        let mut check = agent_net();
        run(check.args(["pm", "check", "--json", "--ticketEV", "9"]).env("CAPABILITY_PRICE_PER_UNIT", "11"))
    };
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        found["inputs"][0],
        json!({"name": "CAPABILITY_PRICE_PER_UNIT", "value": "11", "from": "the environment"})
    );
}

#[test]
fn headers_are_decoded_verified_and_judged() {
    let vectors = vectors();
    for case in vectors["tickets"].as_array().unwrap() {
        let header = case["payment_header_base64"].as_str().unwrap();
        let (code, found) = json_of(&format!(
            "ticket --payment {header} --recipient-rand {}",
            case["recipient_rand"].as_str().unwrap()
        ));
        assert_eq!((code, &found["tickets"][0]["wins"]), (0, &case["wins"]), "{found}");
        let same = |ours: &Value, theirs: &Value| ours.as_str().unwrap().eq_ignore_ascii_case(theirs.as_str().unwrap());
        assert!(same(&found["sender"], &case["sender"]) && same(&found["recipient"], &case["recipient"]), "{found}");
        assert!(
            same(&found["tickets"][0]["hash"], &case["hash"]) && same(&found["tickets"][0]["signer"], &case["sender"])
        );
        assert_eq!((&found["face_value"], &found["win_prob"]), (&case["face_value"], &case["win_prob"]));
        let ev = format!("{}/{}", case["ev"]["num"].as_str().unwrap(), case["ev"]["den"].as_str().unwrap());
        let (ours, theirs): (BigRational, BigRational) =
            (found["ev"].as_str().unwrap().parse().unwrap(), ev.parse().unwrap());
        assert_eq!((ours, &found["ev_floor"]), (theirs, &case["ev_floor"]));
        assert_eq!(found["tickets"][0]["nonce"], case["sender_nonce"]);
    }
    let header = vectors["tickets"][0]["payment_header_base64"].as_str().unwrap();
    let (code, found) = json_of(&format!("ticket --payment {header}"));
    assert_eq!(
        (code, &found["tickets"][0]["wins"], &found["tickets"][0]["signature_valid"]),
        (0, &Value::Null, &json!(true))
    );
    let (code, out, err) = pm(&words(&format!("ticket --payment {header} --recipient-rand 1")));
    assert!(code == 1 && out.is_empty() && err.contains("does not match this payment"), "{code} {out}{err}");
    // From a file and from standard input.
    let file = folder("pm-ticket").join("header");
    fs::write(&file, format!("{header}\n")).unwrap();
    assert_eq!(json_of(&format!("ticket --payment @{}", file.display())), (0, found.clone()));
    let mut piped = agent_net();
    let piped = piped.args(["pm", "ticket", "--json", "--payment", "-"]).stdin(fs::File::open(&file).unwrap());
    assert_eq!(serde_json::from_str::<Value>(&run(piped).1).unwrap(), found);
}

#[test]
fn six_hundred_tickets_and_bad_ones() {
    let wallet = Wallet::new(1);
    let (code, found) = json_of(&format!("ticket --payment {}", wallet.payment(1..=600)));
    assert_eq!((code, found["tickets"].as_array().unwrap().len()), (0, 600));
    let mut signature = wallet.sign(&wallet.hash(5));
    signature[64] ^= 7;
    let (code, found) = json_of(&format!("ticket --payment {}", wallet.payment_of(&[(5, signature)])));
    assert_eq!((code, &found["tickets"][0]["signature_valid"]), (1, &json!(false)));
    assert!(found["problems"][0].as_str().unwrap().contains("1 signatures are not valid"), "{found}");
    for (payment, code, part) in [
        ("", 64, "empty"),
        ("?", 64, "not valid base64"),
        ("AAAA", 64, "net.Payment"),
        ("@/nonexistent", 78, "cannot open it"),
    ] {
        check_refused(&["ticket".into(), "--payment".into(), payment.into()], code, part);
    }
    check_refused(
        &words(&format!("ticket --payment {} --recipient-rand 0xzz", wallet.payment([1]))),
        64,
        "below 2^256",
    );
}
