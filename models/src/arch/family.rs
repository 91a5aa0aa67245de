//! The architectures, one row each.

use bricks::{ActKind, RopeStyle};

use super::ArchError;

/// Whether Q, K and V have biases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QkvBias {
    /// If the file has the tensors.
    IfPresent,
    /// Always: a file without them is broken.
    Required,
}

/// What all models of one `general.architecture` have in common and no metadata key says.
#[derive(Debug)]
pub(super) struct Family {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// Pairing of rotated elements. Llama files hold Q and K with their rows permuted for interleaved pairs.
    pub(super) rope_style: RopeStyle,
    /// Biases of Q, K and V.
    pub(super) qkv_bias: QkvBias,
    /// Function of the gate.
    pub(super) activation: ActKind,
    /// Whether `attention.sliding_window` is obeyed. Qwen2 configurations carry a window that their models do not use.
    pub(super) sliding_window: bool,
}

/// `llama` covers mistral, smollm, tinyllama and the many others that are converted under that name.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        name: "llama",
        rope_style: RopeStyle::Interleaved,
        qkv_bias: QkvBias::IfPresent,
        activation: ActKind::Silu,
        sliding_window: true,
    },
    Family {
        name: "qwen2",
        rope_style: RopeStyle::SplitHalves,
        qkv_bias: QkvBias::Required,
        activation: ActKind::Silu,
        sliding_window: false,
    },
];

/// The row of that name.
pub(super) fn find(name: &str) -> Result<&'static Family, ArchError> {
    FAMILIES.iter().find(|f| f.name == name).ok_or_else(|| ArchError::Architecture {
        found: name.to_owned(),
        supported: FAMILIES.iter().map(|f| f.name).collect::<Vec<_>>().join(", "),
    })
}
