//! Token budgets: how long a brick may take per token, and where that number comes from.

use serde::{Deserialize, Serialize};

/// Where a budget comes from. A budget without an origin is an opinion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetOrigin {
    /// Written down by a person (a budget file or a builder call).
    Explicit,
    /// Derived from the machine's measured limits and the brick's static cost.
    Roofline,
    /// Taken from an earlier recording.
    Baseline,
}

impl BudgetOrigin {
    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Roofline => "roofline",
            Self::Baseline => "baseline",
        }
    }
}

/// How long a brick may take per token: one number with two views, `µs/token` and `tok/s`, whose product is 10⁶.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct TokenBudget {
    us_per_token: f64,
    origin: BudgetOrigin,
}

/// A budget as a file has it, before it is checked.
#[derive(Deserialize)]
struct Written {
    us_per_token: f64,
    origin: BudgetOrigin,
}

impl TryFrom<Written> for TokenBudget {
    type Error = String;

    fn try_from(w: Written) -> Result<Self, String> {
        Self::from_latency(w.us_per_token, w.origin).ok_or_else(|| {
            format!("budget: expected a positive, finite number of microseconds, found {}", w.us_per_token)
        })
    }
}

impl TokenBudget {
    /// A budget from a latency in microseconds per token; `None` unless it and its inverse are finite and positive.
    pub fn from_latency(us_per_token: f64, origin: BudgetOrigin) -> Option<Self> {
        let finite = us_per_token.is_finite() && (1e6 / us_per_token).is_finite();
        (finite && us_per_token > 0.0).then_some(Self { us_per_token, origin })
    }

    /// A budget from a throughput in tokens per second; `None` unless finite and positive.
    pub fn from_throughput(tokens_per_sec: f64, origin: BudgetOrigin) -> Option<Self> {
        Self::from_latency(1e6 / tokens_per_sec, origin).filter(|_| tokens_per_sec.is_finite())
    }

    /// Latency view: microseconds per token.
    pub fn us_per_token(&self) -> f64 {
        self.us_per_token
    }

    /// Throughput view: tokens per second.
    pub fn tokens_per_sec(&self) -> f64 {
        1e6 / self.us_per_token
    }

    /// Where the number comes from.
    pub fn origin(&self) -> BudgetOrigin {
        self.origin
    }

    /// Whether a measured latency keeps this budget.
    pub fn is_met_by(&self, actual_us: f64) -> bool {
        actual_us <= self.us_per_token
    }

    /// `actual / budget`: above 1 the budget is exceeded by that factor.
    pub fn gap_factor(&self, actual_us: f64) -> f64 {
        actual_us / self.us_per_token
    }
}

/// What happens when a brick exceeds its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPolicy {
    /// Budgets are not looked at.
    Off,
    /// Violations appear in the report; nothing stops.
    #[default]
    Report,
    /// The first violation stops the line with an error.
    Strict,
}

/// The output of a brick together with what it cost.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenResult<T> {
    /// What the brick computed.
    pub output: T,
    /// Measured microseconds per token. Nanosecond resolution: never rounded to whole microseconds.
    pub us_per_token: f64,
    /// The same as tokens per second.
    pub tokens_per_sec: f64,
    /// Whether the brick's budget was kept.
    pub budget_met: bool,
}

impl<T> TokenResult<T> {
    /// Builds a result from a measured time.
    ///
    /// `elapsed_ns` of 0 (a clock too coarse for the brick) counts as half a nanosecond, so that the throughput stays finite.
    pub fn new(output: T, elapsed_ns: u64, tokens: usize, budget: &TokenBudget) -> Self {
        let ns = if elapsed_ns == 0 { 0.5 } else { elapsed_ns as f64 };
        let us_per_token = ns / 1e3 / tokens.max(1) as f64;
        Self { output, us_per_token, tokens_per_sec: 1e6 / us_per_token, budget_met: budget.is_met_by(us_per_token) }
    }
}
