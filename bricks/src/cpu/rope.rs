//! Rotary position embedding of one row.

use super::error::{KernelError, at_most, same};
use super::level::SimdLevel;
use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::rope::RopeStyle;

/// Rotates the first `2 · cos.len()` elements of every head of `x`, in place; the rest of each head passes through.
///
/// Pair `i` becomes `(a · cos[i] − b · sin[i], b · cos[i] + a · sin[i])`; which elements are `a` and `b` is the style's business.
/// The tables are those of the row's position, `cos(p · θᵢ)` and `sin(p · θᵢ)`, with whatever scaling the model has.
///
/// # Errors
/// `x` is not whole heads, the tables differ in length or exceed half a head.
pub fn rope_row(
    level: SimdLevel,
    style: RopeStyle,
    x: &mut [f32],
    head_dim: usize,
    cos: &[f32],
    sin: &[f32],
) -> Result<(), KernelError> {
    same("sines of the rotation", cos.len(), sin.len())?;
    at_most("pairs of the rotation", head_dim / 2, cos.len())?;
    same("elements of whole heads", x.len().checked_div(head_dim).unwrap_or(0) * head_dim, x.len())?;
    if !cos.is_empty() {
        dispatch(level, Rope { style, x, head_dim, cos, sin });
    }
    Ok(())
}

struct Rope<'a> {
    style: RopeStyle,
    x: &'a mut [f32],
    head_dim: usize,
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Kernel for Rope<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let pairs = self.cos.len();
        for head in self.x.chunks_exact_mut(self.head_dim) {
            let (rotated, _) = head.split_at_mut(2 * pairs);
            match self.style {
                RopeStyle::SplitHalves => {
                    let (a, b) = rotated.split_at_mut(pairs);
                    split_halves(s, a, b, self.cos, self.sin);
                }
                RopeStyle::Interleaved => interleaved(s, rotated, self.cos, self.sin),
            }
        }
    }
}

/// Pairs `(a[i], b[i])`.
#[inline(always)]
fn split_halves<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let ((a, a_tail), (b, b_tail)) = (a.as_chunks_mut::<LANES>(), b.as_chunks_mut::<LANES>());
    let ((cos, cos_tail), (sin, sin_tail)) = (cos.as_chunks::<LANES>(), sin.as_chunks::<LANES>());
    for (((a, b), cos), sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
        let [x, y] = rotate(s, s.load(a), s.load(b), s.load(cos), s.load(sin));
        s.store(x, a);
        s.store(y, b);
    }
    if !a_tail.is_empty() {
        let (cos, sin) = (s.load_part(cos_tail), s.load_part(sin_tail));
        let [x, y] = rotate(s, s.load_part(a_tail), s.load_part(b_tail), cos, sin);
        s.store_part(x, a_tail);
        s.store_part(y, b_tail);
    }
}

#[inline(always)]
fn rotate<S: Simd>(s: S, a: S::F, b: S::F, cos: S::F, sin: S::F) -> [S::F; 2] {
    let minus_sin = s.sub(s.splat(-0.0), sin);
    [s.fma(a, cos, s.mul(b, minus_sin)), s.fma(b, cos, s.mul(a, sin))]
}

/// Pairs `(x[2 i], x[2 i + 1])`.
#[inline(always)]
fn interleaved<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    const PAIRS: usize = LANES / 2;
    let (x, x_tail) = x.as_chunks_mut::<LANES>();
    let ((cos, cos_tail), (sin, sin_tail)) = (cos.as_chunks::<PAIRS>(), sin.as_chunks::<PAIRS>());
    for ((x, cos), sin) in x.iter_mut().zip(cos).zip(sin) {
        let y = rotate_pairs(s, s.load(x), cos, sin);
        s.store(y, x);
    }
    if !x_tail.is_empty() {
        let mut tables = [[0.0; PAIRS]; 2];
        tables[0][..cos_tail.len()].copy_from_slice(cos_tail);
        tables[1][..sin_tail.len()].copy_from_slice(sin_tail);
        let y = rotate_pairs(s, s.load_part(x_tail), &tables[0], &tables[1]);
        s.store_part(y, x_tail);
    }
}

#[inline(always)]
fn rotate_pairs<S: Simd>(s: S, x: S::F, cos: &[f32; LANES / 2], sin: &[f32; LANES / 2]) -> S::F {
    // Even lanes: a · cos + b · −sin; odd lanes: b · cos + a · sin.
    s.fma(x, s.load_twice(cos), s.mul(s.swap_pairs(x), s.negate_even(s.load_twice(sin))))
}
