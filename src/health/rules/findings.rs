//! Where rules put what they find.

use std::borrow::Cow;

use crate::gpu::place::Place;
use crate::gpu::sample::Gpu;
use crate::health::verdict::{Code, Reason, Verdict};
use crate::sys::order;

/// The reasons that rules find.
pub(super) struct Findings<'a> {
    all: Vec<Reason>,
    before: &'a [Reason],
    now: f64,
    pub(super) place: Place,
}

impl<'a> Findings<'a> {
    pub(super) fn new(before: &'a [Reason], now: f64, place: Place) -> Self {
        Self { all: Vec::new(), before, now, place }
    }

    pub(super) fn has(&self, code: Code) -> bool {
        self.all.iter().any(|reason| reason.code == code)
    }

    /// Whether there is a reason with this code about this GPU.
    pub(super) fn has_of(&self, code: Code, gpu: Option<&Gpu>) -> bool {
        let gpu = gpu.map(Gpu::id);
        self.all.iter().any(|reason| reason.code == code && reason.gpu == gpu)
    }

    pub(super) fn worst_first(mut self) -> Vec<Reason> {
        order::sort_by_key(&mut self.all, |reason| std::cmp::Reverse(reason.severity));
        self.all
    }

    /// Adds a reason, which can then be given its numbers.
    pub(super) fn add(
        &mut self,
        code: Code,
        severity: Verdict,
        gpu: Option<&Gpu>,
        message: String,
        action: impl Into<Cow<'static, str>>,
    ) -> &mut Reason {
        let gpu = gpu.map(Gpu::id);
        let since = self.before.iter().find(|r| r.code == code && r.gpu == gpu).map_or(self.now, |r| r.since);
        self.all.push(Reason::new(code, severity, gpu, message, action, since));
        let last = self.all.len() - 1;
        &mut self.all[last]
    }
}
