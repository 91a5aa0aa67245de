//! Kernels for the processor, with run-time dispatch between portable Rust, AVX2 and AVX-512 VNNI.

mod level;
pub mod probe;

pub use level::{SimdLevel, UnknownLevel};
