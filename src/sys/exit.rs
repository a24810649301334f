//! Exit codes: the table that help, man page and reference are made of. 0 to 3 are those of Nagios and Icinga plugins.

use std::process::ExitCode;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    /// Degraded, a check that failed, or a server that stopped serving.
    Failed = 1,
    Unhealthy = 2,
    /// Unknown or unreachable.
    Unknown = 3,
    /// The command line is not valid.
    Usage = 64,
    /// Invalid setting.
    Config = 78,
}

impl Exit {
    /// Ends the process from any thread, after a moment for the log to be written.
    pub(crate) fn now(self) -> ! {
        log::logger().flush();
        std::process::exit(self as i32)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What a code means in general, and for which commands it means what.
#[derive(Debug)]
pub(crate) struct ExitMeaning {
    pub(crate) exit: Exit,
    pub(crate) meaning: &'static str,
    /// "" stands for all commands that the row does not name.
    commands: &'static [(&'static str, &'static str)],
}

const fn row(exit: Exit, meaning: &'static str, commands: &'static [(&'static str, &'static str)]) -> ExitMeaning {
    ExitMeaning { exit, meaning, commands }
}

pub(crate) const EXITS: [ExitMeaning; 6] = [
    row(
        Exit::Ok,
        "success; check: ok; doctor: all passed; probe: all answered; notify: all accepted; pm: accepted or valid",
        &[
            ("serve", "stopped by a signal"),
            ("hold-port", "stopped by a signal"),
            ("check", "ok"),
            ("doctor", "all checks passed"),
            ("health", "the worker responds"),
            ("pull", "the model is pulled"),
            ("probe", "all models answered"),
            ("notify", "all receivers accepted the message"),
            ("pm check", "accepted"),
            ("pm ticket", "valid"),
            ("", "success"),
        ],
    ),
    row(
        Exit::Failed,
        "failed; check: degraded; doctor: a warning; probe: failed or skipped; notify: not accepted; pm: refused or not valid",
        &[
            ("serve", "it cannot start, or it stopped serving"),
            ("hold-port", "it cannot listen or start"),
            ("check", "degraded"),
            ("doctor", "a warning"),
            ("health", "the response is not 200"),
            ("pull", "the pull failed or was interrupted"),
            ("probe", "a probe failed, was skipped or was interrupted"),
            ("notify", "a receiver did not accept the message"),
            ("pm check", "refused"),
            ("pm ticket", "not valid"),
            ("", "the output cannot be written"),
        ],
    ),
    row(
        Exit::Unhealthy,
        "check: unhealthy, or the driver does not respond; doctor: a failure; probe: a model hangs",
        &[
            ("check", "unhealthy, or the driver does not respond"),
            ("doctor", "a failure"),
            ("probe", "a model hangs: no answer before PROBE_TIMEOUT"),
        ],
    ),
    row(
        Exit::Unknown,
        "unknown, or the worker or Ollama cannot be reached",
        &[
            ("check", "unknown, or the worker cannot be reached"),
            ("health", "no response"),
            ("ack", "the worker cannot be reached"),
            ("pull", "Ollama cannot be reached"),
            ("probe", "Ollama cannot be reached, or cannot list its models"),
        ],
    ),
    row(Exit::Usage, "the command line is not valid", &[("", "the command line is not valid")]),
    row(
        Exit::Config,
        "a setting or a file cannot be used",
        &[
            ("pm check", "a file or a variable cannot be used"),
            ("pm ledger", "the ledger cannot be read"),
            ("pm winprob", ""),
            ("pm ticket", "the file of the header cannot be read"),
            ("completions", ""),
            ("explain", ""),
            ("man", ""),
            ("", "a setting cannot be used"),
        ],
    ),
];

/// The codes that a command can return, with what they mean there.
pub(crate) fn exits_of(command: &str) -> impl Iterator<Item = (u8, &'static str)> {
    EXITS.iter().filter_map(move |row| {
        let of = |name: &str| row.commands.iter().find(|(known, _)| *known == name);
        let (_, meaning) = of(command).or_else(|| of(""))?;
        (!meaning.is_empty()).then_some((row.exit as u8, *meaning))
    })
}
