//! How keys and values of [`PAGE`] consecutive positions lie in memory, per KV head.
//!
//! Keys are transposed, so that neighbouring lanes are neighbouring positions: a score needs no sum over lanes, and one key
//! vector serves every query. Values are stored position by position. All in one piece, little-endian, without padding:
//!
//! | type | keys | values |
//! | --- | --- | --- |
//! | `f16` | `f16[head_dim][PAGE]` | `f16[PAGE][head_dim]` |
//! | `q8_0` | `i8[head_dim][PAGE]`, `f16[head_dim / 32][PAGE]` scales | `i8[PAGE][head_dim]`, `f16[PAGE][head_dim / 32]` scales |
//!
//! A block of `q8_0` is 32 elements of one head at one position, so a position is written without touching its neighbours. A
//! code times its scale is exact in f32 (8 and 11 significant bits), so kernels may widen a page first or on the way.

use half::f16;

use super::super::error::{KernelError, same};
use super::super::level::SimdLevel;
use super::super::simd::{Kernel, LANES, Simd, Vector, dispatch};
use super::PAGE;

/// Elements that share a scale.
const BLOCK: usize = 32;

/// Element type of a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum KvType {
    /// Half precision.
    #[default]
    F16,
    /// 8-bit codes with one half precision scale per 32 elements of a head.
    Q8_0,
}

impl KvType {
    /// All types.
    pub const ALL: [Self; 2] = [Self::F16, Self::Q8_0];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
        }
    }
}

impl std::fmt::Display for KvType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Shape of a page: keys and values of [`PAGE`] positions of one KV head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvLayout {
    kind: KvType,
    head_dim: usize,
}

impl KvLayout {
    /// The layout of heads of `head_dim` elements.
    ///
    /// # Errors
    /// `q8_0` needs heads that are a multiple of 32; no head is empty or so large that a page cannot be addressed.
    pub fn new(kind: KvType, head_dim: usize) -> Result<Self, KernelError> {
        if head_dim == 0 {
            return Err(KernelError::Length { what: "elements of a head", expected: 1, found: 0 });
        }
        let limit = isize::MAX as usize / (4 * PAGE * 4);
        if head_dim > limit {
            return Err(KernelError::Limit { what: "elements of a head", limit, found: head_dim });
        }
        if kind == KvType::Q8_0 && !head_dim.is_multiple_of(BLOCK) {
            return Err(KernelError::Length {
                what: "elements of a head in a q8_0 cache, a multiple of 32",
                expected: head_dim.next_multiple_of(BLOCK),
                found: head_dim,
            });
        }
        Ok(Self { kind, head_dim })
    }

    /// Element type.
    pub const fn kind(self) -> KvType {
        self.kind
    }

    /// Elements per head.
    pub const fn head_dim(self) -> usize {
        self.head_dim
    }

    /// Bytes of one head's keys of one page; its values take as many.
    const fn half_bytes(self) -> usize {
        match self.kind {
            KvType::F16 => 2 * PAGE * self.head_dim,
            KvType::Q8_0 => PAGE * self.head_dim + 2 * PAGE * (self.head_dim / BLOCK),
        }
    }

    /// Bytes of a page.
    pub const fn page_bytes(self) -> usize {
        2 * self.half_bytes()
    }

    /// Bytes of one position: a page's, divided by its positions.
    pub const fn position_bytes(self) -> usize {
        self.page_bytes() / PAGE
    }

    /// Stores a key and a value as position `slot` of a page.
    ///
    /// # Errors
    /// The lengths contradict each other, or there is no such slot.
    pub fn write(
        self,
        level: SimdLevel,
        page: &mut [u8],
        slot: usize,
        key: &[f32],
        value: &[f32],
    ) -> Result<(), KernelError> {
        same("bytes of a page", self.page_bytes(), page.len())?;
        // SAFETY: the slice has all bytes of the page, exclusively.
        unsafe { self.write_shared(level, page.as_mut_ptr(), slot, key, value) }
    }

    /// [`write`](Self::write) while other threads write other slots of the same page.
    ///
    /// # Errors
    /// As [`write`](Self::write); nothing is written then.
    ///
    /// # Safety
    /// `page` points to [`page_bytes`](Self::page_bytes) bytes that live throughout the call. Meanwhile no other thread reads
    /// the page or writes the same slot, and nobody holds a reference to any of its bytes.
    pub unsafe fn write_shared(
        self,
        level: SimdLevel,
        page: *mut u8,
        slot: usize,
        key: &[f32],
        value: &[f32],
    ) -> Result<(), KernelError> {
        same("elements of a key", self.head_dim, key.len())?;
        same("elements of a value", self.head_dim, value.len())?;
        if slot >= PAGE {
            return Err(KernelError::Limit { what: "slot of a page", limit: PAGE - 1, found: slot });
        }
        // SAFETY: the caller's promise is the kernel's.
        dispatch(level, Write { layout: self, page: unsafe { Slots::new(page, self.page_bytes()) }, slot, key, value });
        Ok(())
    }

    /// Reads position `slot` of a page, widened. For checks and traces, not for the hot path.
    ///
    /// # Errors
    /// The lengths contradict each other, or there is no such slot.
    pub fn read(self, page: &[u8], slot: usize, key: &mut [f32], value: &mut [f32]) -> Result<(), KernelError> {
        let dim = self.head_dim;
        same("bytes of a page", self.page_bytes(), page.len())?;
        same("elements of a key", dim, key.len())?;
        same("elements of a value", dim, value.len())?;
        if slot >= PAGE {
            return Err(KernelError::Limit { what: "slot of a page", limit: PAGE - 1, found: slot });
        }
        let (keys, values) = page.split_at(self.half_bytes());
        let half = |x: &[u8], i: usize| f16::from_le_bytes([x[2 * i], x[2 * i + 1]]).to_f32();
        match self.kind {
            KvType::F16 => {
                for d in 0..dim {
                    key[d] = half(keys, d * PAGE + slot);
                    value[d] = half(values, slot * dim + d);
                }
            }
            KvType::Q8_0 => {
                let ((keys, key_scales), (values, value_scales)) =
                    (keys.split_at(PAGE * dim), values.split_at(PAGE * dim));
                for d in 0..dim {
                    let b = d / BLOCK;
                    key[d] = f32::from(keys[d * PAGE + slot] as i8) * half(key_scales, b * PAGE + slot);
                    value[d] = f32::from(values[slot * dim + d] as i8) * half(value_scales, slot * (dim / BLOCK) + b);
                }
            }
        }
        Ok(())
    }
}

/// The bytes of a page of which a thread writes one slot.
#[derive(Clone, Copy)]
struct Slots {
    ptr: *mut u8,
    len: usize,
}

impl Slots {
    /// # Safety
    /// As [`KvLayout::write_shared`], for as long as the value is used.
    unsafe fn new(ptr: *mut u8, len: usize) -> Self {
        Self { ptr, len }
    }

    /// Writes `bytes` at `at`, bytes of this thread's slot.
    #[inline(always)]
    fn put<const N: usize>(self, at: usize, bytes: [u8; N]) {
        debug_assert!(at + N <= self.len, "{N} bytes at {at} leave a page of {}", self.len);
        // SAFETY: within the page: `Write` computes `at` from a slot below PAGE and elements below `head_dim`, by the layout
        // that gave `len`; nobody else accesses these bytes (promised to `new`).
        unsafe { self.ptr.add(at).cast::<[u8; N]>().write_unaligned(bytes) }
    }
}

/// One key and one value into their slot.
struct Write<'a> {
    layout: KvLayout,
    page: Slots,
    slot: usize,
    key: &'a [f32],
    value: &'a [f32],
}

impl Kernel for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.layout.head_dim;
        let values = self.layout.half_bytes();
        match self.layout.kind {
            KvType::F16 => {
                narrow(s, self.key, |d, x| self.page.put(2 * (d * PAGE + self.slot), x.to_le_bytes()));
                narrow(s, self.value, |d, x| self.page.put(values + 2 * (self.slot * dim + d), x.to_le_bytes()));
            }
            KvType::Q8_0 => {
                let (slot, blocks) = (self.slot, dim / BLOCK);
                for b in 0..blocks {
                    let range = b * BLOCK..(b + 1) * BLOCK;
                    let scale = quantise(s, &self.key[range.clone()], |i, code| {
                        self.page.put((b * BLOCK + i) * PAGE + slot, code.to_le_bytes());
                    });
                    self.page.put(PAGE * dim + 2 * (b * PAGE + slot), scale.to_le_bytes());
                    let scale = quantise(s, &self.value[range], |i, code| {
                        self.page.put(values + slot * dim + b * BLOCK + i, code.to_le_bytes());
                    });
                    self.page.put(values + PAGE * dim + 2 * (slot * blocks + b), scale.to_le_bytes());
                }
            }
        }
    }
}

/// Rounds to f16.
#[inline(always)]
fn narrow<V: Vector>(s: V, x: &[f32], mut put: impl FnMut(usize, f16)) {
    for (part, x) in x.chunks(LANES).enumerate() {
        let mut lanes = [f16::ZERO; LANES];
        s.store_f16(if let Ok(x) = x.try_into() { s.load(x) } else { s.load_part(x) }, &mut lanes);
        for (i, lane) in lanes.iter().take(x.len()).enumerate() {
            put(part * LANES + i, *lane);
        }
    }
}

/// Rounds 32 values to codes of -127 to 127 and gives their scale: `max|x| / 127` rounded to f16, so that codes fit the scale
/// that is stored. A value that is not finite makes the scale a NaN: the block stays visibly broken.
#[inline(always)]
fn quantise<V: Vector>(s: V, x: &[f32], mut put: impl FnMut(usize, i8)) -> f16 {
    let (halves, _) = x.as_chunks::<LANES>();
    debug_assert_eq!(halves.len(), 2);
    let (low, high) = (s.load(&halves[0]), s.load(&halves[1]));
    let amax = f32::from_bits(s.max_lane_i(s.max_i(s.magnitude(low), s.magnitude(high))) as u32);
    let mut codes = [[0i8; LANES]; 2];
    let mut scale = if amax.is_finite() { f16::from_f32(amax / 127.0) } else { f16::NAN };
    if scale.is_infinite() {
        scale = f16::NAN;
    }
    if scale > f16::ZERO {
        let inverse = s.splat(1.0 / scale.to_f32());
        for (x, codes) in [low, high].into_iter().zip(&mut codes) {
            // A subnormal scale may be half of what it stands for.
            let x = s.mul(x, inverse);
            let x = s.max(s.select_lt(s.splat(127.0), x, s.splat(127.0), x), s.splat(-127.0));
            s.store_i8(s.to_i(x), codes);
        }
    }
    for (i, code) in codes.as_flattened().iter().enumerate() {
        put(i, *code);
    }
    scale
}

/// A page as a kernel reads it: sixteen lanes at a time, widened to f32.
pub(super) trait Page<V: Simd>: Copy {
    /// Factor of block `b` (32 elements) of keys of positions `16 half..`, for [`key`](Self::key).
    fn key_scale(self, s: V, b: usize, half: usize) -> V::F;
    /// Element `d` of the keys of positions `16 half..`.
    fn key(self, s: V, d: usize, half: usize, scale: V::F) -> V::F;
    /// Elements `16 v..` of the value of position `i`.
    fn value(self, s: V, i: usize, v: usize) -> V::F;
    /// Asks for memory that will be read after the keys, while element `d` of them is used.
    fn fetch(self, s: V, d: usize);
}

/// What is read after the keys of a page that is read once: lines must be on their way before they are needed.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    /// Keys of the next page.
    pub(super) next: &'a [u8],
    /// Values of this page.
    pub(super) values: &'a [u8],
}

impl Ahead<'_> {
    /// Nothing.
    pub(super) const NONE: Self = Self { next: &[], values: &[] };

    /// Asks for the `line` bytes of both that belong to element `d`.
    #[inline(always)]
    fn fetch<S: Simd>(self, s: S, line: usize, d: usize) {
        s.prefetch(self.next.as_ptr().wrapping_add(d * line));
        s.prefetch(self.values.as_ptr().wrapping_add(d * line));
    }
}

/// `f16`, of heads that are a multiple of 16.
#[derive(Clone, Copy)]
pub(super) struct Half<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) ahead: Ahead<'a>,
    pub(super) head_dim: usize,
}

impl<V: Simd> Page<V> for Half<'_> {
    #[inline(always)]
    fn key_scale(self, s: V, _: usize, _: usize) -> V::F {
        s.splat(1.0)
    }

    #[inline(always)]
    fn key(self, s: V, d: usize, half: usize, _: V::F) -> V::F {
        // SAFETY: `d < head_dim` and `half < 2`: within the page's keys.
        s.load_f16_bytes(unsafe { array(self.keys, 2 * (d * PAGE + half * LANES)) })
    }

    #[inline(always)]
    fn value(self, s: V, i: usize, v: usize) -> V::F {
        // SAFETY: `i < PAGE` and `16 v + 16 <= head_dim`: within the page's values.
        s.load_f16_bytes(unsafe { array(self.values, 2 * (i * self.head_dim + v * LANES)) })
    }

    #[inline(always)]
    fn fetch(self, s: V, d: usize) {
        self.ahead.fetch(s, 2 * PAGE, d);
    }
}

/// `q8_0`, with its scales widened.
#[derive(Clone, Copy)]
pub(super) struct Codes<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    /// Of the keys or of the values, whichever are read: `[head_dim / 32][PAGE]` or `[PAGE][head_dim / 32]`.
    pub(super) scales: &'a [f32],
    pub(super) ahead: Ahead<'a>,
    pub(super) head_dim: usize,
}

impl<V: Simd> Page<V> for Codes<'_> {
    #[inline(always)]
    fn key_scale(self, s: V, b: usize, half: usize) -> V::F {
        // SAFETY: `b < head_dim / 32` and `half < 2`: within the scales.
        s.load(unsafe { array(self.scales, b * PAGE + half * LANES) })
    }

    #[inline(always)]
    fn key(self, s: V, d: usize, half: usize, scale: V::F) -> V::F {
        // SAFETY: `d < head_dim` and `half < 2`: within the page's codes.
        s.mul(s.load_i8_bytes(unsafe { array(self.keys, d * PAGE + half * LANES) }), scale)
    }

    #[inline(always)]
    fn value(self, s: V, i: usize, v: usize) -> V::F {
        // SAFETY: `i < PAGE` and `16 v + 16 <= head_dim`: within the page's codes, and their block within the scales.
        let (codes, [scale]) = unsafe {
            (
                array(self.values, i * self.head_dim + v * LANES),
                array::<_, 1>(self.scales, i * (self.head_dim / BLOCK) + v * LANES / BLOCK),
            )
        };
        s.mul(s.load_i8_bytes(codes), s.splat(*scale))
    }

    #[inline(always)]
    fn fetch(self, s: V, d: usize) {
        self.ahead.fetch(s, PAGE, d);
    }
}

/// Keys `[head_dim][PAGE]` or values `[PAGE][stride]` already widened; `stride` is a multiple of 16.
#[derive(Clone, Copy)]
pub(super) struct Wide<'a> {
    pub(super) data: &'a [f32],
    pub(super) stride: usize,
}

impl<V: Simd> Page<V> for Wide<'_> {
    #[inline(always)]
    fn key_scale(self, s: V, _: usize, _: usize) -> V::F {
        s.splat(1.0)
    }

    #[inline(always)]
    fn key(self, s: V, d: usize, half: usize, _: V::F) -> V::F {
        // SAFETY: `d < head_dim` and `half < 2`: within the keys.
        s.load(unsafe { array(self.data, d * PAGE + half * LANES) })
    }

    #[inline(always)]
    fn value(self, s: V, i: usize, v: usize) -> V::F {
        // SAFETY: `i < PAGE` and `16 v + 16 <= stride`: within the values.
        s.load(unsafe { array(self.data, i * self.stride + v * LANES) })
    }

    /// It is in a cache already, and so is what follows once it has been widened.
    #[inline(always)]
    fn fetch(self, _: V, _: usize) {}
}

/// A stored page, cut into its parts.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) keys: &'a [u8],
    pub(super) key_scales: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) value_scales: &'a [u8],
}

impl KvLayout {
    /// Cuts a page into its parts; scales are empty in f16.
    pub(super) fn parts(self, page: &[u8]) -> Parts<'_> {
        let elements = match self.kind {
            KvType::F16 => 2 * PAGE * self.head_dim,
            KvType::Q8_0 => PAGE * self.head_dim,
        };
        let (keys, values) = page.split_at(self.half_bytes());
        let ((keys, key_scales), (values, value_scales)) = (keys.split_at(elements), values.split_at(elements));
        Parts { keys, key_scales, values, value_scales }
    }

    /// Widens the keys of a page to `[head_dim][PAGE]`; `scales` is room for `head_dim` floats.
    #[inline(always)]
    pub(super) fn widen_keys<V: Simd>(self, s: V, page: Parts<'_>, scales: &mut [f32], out: &mut [f32]) {
        let (out, _) = out[..PAGE * self.head_dim].as_chunks_mut::<LANES>();
        match self.kind {
            KvType::F16 => {
                for (out, x) in out.iter_mut().zip(page.keys.as_chunks::<{ 2 * LANES }>().0) {
                    s.store(s.load_f16_bytes(x), out);
                }
            }
            KvType::Q8_0 => {
                widen_scales(s, page.key_scales, scales);
                let from = Codes { keys: page.keys, values: &[], scales, ahead: Ahead::NONE, head_dim: self.head_dim };
                for (i, out) in out.iter_mut().enumerate() {
                    let (d, half) = (i / 2, i % 2);
                    s.store(from.key(s, d, half, from.key_scale(s, d / BLOCK, half)), out);
                }
            }
        }
    }

    /// Widens the values of positions `..n` of a page to `[n][stride]`, with zeros behind each row.
    #[inline(always)]
    pub(super) fn widen_values<V: Simd>(self, s: V, page: Parts<'_>, n: usize, scales: &mut [f32], out: &mut [f32]) {
        let dim = self.head_dim;
        let stride = dim.next_multiple_of(LANES);
        if self.kind == KvType::Q8_0 {
            widen_scales(s, page.value_scales, scales);
        }
        for (i, out) in out[..n * stride].chunks_exact_mut(stride).enumerate() {
            let (out, _) = out.as_chunks_mut::<LANES>();
            for (v, out) in out.iter_mut().enumerate() {
                let x = match self.kind {
                    KvType::F16 if (v + 1) * LANES <= dim => {
                        Half { keys: &[], values: page.values, ahead: Ahead::NONE, head_dim: dim }.value(s, i, v)
                    }
                    KvType::F16 => {
                        let mut lanes = [0; 2 * LANES];
                        let tail = &page.values[2 * (i * dim + v * LANES)..2 * (i + 1) * dim];
                        lanes[..tail.len()].copy_from_slice(tail);
                        s.load_f16_bytes(&lanes)
                    }
                    KvType::Q8_0 => Codes { keys: &[], values: page.values, scales, ahead: Ahead::NONE, head_dim: dim }
                        .value(s, i, v),
                };
                s.store(x, out);
            }
        }
    }
}

/// Widens scales; their number is a multiple of 32.
#[inline(always)]
pub(super) fn widen_scales<V: Vector>(s: V, from: &[u8], to: &mut [f32]) {
    let (from, _) = from.as_chunks::<{ 2 * LANES }>();
    let (to, _) = to.as_chunks_mut::<LANES>();
    for (from, to) in from.iter().zip(to) {
        s.store(s.load_f16_bytes(from), to);
    }
}

/// `N` elements from `at` on.
///
/// # Safety
/// `at + N <= x.len()`.
#[inline(always)]
pub(super) unsafe fn array<T, const N: usize>(x: &[T], at: usize) -> &[T; N] {
    debug_assert!(at + N <= x.len(), "{N} elements at {at} of {}", x.len());
    // SAFETY: as the caller promises; an array has the alignment of its elements.
    unsafe { &*x.as_ptr().add(at).cast() }
}
