//! Which tensor has which storage type.

use bricks::DType;

use super::shape::{Head, Shape};
use crate::arch::WeightRole;

/// How matrices are stored. Norm gains and biases are F32 always.
///
/// Rows that are no multiple of 256 cannot be in a K type. Their matrices get the type that llama.cpp's quantiser falls back
/// to: Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K. With [`hidden`](Shape::hidden) 896 or 576 that is every matrix but the
/// down projections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Types {
    Q4_0,
    Q4_1,
    /// All matrices Q4_K.
    Q4K,
    /// Q4_K, but Q6_K for the LM head (the embedding, if it is both), and for value and down projections of the layers that
    /// llama.cpp picks for more bits: the first eighth, the last, and every third between.
    Q4KM,
    Q5K,
    Q6K,
    Q8_0,
    F16,
    BF16,
}

/// Name, what it is, type of most matrices, `general.file_type` (`enum llama_ftype`).
const TABLE: &[(&str, Types, DType, u32)] = &[
    ("q4_0", Types::Q4_0, DType::Q4_0, 2),
    ("q4_1", Types::Q4_1, DType::Q4_1, 3),
    ("q4_k", Types::Q4K, DType::Q4_K, 14),
    ("q4_k_m", Types::Q4KM, DType::Q4_K, 15),
    ("q5_k", Types::Q5K, DType::Q5_K, 16),
    ("q6_k", Types::Q6K, DType::Q6_K, 18),
    ("q8_0", Types::Q8_0, DType::Q8_0, 7),
    ("f16", Types::F16, DType::F16, 1),
    ("bf16", Types::BF16, DType::BF16, 32),
];

impl Types {
    /// Every choice.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.1)
    }

    /// The choice of that name; case does not matter.
    pub fn find(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| row.1)
    }

    /// Its name: `q4_k_m`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    pub(super) fn file_type(self) -> u32 {
        self.row().3
    }

    fn row(self) -> &'static (&'static str, Self, DType, u32) {
        TABLE.iter().find(|row| row.1 == self).expect("invariant: a row for every choice")
    }

    /// Type of a tensor with rows of `cols` values.
    pub(super) fn of(self, shape: &Shape, role: WeightRole, layer: usize, cols: usize) -> DType {
        use WeightRole as R;
        let matrix = self.row().2;
        let more = self == Types::Q4KM
            && match role {
                R::Output => true,
                R::TokenEmbedding => shape.head == Head::Tied,
                R::AttnV | R::FfnDown => gets_more_bits(layer, shape.layers),
                _ => false,
            };
        match role {
            R::AttnNorm | R::FfnNorm | R::OutputNorm | R::RopeFreqs | R::AttnQBias | R::AttnKBias | R::AttnVBias => {
                DType::F32
            }
            _ => fitting(if more { DType::Q6_K } else { matrix }, cols),
        }
    }
}

/// `use_more_bits` of llama.cpp's quantiser.
fn gets_more_bits(layer: usize, layers: usize) -> bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
}

/// The type, or what llama.cpp takes where it does not divide rows.
fn fitting(dtype: DType, cols: usize) -> DType {
    match dtype {
        _ if cols.is_multiple_of(dtype.block_len()) => dtype,
        DType::Q4_K => DType::Q5_0,
        DType::Q5_K => DType::Q5_1,
        DType::Q6_K => DType::Q8_0,
        other => other,
    }
}
