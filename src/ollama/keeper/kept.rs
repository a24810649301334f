//! Which keeper a model belongs to, by the rules for names and aliases that Ollama has.

use super::row::KeeperRow;
use crate::ollama::models::{Model, normalize};

/// The keepers, with the models that they keep.
#[derive(Debug)]
pub(crate) struct KeeperIndex<'a>(Vec<KeptModel<'a>>);

#[derive(Debug)]
struct KeptModel<'a> {
    /// As [`normalize`] has it.
    name: String,
    /// None: not listed.
    digest: Option<&'a str>,
    row: &'a KeeperRow,
}

impl<'a> KeeperIndex<'a> {
    /// `models`: those that Ollama lists.
    pub(crate) fn new(rows: &'a [KeeperRow], models: &'a [Model]) -> Self {
        let one = |row: &'a KeeperRow| KeptModel { name: normalize(&row.model), digest: None, row };
        let mut all: Vec<KeptModel<'_>> = rows.iter().map(one).collect();
        if !all.is_empty() {
            for model in models {
                let name = normalize(&model.name);
                all.iter_mut().filter(|kept| kept.name == name).for_each(|kept| kept.digest = model.digest.as_deref());
            }
        }
        Self(all)
    }

    /// The keeper of this name, else the first one of the same weights.
    pub(crate) fn row_of(&self, name: &str, digest: Option<&str>) -> Option<&'a KeeperRow> {
        if self.0.is_empty() {
            return None;
        }
        let wanted = normalize(name);
        let by_name = self.0.iter().find(|kept| kept.name == wanted);
        let kept = by_name.or_else(|| self.0.iter().find(|kept| kept.digest.is_some() && kept.digest == digest));
        kept.map(|kept| kept.row)
    }
}

#[test]
fn a_keeper_is_found_by_name_then_by_digest() {
    let model = |name: &str, digest: &str| Model {
        name: name.into(),
        size_bytes: None,
        pulled: true,
        loaded: None,
        digest: Some(digest.into()).filter(|_| !digest.is_empty()),
        remote_host: None,
    };
    let rows = [KeeperRow::new("a"), KeeperRow::new("B:1"), KeeperRow::new("gone:1"), KeeperRow::new("c")];
    let models =
        [model("A:latest", "d"), model("b:1", "d"), model("alias:1", "d"), model("c:latest", ""), model("x:1", "")];
    let kept = KeeperIndex::new(&rows, &models);
    let found = |name: &str, digest: Option<&str>| kept.row_of(name, digest).map(|row| row.model.as_str());
    assert_eq!(found("registry.ollama.ai/library/a", None), Some("a"));
    assert_eq!(found("b:1", Some("d")), Some("B:1"));
    assert_eq!(found("alias:1", Some("d")), Some("a"));
    assert_eq!(found("gone:1", None), Some("gone:1"));
    assert_eq!((found("b", Some("e")), found("x:1", None)), (None, None));
    assert!(KeeperIndex::new(&[], &models).row_of("a", Some("d")).is_none());
}
