//! Kernels for the processor, with run-time dispatch between portable Rust, AVX2 and AVX-512 VNNI.

#[cfg(target_endian = "big")]
compile_error!("kernels read the little-endian blocks of model files in place");

mod error;
mod level;
pub mod linear;
pub mod probe;
mod simd;

pub use error::KernelError;
pub use level::{SimdLevel, UnknownLevel};
