//! Running bricks one after the other under a budget policy.

use crate::assertion::{BrickAssertion, Observation};
use crate::brick::{Observe as _, RunBrick, enforce};
use crate::budget::{BudgetPolicy, TokenBudget};
use crate::error::BrickError;
use crate::verify::Verification;

/// One execution on a line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineEntry {
    /// Layer the brick belongs to, if it belongs to one.
    pub layer: Option<usize>,
    /// Name of the brick.
    pub brick: String,
    /// Measured microseconds per token.
    pub actual_us: f64,
    /// Its budget.
    pub budget: TokenBudget,
    /// Verdicts on its assertions, on a line that [checks outputs](BrickLine::checking_outputs).
    pub verification: Option<Verification>,
}

impl LineEntry {
    /// Whether the budget was kept.
    pub fn budget_met(&self) -> bool {
        self.budget.is_met_by(self.actual_us)
    }
}

/// Runs bricks in the order they are handed to it and keeps account of them.
///
/// Bricks have different inputs and outputs, so a line is not a list of bricks but the place they are run at: each
/// [`step`](Self::step) gives its output to the caller, who gives it to the next. Under [`BudgetPolicy::Strict`] the first
/// violation stops the line: the step fails, and every later one fails without running its brick.
///
/// ```
/// # use bricks::{BudgetPolicy, BrickLine, BrickError, RunBrick};
/// # use bricks::catalog::{Activations, RmsNormBrick, Stream};
/// # fn example(norm: &RmsNormBrick, x: &Activations<Stream>) -> Result<(), BrickError> {
/// let mut line = BrickLine::new(BudgetPolicy::Report).in_layer(3);
/// let normed = line.step(norm, x)?;
/// let report = line.finish();
/// assert_eq!(report.bottleneck().map(|b| b.brick_name), Some("rms_norm".to_owned()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct BrickLine {
    policy: BudgetPolicy,
    layer: Option<usize>,
    check_outputs: bool,
    entries: Vec<LineEntry>,
    stopped_by: Option<String>,
}

impl BrickLine {
    /// An empty line.
    pub fn new(policy: BudgetPolicy) -> Self {
        Self { policy, layer: None, check_outputs: false, entries: Vec::new(), stopped_by: None }
    }

    /// The line of one layer: its entries carry this index.
    #[must_use]
    pub fn in_layer(mut self, layer: usize) -> Self {
        self.layer = Some(layer);
        self
    }

    /// Evaluates each brick's assertions on its output. A failed one stops the line whatever the policy, except
    /// `budget_met`, about which the policy decides.
    #[must_use]
    pub fn checking_outputs(mut self) -> Self {
        self.check_outputs = true;
        self
    }

    /// Runs the next brick.
    ///
    /// # Errors
    /// What the brick reports; [`BrickError::BudgetExceeded`] under the strict policy; [`BrickError::Assertion`] if the line
    /// checks outputs; [`BrickError::LineStopped`] if an earlier step had failed. Any of them stops the line.
    pub fn step<B: RunBrick>(&mut self, brick: &B, input: B::Input<'_>) -> Result<B::Output, BrickError> {
        self.admit(brick.name())?;
        let result = brick.run(input).inspect_err(|_| self.stopped_by = Some(brick.name().to_owned()))?;
        let verification = self.check_outputs.then(|| {
            brick.verify(&Observation {
                output: result.output.values(),
                shape: &result.output.shape(),
                reference: None,
                actual_us: Some(result.us_per_token),
            })
        });
        let broken = verification.as_ref().and_then(|v| {
            let judged = brick.assertions().iter().zip(&v.outcomes);
            judged
                .filter(|(a, o)| o.failed() && !matches!(a, BrickAssertion::BudgetMet))
                .map(|(_, o)| v.error(o))
                .next()
        });
        self.record(brick.name(), brick.budget(), result.us_per_token, verification)?;
        if let Some(error) = broken {
            self.stopped_by = Some(brick.name().to_owned());
            return Err(error);
        }
        Ok(result.output)
    }

    /// Puts down an execution that was timed elsewhere (a device, an earlier recording).
    ///
    /// # Errors
    /// [`BrickError::BudgetExceeded`] under the strict policy; [`BrickError::LineStopped`] if an earlier step had failed.
    pub fn record_timed(&mut self, brick: &str, budget: TokenBudget, actual_us: f64) -> Result<(), BrickError> {
        self.admit(brick)?;
        self.record(brick, budget, actual_us, None)
    }

    /// Closes the line.
    pub fn finish(self) -> LineReport {
        LineReport { policy: self.policy, entries: self.entries, stopped_by: self.stopped_by }
    }

    fn admit(&self, brick: &str) -> Result<(), BrickError> {
        match &self.stopped_by {
            None => Ok(()),
            Some(by) => Err(BrickError::LineStopped { brick: brick.to_owned(), by: by.clone() }),
        }
    }

    fn record(
        &mut self,
        brick: &str,
        budget: TokenBudget,
        actual_us: f64,
        verification: Option<Verification>,
    ) -> Result<(), BrickError> {
        self.entries.push(LineEntry { layer: self.layer, brick: brick.to_owned(), actual_us, budget, verification });
        enforce(self.policy, brick, &budget, actual_us).inspect_err(|_| self.stopped_by = Some(brick.to_owned()))
    }
}

/// What happened on a line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineReport {
    /// The policy it ran under.
    pub policy: BudgetPolicy,
    /// Every execution, in order, the one that stopped the line included.
    pub entries: Vec<LineEntry>,
    /// The brick that stopped the line, if one did.
    pub stopped_by: Option<String>,
}

impl LineReport {
    /// Microseconds per token of the whole line.
    pub fn total_us(&self) -> f64 {
        self.entries.iter().map(|e| e.actual_us).sum()
    }

    /// Executions over their budget; none under [`BudgetPolicy::Off`], where budgets are not looked at.
    pub fn violations(&self) -> impl Iterator<Item = &LineEntry> {
        self.entries.iter().filter(|e| self.policy != BudgetPolicy::Off && !e.budget_met())
    }

    /// The slowest execution; see [`BottleneckReport::of`].
    pub fn bottleneck(&self) -> Option<BottleneckReport> {
        BottleneckReport::of(&self.entries)
    }
}

/// The brick that holds up the line.
#[derive(Debug, Clone, PartialEq)]
pub struct BottleneckReport {
    /// Its layer, if it belongs to one.
    pub layer: Option<usize>,
    /// Its name.
    pub brick_name: String,
    /// What it took, in microseconds per token.
    pub actual_us: f64,
    /// What it may take.
    pub budget_us: f64,
    /// `actual / budget`.
    pub gap_factor: f64,
}

impl BottleneckReport {
    /// The execution with the largest measured time. Of several with the same time, the first on the line; a time that is not
    /// a number is never the largest. `None` if there is none.
    pub fn of(entries: &[LineEntry]) -> Option<Self> {
        let mut slowest: Option<&LineEntry> = None;
        for e in entries.iter().filter(|e| !e.actual_us.is_nan()) {
            if slowest.is_none_or(|s| e.actual_us > s.actual_us) {
                slowest = Some(e);
            }
        }
        slowest.map(|e| Self {
            layer: e.layer,
            brick_name: e.brick.clone(),
            actual_us: e.actual_us,
            budget_us: e.budget.us_per_token(),
            gap_factor: e.budget.gap_factor(e.actual_us),
        })
    }
}

#[cfg(test)]
mod tests;
