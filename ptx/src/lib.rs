//! Kernels for NVIDIA GPUs: PTX text made in Rust, checked by `ptxas`, and executed in tests without a GPU.

#![forbid(unsafe_code)]

pub mod interp;
