//! Parts of a [`super::Profile`] that not every recording has.

use serde::{Deserialize, Serialize};

use crate::budget::Resource;
use crate::stats::Summary;

/// Least time physics allows, and how near the measured time comes to it. Derived.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundShare {
    /// Least time in µs per token: bytes ÷ bandwidth or operations ÷ peak, whichever is more, without barrier and efficiency.
    pub us_per_token: f64,
    /// The resource that demands it. For a kind: the one that demands most of its bricks together.
    pub resource: Resource,
    /// Least time ÷ measured mean: 1 is the roofline; above it the limit or the count is wrong.
    pub fraction: f64,
}

/// Times of the gang's threads in a brick or kind, by thread. Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadsMeasured {
    /// Until the thread had no work left, per thread, in µs over all calls.
    pub busy_us: Vec<f64>,
    /// From then until all threads had none left.
    pub wait_us: Vec<f64>,
}

impl ThreadsMeasured {
    /// Fraction of the threads' time that went into waiting for the slowest. Derived.
    pub fn wait_share(&self) -> f64 {
        let (busy, wait): (f64, f64) = (self.busy_us.iter().sum(), self.wait_us.iter().sum());
        if busy + wait > 0.0 { wait / (busy + wait) } else { 0.0 }
    }
}

/// One thread of the gang over all steps of a phase. Measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadRow {
    /// Its number; 0 is the leader, the caller's own thread.
    pub thread: usize,
    /// Time with work.
    pub busy_us: f64,
    /// Time at barriers.
    pub wait_us: f64,
}

/// The forward calls of one batch size. Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRow {
    /// Tokens of the call: rows of a prompt, or sequences decoded together.
    pub tokens: u64,
    /// Calls whose times are kept.
    pub forwards: u64,
    /// Their wall time per token.
    pub us_per_token: Summary,
}

/// One forward call. Measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardRow {
    /// When it began, counted from the beginning of the first call that is kept, of any phase.
    pub begin_us: f64,
    /// How long it took.
    pub wall_us: f64,
    /// From its end to the beginning of the next call; 0 for the last.
    pub gap_us: f64,
    /// Tokens.
    pub tokens: u64,
    /// Key positions that existed after the call.
    pub context: u64,
    /// Time of each step, in the order of `steps`; of each run of steps of one layer, in the order of `layers`, where steps were not
    /// timed. `null`: did not run.
    pub steps_us: Vec<Option<f64>>,
}

/// Hardware counters of all threads. What the processor or the system does not count is `None`, never 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Clock cycles.
    pub cycles: Option<u64>,
    /// Instructions that were carried out.
    pub instructions: Option<u64>,
    /// Accesses that the last cache could not serve.
    pub cache_misses: Option<u64>,
    /// Why there is none of them, or not all.
    pub unavailable: Option<String>,
}

/// Times of a kind per forward call: `[upper end of a bucket in ns, calls in it]`, ascending, without empty buckets. Every call that was
/// recorded is in it, to within 1 %.
pub type Histogram = Vec<(u64, u64)>;
