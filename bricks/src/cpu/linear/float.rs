//! F32 and F16 weights times f32 activations, generic over element type and instruction set.
//!
//! Lanes are output rows, as in the quantised kernels. Per run of 32 inputs one chain of fused multiply-adds from zero, input by
//! input; the runs' results are added in order. Runs are independent of each other, so a single token does not wait for
//! the latency of its chain.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::lanes::{RowLanes, Rows};
use super::layout::{HALF, Layout, PACKED_ALIGN, PLANE, PackedAt};
use super::{AHEAD, Job};
use crate::DType;
use crate::cpu::simd::{Kernel, Simd};

/// Inputs of a run.
const RUN: usize = 32;
/// Inputs of a panel of two vectors of widened weights: 16 KiB at most, which stay in the first-level cache.
const PANEL: usize = 4 * RUN;
/// Vectors of rows that are computed together.
const VECTORS: usize = 2;
/// Tokens of a tile where registers are few, and where there are 32.
const NARROW: usize = 3;
const WIDE: usize = 6;

/// An element type of float weights.
pub(super) trait Element {
    /// Which.
    const DTYPE: DType;

    /// One input of every row of the vector, widened exactly.
    ///
    /// # Safety
    /// `at` is a packed input of this type, at the first row of the vector.
    unsafe fn load<L: RowLanes>(l: L, at: PackedAt) -> L::R;
}

macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident: |$l:ident, $at:ident| $load:expr;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Element for $name {
            const DTYPE: DType = DType::$name;

            #[inline(always)]
            unsafe fn load<L: RowLanes>($l: L, $at: PackedAt) -> L::R {
                // SAFETY: the caller promises the element's plane or half.
                unsafe { $load }
            }
        }
    )*};
}

elements! {
    /// IEEE binary32.
    F32: |l, at| l.as_r(l.load_u(at.planes));
    /// IEEE binary16.
    F16: |l, at| l.load_f16s(at.halves);
}

/// A call with weights of type `E`.
pub(super) struct Float<'a, E> {
    job: Job<'a, &'a [f32]>,
    element: PhantomData<E>,
}

impl<'a, E: Element> Float<'a, E> {
    pub(super) fn new(job: Job<'a, &'a [f32]>) -> Self {
        Self { job, element: PhantomData }
    }
}

impl<E: Element> Kernel for Float<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = &self.job;
        let lanes = <S as RowLanes>::ROWS;
        let mut start = job.rows.start / lanes * lanes;
        while start < job.rows.end {
            let next = start + lanes;
            // SAFETY: vectors begin below the job's end; rows and tokens are the job's.
            unsafe {
                let first = Rows::at::<S>(&job.weight, &job.rows, start);
                if next < job.rows.end {
                    rows::<S, E, VECTORS>(s, job, [first, Rows::at::<S>(&job.weight, &job.rows, next)]);
                    start = next + lanes;
                } else {
                    rows::<S, E, 1>(s, job, [first]);
                    start = next;
                }
            }
        }
    }
}

/// All tokens times `V` vectors of rows.
///
/// # Safety
/// The rows are within the matrix, those owned within the job's.
#[inline(always)]
unsafe fn rows<L: RowLanes, E: Element, const V: usize>(l: L, job: &Job<'_, &[f32]>, rows: [Rows; V]) {
    let mut panel = [[const { MaybeUninit::<L::R>::uninit() }; V]; PANEL];
    let mut first = 0;
    while first < job.cols {
        let len = (job.cols - first).min(PANEL);
        // SAFETY: inputs `first..first + len` are packed; the panel has room for them; the tokens are the job's.
        unsafe {
            if job.tokens == 1 {
                tile::<L, E, V, 1, true>(l, job, &rows, &panel, first, len, 0);
            } else {
                for (i, inputs) in panel.iter_mut().enumerate().take(len) {
                    for (input, rows) in inputs.iter_mut().zip(&rows) {
                        input.write(E::load(l, rows.at.skip(const { Layout::of(E::DTYPE) }, first + i)));
                    }
                }
                let mut t = 0;
                while t < job.tokens {
                    let n = (job.tokens - t).min(if L::REGISTERS >= 32 { WIDE } else { NARROW });
                    match n {
                        1 => tile::<L, E, V, 1, false>(l, job, &rows, &panel, first, len, t),
                        2 => tile::<L, E, V, 2, false>(l, job, &rows, &panel, first, len, t),
                        3 => tile::<L, E, V, NARROW, false>(l, job, &rows, &panel, first, len, t),
                        4 => tile::<L, E, V, 4, false>(l, job, &rows, &panel, first, len, t),
                        5 => tile::<L, E, V, 5, false>(l, job, &rows, &panel, first, len, t),
                        _ => tile::<L, E, V, WIDE, false>(l, job, &rows, &panel, first, len, t),
                    }
                    t += n;
                }
            }
        }
        first += len;
    }
}

/// Tokens `t..t + N` times inputs `first..first + len`; between panels the sums rest in the output. With `STREAM`, weights come
/// straight from the packed matrix instead of the panel.
///
/// # Safety
/// The job has these tokens and inputs; unless `STREAM`, the panel has been filled up to `len`.
#[inline(always)]
unsafe fn tile<L: RowLanes, E: Element, const V: usize, const N: usize, const STREAM: bool>(
    l: L,
    job: &Job<'_, &[f32]>,
    rows: &[Rows; V],
    panel: &[[MaybeUninit<L::R>; V]; PANEL],
    first: usize,
    len: usize,
    t: usize,
) {
    debug_assert!(t + N <= job.tokens && first + len <= job.cols && len <= PANEL);
    let zero = l.splat_r(0.0);
    let mut acc = [[zero; V]; N];
    // SAFETY: as the caller promises; lanes that are not owned are neither read nor written.
    unsafe {
        let out = |n: usize, v: usize| job.out.ptr.wrapping_add((t + n) * job.out.stride + rows[v].start);
        if first > 0 {
            for (n, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = l.load_r(out(n, v), rows[v].owned);
                }
            }
        }
        let acts = job.acts.as_ptr().add(t * job.cols + first);
        let mut k = 0;
        while k < len {
            let end = len.min(k + RUN);
            let mut chain = [[zero; V]; N];
            if STREAM {
                let layout = const { Layout::of(E::DTYPE) };
                let bytes = layout.planes * PLANE + layout.halves * HALF;
                for rows in rows {
                    let run = rows.at.skip(layout, first + k);
                    // A type of floats has planes alone or halves alone.
                    let at = if layout.planes > 0 { run.planes } else { run.halves };
                    for line in (0..RUN * bytes).step_by(PACKED_ALIGN) {
                        l.prefetch(at.wrapping_add(AHEAD + line));
                    }
                }
            }
            while k < end {
                let mut weights = [zero; V];
                for (v, w) in weights.iter_mut().enumerate() {
                    *w = if STREAM {
                        E::load(l, rows[v].at.skip(const { Layout::of(E::DTYPE) }, first + k))
                    } else {
                        panel[k][v].assume_init()
                    };
                }
                for (n, chain) in chain.iter_mut().enumerate() {
                    let x = l.splat_r(*acts.add(n * job.cols + k));
                    for (chain, w) in chain.iter_mut().zip(weights) {
                        *chain = l.fma_r(w, x, *chain);
                    }
                }
                k += 1;
            }
            for (acc, chain) in acc.iter_mut().zip(chain) {
                for (acc, chain) in acc.iter_mut().zip(chain) {
                    *acc = l.add_r(*acc, chain);
                }
            }
        }
        let last = first + len == job.cols;
        for (n, acc) in acc.into_iter().enumerate() {
            for (v, mut acc) in acc.into_iter().enumerate() {
                if let (true, Some(bias)) = (last, job.bias) {
                    acc = l.add_r(acc, l.load_r(bias.as_ptr().wrapping_add(rows[v].start), rows[v].owned));
                }
                l.store_r(acc, out(n, v), rows[v].owned);
            }
        }
    }
}
