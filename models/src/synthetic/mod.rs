//! Models without weights from anywhere: the sizes of published models, filled with random numbers.
//!
//! They cost what real models cost, so that speed, memory and plans can be looked at where no weights are; what they say means
//! nothing. The same [`Synthetic`] has the same bytes on every machine and with any number of threads.
//!
//! ```
//! use std::sync::Arc;
//! use brick_models::synthetic::Synthetic;
//!
//! let model: Synthetic = "tiny:q4_k_m".parse()?;
//! assert_eq!(model.to_string(), "synthetic:tiny:q4_k_m");
//! let gguf = Arc::new(model.gguf()?);
//! assert_eq!(gguf.metadata().get_str("general.name")?, "synthetic:tiny:q4_k_m");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing is made before it is read ([`Gguf::generated`]): a graph costs nothing but the vocabulary, and an engine makes
//! every matrix while it packs it. Values are scaled as at the beginning of training: a standard deviation of 1 / √columns, and
//! of projections back into the residual stream 1 / √(2 · layers) of that, so that activations stay near 1 in all layers and
//! logits have a standard deviation near 1. Norm gains are near 1, biases near 0. The vocabulary holds the 256 bytes and
//! placeholders, without merges: a token per byte of text.
#![forbid(unsafe_code)]

mod memory;
mod shape;
mod types;
mod values;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use bricks::DType;

pub use memory::available as available_memory;
pub use shape::{Head, SHAPES, Shape};
pub use types::Types;

use crate::arch::{WeightNames, WeightRole};
use crate::format::gguf::writer::WriteError;
use crate::format::gguf::{Gguf, GgufWriter, TensorSource};
use crate::tokenizer::alphabet;
use values::{Distribution, Values};

/// How names of synthetic models begin.
pub const PREFIX: &str = "synthetic:";

/// The seed of all models.
const SEED: u64 = 0x6272_6963_6b73;

/// Bytes written to a file at a time.
const CHUNK: usize = 1 << 20;

/// Control tokens at the end of every vocabulary; the first begins and ends a sequence.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// A synthetic model: a shape, and how its matrices are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    /// Its sizes.
    pub shape: &'static Shape,
    /// Its storage types.
    pub types: Types,
}

/// A synthetic model cannot be named or made.
#[derive(Debug, thiserror::Error)]
pub enum SyntheticError {
    /// Not `SHAPE:TYPE`.
    #[error("expected SHAPE:TYPE, such as qwen2.5-coder-1.5b:q4_k_m, found `{found}`")]
    Form {
        /// What was given.
        found: String,
    },
    /// No such shape.
    #[error("expected a shape of {}, found `{found}`", shapes())]
    Shape {
        /// What was given.
        found: String,
    },
    /// No such type.
    #[error("expected a type of {}, found `{found}`", types())]
    Types {
        /// What was given.
        found: String,
    },
    /// More memory than there is.
    #[error(
        "{model} needs about {needed} bytes of memory, found {available} available; choose a smaller shape or type"
    )]
    Memory {
        /// The model.
        model: Synthetic,
        /// Bytes that an engine takes.
        needed: u64,
        /// Bytes that processes can still have.
        available: u64,
    },
    /// It does not make a file.
    #[error(transparent)]
    Write(#[from] WriteError),
}

fn shapes() -> String {
    SHAPES.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")
}

fn types() -> String {
    Types::all().map(Types::name).collect::<Vec<_>>().join(", ")
}

impl FromStr for Synthetic {
    type Err = SyntheticError;

    /// `SHAPE:TYPE`, with or without [`PREFIX`].
    fn from_str(text: &str) -> Result<Self, SyntheticError> {
        let name = text.strip_prefix(PREFIX).unwrap_or(text);
        let form = || SyntheticError::Form { found: text.to_owned() };
        let (shape, types) = name.split_once(':').ok_or_else(form)?;
        Ok(Self {
            shape: Shape::find(shape).ok_or_else(|| SyntheticError::Shape { found: shape.to_owned() })?,
            types: Types::find(types).ok_or_else(|| SyntheticError::Types { found: types.to_owned() })?,
        })
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.shape.name, self.types.name())
    }
}

/// A tensor before its values are made.
struct Tensor {
    name: String,
    rows: usize,
    cols: usize,
    vector: bool,
    dtype: DType,
    values: Values,
}

impl Tensor {
    fn dims(&self) -> Vec<u64> {
        if self.vector { vec![self.cols as u64] } else { vec![self.cols as u64, self.rows as u64] }
    }

    fn bytes(&self) -> u64 {
        self.dtype.row_bytes(self.cols).map_or(u64::MAX, |row| row as u64 * self.rows as u64)
    }
}

impl Synthetic {
    /// The model as an open file whose tensors are made when they are read.
    ///
    /// # Errors
    /// [`SyntheticError::Write`], which would be a defect of the table of shapes.
    pub fn gguf(&self) -> Result<Gguf, SyntheticError> {
        let mut head = self.metadata();
        let mut sources: Vec<Box<dyn TensorSource>> = Vec::new();
        for t in self.tensors() {
            head.tensor_with(&t.name, &t.dims(), t.dtype, |_| Ok(()));
            sources.push(Box::new(t.values));
        }
        Ok(Gguf::generated(&head, sources)?)
    }

    /// Writes the model to a file, for other programs. It appears complete or not at all.
    ///
    /// # Errors
    /// [`SyntheticError::Write`].
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), SyntheticError> {
        let mut file = self.metadata();
        for t in self.tensors() {
            let (bytes, values) = (t.bytes(), t.values.clone());
            file.tensor_with(&t.name, &t.dims(), t.dtype, move |out| {
                let mut buffer = vec![0; CHUNK];
                for at in (0..bytes).step_by(CHUNK) {
                    let part = &mut buffer[..CHUNK.min((bytes - at) as usize)];
                    values.fill(at as usize, part);
                    out.write_all(part)?;
                }
                Ok(())
            });
        }
        Ok(file.write_file(path)?)
    }

    /// Parameters as they are published: of a tied model the LM head counts once, whatever a file holds.
    pub fn parameters(&self) -> u64 {
        let copy =
            |t: &Tensor| self.shape.head == Head::Copy && t.name == WeightNames::GGUF.name(WeightRole::Output, 0);
        self.tensors().iter().filter(|t| !copy(t)).map(|t| (t.rows * t.cols) as u64).sum()
    }

    /// Bytes that the weights take in use: packed matrices, which have the size of the file's, and the embedding once more,
    /// whose rows are read from where they lie.
    pub fn memory(&self) -> u64 {
        let embedding = WeightNames::GGUF.name(WeightRole::TokenEmbedding, 0);
        let tied = self.shape.head == Head::Tied;
        self.tensors().iter().map(|t| t.bytes() * if tied && t.name == embedding { 2 } else { 1 }).sum()
    }

    /// Whether this machine has the memory for an engine, as far as it tells ([`available_memory`]): for its weights, and a
    /// sixteenth more for everything else. Systems promise more memory than they have, and end the process that takes them at
    /// their word.
    ///
    /// # Errors
    /// [`SyntheticError::Memory`].
    pub fn check_memory(&self) -> Result<(), SyntheticError> {
        self.fits(available_memory())
    }

    fn fits(&self, available: Option<u64>) -> Result<(), SyntheticError> {
        let needed = self.memory() / 16 * 17;
        match available {
            Some(available) if available < needed => Err(SyntheticError::Memory { model: *self, needed, available }),
            _ => Ok(()),
        }
    }

    fn tensors(&self) -> Vec<Tensor> {
        let s = self.shape;
        let mut roles: Vec<(WeightRole, usize)> = vec![(WeightRole::TokenEmbedding, 0)];
        let per_layer = |layer| WeightRole::all().filter(|r| r.is_per_layer()).map(move |role| (role, layer));
        roles.extend((0..s.layers).flat_map(per_layer));
        roles.extend([(WeightRole::OutputNorm, 0), (WeightRole::Output, 0)]);
        roles.into_iter().filter_map(|(role, layer)| self.tensor(role, layer)).collect()
    }

    /// The tensor of a role, if there is one.
    fn tensor(&self, role: WeightRole, layer: usize) -> Option<Tensor> {
        use WeightRole as R;
        let s = self.shape;
        let (rows, cols) = match role {
            R::TokenEmbedding => (s.vocab, s.hidden),
            R::Output if s.head != Head::Tied => (s.vocab, s.hidden),
            R::AttnNorm | R::FfnNorm | R::OutputNorm => (1, s.hidden),
            R::AttnQ | R::AttnOutput => (s.hidden, s.hidden),
            R::AttnK | R::AttnV => (s.kv_dim(), s.hidden),
            R::AttnQBias if s.bias => (1, s.hidden),
            R::AttnKBias | R::AttnVBias if s.bias => (1, s.kv_dim()),
            R::FfnGate | R::FfnUp => (s.ffn, s.hidden),
            R::FfnDown => (s.hidden, s.ffn),
            R::Output | R::AttnQBias | R::AttnKBias | R::AttnVBias | R::RopeFreqs => return None,
        };
        let spread = 1.0 / (cols as f64).sqrt();
        let d = match role {
            R::AttnNorm | R::FfnNorm | R::OutputNorm => Distribution { mean: 1.0, std: 0.1 },
            R::AttnQBias | R::AttnKBias | R::AttnVBias => Distribution { mean: 0.0, std: 0.05 },
            R::AttnOutput | R::FfnDown => Distribution { mean: 0.0, std: spread / (2.0 * s.layers as f64).sqrt() },
            _ => Distribution { mean: 0.0, std: spread },
        };
        let name = WeightNames::GGUF.name(role, layer);
        let dtype = self.types.of(s, role, layer, cols);
        let values = Values::new(SEED, &name, dtype, d);
        Some(Tensor { name, rows, cols, vector: rows == 1, dtype, values })
    }

    fn metadata(&self) -> GgufWriter<'static> {
        let s = self.shape;
        let mut w = GgufWriter::new();
        let key = |name: &str| format!("{}.{name}", s.architecture);
        w.set("general.architecture", s.architecture)
            .set("general.name", self.to_string())
            .set("general.file_type", self.types.file_type())
            .set("general.quantization_version", 2_u32)
            .set(&key("block_count"), s.layers as u32)
            .set(&key("context_length"), s.context as u32)
            .set(&key("embedding_length"), s.hidden as u32)
            .set(&key("feed_forward_length"), s.ffn as u32)
            .set(&key("attention.head_count"), s.heads as u32)
            .set(&key("attention.head_count_kv"), s.kv_heads as u32)
            .set(&key("attention.layer_norm_rms_epsilon"), s.norm_eps)
            .set(&key("rope.freq_base"), s.rope_base)
            .set(&key("rope.dimension_count"), s.head_dim() as u32)
            .set("tokenizer.ggml.model", "gpt2")
            .set("tokenizer.ggml.pre", s.pre);
        let first_control = s.vocab - CONTROL.len();
        let bytes = (0..=255).map(|byte| alphabet::char_of(byte).to_string());
        let placeholders = (256..first_control).map(|id| format!("t{id}"));
        let tokens: Vec<String> = bytes.chain(placeholders).chain(CONTROL.map(str::to_owned)).collect();
        // Types 1 and 3: normal, control.
        let types: Vec<i32> = (0..s.vocab).map(|id| if id < first_control { 1 } else { 3 }).collect();
        w.set("tokenizer.ggml.tokens", tokens)
            .set("tokenizer.ggml.token_type", types)
            .set("tokenizer.ggml.merges", Vec::<&str>::new())
            .set("tokenizer.ggml.bos_token_id", first_control as u32)
            .set("tokenizer.ggml.eos_token_id", first_control as u32)
            .set("tokenizer.ggml.add_bos_token", false);
        w
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let model: Synthetic = "qwen2.5-coder-32b:q4_k_m".parse().unwrap();
        let error = model.fits(Some(1 << 34)).unwrap_err().to_string();
        assert!(error.starts_with("synthetic:qwen2.5-coder-32b:q4_k_m needs about 21"), "{error}");
        assert!(error.contains("found 17179869184 available"), "{error}");
        model.fits(None).unwrap();
    }
}
