//! What the table of commands holds.

use crate::config::{Kind, SETTINGS, Setting};

/// A command.
#[derive(Debug)]
pub(crate) struct Command {
    /// One word, or two for a command of a group: `pm check`.
    pub(crate) name: &'static str,
    /// The argument beside options; "" for none.
    pub(super) operand: &'static str,
    /// What it does, in half a line.
    pub(super) about: &'static str,
    /// Details; lines of at most 120 characters.
    pub(super) details: &'static str,
    pub(super) options: &'static [Opt],
    /// Every setting is an option, too.
    pub(super) settings: bool,
    pub(super) example: &'static str,
}

/// An option of a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opt {
    pub(super) flag: &'static str,
    pub(super) value: Value,
    pub(super) about: &'static str,
}

/// What follows an option.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value {
    /// Nothing.
    None,
    /// Anything, called so.
    Any(&'static str),
    /// A path of a file.
    File,
    Folder,
    /// One of these.
    Of(&'static [&'static str]),
}

impl Value {
    /// As help writes it; empty for nothing.
    pub(super) fn name(self) -> String {
        match self {
            Self::None => String::new(),
            Self::Any(name) => name.into(),
            Self::File => "FILE".into(),
            Self::Folder => "FOLDER".into(),
            Self::Of(words) => words.join("|"),
        }
    }
}

/// What a setting means, its valid values and its default.
pub(super) fn meaning(setting: &Setting) -> String {
    let values = setting.kind.brief();
    let values = if values.is_empty() { values } else { format!(" ({values})") };
    let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
    format!("{}{values}{default}", setting.meaning)
}

/// A setting's value as that of an option.
fn value_of(setting: &Setting) -> Value {
    match (setting.kind, setting.kind.choices()) {
        (Kind::Folder, _) => Value::Folder,
        (Kind::File, _) => Value::File,
        (_, []) => Value::Any("VALUE"),
        (_, words) => Value::Of(words),
    }
}

/// All options of a command, settings included: flag, value and meaning.
pub(super) fn all_options(command: &Command) -> Vec<(String, Value, &'static str)> {
    let own = command.options.iter().map(|option| (option.flag.to_owned(), option.value, option.about));
    let settings = SETTINGS.iter().filter(|_| command.settings);
    own.chain(settings.map(|setting| (setting.flag(), value_of(setting), setting.meaning))).collect()
}
