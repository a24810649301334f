//! Completions for shells.

use super::command::{Command, Value, all_options};
use super::commands::{COMMANDS, about, find, first_words, members, second_words};
use crate::cli::names;

/// The shells with completions.
pub(crate) const SHELLS: &str = "bash, zsh or fish";

/// The script for a shell; None: an unknown shell.
pub(crate) fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// The groups: first words that are not commands by themselves.
fn groups() -> Vec<&'static str> {
    first_words().into_iter().filter(|word| find(word).is_none()).collect()
}

/// The words that an operand may be.
fn operands(command: &Command) -> Vec<&'static str> {
    if command.name == "explain" {
        return names::all().flat_map(|(_, names)| names).collect();
    }
    let one_of = command.operand.split('|').filter(|word| word.bytes().all(|letter| letter.is_ascii_lowercase()));
    one_of.filter(|word| !word.is_empty()).collect()
}

// ---- bash ----

const BASH: &str = r#"# bash completion of agent-net
_agent_net() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=serve words=
    case $before in
@VALUES@    esac
    if [ "$COMP_CWORD" -gt 1 ]; then
        case ${COMP_WORDS[1]} in
        -*) ;;
        @GROUPS@)
            command=${COMP_WORDS[1]}
            [ "$COMP_CWORD" -le 2 ] || command="$command ${COMP_WORDS[2]}" ;;
        *) command=${COMP_WORDS[1]} ;;
        esac
    fi
    case $command in
@CASES@    esac
    [ "$COMP_CWORD" -gt 1 ] || words="@WORDS@ $words --version"
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -F _agent_net agent-net
"#;

fn bash() -> String {
    let mut cases = String::new();
    for command in COMMANDS {
        let options: Vec<String> = all_options(command).into_iter().map(|(flag, ..)| flag).collect();
        let words = [options.join(" "), operands(command).join(" "), "--help".into()].join(" ");
        cases.push_str(&format!("    '{}') words='{}' ;;\n", command.name, words.trim()));
    }
    for group in groups() {
        cases.push_str(&format!("    '{group}') words='{} --help' ;;\n", second_words(group).join(" ")));
    }
    let mut values = String::new();
    let mut seen: Vec<String> = Vec::new();
    for (flag, value, _) in COMMANDS.iter().flat_map(all_options) {
        if seen.contains(&flag) {
            continue;
        }
        let reply = match value {
            Value::None => continue,
            Value::Any(_) => "COMPREPLY=()".into(),
            Value::File => "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$word\"))".into(),
            Value::Folder => "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- \"$word\"))".into(),
            Value::Of(words) => format!("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", words.join(" ")),
        };
        values.push_str(&format!("    {flag}) {reply}; return ;;\n"));
        seen.push(flag);
    }
    BASH.replace("@VALUES@", &values)
        .replace("@CASES@", &cases)
        .replace("@GROUPS@", &groups().join("|"))
        .replace("@WORDS@", &first_words().join(" "))
}

// ---- zsh ----

/// In single quotes, with what `_arguments` and `_describe` would read escaped.
fn zsh_quoted(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '[' | ']' | ':' | '\\' => out.extend(['\\', c]),
            '\'' => out.push_str("'\\''"),
            c => out.push(c),
        }
    }
    out
}

fn zsh_option(flag: &str, value: Value, about: &str) -> String {
    let action = match value {
        Value::None => String::new(),
        Value::Any(name) => format!(":{}: ", zsh_quoted(name)),
        Value::File => ":file:_files".into(),
        Value::Folder => ":folder:_files -/".into(),
        Value::Of(words) => format!(":value:({})", words.join(" ")),
    };
    format!("'{flag}[{}]{action}'", zsh_quoted(about))
}

const ZSH: &str = r#"#compdef agent-net
_agent_net() {
    local command=serve
    local -a commands options
    if [[ $words[2] != -* ]]; then
        if (( CURRENT == 2 )); then
            commands=(@WORDS@)
            _describe command commands
            return
        fi
        command=$words[2]
        shift words; (( CURRENT-- ))
    fi
@GROUPS@    case $command in
@CASES@    esac
    _arguments : $options
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _agent_net "$@"; else compdef _agent_net agent-net; fi
"#;

/// After the first word of a group.
const ZSH_GROUP: &str = r#"    if [[ $command == @GROUP@ ]]; then
        if (( CURRENT == 2 )); then
            commands=(@WORDS@)
            _describe command commands
            return
        fi
        command="@GROUP@ $words[2]"
        shift words; (( CURRENT-- ))
    fi
"#;

fn zsh() -> String {
    let described = |words: &mut dyn Iterator<Item = (&str, &str)>| {
        words.map(|(word, about)| format!("'{word}:{}'", zsh_quoted(about))).collect::<Vec<_>>().join(" ")
    };
    let of_groups = groups().into_iter().map(|group| {
        let words = described(&mut members(group).map(|(word, command)| (word, command.about)));
        ZSH_GROUP.replace("@GROUP@", group).replace("@WORDS@", &words)
    });
    let cases = COMMANDS.iter().map(|command| {
        let mut options: Vec<String> =
            all_options(command).iter().map(|(flag, value, about)| zsh_option(flag, *value, about)).collect();
        options.push("'--help[show help]'".into());
        let words = operands(command);
        if !words.is_empty() {
            options.push(format!("'1:operand:({})'", words.join(" ")));
        }
        format!("    '{}') options=({}) ;;\n", command.name, options.join(" "))
    });
    ZSH.replace("@GROUPS@", &of_groups.collect::<String>())
        .replace("@CASES@", &cases.collect::<String>())
        .replace("@WORDS@", &described(&mut first_words().into_iter().map(|word| (word, about(word)))))
}

// ---- fish ----

fn fish_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn fish() -> String {
    let mut script = "# fish completion of agent-net\ncomplete -c agent-net -f\n".to_owned();
    let mut word = |condition: &str, word: &str, about: &str| {
        script.push_str(&format!(
            "complete -c agent-net -n {} -a {word} -d {}\n",
            fish_quoted(condition),
            fish_quoted(about)
        ));
    };
    for first in first_words() {
        word("__fish_use_subcommand", first, about(first));
    }
    for group in groups() {
        let seconds = second_words(group).join(" ");
        let condition = format!("__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {seconds}");
        for (second, command) in members(group) {
            word(&condition, second, command.about);
        }
    }
    for command in COMMANDS {
        let condition = match command.name.split_once(' ') {
            Some((group, second)) => {
                format!("__fish_seen_subcommand_from {group}; and __fish_seen_subcommand_from {second}")
            }
            // It is also meant where none is named.
            None if command.name == "serve" => {
                let others: Vec<&str> = first_words().into_iter().filter(|word| *word != "serve").collect();
                format!("not __fish_seen_subcommand_from {}", others.join(" "))
            }
            None => format!(
                "__fish_seen_subcommand_from {}; and not __fish_seen_subcommand_from {}",
                command.name,
                groups().join(" ")
            ),
        };
        let quoted = fish_quoted(&condition);
        for operand in operands(command) {
            script.push_str(&format!("complete -c agent-net -n {quoted} -a {operand}\n"));
        }
        for (flag, value, about) in all_options(command) {
            let name = match flag.strip_prefix("--") {
                Some(long) => format!("-l {long}"),
                None => format!("-o {}", flag.trim_start_matches('-')),
            };
            let value = match value {
                Value::None => String::new(),
                Value::Any(_) => " -x".into(),
                Value::File => " -r -F".into(),
                Value::Folder => " -x -a '(__fish_complete_directories)'".into(),
                Value::Of(words) => format!(" -x -a {}", fish_quoted(&words.join(" "))),
            };
            script.push_str(&format!("complete -c agent-net -n {quoted} {name}{value} -d {}\n", fish_quoted(about)));
        }
    }
    script + "complete -c agent-net -l help -d 'show help'\ncomplete -c agent-net -l version -d 'show the version'\n"
}
