//! The kernels that ship: a registry, and one file or directory per family.
//!
//! Every kernel is a function of Rust that writes it with the [builder](crate::build), a helper that computes its launch from
//! shapes and refuses what the kernel cannot do, and an [`Entry`] here, with a small launch that tests execute in the
//! [interpreter](crate::interp) and that its ceiling is derived from.
//!
//! | module | what |
//! | --- | --- |
//! | [`gemv`] | matrix times 1 to 8 vectors, with stores, gated activation, rounding or arg-max behind it |
//! | [`gemm`] | matrix times many vectors: prompts |
//! | [`quantize`] | activations to 8-bit codes, or to bfloat16 |
//! | [`embed`] | rows of the embedding table |
//! | [`norm`] | RMSNorm, to f32 or to 8-bit codes |
//! | [`angles`], [`rope_kv`] | rotary position embedding; bias, and the write to the KV cache |
//! | [`attention`], [`attention_prefill`] | attention over the cache, of single rows (also with rotation and the write to the cache) and of runs of rows |
//! | [`elementwise`] | residual, gated activation |
//! | [`heads`] | heads without padding; rows by their index |
//! | [`argmax`], [`sample`] | the largest logit; the k largest, and probabilities |
//! | [`step`], [`advance_angles`] | what a step needs to know, in device memory, and moving it on, also with the next angles |
//! | [`kv`] | the paged KV cache |
//! | [`format`](mod@format), [`pack`], [`activation`] | formats of weights, and the planes that kernels read |
//! | [`calibrate`] | rates of a GPU, to be measured |
//! | [`ceiling`] | which limit of a GPU binds a kernel, derived from counts |
//! | [`launch`] | grid, block and dynamic shared memory of a launch; why a shape is refused |
//! | [`workload`] | a small launch with seeded data, and the work it cannot do without |

pub mod activation;
pub mod advance_angles;
pub mod angles;
pub mod argmax;
mod arrive;
pub mod attention;
pub mod attention_prefill;
pub mod calibrate;
pub mod ceiling;
pub mod elementwise;
pub mod embed;
pub mod format;
pub mod gemm;
pub mod gemv;
pub mod heads;
pub mod kv;
pub mod launch;
pub mod norm;
pub mod pack;
mod q8;
pub mod quantize;
pub mod rope_kv;
pub mod sample;
pub mod step;
pub mod workload;

use crate::interp::{Checks, Module, Schedule};
use crate::ir::{self, Target};

pub use format::Format;
pub use launch::{Dims, ShapeError};
pub use workload::{Run, RunError, Workload};

/// A kernel that ships.
pub struct Entry {
    /// Name of the kernel in the text: `gemv_q4_k_b1`.
    pub name: String,
    /// What it computes, in a line.
    pub about: &'static str,
    /// The oldest target it is written for.
    pub oldest: Target,
    /// Makes the kernel for a target that is not older than [`oldest`](Self::oldest).
    pub build: Box<dyn Fn(Target) -> ir::Kernel + Send + Sync>,
    /// A small launch: what tests run and the ceiling is derived from.
    pub workload: Workload,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("name", &self.name).field("oldest", &self.oldest).finish_non_exhaustive()
    }
}

impl Entry {
    /// The text of the kernel alone, for [`oldest`](Self::oldest).
    ///
    /// # Errors
    /// [`CompileError`](crate::CompileError) if the kernel is not valid; the tests make sure that none is.
    pub fn text(&self) -> Result<String, crate::CompileError> {
        let module = ir::Module { kernels: vec![(self.build)(self.oldest)] };
        crate::compile(&module, self.oldest)
    }

    /// Runs the workload in the interpreter.
    ///
    /// # Errors
    /// [`RunError`] if the kernel is not valid, is not in the interpreter's subset, or breaks a rule.
    pub fn run(&self, schedule: Schedule, checks: Checks) -> Result<Run, RunError> {
        let module = Module::parse(&self.text()?).map_err(RunError::Parse)?;
        self.workload.run(&module, &self.name, schedule, checks)
    }
}

/// What a kernel gives for a shape of an entry.
fn known<T>(shape: Result<T, ShapeError>) -> T {
    shape.expect("invariant: entries are made for shapes that their kernels take")
}

/// All kernels that ship, in the order of their families.
pub fn all() -> Vec<Entry> {
    [
        quantize::entries(),
        gemv::entries(),
        gemm::entries(),
        embed::entries(),
        norm::entries(),
        angles::entries(),
        rope_kv::entries(),
        attention::entries(),
        attention_prefill::entries(),
        elementwise::entries(),
        heads::entries(),
        argmax::entries(),
        sample::entries(),
        step::entries(),
        advance_angles::entries(),
        calibrate::entries(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
