//! Kernels for NVIDIA GPUs: PTX text made in Rust, checked by `ptxas`, and executed in tests without a GPU.
//!
//! A kernel is written once, with the [builder](build), as a function of Rust. The [validator](valid) finds what cannot
//! work on any GPU: a barrier that some threads do not reach, a vector load that is not aligned, a register that a path
//! leaves unset. What passes becomes [text](emit), which is committed as a snapshot; the [assembler](ptxas) says what it
//! takes on each architecture, and that is committed, too. No step needs a GPU, nvcc or C++.
//!
//! | module | what |
//! | --- | --- |
//! | [`ir`] | kernels as plain data: registers, instructions, structured control flow |
//! | [`build`] | typed builder that kernels are written with |
//! | [`valid`] | checks, and the facts of registers they rest on: uniformity, alignment, origin |
//! | [`stamp`] | the same kernel with a record per block of when and where it ran |
//! | [`emit`] | PTX text |
//! | [`ptxas`] | registers, spills and machine code of a text, by NVIDIA's assembler |
//! | [`kernels`] | the kernels that ship, and what they are launched with |
//! | [`interp`] | runs the text: results, faults (bounds, races, deadlocks) with line and lane, and counts |
//!
//! [`compile`] is the way from a module to its text:
//!
//! ```
//! use brick_ptx::build::{F32, KernelBuilder};
//! use brick_ptx::ir::{Access, Module, Target, Threads};
//!
//! let k = KernelBuilder::new("scale");
//! k.about("y[i] = a x[i] for i < n.");
//! k.threads(Threads::UpTo(256));
//! let x = k.param_ptr::<F32>("x", Access::Read, 4);
//! let y = k.param_ptr::<F32>("y", Access::Write, 4);
//! let a = k.param_f32("a");
//! let n = k.param_u32("n");
//!
//! let i = k.mad(k.ctaid(), k.ntid(), k.tid());
//! k.if_(k.lt(i, n), || {
//!     let x = k.ld(k.index(x, i));
//!     k.st(k.index(y, i), k.mul(x, a));
//! });
//!
//! let module = Module { kernels: vec![k.finish()] };
//! let text = brick_ptx::compile(&module, Target::Sm80)?;
//! assert!(text.contains("st.global.f32 [%rd4], %f3;"));
//! # Ok::<(), brick_ptx::CompileError>(())
//! ```
//!
//! Text for [`Target::Sm80`](ir::Target::Sm80) runs on everything since; text for [`Target::Sm90`](ir::Target::Sm90) may use
//! programmatic dependent launch. Results are to be the same on all of them, so sums and products of floats are never
//! left to the assembler to contract.

#![forbid(unsafe_code)]

pub mod build;
pub mod emit;
pub mod interp;
pub mod ir;
pub mod kernels;
pub mod ptxas;
pub mod stamp;
pub mod valid;

/// Why a module does not become text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// It is not valid.
    #[error(transparent)]
    Invalid(#[from] valid::ValidError),
    /// It has no text.
    #[error(transparent)]
    Emit(#[from] emit::EmitError),
}

/// Validates a module and writes its text.
///
/// # Errors
/// [`CompileError`] says what is wrong, in which kernel, and on which line of Rust.
pub fn compile(module: &ir::Module, target: ir::Target) -> Result<String, CompileError> {
    valid::validate(module, target)?;
    Ok(emit::emit(module, target)?)
}
