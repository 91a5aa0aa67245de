//! How much work was asked of a step, in a form from which its cost can be derived later.

use bricks::{Cost, Extent, Op};

use crate::step::StepInfo;

/// The sizes of all calls of one step, added up.
///
/// The cost of every operation is an affine function of the [`Extent`], apart from sliding windows, which cap what attention
/// sees in each single call. The caps are therefore applied before adding, and the cost of any number of calls follows
/// from five integers, exactly: `Σ cost(eᵢ) = cost(Σ eᵢ) + (n − 1) · cost(0)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Number of calls.
    pub calls: u64,
    /// Sum of their extents, after the caps of a sliding window.
    pub extent: Extent,
}

impl Work {
    /// Adds a call.
    #[inline]
    pub(super) fn add(&mut self, e: &Extent, window: Option<u64>) {
        let (pairs, context) = match window {
            None => (e.pairs, e.context),
            Some(w) => (e.pairs.min(e.tokens.saturating_mul(w)), e.context.min(e.tokens.saturating_add(w))),
        };
        self.calls += 1;
        self.extent.tokens = self.extent.tokens.saturating_add(e.tokens);
        self.extent.wanted = self.extent.wanted.saturating_add(e.wanted);
        self.extent.context = self.extent.context.saturating_add(context);
        self.extent.pairs = self.extent.pairs.saturating_add(pairs);
    }

    /// Adds the calls of `other`.
    #[must_use]
    pub(super) fn plus(self, other: &Work) -> Work {
        let (a, b) = (self.extent, other.extent);
        Work {
            calls: self.calls + other.calls,
            extent: Extent {
                tokens: a.tokens.saturating_add(b.tokens),
                wanted: a.wanted.saturating_add(b.wanted),
                context: a.context.saturating_add(b.context),
                pairs: a.pairs.saturating_add(b.pairs),
            },
        }
    }

    /// Cost of all calls together.
    pub fn cost(&self, step: &StepInfo) -> Cost {
        if self.calls == 0 {
            return Cost::default();
        }
        let mut op = step.op.clone();
        if let Op::Attention(spec) = &mut op {
            spec.window = None; // the caps are in the sums already
        }
        let at = |e: &Extent| op.cost(&step.inputs, &step.weights, e);
        let (sum, fixed, n) = (at(&self.extent), at(&Extent::default()), self.calls - 1);
        Cost {
            weight_bytes: sum.weight_bytes + n * fixed.weight_bytes,
            read_bytes: sum.read_bytes + n * fixed.read_bytes,
            write_bytes: sum.write_bytes + n * fixed.write_bytes,
            int_ops: sum.int_ops + n * fixed.int_ops,
            flops: sum.flops + n * fixed.flops,
        }
    }
}

/// Work of every step of a plan.
///
/// Nearly always every step runs in every forward, so that only sliding windows tell their sums apart: those are kept once
/// per window. Forwards in which some steps did not run are added step by step.
#[derive(Debug, Clone)]
pub(super) struct PlanWork {
    windows: Vec<Option<u64>>,
    /// Index into `windows` and `whole` of each step.
    class: Vec<u32>,
    /// Work of the forwards in which every step ran, per window.
    whole: Vec<Work>,
    /// Work of the other forwards, per step.
    partial: Vec<Work>,
}

impl PlanWork {
    pub(super) fn new(steps: &[StepInfo]) -> Self {
        let mut windows: Vec<Option<u64>> = Vec::new();
        let mut class = Vec::with_capacity(steps.len());
        for window in steps.iter().map(window_of) {
            let known = windows.iter().position(|w| *w == window);
            class.push(known.unwrap_or(windows.len()) as u32);
            if known.is_none() {
                windows.push(window);
            }
        }
        Self {
            class,
            whole: vec![Work::default(); windows.len()],
            partial: vec![Work::default(); steps.len()],
            windows,
        }
    }

    /// Adds a forward in which every step ran.
    pub(super) fn add_whole(&mut self, extent: &Extent) {
        for (work, window) in self.whole.iter_mut().zip(&self.windows) {
            work.add(extent, *window);
        }
    }

    /// Adds a forward in which the steps for which `ran` holds ran.
    pub(super) fn add_partial(&mut self, extent: &Extent, ran: impl Fn(usize) -> bool) {
        for (i, work) in self.partial.iter_mut().enumerate().filter(|(i, _)| ran(*i)) {
            work.add(extent, self.windows[self.class[i] as usize]);
        }
    }

    pub(super) fn step(&self, step: usize) -> Option<Work> {
        Some(self.whole[*self.class.get(step)? as usize].plus(&self.partial[step]))
    }

    pub(super) fn clear(&mut self) {
        self.whole.fill(Work::default());
        self.partial.fill(Work::default());
    }
}

/// Sliding window of a step, if it has one.
fn window_of(step: &StepInfo) -> Option<u64> {
    match &step.op {
        Op::Attention(spec) => spec.window.map(|w| w as u64),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;
    use proptest::prelude::*;

    #[test]
    fn windows_are_told_apart_and_whole_and_partial_forwards_add_up() {
        let mut plan = testing::plan(2);
        let attention: Vec<usize> = (0..plan.len()).filter(|&i| matches!(plan[i].op, Op::Attention(_))).collect();
        if let Op::Attention(spec) = &mut plan[attention[0]].op {
            spec.window = Some(8);
        }
        let mut work = PlanWork::new(&plan);
        assert_eq!(work.windows.len(), 2);
        let e = Extent::one_sequence(1, 100, 1);
        work.add_whole(&e);
        work.add_partial(&e, |i| i == attention[0]);
        let (windowed, full) = (work.step(attention[0]).unwrap(), work.step(attention[1]).unwrap());
        assert_eq!((windowed.calls, windowed.extent.pairs, windowed.extent.context), (2, 16, 18));
        assert_eq!((full.calls, full.extent.pairs, full.extent.context), (1, 100, 100));
        assert_eq!(work.step(plan.len()), None);
        work.clear();
        assert_eq!(work.step(0), Some(Work::default()));
    }

    #[test]
    fn no_calls_cost_nothing() {
        for step in testing::plan(1) {
            assert_eq!(Work::default().cost(&step), Cost::default());
        }
    }

    fn extents() -> impl Strategy<Value = Vec<Extent>> {
        let one = (1u64..600, 0u64..5000, 0u64..8).prop_map(|(t, s, l)| Extent::one_sequence(t, t + s, l.min(t)));
        prop::collection::vec(one, 1..20)
    }

    proptest! {
        #[test]
        fn five_integers_give_the_exact_cost_of_any_series(calls in extents(), window in prop::option::of(1usize..900)) {
            let mut plan = testing::plan(2);
            for step in &mut plan {
                if let Op::Attention(spec) = &mut step.op {
                    spec.window = window;
                }
            }
            for step in &plan {
                let mut work = Work::default();
                for e in &calls {
                    work.add(e, window_of(step));
                }
                let direct: Cost = calls.iter().map(|e| step.cost(e)).sum();
                prop_assert_eq!(work.cost(step), direct, "{}", step.name);
            }
        }
    }
}
