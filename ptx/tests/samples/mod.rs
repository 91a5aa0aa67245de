//! Kernels that show how the builder reads, and that the tests of text, validator and assembler share.

#![allow(dead_code)] // every test binary uses some of them

pub(crate) mod every_instruction;
pub(crate) mod gemm;
pub(crate) mod gemv;
pub(crate) mod quantize;
pub(crate) mod rms_norm;
pub(crate) mod split_sum;
pub(crate) mod vector_add;

use brick_ptx::ir::{Kernel, Target};

/// All samples, each with the target it needs.
pub(crate) fn all() -> Vec<(Kernel, Target)> {
    vec![
        (vector_add::kernel(), Target::Sm80),
        (rms_norm::kernel(false), Target::Sm80),
        (rms_norm::kernel(true), Target::Sm90),
        (quantize::kernel(), Target::Sm80),
        (gemv::kernel(), Target::Sm80),
        (gemm::kernel(), Target::Sm80),
        (split_sum::kernel(), Target::Sm80),
    ]
}
