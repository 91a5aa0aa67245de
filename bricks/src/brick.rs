//! The contract every brick fulfils, and the wrapper that makes a brick of an operation.

use std::time::Instant;

use crate::assertion::{Assertions, BrickAssertion, Observation};
use crate::budget::{BudgetPolicy, TokenBudget, TokenResult};
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::verify::Verification;

/// One operation with a budget and assertions.
///
/// Object-safe: a registry or a report can hold bricks of any type. [`RunBrick`] adds execution, which needs typed values.
pub trait ComputeBrick: Send + Sync {
    /// Name of the brick type, unique among types (`qkv_proj`).
    fn name(&self) -> &'static str;

    /// The accounting category.
    fn kind(&self) -> BrickKind;

    /// How long it may take per token; positive and finite by construction.
    fn budget(&self) -> TokenBudget;

    /// What must be true of its output; at least one.
    fn assertions(&self) -> &Assertions;

    /// Bytes and operations of one call.
    fn cost(&self, extent: &Extent) -> Cost;

    /// Evaluates all assertions on one execution and reports on each.
    fn verify(&self, seen: &Observation<'_>) -> Verification {
        Verification::of(self.name(), self.assertions(), &self.budget(), seen)
    }
}

/// Values that assertions can look at.
pub trait Observe {
    /// The values, row-major.
    fn values(&self) -> &[f32];

    /// The shape, outermost axis first.
    fn shape(&self) -> Vec<usize>;
}

/// A brick that can be run on typed values.
///
/// The types of input and output say what the values are (normalised, rotated, …), so that a wrong order of bricks does not
/// compile; see [`catalog`](crate::catalog).
pub trait RunBrick: ComputeBrick {
    /// What it takes.
    type Input<'a>;
    /// What it computes.
    type Output: Observe;

    /// Computes, and times itself.
    ///
    /// # Errors
    /// [`BrickError`] if the input does not fit the brick. Never panics; NaN and infinities pass through to the output, where
    /// assertions see them. An exceeded budget is no error here: it is in the result.
    fn run(&self, input: Self::Input<'_>) -> Result<TokenResult<Self::Output>, BrickError>;

    /// [`run`](Self::run) under a policy: with [`Strict`](BudgetPolicy::Strict), an exceeded budget is an error.
    ///
    /// # Errors
    /// As `run`, and [`BrickError::BudgetExceeded`].
    fn run_under(&self, policy: BudgetPolicy, input: Self::Input<'_>) -> Result<TokenResult<Self::Output>, BrickError> {
        let result = self.run(input)?;
        enforce(policy, self.name(), &self.budget(), result.us_per_token)?;
        Ok(result)
    }
}

/// Judges a measured time under a policy.
pub(crate) fn enforce(
    policy: BudgetPolicy,
    brick: &str,
    budget: &TokenBudget,
    actual_us: f64,
) -> Result<(), BrickError> {
    match policy {
        BudgetPolicy::Off | BudgetPolicy::Report => Ok(()),
        BudgetPolicy::Strict if budget.is_met_by(actual_us) => Ok(()),
        BudgetPolicy::Strict => {
            Err(BrickError::BudgetExceeded { brick: brick.to_owned(), limit_us: budget.us_per_token(), actual_us })
        }
    }
}

/// What a brick computes, without budget and clock. [`Brick`] adds those.
pub trait ComputeOp: Send + Sync {
    /// What it takes.
    type Input<'a>;
    /// What it computes.
    type Output: Observe;

    /// Name of the brick type, unique among types.
    const NAME: &'static str;

    /// The accounting category.
    fn kind(&self) -> BrickKind;

    /// The budget unless another is given.
    fn default_budget(&self) -> TokenBudget;

    /// What must be true of the output.
    fn assertions(&self) -> Assertions;

    /// Tokens that an input stands for.
    fn tokens(input: &Self::Input<'_>) -> usize;

    /// Computes.
    ///
    /// # Errors
    /// [`BrickError`] if the input does not fit; must not panic.
    fn execute(&self, input: Self::Input<'_>) -> Result<Self::Output, BrickError>;

    /// Bytes and operations of one call.
    fn cost(&self, extent: &Extent) -> Cost;
}

/// An operation with a budget and assertions: a brick.
#[derive(Debug, Clone)]
pub struct Brick<O> {
    op: O,
    budget: TokenBudget,
    assertions: Assertions,
}

impl<O: ComputeOp> Brick<O> {
    /// A brick with the operation's own budget and assertions.
    pub fn from_op(op: O) -> Self {
        Self { budget: op.default_budget(), assertions: op.assertions(), op }
    }

    /// The same brick with another budget.
    #[must_use]
    pub fn with_budget(mut self, budget: TokenBudget) -> Self {
        self.budget = budget;
        self
    }

    /// The same brick with one more assertion.
    #[must_use]
    pub fn with_assertion(mut self, assertion: BrickAssertion) -> Self {
        self.assertions = self.assertions.and(assertion);
        self
    }

    /// What the brick computes.
    pub fn op(&self) -> &O {
        &self.op
    }

    pub(crate) fn op_mut(&mut self) -> &mut O {
        &mut self.op
    }
}

impl<O: ComputeOp> ComputeBrick for Brick<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn kind(&self) -> BrickKind {
        self.op.kind()
    }

    fn budget(&self) -> TokenBudget {
        self.budget
    }

    fn assertions(&self) -> &Assertions {
        &self.assertions
    }

    fn cost(&self, extent: &Extent) -> Cost {
        self.op.cost(extent)
    }
}

impl<O: ComputeOp> RunBrick for Brick<O> {
    type Input<'a> = O::Input<'a>;
    type Output = O::Output;

    fn run(&self, input: O::Input<'_>) -> Result<TokenResult<O::Output>, BrickError> {
        let tokens = O::tokens(&input);
        let start = Instant::now();
        let output = self.op.execute(input).map_err(|e| e.in_brick(O::NAME))?;
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(TokenResult::new(output, ns, tokens, &self.budget))
    }
}
