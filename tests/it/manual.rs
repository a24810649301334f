//! Help, the manual page and completions: made of one table, which must hold what the commands understand.

use std::collections::BTreeSet;
use std::process::Command;

use crate::harness::{agent_net, command, folder, run, skip};
use crate::tidy::sources;

/// What `agent-net` prints with these arguments.
#[track_caller]
pub fn printed(args: &[&str]) -> String {
    let (status, out, err) = run(agent_net().args(args));
    assert_eq!((status.code(), err.as_str()), (Some(0), ""), "{args:?}");
    out
}

/// The first words of the lines below `head` that are indented.
fn listed(text: &str, head: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| !line.starts_with(head)).skip(1).skip_while(|line| line.is_empty());
    let rows = lines.take_while(|line| line.starts_with("  "));
    rows.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// All commands: `check`, `pm check` and so on.
pub fn commands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for first in listed(&printed(&["--help"]), "Usage: ") {
        if first == "pm" {
            let seconds = listed(&printed(&["pm", "--help"]), "check payment flags");
            all.extend(seconds.into_iter().map(|second| vec!["pm".to_owned(), second]));
        } else {
            all.push(vec![first]);
        }
    }
    assert!(all.len() > 10, "{all:?}");
    all
}

pub fn help(name: &[String]) -> String {
    let args: Vec<&str> = name.iter().map(String::as_str).chain(["--help"]).collect();
    printed(&args)
}

#[test]
fn help_fits_a_small_terminal() {
    let text = printed(&["--help"]);
    assert!(text.lines().count() <= 24, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for name in commands() {
        let text = help(&name);
        assert!(text.starts_with(&format!("Usage: agent-net {}", name.join(" "))), "{text}");
        assert!(text.contains("\nExit codes:\n") && text.contains("\nExample:\n"), "{text}");
        let codes = listed(&text, "Exit codes:");
        let own = ["check", "doctor", "probe"].contains(&name[0].as_str());
        assert_eq!((codes.contains(&"2".to_owned()), codes.contains(&"64".to_owned())), (own, true), "{text}");
        let long: Vec<&str> = text.lines().filter(|l| !l.starts_with("  ") && l.chars().count() > 120).collect();
        assert!(long.is_empty(), "{long:?}");
    }
    assert!(printed(&["pm", "--help"]).contains("winprob"));
}

#[test]
fn what_help_names_is_understood() {
    for name in commands() {
        let text = help(&name);
        for option in listed(&text, "Options:") {
            let row = text.lines().find(|line| line.split_whitespace().next() == Some(&option)).expect("its row");
            let value = row.trim().trim_start_matches(&option).split("  ").next().expect("a column").trim();
            if value == "FILE" || value == "FOLDER" || value.contains('@') {
                continue;
            }
            let value =
                value.split('|').next().map(|word| if word.chars().any(char::is_uppercase) { "1" } else { word });
            let mut asked = agent_net();
            asked.args(&name).arg(&option).args(value.filter(|value| !value.is_empty()));
            if option == "--url" {
                asked.arg("http://127.0.0.1:9");
            }
            let (status, _, err) = run(asked.args(["-nonsense", "1"]));
            assert_eq!(status.code(), Some(64), "{name:?} {option}: {err}");
            assert!(!err.contains(&format!("{option:?}")) && !err.contains(&format!("option {option}")), "{err}");
        }
    }
}

#[test]
fn what_is_understood_is_named_by_help() {
    let texts: String = commands().iter().map(|name| help(name)).collect();
    let mut options = BTreeSet::new();
    for (path, text) in sources("src/cli") {
        if !path.contains("/manual/") {
            options.extend(
                text.split('"')
                    .skip(1)
                    .step_by(2)
                    .filter(|word| word.len() > 2 && word.starts_with("--"))
                    .map(str::to_owned),
            );
        }
    }
    options.retain(|option| option.chars().skip(2).all(|c| c.is_ascii_lowercase() || c == '-') && option != "--help");
    assert!(options.len() > 8, "{options:?}");
    for option in options.iter().filter(|option| *option != "--version") {
        assert!(texts.contains(&format!("  {option} ")), "{option} is in no help");
    }
}

/// The program, or None, with a line that says so. With CI=true it must be there.
fn installed(program: &str) -> Option<Command> {
    if Command::new(program).arg("--version").output().is_ok() {
        return Some(command(program));
    }
    skip(&format!("{program} is missing"));
    None
}

#[test]
fn the_manual_page_is_complete_and_valid() {
    let page = printed(&["man"]);
    let settings = listed(&printed(&["serve", "--help"]), "Settings ");
    assert!(settings.len() > 30, "{settings:?}");
    // Its date is that of the version's section in the changelog.
    let changes = crate::tables::read("CHANGELOG.md");
    let head = format!("\n## {} – ", env!("CARGO_PKG_VERSION"));
    let date = changes.split_once(&head).and_then(|(_, rest)| rest.lines().next()).expect("a dated section");
    assert!(page.starts_with(&format!(".TH AGENT-NET 1 {date} ")), "{date}");
    // roff may print a bare dash as a longer one, which no shell takes.
    assert!(!page.contains("--"), "{page}");
    let plain = page.replace("\\-", "-");
    for name in commands() {
        assert!(plain.contains(&format!("\n.SS agent-net {}", name.join(" "))), "{name:?}");
    }
    for setting in settings {
        assert!(plain.contains(&format!("\n.B {setting}, --")), "{setting}");
    }
    let Some(mut mandoc) = installed("mandoc") else { return };
    let file = folder("man").join("agent-net.1");
    std::fs::write(&file, page).expect("a file");
    let (status, out, err) = run(mandoc.args(["-T", "lint", "-W", "warning"]).arg(file));
    assert!(status.success() && out.is_empty(), "{out}{err}");
}

/// What a shell offers for a line that ends at its last word.
type Offers = fn(&str, &[&str]) -> Option<BTreeSet<String>>;

fn bash(script: &str, line: &[&str]) -> Option<BTreeSet<String>> {
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let ask = format!(
        "{script}\nCOMP_WORDS=({}) COMP_CWORD={}\n_agent_net\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words.join(" "),
        line.len() - 1
    );
    offered(installed("bash")?.args(["--norc", "-c", &ask]))
}

fn fish(script: &str, line: &[&str]) -> Option<BTreeSet<String>> {
    let mut fish = installed("fish")?;
    let home = folder("fish");
    // The kernel takes at most 128 KiB for one argument.
    std::fs::write(home.join("script"), script).expect("a file");
    let ask = format!("source ~/script\ncomplete -C '{}'", line.join(" "));
    fish.env("HOME", home).args(["--no-config", "-c", &ask]);
    offered(&mut fish)
}

/// zsh's own functions need a terminal; these tell what they are asked to offer.
fn zsh(script: &str, line: &[&str]) -> Option<BTreeSet<String>> {
    let words: Vec<String> = line.iter().map(|word| format!("'{word}'")).collect();
    let ask = format!(
        "compdef() {{ }}\n_describe() {{ print -l ${{commands%%:*}} }}\n\
         _arguments() {{ shift; for one; do case $one in [0-9]*) print -l ${{=${{${{one##*\\(}}%\\)}}}} ;; *) print -- ${{one%%\\[*}} ;; esac done }}\n\
         {script}\nwords=({}) CURRENT={}\n_agent_net",
        words.join(" "),
        line.len()
    );
    offered(installed("zsh")?.args(["-f", "-c", &ask]))
}

#[track_caller]
fn offered(shell: &mut Command) -> Option<BTreeSet<String>> {
    let (status, out, err) = run(shell);
    assert!(status.success() && err.is_empty(), "{err}");
    Some(out.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect())
}

#[test]
fn shells_offer_commands_and_options() {
    let shells: [(&str, Offers); 3] = [("bash", bash), ("fish", fish), ("zsh", zsh)];
    for (name, offers) in shells {
        let script = printed(&["completions", name]);
        let check = |line: &[&str], wanted: &[&str], unwanted: &[&str]| {
            let Some(offered) = offers(&script, line) else { return };
            for word in wanted {
                assert!(offered.contains(*word), "{name}, {line:?}: {word} is not in {offered:?}");
            }
            for word in unwanted {
                assert!(!offered.contains(*word), "{name}, {line:?}: {word} is in {offered:?}");
            }
        };
        check(&["agent-net", ""], &["serve", "check", "doctor", "pm", "man"], &["winprob", "--json"]);
        check(&["agent-net", "pm", ""], &["check", "winprob", "ticket", "ledger"], &["serve"]);
        check(&["agent-net", "check", "--"], &["--url", "--json", "--server-port", "--help"], &["--runner-json"]);
        check(&["agent-net", "pm", "winprob", "--"], &["--ticket-ev", "--json"], &["--server-port", "--era"]);
        check(&["agent-net", "pm", "check", "-"], &["-ticketEV", "--era", "--json"], &["--ticket-ev", "--url"]);
        check(&["agent-net", "completions", ""], &["bash", "zsh", "fish"], &["serve"]);
        check(&["agent-net", "explain", ""], &["TEMP_HIGH", "NO_GPU"], &["serve"]);
        check(&["agent-net", "--"], &["--server-port", "--help"], &["--url"]);
    }
    let check = |offers: Offers, shell: &str, line: &[&str], wanted: &[&str]| {
        let Some(offered) = offers(&printed(&["completions", shell]), line) else { return };
        assert_eq!(offered, wanted.iter().map(|word| (*word).to_owned()).collect(), "{shell}, {line:?}");
    };
    for (shell, offers) in [("bash", bash as Offers), ("fish", fish)] {
        check(offers, shell, &["agent-net", "pm", "check", "--era", ""], &["a", "b", "c", "all"]);
        check(offers, shell, &["agent-net", "serve", "--log-level", "t"], &["trace"]);
    }
}

#[test]
fn completions_want_one_shell_that_is_known() {
    for args in [&["completions"][..], &["completions", "tcsh"], &["completions", "bash", "zsh"], &["man", "x"]] {
        let (status, out, err) = run(agent_net().args(args));
        assert_eq!((status.code(), out.as_str(), err.lines().count()), (Some(64), "", 1), "{args:?}: {err}");
    }
    // Neither needs settings that can be used.
    for args in [&["completions", "fish"][..], &["man"]] {
        assert_eq!(run(agent_net().args(args).env("SERVER_PORT", "x")).0.code(), Some(0));
    }
}
