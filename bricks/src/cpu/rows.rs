//! Kernels on one row of activations: norms, sums, gates, conversions. Each gives the same bits at every level.

use half::f16;

use super::error::{KernelError, same};
use super::level::SimdLevel;
use super::math;
use super::simd::{Kernel, LANES, Simd, dispatch};
use crate::op::ActKind;
use crate::quant::q8::{self, BLOCK, Q8RowMut};

/// `out = x / sqrt(mean(x²) + eps) · gain`.
///
/// # Errors
/// The lengths differ.
pub fn rms_norm_row(level: SimdLevel, x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) -> Result<(), KernelError> {
    same("gain of the norm", x.len(), gain.len())?;
    same("output of the norm", x.len(), out.len())?;
    dispatch(level, RmsNorm { x, gain, eps, out });
    Ok(())
}

struct RmsNorm<'a> {
    x: &'a [f32],
    gain: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Four accumulators hide the latency of additions.
        let mut acc = [s.splat(0.0); 4];
        let (quads, rest) = self.x.as_chunks::<{ 4 * LANES }>();
        for quad in quads {
            let (parts, _) = quad.as_chunks::<LANES>();
            for (acc, part) in acc.iter_mut().zip(parts) {
                let x = s.load(part);
                *acc = s.fma(x, x, *acc);
            }
        }
        let (parts, tail) = rest.as_chunks::<LANES>();
        for (acc, part) in acc.iter_mut().zip(parts) {
            let x = s.load(part);
            *acc = s.fma(x, x, *acc);
        }
        let x = s.load_part(tail);
        acc[3] = s.fma(x, x, acc[3]);
        let squares = s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
        let scale = 1.0 / (squares / self.x.len() as f32 + self.eps).sqrt();
        Zip { a: self.x, b: self.gain, out: self.out, map: Normalise(scale) }.run(s);
    }
}

/// `out = a + b`.
///
/// # Errors
/// The lengths differ.
pub fn add_row(level: SimdLevel, a: &[f32], b: &[f32], out: &mut [f32]) -> Result<(), KernelError> {
    same("second summand", a.len(), b.len())?;
    same("sum", a.len(), out.len())?;
    dispatch(level, Zip { a, b, out, map: Sum });
    Ok(())
}

/// `out = act(gate) · up`.
///
/// # Errors
/// The lengths differ.
pub fn gated_activation(
    level: SimdLevel,
    act: ActKind,
    gate: &[f32],
    up: &[f32],
    out: &mut [f32],
) -> Result<(), KernelError> {
    same("up", gate.len(), up.len())?;
    same("output of the activation", gate.len(), out.len())?;
    match act {
        ActKind::Silu => dispatch(level, Zip { a: gate, b: up, out, map: GatedSilu }),
        ActKind::GeluTanh => dispatch(level, Zip { a: gate, b: up, out, map: GatedGelu }),
    }
    Ok(())
}

/// `gate = act(gate) · up`: the bits of [`gated_activation`].
///
/// # Errors
/// The lengths differ.
pub fn gated_activation_in_place(
    level: SimdLevel,
    act: ActKind,
    gate: &mut [f32],
    up: &[f32],
) -> Result<(), KernelError> {
    same("up", gate.len(), up.len())?;
    match act {
        ActKind::Silu => dispatch(level, ZipInPlace { a: gate, b: up, map: GatedSilu }),
        ActKind::GeluTanh => dispatch(level, ZipInPlace { a: gate, b: up, map: GatedGelu }),
    }
    Ok(())
}

/// `x = cap · tanh(x / cap)`, in place: for logits.
pub fn softcap_row(level: SimdLevel, cap: f32, x: &mut [f32]) {
    dispatch(level, Softcap { cap, x });
}

struct Softcap<'a> {
    cap: f32,
    x: &'a mut [f32],
}

impl Kernel for Softcap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let cap = s.splat(self.cap);
        let (parts, tail) = self.x.as_chunks_mut::<LANES>();
        for x in parts {
            let y = math::softcap(s, s.load(x), cap);
            s.store(y, x);
        }
        let y = math::softcap(s, s.load_part(tail), cap);
        s.store_part(y, tail);
    }
}

/// An element-wise function of two rows.
trait Map: Copy {
    fn map<S: Simd>(self, s: S, a: S::F, b: S::F) -> S::F;
}

/// `out[i] = map(a[i], b[i])` for rows of equal length.
struct Zip<'a, M> {
    a: &'a [f32],
    b: &'a [f32],
    out: &'a mut [f32],
    map: M,
}

impl<M: Map> Kernel for Zip<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let ((a, a_tail), (b, b_tail)) = (self.a.as_chunks::<LANES>(), self.b.as_chunks::<LANES>());
        let (out, out_tail) = self.out.as_chunks_mut::<LANES>();
        for ((a, b), out) in a.iter().zip(b).zip(out) {
            s.store(self.map.map(s, s.load(a), s.load(b)), out);
        }
        if !out_tail.is_empty() {
            s.store_part(self.map.map(s, s.load_part(a_tail), s.load_part(b_tail)), out_tail);
        }
    }
}

/// `a[i] = map(a[i], b[i])` for rows of equal length.
struct ZipInPlace<'a, M> {
    a: &'a mut [f32],
    b: &'a [f32],
    map: M,
}

impl<M: Map> Kernel for ZipInPlace<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (a, a_tail) = self.a.as_chunks_mut::<LANES>();
        let (b, b_tail) = self.b.as_chunks::<LANES>();
        for (a, b) in a.iter_mut().zip(b) {
            let y = self.map.map(s, s.load(a), s.load(b));
            s.store(y, a);
        }
        if !a_tail.is_empty() {
            let y = self.map.map(s, s.load_part(a_tail), s.load_part(b_tail));
            s.store_part(y, a_tail);
        }
    }
}

macro_rules! maps {
    ($($name:ident $(($field:ident))?: |$s:ident, $a:ident, $b:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name $((maps!(@f32 $field)))?;

        impl Map for $name {
            #[inline(always)]
            fn map<S: Simd>(self, $s: S, $a: S::F, $b: S::F) -> S::F {
                $(let Self($field) = self;)?
                $body
            }
        }
    )*};
    (@f32 $field:ident) => { f32 };
}

maps! {
    Sum: |s, a, b| s.add(a, b);
    Normalise(scale): |s, x, gain| s.mul(s.mul(x, s.splat(scale)), gain);
    GatedSilu: |s, gate, up| s.mul(math::silu(s, gate), up);
    GatedGelu: |s, gate, up| s.mul(math::gelu_tanh(s, gate), up);
}

/// Encodes `values` as a row of Q8 activations: the bits of [`Q8RowMut::encode`].
///
/// # Errors
/// `values` does not have the row's width.
pub fn quantize_row(level: SimdLevel, values: &[f32], row: &mut Q8RowMut<'_>) -> Result<(), KernelError> {
    same("values to quantise", row.width(), values.len())?;
    dispatch(level, Quantize { values, planes: row.planes_mut() });
    Ok(())
}

struct Quantize<'a> {
    values: &'a [f32],
    planes: (&'a mut [i8], &'a mut [f32], &'a mut [[i16; 2]]),
}

impl Kernel for Quantize<'_> {
    type Output = ();

    /// The steps are those of the documentation of [`crate::quant::q8`].
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const NOT_FINITE: u32 = 0x7f80_0000;
        let (values, _) = self.values.as_chunks::<BLOCK>();
        let (codes, _) = self.planes.0.as_chunks_mut::<BLOCK>();
        for (((values, codes), scale), sums) in values.iter().zip(codes).zip(self.planes.1).zip(self.planes.2) {
            let (halves, _) = values.as_chunks::<LANES>();
            let (low, high) = (s.load(&halves[0]), s.load(&halves[1]));
            // Magnitudes have no sign bit: signed and unsigned order agree.
            let magnitude = s.max_lane_i(s.max_i(s.magnitude(low), s.magnitude(high))) as u32;
            let amax = f32::from_bits(magnitude);
            if magnitude >= NOT_FINITE || amax < q8::MIN_AMAX {
                *scale = if magnitude >= NOT_FINITE { q8::POISON } else { 0.0 };
                *sums = [0; 2];
                codes.fill(0);
                continue;
            }
            *scale = amax / 127.0;
            let inv = s.splat(127.0 / amax);
            let (low, high) = (s.to_i(s.mul(low, inv)), s.to_i(s.mul(high, inv)));
            *sums = [s.sum_i(low) as i16, s.sum_i(high) as i16];
            let (halves, _) = codes.as_chunks_mut::<LANES>();
            s.store_i8(low, &mut halves[0]);
            s.store_i8(high, &mut halves[1]);
        }
    }
}

/// Rounds to f16, nearest even; beyond its range infinite.
///
/// # Errors
/// The lengths differ.
pub fn f32_to_f16(level: SimdLevel, src: &[f32], dst: &mut [f16]) -> Result<(), KernelError> {
    same("f16 values", src.len(), dst.len())?;
    dispatch(level, Narrow { src, dst });
    Ok(())
}

struct Narrow<'a> {
    src: &'a [f32],
    dst: &'a mut [f16],
}

impl Kernel for Narrow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (src, src_tail) = self.src.as_chunks::<LANES>();
        let (dst, dst_tail) = self.dst.as_chunks_mut::<LANES>();
        for (src, dst) in src.iter().zip(dst) {
            s.store_f16(s.load(src), dst);
        }
        let mut lanes = [f16::ZERO; LANES];
        s.store_f16(s.load_part(src_tail), &mut lanes);
        for (dst, lane) in dst_tail.iter_mut().zip(lanes) {
            *dst = lane;
        }
    }
}

/// Widens f16, exactly.
///
/// # Errors
/// The lengths differ.
pub fn f16_to_f32(level: SimdLevel, src: &[f16], dst: &mut [f32]) -> Result<(), KernelError> {
    same("f32 values", src.len(), dst.len())?;
    dispatch(level, Widen { src, dst });
    Ok(())
}

struct Widen<'a> {
    src: &'a [f16],
    dst: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (src, src_tail) = self.src.as_chunks::<LANES>();
        let (dst, dst_tail) = self.dst.as_chunks_mut::<LANES>();
        for (src, dst) in src.iter().zip(dst) {
            s.store(s.load_f16(src), dst);
        }
        s.store_part(s.load_f16_part(src_tail), dst_tail);
    }
}

/// Values that are looked at together: independent lanes, which compilers turn into vectors.
const TOGETHER: usize = 32;

/// False for NaN, so NaN never wins.
fn larger(best: f32, x: f32) -> f32 {
    if x > best { x } else { best }
}

/// The largest value; −∞ of none. NaN is never it.
pub fn largest(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<TOGETHER>();
    let mut lanes = [f32::NEG_INFINITY; TOGETHER];
    for block in blocks {
        for (best, &x) in lanes.iter_mut().zip(block) {
            *best = larger(*best, x);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &x| larger(best, x))
}

/// Index of the largest value, the first among equals; `None` if nothing is above −∞. NaN is never chosen.
pub fn argmax(logits: &[f32]) -> Option<u32> {
    let best = largest(logits);
    if best == f32::NEG_INFINITY {
        return None;
    }
    logits.iter().position(|&x| x == best).map(|i| i as u32)
}
