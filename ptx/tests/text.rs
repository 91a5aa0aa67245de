//! Text of the samples, reviewed as text.

#![allow(clippy::unwrap_used)]

mod samples;

use brick_ptx::emit::emit;
use brick_ptx::ir::{Module, Target};
use brick_ptx::valid::validate;

#[test]
fn samples() {
    for (kernel, target) in samples::all() {
        let name = kernel.name.clone();
        let module = Module { kernels: vec![kernel] };
        validate(&module, target).unwrap();
        insta::assert_snapshot!(name, emit(&module, target).unwrap());
    }
}

#[test]
fn modules_hold_several_kernels() {
    let kernels = vec![samples::vector_add::kernel(), samples::gemm::kernel()];
    let module = Module { kernels };
    validate(&module, Target::Sm80).unwrap();
    let text = emit(&module, Target::Sm80).unwrap();
    assert_eq!(text.matches(".visible .entry").count(), 2);
    insta::assert_snapshot!("two_kernels", text);
}
