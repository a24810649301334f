//! Which version this is, and which commit it was built from.

/// The release, e.g. `0.2.0`.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first 12 digits of the commit, with `-dirty` after them where files differed from it. scripts/build-static.sh sets
/// it; a plain `cargo build` has none.
pub(crate) const COMMIT: Option<&str> = option_env!("AGENT_NET_COMMIT");

/// Both, e.g. `0.2.0 (1a2b3c4d5e6f)`.
pub(crate) fn full() -> String {
    match COMMIT.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{VERSION} ({commit})"),
        None => VERSION.to_owned(),
    }
}
