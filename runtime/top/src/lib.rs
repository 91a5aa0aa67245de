//! The live view of a recording: what `brick top` shows, how it travels between processes, how it is drawn and reported.
//!
//! Everything that is shown comes from one type, [`Snapshot`]: what a recorder knew at one moment. It is made from a
//! [`brick_profiler::Profile`], so its figures are those of every other report, and each sits in a group named `measured` or
//! `derived`.
//!
//! ```text
//! engine → Live (a Recorder) → Profile → Snapshot ─┬→ ui: a terminal
//!                                │                 ├→ Report: text and JSON, thresholds
//!                                └── socket ───────┘  the same from another process
//! ```
//!
//! | module | content |
//! | --- | --- |
//! | [`snapshot`] | [`Snapshot`] and its rows |
//! | [`live`] | [`Live`](live::Live), the recorder that is looked at while it records |
//! | [`wire`] | frames as lines of JSON, and their errors |
//! | [`socket`] | publishing frames to other processes of the user, and attaching to them (Unix) |
//! | [`checks`] | what must be true of a recording, and whether it is |
//! | [`advice`] | what to look at next, from figures of the recording |
//! | [`report`] | the headless report: thresholds, JSON, text |
//! | [`ui`] | views as pure functions of a snapshot, the keys pressed so far and an area |

#![forbid(unsafe_code)]

pub mod advice;
pub mod checks;
pub mod live;
pub mod report;
pub mod snapshot;
pub mod socket;
#[cfg(test)]
mod testing;
pub mod ui;
pub mod wire;

pub use snapshot::{NoData, Snapshot};
