//! What happened: recording, statistics, budgets and reports.

#![forbid(unsafe_code)]

pub mod budget;
mod clock;
pub mod exec_graph;
pub mod machine;
pub mod profile;
mod record;
mod report;
mod stats;
mod step;
#[cfg(test)]
mod testing;

pub use budget::{BudgetTable, BudgetViolation, StepBudgets};
pub use clock::{Clock, ClockPrecision, ManualClock, TimeSource};
pub use exec_graph::ExecutionGraph;
pub use machine::Machine;
pub use profile::{Profile, ProfileInputs};
pub use record::{BrickProfiler, ForwardSample, NoRecord, PhaseTotals, Recorder, SyncMode, Work};
pub use report::{ReportOptions, Style};
pub use stats::{Summary, Totals};
pub use step::{Phase, StepInfo};
