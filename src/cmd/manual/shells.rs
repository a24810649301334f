//! Completions for shells.

use super::help::GROUP_ABOUT;
use super::{COMMANDS, Command, Value, all_options, first_words, members};

/// Those that there are completions for.
pub(in crate::cmd) const SHELLS: &str = "bash, zsh and fish";

/// The script for a shell; None when there is none.
pub(in crate::cmd) fn completions(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// The groups: first words that are no command by themselves.
fn groups() -> Vec<&'static str> {
    first_words().into_iter().filter(|word| COMMANDS.iter().all(|command| command.name != *word)).collect()
}

fn about(word: &str) -> &'static str {
    COMMANDS.iter().find(|command| command.name == word).map_or(GROUP_ABOUT, |command| command.about)
}

/// What may stand where an operand is expected.
fn operands(command: &Command) -> Vec<&'static str> {
    let one_of = command.operand.split('|').filter(|word| word.chars().all(char::is_lowercase));
    one_of.filter(|word| !word.is_empty()).collect()
}

// ---- bash ----

fn bash() -> String {
    let mut cases = String::new();
    for command in COMMANDS {
        let options: Vec<String> = all_options(command).into_iter().map(|(flag, ..)| flag).collect();
        let words = [options.join(" "), operands(command).join(" "), "--help".into()].join(" ");
        cases.push_str(&format!("    '{}') words='{}' ;;\n", command.name, words.trim()));
    }
    for group in groups() {
        let words: Vec<&str> = members(group).map(|(word, _)| word).collect();
        cases.push_str(&format!("    '{group}') words='{} --help' ;;\n", words.join(" ")));
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
    let groups = groups().join("|");
    format!(
        "# bash completion of agent-net\n_agent_net() {{\n\
         \x20   local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=serve words=\n\
         \x20   case $before in\n{values}    esac\n\
         \x20   if [ \"$COMP_CWORD\" -gt 1 ]; then\n\
         \x20       case ${{COMP_WORDS[1]}} in\n\
         \x20       -*) ;;\n\
         \x20       {groups})\n\
         \x20           command=${{COMP_WORDS[1]}}\n\
         \x20           [ \"$COMP_CWORD\" -le 2 ] || command=\"$command ${{COMP_WORDS[2]}}\" ;;\n\
         \x20       *) command=${{COMP_WORDS[1]}} ;;\n\
         \x20       esac\n\
         \x20   fi\n\
         \x20   case $command in\n{cases}    esac\n\
         \x20   [ \"$COMP_CWORD\" -gt 1 ] || words=\"{} $words --version\"\n\
         \x20   COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}}\n\
         complete -F _agent_net agent-net\n",
        first_words().join(" ")
    )
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

fn zsh() -> String {
    let described = |words: &[(&str, &str)]| {
        let one = |(word, about): &(&str, &str)| format!("'{word}:{}'", zsh_quoted(about));
        words.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    let firsts: Vec<(&str, &str)> = first_words().into_iter().map(|word| (word, about(word))).collect();
    let mut script = format!(
        "#compdef agent-net\n_agent_net() {{\n    local command=serve\n    local -a commands options\n\
         \x20   if [[ $words[2] != -* ]]; then\n\
         \x20       if (( CURRENT == 2 )); then\n\
         \x20           commands=({})\n            _describe command commands\n            return\n        fi\n\
         \x20       command=$words[2]\n        shift words; (( CURRENT-- ))\n    fi\n",
        described(&firsts)
    );
    for group in groups() {
        let all: Vec<(&str, &str)> = members(group).map(|(word, command)| (word, command.about)).collect();
        script.push_str(&format!(
            "    if [[ $command == {group} ]]; then\n        if (( CURRENT == 2 )); then\n            commands=({})\n\
             \x20           _describe command commands\n            return\n        fi\n\
             \x20       command=\"{group} $words[2]\"\n        shift words; (( CURRENT-- ))\n    fi\n",
            described(&all)
        ));
    }
    script.push_str("    case $command in\n");
    for command in COMMANDS {
        let mut options: Vec<String> =
            all_options(command).iter().map(|(flag, value, about)| zsh_option(flag, *value, about)).collect();
        options.push("'--help[show help]'".into());
        let words = operands(command);
        if !words.is_empty() {
            options.push(format!("'1:operand:({})'", words.join(" ")));
        }
        script.push_str(&format!("    '{}') options=({}) ;;\n", command.name, options.join(" ")));
    }
    script
        + "    esac\n    _arguments : $options\n}\n\
              if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _agent_net \"$@\"; else compdef _agent_net agent-net; fi\n"
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
        let all: Vec<&str> = members(group).map(|(word, _)| word).collect();
        let condition =
            format!("__fish_seen_subcommand_from {group}; and not __fish_seen_subcommand_from {}", all.join(" "));
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
