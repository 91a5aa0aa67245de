//! Execution: warps, blocks and the schedule that interleaves them.

mod atomic;
mod barrier;
mod block;
mod convert;
mod copy;
mod float;
mod int;
mod launch;
mod matrix;
mod memory;
mod regs;
mod schedule;
mod shuffle;
mod step;
mod warp;

pub(crate) use launch::{Plan, run};
pub use schedule::Schedule;
pub(crate) use warp::Geometry;
