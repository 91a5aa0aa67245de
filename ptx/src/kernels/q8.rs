//! Rounding to 8-bit codes on the device: the part that every kernel with quantised output shares.
//!
//! A block is 32 consecutive values in eight neighbouring lanes, four values per lane, so that a warp stores 128 bytes
//! of codes at a time. The arithmetic is that of the CPU backend, bit for bit: the largest magnitude as an unsigned
//! number, two true divisions per block, codes rounded to nearest even. A block that holds an infinity or a NaN gets a
//! NaN for its scale; one whose magnitudes are all below 127 times the smallest normal number is zero.
//!
//! Results lie in the tiles of [`activation`](super::activation).

use super::activation;
use crate::build::{B32, F32, KernelBuilder, Ptr, Reg, S32, U32, types::Word};

/// Columns of a group.
pub(super) const GROUP: u32 = activation::GROUP as u32;
/// Magnitudes from here on are infinities and NaNs.
pub(super) const NOT_FINITE: u32 = 0x7f80_0000;
/// Scale of a block that holds one.
pub(super) const POISON: f32 = f32::from_bits(0x7fc0_0000);
/// Blocks below it are zero: their scale would be subnormal.
pub(super) const MIN_AMAX: f32 = 127.0 * f32::MIN_POSITIVE;

/// What a lane holds of a block.
pub(super) struct Coded {
    /// The codes of its four values.
    pub(super) codes: Reg<B32>,
    /// The scale of the block.
    scale: Reg<F32>,
    /// Sum of the codes of the lane's half of the block, and of the other half.
    sums: [Reg<S32>; 2],
}

impl Coded {
    /// The part of a tile behind the codes, of a lane that holds the beginning of a block: scale and sums.
    pub(super) fn parts(&self, k: &KernelBuilder) -> [Reg<B32>; 4] {
        let [sum, other] = self.sums;
        let whole = k.add(sum, other);
        let scaled = k.mul(self.scale, k.to_f32(whole));
        let [scale, scaled] = [self.scale, scaled].map(|x| k.bitcast::<F32, B32>(x));
        [scale, scaled, k.prmt(sum, other, 0x5410), whole.as_ty()]
    }
}

/// Encodes four blocks. All lanes of the warp take part.
pub(super) fn encode(k: &KernelBuilder, x: [Reg<F32>; 4]) -> Coded {
    let magnitude = x.map(|x| k.and(k.bitcast::<F32, U32>(x), 0x7fff_ffff));
    let largest = magnitude[1..].iter().fold(magnitude[0], |m, &v| k.max(m, v));
    let largest = over_lanes(k, largest, &[4, 2, 1], |a, b| k.max(a, b));
    let amax = k.bitcast::<U32, F32>(largest);
    let finite = k.lt(largest, NOT_FINITE);
    let coded = k.and(finite, k.ge(amax, MIN_AMAX));
    let inverse = k.select(coded, k.div_rn(127.0, amax), 0.0);
    let scale = k.select(coded, k.div_rn(amax, 127.0), k.select(finite, 0.0, POISON));

    // A product with 0 is 0 or NaN, and both become the code 0.
    let code = x.map(|x| k.to_s8(k.mul(x, inverse)));
    let pair = |low: Reg<S32>, high: Reg<S32>| k.prmt(low, high, 0x0040);
    let codes = k.prmt(pair(code[0], code[1]), pair(code[2], code[3]), 0x5410);
    let sum = over_lanes(k, k.dp4a(codes.as_ty::<S32>(), 0x0101_0101, 0), &[2, 1], |a, b| k.add(a, b));
    Coded { codes, scale, sums: [sum, k.shfl_bfly(sum, 4)] }
}

/// The tiles of the result.
pub(super) struct Tiles {
    /// The first of them.
    pub(super) start: Ptr<B32>,
    /// Tokens that there are tiles of.
    pub(super) tokens: Reg<U32>,
}

impl Tiles {
    /// Those of a chunk, which follow the tiles of `chunk` others with as many tokens.
    pub(super) fn of_chunk(
        k: &KernelBuilder,
        first: Ptr<B32>,
        columns: Reg<U32>,
        tokens: Reg<U32>,
        chunk: Reg<U32>,
    ) -> Self {
        let groups = k.shr(k.add(columns, GROUP - 1), GROUP.trailing_zeros());
        let before = k.mul(chunk, k.mul(groups, tokens));
        Self { start: k.index_by(first, before, activation::TILE as u32), tokens }
    }

    /// Stores what the lane holds of `token`; `column` is that of its first value.
    pub(super) fn store(&self, k: &KernelBuilder, token: Reg<U32>, column: Reg<U32>, coded: &Coded) {
        let tile = k.index_by(self.start, k.mad(k.shr(column, 10), self.tokens, token), activation::TILE as u32);
        let (block, half) = (k.and(k.shr(column, 5), 31), k.and(k.shr(column, 4), 1));
        let codes = k.index_by(tile, k.mad(half, activation::LANES as u32, block), 16);
        k.st(k.index(codes, k.and(k.laneid(), 3)), coded.codes);
        k.if_(k.eq(k.and(k.laneid(), 7), 0), || {
            let parts = coded.parts(k);
            k.st4(k.index_by(tile, block, 16).offset(activation::SCALES as i32), parts);
        });
    }

    /// Fills a group of `token` up with blocks of zeros, from block `from` of it on. All lanes of a warp take part.
    pub(super) fn clear(&self, k: &KernelBuilder, token: Reg<U32>, group: Reg<U32>, from: Reg<U32>) {
        k.if_(k.ge(k.laneid(), from), || {
            let tile = k.index_by(self.start, k.mad(group, self.tokens, token), activation::TILE as u32);
            let block = k.index_by(tile, k.laneid(), 16);
            for part in [0, 512, activation::SCALES as i32] {
                k.st4(block.offset(part), [0_u32; 4]);
            }
        });
    }
}

/// Combines with the lanes that are `distances` away.
fn over_lanes<T: Word>(
    k: &KernelBuilder,
    value: Reg<T>,
    distances: &[u32],
    combine: impl Fn(Reg<T>, Reg<T>) -> Reg<T>,
) -> Reg<T> {
    distances.iter().fold(value, |v, &distance| combine(v, k.shfl_bfly(v, distance)))
}
