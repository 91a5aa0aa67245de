//! The budgets of a plan, and the error that stops the line.

use bricks::{BrickKind, BudgetOrigin, Extent, TokenBudget};

use super::BudgetTable;
use crate::record::ForwardSample;
use crate::step::{Phase, StepInfo};

/// A brick took longer than its budget allows.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error(
    "{brick} ({kind}) exceeded its {origin} budget in {phase}: expected at most {limit_us:.3} µs/token, measured {actual_us:.3} ({:.2}x)",
    actual_us / limit_us
)]
pub struct BudgetViolation {
    /// Phase of the forward call.
    pub phase: Phase,
    /// Name of the brick, or of a kind when all bricks of the kind are meant.
    pub brick: String,
    /// Kind of the brick.
    pub kind: BrickKind,
    /// Layer of the brick, if it belongs to one.
    pub layer: Option<u32>,
    /// The budget in µs per token.
    pub limit_us: f64,
    /// Measured µs per token.
    pub actual_us: f64,
    /// `explicit`, `roofline` or `baseline`.
    pub origin: &'static str,
}

/// The budgets of every step of a plan for one phase and size of call, ready for checking each forward without allocation.
#[derive(Debug, Clone, PartialEq)]
pub struct StepBudgets {
    phase: Phase,
    budgets: Vec<Option<TokenBudget>>,
}

impl StepBudgets {
    /// Looks up the budget of every step.
    pub fn new(table: &BudgetTable, steps: &[StepInfo], phase: Phase, extent: &Extent) -> Self {
        Self { phase, budgets: steps.iter().map(|s| table.budget(s, phase, extent)).collect() }
    }

    /// Budget of a step.
    pub fn get(&self, step: usize) -> Option<TokenBudget> {
        self.budgets.get(step).copied().flatten()
    }

    /// Budget of all steps of a kind together: the sum, if every one of them has a budget and there is at least one.
    pub fn of_kind(&self, steps: &[StepInfo], kind: BrickKind) -> Option<TokenBudget> {
        self.sum(steps.iter().enumerate().filter(|(_, s)| s.kind == kind).map(|(i, _)| i))
    }

    /// Budget of the whole plan: the sum, if every step has a budget.
    pub fn total(&self) -> Option<TokenBudget> {
        self.sum(0..self.budgets.len())
    }

    fn sum(&self, steps: impl Iterator<Item = usize>) -> Option<TokenBudget> {
        let (mut us, mut origin) = (0.0, BudgetOrigin::Explicit);
        for step in steps {
            let budget = self.get(step)?;
            us += budget.us_per_token();
            origin = budget.origin();
        }
        TokenBudget::from_latency(us, origin) // none for the empty sum
    }

    /// Checks a forward whose steps were timed one by one.
    ///
    /// # Errors
    /// The first step over its budget.
    pub fn check(&self, steps: &[StepInfo], sample: &ForwardSample<'_>) -> Result<(), BudgetViolation> {
        let tokens = sample.extent().tokens.max(1) as f64;
        for (i, step) in steps.iter().enumerate() {
            let (Some(budget), Some(ns)) = (self.get(i), sample.slot_ns(i)) else { continue };
            let actual_us = ns as f64 / 1e3 / tokens;
            if !budget.is_met_by(actual_us) {
                return Err(BudgetViolation {
                    phase: self.phase,
                    brick: step.name.clone(),
                    kind: step.kind,
                    layer: step.layer,
                    limit_us: budget.us_per_token(),
                    actual_us,
                    origin: budget.origin().name(),
                });
            }
        }
        Ok(())
    }
}
