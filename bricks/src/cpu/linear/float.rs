//! Float weights times f32 activations, generic over element type and instruction set.

use std::marker::PhantomData;

use super::Job;
use crate::cpu::simd::{Kernel, LANES, Simd};

/// An element type of float weights.
pub(super) trait Element {
    /// Bytes per element.
    const BYTES: usize;

    /// Sixteen elements, widened exactly.
    ///
    /// # Safety
    /// `16 · BYTES` bytes are readable from `src` on.
    unsafe fn load<S: Simd>(s: S, src: *const u8) -> S::F;
}

macro_rules! elements {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal, $load:ident;)*) => {$(
        $(#[$doc])*
        pub(super) struct $name;

        impl Element for $name {
            const BYTES: usize = $bytes;

            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, src: *const u8) -> S::F {
                // SAFETY: the caller promises this many bytes; arrays of bytes need no alignment.
                s.$load(unsafe { &*src.cast() })
            }
        }
    )*};
}

elements! {
    /// IEEE binary32.
    F32: 4, load_f32_bytes;
    /// IEEE binary16.
    F16: 2, load_f16_bytes;
    /// bfloat16.
    Bf16: 2, load_bf16_bytes;
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
        let mut row = job.rows.start;
        // One token: eight sums at once hide the latency of fused multiply-adds. Several: sixteen also reuse what they load.
        let tall = if job.tokens == 1 { 8 } else { 4 };
        while row < job.rows.end {
            let rows = if job.rows.end - row < tall { 1 } else { tall };
            let mut t = 0;
            while t < job.tokens {
                let tokens = (job.tokens - t).min(4);
                // SAFETY: rows and tokens are the job's.
                unsafe {
                    match (rows, tokens) {
                        (8, _) => tile::<S, E, 8, 1>(s, job, row, t),
                        (4, 1) => tile::<S, E, 4, 1>(s, job, row, t),
                        (4, 2) => tile::<S, E, 4, 2>(s, job, row, t),
                        (4, 3) => tile::<S, E, 4, 3>(s, job, row, t),
                        (4, _) => tile::<S, E, 4, 4>(s, job, row, t),
                        (_, 1) => tile::<S, E, 1, 1>(s, job, row, t),
                        (_, 2) => tile::<S, E, 1, 2>(s, job, row, t),
                        (_, 3) => tile::<S, E, 1, 3>(s, job, row, t),
                        (_, _) => tile::<S, E, 1, 4>(s, job, row, t),
                    }
                }
                t += tokens;
            }
            row += rows;
        }
    }
}

/// Outputs `(t..t + N, row..row + R)`.
///
/// # Safety
/// These are rows and tokens of the job.
#[inline(always)]
unsafe fn tile<S: Simd, E: Element, const R: usize, const N: usize>(s: S, job: &Job<'_, &[f32]>, row: usize, t: usize) {
    debug_assert!(row + R <= job.matrix_rows && t + N <= job.tokens);
    let (whole, tail) = (job.cols / LANES * LANES, job.cols % LANES);
    let mut acc = [[s.splat(0.0); N]; R];
    // SAFETY: elements `0..cols` of these rows and tokens exist; the outputs are the job's.
    unsafe {
        let weights = job.weight.as_ptr().add(row * job.row_bytes);
        let acts = job.acts.as_ptr().add(t * job.cols);
        let mut k = 0;
        while k < whole {
            let mut x = [s.splat(0.0); N];
            for (n, x) in x.iter_mut().enumerate() {
                *x = s.load(&*acts.add(n * job.cols + k).cast());
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let w = E::load(s, weights.add(r * job.row_bytes + k * E::BYTES));
                for (acc, x) in acc.iter_mut().zip(x) {
                    *acc = s.fma(w, x, *acc);
                }
            }
            k += LANES;
        }
        if tail > 0 {
            for (r, acc) in acc.iter_mut().enumerate() {
                let mut bytes = [0u8; 4 * LANES];
                let src = std::slice::from_raw_parts(weights.add(r * job.row_bytes + k * E::BYTES), tail * E::BYTES);
                bytes[..src.len()].copy_from_slice(src);
                let w = E::load(s, bytes.as_ptr());
                for (n, acc) in acc.iter_mut().enumerate() {
                    let x = s.load_part(std::slice::from_raw_parts(acts.add(n * job.cols + k), tail));
                    *acc = s.fma(w, x, *acc);
                }
            }
        }
        for (r, acc) in acc.into_iter().enumerate() {
            for (n, acc) in acc.into_iter().enumerate() {
                let mut y = s.sum(acc);
                if let Some(bias) = job.bias {
                    debug_assert!(row + r < bias.len());
                    y += *bias.get_unchecked(row + r);
                }
                *job.out.ptr.add((t + n) * job.out.stride + row + r) = y;
            }
        }
    }
}
