//! How the times of all forward calls are spread, kind by kind, in constant memory.

use bricks::BrickKind;
use hdrhistogram::Histogram;

use crate::step::StepInfo;

/// Longest time that is told apart from longer ones: a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// A histogram of times per forward call for every kind that a plan has, and for sampling.
#[derive(Debug)]
pub(super) struct Spread {
    kinds: Vec<Option<Histogram<u32>>>,
}

impl Spread {
    pub(super) fn new(steps: &[StepInfo]) -> Self {
        let used = |kind: BrickKind| kind == BrickKind::Sample || steps.iter().any(|s| s.kind == kind);
        // Two digits: buckets of 1 % at most, 15 KB each.
        let histogram = || Histogram::new_with_bounds(1, LONGEST_NS, 2).ok();
        Self { kinds: BrickKind::ALL.into_iter().map(|k| used(k).then(histogram).flatten()).collect() }
    }

    /// No histograms, for modes without times of steps.
    pub(super) fn none() -> Self {
        Self { kinds: vec![] }
    }

    pub(super) fn record(&mut self, kind: usize, ns: u64) {
        if let Some(Some(h)) = self.kinds.get_mut(kind) {
            h.saturating_record(ns.max(1));
        }
    }

    pub(super) fn clear(&mut self) {
        self.kinds.iter_mut().flatten().for_each(Histogram::clear);
    }

    /// Buckets of a kind, if anything of it was recorded.
    pub(super) fn of(&self, kind: BrickKind) -> Option<&Histogram<u32>> {
        self.kinds.get(kind.index())?.as_ref().filter(|h| !h.is_empty())
    }
}
