//! Text of the samples, reviewed as text.

#![allow(clippy::unwrap_used)]

mod samples;

use brick_ptx::compile;
use brick_ptx::ir::{Module, Target};

#[test]
fn samples() {
    for (kernel, target) in samples::all() {
        let name = kernel.name.clone();
        let module = Module { kernels: vec![kernel] };
        insta::assert_snapshot!(name, compile(&module, target).unwrap());
    }
}

#[test]
fn modules_hold_several_kernels() {
    let kernels = vec![samples::vector_add::kernel(), samples::gemm::kernel()];
    let module = Module { kernels };
    let text = compile(&module, Target::Sm80).unwrap();
    assert_eq!(text.matches(".visible .entry").count(), 2);
    insta::assert_snapshot!("two_kernels", text);
}

#[test]
fn every_instruction() {
    for kernel in samples::every_instruction::kernels() {
        let name = format!("every_{}", kernel.name);
        insta::assert_snapshot!(name, compile(&Module { kernels: vec![kernel] }, Target::Sm80).unwrap());
    }
}
