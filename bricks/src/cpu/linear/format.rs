//! What a quantised format is to the kernels: how blocks of many rows become unsigned codes, scales and minimums.
//!
//! Every format is reduced to *chunks* of 32 inputs: `weight = scale · (code − OFFSET) + minimum`, with one scale and minimum
//! per chunk, or one for each half of it. Unpacking works on all rows of a group at once, see [`lanes`](super::lanes); each
//! format is written once for all instruction sets. Layouts are ggml's, as in [`crate::quant`].

use super::lanes::{RowLanes, RowsAt};
use crate::DType;

/// 32 inputs of a group of rows, unpacked.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Chunk<L: RowLanes> {
    /// Quad `q`: codes of inputs `4 q .. 4 q + 4`, unsigned.
    pub(super) codes: [L::U; 8],
    /// Scales of the first and of the last 16 inputs; only the first is used if [`Format::SUBS`] is 1.
    pub(super) scale: [L::R; 2],
    /// Minimums, likewise; used only if [`Format::MINIMUM`].
    pub(super) minimum: [L::R; 2],
}

/// Takes chunks as they are unpacked.
pub(in crate::cpu) trait Sink<L: RowLanes> {
    /// Chunk `index` of the block that is being unpacked.
    fn put(&mut self, lanes: L, index: usize, chunk: Chunk<L>);
}

/// A quantised format.
pub(in crate::cpu) trait Format {
    /// Which.
    const DTYPE: DType;
    /// Largest unsigned code. Only AVX2 has to know: its 16-bit sums saturate.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    const MAX: u8;
    /// Subtracted from every code. 128 if (and only if) codes have 8 bits.
    const OFFSET: i16;
    /// Scales per chunk: 1 or 2.
    const SUBS: usize;
    /// Whether weights have minimums.
    const MINIMUM: bool;

    /// Bytes per block.
    const BYTES: usize = Self::DTYPE.block_bytes();
    /// Chunks per block: 1 or 8.
    const CHUNKS: usize = Self::DTYPE.block_len() / 32;

    /// Unpacks one block of each row, chunks in order.
    ///
    /// # Safety
    /// [`BYTES`](Self::BYTES) bytes are readable from every row's address on.
    unsafe fn unpack<L: RowLanes, S: Sink<L>>(lanes: L, block: RowsAt, sink: &mut S);
}

const LOW_NIBBLES: u32 = 0x0f0f_0f0f;

/// Low nibbles of 16 bytes as quads 0..4, high nibbles as quads 4..8: the order of the 32-value formats.
#[inline(always)]
fn nibbles<L: RowLanes>(l: L, bytes: [L::U; 4]) -> [L::U; 8] {
    let mask = l.splat_u(LOW_NIBBLES);
    let mut codes = [mask; 8];
    for (q, b) in bytes.into_iter().enumerate() {
        codes[q] = l.and(b, mask);
        codes[q + 4] = l.and(l.shr(b, 4), mask);
    }
    codes
}

/// Adds bit `i` of each lane of `bits` to code `i` as its fifth bit.
#[inline(always)]
fn fifth_bits<L: RowLanes>(l: L, codes: &mut [L::U; 8], bits: L::U) {
    for (q, c) in codes.iter_mut().enumerate() {
        *c = l.or(*c, l.spread_bits(bits, q));
    }
}

/// A chunk with one scale and no minimum.
#[inline(always)]
fn scaled<L: RowLanes>(l: L, codes: [L::U; 8], scale: L::R) -> Chunk<L> {
    let zero = l.splat_r(0.0);
    Chunk { codes, scale: [scale, zero], minimum: [zero; 2] }
}

/// A chunk with one scale and one minimum, f16 in the low and in the high half of each lane.
#[inline(always)]
fn affine<L: RowLanes>(l: L, codes: [L::U; 8], scale_and_minimum: L::U) -> Chunk<L> {
    let zero = l.splat_r(0.0);
    let minimum = l.f16_low(l.shr(scale_and_minimum, 16));
    Chunk { codes, scale: [l.f16_low(scale_and_minimum), zero], minimum: [minimum, zero] }
}

/// Declares formats; the body sees the lanes, the block and the sink.
macro_rules! formats {
    ($($name:ident: $dtype:ident, max $max:literal, offset $offset:literal, subs $subs:literal, minimum $min:literal,
        |$l:ident, $block:ident, $sink:ident| $body:block)*) => {$(
        pub(in crate::cpu) struct $name;

        impl Format for $name {
            const DTYPE: DType = DType::$dtype;
            const MAX: u8 = $max;
            const OFFSET: i16 = $offset;
            const SUBS: usize = $subs;
            const MINIMUM: bool = $min;

            #[inline(always)]
            unsafe fn unpack<L: RowLanes, S: Sink<L>>($l: L, $block: RowsAt, $sink: &mut S) {
                // SAFETY: reads lie within one block: every `skip` and the bytes loaded there are within `BYTES`.
                unsafe { $body }
            }
        }
    )*};
}
pub(super) use formats;

/// The values that IQ4_NL and IQ4_XS codes stand for, plus 128.
#[rustfmt::skip]
pub(super) const IQ4_TABLE: [u8; 16] = [
    1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241,
];

/// IQ4 codes of 16 bytes, as values plus 128.
#[inline(always)]
pub(super) fn iq4_codes<L: RowLanes>(l: L, bytes: [L::U; 4]) -> [L::U; 8] {
    let mut codes = nibbles(l, bytes);
    for c in &mut codes {
        *c = l.lookup(&IQ4_TABLE, *c);
    }
    codes
}

formats! {
    // d (2) | codes (16)
    Q4_0: Q4_0, max 15, offset 8, subs 1, minimum false, |l, block, sink| {
        let scale = l.f16_low(l.load_quad(block));
        sink.put(l, 0, scaled(l, nibbles(l, l.load_4_quads(block.skip(2))), scale));
    }
    // d (2) | m (2) | codes (16)
    Q4_1: Q4_1, max 15, offset 0, subs 1, minimum true, |l, block, sink| {
        let codes = nibbles(l, l.load_4_quads(block.skip(4)));
        sink.put(l, 0, affine(l, codes, l.load_quad(block)));
    }
    // d (2) | fifth bits (4) | codes (16)
    Q5_0: Q5_0, max 31, offset 16, subs 1, minimum false, |l, block, sink| {
        let mut codes = nibbles(l, l.load_4_quads(block.skip(6)));
        fifth_bits(l, &mut codes, l.load_quad(block.skip(2)));
        sink.put(l, 0, scaled(l, codes, l.f16_low(l.load_quad(block))));
    }
    // d (2) | m (2) | fifth bits (4) | codes (16)
    Q5_1: Q5_1, max 31, offset 0, subs 1, minimum true, |l, block, sink| {
        let mut codes = nibbles(l, l.load_4_quads(block.skip(8)));
        fifth_bits(l, &mut codes, l.load_quad(block.skip(4)));
        sink.put(l, 0, affine(l, codes, l.load_quad(block)));
    }
    // d (2) | signed codes (32)
    Q8_0: Q8_0, max 255, offset 128, subs 1, minimum false, |l, block, sink| {
        let (low, high) = (l.load_4_quads(block.skip(2)), l.load_4_quads(block.skip(18)));
        let sign = l.splat_u(0x8080_8080);
        let mut codes = [sign; 8];
        for q in 0..4 {
            codes[q] = l.xor(low[q], sign);
            codes[q + 4] = l.xor(high[q], sign);
        }
        sink.put(l, 0, scaled(l, codes, l.f16_low(l.load_quad(block))));
    }
    // d (2) | indices (16)
    Iq4Nl: IQ4_NL, max 255, offset 128, subs 1, minimum false, |l, block, sink| {
        let scale = l.f16_low(l.load_quad(block));
        sink.put(l, 0, scaled(l, iq4_codes(l, l.load_4_quads(block.skip(2))), scale));
    }
}
