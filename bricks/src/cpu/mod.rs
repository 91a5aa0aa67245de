//! Kernels for the processor, with run-time dispatch between portable Rust, AVX2, AVX-VNNI, AVX-512 VNNI and AMX,
//! or NEON, its dot products and its matrix products.
//!
//! | module | content |
//! | --- | --- |
//! | [`SimdLevel`] | which instruction set; asked of the processor once |
//! | [`linear`] | matrices (all weight types, packed in the file's size) times activations |
//! | [`attention`] | attention over paged keys and values, f16 or q8_0 |
//! | rows | [`rms_norm_row`], [`add_row`], [`gated_activation`], [`argmax`], [`rope_row`], [`quantize_row`], [`embed_row`], conversions |
//! | [`gang`] | the threads that share a kernel's rows: crate `brick-gang` |
//! | [`TickCounter`] | the processor's own clock |
//! | [`probe`] | micro-kernels that reach the processor's peaks, to measure them |
//!
//! Kernels compute; they know nothing of threads, buffers or graphs. None allocates or locks. Every kernel gives **the same
//! bits at every level**, and for a given output always the same, whatever else the call computes; a level is a matter of
//! speed only. Each call checks lengths once, at its entry, and reports contradictions as a [`KernelError`].
//!
//! A kernel asked for a level that the processor does not have runs at the highest it has.

#[cfg(target_endian = "big")]
compile_error!("kernels read the little-endian blocks of model files in place");

pub mod attention;
mod counter;
mod embed;
mod error;
mod level;
pub mod linear;
mod math;
pub mod probe;
mod rope;
mod rows;
mod simd;
#[cfg(target_arch = "x86_64")]
mod tiles;

pub use brick_gang as gang;
pub use counter::TickCounter;
pub use embed::embed_row;
pub use error::KernelError;
pub use level::{SimdLevel, UnknownLevel};
pub use rope::rope_row;
pub use rows::{
    add_row, argmax, f16_to_f32, f32_to_f16, gated_activation, gated_activation_in_place, largest, quantize_row,
    rms_norm_row, softcap_row,
};
