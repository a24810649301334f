//! Ollama's JSON (`/api/version`, `/api/tags`, `/api/ps`) as the models pulled and the models loaded.
//! Every field may be missing or of any type: a bad value costs that field, never a job.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Further models are left out: a list has at most 2 MiB, and its parsed form must stay small too.
const MAX_MODELS: usize = 5_000;

/// One entry of `/api/tags` or `/api/ps`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default)]
pub(crate) struct Entry {
    #[serde(deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    model: Option<String>,
    #[serde(deserialize_with = "lenient")]
    digest: Option<String>,
    /// Bytes: on disk in tags, in memory (all devices) in ps.
    #[serde(deserialize_with = "lenient")]
    size: Option<u64>,
    /// Bytes of `size` on a GPU; builds of mid-2024 omit 0.
    #[serde(deserialize_with = "lenient")]
    size_vram: Option<u64>,
    /// Set for models that run in Ollama's cloud: they use no GPU of this machine.
    #[serde(deserialize_with = "lenient")]
    remote_host: Option<String>,
    #[serde(deserialize_with = "lenient")]
    remote_model: Option<String>,
    /// Context length in tokens (num_ctx); since mid-2025.
    #[serde(deserialize_with = "lenient")]
    context_length: Option<u64>,
    /// When it is unloaded unless requested again: RFC 3339; some 292 years ahead for a keep_alive without end.
    #[serde(deserialize_with = "lenient")]
    expires_at: Option<String>,
}

impl Entry {
    /// The remote host that runs it, if any.
    fn remote(&self) -> Option<&str> {
        let host = self.remote_host.as_deref().filter(|host| !host.is_empty());
        host.or_else(|| self.remote_model.as_deref().filter(|model| !model.is_empty()).map(|_| "ollama.com"))
    }

    fn name(&self) -> Option<&str> {
        [&self.name, &self.model].into_iter().flatten().map(String::as_str).find(|n| !n.is_empty())
    }
}

#[derive(serde::Deserialize)]
struct List {
    #[serde(default, deserialize_with = "entries")]
    models: Option<Vec<Entry>>,
}

#[derive(serde::Deserialize)]
struct Version {
    version: String,
}

/// A value of the wrong type counts as absent.
fn lenient<'de, D: Deserializer<'de>, T: serde::Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Good(T),
        Bad(IgnoredAny),
    }
    Ok(match Either::deserialize(d)? {
        Either::Good(value) => Some(value),
        Either::Bad(_) => None,
    })
}

/// The objects of the list; `null` is an empty list.
fn entries<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<Entry>>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Option<Vec<Entry>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of models")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(Some(Vec::new()))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            #[derive(serde::Deserialize)]
            #[serde(transparent)]
            struct Maybe(#[serde(deserialize_with = "lenient")] Option<Entry>);
            let mut all = Vec::new();
            while let Some(Maybe(entry)) = seq.next_element()? {
                if all.len() < MAX_MODELS {
                    all.extend(entry.filter(|e| e.name().is_some()));
                }
            }
            Ok(Some(all))
        }
    }
    d.deserialize_any(Entries)
}

/// The entries of a `/api/tags` or `/api/ps` body.
///
/// # Errors
/// Not JSON, or not an object with a list `models`.
pub(crate) fn parse_list(body: &[u8]) -> Result<Vec<Entry>, String> {
    let list: List = serde_json::from_slice(body).map_err(|why| format!("the answer is not a model list: {why}"))?;
    list.models.ok_or_else(|| "the answer has no list \"models\"".into())
}

/// The version of a `/api/version` body, at most 64 characters of it.
///
/// # Errors
/// Not JSON, or not an object with a string `version`.
pub(crate) fn parse_version(body: &[u8]) -> Result<String, String> {
    let version: Version =
        serde_json::from_slice(body).map_err(|why| format!("the answer is not Ollama's version: {why}"))?;
    Ok(version.version.chars().take(64).collect())
}

/// One model: pulled, loaded or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    /// As Ollama shows it.
    pub(crate) name: String,
    /// Bytes on disk, or in memory for a loaded model that is no longer pulled.
    pub(crate) size_bytes: Option<u64>,
    pub(crate) pulled: bool,
    pub(crate) loaded: Option<Loaded>,
    /// Of the manifest: the same for all names of the same weights.
    pub(crate) digest: Option<String>,
    /// Set when Ollama's cloud runs it; its name may not show that.
    pub(crate) remote_host: Option<String>,
}

/// What a loaded model holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Bytes on all devices; None: unknown.
    pub(crate) size_bytes: Option<u64>,
    /// Bytes of them on a GPU.
    pub(crate) vram_bytes: u64,
    /// Unix seconds by Ollama's clock at which it is unloaded; None: unknown.
    pub(crate) expires_at: Option<i64>,
    /// Context length in tokens; None: unknown.
    pub(crate) context_length: Option<u64>,
    /// Other weights were pulled under its name since: the next request reloads it.
    pub(crate) outdated: bool,
}

impl Loaded {
    /// Percentage on a GPU, 0 to 100, and 100 only for all of it; None when the size is unknown.
    pub(crate) fn on_gpu_percent(&self) -> Option<u64> {
        let (size, on_gpu) = (u128::from(self.size_bytes.filter(|s| *s > 0)?), u128::from(self.vram_bytes));
        let percent = (on_gpu * 100 + size / 2) / size;
        u64::try_from(percent.min(if on_gpu < size { 99 } else { 100 })).ok()
    }
}

/// Joins both lists, pulled models first in Ollama's order (newest first). A loaded model marks the pulled one of its
/// name, else the first of its digest (Ollama lists an alias under the name that was loaded first), else it is listed
/// alone.
pub(crate) fn join(tags: &[Entry], ps: &[Entry]) -> Vec<Model> {
    let mut models: Vec<Model> = tags
        .iter()
        .filter_map(|tag| {
            Some(Model {
                name: tag.name()?.to_owned(),
                size_bytes: tag.size,
                pulled: true,
                loaded: None,
                digest: tag.digest.clone(),
                remote_host: tag.remote().map(str::to_owned),
            })
        })
        .collect();
    // The first one of each counts.
    let (mut by_name, mut by_digest) = (HashMap::new(), HashMap::new());
    for (at, tag) in tags.iter().enumerate() {
        if let Some(name) = tag.name() {
            by_name.entry(normalize(name)).or_insert(at);
        }
        if let Some(digest) = &tag.digest {
            by_digest.entry(digest.clone()).or_insert(at);
        }
    }
    for entry in ps.iter().filter(|e| e.remote().is_none()) {
        let Some(name) = entry.name() else { continue };
        let loaded = Loaded {
            size_bytes: entry.size,
            vram_bytes: entry.size_vram.unwrap_or(0),
            expires_at: entry.expires_at.as_deref().and_then(unix_seconds),
            context_length: entry.context_length.filter(|tokens| *tokens > 0),
            outdated: false,
        };
        let at = by_name.get(&normalize(name)).or_else(|| by_digest.get(entry.digest.as_ref()?)).copied();
        let at = at.filter(|at| models[*at].loaded.is_none());
        match at {
            Some(at) => {
                let outdated = entry.digest.is_some() && tags[at].digest.is_some() && entry.digest != tags[at].digest;
                models[at].loaded = Some(Loaded { outdated, ..loaded });
            }
            None => models.push(Model {
                name: name.to_owned(),
                size_bytes: entry.size,
                pulled: false,
                loaded: Some(loaded),
                digest: entry.digest.clone(),
                remote_host: None,
            }),
        }
    }
    models
}

/// Names of loaded models that `tags` has neither by name nor by digest.
pub(crate) fn unlisted(tags: &[Entry], ps: &[Entry]) -> Vec<String> {
    join(tags, ps).into_iter().filter(|model| !model.pulled).map(|model| model.name).collect()
}

fn unix_seconds(rfc3339: &str) -> Option<i64> {
    OffsetDateTime::parse(rfc3339, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// The state of one named model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ModelStatus {
    pub(crate) pulled: bool,
    /// Under this name, or under another one of the same weights.
    pub(crate) loaded: Option<Loaded>,
    pub(crate) digest: Option<String>,
    /// Set for a model of Ollama's cloud.
    pub(crate) remote_host: Option<String>,
}

/// Looks a name up in the list of [`join`].
pub(crate) fn status_of(models: &[Model], name: &str) -> ModelStatus {
    let wanted = normalize(name);
    let Some(model) = models.iter().find(|model| normalize(&model.name) == wanted) else {
        return ModelStatus::default();
    };
    let same = |other: &&Model| model.digest.is_some() && other.digest == model.digest;
    let loaded = model.loaded.or_else(|| models.iter().filter(same).find_map(|other| other.loaded));
    ModelStatus { pulled: model.pulled, loaded, digest: model.digest.clone(), remote_host: model.remote_host.clone() }
}

/// The form in which two names of one model are equal: lower case, no default registry or namespace, always a tag.
pub(crate) fn normalize(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let short = lower.strip_prefix("registry.ollama.ai/").unwrap_or(&lower);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let tagged = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { short.to_owned() } else { format!("{short}:latest") }
}

#[test]
fn names() {
    #[track_caller]
    fn check(name: &str, expect: &str) {
        assert_eq!(normalize(name), expect);
    }
    check("Llama3", "llama3:latest");
    check("registry.ollama.ai/library/llama3:8B", "llama3:8b");
    check("ns/model", "ns/model:latest");
    check("hf.co/org/repo:Q4", "hf.co/org/repo:q4");
    check("127.0.0.1:11501/library/good", "127.0.0.1:11501/library/good:latest");
}

#[test]
fn bad_values_in_lists_are_left_out() {
    #[track_caller]
    fn check(body: &str, expect: Result<&[&str], &str>) {
        let got = parse_list(body.as_bytes());
        match expect {
            Ok(names) => assert_eq!(got.unwrap().iter().filter_map(Entry::name).collect::<Vec<_>>(), names, "{body}"),
            Err(part) => assert!(got.unwrap_err().contains(part), "{body}"),
        }
    }
    check(r#"{"models":[]}"#, Ok(&[]));
    check(r#"{"models":null}"#, Ok(&[]));
    check(r#"{"models":[{"name":"a"},7,[],null,{"name":3,"model":"b"},{"name":""},{}]}"#, Ok(&["a", "b"]));
    check(r#"{"models":[{"name":"a","size":-5,"size_vram":1e99,"details":null}]}"#, Ok(&["a"]));
    check(r#"{"models":7}"#, Err("list"));
    check(r#"{"model":[]}"#, Err("no list"));
    check("[]", Err("no list"));
    check("<html>", Err("not a model list"));
    check(r#"{"models":[{"name":"a""#, Err("not a model list"));
}

#[test]
fn loaded_models_are_found_by_name_then_by_digest() {
    #[track_caller]
    fn check(tags: &str, ps: &str, expect: &[(&str, bool, Option<u64>)]) {
        let list = |body: &str| parse_list(format!(r#"{{"models":[{body}]}}"#).as_bytes()).unwrap();
        let got = join(&list(tags), &list(ps));
        let got: Vec<_> = got.iter().map(|m| (m.name.as_str(), m.pulled, m.loaded.map(|l| l.vram_bytes))).collect();
        assert_eq!(got, expect);
    }
    check(
        r#"{"name":"a:latest"},{"name":"b:1"}"#,
        r#"{"name":"B:1","size":9,"size_vram":5}"#,
        &[("a:latest", true, None), ("b:1", true, Some(5))],
    );
    check(
        r#"{"name":"x:1","digest":"d"},{"name":"y:1","digest":"d"}"#,
        r#"{"name":"z:1","digest":"d"}"#,
        &[("x:1", true, Some(0)), ("y:1", true, None)],
    );
    check("", r#"{"name":"gone:1","size_vram":3},{"name":"far","remote_host":"h"}"#, &[("gone:1", false, Some(3))]);
}

/// Each name is looked up once: a list of all names for each loaded model takes minutes.
#[test]
fn the_longest_lists_are_joined_in_a_moment() {
    let list = |names: std::ops::Range<usize>| {
        let all: Vec<String> = names.map(|i| format!(r#"{{"name":"m{i}","digest":"d{i}"}}"#)).collect();
        parse_list(format!(r#"{{"models":[{}]}}"#, all.join(",")).as_bytes()).unwrap()
    };
    let (tags, ps) = (list(0..MAX_MODELS), list(MAX_MODELS / 2..MAX_MODELS * 3 / 2));
    let models = join(&tags, &ps);
    let loaded = models.iter().filter(|model| model.loaded.is_some()).count();
    assert_eq!((models.len(), loaded), (MAX_MODELS * 3 / 2, MAX_MODELS));
}

#[test]
fn a_name_is_found_as_ollama_shows_it_and_under_its_aliases() {
    #[track_caller]
    fn check(name: &str, pulled: bool, expires_at: Option<Option<i64>>) {
        let list = |body: &str| parse_list(format!(r#"{{"models":[{body}]}}"#).as_bytes()).unwrap();
        let tags = list(
            r#"{"name":"a:latest","digest":"d"},{"name":"b:1","digest":"e"},{"name":"c:1"},{"name":"ns/a:latest","digest":"d"}"#,
        );
        let ps = list(
            r#"{"name":"ns/a:latest","digest":"d","expires_at":"2319-03-05T01:02:03.123456789Z"},
            {"name":"gone:1","expires_at":"2026-11-23T04:52:02+01:00"},{"name":"x:1"}"#,
        );
        let found = status_of(&join(&tags, &ps), name);
        assert_eq!((found.pulled, found.loaded.map(|loaded| loaded.expires_at)), (pulled, expires_at), "{name}");
    }
    let far = Some(11_018_768_523);
    check("ns/a", true, Some(far));
    check("registry.ollama.ai/library/A", true, Some(far));
    check("b:1", true, None);
    check("c:1", true, None);
    check("b", false, None);
    check("gone:1", false, Some(Some(1_795_405_922)));
    check("x:1", false, Some(None));
    assert_eq!(unix_seconds("soon"), None);
}

#[test]
fn gpu_share() {
    #[track_caller]
    fn check(size: Option<u64>, vram: u64, expect: Option<u64>) {
        assert_eq!(Loaded { size_bytes: size, vram_bytes: vram, ..Loaded::default() }.on_gpu_percent(), expect);
    }
    check(Some(200), 100, Some(50));
    check(Some(3), 3, Some(100));
    check(Some(1000), 999, Some(99));
    check(Some(1), u64::MAX, Some(100));
    check(Some(7), 0, Some(0));
    check(Some(0), 0, None);
    check(None, 5, None);
}
