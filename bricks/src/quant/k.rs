//! Super-blocks of 256 with integer sub-scales: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K (ggml block format).
//!
//! | format | bytes | sub-scales | high bits | low bits | `d`: f16 | `dmin`: f16 | value |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | Q2_K | 84 | 0..16, per 16 | | 16..80 | 80 | 82 | `(d · sc) · q - dmin · m` |
//! | Q3_K | 110 | 96..108, per 16 | 0..32 | 32..96 | 108 | | `(d · (sc - 32)) · (q - 4)` |
//! | Q4_K | 144 | 4..16, per 32 | | 16..144 | 0 | 2 | `(d · sc) · q - dmin · m` |
//! | Q5_K | 176 | 4..16, per 32 | 16..48 | 48..176 | 0 | 2 | `(d · sc) · q - dmin · m` |
//! | Q6_K | 210 | 192..208, per 16 | 128..192 | 0..128 | 208 | | `(d · sc) · (q - 32)`, `sc` signed |
//!
//! Where value `i` of the super-block finds its bits:
//!
//! - two bits at a time: byte `32·(i / 128) + i % 32`, shifted right by `2·(i / 32 % 4)` (low bits of Q2_K and Q3_K,
//!   high bits of Q6_K);
//! - four bits (Q4_K, Q5_K): byte `32·(i / 64) + i % 32`, half `i / 32 % 2`;
//! - four bits (Q6_K): byte `64·(i / 128) + i % 64`, half `i / 64 % 2`;
//! - one bit (high bits of Q3_K and Q5_K): byte `i % 32`, bit `i / 32`.

use super::block::{NO_MIN, Parts, f16_at, nibble};

/// Values per super-block.
pub const BLOCK: usize = 256;

/// Q2_K: scale (low) and minimum (high nibble of a byte) per 16.
pub fn unpack_q2_k(block: &[u8; 84]) -> Parts<BLOCK, 16> {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    Parts {
        codes: std::array::from_fn(|i| two_bits(block, 16, i) as i8),
        scales: std::array::from_fn(|s| d * f32::from(nibble(block[s], 0))),
        mins: std::array::from_fn(|s| -(dmin * f32::from(nibble(block[s], 1)))),
    }
}

/// Q3_K: signed 6-bit scale per 16. The high bit is stored inverted: where it is clear, 4 is subtracted.
pub fn unpack_q3_k(block: &[u8; 110]) -> Parts<BLOCK, 16> {
    let d = f16_at(block, 108);
    let scales = scales_q3_k(std::array::from_fn(|j| block[96 + j]));
    Parts {
        codes: std::array::from_fn(|i| (two_bits(block, 32, i) | one_bit(block, 0, i) << 2) as i8 - 4),
        scales: scales.map(|sc| d * f32::from(sc)),
        mins: [NO_MIN; 16],
    }
}

/// Q4_K: 6-bit scale and minimum per 32.
pub fn unpack_q4_k(block: &[u8; 144]) -> Parts<BLOCK, 8> {
    let (scales, mins) = scales_and_mins_k4(block);
    Parts { codes: std::array::from_fn(|i| four_bits(block, 16, i) as i8), scales, mins }
}

/// Q5_K: as Q4_K, with a fifth bit.
pub fn unpack_q5_k(block: &[u8; 176]) -> Parts<BLOCK, 8> {
    let (scales, mins) = scales_and_mins_k4(block);
    Parts { codes: std::array::from_fn(|i| (four_bits(block, 48, i) | one_bit(block, 16, i) << 4) as i8), scales, mins }
}

/// Q6_K: signed 8-bit scale per 16.
pub fn unpack_q6_k(block: &[u8; 210]) -> Parts<BLOCK, 16> {
    let d = f16_at(block, 208);
    Parts {
        codes: std::array::from_fn(|i| {
            let low = nibble(block[64 * (i / 128) + i % 64], i / 64 % 2);
            (low | two_bits(block, 128, i) << 4) as i8 - 32
        }),
        scales: std::array::from_fn(|s| d * f32::from(block[192 + s] as i8)),
        mins: [NO_MIN; 16],
    }
}

/// The 6-bit scales and minimums of Q4_K and Q5_K, from their 12 packed bytes.
///
/// Sub-blocks 0..4: the low six bits of bytes `0..4` (scales) and `4..8` (minimums). Sub-blocks 4..8: four bits in the
/// nibbles of bytes `8..12` (low: scales, high: minimums), the upper two in the top bits of bytes `0..4` (scales) and
/// `4..8` (minimums).
pub fn scales_k4(packed: [u8; 12]) -> ([u8; 8], [u8; 8]) {
    let sixth = |first: usize, half: usize, s: usize| match s {
        0..4 => packed[first + s] & 0x3f,
        _ => nibble(packed[4 + s], half) | packed[first + s - 4] >> 6 << 4,
    };
    (std::array::from_fn(|s| sixth(0, 0, s)), std::array::from_fn(|s| sixth(4, 1, s)))
}

/// The signed 6-bit scales of Q3_K (32 already subtracted), from their 12 packed bytes.
///
/// Scale `s` has its low four bits in byte `s % 8`, half `s / 8`, and its upper two in byte `8 + s % 4`, at
/// bit `2·(s / 4)`.
pub fn scales_q3_k(packed: [u8; 12]) -> [i8; 16] {
    std::array::from_fn(|s| {
        let high = (packed[8 + s % 4] >> (2 * (s / 4))) & 3;
        (nibble(packed[s % 8], s / 8) | high << 4) as i8 - 32
    })
}

/// Scales `d · sc` and minimums `-(dmin · m)` of a Q4_K or Q5_K super-block: both start with `d`, `dmin` and the packed
/// 12 bytes.
fn scales_and_mins_k4<const B: usize>(block: &[u8; B]) -> ([f32; 8], [f32; 8]) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    let (scales, mins) = scales_k4(std::array::from_fn(|j| block[4 + j]));
    (scales.map(|sc| d * f32::from(sc)), mins.map(|m| -(dmin * f32::from(m))))
}

/// Bit of value `i` in a plane of 32 bytes at `at`.
fn one_bit<const B: usize>(block: &[u8; B], at: usize, i: usize) -> u8 {
    (block[at + i % 32] >> (i / 32)) & 1
}

/// Two bits of value `i` in a plane of 64 bytes at `at`.
fn two_bits<const B: usize>(block: &[u8; B], at: usize, i: usize) -> u8 {
    (block[at + 32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3
}

/// Nibble of value `i` in a plane of 128 bytes at `at`, as Q4_K and Q5_K order them.
fn four_bits<const B: usize>(block: &[u8; B], at: usize, i: usize) -> u8 {
    nibble(block[at + 32 * (i / 64) + i % 32], i / 32 % 2)
}
