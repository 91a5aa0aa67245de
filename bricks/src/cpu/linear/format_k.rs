//! Formats with super-blocks of 256: K-quants and IQ4_XS.
//!
//! Scales of a super-block are a few bytes per row; in a plane, byte `j` of the scales of all rows is one shift and one mask
//! away, and multiplying with the super-block's f16 scale is exact in f32 (11 bits times at most 8).

use super::format::{Chunk, Format, Sink, formats, half, iq4_codes, plane, planes};
use super::lanes::RowLanes;
use super::layout::{HALF, PackedAt};
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

/// Scales and minimums of Q4_K and Q5_K: six bits each for eight chunks, in three planes, and two halves.
#[derive(Clone, Copy)]
struct SixBit<L: RowLanes> {
    d: L::R,
    /// Negated.
    dmin: L::R,
    /// Quads of four 6-bit numbers in bytes, of chunks 0..4 and of chunks 4..8.
    scales: [L::U; 2],
    minimums: [L::U; 2],
}

impl<L: RowLanes> SixBit<L> {
    /// # Safety
    /// `at` is a block of Q4_K or Q5_K.
    #[inline(always)]
    unsafe fn load(l: L, at: PackedAt) -> Self {
        // SAFETY: both types begin with three planes of scales and minimums, and have two halves.
        let ([low_scales, low_minimums, rest], d, dmin) = unsafe { (planes(l, at, 0), half(l, at, 0), half(l, at, 1)) };
        // For chunks 0..4 as stored, for 4..8 with the two high bits elsewhere.
        let high_scales = l.or(field(l, rest, 0, 0x0f0f_0f0f), field(l, low_scales, 2, 0x3030_3030));
        let high_minimums = l.or(field(l, rest, 4, 0x0f0f_0f0f), field(l, low_minimums, 2, 0x3030_3030));
        Self {
            d,
            dmin: l.mul_r(dmin, l.splat_r(-1.0)),
            scales: [low_scales, high_scales],
            minimums: [low_minimums, high_minimums],
        }
    }

    #[inline(always)]
    fn chunk(&self, l: L, j: usize, codes: [L::U; 8]) -> Chunk<L> {
        let zero = l.splat_r(0.0);
        let bits = 8 * (j % 4) as u32;
        let scale = l.mul_r(self.d, l.to_r(field(l, self.scales[j / 4], bits, 0x3f)));
        let minimum = l.mul_r(self.dmin, l.to_r(field(l, self.minimums[j / 4], bits, 0x3f)));
        Chunk { codes, scale: [scale, zero], minimum: [minimum, zero] }
    }
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
    let mask = l.splat_u(0x0101_0101 << to);
    for (c, h) in codes.iter_mut().zip(high) {
        let moved = if bit < to { l.shl(*h, to - bit) } else { l.shr(*h, bit - to) };
        *c = l.or(*c, l.and(moved, mask));
    }
    codes
}

/// Writes the body out for each number: shifts by constants, which compilers do not make of a loop with so large a body.
macro_rules! unrolled {
    ($i:ident in [$($n:literal),*] $body:block) => {$({
        let $i: usize = $n;
        $body
    })*};
}

formats! {
    // planes: scale and minimum nibbles (4), 2-bit codes (16); halves: d, dmin
    Q2K: Q2_K, max 3, offset 0, subs 2, minimum true, |l, at, sink| {
        let nibbles = planes(l, at, 0);
        let (d, dmin) = (half(l, at, 0), l.mul_r(half(l, at, 1), l.splat_r(-1.0)));
        for c in 0..8 {
            let (a, b) = (byte(l, &nibbles, 2 * c), byte(l, &nibbles, 2 * c + 1));
            let chunk = Chunk {
                codes: fields(l, &planes(l, at, 4 + 8 * (c / 4)), 2 * (c % 4) as u32, 0x0303_0303),
                scale: [l.mul_r(d, l.to_r(field(l, a, 0, 15))), l.mul_r(d, l.to_r(field(l, b, 0, 15)))],
                minimum: [l.mul_r(dmin, l.to_r(l.shr(a, 4))), l.mul_r(dmin, l.to_r(l.shr(b, 4)))],
            };
            sink.put(l, c, chunk);
        }
    }
    // planes: third bits (8), 2-bit codes (16), 6-bit scales (3); halves: d
    Q3K: Q3_K, max 7, offset 4, subs 2, minimum false, |l, at, sink| {
        let d = half(l, at, 0);
        let [a, b, c] = planes(l, at, 24);
        // Four low bits in `a` and `b`, two high bits in `c`: scales 0..4, 4..8 from the low nibbles, 8..16 from the high.
        let scales = [
            l.or(field(l, a, 0, 0x0f0f_0f0f), l.shl(field(l, c, 0, 0x0303_0303), 4)),
            l.or(field(l, b, 0, 0x0f0f_0f0f), l.shl(field(l, c, 2, 0x0303_0303), 4)),
            l.or(field(l, a, 4, 0x0f0f_0f0f), l.shl(field(l, c, 4, 0x0303_0303), 4)),
            l.or(field(l, b, 4, 0x0f0f_0f0f), l.shl(field(l, c, 6, 0x0303_0303), 4)),
        ];
        let zero = l.splat_r(0.0);
        for c in 0..8 {
            let codes = fields(l, &planes(l, at, 8 + 8 * (c / 4)), 2 * (c % 4) as u32, 0x0303_0303);
            let (a, b) = (byte(l, &scales, 2 * c), byte(l, &scales, 2 * c + 1));
            let chunk = Chunk {
                codes: with_bit(l, codes, &planes(l, at, 0), c as u32, 2),
                scale: [l.mul_r(d, l.to_r(l.add_i(a, -32))), l.mul_r(d, l.to_r(l.add_i(b, -32)))],
                minimum: [zero; 2],
            };
            sink.put(l, c, chunk);
        }
    }
    // planes: 6-bit scales and minimums (3), codes (32); halves: d, dmin
    Q4K: Q4_K, max 15, offset 0, subs 1, minimum true, |l, at, sink| {
        let factors = SixBit::load(l, at);
        for pair in 0..4 {
            let packed = planes(l, at, 3 + 8 * pair);
            sink.put(l, 2 * pair, factors.chunk(l, 2 * pair, fields(l, &packed, 0, 0x0f0f_0f0f)));
            sink.put(l, 2 * pair + 1, factors.chunk(l, 2 * pair + 1, fields(l, &packed, 4, 0x0f0f_0f0f)));
        }
    }
    // planes: 6-bit scales and minimums (3), fifth bits (8), codes (32); halves: d, dmin
    Q5K: Q5_K, max 31, offset 0, subs 1, minimum true, |l, at, sink| {
        let factors = SixBit::load(l, at);
        // Two chunks share their bytes, and four of them the shift of the fifth bits in a byte.
        for part in 0..2 {
            unrolled!(j in [0, 1, 2, 3] {
                let c = 4 * part + j;
                // Loaded anew for each chunk: eight more registers are not to be had.
                let packed = planes(l, at, 11 + 8 * (c / 2));
                let high = fields(l, &planes(l, at, 3), 4 * part as u32, 0x0f0f_0f0f);
                let codes = fields(l, &packed, 4 * (j % 2) as u32, 0x0f0f_0f0f);
                sink.put(l, c, factors.chunk(l, c, with_bit(l, codes, &high, j as u32, 4)));
            });
        }
    }
    // planes: low nibbles (32), two high bits (16), signed scales (4); halves: d
    Q6K: Q6_K, max 63, offset 32, subs 2, minimum false, |l, at, sink| {
        let d = half(l, at, 0);
        let zero = l.splat_r(0.0);
        for part in 0..2 {
            // The first 64 values of a half have the low nibbles of its two runs of 32 bytes, the next 64 the high ones.
            unrolled!(j in [0, 1, 2, 3] {
                let low: [L::U; 8] = planes(l, at, 16 * part + 8 * (j % 2));
                let high: [L::U; 8] = planes(l, at, 32 + 8 * part);
                let mut codes = fields(l, &low, 4 * (j / 2) as u32, 0x0f0f_0f0f);
                for (code, h) in codes.iter_mut().zip(high) {
                    let moved = if j < 2 { l.shl(h, 4 - 2 * j as u32) } else { l.shr(h, 2 * j as u32 - 4) };
                    *code = l.or(*code, l.and(moved, l.splat_u(0x3030_3030)));
                }
                // Both scales are in one quad; shifting a byte to the top and back extends its sign.
                let scales = plane(l, at, 48 + 2 * part + j / 2);
                let (a, b) = (l.shl(scales, 24 - 16 * (j % 2) as u32), l.shl(scales, 16 - 16 * (j % 2) as u32));
                let scale = [l.mul_r(d, l.to_r(l.sar(a, 24))), l.mul_r(d, l.to_r(l.sar(b, 24)))];
                sink.put(l, 4 * part + j, Chunk { codes, scale, minimum: [zero; 2] });
            });
        }
    }
    // planes: low scale nibbles (1), indices (32); halves: d, two high scale bits
    Iq4Xs: IQ4_XS, max 255, offset 128, subs 1, minimum false, |l, at, sink| {
        let low = plane(l, at, 0);
        let high = l.load_u16s(at.halves.add(HALF));
        let d = half(l, at, 0);
        let zero = l.splat_r(0.0);
        for c in 0..8 {
            let scale = l.or(field(l, low, 4 * c as u32, 15), l.shl(field(l, high, 2 * c as u32, 3), 4));
            let codes = iq4_codes(l, planes(l, at, 1 + 4 * c));
            let scale = [l.mul_r(d, l.to_r(l.add_i(scale, -32))), zero];
            sink.put(l, c, Chunk { codes, scale, minimum: [zero; 2] });
        }
    }
}
