//! One claim: a statement that can turn out false, and the experiment that would show it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::Serialize;

use crate::context::Context;

/// What a claim is about; the board is grouped by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// The contract of bricks (F001–F014, F002-X).
    Brick,
    /// Token budgets (F021, F022).
    Budget,
    /// What kernels and models compute (F041–F051).
    Backend,
    /// Kernels of GPUs, and models on them (F061–F073, F090).
    Gpu,
    /// The profiler (F101-P–F110-P).
    Profiler,
    /// The execution graph (F111-G–F127-G).
    ExecutionGraph,
    /// Tracing of values (F250–F275, F-STRUCT).
    Tracing,
    /// Time by level of the memory hierarchy (F371–F378).
    Tile,
    /// Scores, and that profiles are measured (M011–M020, F-PROF).
    Scoring,
    /// The live view and its report (M001–M010, H001–H010, F-CBTOP, F-PROF-006, F-PROFILE-004, R001, QC-07, QC-12, CI).
    LiveView,
    /// Structure of loaded models (SF-1–SF-6).
    Structure,
    /// Mistakes that others made and that must not come back (TRAP-01–TRAP-31).
    Trap,
    /// How speed is judged (F085, F087).
    Performance,
}

impl Family {
    /// Every family, in the order of the board.
    pub const ALL: [Family; 13] = [
        Self::Brick,
        Self::Budget,
        Self::Backend,
        Self::Gpu,
        Self::Profiler,
        Self::ExecutionGraph,
        Self::Tracing,
        Self::Tile,
        Self::Scoring,
        Self::LiveView,
        Self::Structure,
        Self::Trap,
        Self::Performance,
    ];

    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brick => "brick contract",
            Self::Budget => "token budgets",
            Self::Backend => "backend correctness",
            Self::Gpu => "GPU kernels",
            Self::Profiler => "profiler",
            Self::ExecutionGraph => "execution graph",
            Self::Tracing => "value tracing",
            Self::Tile => "tiles",
            Self::Scoring => "scores",
            Self::LiveView => "live view",
            Self::Structure => "model structure",
            Self::Trap => "correctness traps",
            Self::Performance => "performance gates",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The outcome of an experiment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The experiment ran and could have shown the claim false; it did not.
    Corroborated {
        /// What was observed, with numbers where there are any.
        evidence: String,
    },
    /// The experiment ran and the claim does not hold.
    Falsified {
        /// What the claim asks for.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The experiment could not be made here. Not a pass.
    NotTestable {
        /// What is missing.
        reason: String,
    },
}

impl Verdict {
    /// The word used in every report.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Corroborated { .. } => "corroborated",
            Self::Falsified { .. } => "FALSIFIED",
            Self::NotTestable { .. } => "not testable",
        }
    }

    /// Whether the experiment ran and the claim held.
    pub const fn is_corroborated(&self) -> bool {
        matches!(self, Self::Corroborated { .. })
    }

    /// Whether the claim was shown false.
    pub const fn is_falsified(&self) -> bool {
        matches!(self, Self::Falsified { .. })
    }
}

/// Why an experiment did not corroborate its claim.
///
/// Any error converts to [`Refusal::Falsified`], so that experiments can use `?`: an error where none belongs falsifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The claim does not hold.
    Falsified {
        /// What the claim asks for.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The experiment cannot be made here.
    NotTestable(String),
}

impl Refusal {
    /// The claim does not hold.
    pub fn falsified(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Falsified { expected: expected.into(), found: found.into() }
    }

    /// The experiment cannot be made here.
    pub fn not_testable(reason: impl Into<String>) -> Self {
        Self::NotTestable(reason.into())
    }
}

// `Refusal` itself is no `Error`, or this would overlap with the reflexive conversion.
impl<E: std::error::Error> From<E> for Refusal {
    fn from(e: E) -> Self {
        let mut found = format!("the error: {e}");
        let mut source = e.source();
        while let Some(s) = source {
            let s_text = s.to_string();
            // Transparent errors repeat what they wrap.
            if !found.ends_with(&s_text) {
                found.push_str(": ");
                found.push_str(&s_text);
            }
            source = s.source();
        }
        Self::falsified("no error", found)
    }
}

/// What an experiment returns: the evidence, or why there is none.
pub type Outcome = Result<String, Refusal>;

/// Goes on if `holds`, else falsifies.
///
/// # Errors
/// [`Refusal::Falsified`] unless `holds`.
pub fn require(holds: bool, expected: impl Into<String>, found: impl FnOnce() -> String) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::falsified(expected, found())) }
}

/// Goes on if both are equal, else falsifies.
///
/// # Errors
/// [`Refusal::Falsified`] with both values.
pub fn require_eq<T: PartialEq + fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), Refusal> {
    require(found == expected, format!("{what}: {expected:?}"), || format!("{found:?}"))
}

/// The value, or falsification by its absence.
///
/// # Errors
/// [`Refusal::Falsified`] if there is none.
pub fn require_some<T>(value: Option<T>, expected: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::falsified(expected, "none"))
}

/// A statement that can turn out false, and the experiment that would show it.
#[derive(Clone, Copy)]
pub struct Claim {
    /// Unique id, that of the catalogue of claims.
    pub id: &'static str,
    /// The statement, as one sentence.
    pub statement: &'static str,
    /// What it is about.
    pub family: Family,
    /// Where the line between true and false is.
    pub threshold: &'static str,
    /// The experiment.
    pub check: fn(&Context) -> Outcome,
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("id", &self.id).field("statement", &self.statement).finish_non_exhaustive()
    }
}

impl Claim {
    /// Makes the experiment. A panic in it falsifies the claim.
    pub fn judge(&self, context: &Context) -> Verdict {
        // The context is a cache of read-only models: a panic cannot leave it half-written.
        match catch_unwind(AssertUnwindSafe(|| (self.check)(context))) {
            Ok(Ok(evidence)) => Verdict::Corroborated { evidence },
            Ok(Err(Refusal::Falsified { expected, found })) => Verdict::Falsified { expected, found },
            Ok(Err(Refusal::NotTestable(reason))) => Verdict::NotTestable { reason },
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                let text = text.unwrap_or_else(|| "without a message".into());
                Verdict::Falsified { expected: "no panic".into(), found: format!("a panic: {text}") }
            }
        }
    }
}

/// Whether an id, statement or family name contains `filter`, in any case. An empty filter fits everything.
pub(crate) fn matches(claim: &Claim, filter: &str) -> bool {
    let filter = filter.to_lowercase();
    [claim.id, claim.statement, claim.family.name()].iter().any(|text| text.to_lowercase().contains(&filter))
}
