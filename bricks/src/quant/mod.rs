//! Quantised formats: weights as files store them, activations as integer kernels read them.
//!
//! | module | content |
//! | --- | --- |
//! | [`q8`] | activations: 8-bit codes, scale and code sums per 32 |

#![forbid(unsafe_code)]

mod error;
pub mod q8;

pub use error::QuantError;
