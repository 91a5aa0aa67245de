//! Architectures as data: everything that tells one decoder from another.
//!
//! [`ArchSpec::from_gguf`] reads a model's specification from a file and checks that the file's tensors are exactly those the
//! specification asks for. [`WeightNames`] says what each tensor is called and [`ArchSpec::weight_shape`] which shape it has.
//! Adding an architecture is adding a row to the table of families in `family.rs`, and a test against a reference.

#![forbid(unsafe_code)]

mod check;
mod error;
mod family;
mod read;
mod weights;

use bricks::{ActKind, RopeSpec};
use serde::{Deserialize, Serialize};

pub use error::ArchError;
pub use weights::{WeightNames, WeightRole};

/// A decoder-only transformer, read from a file's metadata. One graph builder serves every value of this type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchSpec {
    /// `general.architecture`: `llama`, `qwen2`, …
    pub architecture: String,
    /// `general.name`, if the file has one.
    pub name: Option<String>,
    /// Transformer layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Width of the feed-forward network.
    pub ffn: usize,
    /// Rows of the embedding table (taken from the tensor, not from metadata).
    pub vocab: usize,
    /// Longest context the model was trained for.
    pub context_length: usize,
    /// Inside the square root of every norm.
    pub norm_eps: f32,
    /// Rotary embedding.
    pub rope: RopeSpec,
    /// Whether Q, K and V projections have biases (mandatory for qwen2).
    pub qkv_bias: bool,
    /// Function of the gate.
    pub activation: ActKind,
    /// Whether the LM head is the embedding table.
    pub tied_embeddings: bool,
    /// Multiplies the embedding.
    pub embedding_scale: f32,
    /// Sliding window of attention, if any.
    pub sliding_window: Option<usize>,
}

impl ArchSpec {
    /// Names of the architectures that can be read.
    pub fn supported() -> impl Iterator<Item = &'static str> {
        family::FAMILIES.iter().map(|f| f.name)
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Parameters of the model, from its shapes. A tied LM head counts once, divisors of rotary frequencies do not count.
    pub fn n_parameters(&self) -> u64 {
        self.weights()
            .filter(|(role, _)| *role != WeightRole::RopeFreqs)
            .map(|(role, _)| self.weight_shape(role))
            .map(|(rows, cols)| rows as u64 * cols as u64)
            .sum()
    }
}
