//! What happened: recording, statistics, budgets and reports.
//!
//! A scheduler is generic over [`Recorder`]. With [`NoRecord`] nothing is compiled in; with [`BrickProfiler`] each step of a
//! plan costs one clock read and one store. What was recorded becomes a [`Profile`]: a documented JSON in which every figure
//! is either *measured* or *derived* and says which.
//!
//! ```
//! use brick_profiler::profile::{BuildInfo, ModelInfo, RunInfo};
//! use brick_profiler::{BrickProfiler, Clock, Phase, Profile, ProfileInputs, Recorder, ReportOptions, StepInfo};
//! use bricks::{BrickKind, BudgetPolicy, Extent, Op, PortType, Rows};
//!
//! let steps = [StepInfo {
//!     name: "blk.0.residual".into(),
//!     kind: BrickKind::Residual,
//!     layer: Some(0),
//!     kernel: "add_scalar".into(),
//!     bricks: vec![0],
//!     op: Op::Add,
//!     inputs: vec![PortType::rows(Rows::All, 576); 2],
//!     weights: vec![],
//! }];
//! let mut profiler = BrickProfiler::new(&steps, 1024);
//! for position in 1..=3 {
//!     profiler.begin_forward(&Extent::one_sequence(1, position, 1), Phase::Decode);
//!     profiler.step_done(0);
//!     profiler.end_forward();
//! }
//! let profile = Profile::new(&mut profiler, ProfileInputs {
//!     model: ModelInfo { name: "example".into(), ..ModelInfo::default() },
//!     build: BuildInfo::current(),
//!     run: RunInfo { backend: "cpu scalar".into(), threads: 1, sequences: 1, ..RunInfo::default() },
//!     clock: Clock::precision(),
//!     machine: None,
//!     budgets: None,
//!     policy: BudgetPolicy::Report,
//!     counters: None,
//!     timeline: Profile::TIMELINE,
//!     intervals: true,
//! });
//! assert_eq!(profile.phases[0].measured.forwards, 3);
//! println!("{}", profile.to_text(&ReportOptions::default()));
//! ```
//!
//! | where | what |
//! | --- | --- |
//! | [`Recorder`], [`BrickProfiler`], [`SyncMode`] | the hook in the scheduler, and what fills it |
//! | [`Clock`], [`Totals`], [`Summary`] | nanoseconds and what is computed from them |
//! | [`machine`] | measured limits of this computer |
//! | [`budget`] | budgets from those limits, from a file, from an earlier profile |
//! | [`profile`] | the recording as data; its JSON Schema |
//! | [`Style`], [`ReportOptions`], [`format`](mod@format) | the same as text and Markdown |
//! | [`exec_graph`] | what called, contained and launched what |
//! | [`Profile::to_html`], [`Profile::to_chrome_trace`], … | the same for browsers, trace viewers, flame graphs |
//! | [`diff`], [`paired`] | two profiles side by side; ratios of pairs and their intervals |
//! | [`score`], [`tiles`] | points and grades; time by level of the memory hierarchy |
//! | [`gate`] | performance gates: recorded facts, paired ratios, verdicts |
//! | [`trace`] | the values of forward calls: activations, attention, logits, rounding errors |

#![forbid(unsafe_code)]

pub mod budget;
mod clock;
pub mod diff;
pub mod exec_graph;
mod export;
pub mod gate;
pub mod machine;
pub mod profile;
mod record;
mod report;
pub mod score;
mod stats;
mod step;
#[cfg(test)]
mod testing;
pub mod tiles;
pub mod trace;

pub use budget::{BudgetTable, BudgetViolation, StepBudgets};
pub use clock::{Clock, ClockPrecision, ManualClock, TimeSource};
pub use exec_graph::ExecutionGraph;
pub use export::ExportError;
pub use machine::Machine;
pub use profile::{Profile, ProfileInputs};
pub use record::{
    Arrivals, BrickProfiler, ForwardSample, NoRecord, PhaseTotals, Recorder, Stamps, SyncMode, ThreadTime, Work,
};
pub use report::{ReportOptions, Style, format};
pub use stats::{Summary, Totals, paired};
pub use step::{Phase, StepInfo};
