//! The numbers in the tensors: blocks of a storage type made directly, from a counter.
//!
//! A tensor is a sequence of units (a block, or 32 floats). Unit `i` is drawn from a generator that starts at a hash of the
//! model's seed, the tensor's name and `i`, so that any part can be made alone, on any thread. Codes are uniform; scales
//! are chosen so that decoded values have the wanted standard deviation, and minimums or signs so that their mean is zero.

use bricks::DType;
use half::{bf16, f16};

use crate::format::gguf::TensorSource;

/// Increment of SplitMix64 (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2660193.2660195>): 2^64 / the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Scales vary from block to block by these factors; their mean square is one.
const FACTORS: [f64; 8] = [0.74, 0.82, 0.90, 0.97, 1.04, 1.10, 1.16, 1.179_788_116_570_09];

/// Floats of a unit.
const FLOATS: usize = 32;

/// Standard deviation of the sum of four 16-bit numbers, and its mean.
const SUM_STD: f64 = 37_837.227;
const SUM_MEAN: i32 = 131_070;

/// Mixes the bits of a counter.
const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    fn bytes(&mut self, out: &mut [u8]) {
        let (whole, rest) = out.as_chunks_mut::<8>();
        for chunk in whole {
            *chunk = self.next().to_le_bytes();
        }
        if !rest.is_empty() {
            rest.copy_from_slice(&self.next().to_le_bytes()[..rest.len()]);
        }
    }

    /// Nearly normal: mean 0, standard deviation 1, at most 3.5 away.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum = (0..4).map(|i| (bits >> (16 * i)) as i32 & 0xffff).sum::<i32>();
        (sum - SUM_MEAN) as f32 * (1.0 / SUM_STD) as f32
    }
}

/// What a tensor's values are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distribution {
    pub(super) mean: f64,
    pub(super) std: f64,
}

/// A tensor's rule.
#[derive(Debug, Clone)]
pub(super) struct Values {
    seed: u64,
    dtype: DType,
    mean: f32,
    std: f32,
    /// Scale and minimum by [`FACTORS`], in f16.
    scales: [[[u8; 2]; 2]; FACTORS.len()],
}

impl Values {
    /// Values of the tensor `name`. A mean is for floats only.
    pub(super) fn new(seed: u64, name: &str, dtype: DType, d: Distribution) -> Self {
        debug_assert!(d.mean == 0.0 || dtype.is_float());
        // FNV-1a.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let (unit, minimum) = statistics(dtype);
        let scales = FACTORS.map(|factor| {
            let scale = f16::from_f64(d.std / unit * factor);
            // From the scale as it is after rounding: what is left of the mean is the minimum's own rounding.
            [scale.to_le_bytes(), f16::from_f64(scale.to_f64() * minimum).to_le_bytes()]
        });
        Self { seed: mix(seed ^ mix(hash)), dtype, mean: d.mean as f32, std: d.std as f32, scales }
    }

    fn unit_bytes(&self) -> usize {
        if self.dtype.is_float() { self.dtype.block_bytes() * FLOATS } else { self.dtype.block_bytes() }
    }

    /// Makes unit `i`.
    fn unit(&self, i: u64, out: &mut [u8]) {
        let mut s = Stream(mix(self.seed.wrapping_add(i.wrapping_mul(GOLDEN))));
        match self.dtype {
            DType::F32 => self.floats(&mut s, out, f32::to_le_bytes),
            DType::F16 => self.floats(&mut s, out, |x| f16::from_f32(x).to_le_bytes()),
            DType::BF16 => self.floats(&mut s, out, |x| bf16::from_f32(x).to_le_bytes()),
            DType::Q4_0 | DType::Q5_0 => {
                let (scale, codes) = out.split_at_mut(2);
                s.bytes(codes);
                let bits = s.next();
                scale.copy_from_slice(&signed(self.scale(bits)[0], bits));
            }
            DType::Q4_1 | DType::Q5_1 => {
                let (scale, codes) = out.split_at_mut(4);
                s.bytes(codes);
                let [d, m] = self.scale(s.next());
                scale[..2].copy_from_slice(&d);
                // Here minimums are added.
                scale[2..].copy_from_slice(&negative(m));
            }
            DType::Q8_0 => {
                let (scale, codes) = out.split_at_mut(2);
                s.bytes(codes);
                // Quantisers use -127 to 127.
                codes.iter_mut().filter(|c| **c == 0x80).for_each(|c| *c = 0);
                scale.copy_from_slice(&self.scale(s.next())[0]);
            }
            DType::Q4_K | DType::Q5_K => {
                let (scales, codes) = out.split_at_mut(16);
                s.bytes(codes);
                let bits = s.next();
                let [d, m] = self.scale(bits);
                scales[..2].copy_from_slice(&d);
                scales[2..4].copy_from_slice(&m);
                // Scales of 32 to 63 (see `statistics`), and the same for minimums, packed as in `bricks::quant::scales_k4`.
                let code = |j: usize| 32 + (bits >> (8 + 5 * j)) as u8 % 32;
                for j in 0..4 {
                    let (low, high) = (code(j), code(j + 4));
                    scales[4 + j] = low | high >> 4 << 6;
                    scales[8 + j] = low | high >> 4 << 6;
                    scales[12 + j] = high & 15 | high << 4;
                }
            }
            DType::Q6_K => {
                let (codes, scales) = out.split_at_mut(192);
                s.bytes(codes);
                let bits = s.next();
                for (j, scale) in scales[..16].iter_mut().enumerate() {
                    // Scales of 8 to 15 with a sign.
                    let code = (bits >> (3 * j)) as i8 & 7 | 8;
                    *scale = (if (bits >> (48 + j)) & 1 == 1 { -code } else { code }) as u8;
                }
                scales[16..].copy_from_slice(&self.scale(s.next())[0]);
            }
            // Not offered by `Types`.
            DType::Q2_K | DType::Q3_K | DType::IQ4_NL | DType::IQ4_XS => {
                unreachable!("invariant: no tensor is made in {}", self.dtype)
            }
        }
    }

    fn floats<const N: usize>(&self, s: &mut Stream, out: &mut [u8], encode: impl Fn(f32) -> [u8; N]) {
        for out in out.as_chunks_mut::<N>().0 {
            *out = encode(self.mean + self.std * s.normal());
        }
    }

    fn scale(&self, bits: u64) -> [[u8; 2]; 2] {
        self.scales[(bits & 7) as usize]
    }
}

/// The standard deviation of a decoded value when scales are 1, and the minimum that makes its mean zero: for codes 0 to n - 1
/// the variance is (n² - 1) / 12 and the mean (n - 1) / 2.
fn statistics(dtype: DType) -> (f64, f64) {
    // Root mean square of scale codes: uniform over 32 to 63, over 8 to 15.
    let (rms_k, rms_6) = (2341.5_f64.sqrt(), 137.5_f64.sqrt());
    let uniform = |n: f64| ((n * n - 1.0) / 12.0).sqrt();
    // Codes around zero, from -n/2: their mean of -1/2 adds to the square, and goes with the sign of the scale.
    let around = |n: f64| ((n * n - 1.0) / 12.0 + 0.25).sqrt();
    match dtype {
        DType::Q4_0 => (around(16.0), 0.0),
        DType::Q5_0 => (around(32.0), 0.0),
        DType::Q4_1 => (uniform(16.0), 7.5),
        DType::Q5_1 => (uniform(32.0), 15.5),
        DType::Q8_0 => (uniform(255.0), 0.0),
        DType::Q4_K => (uniform(16.0) * rms_k, 7.5),
        DType::Q5_K => (uniform(32.0) * rms_k, 15.5),
        DType::Q6_K => (around(64.0) * rms_6, 0.0),
        _ => (1.0, 0.0),
    }
}

/// An f16 with the sign that one bit says.
fn signed(x: [u8; 2], bits: u64) -> [u8; 2] {
    if (bits >> 63) == 1 { negative(x) } else { x }
}

fn negative([low, high]: [u8; 2]) -> [u8; 2] {
    [low, high ^ 0x80]
}

impl TensorSource for Values {
    fn fill(&self, at: usize, out: &mut [u8]) {
        let unit_bytes = self.unit_bytes();
        let mut index = (at / unit_bytes) as u64;
        let skip = at % unit_bytes;
        let mut whole = vec![0; unit_bytes];
        let (first, rest) = out.split_at_mut(if skip == 0 { 0 } else { (unit_bytes - skip).min(out.len()) });
        if !first.is_empty() {
            self.unit(index, &mut whole);
            first.copy_from_slice(&whole[skip..skip + first.len()]);
            index += 1;
        }
        let mut units = rest.chunks_exact_mut(unit_bytes);
        for unit in &mut units {
            self.unit(index, unit);
            index += 1;
        }
        let last = units.into_remainder();
        if !last.is_empty() {
            self.unit(index, &mut whole);
            last.copy_from_slice(&whole[..last.len()]);
        }
    }
}
