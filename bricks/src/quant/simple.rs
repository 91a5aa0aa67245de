//! Blocks of 32 with one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 (ggml block format).
//!
//! | format | bytes | `d`: f16 | `m`: f16 | `qh`: fifth bits | `qs`: codes | value |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | Q4_0 | 18 | 0 | | | 2..18 | `d · (q - 8)` |
//! | Q4_1 | 20 | 0 | 2 | | 4..20 | `d · q + m` |
//! | Q5_0 | 22 | 0 | | 2..6 | 6..22 | `d · (q - 16)` |
//! | Q5_1 | 24 | 0 | 2 | 4..8 | 8..24 | `d · q + m` |
//! | Q8_0 | 34 | 0 | | | 2..34 | `d · q`, `q` signed |
//!
//! Nibbles: byte `j` of `qs` holds value `j` in its low and value `j + 16` in its high half. The fifth bit of value `i`
//! is bit `i` of `qh`, a little-endian u32.
//!
//! # Encoders
//! Byte-identical with ggml's reference quantisers for finite input: codes are computed with `1 / d` in f32, while the
//! block stores `d` rounded to f16. A block that holds an infinity or a NaN has no meaning there (the conversion of its
//! codes to integers is undefined); here it gets a NaN for a scale, so that it decodes to NaN and the damage stays
//! visible. Codes whose `1 / d` overflows saturate; their block's `d` is 0 in f16.

use half::f16;

use super::block::{NO_MIN, Parts, f16_at, nibble};

/// Values per block of every format in this module.
pub const BLOCK: usize = 32;

/// Q4_0: `d · (q - 8)`.
pub fn unpack_q4_0(block: &[u8; 18]) -> Parts<BLOCK, 1> {
    Parts {
        codes: std::array::from_fn(|i| nibble(block[2 + i % 16], i / 16) as i8 - 8),
        scales: [f16_at(block, 0)],
        mins: [NO_MIN],
    }
}

/// Q4_1: `d · q + m`.
pub fn unpack_q4_1(block: &[u8; 20]) -> Parts<BLOCK, 1> {
    Parts {
        codes: std::array::from_fn(|i| nibble(block[4 + i % 16], i / 16) as i8),
        scales: [f16_at(block, 0)],
        mins: [f16_at(block, 2)],
    }
}

/// Q5_0: `d · (q - 16)`.
pub fn unpack_q5_0(block: &[u8; 22]) -> Parts<BLOCK, 1> {
    Parts {
        codes: std::array::from_fn(|i| five_bits(block, 2, i) as i8 - 16),
        scales: [f16_at(block, 0)],
        mins: [NO_MIN],
    }
}

/// Q5_1: `d · q + m`.
pub fn unpack_q5_1(block: &[u8; 24]) -> Parts<BLOCK, 1> {
    Parts {
        codes: std::array::from_fn(|i| five_bits(block, 4, i) as i8),
        scales: [f16_at(block, 0)],
        mins: [f16_at(block, 2)],
    }
}

/// Q8_0: `d · q`. Unlike our own encoders, a file may hold the code -128.
pub fn unpack_q8_0(block: &[u8; 34]) -> Parts<BLOCK, 1> {
    Parts { codes: std::array::from_fn(|i| block[2 + i] as i8), scales: [f16_at(block, 0)], mins: [NO_MIN] }
}

/// Code `i` of a Q5 block whose `qh` starts at byte `qh`, with the nibbles right behind it.
fn five_bits<const B: usize>(block: &[u8; B], qh: usize, i: usize) -> u8 {
    let fifth = (block[qh + i / 8] >> (i % 8)) & 1;
    nibble(block[qh + 4 + i % 16], i / 16) | fifth << 4
}

/// Q4_0: the value of largest magnitude (the first of equals) becomes code 0, that is -8: `d = max / -8`.
pub fn encode_q4_0(values: &[f32; BLOCK], block: &mut [u8; 18]) {
    // From +0.0, strictly greater: a block of zeros of either sign has max = +0.0 and d = -0.0.
    let max = values.iter().fold(0.0_f32, |max, &x| if x.abs() > max.abs() { x } else { max });
    let d = poisoned(values, max / -8.0);
    let inv = inverse(d);
    let code = |x: f32| ((x * inv + 8.5) as u8).min(15);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (j, byte) in block[2..].iter_mut().enumerate() {
        *byte = code(values[j]) | code(values[j + 16]) << 4;
    }
}

/// Q4_1: the range of the values in 15 steps: `m = min`, `d = (max - min) / 15`.
pub fn encode_q4_1(values: &[f32; BLOCK], block: &mut [u8; 20]) {
    let (min, max) = values
        .iter()
        .fold((f32::MAX, -f32::MAX), |(min, max), &x| (if x < min { x } else { min }, if x > max { x } else { max }));
    let d = poisoned(values, (max - min) / 15.0);
    let inv = inverse(d);
    let code = |x: f32| (((x - min) * inv + 0.5) as u8).min(15);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    block[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
    for (j, byte) in block[4..].iter_mut().enumerate() {
        *byte = code(values[j]) | code(values[j + 16]) << 4;
    }
}

/// Q8_0: `d = max|x| / 127`, codes rounded to nearest, halves away from zero.
pub fn encode_q8_0(values: &[f32; BLOCK], block: &mut [u8; 34]) {
    let amax = values.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
    let d = poisoned(values, amax / 127.0);
    let inv = inverse(d);
    block[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    for (byte, &x) in block[2..].iter_mut().zip(values) {
        *byte = (x * inv).round() as i8 as u8;
    }
}

/// `d`, or NaN if the block holds anything but finite values.
fn poisoned(values: &[f32; BLOCK], d: f32) -> f32 {
    if values.iter().all(|x| x.is_finite()) { d } else { f32::NAN }
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}
