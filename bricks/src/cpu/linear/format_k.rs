//! Formats with super-blocks of 256: K-quants and IQ4_XS.
//!
//! Scales of a super-block are a few bytes per row; transposed, byte `j` of the scales of all rows is one shift and one mask
//! away, and multiplying with the super-block's f16 scale is exact in f32 (11 bits times at most 8).

use super::format::{Chunk, Format, Sink, formats, iq4_codes};
use super::lanes::{RowLanes, RowsAt};
use crate::DType;

/// `l.shr(a, bits) & mask`.
#[inline(always)]
fn field<L: RowLanes>(l: L, a: L::U, bits: u32, mask: u32) -> L::U {
    l.and(l.shr(a, bits), l.splat_u(mask))
}

/// Byte `j` of the bytes of four quads, as an unsigned number in each lane.
#[inline(always)]
fn byte<L: RowLanes>(l: L, quads: &[L::U; 4], j: usize) -> L::U {
    field(l, quads[j / 4], 8 * (j % 4) as u32, 0xff)
}

/// Scales and minimums of Q4_K and Q5_K: six bits each for eight chunks, in twelve bytes behind two f16.
struct SixBit<L: RowLanes> {
    scale: [L::R; 8],
    minimum: [L::R; 8],
}

impl<L: RowLanes> SixBit<L> {
    /// From the block's first 16 bytes.
    #[inline(always)]
    fn new(l: L, [d_dmin, low_scales, low_minimums, rest]: [L::U; 4]) -> Self {
        let d = l.f16_low(d_dmin);
        let dmin = l.mul_r(l.f16_low(l.shr(d_dmin, 16)), l.splat_r(-1.0));
        // Quads of four 6-bit numbers in bytes: for chunks 0..4 as stored, for 4..8 with the two high bits elsewhere.
        let high_scales = l.or(field(l, rest, 0, 0x0f0f_0f0f), field(l, low_scales, 2, 0x3030_3030));
        let high_minimums = l.or(field(l, rest, 4, 0x0f0f_0f0f), field(l, low_minimums, 2, 0x3030_3030));
        let (mut scale, mut minimum) = ([d; 8], [d; 8]);
        for j in 0..4 {
            let bits = 8 * j as u32;
            scale[j] = l.mul_r(d, l.to_r(field(l, low_scales, bits, 0x3f)));
            scale[j + 4] = l.mul_r(d, l.to_r(field(l, high_scales, bits, 0x3f)));
            minimum[j] = l.mul_r(dmin, l.to_r(field(l, low_minimums, bits, 0x3f)));
            minimum[j + 4] = l.mul_r(dmin, l.to_r(field(l, high_minimums, bits, 0x3f)));
        }
        Self { scale, minimum }
    }

    #[inline(always)]
    fn chunk(&self, l: L, j: usize, codes: [L::U; 8]) -> Chunk<L> {
        let zero = l.splat_r(0.0);
        Chunk { codes, scale: [self.scale[j], zero], minimum: [self.minimum[j], zero] }
    }
}

/// 32 bytes of each row as eight quads.
///
/// # Safety
/// 32 bytes are readable from every row's address on.
#[inline(always)]
unsafe fn load_8_quads<L: RowLanes>(l: L, rows: RowsAt) -> [L::U; 8] {
    // SAFETY: as the caller promises.
    let ([a, b, c, d], [e, f, g, h]) = unsafe { (l.load_4_quads(rows), l.load_4_quads(rows.skip(16))) };
    [a, b, c, d, e, f, g, h]
}

/// Each quad shifted and masked.
#[inline(always)]
fn fields<L: RowLanes>(l: L, quads: &[L::U; 8], bits: u32, mask: u32) -> [L::U; 8] {
    let mut out = *quads;
    for q in &mut out {
        *q = field(l, *q, bits, mask);
    }
    out
}

/// Each quad of `codes` with bit `bit` of the bytes of `high` added as bit `to`.
#[inline(always)]
fn with_bit<L: RowLanes>(l: L, mut codes: [L::U; 8], high: &[L::U; 8], bit: u32, to: u32) -> [L::U; 8] {
    for (c, h) in codes.iter_mut().zip(high) {
        *c = l.or(*c, l.shl(field(l, *h, bit, 0x0101_0101), to));
    }
    codes
}

formats! {
    // scale and minimum nibbles (16) | 2-bit codes (64) | d (2) | dmin (2)
    Q2K: Q2_K, max 3, offset 0, subs 2, minimum true, |l, block, sink| {
        let nibbles = l.load_4_quads(block);
        let d_dmin = l.load_quad(block.skip(80));
        let (d, dmin) = (l.f16_low(d_dmin), l.mul_r(l.f16_low(l.shr(d_dmin, 16)), l.splat_r(-1.0)));
        for half in 0..2 {
            let packed = load_8_quads(l, block.skip(16 + 32 * half));
            for j in 0..4 {
                let c = 4 * half + j;
                let (a, b) = (byte(l, &nibbles, 2 * c), byte(l, &nibbles, 2 * c + 1));
                let chunk = Chunk {
                    codes: fields(l, &packed, 2 * j as u32, 0x0303_0303),
                    scale: [l.mul_r(d, l.to_r(field(l, a, 0, 15))), l.mul_r(d, l.to_r(field(l, b, 0, 15)))],
                    minimum: [l.mul_r(dmin, l.to_r(l.shr(a, 4))), l.mul_r(dmin, l.to_r(l.shr(b, 4)))],
                };
                sink.put(l, c, chunk);
            }
        }
    }
    // third bits (32) | 2-bit codes (64) | 6-bit scales (12) | d (2)
    Q3K: Q3_K, max 7, offset 4, subs 2, minimum false, |l, block, sink| {
        let d = l.f16_low(l.shr(l.load_quad(block.skip(106)), 16));
        let (a, b, c) = (l.load_quad(block.skip(96)), l.load_quad(block.skip(100)), l.load_quad(block.skip(104)));
        // Four low bits in `a` and `b`, two high bits in `c`: scales 0..4, 4..8 from the low nibbles, 8..16 from the high.
        let scales = [
            l.or(field(l, a, 0, 0x0f0f_0f0f), l.shl(field(l, c, 0, 0x0303_0303), 4)),
            l.or(field(l, b, 0, 0x0f0f_0f0f), l.shl(field(l, c, 2, 0x0303_0303), 4)),
            l.or(field(l, a, 4, 0x0f0f_0f0f), l.shl(field(l, c, 4, 0x0303_0303), 4)),
            l.or(field(l, b, 4, 0x0f0f_0f0f), l.shl(field(l, c, 6, 0x0303_0303), 4)),
        ];
        let high = load_8_quads(l, block);
        let zero = l.splat_r(0.0);
        for half in 0..2 {
            let packed = load_8_quads(l, block.skip(32 + 32 * half));
            for j in 0..4 {
                let c = 4 * half + j;
                let codes = fields(l, &packed, 2 * j as u32, 0x0303_0303);
                let (a, b) = (byte(l, &scales, 2 * c), byte(l, &scales, 2 * c + 1));
                let chunk = Chunk {
                    codes: with_bit(l, codes, &high, c as u32, 2),
                    scale: [l.mul_r(d, l.to_r(l.add_i(a, -32))), l.mul_r(d, l.to_r(l.add_i(b, -32)))],
                    minimum: [zero; 2],
                };
                sink.put(l, c, chunk);
            }
        }
    }
    // d (2) | dmin (2) | 6-bit scales and minimums (12) | codes (128)
    Q4K: Q4_K, max 15, offset 0, subs 1, minimum true, |l, block, sink| {
        let factors = SixBit::new(l, l.load_4_quads(block));
        for pair in 0..4 {
            let packed = load_8_quads(l, block.skip(16 + 32 * pair));
            sink.put(l, 2 * pair, factors.chunk(l, 2 * pair, fields(l, &packed, 0, 0x0f0f_0f0f)));
            sink.put(l, 2 * pair + 1, factors.chunk(l, 2 * pair + 1, fields(l, &packed, 4, 0x0f0f_0f0f)));
        }
    }
    // d (2) | dmin (2) | 6-bit scales and minimums (12) | fifth bits (32) | codes (128)
    Q5K: Q5_K, max 31, offset 0, subs 1, minimum true, |l, block, sink| {
        let factors = SixBit::new(l, l.load_4_quads(block));
        let high = load_8_quads(l, block.skip(16));
        for pair in 0..4 {
            let packed = load_8_quads(l, block.skip(48 + 32 * pair));
            for nibble in 0..2 {
                let c = 2 * pair + nibble;
                let codes = fields(l, &packed, 4 * nibble as u32, 0x0f0f_0f0f);
                sink.put(l, c, factors.chunk(l, c, with_bit(l, codes, &high, c as u32, 4)));
            }
        }
    }
    // low nibbles (128) | two high bits (64) | signed scales (16) | d (2)
    Q6K: Q6_K, max 63, offset 32, subs 2, minimum false, |l, block, sink| {
        let d = l.f16_low(l.shr(l.load_quad(block.skip(206)), 16));
        let scales = l.load_4_quads(block.skip(192));
        let zero = l.splat_r(0.0);
        for half in 0..2 {
            let low = [load_8_quads(l, block.skip(64 * half)), load_8_quads(l, block.skip(64 * half + 32))];
            let high = load_8_quads(l, block.skip(128 + 32 * half));
            for j in 0..4 {
                let c = 4 * half + j;
                // The first 64 values have the low nibbles of the two runs of 32 bytes, the next 64 the high ones.
                let mut codes = fields(l, &low[j % 2], 4 * (j / 2) as u32, 0x0f0f_0f0f);
                for (code, h) in codes.iter_mut().zip(&high) {
                    *code = l.or(*code, l.shl(field(l, *h, 2 * j as u32, 0x0303_0303), 4));
                }
                // Both scales are in one quad; shifting a byte to the top and back extends its sign.
                let (a, b) = (l.shl(scales[c / 2], 24 - 16 * (c % 2) as u32), l.shl(scales[c / 2], 16 - 16 * (c % 2) as u32));
                let scale = [l.mul_r(d, l.to_r(l.sar(a, 24))), l.mul_r(d, l.to_r(l.sar(b, 24)))];
                sink.put(l, c, Chunk { codes, scale, minimum: [zero; 2] });
            }
        }
    }
    // d (2) | two high scale bits (2) | low scale nibbles (4) | indices (128)
    Iq4Xs: IQ4_XS, max 255, offset 128, subs 1, minimum false, |l, block, sink| {
        let first = l.load_quad(block);
        let low = l.load_quad(block.skip(4));
        let d = l.f16_low(first);
        let zero = l.splat_r(0.0);
        for c in 0..8 {
            let scale = l.or(field(l, low, 4 * c as u32, 15), l.shl(field(l, first, 16 + 2 * c as u32, 3), 4));
            let codes = iq4_codes(l, l.load_4_quads(block.skip(8 + 16 * c)));
            let scale = [l.mul_r(d, l.to_r(l.add_i(scale, -32))), zero];
            sink.put(l, c, Chunk { codes, scale, minimum: [zero; 2] });
        }
    }
}
