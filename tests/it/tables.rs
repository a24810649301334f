//! Tables in the documents, made from tables in the code. A table stands between `<!-- table: NAME -->` and
//! `<!-- /table -->`, and may hold several Markdown tables with headings. `AGENT_NET_WRITE=1 cargo test` writes them.
//! The unit tests of the library use this file as well, by `#[path]`.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// The documents that hold the reference between them.
pub(crate) const DOCUMENTS: [&str; 5] =
    ["README.md", "CHANGELOG.md", "compose/README.md", "src/README.md", "src/reference.md"];

/// Two tests may write the same file.
static WRITING: Mutex<()> = Mutex::new(());

/// The text of all documents.
pub(crate) fn documents() -> String {
    DOCUMENTS.map(read).join("\n")
}

/// A Markdown table. A `|` in a cell is escaped; every row has as many cells as there are columns.
#[track_caller]
pub(crate) fn markdown<C: AsRef<str>>(columns: &[&str], rows: impl IntoIterator<Item = Vec<C>>) -> String {
    let mut lines = vec![line(columns), format!("|{}", "---|".repeat(columns.len()))];
    for row in rows {
        let cells: Vec<&str> = row.iter().map(AsRef::as_ref).collect();
        assert_eq!(cells.len(), columns.len(), "{cells:?}");
        lines.push(line(&cells));
    }
    lines.join("\n")
}

fn line(cells: &[&str]) -> String {
    assert!(!cells.iter().any(|cell| cell.contains('\n')), "a cell is one line: {cells:?}");
    let cells: Vec<_> = cells.iter().map(|cell| format!(" {} |", cell.trim().replace('|', "\\|"))).collect();
    format!("|{}", cells.concat()).replace("|  |", "| |")
}

/// Fails unless the table `name` in `file` (a path from the root) is `generated`. With AGENT_NET_WRITE=1 it is written.
#[track_caller]
pub(crate) fn table(file: &str, name: &str, generated: &str) {
    let _one = WRITING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = read(file);
    let wanted = replaced(&text, name, generated).unwrap_or_else(|error| panic!("{file}: {error}"));
    if wanted == text {
        return;
    }
    if std::env::var("AGENT_NET_WRITE").as_deref() == Ok("1") {
        fs::write(root().join(file), wanted).unwrap();
        return;
    }
    let different = wanted.lines().find(|line| !text.lines().any(|old| old == *line)).unwrap_or("(lines to remove)");
    panic!(
        "{file}: the table {name} is out of date: run the tests with AGENT_NET_WRITE=1. First new line:\n{different}"
    );
}

/// `text` with `generated` between the markers of `name`.
fn replaced(text: &str, name: &str, generated: &str) -> Result<String, String> {
    let start = format!("<!-- table: {name} -->\n");
    let (before, rest) = text.split_once(&start).ok_or_else(|| format!("no line {:?}", start.trim_end()))?;
    let (old, after) = rest.split_once("<!-- /table -->").ok_or_else(|| format!("the table {name} has no end"))?;
    if old.contains("<!-- table: ") || after.contains(&start) {
        return Err(format!("the table {name} has no end, or is there twice"));
    }
    Ok(format!("{before}{start}{}\n<!-- /table -->{after}", generated.trim()))
}

/// The text of a file, by its path from the root.
pub(crate) fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_table_is_replaced_between_its_markers() {
    let generated = markdown(&["code", "meaning"], [vec!["`A`", "a|b"], vec!["`B`", ""]]);
    assert_eq!(generated, "| code | meaning |\n|---|---|\n| `A` | a\\|b |\n| `B` | |");
    let text = "# T\n\n<!-- table: x -->\nold\n<!-- /table -->\n\n<!-- table: y -->\n<!-- /table -->\nend\n";
    let wanted =
        format!("# T\n\n<!-- table: x -->\n{generated}\n<!-- /table -->\n\n<!-- table: y -->\n<!-- /table -->\nend\n");
    assert_eq!(replaced(text, "x", &generated), Ok(wanted));
    assert!(replaced(text, "y", "new").unwrap().ends_with("<!-- table: y -->\nnew\n<!-- /table -->\nend\n"));
    assert!(replaced(text, "z", "new").unwrap_err().contains("<!-- table: z -->"));
    assert!(replaced("<!-- table: x -->\n<!-- table: y -->\n<!-- /table -->", "x", "").is_err());
    assert!(replaced("<!-- table: x -->\n", "x", "").is_err());
}

#[test]
fn every_document_has_its_tables_closed() {
    for file in DOCUMENTS {
        let text = read(file);
        assert_eq!(text.matches("<!-- table: ").count(), text.matches("<!-- /table -->").count(), "{file}");
    }
    assert!(documents().contains("<!-- table: "));
}

#[test]
#[should_panic(expected = "no line \"<!-- table: missing -->\"")]
fn a_table_without_markers_is_an_error() {
    table("src/reference.md", "missing", "");
}
