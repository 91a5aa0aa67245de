//! Cosines and sines of rotary position embedding, once per step instead of once per layer and head.
//!
//! `positions`: `[T]` u32; `inv_freq`: `[pairs]` f32, radians per position; `angles`: `[T][pairs]` pairs of f32, cosine
//! then sine, times `magnitude`. A CTA of 64 threads takes a row, a thread every 64th pair.
//!
//! The angle is a product of f64, reduced to `-π/4 ..= π/4` with a remainder of two words, and both functions are
//! polynomials in f64 (Sun's `fdlibm`, `k_sin.c` and `k_cos.c`: below 2^-57). So the results are those of the CPU
//! backend to the last bit of f32, but for ties of the last rounding; in f32, the angle alone would be off by 2e-3 at
//! position 32,768. It is a few microseconds of f64 even where a multiprocessor has two units for it, and binds
//! nothing.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use super::Entry;
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Work, Workload, bytes_of_f32, bytes_of_u32};
use crate::build::{F32, F64, KernelBuilder, LoadOptions, Ptr, Reg, S64, U32};
use crate::ir::{Access, Kernel, Rounding, Target, Threads};

const NAME: &str = "rope_angles";
const THREADS: u32 = 64;

/// `sin r = r + r³ · P(r²)`, highest power first.
const SIN: [f64; 6] = [
    1.589_690_995_211_55e-10,
    -2.505_076_025_340_686_3e-8,
    2.755_731_370_707_006_8e-6,
    -1.984_126_982_985_795e-4,
    8.333_333_333_322_49e-3,
    -1.666_666_666_666_663_2e-1,
];
/// `cos r = 1 - r²/2 + r⁴ · P(r²)`, highest power first.
const COS: [f64; 6] = [
    -1.135_964_755_778_819_5e-11,
    2.087_572_321_298_175e-9,
    -2.755_731_435_139_066_3e-7,
    2.480_158_728_947_673e-5,
    -1.388_888_888_887_411e-3,
    4.166_666_666_666_66e-2,
];
/// What `FRAC_PI_2` lacks to π/2.
const FRAC_PI_2_LOW: f64 = 6.123_233_995_736_766e-17;

/// `rope_angles`; for [`Target::Sm90`], with dependent launch.
pub fn rope_angles(target: Target) -> Kernel {
    let k = KernelBuilder::new(NAME);
    k.about("angles[t][i] = cos and sin of positions[t] * inv_freq[i], times magnitude. A CTA takes a row.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let positions = k.param_ptr::<U32>("positions", Access::Read, 4);
    let inv_freq = k.param_ptr::<F32>("inv_freq", Access::Read, 4);
    let angles = k.param_ptr::<F32>("angles", Access::Write, 8);
    let pairs = k.param_u32("pairs");
    let magnitude = k.param_f32("magnitude");
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let position = k.ld_with(k.index(positions, k.ctaid()), LoadOptions::READ_ONLY);
    let of_pair = Angles::new(&k, position, inv_freq, magnitude);
    let row = k.row(angles, k.ctaid(), k.shl(pairs, 3));
    k.for_rolled(k.tid(), pairs, THREADS, |pair| {
        k.st2(k.index_by(row, pair, 8), of_pair.pair(&k, pair));
    });
    k.finish()
}

/// The angles of a position.
pub(super) struct Angles {
    position: Reg<F64>,
    inv_freq: Ptr<F32>,
    magnitude: Reg<F64>,
}

impl Angles {
    pub(super) fn new(k: &KernelBuilder, position: Reg<U32>, inv_freq: Ptr<F32>, magnitude: Reg<F32>) -> Self {
        let position = k.cvt::<U32, F64>(Some(Rounding::Rn), position);
        Self { position, inv_freq, magnitude: k.cvt::<F32, F64>(None, magnitude) }
    }

    /// Cosine and sine for a pair, times the magnitude.
    pub(super) fn pair(&self, k: &KernelBuilder, pair: Reg<U32>) -> [Reg<F32>; 2] {
        let inv_freq = k.ld_with(k.index(self.inv_freq, pair), LoadOptions::READ_ONLY);
        let angle = k.mul(self.position, k.cvt::<F32, F64>(None, inv_freq));
        cos_sin(k, angle).map(|x| k.cvt::<F64, F32>(Some(Rounding::Rn), k.mul(x, self.magnitude)))
    }
}

/// Cosine and sine of an angle below 2^62.
fn cos_sin(k: &KernelBuilder, angle: Reg<F64>) -> [Reg<F64>; 2] {
    let quarter = k.cvt::<F64, S64>(Some(Rounding::Rni), k.mul(angle, FRAC_2_PI));
    let turns = k.cvt::<S64, F64>(Some(Rounding::Rn), quarter);
    let r = k.fma(turns, -FRAC_PI_2_LOW, k.fma(turns, -FRAC_PI_2, angle));
    let z = k.mul(r, r);
    let polynomial =
        |coefficients: [f64; 6]| coefficients[1..].iter().fold(k.value::<F64>(coefficients[0]), |p, &c| k.fma(p, z, c));
    let sin = k.fma(k.mul(z, r), polynomial(SIN), r);
    let cos = k.fma(k.mul(z, z), polynomial(COS), k.fma(z, -0.5, 1.0));

    k.comment("which quarter of the circle");
    let [quarter, _] = k.unpack32(quarter);
    let quarter = quarter.as_ty::<U32>();
    let bit = |n: Reg<U32>, bit: u32| k.ne(k.and(n, bit), 0);
    let swapped = bit(quarter, 1);
    let (cos, sin) = (k.select(swapped, sin, cos), k.select(swapped, cos, sin));
    let signed = |negative, x: Reg<F64>| k.select(negative, k.neg(x), x);
    [signed(bit(k.add(quarter, 1), 2), cos), signed(bit(quarter, 2), sin)]
}

/// The launch for `rows` rows.
///
/// # Errors
/// [`ShapeError`] unless there are rows and pairs.
pub fn dims(rows: usize, pairs: usize) -> Result<Dims, ShapeError> {
    ShapeError::check(NAME, "pairs", pairs, 1, 1 << 15)?;
    Ok(Dims::linear(ShapeError::check(NAME, "rows", rows, 1, 1 << 30)?, THREADS))
}

/// A launch with these positions and frequencies.
///
/// # Errors
/// As [`dims`].
pub fn workload(positions: &[u32], inv_freq: &[f32], magnitude: f32) -> Result<Workload, ShapeError> {
    let (rows, pairs) = (positions.len(), inv_freq.len());
    let args = vec![
        Arg::read("positions", bytes_of_u32(positions)),
        Arg::read("inv_freq", bytes_of_f32(inv_freq)),
        Arg::write("angles", 8 * rows * pairs),
        Arg::U32(pairs as u32),
        Arg::F32(magnitude),
    ];
    let work = Work {
        weight_bytes: 4 * pairs as u64,
        activation_bytes: 4 * rows as u64,
        output_bytes: 8 * (rows * pairs) as u64,
        float_ops: 40 * (rows * pairs) as u64,
        ..Work::default()
    };
    Ok(Workload { dims: dims(rows, pairs)?, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let inv_freq: Vec<f32> = (0..64).map(|i| 1e6_f32.powf(-f32::from(i as u8) / 64.0)).collect();
    vec![Entry {
        name: NAME.into(),
        about: "cosines and sines of rotary position embedding, once per step",
        oldest: Target::Sm80,
        build: Box::new(rope_angles),
        workload: workload(&[0, 1, 4095, 131_071], &inv_freq, 1.0)
            .expect("invariant: the shape of a workload is one that its kernel takes"),
    }]
}
