//! The kernels: scores, softmax and weighted values of one split, and how splits are put together.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use super::super::math;
use super::super::simd::{Kernel, LANES, Simd};
use super::page::{Ahead, Codes, Half, KvType, Page, Wide, array, widen_scales};
use super::{AttentionGroup, PAGE, PAGES, SPLIT, Tile};

/// Vectors per register tile when `left` are left: what fills the registers without spilling.
#[inline(always)]
fn chunk(wide: bool, left: usize) -> usize {
    match left {
        8.. if wide => 8,
        6.. if wide => 6,
        4.. => 4,
        n => n,
    }
}

/// Runs `$f::<…, Q>` for the number of vectors in a register tile.
macro_rules! by_count {
    ($n:expr, $self:ident.$f:ident::<$($t:ty),*>($($arg:expr),*)) => {
        match $n {
            1 => $self.$f::<$($t,)* 1>($($arg),*),
            2 => $self.$f::<$($t,)* 2>($($arg),*),
            3 => $self.$f::<$($t,)* 3>($($arg),*),
            4 => $self.$f::<$($t,)* 4>($($arg),*),
            // Only chosen where there are registers for it.
            6 if S::WIDE => $self.$f::<$($t,)* 6>($($arg),*),
            _ if S::WIDE => $self.$f::<$($t,)* 8>($($arg),*),
            _ => {}
        }
    };
}

/// Queries in the order in which register tiles read them: for each tile of `Q` vectors `[head_dim][Q]`.
pub(super) struct Pack<'a> {
    pub(super) group: &'a AttentionGroup,
    /// Queries of each row, `[heads][head_dim]`, length checked.
    pub(super) rows: &'a [&'a [f32]],
    pub(super) out: &'a mut [f32],
}

impl Kernel for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (heads, dim) = (self.group.heads, self.group.layout.head_dim());
        let count = self.rows.len() * heads;
        let mut n = 0;
        while n < count {
            let of = chunk(S::WIDE, count - n);
            for i in 0..of {
                let (row, head) = ((n + i) / heads, (n + i) % heads);
                let query = &self.rows[row][head * dim..(head + 1) * dim];
                for (x, out) in query.iter().zip(self.out[n * dim + i..].iter_mut().step_by(of)) {
                    *out = *x;
                }
            }
            n += of;
        }
    }
}

/// One split for all vectors of a tile; vector `n` is head `n % heads` of row `n / heads`.
///
/// Invariants, checked by [`AttentionGroup`]: lengths are those of [`super::Scratch`] and [`super::Record`]; every page in which
/// a row sees a position is there, of the layout's size.
pub(super) struct Split<'a> {
    pub(super) group: &'a AttentionGroup,
    pub(super) tile: &'a Tile,
    /// First position.
    pub(super) base: usize,
    pub(super) pages: &'a [Option<&'a [u8]>; PAGES],
    pub(super) q: &'a [f32],
    /// `[vector][SPLIT]`.
    pub(super) scores: &'a mut [f32],
    /// A widened page, keys or values.
    pub(super) wide: &'a mut [f32],
    /// Widened scales.
    pub(super) scales: &'a mut [f32],
    pub(super) max: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    /// `[vector][stride]`.
    pub(super) out: &'a mut [f32],
}

impl Kernel for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let layout = self.group.layout;
        let dim = layout.head_dim();
        let stride = dim.next_multiple_of(LANES);
        let count = self.tile.rows * self.group.heads;
        // Few queries read a page once: widened on the way. Many read it widened.
        let on_the_way = count <= chunk(S::WIDE, count) && dim == stride;
        let wide = std::mem::take(&mut self.wide);
        let scales = std::mem::take(&mut self.scales);
        for (i, page) in self.pages.iter().enumerate() {
            let Some(page) = page.map(|p| layout.parts(p)) else { continue };
            let next = match self.pages.get(i + 1) {
                Some(Some(next)) => layout.parts(next).keys,
                _ => page.keys,
            };
            let ahead = Ahead { next, values: page.values };
            if !on_the_way {
                layout.widen_keys(s, page, scales, wide);
                self.score(s, Wide { data: wide, stride }, i * PAGE);
            } else if layout.kind() == KvType::F16 {
                self.score(s, Half { keys: page.keys, values: &[], ahead, head_dim: dim }, i * PAGE);
            } else {
                widen_scales(s, page.key_scales, scales);
                self.score(s, Codes { keys: page.keys, values: &[], scales, ahead, head_dim: dim }, i * PAGE);
            }
        }
        for n in 0..count {
            self.softmax(s, n);
        }
        self.out.fill(0.0);
        for (i, page) in self.pages.iter().enumerate() {
            let Some(page) = page.map(|p| layout.parts(p)) else { continue };
            let at = i * PAGE;
            if !on_the_way {
                // The last row sees furthest.
                let n = self.seen(self.tile.rows - 1).end.clamp(at, at + PAGE) - at;
                layout.widen_values(s, page, n, scales, wide);
                self.weigh(s, Wide { data: wide, stride }, at);
            } else if layout.kind() == KvType::F16 {
                self.weigh(s, Half { keys: &[], values: page.values, ahead: Ahead::NONE, head_dim: dim }, at);
            } else {
                widen_scales(s, page.value_scales, scales);
                self.weigh(s, Codes { keys: &[], values: page.values, scales, ahead: Ahead::NONE, head_dim: dim }, at);
            }
        }
    }
}

impl Split<'_> {
    /// Positions that a row sees, counted from the split's first.
    #[inline(always)]
    fn seen(&self, row: usize) -> Range<usize> {
        let visible = self.tile.visible(row);
        let end = visible.end.saturating_sub(self.base).min(SPLIT);
        visible.start.saturating_sub(self.base).min(end)..end
    }

    /// Scores of the page at `at` for the register tiles that see something of it.
    #[inline(always)]
    fn score<S: Simd, P: Page<S>>(&mut self, s: S, page: P, at: usize) {
        let heads = self.group.heads;
        let count = self.tile.rows * heads;
        let mut n = 0;
        while n < count {
            let of = chunk(S::WIDE, count - n);
            // Rows see ever later positions.
            let (start, end) = (self.seen(n / heads).start, self.seen((n + of - 1) / heads).end);
            if start < at + PAGE && at < end {
                by_count!(of, self.scores::<S, P>(s, page, n, at));
            }
            n += of;
        }
    }

    #[inline(always)]
    fn scores<S: Simd, P: Page<S>, const Q: usize>(&mut self, s: S, page: P, n: usize, at: usize) {
        if S::WIDE {
            self.half_scores::<S, P, Q, 2>(s, page, n, at, 0);
        } else {
            self.half_scores::<S, P, Q, 1>(s, page, n, at, 0);
            self.half_scores::<S, P, Q, 1>(s, page, n, at, 1);
        }
    }

    /// Scores of vectors `n..n + Q` for `H` times 16 positions from `at + 16 half` on: elements of the head in order, one by one.
    #[inline(always)]
    fn half_scores<S: Simd, P: Page<S>, const Q: usize, const H: usize>(
        &mut self,
        s: S,
        page: P,
        n: usize,
        at: usize,
        half: usize,
    ) {
        let dim = self.group.layout.head_dim();
        let q = &self.q[n * dim..(n + Q) * dim];
        let mut acc = [[s.splat(0.0); H]; Q];
        let mut d = 0;
        while d < dim {
            let mut factor = [s.splat(1.0); H];
            for (h, factor) in factor.iter_mut().enumerate() {
                *factor = page.key_scale(s, d / 32, half + h);
            }
            let end = (d + 32).min(dim);
            while d < end {
                if half == 0 {
                    page.fetch(s, d);
                }
                let mut key = [s.splat(0.0); H];
                for (h, key) in key.iter_mut().enumerate() {
                    *key = page.key(s, d, half + h, factor[h]);
                }
                // SAFETY: `d < dim`, and `q` has `dim · Q` elements.
                let x: &[f32; Q] = unsafe { array(q, d * Q) };
                for (x, acc) in x.iter().zip(&mut acc) {
                    let x = s.splat(*x);
                    for (key, acc) in key.iter().zip(acc) {
                        *acc = s.fma(x, *key, *acc);
                    }
                }
                d += 1;
            }
        }
        // In units of ln 2, so that weights are powers of 2.
        let scale = s.splat(self.group.scale * if self.group.softcap.is_none() { LOG2_E } else { 1.0 });
        for (i, acc) in acc.into_iter().enumerate() {
            let from = (n + i) * SPLIT + at + half * LANES;
            let (out, _) = self.scores[from..from + H * LANES].as_chunks_mut::<LANES>();
            for (acc, out) in acc.into_iter().zip(out) {
                let mut x = s.mul(acc, scale);
                if let Some(cap) = self.group.softcap {
                    x = s.mul(math::softcap(s, x, s.splat(cap)), s.splat(LOG2_E));
                }
                s.store(x, out);
            }
        }
    }

    /// Scores of vector `n` to weights, with their maximum and sum.
    #[inline(always)]
    fn softmax<S: Simd>(&mut self, s: S, n: usize) {
        let seen = self.seen(n / self.group.heads);
        if seen.is_empty() {
            (self.max[n], self.sum[n]) = (f32::NEG_INFINITY, 0.0);
            return;
        }
        let scores = &mut self.scores[n * SPLIT..(n + 1) * SPLIT];
        // What is not seen weighs nothing.
        let (from, to) = (seen.start / LANES * LANES, seen.end.next_multiple_of(LANES));
        scores[from..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..to].fill(f32::NEG_INFINITY);
        let (parts, _) = scores[from..to].as_chunks_mut::<LANES>();
        let mut top = s.splat(f32::NEG_INFINITY);
        for part in &*parts {
            top = s.max(s.load(part), top);
        }
        let max = s.max_lane(top);
        let shift = s.splat(max);
        let mut sum = s.splat(0.0);
        for part in parts {
            let weight = math::exp2_weight(s, s.sub(s.load(part), shift));
            sum = s.add(sum, weight);
            s.store(weight, part);
        }
        (self.max[n], self.sum[n]) = (max, s.sum(sum));
    }

    /// Adds the weighted values of the page at `at`, position by position; each vector takes only what it sees.
    #[inline(always)]
    fn weigh<S: Simd, P: Page<S>>(&mut self, s: S, page: P, at: usize) {
        let heads = self.group.heads;
        let count = self.tile.rows * heads;
        let mut n = 0;
        while n < count {
            let of = chunk(S::WIDE, count - n);
            let (first, last) = (self.seen(n / heads), self.seen((n + of - 1) / heads));
            let within = |x: usize| x.clamp(at, at + PAGE);
            // What all vectors of the register tile see, and what only some see before and after it. One call for all cases:
            // each is a copy of the kernels.
            let all = within(last.start)..within(first.end).max(within(last.start));
            for step in 0..=2 * of {
                let (n, of, positions) = if step == of {
                    (n, of, all.clone())
                } else if first == last {
                    continue;
                } else {
                    let n = n + step % (of + 1);
                    let seen = self.seen(n / heads);
                    let seen = within(seen.start)..within(seen.end);
                    let part =
                        if step < of { seen.start..seen.end.min(all.start) } else { seen.start.max(all.end)..seen.end };
                    (n, 1, part)
                };
                if !positions.is_empty() {
                    by_count!(of, self.weighted::<S, P>(s, page, n, at, positions));
                }
            }
            n += of;
        }
    }

    #[inline(always)]
    fn weighted<S: Simd, P: Page<S>, const Q: usize>(
        &mut self,
        s: S,
        page: P,
        n: usize,
        at: usize,
        positions: Range<usize>,
    ) {
        let vectors = self.group.layout.head_dim().div_ceil(LANES);
        let mut v = 0;
        while S::WIDE && Q <= 4 && v + 4 <= vectors {
            self.weighted_part::<S, P, Q, 4>(s, page, n, at, positions.clone(), v);
            v += 4;
        }
        while (S::WIDE && Q > 4 || !S::WIDE && Q <= 2) && v + 2 <= vectors {
            self.weighted_part::<S, P, Q, 2>(s, page, n, at, positions.clone(), v);
            v += 2;
        }
        while v < vectors {
            self.weighted_part::<S, P, Q, 1>(s, page, n, at, positions.clone(), v);
            v += 1;
        }
    }

    /// Elements `16 v..16 (v + D)` of vectors `n..n + Q`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn weighted_part<S: Simd, P: Page<S>, const Q: usize, const D: usize>(
        &mut self,
        s: S,
        page: P,
        n: usize,
        at: usize,
        positions: Range<usize>,
        v: usize,
    ) {
        let stride = self.group.layout.head_dim().next_multiple_of(LANES);
        let weights = &self.scores[n * SPLIT..(n + Q) * SPLIT];
        let out = &mut self.out[n * stride..(n + Q) * stride];
        let mut acc = [[s.splat(0.0); D]; Q];
        for (i, acc) in acc.iter_mut().enumerate() {
            for (j, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `v + D` vectors fit into `stride`, and `out` has `Q` rows of it.
                *acc = s.load(unsafe { array(out, i * stride + (v + j) * LANES) });
            }
        }
        debug_assert!(at <= positions.start && positions.end <= at + PAGE && at + PAGE <= SPLIT);
        for p in positions {
            let mut value = [s.splat(0.0); D];
            for (j, value) in value.iter_mut().enumerate() {
                *value = page.value(s, p - at, v + j);
            }
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: `p < SPLIT`, and there are `Q` rows of SPLIT weights.
                let [weight] = unsafe { array::<_, 1>(weights, i * SPLIT + p) };
                let weight = s.splat(*weight);
                for (value, acc) in value.iter().zip(acc) {
                    *acc = s.fma(weight, *value, *acc);
                }
            }
        }
        for (i, acc) in acc.into_iter().enumerate() {
            let from = i * stride + v * LANES;
            let (out, _) = out[from..from + D * LANES].as_chunks_mut::<LANES>();
            for (acc, out) in acc.into_iter().zip(out) {
                s.store(acc, out);
            }
        }
    }
}

/// Adds the next split to what the splits before it gave. Vectors that see nothing of it stay as they are.
pub(super) struct Merge<'a> {
    /// Elements of a vector, a multiple of 16.
    pub(super) stride: usize,
    pub(super) max: &'a mut [f32],
    pub(super) sum: &'a mut [f32],
    pub(super) out: &'a mut [f32],
    pub(super) next_max: &'a [f32],
    pub(super) next_sum: &'a [f32],
    pub(super) next_out: &'a [f32],
}

impl Kernel for Merge<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (max, _) = self.max.as_chunks_mut::<LANES>();
        let (sum, _) = self.sum.as_chunks_mut::<LANES>();
        let (next_max, _) = self.next_max.as_chunks::<LANES>();
        let (next_sum, _) = self.next_sum.as_chunks::<LANES>();
        let next = next_max.iter().zip(next_sum).zip(self.next_out.chunks(LANES * self.stride));
        let state = max.iter_mut().zip(sum).zip(self.out.chunks_mut(LANES * self.stride));
        for (((max, sum), out), ((next_max, next_sum), next_out)) in state.zip(next) {
            let (old, new) = (s.load(max), s.load(next_max));
            let top = s.max(new, old);
            let (mut keep, mut take, mut tops) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
            s.store(math::exp2_weight(s, s.sub(old, top)), &mut keep);
            s.store(math::exp2_weight(s, s.sub(new, top)), &mut take);
            s.store(top, &mut tops);
            let vectors = out.chunks_exact_mut(self.stride).zip(next_out.chunks_exact(self.stride));
            for (i, (out, next_out)) in vectors.enumerate() {
                // The largest weight is 1: a sum of 0 has nothing in it.
                if next_sum[i] == 0.0 {
                    continue;
                }
                max[i] = tops[i];
                sum[i] = next_sum[i].mul_add(take[i], sum[i] * keep[i]);
                let (keep, take) = (s.splat(keep[i]), s.splat(take[i]));
                for (out, next) in out.as_chunks_mut::<LANES>().0.iter_mut().zip(next_out.as_chunks::<LANES>().0) {
                    let y = s.fma(s.load(next), take, s.mul(s.load(out), keep));
                    s.store(y, out);
                }
            }
        }
    }
}

/// Divides by the sums of the weights and closes the gaps: `[vector][stride]` to `[vector][head_dim]`.
pub(super) struct Finish<'a> {
    pub(super) head_dim: usize,
    pub(super) sum: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let stride = self.head_dim.next_multiple_of(LANES);
        for (out, &sum) in self.out.chunks_exact_mut(stride).zip(self.sum) {
            // No visible position: zeros.
            let sum = s.splat(if sum == 0.0 { 1.0 } else { sum });
            for part in out.as_chunks_mut::<LANES>().0 {
                let y = s.div(s.load(part), sum);
                s.store(y, part);
            }
        }
        if stride != self.head_dim {
            for n in 1..self.out.len() / stride {
                self.out.copy_within(n * stride..n * stride + self.head_dim, n * self.head_dim);
            }
        }
    }
}
