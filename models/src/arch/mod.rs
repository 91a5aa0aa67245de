//! Architectures as data: everything that tells one decoder from another.

use bricks::{ActKind, RopeSpec};
use serde::{Deserialize, Serialize};

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
