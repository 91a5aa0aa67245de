//! The text of one kernel per family, to be read.

#![allow(clippy::unwrap_used)]

use brick_ptx::kernels;

#[test]
fn representatives() {
    let all = kernels::all();
    for name in ["gemv_q4_k_b1", "gemv_argmax_f16_b1", "gemv_mma_q8_0_b8", "gemm_q4_k", "quantize_q8", "round_bf16"] {
        let entry = all.iter().find(|entry| entry.name == name).unwrap();
        insta::assert_snapshot!(name, entry.text().unwrap());
    }
}

#[test]
fn names_are_unique_and_every_kernel_compiles_for_every_target() {
    let mut names: Vec<String> = kernels::all().into_iter().map(|entry| entry.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), kernels::all().len());
    for target in brick_ptx::ir::Target::ALL {
        let kernels = kernels::all().iter().filter(|e| e.oldest <= target).map(|entry| (entry.build)(target)).collect();
        brick_ptx::compile(&brick_ptx::ir::Module { kernels }, target).unwrap_or_else(|e| panic!("{e}"));
    }
}
