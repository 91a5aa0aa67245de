//! Checkpoints of [llama2.c](https://github.com/karpathy/llama2.c), version 0, and their conversion to GGUF.
//!
//! A checkpoint is seven 32-bit integers (`dim`, `hidden_dim`, `n_layers`, `n_heads`, `n_kv_heads`, `vocab_size`, `seq_len`;
//! a negative vocabulary size says that the LM head is a matrix of its own) and then all weights as F32, little-endian, kind by
//! kind: embedding, attention norms, Q, K, V, output, feed-forward norms, gate (`w1`), down (`w2`), up (`w3`), final norm, two
//! rotary tables that are not needed, and the LM head unless it is the embedding. Q and K rotate neighbouring elements, which is
//! what GGUF's `llama` has after its permutation: rows stay in their order.
//!
//! A `tokenizer.bin` is the length of the longest token, and for each token its score (F32), its length, and its bytes, with
//! spaces where SentencePiece has U+2581.
#![forbid(unsafe_code)]

mod convert;
mod vocab;

use std::ops::Range;

pub use convert::to_gguf;
pub use vocab::Vocabulary;

/// Bytes of the header.
const HEADER: usize = 7 * 4;

/// Ceiling for every number of the header: far above any such model, and low enough that products of three fit 64 bits.
const MAX_SIZE: i32 = 1 << 20;

/// A file is no checkpoint or no tokenizer of llama2.c, or cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum Llama2cError {
    /// The file ends too early, or too late.
    #[error("{what}: expected {expected} bytes, found {found}")]
    Length {
        /// Which part.
        what: &'static str,
        /// Bytes it should have.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A number of the header.
    #[error("header: `{field}`: expected {expected}, found {found}")]
    Header {
        /// Its name in llama2.c.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: i32,
    },
    /// A token.
    #[error("tokenizer: token {id}: expected {expected}, found {found}")]
    Token {
        /// Its id.
        id: usize,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A weight is infinite or no number.
    #[error("tensor `{tensor}`: expected finite numbers, found {found} at {index}")]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// Which of its numbers.
        index: usize,
        /// What it is.
        found: f32,
    },
    /// A matrix cannot be quantised.
    #[error("tensor `{tensor}` cannot be stored as Q8_0: {reason}")]
    Quantize {
        /// The tensor.
        tensor: String,
        /// Why not.
        reason: bricks::quant::QuantError,
    },
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Width of the residual stream.
    pub dim: usize,
    /// Width inside the feed-forward network.
    pub hidden_dim: usize,
    /// Layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Positions.
    pub seq_len: usize,
    /// Whether the embedding is the LM head, too.
    pub shared_classifier: bool,
}

impl Config {
    fn read(bytes: &[u8]) -> Result<Self, Llama2cError> {
        let short = || Llama2cError::Length { what: "header", expected: HEADER as u64, found: bytes.len() as u64 };
        let (numbers, _) = bytes.get(..HEADER).ok_or_else(short)?.as_chunks::<4>();
        let number = |i: usize, field: &'static str| {
            let found = i32::from_le_bytes(numbers[i]);
            // Only the vocabulary size may be negative.
            let size = if field == "vocab_size" { found.checked_neg().map_or(0, |n| n.max(found)) } else { found };
            if (1..=MAX_SIZE).contains(&size) {
                return Ok(size as usize);
            }
            Err(Llama2cError::Header { field, expected: format!("1 to {MAX_SIZE}"), found })
        };
        let config = Self {
            dim: number(0, "dim")?,
            hidden_dim: number(1, "hidden_dim")?,
            n_layers: number(2, "n_layers")?,
            n_heads: number(3, "n_heads")?,
            n_kv_heads: number(4, "n_kv_heads")?,
            vocab_size: number(5, "vocab_size")?,
            seq_len: number(6, "seq_len")?,
            shared_classifier: i32::from_le_bytes(numbers[5]) > 0,
        };
        let divides = |part: usize, whole: usize, field, expected: String| {
            if whole.is_multiple_of(part) {
                Ok(())
            } else {
                Err(Llama2cError::Header { field, expected, found: part as i32 })
            }
        };
        divides(config.n_heads, config.dim, "n_heads", format!("a divisor of dim, {}", config.dim))?;
        divides(config.n_kv_heads, config.n_heads, "n_kv_heads", format!("a divisor of n_heads, {}", config.n_heads))?;
        if !config.head_dim().is_multiple_of(2) {
            let expected = format!("heads of even length in dim, {}", config.dim);
            return Err(Llama2cError::Header { field: "n_heads", expected, found: config.n_heads as i32 });
        }
        Ok(config)
    }

    /// Length of a head.
    pub const fn head_dim(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of keys, and of values.
    pub const fn kv_dim(&self) -> usize {
        self.head_dim() * self.n_kv_heads
    }
}

/// A kind of weights, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedding,
    AttnNorm,
    Q,
    K,
    V,
    AttnOutput,
    FfnNorm,
    Gate,
    Down,
    Up,
    FinalNorm,
    Rotary,
    Classifier,
}

/// A checkpoint: its header, and where each kind of weights lies.
#[derive(Debug)]
pub struct Checkpoint<'a> {
    config: Config,
    bytes: &'a [u8],
    places: Vec<(Kind, Range<usize>)>,
}

impl<'a> Checkpoint<'a> {
    /// Reads a checkpoint that may be followed by something else, which is given back.
    ///
    /// # Errors
    /// [`Llama2cError::Header`], [`Llama2cError::Length`]. Nothing is allocated for what a header only claims.
    pub fn read(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Llama2cError> {
        let config = Config::read(bytes)?;
        let mut places = Vec::new();
        let mut at = HEADER as u64;
        for (kind, floats) in kinds(&config) {
            let end = at.saturating_add(floats.saturating_mul(4));
            if end > bytes.len() as u64 {
                let expected =
                    kinds(&config).iter().fold(HEADER as u64, |n, k| n.saturating_add(k.1.saturating_mul(4)));
                return Err(Llama2cError::Length { what: "checkpoint", expected, found: bytes.len() as u64 });
            }
            places.push((kind, at as usize..end as usize));
            at = end;
        }
        let (bytes, rest) = bytes.split_at(at as usize);
        Ok((Self { config, bytes, places }, rest))
    }

    /// The header.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// All bytes of the checkpoint.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Weights of a kind: of one layer if every layer has some.
    fn weights(&self, kind: Kind, layer: Option<usize>) -> &'a [u8] {
        let place = self.places.iter().find(|(k, _)| *k == kind).map(|(_, place)| place.clone());
        let bytes = &self.bytes[place.unwrap_or_default()];
        match layer {
            None => bytes,
            Some(layer) => {
                let size = bytes.len() / self.config.n_layers;
                &bytes[layer * size..(layer + 1) * size]
            }
        }
    }
}

/// Every kind with its number of floats. Products of at most three sizes: they fit 64 bits.
fn kinds(c: &Config) -> Vec<(Kind, u64)> {
    let [dim, hidden, layers, kv, vocab] =
        [c.dim, c.hidden_dim, c.n_layers, c.kv_dim(), c.vocab_size].map(|n| n as u64);
    let mut kinds = vec![
        (Kind::Embedding, vocab * dim),
        (Kind::AttnNorm, layers * dim),
        (Kind::Q, layers * dim * dim),
        (Kind::K, layers * dim * kv),
        (Kind::V, layers * dim * kv),
        (Kind::AttnOutput, layers * dim * dim),
        (Kind::FfnNorm, layers * dim),
        (Kind::Gate, layers * dim * hidden),
        (Kind::Down, layers * dim * hidden),
        (Kind::Up, layers * dim * hidden),
        (Kind::FinalNorm, dim),
        (Kind::Rotary, (c.seq_len * c.head_dim()) as u64),
    ];
    if !c.shared_classifier {
        kinds.push((Kind::Classifier, vocab * dim));
    }
    kinds
}
