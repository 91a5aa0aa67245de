//! The verdicts on all assertions of a brick.

use std::fmt;

use crate::assertion::{AssertionOutcome, BrickAssertion, Observation, Verdict};
use crate::budget::TokenBudget;
use crate::error::BrickError;

/// What [`ComputeBrick::verify`](crate::ComputeBrick::verify) found: one outcome per declared assertion, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The brick.
    pub brick: String,
    /// One outcome per assertion; a failure hides none of those after it.
    pub outcomes: Vec<AssertionOutcome>,
}

impl Verification {
    /// Evaluates every assertion on one execution.
    pub fn of(brick: &str, assertions: &[BrickAssertion], budget: &TokenBudget, seen: &Observation<'_>) -> Self {
        Self { brick: brick.to_owned(), outcomes: assertions.iter().map(|a| a.evaluate(seen, budget)).collect() }
    }

    /// The outcomes that failed.
    pub fn failures(&self) -> impl Iterator<Item = &AssertionOutcome> {
        self.outcomes.iter().filter(|o| o.failed())
    }

    /// The outcomes without a verdict.
    pub fn not_evaluated(&self) -> impl Iterator<Item = &AssertionOutcome> {
        self.outcomes.iter().filter(|o| matches!(o.verdict, Verdict::NotEvaluated(_)))
    }

    /// Whether every assertion was evaluated and holds. One that could not be evaluated is not a pass.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.outcomes.iter().all(|o| o.verdict == Verdict::Pass)
    }

    /// The first failure as an error.
    ///
    /// # Errors
    /// [`BrickError::Assertion`] if any assertion failed. Those not evaluated are no error; see [`passed`](Self::passed).
    pub fn check(&self) -> Result<(), BrickError> {
        self.failures().next().map_or(Ok(()), |o| Err(self.error(o)))
    }

    /// An outcome of this verification as an error.
    pub(crate) fn error(&self, outcome: &AssertionOutcome) -> BrickError {
        BrickError::Assertion {
            brick: self.brick.clone(),
            assertion: outcome.name.clone(),
            expected: outcome.expected.clone(),
            actual: outcome.actual.clone(),
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.brick)?;
        self.outcomes.iter().try_for_each(|o| write!(f, "\n  {o}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::budget::BudgetOrigin;
    use crate::op::Dim;

    fn budget() -> TokenBudget {
        TokenBudget::from_latency(2.0, BudgetOrigin::Explicit).unwrap()
    }

    fn assertions() -> Vec<BrickAssertion> {
        vec![
            BrickAssertion::shape([Dim::Tokens, Dim::Fixed(2)]),
            BrickAssertion::finite(),
            BrickAssertion::equiv_scalar(1e-4),
            BrickAssertion::range(0.0, 1.0),
            BrickAssertion::budget_met(),
        ]
    }

    /// F003: all are evaluated, also after failures.
    #[test]
    fn evaluates_every_assertion_after_failures() {
        let seen = Observation {
            output: &[f32::NAN, 1.0],
            shape: &[2, 1],
            reference: Some(&[1.0, 1.0]),
            actual_us: Some(9.0),
        };
        let v = Verification::of("ffn", &assertions(), &budget(), &seen);
        assert_eq!(v.outcomes.len(), 5);
        assert_eq!(v.failures().count(), 5, "{v}");
        assert!(!v.passed());
    }

    /// F012: the message names brick, assertion, expected and actual.
    #[test]
    fn a_failure_becomes_an_actionable_error() {
        let seen =
            Observation { output: &[0.5, 7.0], shape: &[1, 2], reference: Some(&[0.5, 7.0]), actual_us: Some(1.0) };
        let v = Verification::of("ffn", &assertions(), &budget(), &seen);
        let message = v.check().unwrap_err().to_string();
        assert_eq!(message, "ffn: assertion range: expected values in 0..=1, found 7 at index 1 (1 of 2 values)");
    }

    #[test]
    fn what_could_not_be_judged_is_neither_failure_nor_pass() {
        let seen = Observation { output: &[0.5, 0.25], shape: &[1, 2], reference: None, actual_us: None };
        let v = Verification::of("ffn", &assertions(), &budget(), &seen);
        assert_eq!(v.failures().count(), 0, "{v}");
        let open: Vec<&str> = v.not_evaluated().map(|o| o.name.as_str()).collect();
        assert_eq!(open, ["equiv_scalar", "budget_met"]);
        assert!(v.check().is_ok() && !v.passed());
    }

    #[test]
    fn an_empty_list_is_not_a_pass() {
        assert!(!Verification::of("ffn", &[], &budget(), &Observation::default()).passed());
    }
}
