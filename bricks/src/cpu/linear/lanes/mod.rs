//! Vectors whose lanes are output rows: the instruction-set part of the quantised kernels.
//!
//! A *quad* is four consecutive bytes of a row, one per input. A vector [`RowLanes::U`] holds one quad of each of
//! [`ROWS`](RowLanes::ROWS) neighbouring output rows, lane `r` = row `r`. One dot instruction then multiplies it with four
//! activations that are broadcast to all lanes: no horizontal sum is ever needed, the result is neighbouring outputs, and
//! unpacking, scales and minimums are element-wise work on all rows at once.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
mod portable;

use std::ops::Range;

use super::format::Coding;
use super::layout::{PackedAt, PackedMatrix, ROW_GROUP};

/// `1.5 · 2²³`: an f32 whose bits, with an integer `|n| < 2²²` added to them, are those of `MAGIC + n`. A dot product of a
/// chunk is at most `32 · 128 · 127`: where it begins with these bits, it need not be converted to a float.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// Which lanes of a group are outputs of the caller: `first..end`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::cpu) struct Owned {
    pub(super) first: usize,
    pub(super) end: usize,
}

impl Owned {
    /// Of the caller's `rows`, those that stand in `lanes` lanes from row `start` on.
    #[inline(always)]
    pub(super) fn of(rows: &Range<usize>, start: usize, lanes: usize) -> Self {
        let lane = |row: usize| row.clamp(start, start + lanes) - start;
        Self { first: lane(rows.start), end: lane(rows.end) }
    }

    /// A bit for each lane of at most sixteen.
    #[inline(always)]
    pub(super) fn mask(self) -> u16 {
        debug_assert!(self.first <= self.end && self.end <= 16);
        (((1u32 << self.end) - 1) & !((1u32 << self.first) - 1)) as u16
    }
}

/// Neighbouring rows of a group, one per lane: where they are packed, and which of them are the caller's.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) at: PackedAt,
    /// Row of lane 0.
    pub(super) start: usize,
    pub(super) owned: Owned,
}

impl Rows {
    /// The vector of lanes that begins at row `start`, a multiple of the lanes.
    ///
    /// # Safety
    /// The matrix has a row `start`.
    #[inline(always)]
    pub(super) unsafe fn at<L: RowLanes>(weight: &PackedMatrix<'_>, rows: &Range<usize>, start: usize) -> Self {
        debug_assert!(start.is_multiple_of(L::ROWS));
        // SAFETY: the group of an existing row exists, and the row is below a group's rows.
        let at = unsafe { weight.group(start / ROW_GROUP).rows_from(start % ROW_GROUP) };
        Self { at, start, owned: Owned::of(rows, start, L::ROWS) }
    }
}

/// Vectors with one lane per output row.
pub(in crate::cpu) trait RowLanes: Copy {
    /// Lanes; a divisor of [`ROW_GROUP`](super::layout::ROW_GROUP).
    const ROWS: usize;
    /// Vectors that the registers hold.
    const REGISTERS: usize;
    /// A quad of bytes, or an i32, per row.
    type U: Copy;
    /// An f32 per row.
    type R: Copy;

    /// Four bytes of each row, at any alignment.
    ///
    /// # Safety
    /// `4 · ROWS` bytes are readable from `src` on.
    unsafe fn load_u(self, src: *const u8) -> Self::U;

    /// An f16 of each row, widened exactly.
    ///
    /// # Safety
    /// `2 · ROWS` bytes are readable from `src` on.
    unsafe fn load_f16s(self, src: *const u8) -> Self::R;

    /// Sixteen bits of each row.
    ///
    /// # Safety
    /// `2 · ROWS` bytes are readable from `src` on.
    unsafe fn load_u16s(self, src: *const u8) -> Self::U;

    /// Asks for the cache line at `at` to be brought near; any address will do.
    fn prefetch(self, at: *const u8);

    /// The same 32 bits in every lane.
    fn splat_u(self, bits: u32) -> Self::U;
    fn and(self, a: Self::U, b: Self::U) -> Self::U;
    fn or(self, a: Self::U, b: Self::U) -> Self::U;
    /// Each lane shifted left. Shifts are by a number of bits that need not be a constant: the compiler does not unroll all loops.
    fn shl(self, a: Self::U, bits: u32) -> Self::U;
    /// Each lane shifted right, zeros shifted in.
    fn shr(self, a: Self::U, bits: u32) -> Self::U;
    /// Each lane shifted right, the sign shifted in.
    fn sar(self, a: Self::U, bits: u32) -> Self::U;
    /// Each lane plus `x`, as i32.
    fn add_i(self, a: Self::U, x: i32) -> Self::U;
    /// `table[byte]` for each byte, all of which must be below 16.
    fn lookup(self, table: &[u8; 16], bytes: Self::U) -> Self::U;

    fn splat_r(self, x: f32) -> Self::R;
    /// The bits of each lane as f32.
    fn as_r(self, a: Self::U) -> Self::R;
    /// Each lane from i32.
    fn to_r(self, a: Self::U) -> Self::R;
    fn mul_r(self, a: Self::R, b: Self::R) -> Self::R;
    /// `a · b + c`, rounded once.
    fn fma_r(self, a: Self::R, b: Self::R, c: Self::R) -> Self::R;
    fn add_r(self, a: Self::R, b: Self::R) -> Self::R;
    /// Lanes outside `owned` are 0.
    ///
    /// # Safety
    /// f32 are readable at `src + i` for every `i` in `owned`.
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> Self::R;
    /// Lanes outside `owned` are not touched.
    ///
    /// # Safety
    /// f32 are writable at `dst + i` for every `i` in `owned`, and nobody else touches them meanwhile.
    unsafe fn store_r(self, v: Self::R, dst: *mut f32, owned: Owned);

    /// Each lane's pair of i16 (the first in its low bits), weighed, and added: `start + pair[0] · w0 + pair[1] · w1`.
    fn weigh(self, start: Self::U, pairs: Self::U, w0: i16, w1: i16) -> Self::U;

    /// Codes of a chunk as [`dots`](Self::dots) wants them: done once, for all tokens.
    #[inline(always)]
    fn ready<C: Coding>(self, codes: [Self::U; 8]) -> [Self::U; 8] {
        codes
    }

    /// For each of `N` tokens, `Σ (code − C::OFFSET) · activation` over the 32 inputs of a chunk, exactly; over its first and its
    /// last 16 inputs if the coding has a scale for each, else the whole and an unspecified vector. `start` is
    /// `−C::OFFSET · Σ activation`, divided likewise; to it, and so to the result, [`MAGIC`]'s bits are added in the first.
    /// Codes are what [`ready`](Self::ready) has made of them.
    ///
    /// # Safety
    /// For each token, 32 activations are readable from its address on.
    unsafe fn dots<C: Coding, const N: usize>(
        self,
        codes: &[Self::U; 8],
        acts: [*const i8; N],
        start: [[Self::U; 2]; N],
    ) -> [[Self::U; 2]; N];
}
