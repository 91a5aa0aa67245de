//! Rotary position embedding: parameters and the frequencies they stand for.
//!
//! Su et al., `RoFormer` (arXiv 2104.09864); scaling: linear interpolation, Llama-3 (frequency-dependent) and
//! `YaRN` (arXiv 2309.00071).

use serde::{Deserialize, Serialize};

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeStyle {
    /// Pairs `(2i, 2i + 1)`: llama files in GGUF.
    Interleaved,
    /// Pairs `(i, i + dims/2)`: qwen2, phi3, gemma and others ("NEOX").
    SplitHalves,
}

/// How frequencies are changed for contexts longer than the model was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    None,
    /// Positions divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama-3: low frequencies divided by `factor`, high ones kept, a ramp between.
    /// (Files converted by llama.cpp carry the result as a tensor `rope_freqs.weight` instead; see [`RopeSpec::freq_factors`].)
    Llama3 {
        /// Divisor of low frequencies.
        factor: f32,
        /// `low_freq_factor`.
        low: f32,
        /// `high_freq_factor`.
        high: f32,
        /// Context length of training.
        original_context: u32,
    },
    /// `YaRN`: interpolation by parts, with attention temperature.
    Yarn {
        /// Divisor of low frequencies.
        factor: f32,
        /// Context length of training.
        original_context: u32,
        /// Multiplies the attention temperature (`yarn_attn_factor`), 1 by default.
        attn_factor: f32,
        /// Rotations above which a dimension is not interpolated, 32 by default.
        beta_fast: f32,
        /// Rotations below which a dimension is fully interpolated, 1 by default.
        beta_slow: f32,
    },
}

/// Parameters of a rotary embedding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RopeSpec {
    /// Which elements are rotated together.
    pub style: RopeStyle,
    /// Base of the geometric series of wavelengths (`rope.freq_base`).
    pub base: f32,
    /// Elements of each head that are rotated (the rest passes through). Even, at most `head_dim`.
    pub dims: usize,
    /// Scaling for long contexts.
    pub scaling: RopeScaling,
    /// Divisors per pair from `rope_freqs.weight`, if the file has them (`dims / 2` values).
    pub freq_factors: Option<Vec<f32>>,
}
