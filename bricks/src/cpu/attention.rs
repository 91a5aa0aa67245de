//! Attention of one token over paged f16 keys and values: one group of query heads that share a KV head.
//!
//! Online softmax (Milakov and Gimelshein, arXiv 1805.02867; `FlashAttention`, arXiv 2205.14135), one page at a time: scores of
//! the page, new maximum `m`, everything so far times `e^(m_old − m)`, then the page's values with weights `e^(score − m)`.
//! Pages are fixed runs of context positions, so where the rounding happens depends on the positions alone: not on the
//! batch, not on threads, and not on whether positions were prefilled together or decoded one by one.
//!
//! Lanes of a score are 16 elements of the head (element `d` in lane `d % 16`, then `i` with `i + 8`, `+ 4`, `+ 2`, `+ 1`); values are
//! accumulated position by position. The same bits at every [`SimdLevel`].

use std::ops::Range;

use half::f16;

use super::error::{KernelError, at_most, same};
use super::level::SimdLevel;
use super::math;
use super::simd::{Kernel, LANES, Simd, dispatch};

/// What all calls for one layer have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionGroup {
    /// Query heads that share the KV head.
    pub heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Positions per page.
    pub page_len: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// `cap · tanh(score / cap)` after scaling.
    pub softcap: Option<f32>,
}

/// Keys and values of one KV head for `page_len` consecutive positions, each `[page_len][head_dim]`.
#[derive(Debug, Clone, Copy)]
pub struct KvPage<'a> {
    /// Keys.
    pub keys: &'a [f16],
    /// Values.
    pub values: &'a [f16],
}

impl AttentionGroup {
    /// Scores from one head to the next.
    fn stride(&self) -> usize {
        self.page_len.div_ceil(LANES).saturating_mul(LANES)
    }

    /// Elements of scratch that a call needs.
    pub fn scratch_len(&self) -> usize {
        // Scores of a page, the running maximum and the running sum, per head.
        self.heads.saturating_mul(self.stride().saturating_add(2))
    }

    /// `out = softmax(scale · q · Kᵀ) · V` over the positions `visible`.
    ///
    /// * `q`, `out`: `[heads][head_dim]`. No visible position gives zeros.
    /// * `page(i)`: positions `i · page_len .. (i + 1) · page_len` of the sequence; asked only for pages with a visible position,
    ///   in order. Elements of invisible positions are not read.
    /// * `scratch`: at least [`scratch_len`](Self::scratch_len) elements, of any content.
    ///
    /// # Errors
    /// The lengths contradict each other, or a page does not exist. `out` is unspecified then.
    pub fn run<'a>(
        &self,
        level: SimdLevel,
        q: &[f32],
        visible: Range<usize>,
        mut page: impl FnMut(usize) -> Option<KvPage<'a>>,
        scratch: &mut [f32],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let size = self.heads.saturating_mul(self.head_dim);
        same("elements of the queries", size, q.len())?;
        same("elements of the attention output", size, out.len())?;
        at_most("scratch of attention", scratch.len(), self.scratch_len())?;
        let page_size = self.page_len.saturating_mul(self.head_dim);
        out.fill(0.0);
        let (maximum, rest) = scratch.split_at_mut(self.heads);
        let (sum, rest) = rest.split_at_mut(self.heads);
        let scores = &mut rest[..self.heads * self.stride()];
        maximum.fill(f32::NEG_INFINITY);
        sum.fill(0.0);
        if visible.is_empty() || size == 0 {
            return Ok(());
        }
        if self.page_len == 0 {
            return Err(KernelError::Length { what: "positions per page", expected: 1, found: 0 });
        }
        for index in visible.start / self.page_len..=(visible.end - 1) / self.page_len {
            let limit = index.saturating_sub(1);
            let KvPage { keys, values } =
                page(index).ok_or(KernelError::Limit { what: "page of the sequence", limit, found: index })?;
            same("elements of a page of keys", page_size, keys.len())?;
            same("elements of a page of values", page_size, values.len())?;
            let first = index * self.page_len;
            let seen = visible.start.max(first) - first..visible.end.min(first.saturating_add(self.page_len)) - first;
            dispatch(level, Page { group: self, q, keys, values, seen, maximum, sum, scores, out });
        }
        dispatch(level, Finish { head_dim: self.head_dim, sum, out });
        Ok(())
    }
}

/// One page for all heads.
///
/// Invariants: lengths as [`AttentionGroup::run`] has checked them; `seen` is not empty and within the page.
struct Page<'a> {
    group: &'a AttentionGroup,
    q: &'a [f32],
    keys: &'a [f16],
    values: &'a [f16],
    seen: Range<usize>,
    maximum: &'a mut [f32],
    sum: &'a mut [f32],
    scores: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Page<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let heads = self.group.heads;
        // Positions that are not seen, and the padding, weigh nothing.
        self.scores.fill(f32::NEG_INFINITY);
        let mut h = 0;
        while h < heads {
            let n = (heads - h).min(4);
            match n {
                1 => self.scores::<S, 1, 16>(s, h),
                2 => self.scores::<S, 2, 8>(s, h),
                3 => self.scores::<S, 3, 4>(s, h),
                _ => self.scores::<S, 4, 4>(s, h),
            }
            h += n;
        }
        self.softmax(s);
        let mut h = 0;
        while h < heads {
            let n = (heads - h).min(if S::WIDE { 4 } else { 2 });
            match n {
                1 => self.values_of::<S, 1>(s, h),
                2 => self.values_of::<S, 2>(s, h),
                3 => self.values_of::<S, 3>(s, h),
                _ => self.values_of::<S, 4>(s, h),
            }
            h += n;
        }
    }
}

impl Page<'_> {
    /// Scores of heads `h..h + H`, `P` positions at a time.
    #[inline(always)]
    fn scores<S: Simd, const H: usize, const P: usize>(&mut self, s: S, h: usize) {
        let mut i = self.seen.start;
        while S::WIDE && i + P <= self.seen.end {
            let dots = self.dots::<S, H, P>(s, h, i);
            let mut lanes = [0.0; LANES];
            s.store(s.sum_each(&dots), &mut lanes);
            for (n, positions) in lanes.chunks_exact(P).take(H).enumerate() {
                let at = (h + n) * self.group.stride() + i;
                self.scores[at..at + P].copy_from_slice(positions);
            }
            i += P;
        }
        while i < self.seen.end {
            let dots = self.dots::<S, H, 1>(s, h, i);
            for (n, dot) in dots.into_iter().take(H).enumerate() {
                let at = (h + n) * self.group.stride() + i;
                self.scores[at] = s.sum(dot);
            }
            i += 1;
        }
    }

    /// Products of `H` heads with `P` positions before the lanes are added: vector `n · P + p`.
    #[inline(always)]
    fn dots<S: Simd, const H: usize, const P: usize>(&self, s: S, h: usize, i: usize) -> [S::F; LANES] {
        let dim = self.group.head_dim;
        let (q, keys) = (&self.q[h * dim..(h + H) * dim], &self.keys[i * dim..(i + P) * dim]);
        let mut acc = [s.splat(0.0); LANES];
        let mut d = 0;
        while d + LANES <= dim {
            for p in 0..P {
                // SAFETY: 16 elements from `d` on are within row `p` of `P`.
                let key = s.load_f16(unsafe { sixteen(keys, p * dim + d) });
                for n in 0..H {
                    // SAFETY: 16 elements from `d` on are within row `n` of `H`.
                    let query = s.load(unsafe { sixteen(q, n * dim + d) });
                    acc[n * P + p] = s.fma(query, key, acc[n * P + p]);
                }
            }
            d += LANES;
        }
        if d < dim {
            for p in 0..P {
                let key = s.load_f16_part(&keys[p * dim + d..(p + 1) * dim]);
                for n in 0..H {
                    let query = s.load_part(&q[n * dim + d..(n + 1) * dim]);
                    acc[n * P + p] = s.fma(query, key, acc[n * P + p]);
                }
            }
        }
        acc
    }

    /// Scores to weights; maximum and sum move on, and the output is scaled to the new maximum.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, s: S) {
        let (dim, stride) = (self.group.head_dim, self.group.stride());
        let scale = s.splat(self.group.scale);
        for (h, scores) in self.scores.chunks_exact_mut(stride).enumerate() {
            let (scores, _) = scores.as_chunks_mut::<LANES>();
            let mut top = s.splat(f32::NEG_INFINITY);
            for part in &mut *scores {
                let dot = s.load(part);
                let mut x = s.mul(dot, scale);
                if let Some(cap) = self.group.softcap {
                    x = math::softcap(s, x, s.splat(cap));
                }
                // What is not seen has to stay at minus infinity, whatever the scale, and where tanh is -1.
                let x = s.select_lt(s.splat(f32::NEG_INFINITY), dot, x, dot);
                top = s.max(x, top);
                s.store(x, part);
            }
            let mut lanes = [0.0; LANES];
            s.store(top, &mut lanes);
            let old = self.maximum[h];
            let new = lanes.into_iter().fold(old, |a, b| if b > a { b } else { a });
            let mut weights = s.splat(0.0);
            for part in scores {
                let w = math::exp(s, s.sub(s.load(part), s.splat(new)));
                weights = s.add(weights, w);
                s.store(w, part);
            }
            s.store(math::exp(s, s.splat(old - new)), &mut lanes);
            let keep = if old == new { 1.0 } else { lanes[0] };
            self.maximum[h] = new;
            self.sum[h] = self.sum[h].mul_add(keep, s.sum(weights));
            if keep != 1.0 {
                let (parts, tail) = self.out[h * dim..(h + 1) * dim].as_chunks_mut::<LANES>();
                for part in parts {
                    let kept = s.mul(s.load(part), s.splat(keep));
                    s.store(kept, part);
                }
                for x in tail {
                    *x *= keep;
                }
            }
        }
    }

    /// Adds the weighted values to the output of heads `h..h + H`.
    #[inline(always)]
    fn values_of<S: Simd, const H: usize>(&mut self, s: S, h: usize) {
        let dim = self.group.head_dim;
        let mut d = 0;
        while S::WIDE && d + 4 * LANES <= dim {
            self.weighted::<S, H, 4>(s, h, d);
            d += 4 * LANES;
        }
        while d + LANES <= dim {
            self.weighted::<S, H, 1>(s, h, d);
            d += LANES;
        }
        for n in h..h + H {
            for d in d..dim {
                let mut acc = self.out[n * dim + d];
                for i in self.seen.clone() {
                    acc = self.scores[n * self.group.stride() + i].mul_add(self.values[i * dim + d].to_f32(), acc);
                }
                self.out[n * dim + d] = acc;
            }
        }
    }

    /// Elements `d..d + 16 D` of heads `h..h + H`.
    #[inline(always)]
    fn weighted<S: Simd, const H: usize, const D: usize>(&mut self, s: S, h: usize, d: usize) {
        let (dim, stride) = (self.group.head_dim, self.group.stride());
        debug_assert!(d + D * LANES <= dim && (h + H) * dim <= self.out.len());
        debug_assert!(self.seen.end * dim <= self.values.len() && (h + H) * stride <= self.scores.len());
        let mut acc = [[s.splat(0.0); D]; H];
        for (n, acc) in acc.iter_mut().enumerate() {
            for (j, acc) in acc.iter_mut().enumerate() {
                // SAFETY: these elements are within the output of head `h + n`.
                *acc = s.load(unsafe { sixteen(self.out, (h + n) * dim + d + j * LANES) });
            }
        }
        for i in self.seen.clone() {
            let mut value = [s.splat(0.0); D];
            for (j, value) in value.iter_mut().enumerate() {
                // SAFETY: these elements are within row `i` of the page.
                *value = s.load_f16(unsafe { sixteen(self.values, i * dim + d + j * LANES) });
            }
            for (n, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `i` is within the scores of head `h + n`.
                let weight = s.splat(unsafe { *self.scores.get_unchecked((h + n) * stride + i) });
                for (acc, value) in acc.iter_mut().zip(value) {
                    *acc = s.fma(weight, value, *acc);
                }
            }
        }
        for (n, acc) in acc.into_iter().enumerate() {
            for (j, acc) in acc.into_iter().enumerate() {
                s.store_part(acc, &mut self.out[(h + n) * dim + d + j * LANES..][..LANES]);
            }
        }
    }
}

/// Sixteen elements from `at` on.
///
/// # Safety
/// `at + 16 <= x.len()`.
#[inline(always)]
unsafe fn sixteen<T>(x: &[T], at: usize) -> &[T; LANES] {
    debug_assert!(at + LANES <= x.len());
    // SAFETY: as the caller promises; an array has the alignment of its elements.
    unsafe { &*x.as_ptr().add(at).cast() }
}

/// Divides by the sums of the weights.
struct Finish<'a> {
    head_dim: usize,
    sum: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (out, &sum) in self.out.chunks_exact_mut(self.head_dim).zip(self.sum) {
            let (parts, tail) = out.as_chunks_mut::<LANES>();
            for part in parts {
                let y = s.div(s.load(part), s.splat(sum));
                s.store(y, part);
            }
            for x in tail {
                *x /= sum;
            }
        }
    }
}
