//! Quantised formats: weights as files store them, activations as integer kernels read them.
//!
//! Everything here is scalar and plain: it is the reference the kernels are held to. Weight formats are byte-exact with
//! ggml (GGUF): decoders give its f32 bits, encoders its bytes.
//!
//! | module | content |
//! | --- | --- |
//! | [`block`] | [`Parts`]: codes, scales and minimums, the form that all quantised formats decode to |
//! | [`float`](mod@float) | F32, F16, BF16 |
//! | [`simple`] | Q4_0, Q4_1, Q5_0, Q5_1, Q8_0: one scale per 32 |
//! | [`k`] | Q2_K, Q3_K, Q4_K, Q5_K, Q6_K: super-blocks of 256 with integer sub-scales |
//! | [`iq4`] | IQ4_NL, IQ4_XS: indices into a table |
//! | [`q8`] | activations: 8-bit codes, scale and code sums per 32 |
//! | [`dot`] | the yardstick of integer dot products |
//!
//! Every bit pattern decodes to something (a NaN for a scale gives NaN values): only lengths can be wrong.
//!
//! ```
//! use bricks::{DType, quant};
//!
//! let values: Vec<f32> = (0..64).map(|i| (i as f32 - 32.0) / 32.0).collect();
//! let mut bytes = vec![0; DType::Q8_0.row_bytes(64).unwrap()];
//! quant::encode_row(DType::Q8_0, &values, &mut bytes)?;
//!
//! let mut decoded = vec![0.0; 64];
//! quant::decode_row(DType::Q8_0, &bytes, &mut decoded)?;
//! assert!(values.iter().zip(&decoded).all(|(x, y)| (x - y).abs() < 1.0 / 127.0));
//!
//! // Against activations: the exact result that every kernel must meet.
//! let x = quant::q8::Q8Rows::from_values(64, &values)?;
//! let dot = quant::dot_reference(DType::Q8_0, &bytes, x.row(0).unwrap())?;
//! assert!((dot.value - values.iter().map(|v| f64::from(v * v)).sum::<f64>()).abs() < 0.1);
//! # Ok::<(), quant::QuantError>(())
//! ```

#![forbid(unsafe_code)]

pub mod block;
pub mod dot;
mod error;
pub mod float;
pub mod iq4;
pub mod k;
pub mod q8;
mod row;
pub mod simple;

pub use block::Parts;
pub use dot::{DotReference, dot_reference};
pub use error::QuantError;
pub use iq4::KVALUES_IQ4NL;
pub use row::{decode_row, encode_row, sub_block_len, unpack_row};
