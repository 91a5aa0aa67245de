//! What must be true of a brick's output.

use std::fmt;
use std::sync::Arc;

use crate::budget::TokenBudget;
use crate::divergence::Divergence;
use crate::op::Dim;

/// What is known about one execution of a brick.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observation<'a> {
    /// The output, row-major.
    pub output: &'a [f32],
    /// Its shape, outermost axis first.
    pub shape: &'a [usize],
    /// What the scalar reference gives for the same input, if it was computed.
    pub reference: Option<&'a [f32]>,
    /// Measured microseconds per token, if the execution was timed.
    pub actual_us: Option<f64>,
}

/// The outcome of one assertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// There was nothing to judge it by, for this reason. Not a pass.
    NotEvaluated(String),
}

/// The verdict on one assertion, with its operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionOutcome {
    /// Name of the assertion.
    pub name: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What it asks for.
    pub expected: String,
    /// What was found.
    pub actual: String,
}

impl AssertionOutcome {
    /// Whether the assertion was evaluated and does not hold.
    pub fn failed(&self) -> bool {
        self.verdict == Verdict::Fail
    }
}

impl fmt::Display for AssertionOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, verdict, expected, actual } = self;
        match verdict {
            Verdict::Pass => write!(f, "pass {name}: {expected}; found {actual}"),
            Verdict::Fail => write!(f, "FAIL {name}: expected {expected}, found {actual}"),
            Verdict::NotEvaluated(reason) => write!(f, "not evaluated {name}: {expected}; {reason}"),
        }
    }
}

type Check = dyn Fn(&Observation<'_>) -> Result<(), String> + Send + Sync;

/// An assertion that a person wrote: a name, a sentence, and a function.
#[derive(Clone)]
pub struct CustomAssertion {
    name: String,
    description: String,
    check: Arc<Check>,
}

impl fmt::Debug for CustomAssertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CustomAssertion")
            .field("name", &self.name)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// A custom assertion on its way; [`check`](Self::check) finishes it.
#[derive(Debug)]
pub struct CustomAssertionBuilder {
    name: String,
    description: String,
}

impl CustomAssertionBuilder {
    /// Says in one sentence what must be true; this is the `expected` of every outcome.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> Self {
        self.description = text.into();
        self
    }

    /// The function that judges. `Err` says what it found instead.
    pub fn check(
        self,
        check: impl Fn(&Observation<'_>) -> Result<(), String> + Send + Sync + 'static,
    ) -> BrickAssertion {
        BrickAssertion::Custom(CustomAssertion {
            name: self.name,
            description: self.description,
            check: Arc::new(check),
        })
    }
}

/// Something that must be true of a brick's output.
#[derive(Debug, Clone)]
pub enum BrickAssertion {
    /// The output has these axes. A symbolic axis takes any size, the same symbol always the same one.
    Shape(Vec<Dim>),
    /// No NaN and no infinity.
    Finite,
    /// No NaN; infinities are allowed (masked logits are `-inf`).
    NoNan,
    /// Every value lies in `lo..=hi`.
    Range {
        /// Smallest value allowed.
        lo: f32,
        /// Largest value allowed.
        hi: f32,
    },
    /// The output agrees with the scalar reference: [`Divergence::error`] is at most `tolerance`.
    EquivScalar {
        /// Largest error allowed.
        tolerance: f64,
    },
    /// The measured time keeps the brick's budget.
    BudgetMet,
    /// Anything else.
    Custom(CustomAssertion),
}

impl BrickAssertion {
    /// The output has these axes.
    pub fn shape(dims: impl Into<Vec<Dim>>) -> Self {
        Self::Shape(dims.into())
    }

    /// No NaN and no infinity.
    pub const fn finite() -> Self {
        Self::Finite
    }

    /// No NaN.
    pub const fn no_nan() -> Self {
        Self::NoNan
    }

    /// Every value lies in `lo..=hi`.
    pub const fn range(lo: f32, hi: f32) -> Self {
        Self::Range { lo, hi }
    }

    /// The output agrees with the scalar reference within `tolerance`; see [`Divergence::error`] for the measure.
    pub const fn equiv_scalar(tolerance: f64) -> Self {
        Self::EquivScalar { tolerance }
    }

    /// The measured time keeps the brick's budget.
    pub const fn budget_met() -> Self {
        Self::BudgetMet
    }

    /// Starts a custom assertion.
    ///
    /// ```
    /// # use bricks::{BrickAssertion, Observation};
    /// let sums_to_one = BrickAssertion::new("sums_to_one")
    ///     .description("probabilities that sum to 1 within 1e-6")
    ///     .check(|seen: &Observation<'_>| {
    ///         let sum: f64 = seen.output.iter().map(|&p| f64::from(p)).sum();
    ///         if (sum - 1.0).abs() <= 1e-6 { Ok(()) } else { Err(format!("a sum of {sum}")) }
    ///     });
    /// assert_eq!(sums_to_one.name(), "sums_to_one");
    /// ```
    #[expect(clippy::new_ret_no_self, reason = "an assertion without a check is not one yet")]
    pub fn new(name: impl Into<String>) -> CustomAssertionBuilder {
        CustomAssertionBuilder { name: name.into(), description: "its check to hold".into() }
    }

    /// The name used in every report.
    pub fn name(&self) -> &str {
        match self {
            Self::Shape(_) => "shape",
            Self::Finite => "finite",
            Self::NoNan => "no_nan",
            Self::Range { .. } => "range",
            Self::EquivScalar { .. } => "equiv_scalar",
            Self::BudgetMet => "budget_met",
            Self::Custom(c) => &c.name,
        }
    }

    /// Judges one execution of a brick that has this budget.
    ///
    /// Without the thing to judge by (no reference, no time, no values) the verdict is
    /// [`NotEvaluated`](Verdict::NotEvaluated), never a pass.
    pub fn evaluate(&self, seen: &Observation<'_>, budget: &TokenBudget) -> AssertionOutcome {
        let (expected, judged) = match self {
            Self::Shape(dims) => (shape_name(dims), judge_shape(dims, seen)),
            Self::Finite => ("finite values".into(), judge_values(seen, f32::is_finite, "values, all finite")),
            Self::NoNan => ("no NaN".into(), judge_values(seen, |x| !x.is_nan(), "values, none NaN")),
            Self::Range { lo, hi } => {
                (format!("values in {lo}..={hi}"), judge_values(seen, |x| *lo <= x && x <= *hi, "values, all in range"))
            }
            Self::EquivScalar { tolerance } => {
                (format!("the scalar reference within {tolerance:e}"), judge_equivalence(*tolerance, seen))
            }
            Self::BudgetMet => (format!("at most {:.3} µs/token", budget.us_per_token()), judge_time(seen, budget)),
            Self::Custom(c) => (
                c.description.clone(),
                match (c.check)(seen) {
                    Ok(()) => Judged::Pass("as described".into()),
                    Err(actual) => Judged::Fail(actual),
                },
            ),
        };
        let (verdict, actual) = match judged {
            Judged::Pass(actual) => (Verdict::Pass, actual),
            Judged::Fail(actual) => (Verdict::Fail, actual),
            Judged::Not(reason) => (Verdict::NotEvaluated(reason.into()), "nothing to judge by".into()),
        };
        AssertionOutcome { name: self.name().to_owned(), verdict, expected, actual }
    }
}

enum Judged {
    Pass(String),
    Fail(String),
    Not(&'static str),
}

fn shape_name(dims: &[Dim]) -> String {
    let axes: Vec<String> = dims.iter().map(ToString::to_string).collect();
    format!("shape [{}]", axes.join(", "))
}

fn judge_shape(dims: &[Dim], seen: &Observation<'_>) -> Judged {
    let actual = format!("shape {:?} with {} values", seen.shape, seen.output.len());
    let volume = seen.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if dims.len() != seen.shape.len() || volume != Some(seen.output.len()) {
        return Judged::Fail(actual);
    }
    let fits = dims.iter().zip(seen.shape).all(|(dim, &size)| match dim {
        Dim::Fixed(n) => *n == size,
        symbol => dims.iter().zip(seen.shape).all(|(d, &s)| d != symbol || s == size),
    });
    if fits { Judged::Pass(actual) } else { Judged::Fail(actual) }
}

fn judge_values(seen: &Observation<'_>, good: impl Fn(f32) -> bool, praise: &str) -> Judged {
    if seen.output.is_empty() {
        return Judged::Not("the output has no values");
    }
    let bad = seen.output.iter().filter(|x| !good(**x)).count();
    match seen.output.iter().position(|&x| !good(x)) {
        None => Judged::Pass(format!("{} {praise}", seen.output.len())),
        Some(i) => Judged::Fail(format!("{} at index {i} ({bad} of {} values)", seen.output[i], seen.output.len())),
    }
}

fn judge_equivalence(tolerance: f64, seen: &Observation<'_>) -> Judged {
    let Some(reference) = seen.reference else { return Judged::Not("no reference was computed") };
    let Some(d) = Divergence::between(seen.output, reference) else {
        return Judged::Fail(format!("{} values, the reference has {}", seen.output.len(), reference.len()));
    };
    if seen.output.is_empty() {
        return Judged::Not("the output has no values");
    }
    // A tolerance of NaN accepts nothing.
    if d.error <= tolerance { Judged::Pass(d.to_string()) } else { Judged::Fail(d.to_string()) }
}

fn judge_time(seen: &Observation<'_>, budget: &TokenBudget) -> Judged {
    let Some(us) = seen.actual_us else { return Judged::Not("the execution was not timed") };
    let actual = format!("{us:.3} µs/token");
    // Also false for NaN; a negative time is a broken clock, not a fast brick.
    if us >= 0.0 && budget.is_met_by(us) { Judged::Pass(actual) } else { Judged::Fail(actual) }
}

/// A list of assertions that has at least one: a brick that asserts nothing cannot be built.
#[derive(Debug, Clone)]
pub struct Assertions(Vec<BrickAssertion>);

impl Assertions {
    /// A list of one.
    pub fn of(first: BrickAssertion) -> Self {
        Self(vec![first])
    }

    /// The list with one more.
    #[must_use]
    pub fn and(mut self, next: BrickAssertion) -> Self {
        self.0.push(next);
        self
    }
}

impl std::ops::Deref for Assertions {
    type Target = [BrickAssertion];

    fn deref(&self) -> &[BrickAssertion] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
