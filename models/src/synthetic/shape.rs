//! The shapes: sizes of published models, and a tiny one for tests.

/// How the LM head relates to the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// One tensor is both.
    Tied,
    /// The model is tied, but its published GGUF files hold a second copy, which counts for no parameters of its own.
    Copy,
    /// A matrix of its own.
    Own,
}

/// Sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    /// What it is called here: `qwen2.5-coder-1.5b`.
    pub name: &'static str,
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward network.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Tokens.
    pub vocab: usize,
    /// Positions.
    pub context: usize,
    /// Base of the rotary embedding.
    pub rope_base: f32,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// The LM head.
    pub head: Head,
    /// Whether Q, K and V have biases.
    pub bias: bool,
    /// Rules of the pre-tokenizer.
    pub pre: &'static str,
}

/// What all Qwen2.5-Coder models have in common; 0.5B's sizes.
const QWEN: Shape = Shape {
    name: "qwen2.5-coder-0.5b",
    architecture: "qwen2",
    layers: 24,
    hidden: 896,
    ffn: 4864,
    heads: 14,
    kv_heads: 2,
    vocab: 151_936,
    context: 32_768,
    rope_base: 1e6,
    norm_eps: 1e-6,
    head: Head::Copy,
    bias: true,
    pre: "qwen2",
};

/// Every shape. Sizes are those of the models' published configurations.
pub const SHAPES: &[Shape] = &[
    QWEN,
    Shape { name: "qwen2.5-coder-1.5b", layers: 28, hidden: 1536, ffn: 8960, heads: 12, ..QWEN },
    Shape { name: "qwen2.5-coder-3b", layers: 36, hidden: 2048, ffn: 11_008, heads: 16, ..QWEN },
    Shape {
        name: "qwen2.5-coder-7b",
        layers: 28,
        hidden: 3584,
        ffn: 18_944,
        heads: 28,
        kv_heads: 4,
        vocab: 152_064,
        head: Head::Own,
        ..QWEN
    },
    Shape {
        name: "qwen2.5-coder-32b",
        layers: 64,
        hidden: 5120,
        ffn: 27_648,
        heads: 40,
        kv_heads: 8,
        vocab: 152_064,
        head: Head::Own,
        ..QWEN
    },
    Shape {
        name: "smollm2-135m",
        architecture: "llama",
        layers: 30,
        hidden: 576,
        ffn: 1536,
        heads: 9,
        kv_heads: 3,
        vocab: 49_152,
        context: 8192,
        rope_base: 1e5,
        norm_eps: 1e-5,
        head: Head::Tied,
        bias: false,
        pre: "smollm",
    },
    Shape {
        name: "tiny",
        layers: 2,
        hidden: 256,
        ffn: 512,
        heads: 4,
        kv_heads: 2,
        vocab: 512,
        context: 512,
        head: Head::Own,
        ..QWEN
    },
];

impl Shape {
    /// The shape of that name; case does not matter.
    pub fn find(name: &str) -> Option<&'static Shape> {
        SHAPES.iter().find(|s| s.name.eq_ignore_ascii_case(name))
    }

    /// Length of a head.
    pub const fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Width of keys, and of values.
    pub const fn kv_dim(&self) -> usize {
        self.head_dim() * self.kv_heads
    }
}
