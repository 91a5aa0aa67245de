//! What a quantised format is to the kernels: how packed blocks become unsigned codes, scales and minimums.
//!
//! Every format is reduced to *chunks* of 32 inputs: `weight = scale · (code − OFFSET) + minimum`, with one scale and minimum
//! per chunk, or one for each half of it. Unpacking works on all rows of a vector at once, see [`lanes`](super::lanes); each
//! format is written once for all instruction sets. Packed blocks are described in [`layout`](super::layout).

use super::lanes::RowLanes;
use super::layout::{HALF, Layout, PLANE, PackedAt};
use crate::DType;

/// 32 inputs of a vector of rows, unpacked.
#[derive(Clone, Copy)]
pub(in crate::cpu) struct Chunk<L: RowLanes> {
    /// Quad `q`: codes of inputs `4 q .. 4 q + 4`, unsigned.
    pub(super) codes: [L::U; 8],
    /// Scales of the first and of the last 16 inputs; only the first is used if [`Coding::SUBS`] is 1.
    pub(super) scale: [L::R; 2],
    /// Minimums, likewise; used only if [`Coding::MINIMUM`].
    pub(super) minimum: [L::R; 2],
}

/// Takes chunks as they are unpacked.
pub(in crate::cpu) trait Sink<L: RowLanes> {
    /// Chunk `index` of the block that is being unpacked.
    fn put(&mut self, lanes: L, index: usize, chunk: Chunk<L>);
}

/// What the codes of a format mean. Several formats share a coding, and the kernels that work on unpacked chunks.
pub(in crate::cpu) trait Coding {
    /// Largest unsigned code. AVX2 and NEON have to know: their 16-bit sums saturate or overflow.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    const MAX: u8;
    /// Subtracted from every code. 128 if (and only if) codes have 8 bits.
    const OFFSET: i16;
    /// Scales per chunk: 1 or 2.
    const SUBS: usize;
    /// Whether weights have minimums.
    const MINIMUM: bool;
}

/// A [`Coding`] by its numbers.
pub(in crate::cpu) struct Code<const MAX: u8, const OFFSET: i16, const SUBS: usize, const MINIMUM: bool>;

impl<const MAX: u8, const OFFSET: i16, const SUBS: usize, const MINIMUM: bool> Coding
    for Code<MAX, OFFSET, SUBS, MINIMUM>
{
    const MAX: u8 = MAX;
    const OFFSET: i16 = OFFSET;
    const SUBS: usize = SUBS;
    const MINIMUM: bool = MINIMUM;
}

/// A quantised format.
pub(in crate::cpu) trait Format {
    /// Which.
    const DTYPE: DType;
    /// What its codes mean.
    type Coding: Coding;

    /// How its blocks are packed.
    const LAYOUT: Layout = Layout::of(Self::DTYPE);
    /// Chunks per block: 1 or 8.
    const CHUNKS: usize = Self::DTYPE.block_len() / 32;

    /// Unpacks one block, chunks in order.
    ///
    /// # Safety
    /// `at` is a block of this format, at the first row of the vector.
    unsafe fn unpack<L: RowLanes, S: Sink<L>>(lanes: L, at: PackedAt, sink: &mut S);
}

const LOW_NIBBLES: u32 = 0x0f0f_0f0f;

/// Plane `p` of a block.
///
/// # Safety
/// The block has it.
#[inline(always)]
pub(super) unsafe fn plane<L: RowLanes>(l: L, at: PackedAt, p: usize) -> L::U {
    // SAFETY: as the caller promises.
    unsafe { l.load_u(at.planes.add(PLANE * p)) }
}

/// Planes `first..first + N` of a block.
///
/// # Safety
/// The block has them.
#[inline(always)]
pub(super) unsafe fn planes<L: RowLanes, const N: usize>(l: L, at: PackedAt, first: usize) -> [L::U; N] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut out = [plane(l, at, first); N];
        for (p, out) in out.iter_mut().enumerate() {
            *out = plane(l, at, first + p);
        }
        out
    }
}

/// The f16 of half `h` of a block.
///
/// # Safety
/// The block has it.
#[inline(always)]
pub(super) unsafe fn half<L: RowLanes>(l: L, at: PackedAt, h: usize) -> L::R {
    // SAFETY: as the caller promises.
    unsafe { l.load_f16s(at.halves.add(HALF * h)) }
}

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

/// Adds bit `q` of each byte of `bits` to the code of quad `q` as its fifth bit.
#[inline(always)]
fn fifth_bits<L: RowLanes>(l: L, codes: &mut [L::U; 8], bits: L::U) {
    let mask = l.splat_u(0x1010_1010);
    for (q, c) in codes.iter_mut().enumerate() {
        let moved = if q < 4 { l.shl(bits, 4 - q as u32) } else { l.shr(bits, q as u32 - 4) };
        *c = l.or(*c, l.and(moved, mask));
    }
}

/// A chunk with one scale and no minimum.
#[inline(always)]
fn scaled<L: RowLanes>(l: L, codes: [L::U; 8], scale: L::R) -> Chunk<L> {
    let zero = l.splat_r(0.0);
    Chunk { codes, scale: [scale, zero], minimum: [zero; 2] }
}

/// A chunk with one scale and one minimum.
#[inline(always)]
fn affine<L: RowLanes>(l: L, codes: [L::U; 8], scale: L::R, minimum: L::R) -> Chunk<L> {
    let zero = l.splat_r(0.0);
    Chunk { codes, scale: [scale, zero], minimum: [minimum, zero] }
}

/// Declares formats; the body sees the lanes, the block and the sink.
macro_rules! formats {
    ($($name:ident: $dtype:ident, max $max:literal, offset $offset:literal, subs $subs:literal, minimum $min:literal,
        |$l:ident, $at:ident, $sink:ident| $body:block)*) => {$(
        pub(in crate::cpu) struct $name;

        impl Format for $name {
            const DTYPE: DType = DType::$dtype;
            type Coding = $crate::cpu::linear::format::Code<$max, $offset, $subs, $min>;

            #[inline(always)]
            unsafe fn unpack<L: RowLanes, S: Sink<L>>($l: L, $at: PackedAt, $sink: &mut S) {
                // SAFETY: only planes and halves of the format's layout are loaded.
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
    // planes: codes (4); halves: d
    Q4_0: Q4_0, max 15, offset 8, subs 1, minimum false, |l, at, sink| {
        sink.put(l, 0, scaled(l, nibbles(l, planes(l, at, 0)), half(l, at, 0)));
    }
    // planes: codes (4); halves: d, m
    Q4_1: Q4_1, max 15, offset 0, subs 1, minimum true, |l, at, sink| {
        sink.put(l, 0, affine(l, nibbles(l, planes(l, at, 0)), half(l, at, 0), half(l, at, 1)));
    }
    // planes: codes (4), fifth bits (1); halves: d
    Q5_0: Q5_0, max 31, offset 16, subs 1, minimum false, |l, at, sink| {
        let mut codes = nibbles(l, planes(l, at, 0));
        fifth_bits(l, &mut codes, plane(l, at, 4));
        sink.put(l, 0, scaled(l, codes, half(l, at, 0)));
    }
    // planes: codes (4), fifth bits (1); halves: d, m
    Q5_1: Q5_1, max 31, offset 0, subs 1, minimum true, |l, at, sink| {
        let mut codes = nibbles(l, planes(l, at, 0));
        fifth_bits(l, &mut codes, plane(l, at, 4));
        sink.put(l, 0, affine(l, codes, half(l, at, 0), half(l, at, 1)));
    }
    // planes: codes plus 128 (8); halves: d
    Q8_0: Q8_0, max 255, offset 128, subs 1, minimum false, |l, at, sink| {
        sink.put(l, 0, scaled(l, planes(l, at, 0), half(l, at, 0)));
    }
    // planes: indices (4); halves: d
    Iq4Nl: IQ4_NL, max 255, offset 128, subs 1, minimum false, |l, at, sink| {
        sink.put(l, 0, scaled(l, iq4_codes(l, planes(l, at, 0)), half(l, at, 0)));
    }
}
