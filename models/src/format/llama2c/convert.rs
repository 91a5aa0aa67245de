//! A checkpoint and a vocabulary as a GGUF file.

use bricks::{DType, quant};

use super::{Checkpoint, Kind, Llama2cError, Vocabulary};
use crate::arch::{WeightNames, WeightRole};
use crate::format::gguf::GgufWriter;

/// Epsilon of llama2.c's norms, which its files do not say.
const NORM_EPS: f32 = 1e-5;
/// Base of its rotary embedding, which they do not say either.
const ROPE_BASE: f32 = 1e4;

/// The model as a GGUF file of architecture `llama`: matrices in Q8_0 (F32 where 32 does not divide their rows), norm gains in
/// F32. The same input gives the same bytes on every machine.
///
/// # Errors
/// [`Llama2cError::NotFinite`] names the tensor that holds something that is no number.
pub fn to_gguf(
    name: &str,
    checkpoint: &Checkpoint<'_>,
    vocabulary: &Vocabulary,
) -> Result<GgufWriter<'static>, Llama2cError> {
    let c = checkpoint.config();
    let mut w = GgufWriter::new();
    w.set("general.architecture", "llama")
        .set("general.name", name)
        .set("general.file_type", 7_u32)
        .set("general.quantization_version", 2_u32)
        .set("llama.block_count", c.n_layers as u32)
        .set("llama.context_length", c.seq_len as u32)
        .set("llama.embedding_length", c.dim as u32)
        .set("llama.feed_forward_length", c.hidden_dim as u32)
        .set("llama.attention.head_count", c.n_heads as u32)
        .set("llama.attention.head_count_kv", c.n_kv_heads as u32)
        .set("llama.attention.layer_norm_rms_epsilon", NORM_EPS)
        .set("llama.rope.dimension_count", c.head_dim() as u32)
        .set("llama.rope.freq_base", ROPE_BASE)
        .set("tokenizer.ggml.model", "llama")
        .set_byte_strings("tokenizer.ggml.tokens", &vocabulary.tokens)
        .set("tokenizer.ggml.scores", vocabulary.scores.clone())
        .set("tokenizer.ggml.token_type", vocabulary.types.clone())
        .set("tokenizer.ggml.unknown_token_id", 0_u32)
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32)
        .set("tokenizer.ggml.add_bos_token", true)
        .set("tokenizer.ggml.add_eos_token", false)
        .set("tokenizer.ggml.add_space_prefix", true);
    let mut add = |role: WeightRole, layer: Option<usize>, kind: Kind, rows: usize, cols: usize| {
        let name = WeightNames::GGUF.name(role, layer.unwrap_or(0));
        let bytes = checkpoint.weights(kind, layer);
        finite(&name, bytes)?;
        if rows == 1 {
            w.tensor(&name, &[cols as u64], DType::F32, bytes.to_vec());
            return Ok(());
        }
        let (dtype, data) = matrix(&name, bytes, cols)?;
        w.tensor(&name, &[cols as u64, rows as u64], dtype, data);
        Ok(())
    };
    add(WeightRole::TokenEmbedding, None, Kind::Embedding, c.vocab_size, c.dim)?;
    for layer in (0..c.n_layers).map(Some) {
        add(WeightRole::AttnNorm, layer, Kind::AttnNorm, 1, c.dim)?;
        add(WeightRole::AttnQ, layer, Kind::Q, c.dim, c.dim)?;
        add(WeightRole::AttnK, layer, Kind::K, c.kv_dim(), c.dim)?;
        add(WeightRole::AttnV, layer, Kind::V, c.kv_dim(), c.dim)?;
        add(WeightRole::AttnOutput, layer, Kind::AttnOutput, c.dim, c.dim)?;
        add(WeightRole::FfnNorm, layer, Kind::FfnNorm, 1, c.dim)?;
        add(WeightRole::FfnGate, layer, Kind::Gate, c.hidden_dim, c.dim)?;
        add(WeightRole::FfnUp, layer, Kind::Up, c.hidden_dim, c.dim)?;
        add(WeightRole::FfnDown, layer, Kind::Down, c.dim, c.hidden_dim)?;
    }
    add(WeightRole::OutputNorm, None, Kind::FinalNorm, 1, c.dim)?;
    if !c.shared_classifier {
        add(WeightRole::Output, None, Kind::Classifier, c.vocab_size, c.dim)?;
    }
    Ok(w)
}

fn finite(name: &str, bytes: &[u8]) -> Result<(), Llama2cError> {
    let mut values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).enumerate();
    match values.find(|(_, v)| !v.is_finite()) {
        Some((index, found)) => Err(Llama2cError::NotFinite { tensor: name.to_owned(), index, found }),
        None => Ok(()),
    }
}

fn matrix(name: &str, bytes: &[u8], cols: usize) -> Result<(DType, Vec<u8>), Llama2cError> {
    if !cols.is_multiple_of(DType::Q8_0.block_len()) {
        return Ok((DType::F32, bytes.to_vec()));
    }
    // Whole blocks in every row: the matrix can be taken as one row.
    let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let mut out = vec![0; DType::Q8_0.row_bytes(values.len()).unwrap_or(0)];
    quant::encode_row(DType::Q8_0, &values, &mut out)
        .map_err(|reason| Llama2cError::Quantize { tensor: name.to_owned(), reason })?;
    Ok((DType::Q8_0, out))
}
