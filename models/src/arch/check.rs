//! What must be true of a specification, and of the tensors of the file it was read from.

use bricks::DType;

use super::family::{Family, QkvBias};
use super::{ArchError, ArchSpec, WeightNames, WeightRole};
use crate::format::gguf::{Gguf, TensorInfo};

/// A tensor that old converters wrote and that nothing reads: the frequencies follow from the metadata.
const REDUNDANT: &str = ".attn_rot_embd.weight";

impl ArchSpec {
    /// Checks the numbers against each other. Every specification that [`from_gguf`](Self::from_gguf) returns has passed.
    ///
    /// # Errors
    /// [`ArchError::Value`] names the field, what was expected and what was found.
    pub fn check(&self) -> Result<(), ArchError> {
        let value = |what: &str, expected: String, found: String| {
            Err(ArchError::Value { what: format!("{}.{what}", self.architecture), expected, found })
        };
        let sizes = [
            ("block_count", self.n_layers),
            ("embedding_length", self.hidden),
            ("attention.head_count", self.n_heads),
            ("attention.head_count_kv", self.n_kv_heads),
            ("attention.key_length", self.head_dim),
            ("feed_forward_length", self.ffn),
            ("vocab_size", self.vocab),
            ("context_length", self.context_length),
        ];
        for (what, size) in sizes {
            // 32 bits: products of two sizes fit 64.
            if size == 0 || u32::try_from(size).is_err() {
                return value(what, format!("1..={}", u32::MAX), size.to_string());
            }
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let expected = format!("a divisor of {} query heads", self.n_heads);
            return value("attention.head_count_kv", expected, self.n_kv_heads.to_string());
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            let expected = "a number between 0 and 1".to_owned();
            return value("attention.layer_norm_rms_epsilon", expected, self.norm_eps.to_string());
        }
        if !(self.rope.base.is_finite() && self.rope.base > 1.0) {
            return value("rope.freq_base", "a number above 1".to_owned(), self.rope.base.to_string());
        }
        if self.rope.dims == 0 || !self.rope.dims.is_multiple_of(2) || self.rope.dims > self.head_dim {
            let expected = format!("an even number up to the head's length {}", self.head_dim);
            return value("rope.dimension_count", expected, self.rope.dims.to_string());
        }
        if !(self.embedding_scale.is_finite() && self.embedding_scale > 0.0) {
            return value("embedding_scale", "a positive number".to_owned(), self.embedding_scale.to_string());
        }
        if self.sliding_window == Some(0) {
            return value("attention.sliding_window", "a positive number or none".to_owned(), "0".to_owned());
        }
        Ok(())
    }

    /// Checks the file's tensors against the specification.
    pub(super) fn check_tensors(&self, gguf: &Gguf, family: &Family) -> Result<(), ArchError> {
        // First what is there: a file with more or fewer layers than announced is told so, not that a tensor is missing.
        let mut layers = 0;
        let mut unknown = None;
        for t in gguf.tensors() {
            match WeightNames::GGUF.parse(&t.name) {
                // The optional output bias or a bias of K without one of Q land here as well.
                Some((role, _)) if !self.has(role) => unknown = unknown.or(Some(t)),
                Some((_, layer)) => layers = layers.max(layer.map_or(0, |l| l.saturating_add(1))),
                None if t.name.ends_with(REDUNDANT) => {}
                None => unknown = unknown.or(Some(t)),
            }
        }
        if layers != self.n_layers {
            let key = format!("{}.block_count", self.architecture);
            return Err(ArchError::Layers { key, expected: self.n_layers, found: layers });
        }
        // From here on the number of layers is bounded by the file's size.
        for (role, layer) in self.weights() {
            let tensor = gguf.require(&WeightNames::GGUF.name(role, layer))?;
            self.check_shape(role, tensor)?;
            let is_bias = matches!(role, WeightRole::AttnQBias | WeightRole::AttnKBias | WeightRole::AttnVBias);
            if is_bias && family.qkv_bias == QkvBias::Required && is_zero(gguf, tensor)? {
                return Err(ArchError::ZeroBias {
                    tensor: tensor.name.clone(),
                    role: role.description(),
                    architecture: self.architecture.clone(),
                });
            }
        }
        if let Some(t) = unknown {
            return Err(ArchError::UnknownTensor { tensor: t.name.clone(), architecture: self.architecture.clone() });
        }
        self.check_vocabulary(gguf)
    }

    fn check_shape(&self, role: WeightRole, tensor: &TensorInfo) -> Result<(), ArchError> {
        let (rows, cols) = self.weight_shape(role);
        let found = tensor.shape()?;
        // A matrix has two axes; more than two would have been folded into rows.
        let flat = tensor.dims.iter().skip(2).all(|d| *d == 1);
        if flat && (found.rows, found.cols) == (rows, cols) {
            return Ok(());
        }
        let expected = if rows == 1 { vec![cols as u64] } else { vec![rows as u64, cols as u64] };
        Err(ArchError::Shape {
            tensor: tensor.name.clone(),
            role: role.description(),
            expected,
            found: tensor.dims.iter().rev().copied().collect(),
        })
    }

    /// As many tokens as rows of the embedding: otherwise ids without text, or text without an embedding.
    fn check_vocabulary(&self, gguf: &Gguf) -> Result<(), ArchError> {
        const KEY: &str = "tokenizer.ggml.tokens";
        match gguf.metadata().opt_array_str(KEY)? {
            Some(tokens) if tokens.len() != self.vocab => Err(ArchError::Value {
                what: KEY.to_owned(),
                expected: format!("{} tokens, one per row of the token embedding", self.vocab),
                found: tokens.len().to_string(),
            }),
            _ => Ok(()),
        }
    }
}

/// Whether a vector holds nothing but zeros (of either sign).
fn is_zero(gguf: &Gguf, tensor: &TensorInfo) -> Result<bool, ArchError> {
    let bytes = gguf.bytes(tensor)?;
    // In every float format the sign is the top bit of the last byte; in quantised ones a zero scale makes zeros.
    let width = tensor.dtype.filter(|t| t.is_float()).map_or(1, DType::block_bytes);
    let magnitude = |(i, b): (usize, &u8)| if width > 1 && i % width == width - 1 { b & 0x7f } else { *b };
    Ok(bytes.iter().enumerate().map(magnitude).all(|b| b == 0))
}
