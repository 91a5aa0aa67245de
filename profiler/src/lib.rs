//! What happened: recording, statistics, budgets and reports.

#![forbid(unsafe_code)]

mod recorder;
mod step;

pub use recorder::{NoRecord, Recorder};
pub use step::{Phase, StepInfo};
