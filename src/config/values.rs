//! The values of one run: each is checked against its row of the table, and read by its type. A value that cannot be used
//! is recorded and then counts as unset, so that one reading finds everything that is wrong.

use std::time::Duration;

use crate::config::error::ConfigError;
use crate::config::secret::Secret;
use crate::config::setting::{Setting, duration, items};
use crate::config::url::HttpUrl;
use crate::sys::order;

#[derive(Debug)]
pub(crate) struct Values {
    rows: &'static [Setting],
    /// One for each row; None: unset.
    set: Vec<Option<String>>,
    wrong: Vec<ConfigError>,
}

impl Values {
    /// Empty counts as unset, surrounding spaces do not count. `wrong`: what is known to be wrong already.
    pub(crate) fn new(
        rows: &'static [Setting],
        lookup: &dyn Fn(&str) -> Option<String>,
        mut wrong: Vec<ConfigError>,
    ) -> Self {
        let mut value = |row: &Setting| {
            let value = lookup(row.name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty())?;
            match row.kind.problem(row.name, &value) {
                None => Some(value),
                Some(error) => {
                    wrong.push(error);
                    None
                }
            }
        };
        let set = rows.iter().map(&mut value).collect();
        Self { rows, set, wrong }
    }

    /// Records that a setting cannot be used for a reason that its row does not know.
    pub(crate) fn refuse(&mut self, error: ConfigError) {
        self.wrong.push(error);
    }

    /// The values of all these settings can be used. What needs or excludes them can only be judged then.
    pub(crate) fn are_right(&self, names: &[&str]) -> bool {
        !self.wrong.iter().any(|error| names.contains(&error.name()))
    }

    /// What is wrong, in the order of the table.
    pub(crate) fn into_wrong(self) -> Vec<ConfigError> {
        let Self { rows, mut wrong, .. } = self;
        order::sort_by_key(&mut wrong, |error| {
            rows.iter().position(|row| row.name == error.name()).unwrap_or(rows.len())
        });
        wrong
    }

    fn index(&self, name: &str) -> usize {
        self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| unreachable!("{name} is not in the table"))
    }

    /// What was set; None: the default applies.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.set[self.index(name)].as_deref()
    }

    /// What was set, else the default.
    pub(crate) fn text(&self, name: &str) -> &str {
        let index = self.index(name);
        self.set[index].as_deref().unwrap_or(self.rows[index].default)
    }

    /// None: it is unset, and has no default.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name).parse().ok()
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        duration(self.text(name)).unwrap_or_default()
    }

    /// Each item once: a name that is given twice would be registered, kept and counted twice.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let mut list: Vec<String> = Vec::new();
        for item in items(self.text(name)) {
            if !list.iter().any(|known| known == item) {
                list.push(item.to_owned());
            }
        }
        list
    }

    pub(crate) fn url(&self, name: &str) -> Option<HttpUrl> {
        HttpUrl::parse(self.text(name)).ok()
    }

    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.optional(name).and_then(|value| Secret::new(value.to_owned()))
    }
}
