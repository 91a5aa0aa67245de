//! Every claim brick makes, as a test that can fail.
//!
//! A [`Claim`] is a statement with an experiment that could show it false. [`registry`] lists all claims, [`run`] makes the
//! experiments and gives the score [`Board`]. The words are Popper's: an experiment that could have falsified and did not has
//! *corroborated* its claim; nothing is ever proved.
//!
//! Three rules hold everywhere:
//!
//! 1. A skip is a skip. What cannot be tested on this machine is [`NotTestable`](Verdict::NotTestable), with the reason, and is
//!    counted apart.
//! 2. A panic inside an experiment falsifies.
//! 3. Evidence names what was measured in this very run, nothing else.
//!
//! The same claims run under `cargo test` (`tests/claims.rs`) and behind `brick falsify`.
//!
//! | module | content |
//! | --- | --- |
//! | [`claim`] | [`Claim`], [`Family`], [`Verdict`] |
//! | [`board`] | [`Board`]: text, Markdown, JSON |
//! | [`context`] | [`Context`]: the models that experiments share |
//! | [`runs`], [`program`] | running models in experiments; running the `brick` program |
//! | [`golden`] | what an independent engine says about the real model |
//! | [`synthetic`] | tiny models with random weights, and what an independent forward pass says about them |

#![forbid(unsafe_code)]

pub mod board;
pub mod claim;
mod claims;
pub mod context;
pub mod golden;
mod noise;
pub mod program;
pub mod runs;
pub mod synthetic;

pub use board::{Board, Entry, SCHEMA_VERSION, Score};
pub use claim::{Claim, Family, Outcome, Refusal, Verdict};
pub use claims::registry;
pub use context::Context;

/// The claims whose id, statement or family contains `filter`, in any case; all claims if it is empty.
pub fn select(filter: &str) -> Vec<Claim> {
    registry().into_iter().filter(|c| claim::matches(c, filter)).collect()
}

/// Makes the experiments of the claims that [`select`] finds.
pub fn run(filter: &str) -> Board {
    Board::of(&select(filter), &Context::from_env())
}
