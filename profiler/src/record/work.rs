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

/// Sliding window of a step, if it has one.
pub(super) fn window_of(step: &StepInfo) -> Option<u64> {
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
