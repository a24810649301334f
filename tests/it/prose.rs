//! The words that people read: no riddles of the glossary in them, and no link that leads nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::manual::{commands, help, printed};
use crate::tables::{DOCUMENTS, read};
use crate::tidy::{files_below, sources};

/// Words and phrases that are not plain English here. They count where no letter touches them; after `!` stand longer
/// phrases that are.
const BANNED: &[&str] = &[
    "nobody",
    "somebody",
    "anew",
    "wholly",
    "mend",
    "mends",
    "mended",
    "mending",
    "patience",
    "told",
    "tells",
    "so many",
    "for good",
    "for ever",
    "a hair",
    "at once again",
    "not get on",
    "gets on",
    "gives up",
    "gave up",
    "heard of",
    "sound link",
    "to be had",
    "can be had",
    "without blanks",
    "who asks",
    "there is no such",
    "there are no such",
    "is no!there is no!is no longer",
    "are no!there are no!are no longer",
];

/// The text files directly in `folder`.
fn files(folder: &str) -> Vec<(String, String)> {
    let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap().flatten();
    let files = all.filter(|entry| entry.path().is_file());
    let mut files: Vec<_> = files.map(|entry| format!("{folder}/{}", entry.file_name().to_str().unwrap())).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// What people read, by scope: where it stands, and its text.
fn scopes() -> BTreeMap<&'static str, Vec<(String, String)>> {
    let documents = DOCUMENTS.iter().map(|path| ((*path).to_owned(), read(path))).collect();
    let mut helps: Vec<_> = commands().iter().map(|name| (format!("{} --help", name.join(" ")), help(name))).collect();
    helps.push(("--help".to_owned(), printed(&["--help"])));
    helps.push(("man".to_owned(), printed(&["man"])));
    let common = vec![("tests/bench/common.sh".to_owned(), read("tests/bench/common.sh"))];
    let scripts = [files("scripts"), files("scripts/build-static"), common].concat();
    let compose = [files("compose"), files("compose/monitoring")].concat();
    let compose = compose.into_iter().filter(|(path, _)| !path.ends_with(".md"));
    let docker = std::iter::once(("scratch.Dockerfile".to_owned(), read("scratch.Dockerfile")));
    let code = sources("src").into_iter().filter(|(path, _)| !path.contains("tests"));
    let literals = code.map(|(path, text)| (path, literals(&text).join("\n\n"))).collect();
    [
        ("documents", documents),
        ("help", helps),
        ("scripts", scripts),
        ("compose", compose.chain(docker).collect()),
        ("literals", literals),
        ("page", files_below("src", "html")),
        ("tests and comments", comments_and_names()),
    ]
    .into()
}

/// The comments of all Rust code, and the names of its tests.
fn comments_and_names() -> Vec<(String, String)> {
    let all = ["src", "tests"].iter().flat_map(|folder| sources(folder));
    all.map(|(path, text)| (path, format!("{}\n\n{}", comments(&text), test_names(&text)))).collect()
}

/// The text of the comments: lines that are nothing else, and what stands behind code.
fn comments(text: &str) -> String {
    let comment = |line: &str| {
        let line = line.trim_start();
        let behind = || line.split_once(" // ").map(|(_, comment)| comment.to_owned());
        line.strip_prefix("//").map(|own| own.trim_start_matches(['/', '!']).to_owned()).or_else(behind)
    };
    text.lines().map(|line| comment(line).unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The names of the tests as words.
fn test_names(text: &str) -> String {
    let names = text.split("#[test]").skip(1).filter_map(|test| test.split_once("fn ")?.1.split_once('('));
    names.map(|(name, _)| name.replace('_', " ")).collect::<Vec<_>>().join(".\n")
}

/// The string literals of Rust code that is not a test.
fn literals(text: &str) -> Vec<String> {
    let code = text.split("\n#[cfg(test)]\nmod").next().unwrap().split("\n#[test]").next().unwrap();
    let mut rest = code;
    let mut all = Vec::new();
    while let Some(at) = rest.find(['"', '/', '\'', 'r']) {
        let here = &rest[at..];
        let raw = here.strip_prefix("r#\"").and_then(|raw| raw.split_once("\"#"));
        rest = if here.starts_with("//") {
            here.split_once('\n').map_or("", |(_, next)| next)
        } else if let Some((literal, next)) = raw {
            all.push(literal.to_owned());
            next
        } else if here.starts_with("'\"'") || here.starts_with("'\\") {
            &here[3..]
        } else if let Some(inner) = here.strip_prefix('"') {
            let mut escaped = false;
            let end = inner.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            let (literal, next) = inner.split_at(end.expect("a literal ends"));
            all.push(literal.replace("\\\n", " ").replace("\\n", " "));
            &next[1..]
        } else {
            &here[1..]
        };
    }
    all
}

/// One line of small letters: signs of comments and runs of blanks are one blank.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c == '#' || c == '`' || c == '*');
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ").to_lowercase()
}

fn count(text: &str, phrase: &str) -> usize {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let whole = |(at, _): &(usize, &str)| {
        !letter(text[..*at].chars().next_back()) && !letter(text[at + phrase.len()..].chars().next())
    };
    text.match_indices(phrase).filter(whole).count()
}

/// Each banned phrase that stands in `text`, and how often.
fn banned(text: &str) -> Vec<(&'static str, usize)> {
    let text = plain(text);
    let found = BANNED.iter().map(|entry| {
        let (phrase, fine) = entry.split_once('!').unwrap_or((entry, ""));
        let fine = fine.split('!').filter(|fine| !fine.is_empty()).map(|fine| count(&text, fine)).sum();
        (phrase, count(&text, phrase).saturating_sub(fine))
    });
    found.filter(|(_, times)| *times > 0).collect()
}

#[test]
fn no_banned_phrase_is_used() {
    let mut more = Vec::new();
    for (scope, texts) in scopes() {
        assert!(!texts.is_empty(), "{scope}");
        let found: Vec<_> =
            texts.iter().flat_map(|(at, text)| banned(text).into_iter().map(move |f| (at, f))).collect();
        more.extend(found.iter().map(|(at, (phrase, times))| format!("\n  {scope}: {at}: {phrase} ({times})")));
    }
    assert!(more.is_empty(), "write plain English: {}", more.concat());
}

#[test]
fn what_is_banned_is_found_and_nothing_else() {
    #[track_caller]
    fn check(text: &str, phrases: &[&str]) {
        assert_eq!(banned(text).iter().map(|(phrase, _)| *phrase).collect::<Vec<_>>(), phrases, "{text}");
    }
    check("Nobody is told,\n# and so\n# many a pull starts anew.", &["nobody", "anew", "told", "so many"]);
    check("I recommend a renewal for goods; get on with it.", &[]);
    check("There is no GPU. It is no longer here. It is no GPU.", &["is no"]);
    assert_eq!(
        literals("a('\"', \"x \\\" y\", r#\"r \"q\" \"#); // \"no\"\n'\\'' \"z\""),
        ["x \\\" y", "r \"q\" ", "z"]
    );
    let code =
        "@! A lamp is\n@! no moon. \"told\"\nlet anew = 1; @ a hair\n#[test]\nfn it_is_fine() {}".replace('@', "//");
    assert_eq!(
        banned(&comments(&code)).iter().map(|(phrase, _)| *phrase).collect::<Vec<_>>(),
        ["told", "a hair", "is no"]
    );
    assert_eq!(test_names(&code), "it is fine");
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-').collect::<String>().replace(' ', "-")
}

/// The anchors of a document. A heading that comes again has a number.
fn anchors(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    for heading in prose_lines(text)
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
    {
        let own = anchor(heading);
        let again = all.iter().filter(|other| **other == own).count();
        all.push(if again == 0 { own } else { format!("{own}-{again}") });
    }
    all
}

/// The lines outside of fenced code.
fn prose_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("```").step_by(2).flat_map(str::lines)
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for document in DOCUMENTS {
        let text = read(document);
        let prose: Vec<_> = prose_lines(&text).collect();
        let prose = prose.join("\n");
        let targets = prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => root.join(document),
                path => root.join(document).parent().unwrap().join(path),
            };
            assert!(file.exists(), "{document}: {target} does not exist");
            let there = anchor.is_empty() || anchors(&fs::read_to_string(&file).unwrap()).iter().any(|a| a == anchor);
            assert!(there, "{document}: {target} has no such heading");
            links += 1;
        }
    }
    assert!(links >= 50, "{links}");
}
