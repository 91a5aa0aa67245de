//! Budgets kept and exceeded.

use bricks::{BrickKind, BudgetPolicy, TokenBudget};

use super::{BottleneckReport, BudgetShare, Profile, RowDerived, RowMeasured, Verdict};
use crate::budget::BudgetViolation;
use crate::stats::Summary;
use crate::step::Phase;

/// Compares a budget with the median of what was measured.
pub(super) fn share_of_budget(
    budget: Option<TokenBudget>,
    measured: Option<&Summary>,
) -> (Option<BudgetShare>, Verdict) {
    match (budget, measured) {
        (None, _) => (None, Verdict::NoBudget),
        (Some(_), None) => (None, Verdict::NotMeasured),
        (Some(b), Some(m)) => {
            let share =
                BudgetShare { us_per_token: b.us_per_token(), origin: b.origin(), gap_factor: b.gap_factor(m.p50) };
            (Some(share), if b.is_met_by(m.p50) { Verdict::Within } else { Verdict::Over })
        }
    }
}

/// The row that takes most of the phase; of equal ones the first.
pub(super) fn bottleneck<'a>(
    rows: impl Iterator<Item = (&'a str, Option<u32>, &'a RowMeasured, &'a RowDerived)>,
) -> Option<BottleneckReport> {
    let (name, layer, measured, derived) = rows.reduce(|a, b| if b.2.total_us > a.2.total_us { b } else { a })?;
    Some(BottleneckReport {
        layer_idx: layer,
        brick_name: name.to_owned(),
        actual_us: measured.us_per_token.map_or(measured.mean_us_per_token, |s| s.p50),
        share: derived.share,
        budget_us: derived.budget.map(|b| b.us_per_token),
        gap_factor: derived.budget.map(|b| b.gap_factor),
    })
}

impl Profile {
    /// Every brick over its budget, worst gap first.
    pub fn violations(&self) -> Vec<BudgetViolation> {
        let mut all = Vec::new();
        for phase in &self.phases {
            for row in &phase.steps {
                let name = (&row.name, row.kind, row.layer);
                all.extend(violation(phase.phase, name, &row.measured, &row.derived));
            }
            // Kinds without steps of their own: host work.
            let external = |kind: BrickKind| phase.steps.iter().all(|s| s.kind != kind);
            for row in phase.kinds.iter().filter(|r| external(r.kind)) {
                let name = (&row.kind.name().to_owned(), row.kind, None);
                all.extend(violation(phase.phase, name, &row.measured, &row.derived));
            }
        }
        let gap = |v: &BudgetViolation| v.actual_us / v.limit_us;
        all.sort_by(|a, b| gap(b).total_cmp(&gap(a)));
        all
    }

    /// Applies a policy.
    ///
    /// # Errors
    /// With [`BudgetPolicy::Strict`], the worst violation.
    pub fn enforce(&self, policy: BudgetPolicy) -> Result<(), BudgetViolation> {
        match policy {
            BudgetPolicy::Off | BudgetPolicy::Report => Ok(()),
            BudgetPolicy::Strict => self.violations().into_iter().next().map_or(Ok(()), Err),
        }
    }
}

fn violation(
    phase: Phase,
    (name, kind, layer): (&String, BrickKind, Option<u32>),
    measured: &RowMeasured,
    derived: &RowDerived,
) -> Option<BudgetViolation> {
    let (budget, actual) = (derived.budget?, measured.us_per_token?);
    (derived.verdict == Verdict::Over).then(|| BudgetViolation {
        phase,
        brick: name.clone(),
        kind,
        layer,
        limit_us: budget.us_per_token,
        actual_us: actual.p50,
        origin: budget.origin.name(),
    })
}
