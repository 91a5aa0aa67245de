//! Budgets from an earlier recording.

use std::collections::BTreeMap;

use bricks::{BrickKind, BudgetOrigin, TokenBudget};

use crate::profile::{Profile, ProfileError, RowMeasured};
use crate::step::{Phase, StepInfo};

/// What the bricks of an earlier profile took, and how much more than that is allowed.
///
/// Steps are matched by name and phase. Times of another machine, model or context length make poor budgets: the profile
/// says which they were, and [`Baseline::describe`] repeats it.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    source: String,
    tolerance: f64,
    steps: BTreeMap<(Phase, String), f64>,
    external: BTreeMap<(Phase, BrickKind), f64>,
}

/// A baseline cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file is no profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The tolerance is no factor.
    #[error("expected a finite tolerance of at least 1 (1.1 allows 10 % more), found {0}")]
    Tolerance(f64),
}

impl Baseline {
    /// Tolerance by default: 10 % more than the earlier median.
    pub const TOLERANCE: f64 = 1.1;

    /// Budgets of `tolerance` times the medians of an earlier profile; `source` names it in reports.
    ///
    /// # Errors
    /// [`BaselineError::Tolerance`].
    pub fn new(source: &str, profile: &Profile, tolerance: f64) -> Result<Self, BaselineError> {
        if !(tolerance.is_finite() && tolerance >= 1.0) {
            return Err(BaselineError::Tolerance(tolerance));
        }
        let median = |m: &RowMeasured| m.us_per_token.map_or(m.mean_us_per_token, |s| s.p50);
        let (mut steps, mut external) = (BTreeMap::new(), BTreeMap::new());
        for p in &profile.phases {
            for row in &p.steps {
                steps.insert((p.phase, row.name.clone()), median(&row.measured));
            }
            for row in p.kinds.iter().filter(|k| p.steps.iter().all(|s| s.kind != k.kind)) {
                external.insert((p.phase, row.kind), median(&row.measured));
            }
        }
        let machine = profile.machine.as_ref().map_or_else(|| "unknown machine".into(), |m| m.fingerprint.to_string());
        let source = format!("{source}, {}, {} threads, {machine}", profile.model.name, profile.run.threads);
        Ok(Self { source, tolerance, steps, external })
    }

    /// The same from the JSON of a profile.
    ///
    /// # Errors
    /// [`BaselineError`].
    pub fn from_json(file: &str, text: &str, tolerance: f64) -> Result<Self, BaselineError> {
        Self::new(file, &Profile::from_json(file, text)?, tolerance)
    }

    /// Budget of the step of this name.
    pub fn budget(&self, step: &StepInfo, phase: Phase) -> Option<TokenBudget> {
        self.allow(*self.steps.get(&(phase, step.name.clone()))?)
    }

    /// Budget of host work of a kind.
    pub fn external(&self, kind: BrickKind, phase: Phase) -> Option<TokenBudget> {
        self.allow(*self.external.get(&(phase, kind))?)
    }

    fn allow(&self, us: f64) -> Option<TokenBudget> {
        TokenBudget::from_latency(us * self.tolerance, BudgetOrigin::Baseline)
    }

    /// The earlier profile and the tolerance in one line.
    pub fn describe(&self) -> String {
        format!("baseline: {:.2} × the medians of {}", self.tolerance, self.source)
    }
}
