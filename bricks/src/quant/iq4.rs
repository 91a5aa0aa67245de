//! Four-bit indices into a non-linear table: IQ4_NL, IQ4_XS (ggml block format).
//!
//! | format | values | bytes | `d`: f16 | scales | `qs`: indices | value |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | IQ4_NL | 32 | 18 | 0 | | 2..18 | `d · table[q]` |
//! | IQ4_XS | 256 | 136 | 0 | high bits 2..4, low bits 4..8, per 32 | 8..136 | `(d · (sc - 32)) · table[q]` |
//!
//! Indices lie in runs of 16 bytes per 32 values: byte `j` holds value `j` in its low and value `j + 16` in its high
//! half.

use super::block::{NO_MIN, Parts, f16_at, nibble};

/// What the 16 indices stand for: steps that widen away from zero, as weights crowd around it.
pub const KVALUES_IQ4NL: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// IQ4_NL: one scale per 32.
pub fn unpack_iq4_nl(block: &[u8; 18]) -> Parts<32, 1> {
    Parts {
        codes: std::array::from_fn(|i| entry(nibble(block[2 + i % 16], i / 16))),
        scales: [f16_at(block, 0)],
        mins: [NO_MIN],
    }
}

/// IQ4_XS: signed 6-bit scale per 32.
pub fn unpack_iq4_xs(block: &[u8; 136]) -> Parts<256, 8> {
    let d = f16_at(block, 0);
    let scales = scales_iq4_xs([block[2], block[3]], [block[4], block[5], block[6], block[7]]);
    Parts {
        codes: std::array::from_fn(|i| entry(nibble(block[8 + 16 * (i / 32) + i % 16], i / 16 % 2))),
        scales: scales.map(|sc| d * f32::from(sc)),
        mins: [NO_MIN; 8],
    }
}

/// The signed 6-bit scales of IQ4_XS (32 already subtracted): scale `s` has its upper two bits in bits `2s..` of the
/// little-endian u16 `high`, its low four in byte `s / 2` of `low`, half `s % 2`.
pub fn scales_iq4_xs(high: [u8; 2], low: [u8; 4]) -> [i8; 8] {
    let high = u16::from_le_bytes(high);
    std::array::from_fn(|s| (nibble(low[s / 2], s % 2) | ((high >> (2 * s) & 3) as u8) << 4) as i8 - 32)
}

fn entry(index: u8) -> i8 {
    KVALUES_IQ4NL[usize::from(index & 0x0f)]
}
