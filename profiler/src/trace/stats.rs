//! Statistics of a tensor in one pass.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Statistics of a tensor's values.
///
/// Minimum, maximum, mean and deviation are those of the finite values; `None` if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorStats {
    /// The smallest finite value.
    pub min: Option<f32>,
    /// The largest finite value.
    pub max: Option<f32>,
    /// Arithmetic mean of the finite values.
    pub mean: Option<f32>,
    /// Population standard deviation of the finite values.
    pub std: Option<f32>,
    /// Values that are not a number.
    pub nan_count: u64,
    /// Values that are infinite, of either sign.
    pub inf_count: u64,
    /// Values that are zero, of either sign.
    pub zero_count: u64,
    /// All values.
    pub total_count: u64,
}

impl TensorStats {
    /// Statistics of `values`, read once.
    pub fn of(values: impl IntoIterator<Item = f32>) -> Self {
        let mut all = StatsAccumulator::default();
        values.into_iter().for_each(|x| all.push(x));
        all.finish()
    }

    /// Number of finite values.
    pub fn finite_count(&self) -> u64 {
        self.total_count - self.nan_count - self.inf_count
    }

    /// The largest absolute value among the finite ones.
    pub fn abs_max(&self) -> Option<f32> {
        Some(self.min?.abs().max(self.max?.abs()))
    }

    /// Statistics of both tensors together, up to the rounding of means and deviations to f32.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        let mut all = StatsAccumulator::from(*self);
        all.merge(&StatsAccumulator::from(*other));
        all.finish()
    }
}

impl fmt::Display for TensorStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max, self.mean, self.std) {
            (Some(min), Some(max), Some(mean), Some(std)) => {
                write!(f, "min {min:.4e}, max {max:.4e}, mean {mean:.4e}, std {std:.4e}")?;
            }
            _ => f.write_str("no finite value")?,
        }
        let Self { nan_count, inf_count, zero_count, total_count, .. } = self;
        write!(f, "; {nan_count} NaN, {inf_count} infinite, {zero_count} zero of {total_count}")
    }
}

/// [`TensorStats`] in the making: Welford's algorithm in f64, which neither cancels nor overflows on any f32 values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StatsAccumulator {
    finite: u64,
    mean: f64,
    /// Sum of squared deviations from the mean.
    m2: f64,
    min: f32,
    max: f32,
    nan: u64,
    inf: u64,
    zero: u64,
}

impl Default for StatsAccumulator {
    fn default() -> Self {
        Self { finite: 0, mean: 0.0, m2: 0.0, min: f32::INFINITY, max: f32::NEG_INFINITY, nan: 0, inf: 0, zero: 0 }
    }
}

impl From<TensorStats> for StatsAccumulator {
    fn from(s: TensorStats) -> Self {
        let finite = s.finite_count();
        let std = f64::from(s.std.unwrap_or(0.0));
        Self {
            finite,
            mean: f64::from(s.mean.unwrap_or(0.0)),
            m2: std * std * finite as f64,
            min: s.min.unwrap_or(f32::INFINITY),
            max: s.max.unwrap_or(f32::NEG_INFINITY),
            nan: s.nan_count,
            inf: s.inf_count,
            zero: s.zero_count,
        }
    }
}

impl StatsAccumulator {
    /// Takes a value.
    #[inline]
    pub fn push(&mut self, x: f32) {
        if !x.is_finite() {
            if x.is_nan() {
                self.nan += 1;
            } else {
                self.inf += 1;
            }
            return;
        }
        self.finite += 1;
        self.zero += u64::from(x == 0.0);
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        let x = f64::from(x);
        let delta = x - self.mean;
        self.mean += delta / self.finite as f64;
        self.m2 += delta * (x - self.mean);
    }

    /// Takes a row of values: Welford's step for blocks instead of single values, whose chain of divisions would take a third of a
    /// decoded token's time. A block with a value that is not finite goes value by value.
    pub fn extend(&mut self, values: &[f32]) {
        const BLOCK: usize = 1024;
        for block in values.chunks(BLOCK) {
            match Self::of_finite(block) {
                Some(stats) => self.merge(&stats),
                None => block.iter().for_each(|&x| self.push(x)),
            }
        }
    }

    /// A block at once, in lanes that the compiler keeps in vectors; `None` if a value is not finite. Squares are those of distances
    /// from the block's first value, so a large offset does not cancel.
    fn of_finite(block: &[f32]) -> Option<Self> {
        const LANES: usize = 8;
        let shift = f64::from(*block.first()?);
        let (rows, rest) = block.as_chunks::<LANES>();
        let (mut sum, mut squares) = ([0.0f64; LANES], [0.0f64; LANES]);
        let (mut min, mut max, mut zero) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES], [0u32; LANES]);
        for row in rows {
            for i in 0..LANES {
                let (x, d) = (row[i], f64::from(row[i]) - shift);
                sum[i] += d;
                squares[i] += d * d;
                min[i] = if x < min[i] { x } else { min[i] };
                max[i] = if x > max[i] { x } else { max[i] };
                // Checked for overflow it would not be done in vectors; a block is far smaller.
                zero[i] = zero[i].wrapping_add(u32::from(x == 0.0));
            }
        }
        let mut ends = Self::default();
        for &x in rest {
            ends.push(x);
        }
        let n = (LANES * rows.len()) as u64;
        let (sum, squares) = (sum.iter().sum::<f64>(), squares.iter().sum::<f64>());
        // A value that is not finite makes this NaN or infinite, and no finite f32 values do.
        if !squares.is_finite() {
            return None;
        }
        let count = n.max(1) as f64;
        ends.merge(&Self {
            finite: n,
            mean: shift + sum / count,
            m2: (squares - sum * sum / count).max(0.0),
            min: min.into_iter().fold(f32::INFINITY, f32::min),
            max: max.into_iter().fold(f32::NEG_INFINITY, f32::max),
            nan: 0,
            inf: 0,
            zero: zero.iter().map(|&z| u64::from(z)).sum(),
        });
        Some(ends)
    }

    /// Takes all values of another one (Chan, Golub and LeVeque 1979).
    pub fn merge(&mut self, other: &Self) {
        let n = self.finite + other.finite;
        if other.finite > 0 {
            let delta = other.mean - self.mean;
            self.mean += delta * other.finite as f64 / n as f64;
            self.m2 += other.m2 + delta * delta * self.finite as f64 * other.finite as f64 / n as f64;
        }
        self.finite = n;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.nan += other.nan;
        self.inf += other.inf;
        self.zero += other.zero;
    }

    /// The statistics of what was taken.
    pub fn finish(&self) -> TensorStats {
        let some = |x: f64| (self.finite > 0).then_some(x as f32);
        TensorStats {
            min: some(f64::from(self.min)),
            max: some(f64::from(self.max)),
            mean: some(self.mean),
            std: some((self.m2.max(0.0) / self.finite.max(1) as f64).sqrt()),
            nan_count: self.nan,
            inf_count: self.inf,
            zero_count: self.zero,
            total_count: self.finite + self.nan + self.inf,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Mean and deviation with all values at hand.
    fn two_pass(values: &[f32]) -> Option<(f64, f64)> {
        let finite: Vec<f64> = values.iter().filter(|x| x.is_finite()).map(|&x| f64::from(x)).collect();
        let n = finite.len() as f64;
        let mean = finite.iter().sum::<f64>() / n;
        let variance = finite.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        (n > 0.0).then_some((mean, variance.sqrt()))
    }

    fn close(a: f32, b: f64, scale: f64) -> bool {
        (f64::from(a) - b).abs() <= 1e-6 * scale
    }

    fn any_value() -> impl Strategy<Value = f32> {
        prop_oneof![
            8 => -1e4f32..1e4,
            2 => (-38i32..38, -9.0f32..9.0).prop_map(|(e, m)| m * 10f32.powi(e)),
            1 => Just(0.0), 1 => Just(-0.0),
            1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::NEG_INFINITY), 1 => Just(f32::MAX),
        ]
    }

    proptest! {
        #[test]
        fn one_pass_agrees_with_two(values in proptest::collection::vec(any_value(), 0..300)) {
            let s = TensorStats::of(values.iter().copied());
            let count = |f: fn(&f32) -> bool| values.iter().filter(|x| f(x)).count() as u64;
            prop_assert_eq!(s.nan_count, count(|x| x.is_nan()));
            prop_assert_eq!(s.inf_count, count(|x| x.is_infinite()));
            prop_assert_eq!(s.zero_count, count(|x| *x == 0.0));
            prop_assert_eq!(s.total_count, values.len() as u64);
            match two_pass(&values) {
                None => prop_assert_eq!((s.min, s.max, s.mean, s.std), (None, None, None, None)),
                Some((mean, std)) => {
                    let finite = || values.iter().copied().filter(|x| x.is_finite());
                    prop_assert_eq!(s.min.unwrap(), finite().fold(f32::INFINITY, f32::min));
                    prop_assert_eq!(s.max.unwrap(), finite().fold(f32::NEG_INFINITY, f32::max));
                    let scale = f64::from(s.abs_max().unwrap()).max(1e-30);
                    prop_assert!(close(s.mean.unwrap(), mean, scale), "{s}: mean {mean}");
                    prop_assert!(close(s.std.unwrap(), std, scale), "{s}: std {std}");
                }
            }
        }

        #[test]
        fn rows_are_as_good_as_single_values(values in proptest::collection::vec(any_value(), 0..300), finite: bool) {
            let values: Vec<f32> =
                values.into_iter().map(|x| if finite && !x.is_finite() { 1.0 } else { x }).collect();
            let mut rows = StatsAccumulator::default();
            values.chunks(70).for_each(|row| rows.extend(row));
            let (rows, single) = (rows.finish(), TensorStats::of(values.iter().copied()));
            let counts = |s: &TensorStats| (s.nan_count, s.inf_count, s.zero_count, s.total_count, s.min, s.max);
            prop_assert_eq!(counts(&rows), counts(&single));
            if let (Some(mean), Some(std)) = (single.mean, single.std) {
                let scale = f64::from(single.abs_max().unwrap()).max(1e-30);
                prop_assert!(close(rows.mean.unwrap(), f64::from(mean), scale));
                prop_assert!(close(rows.std.unwrap(), f64::from(std), scale));
            }
        }

        #[test]
        fn merging_is_as_good_as_reading_both(
            a in proptest::collection::vec(any_value(), 0..100), b in proptest::collection::vec(any_value(), 0..100)
        ) {
            let of = |v: &[f32]| TensorStats::of(v.iter().copied());
            let (merged, both) = (of(&a).merge(&of(&b)), of(&[a.clone(), b.clone()].concat()));
            let counts = |s: &TensorStats| (s.nan_count, s.inf_count, s.zero_count, s.total_count, s.min, s.max);
            prop_assert_eq!(counts(&merged), counts(&both));
            if let (Some(mean), Some(std)) = (both.mean, both.std) {
                let scale = f64::from(both.abs_max().unwrap()).max(1e-30);
                prop_assert!(close(merged.mean.unwrap(), f64::from(mean), 2.0 * scale));
                prop_assert!(close(merged.std.unwrap(), f64::from(std), 2.0 * scale));
            }
        }

        #[test]
        fn every_nan_is_found(n in 0usize..50, others in 0usize..50) {
            let values = std::iter::repeat_n(f32::NAN, n).chain(std::iter::repeat_n(1.5, others));
            let s = TensorStats::of(values);
            prop_assert_eq!((s.nan_count, s.total_count), (n as u64, (n + others) as u64));
            prop_assert_eq!(s.mean, (others > 0).then_some(1.5), "a NaN does not reach the mean");
        }
    }

    #[test]
    fn a_large_offset_does_not_cancel() {
        // The sum of squares would lose the deviation: 1e12 against 1 in f32, and 2^53 is near in f64.
        let s = TensorStats::of((0..10_000).map(|i| 1e6 + if i % 2 == 0 { 1.0 } else { -1.0 }));
        assert_eq!((s.mean, s.std), (Some(1e6), Some(1.0)));
        let s = TensorStats::of([f32::MAX, -f32::MAX]);
        assert_eq!((s.mean, s.std), (Some(0.0), Some(f32::MAX)));
    }

    #[test]
    fn it_reads_as_a_line() {
        let s = TensorStats::of([1.0, -2.0, 0.0, f32::NAN]);
        assert_eq!(
            s.to_string(),
            "min -2.0000e0, max 1.0000e0, mean -3.3333e-1, std 1.2472e0; 1 NaN, 0 infinite, 1 zero of 4"
        );
        assert_eq!(TensorStats::of([f32::NAN]).to_string(), "no finite value; 1 NaN, 0 infinite, 0 zero of 1");
    }
}
