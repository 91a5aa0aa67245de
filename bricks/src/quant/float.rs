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

/// f32 to the nearest BF16, ties to even, as an f32: what kernels make of activations where the weights are BF16. Numbers with an
/// exponent of zero (below 2⁻¹²⁶) become zero, as the processors' instructions have it; NaNs become quiet.
#[inline(always)]
pub fn round_bf16(x: f32) -> f32 {
    // Masks instead of branches: compilers make vectors of it.
    let mask = |yes: bool| u32::from(yes).wrapping_neg();
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let (tiny, nan) = (mask(magnitude < 0x0080_0000), mask(magnitude > 0x7f80_0000));
    let half = (0x7fff + (bits >> 16 & 1)) & !(tiny | nan);
    let rounded = bits.wrapping_add(half) | nan & 0x0040_0000;
    f32::from_bits(rounded & (0xffff_0000 & !(tiny & 0x7fff_ffff)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_to_bf16_is_what_the_encoder_does_but_for_tiny_numbers() {
        let mut bits = 0x1234_5678u32;
        let special = [0.0, -0.0, 1.0, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY, 1.003_906_3];
        for i in 0..20_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = special.get(i).copied().unwrap_or(f32::from_bits(bits));
            if x.is_nan() {
                assert!(round_bf16(x).is_nan());
            } else if x.is_subnormal() {
                assert_eq!(round_bf16(x).to_bits(), x.to_bits() & 0x8000_0000);
            } else {
                assert_eq!(round_bf16(x).to_bits(), decode_bf16(encode_bf16(x)).to_bits(), "{x:e}");
            }
        }
        assert!(round_bf16(f32::from_bits(0x7f80_0001)).is_nan());
    }
}
