//! What happened: recording, statistics, budgets and reports.

#![forbid(unsafe_code)]

mod clock;
mod record;
mod stats;
mod step;
#[cfg(test)]
mod testing;

pub use clock::{Clock, ClockPrecision, ManualClock, TimeSource};
pub use record::{BrickProfiler, ForwardSample, NoRecord, PhaseTotals, Recorder, SyncMode, Work};
pub use stats::{Summary, Totals};
pub use step::{Phase, StepInfo};
