//! Instructions of the kernels, counted and compared with what is on record.
//!
//! Times of a shared machine move by tens of per cent; the number of instructions that a call executes does not move at all. It
//! says nothing about caches and little about latencies, but a kernel that needs more instructions than yesterday has changed,
//! and the number of instructions per weight bounds what a core can do ([`Snapshot::table`]).
//!
//! | what | where |
//! | --- | --- |
//! | the calls that are counted | [`cases()`] |
//! | counting | [`callgrind`] |
//! | the record, `<level>.toml` beside `src`, and the comparison with it | [`Snapshot`] |
//! | the program | `src/main.rs` |
//!
//! Counts are of AVX2: valgrind translates no AVX-512 or AMX instruction and hides them from the program.

#![forbid(unsafe_code)]

pub mod callgrind;
pub mod cases;
mod snapshot;

pub use callgrind::{Count, CountError, Counts};
pub use cases::{Case, cases};
pub use snapshot::{Comparison, Difference, Entry, Snapshot, SnapshotError};

/// How this program was compiled: counts of other compilers or options differ for good reasons.
pub fn build() -> String {
    let flags = env!("BRICK_BUILD_FLAGS");
    let flags = if flags.is_empty() { String::new() } else { format!(", {flags}") };
    format!("{}, {}{flags}", env!("BRICK_BUILD_RUSTC"), env!("BRICK_BUILD_TARGET"))
}

/// Whether this program was compiled as the product is: in the release profile, optimised.
pub fn is_release() -> bool {
    env!("BRICK_BUILD_PROFILE") == "release/3" && !cfg!(debug_assertions)
}
