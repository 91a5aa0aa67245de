//! A block taken apart: the one form that every quantised format decodes to.

use half::f16;

/// A block of `L` values in `S` sub-blocks: value `i` is `scales[s] · codes[i] + mins[s]`, where `s` is `i` divided by
/// [`SUB_BLOCK`](Self::SUB_BLOCK).
///
/// Codes are in the order of the values, and signed as the format means them: its offset (8 of Q4_0, 32 of Q6_K) is
/// subtracted, its table (IQ4) is applied. Scales and minimums are the products of what the block stores, such as
/// `d · sc`. No product ever rounds: `d` has 11 significant bits, sub-scale and code together at most 12, and f32 holds
/// 24. The one rounding is that of the addition, so fusing it with the multiplication changes nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts<const L: usize, const S: usize> {
    /// One code per value.
    pub codes: [i8; L],
    /// One scale per sub-block.
    pub scales: [f32; S],
    /// One addend per sub-block. Formats without minimums have [`NO_MIN`].
    pub mins: [f32; S],
}

/// The minimum of formats that have none. `-0.0` is the identity of addition: `x + -0.0` is `x`, even for `x = -0.0`.
pub const NO_MIN: f32 = -0.0;

impl<const L: usize, const S: usize> Parts<L, S> {
    /// Values per sub-block.
    pub const SUB_BLOCK: usize = L / S;

    /// `out[i] = scale · code + min`: ggml's bits.
    pub fn decode(&self, out: &mut [f32; L]) {
        let sub_blocks = out.chunks_exact_mut(Self::SUB_BLOCK).zip(self.codes.chunks_exact(Self::SUB_BLOCK));
        for (((out, codes), scale), min) in sub_blocks.zip(self.scales).zip(self.mins) {
            for (y, &code) in out.iter_mut().zip(codes) {
                *y = scale * f32::from(code) + min;
            }
        }
    }
}

/// The little-endian f16 at byte `at` of a block.
pub(super) fn f16_at<const B: usize>(block: &[u8; B], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// The low (`half == 0`) or the high nibble of a byte.
pub(super) fn nibble(byte: u8, half: usize) -> u8 {
    if half == 0 { byte & 0x0f } else { byte >> 4 }
}
