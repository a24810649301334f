//! Finds flags and variables in any text that holds them: a compose file, a unit, a script, a `docker run` line, an
//! environment file.
//!
//! `-flag=value` and `-flag value` are found as Go's flag package reads them, variables as `NAME=value`, as YAML or JSON
//! `NAME: value` and as Kubernetes' `name: NAME`, `value: …`. What is not asked for is ignored.

use std::fmt;

/// What to look for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// A flag, without dashes; "" for none.
    pub(crate) flag: &'a str,
    /// A variable; "" for none.
    pub(crate) variable: &'a str,
    /// A flag that needs no value: Go only takes one joined by `=`.
    pub(crate) switch: bool,
    /// Its value is not used; a shell command may produce it.
    pub(crate) secret: bool,
}

/// A flag or variable, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its index in what was wanted.
    pub(crate) wanted: usize,
    /// As written, without value.
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) place: Place,
    /// Flags of one command line have one number.
    pub(crate) section: usize,
}

/// The keys under which a compose file or manifest has a command line.
const COMMANDS: [&str; 3] = ["command:", "entrypoint:", "args:"];

/// Variables within the default of another.
const MOST_NESTED: usize = 8;

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// What cannot be used, with its place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FlagError(pub(crate) String);

impl FlagError {
    pub(crate) fn at(place: &Place, message: impl fmt::Display) -> Self {
        Self(format!("{place}: {message}"))
    }
}

/// Reads `text`, the content of `file`. `lookup` gives the value of a variable in `${…}`.
///
/// # Errors
/// A flag without its value, a value that Go reads in another way, a variable that is not set.
pub(crate) fn find(
    text: &str,
    file: &str,
    wanted: &[Wanted<'_>],
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<Found>, FlagError> {
    let tokens = tokens(text.strip_prefix('\u{feff}').unwrap_or(text));
    let place = |token: &Token| Place { file: file.into(), line: token.line };
    let mut all = Vec::new();
    let mut section = 0;
    for (at, token) in tokens.iter().enumerate() {
        section += usize::from(COMMANDS.contains(&token.text.as_str()));
        let next = tokens[at + 1..].iter().find(|token| !matches!(token.text.as_str(), "\\" | "-" | ":"));
        let Some((index, name, value)) = (match token.text.strip_prefix('-') {
            Some(flag) => flag_at(flag.strip_prefix('-').unwrap_or(flag), next, wanted)
                .map_err(|why| FlagError::at(&place(token), format!("{} {why}", token.text)))?,
            None => variable_at(&tokens, at, next, wanted),
        }) else {
            continue;
        };
        let value = if wanted[index].secret && value.contains("$(") {
            value
        } else {
            expand(&value, lookup).map_err(|why| FlagError::at(&place(token), format!("{name}: {why}")))?
        };
        // An empty variable counts as unset.
        if !value.is_empty() || token.text.starts_with('-') {
            all.push(Found { wanted: index, name, value, place: place(token), section });
        }
    }
    Ok(all)
}

/// The flag at this token with its value, if it is wanted.
fn flag_at(flag: &str, next: Option<&Token>, wanted: &[Wanted<'_>]) -> Result<Option<(usize, String, String)>, String> {
    let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
    let Some(at) = wanted.iter().position(|w| w.flag == name && !name.is_empty()) else { return Ok(None) };
    let is_flag =
        |text: &str| text.starts_with('-') && text[1..].starts_with(|c: char| c.is_ascii_alphabetic() || c == '-');
    let value = match (value, next.map(|token| token.text.as_str())) {
        (Some(value), _) => value.to_owned(),
        (None, Some(next @ ("true" | "false"))) if wanted[at].switch => {
            return Err(format!(
                "{next}: Go reads this as -{name}=true and ignores every flag after it; write -{name}={next}"
            ));
        }
        // A client's option of the same name, which takes an address.
        (None, Some(next)) if wanted[at].switch && next.contains("://") => return Ok(None),
        (None, _) if wanted[at].switch => "true".to_owned(),
        (None, Some(next)) if !is_flag(next) => next.to_owned(),
        (None, _) => return Err("has no value".into()),
    };
    Ok(Some((at, format!("-{name}"), value)))
}

/// The variable at this token with its value, if it is wanted and set.
fn variable_at(
    tokens: &[Token],
    at: usize,
    next: Option<&Token>,
    wanted: &[Wanted<'_>],
) -> Option<(usize, String, String)> {
    let token = &tokens[at];
    let known = |name: &str| wanted.iter().position(|w| w.variable == name && !name.is_empty());
    let same_line = next.filter(|next| next.line == token.line);
    if let Some((name, value)) = token.text.split_once('=') {
        let value = if token.in_list { value } else { value.trim_matches(['"', '\'']) };
        return known(name).filter(|_| !value.is_empty()).map(|at| (at, name.to_owned(), value.to_owned()));
    }
    let name = token.text.strip_suffix(':').unwrap_or(&token.text);
    let found = known(name)?;
    let colon = name.len() < token.text.len() || tokens.get(at + 1).is_some_and(|token| token.text == ":");
    let value = if colon {
        same_line.map(|next| next.text.clone())
    } else if at > 0 && tokens[at - 1].text == "name:" && next.is_some_and(|next| next.text == "value:") {
        let value = tokens.iter().skip(at).skip_while(|token| token.text != "value:").nth(1);
        value.map(|token| token.text.clone())
    } else {
        None
    };
    value.filter(|value| !value.is_empty()).map(|value| (found, name.to_owned(), value))
}

/// A word of the text.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
    /// Its line is an item of a YAML list, where quotes inside a word stay.
    in_list: bool,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut all = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let in_list = line.trim_start().starts_with("- ");
        split(line, &mut |text| all.push(Token { text: text.to_owned(), line: number + 1, in_list }));
    }
    all
}

/// Spaces, commas and brackets separate words. Quotes around words are removed, quotes inside a word stay.
fn split(line: &str, word: &mut dyn FnMut(&str)) {
    let mut rest = line;
    let mut after_space = true;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '#' if after_space => return,
            '"' | '\'' => match rest[1..].find(first) {
                Some(end) => {
                    split_quoted(&rest[1..=end], word);
                    end + 2
                }
                None => 1,
            },
            _ if is_separator(first) => first.len_utf8(),
            _ => {
                let length = word_length(rest);
                word(&rest[..length]);
                length
            }
        };
        after_space = first.is_whitespace();
        rest = &rest[taken..];
    }
}

/// A quoted text: one word, or a whole command line.
fn split_quoted(text: &str, word: &mut dyn FnMut(&str)) {
    if text.contains(char::is_whitespace) && text.trim_start().starts_with('-') {
        split(text, word);
    } else {
        word(text);
    }
}

fn is_separator(c: char) -> bool {
    c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}')
}

/// The length of the first word of `text`; `${…}` and quotes inside belong to it.
fn word_length(text: &str) -> usize {
    let mut until: Option<char> = None;
    let (mut before, mut skipped) = (' ', 0);
    for (at, c) in text.char_indices() {
        if at < skipped {
            continue;
        }
        match until {
            Some(end) if c == end => until = None,
            Some(_) => {}
            None if c == '{' && before == '$' => {
                skipped = braced(&text[at + 1..]).map_or(text.len(), |(inner, _)| at + inner.len() + 2);
            }
            None if matches!(c, '"' | '\'') => until = Some(c),
            None if is_separator(c) => return at,
            None => {}
        }
        before = c;
    }
    text.len()
}

/// The text before the closing brace, and what follows; `${…}` inside belongs to the first.
fn braced(text: &str) -> Option<(&str, &str)> {
    let (mut before, mut depth) = (' ', 0);
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => depth += 1,
            '}' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
        before = c;
    }
    None
}

/// Replaces `$NAME` and `${NAME}`, with `:-default`, `:?why` or `:+other` (and without the colon), as Docker Compose does;
/// `$$` is a dollar.
fn expand(value: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    expand_within(value, lookup, MOST_NESTED)
}

fn expand_within(value: &str, lookup: &dyn Fn(&str) -> Option<String>, depth: usize) -> Result<String, String> {
    let depth = depth.checked_sub(1).ok_or("too many nested variables")?;
    let mut out = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        if after.starts_with('(') {
            return Err("$(…) is a shell command, which is not run here; write the value itself".into());
        }
        let (inner, after) = match after.strip_prefix('{').and_then(braced) {
            Some(parts) => parts,
            None => after.split_at(after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len())),
        };
        let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, more) = inner.split_at(end);
        let mut more = more.strip_prefix(':').unwrap_or(more).chars();
        let (how, word) = (more.next(), more.as_str());
        let set = lookup(name).filter(|value| !value.is_empty());
        let text = match (how, set) {
            (Some('+'), None) => String::new(),
            (Some('-'), None) | (Some('+'), Some(_)) => expand_within(word, lookup, depth)?,
            (_, Some(set)) => set,
            (how, None) => {
                let why = if how == Some('?') && !word.is_empty() { format!(" ({word})") } else { String::new() };
                return Err(format!("${{{name}}} is not set{why}; export {name} or write the value itself"));
            }
        };
        out.push_str(&text);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[Wanted<'_>] = &[
        Wanted { flag: "ticketEV", variable: "LP_TICKETEV", switch: false, secret: false },
        Wanted { flag: "autoAdjustPrice", variable: "", switch: true, secret: false },
        Wanted { flag: "", variable: "CAPABILITY_PRICE_PER_UNIT", switch: false, secret: false },
        Wanted { flag: "orchSecret", variable: "", switch: false, secret: true },
    ];

    fn found(text: &str) -> Vec<(String, String, usize)> {
        let lookup = |name: &str| (name == "EV").then(|| "77".to_owned());
        let all = find(text, "f", WANTED, &lookup).unwrap_or_else(|why| panic!("{text}: {why:?}"));
        all.into_iter().map(|found| (found.name, found.value, found.place.line)).collect()
    }

    #[test]
    fn every_form_of_a_flag() {
        for text in [
            "-ticketEV=29",
            "--ticketEV=29",
            "-ticketEV 29",
            "livepeer -orchestrator -ticketEV=29 -other x",
            "    command: [\"-ticketEV=29\", \"-x\"]",
            "    command: [\"-ticketEV\", \"29\"]",
            "command: '-network arbitrum-one-mainnet -ticketEV=29'",
            "docker run x \\\n -orchestrator \\\n -ticketEV \\\n 29",
            "  - -ticketEV\n  - \"29\"",
            "  - \"-ticketEV=29\"",
            "ExecStart=/bin/livepeer -ticketEV=29 # -ticketEV=30",
            "# -ticketEV=1\n-ticketEV=${NONE:-29}",
            "-ticketEV=${NONE-29}",
            "-ticketEV=${NONE:-${EMPTY:-29}} -x",
            "\u{feff}-ticketEV=29",
            "-ticketEV=${EV:+29}${NONE:+30}${NONE+30}",
        ] {
            let all = found(text);
            assert_eq!(all.len(), 1, "{text}: {all:?}");
            assert_eq!((all[0].0.as_str(), all[0].1.as_str()), ("-ticketEV", "29"), "{text}");
        }
        assert_eq!(found("-ticketEV=$EV\n-ticketEV=${EV}").iter().filter(|f| f.1 == "77").count(), 2);
        assert_eq!(found("-ticketEV=\"29\"")[0].1, "\"29\"", "quotes inside a word stay");
        assert_eq!(found("-autoAdjustPrice=false -autoAdjustPrice").len(), 2);
        assert_eq!(found("-orchSecret=$(cat /run/secret) -x").len(), 1);
        assert!(found("-ticketEVs=1 ticketEV=2 -e -- - ---ticketEV=4 #-ticketEV=5").is_empty());
    }

    #[test]
    fn every_form_of_a_variable() {
        for text in [
            "CAPABILITY_PRICE_PER_UNIT=5",
            "export CAPABILITY_PRICE_PER_UNIT=\"5\"",
            "  CAPABILITY_PRICE_PER_UNIT: 5",
            "  CAPABILITY_PRICE_PER_UNIT: \"5\" # wei",
            "  - CAPABILITY_PRICE_PER_UNIT=5",
            "  - \"CAPABILITY_PRICE_PER_UNIT=5\"",
            "{\"CAPABILITY_PRICE_PER_UNIT\": \"5\"}",
            "  - name: CAPABILITY_PRICE_PER_UNIT\n    value: \"5\"",
            "  CAPABILITY_PRICE_PER_UNIT: ${NONE:-5}",
            "docker run -e CAPABILITY_PRICE_PER_UNIT=5 x",
        ] {
            let all = found(text);
            assert_eq!(all.len(), 1, "{text}: {all:?}");
            assert_eq!((all[0].0.as_str(), all[0].1.as_str()), ("CAPABILITY_PRICE_PER_UNIT", "5"), "{text}");
        }
        assert_eq!(found("LP_TICKETEV=4")[0].1, "4");
        assert_eq!(found("  - CAPABILITY_PRICE_PER_UNIT=\"5\"")[0].1, "\"5\"", "in a list they stay");
        for text in [
            "CAPABILITY_PRICE_PER_UNIT=",
            "  - CAPABILITY_PRICE_PER_UNIT",
            "CAPABILITY_PRICE_PER_UNIT:\nX: 5",
            "  CAPABILITY_PRICE_PER_UNIT: ${NONE:-}",
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn each_command_line_is_a_section() {
        let text = "a:\n  command:\n    - -ticketEV=1\n    - -autoAdjustPrice\nb:\n  command: [-ticketEV=2]\n";
        let all = find(text, "f", WANTED, &|_| None).unwrap();
        assert_eq!(all.iter().map(|found| found.section).collect::<Vec<_>>(), [1, 1, 2]);
        // Another program's option, with a value that no switch has.
        assert!(found("command: --autoAdjustPrice https://orchestrator:8935").is_empty());
    }

    #[test]
    fn what_go_would_misread_is_refused() {
        let nested = format!("-ticketEV={}1{}", "${NONE:-".repeat(10_000), "}".repeat(10_000));
        for (text, word) in [
            ("x\n-autoAdjustPrice false", "f:2: -autoAdjustPrice false: Go reads this as -autoAdjustPrice=true"),
            ("-ticketEV", "f:1: -ticketEV has no value"),
            ("-ticketEV -x", "has no value"),
            ("-ticketEV=${NONE}", "${NONE} is not set"),
            ("-ticketEV=${NONE:?the tickets}", "${NONE} is not set (the tickets); export NONE"),
            ("-ticketEV=${NONE?the tickets}", "${NONE} is not set (the tickets); export NONE"),
            ("-ticketEV=$(cat ev)", "-ticketEV: $(…) is a shell command"),
            ("-orchSecret=$NONE", "${NONE} is not set"),
            (nested.as_str(), "-ticketEV: too many nested variables"),
        ] {
            let why = find(text, "f", WANTED, &|_| None).unwrap_err().0;
            assert!(why.contains(word), "{text}: {why}");
        }
    }
}
