//! The accounting categories of bricks.

use serde::{Deserialize, Serialize};

/// The operation a brick stands for in every report. Dense: `kind as usize` indexes arrays of [`BrickKind::COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum BrickKind {
    /// Token embedding gather.
    Embed = 0,
    /// RMS normalisation inside a layer (a fused residual+norm counts here).
    RmsNorm,
    /// RMS normalisation before the LM head.
    FinalNorm,
    /// Query, key and value projections.
    Qkv,
    /// Rotary position embedding.
    Rope,
    /// Writing keys and values into the KV cache.
    KvWrite,
    /// Attention over the KV cache.
    Attention,
    /// Attention output projection.
    OProj,
    /// Residual addition.
    Residual,
    /// Gate and up projections of the feed-forward network.
    GateUp,
    /// Gated activation (`SwiGLU` and relatives).
    Activation,
    /// Down projection of the feed-forward network.
    Down,
    /// Projection to the vocabulary.
    LmHead,
    /// Choosing the next token.
    Sample,
    /// Anything else.
    Custom,
}

impl BrickKind {
    /// Number of kinds.
    pub const COUNT: usize = 15;

    /// Every kind, in the order of its index.
    pub const ALL: [BrickKind; Self::COUNT] = [
        Self::Embed,
        Self::RmsNorm,
        Self::FinalNorm,
        Self::Qkv,
        Self::Rope,
        Self::KvWrite,
        Self::Attention,
        Self::OProj,
        Self::Residual,
        Self::GateUp,
        Self::Activation,
        Self::Down,
        Self::LmHead,
        Self::Sample,
        Self::Custom,
    ];

    /// Dense index, `0..COUNT`.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "Embed",
            Self::RmsNorm => "RmsNorm",
            Self::FinalNorm => "FinalNorm",
            Self::Qkv => "QKV",
            Self::Rope => "RoPE",
            Self::KvWrite => "KvWrite",
            Self::Attention => "Attention",
            Self::OProj => "OProj",
            Self::Residual => "Residual",
            Self::GateUp => "GateUp",
            Self::Activation => "Activation",
            Self::Down => "Down",
            Self::LmHead => "LmHead",
            Self::Sample => "Sample",
            Self::Custom => "Custom",
        }
    }

    /// The category whose total this kind adds to.
    pub const fn category(self) -> BrickCategory {
        match self {
            Self::RmsNorm | Self::FinalNorm => BrickCategory::Norm,
            Self::Qkv | Self::Rope | Self::KvWrite | Self::Attention | Self::OProj => BrickCategory::Attention,
            Self::GateUp | Self::Activation | Self::Down => BrickCategory::Ffn,
            Self::Embed | Self::Residual | Self::LmHead | Self::Sample | Self::Custom => BrickCategory::Other,
        }
    }
}

impl std::fmt::Display for BrickKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Groups of kinds whose totals are reported together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrickCategory {
    /// Normalisations.
    Norm,
    /// Everything between the attention norm and the attention residual.
    Attention,
    /// Feed-forward network.
    Ffn,
    /// Embedding, residuals, LM head, sampling.
    Other,
}

impl BrickCategory {
    /// Every category in report order.
    pub const ALL: [BrickCategory; 4] = [Self::Norm, Self::Attention, Self::Ffn, Self::Other];

    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Norm => "Norm",
            Self::Attention => "Attention",
            Self::Ffn => "FFN",
            Self::Other => "Other",
        }
    }
}
