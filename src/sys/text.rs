//! Text for one line of a log or an answer.

use std::fmt::Display;
use std::io;

/// A control character, or one of Unicode that breaks a line or reverses the text after it.
pub(crate) fn disturbs_a_line(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with a space for each character that disturbs a line.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if disturbs_a_line(c) { ' ' } else { c }).collect()
}

/// As a sentence: with a capital at its start and a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut sentence = text.to_owned();
    if let Some(first) = sentence.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !sentence.ends_with('.') {
        sentence.push('.');
    }
    sentence
}

/// What a peer said, without the secret that it was sent and may repeat.
pub(crate) fn without(said: &str, secret: Option<&str>) -> String {
    secret.filter(|secret| !secret.is_empty()).map_or_else(|| said.to_owned(), |secret| said.replace(secret, "***"))
}

/// The start of a text as one line, at most `most` characters.
pub(crate) fn start(text: &str, most: usize) -> String {
    one_line(text.trim()).chars().take(most).collect()
}

/// A text as one line of at most `most` characters: its middle is left out.
pub(crate) fn middle(text: &str, most: usize) -> String {
    let line: Vec<char> = one_line(text.trim()).chars().collect();
    if line.len() <= most {
        return line.into_iter().collect();
    }
    let left = most.saturating_sub(1);
    let (head, tail) = (&line[..left / 3], &line[line.len() - (left - left / 3)..]);
    head.iter().chain(&['…']).chain(tail).collect()
}

/// An I/O error in words, without the system's number: `connection refused`.
pub(crate) fn io_words(why: &io::Error) -> String {
    let text = why.to_string();
    let words =
        text.split_once(" (os error ").filter(|_| why.raw_os_error().is_some()).map_or(&text[..], |(words, _)| words);
    let mut words = words.to_owned();
    // An abbreviation stays as it is.
    if words.as_bytes().get(1).is_some_and(u8::is_ascii_lowercase)
        && let Some(first) = words.get_mut(..1)
    {
        first.make_ascii_lowercase();
    }
    words
}

/// An answer that is a whole page of HTML: of a login, of a web application, of an error.
pub(crate) fn is_web_page(text: &str) -> bool {
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    ["<!doctype html", "<html"]
        .iter()
        .any(|start| text.get(..start.len()).is_some_and(|t| t.eq_ignore_ascii_case(start)))
}

/// `1 payment`, `2 payments`.
pub(crate) fn counted<N: Copy + From<u8> + PartialEq + Display>(count: N, thing: &str) -> String {
    format!("{count} {thing}{}", if count == N::from(1) { "" } else { "s" })
}

#[test]
fn one_of_a_thing_is_singular() {
    assert_eq!((counted(0_u32, "GPU"), counted(1_i64, "GPU")), ("0 GPUs".into(), "1 GPU".into()));
    assert_eq!(counted(u64::MAX, "GPU"), format!("{} GPUs", u64::MAX));
}

#[test]
fn io_errors_are_shown_in_words() {
    assert_eq!(io_words(&io::Error::from_raw_os_error(2)), "no such file or directory");
    assert_eq!(io_words(&io::Error::other("I said (os error 2)")), "I said (os error 2)");
    assert_eq!(io_words(&io::Error::other("")), "");
}

#[test]
fn one_line_reads_as_it_was_written() {
    assert_eq!(one_line("a\n\0b\u{1b}[1m\u{202e}c\u{2029}d\u{2066}"), "a  b [1m c d ");
    assert_eq!(one_line("Ä 模型 \u{5d0}\u{200d}"), "Ä 模型 \u{5d0}\u{200d}");
}

#[test]
fn a_long_text_keeps_both_ends() {
    assert_eq!(middle(" short\ntext ", 20), "short text");
    assert_eq!(middle("0123456789", 10), "0123456789");
    assert_eq!(middle("0123456789a", 10), "012…56789a");
    assert_eq!(middle("äöü", 1), "…");
    assert_eq!(middle("äöü", 0), "…");
}

#[test]
fn a_page_begins_as_pages_do() {
    for page in ["<html>", "\n<!DOCTYPE HTML><title>Sign in</title>", "\u{feff}<HTML lang=en>"] {
        assert!(is_web_page(page), "{page}");
    }
    for other in ["", "OK", "<", "<htm", "<h1>ok</h1>", "<?xml?><html>", "äöüäöüäöüäöü", "{\"ok\":true}"] {
        assert!(!is_web_page(other), "{other}");
    }
}
