//! Performance gates: what must not change unnoticed, and verdicts that do not depend on the weather.
//!
//! Times of a shared machine move by tens of per cent between two runs of one program, so no time is on record here. Each tier
//! judges what it can judge:
//!
//! | tier | what | judged |
//! | --- | --- | --- |
//! | T0 | facts of graph, plan and bricks, on record in a [`Snapshot`] | exactly: another value fails ([`compare()`]) |
//! | T1 | instructions of a token under callgrind | within a limit, for the compiler on record ([`judge_instructions`]) |
//! | T2 | time of the candidate ÷ time of a base program, in turn, with the base twice as control | by intervals, three times over ([`paired`]) |
//! | T3 | fraction of the roofline | said; judged only on a machine that is declared quiet ([`roofline`]) |
//!
//! What cannot be judged is [`Verdict::Inconclusive`] or [`Verdict::Skipped`] with the reason, never a failure and never a pass.
//!
//! | module | content |
//! | --- | --- |
//! | `snapshot` | the recorded facts as data, their file |
//! | `compare` | recorded against found, T0 and T1 |
//! | `paired` | rounds of three arms, and what they say about every brick |
//! | `roofline` | measured times against the limits of the machine |
//! | `check` | one verdict, and all of them |
//! | `junit` | the same for CI servers; text and Markdown are in `report` |

mod check;
mod compare;
mod junit;
pub mod paired;
pub mod roofline;
mod snapshot;

#[cfg(test)]
mod tests;

pub use check::{Check, Measured, Report, Tier, Verdict};
pub use compare::{compare, judge_instructions};
pub use snapshot::{
    BrickFacts, Conditions, Facts, GraphFacts, Instructions, Limits, Moved, PlanFacts, Snapshot, SnapshotError,
    fold_name, layer_ranges,
};
