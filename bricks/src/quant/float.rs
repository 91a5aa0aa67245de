//! Floats: one value per block, little-endian.

use half::{bf16, f16};

/// F32: the bits as they are.
pub fn decode_f32(block: [u8; 4]) -> f32 {
    f32::from_le_bytes(block)
}

/// F16 to f32: exact. Signalling NaNs come out quiet.
pub fn decode_f16(block: [u8; 2]) -> f32 {
    f16::from_le_bytes(block).to_f32()
}

/// BF16 is the upper half of an f32: exact, NaNs included.
pub fn decode_bf16(block: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(block)) << 16)
}

/// F32: the bits as they are.
pub fn encode_f32(x: f32) -> [u8; 4] {
    x.to_le_bytes()
}

/// f32 to F16, to nearest, ties to even; above 65504 by half a step or more: infinity. NaNs stay NaNs and become quiet.
pub fn encode_f16(x: f32) -> [u8; 2] {
    f16::from_f32(x).to_le_bytes()
}

/// f32 to BF16, to nearest, ties to even. NaNs keep the upper bits of their payload and become quiet.
pub fn encode_bf16(x: f32) -> [u8; 2] {
    bf16::from_f32(x).to_le_bytes()
}
