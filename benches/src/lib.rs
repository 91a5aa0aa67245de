//! Measuring on machines that are never quiet.
//!
//! A wall-clock time on a shared machine says little: between two runs of the same program it moves by tens of per cent.
//! What survives is the **ratio** of two things measured in turn, in one process or one script, many times. This room holds
//!
//! | what | where |
//! | --- | --- |
//! | statistics of such ratios | [`stats`], which are the profiler's |
//! | instructions of the kernels, which no load moves | `counts/`, a crate of its own |
//! | criterion benches of the kernels, for relative work on one machine | `benches/kernels.rs` |
//! | what profiling costs, on against off in one process | `src/bin/overhead.rs` |
//! | brick and llama.cpp in turn | `peers/compare.py` |
//! | process start to first token, peak memory | `peers/startup.py` |
//! | raw data of runs, with the machine's set-up | `runs/<date>-<machine>/` |

#![forbid(unsafe_code)]

pub use brick_profiler::paired as stats;
