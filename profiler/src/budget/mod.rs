//! Where budgets come from, and what happens when they are exceeded.
//!
//! | module | origin of the budgets |
//! | --- | --- |
//! | `roofline` | the machine's measured limits and the static cost of each step |
//! | `file` | a TOML file written by a person |
//! | `baseline` | an earlier profile |
//! | `check` | the budgets of a plan, and the error that stops the line |

mod baseline;
mod check;
mod file;
mod glob;
mod roofline;

use bricks::{BrickKind, BudgetOrigin, Extent, TokenBudget};

pub use baseline::{Baseline, BaselineError};
pub use check::{BudgetViolation, StepBudgets};
pub use file::{BudgetFile, BudgetFileError};
pub use roofline::{Bound, Resource, Roofline};

use crate::step::{Phase, StepInfo};

/// Budgets for the steps of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum BudgetTable {
    /// From the machine's measured limits.
    Roofline(Box<Roofline>),
    /// From a file.
    File(BudgetFile),
    /// From an earlier recording.
    Baseline(Baseline),
}

impl BudgetTable {
    /// Budget of a step for calls of this size.
    pub fn budget(&self, step: &StepInfo, phase: Phase, extent: &Extent) -> Option<TokenBudget> {
        match self {
            Self::Roofline(t) => t.budget(step, extent),
            Self::File(t) => t.budget(step, phase),
            Self::Baseline(t) => t.budget(step, phase),
        }
    }

    /// Budget of host work that is not a step of the plan (sampling).
    pub fn external(&self, kind: BrickKind, phase: Phase) -> Option<TokenBudget> {
        match self {
            Self::Roofline(_) => None,
            Self::File(t) => t.kind_budget(kind, phase),
            Self::Baseline(t) => t.external(kind, phase),
        }
    }

    /// Where these budgets come from.
    pub const fn origin(&self) -> BudgetOrigin {
        match self {
            Self::Roofline(_) => BudgetOrigin::Roofline,
            Self::File(_) => BudgetOrigin::Explicit,
            Self::Baseline(_) => BudgetOrigin::Baseline,
        }
    }

    /// The same in one line, with the assumptions that went into them.
    pub fn describe(&self) -> String {
        match self {
            Self::Roofline(t) => t.describe(),
            Self::File(t) => t.describe(),
            Self::Baseline(t) => t.describe(),
        }
    }
}

impl From<Roofline> for BudgetTable {
    fn from(t: Roofline) -> Self {
        Self::Roofline(Box::new(t))
    }
}

impl From<BudgetFile> for BudgetTable {
    fn from(t: BudgetFile) -> Self {
        Self::File(t)
    }
}

impl From<Baseline> for BudgetTable {
    fn from(t: Baseline) -> Self {
        Self::Baseline(t)
    }
}
