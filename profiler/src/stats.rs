//! Running totals and statistics of samples; of pairs measured in turn in [`paired`].

pub mod paired;

use serde::{Deserialize, Serialize};

/// Exact totals of integer nanoseconds. Merging two equals recording both series into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of samples.
    pub count: u64,
    /// Their sum.
    pub sum_ns: u64,
    /// The smallest; [`u64::MAX`] when there is none.
    pub min_ns: u64,
    /// The largest; 0 when there is none.
    pub max_ns: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self { count: 0, sum_ns: 0, min_ns: u64::MAX, max_ns: 0 }
    }
}

impl Totals {
    /// Adds a sample.
    #[inline]
    pub fn record(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.min_ns = self.min_ns.min(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Totals) {
        self.count += other.count;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Mean in nanoseconds, unless there is no sample.
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }
}

impl<'a> std::iter::Sum<&'a Totals> for Totals {
    fn sum<I: Iterator<Item = &'a Totals>>(iter: I) -> Self {
        iter.fold(Totals::default(), |mut a, b| {
            a.merge(b);
            a
        })
    }
}

/// Statistics of a set of samples. The unit is that of the samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Number of samples the figures below are computed from.
    pub samples: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Coefficient of variation, `std / mean`; 0 when the mean is 0.
    pub cv: f64,
    /// The smallest sample.
    pub min: f64,
    /// Median (nearest rank: a value that was observed).
    pub p50: f64,
    /// 95th percentile (nearest rank).
    pub p95: f64,
    /// 99th percentile (nearest rank).
    pub p99: f64,
    /// 99.9th percentile (nearest rank): the largest of fewer than 1000 samples.
    pub p999: f64,
    /// The largest sample.
    pub max: f64,
    /// Lower end of the 95 % confidence interval of the median, by the block bootstrap of [`paired`]; the smallest of fewer than
    /// [`paired::MIN_PAIRS`] samples, and where no interval was asked for.
    pub median_ci_low: f64,
    /// Its upper end; the largest where there is no interval.
    pub median_ci_high: f64,
}

impl Summary {
    /// Summarises samples given in the order in which they were taken (and sorts them); `None` when there are none or when one is not
    /// finite.
    pub fn of(samples: &mut [f64]) -> Option<Self> {
        Self::with(samples, median_ci)
    }

    /// The same without the interval of the median, which is nearly all of the work.
    pub fn without_interval(samples: &mut [f64]) -> Option<Self> {
        Self::with(samples, |_| None)
    }

    fn with(samples: &mut [f64], median_ci: impl Fn(&[f64]) -> Option<(f64, f64)>) -> Option<Self> {
        if samples.is_empty() || samples.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let interval = median_ci(samples);
        samples.sort_unstable_by(f64::total_cmp);
        let n = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / n;
        let std = (samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
        let (low, high) = interval.unwrap_or((samples[0], samples[samples.len() - 1]));
        Some(Self {
            samples: samples.len() as u64,
            mean,
            std,
            cv: if mean == 0.0 { 0.0 } else { std / mean },
            min: samples[0],
            p50: percentile(samples, 0.50),
            p95: percentile(samples, 0.95),
            p99: percentile(samples, 0.99),
            p999: percentile(samples, 0.999),
            max: samples[samples.len() - 1],
            median_ci_low: low,
            median_ci_high: high,
        })
    }
}

/// Nearest-rank percentile of sorted, non-empty samples: the smallest one that at least the fraction `p` does not exceed.
fn percentile(sorted: &[f64], p: f64) -> f64 {
    let rank = (p * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// 95 % confidence interval of the median of samples in the order in which they were taken. A disturbance of a shared machine lasts longer
/// than one sample, so blocks of neighbours are resampled. A profile has thousands of such intervals: the more samples, the fewer
/// resamples, a hundred at least.
fn median_ci(samples: &[f64]) -> Option<(f64, f64)> {
    const WORK: usize = 100_000;
    let resamples = (WORK / samples.len()).clamp(100, 1000);
    let bootstrap = paired::Bootstrap { resamples, ..paired::Bootstrap::default() };
    (samples.len() >= paired::MIN_PAIRS).then(|| bootstrap.interval_of_median(samples, 0.05))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn totals_merge_like_one_series() {
        let (mut a, mut b, mut all) = (Totals::default(), Totals::default(), Totals::default());
        for (i, ns) in [5, 0, 7, 100, 3].into_iter().enumerate() {
            if i % 2 == 0 {
                a.record(ns);
            } else {
                b.record(ns);
            }
            all.record(ns);
        }
        assert_eq!([a, b].iter().sum::<Totals>(), all);
        assert_eq!((all.count, all.sum_ns, all.min_ns, all.max_ns), (5, 115, 0, 100));
        assert_eq!(all.mean_ns(), Some(23.0));
        assert_eq!(Totals::default().mean_ns(), None);
    }

    #[test]
    fn percentiles_are_observed_values() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let s = Summary::of(&mut hundred).unwrap();
        assert_eq!((s.samples, s.min, s.p50, s.p99, s.max), (100, 1.0, 50.0, 99.0, 100.0));
        assert_eq!(s.mean, 50.5);
        assert_eq!((s.p95, s.p999), (95.0, 100.0));
        let quick = Summary::without_interval(&mut hundred).unwrap();
        assert_eq!(Summary { median_ci_low: 1.0, median_ci_high: 100.0, ..s }, quick);
        // Taken in falling order, neighbours tell nearly the same, and a hundred samples no more than some twenty do.
        assert!((20.0..45.0).contains(&s.median_ci_low) && (55.0..80.0).contains(&s.median_ci_high), "{s:?}");
    }

    #[test]
    fn the_interval_is_narrower_where_neighbours_are_independent() {
        // 1 to 101 in an order without trend: multiples of 37.
        let mut shuffled: Vec<f64> = (0..101).map(|i| f64::from(i * 37 % 101 + 1)).collect();
        let s = Summary::of(&mut shuffled).unwrap();
        // Order statistics of independent samples give 41 and 61 (Campbell and Gardner 1988).
        assert!((s.median_ci_low - 41.0).abs() < 9.0 && (s.median_ci_high - 61.0).abs() < 9.0, "{s:?}");
        let few = Summary::of(&mut [3.0, 1.0, 2.0]).unwrap();
        assert_eq!((few.median_ci_low, few.median_ci_high), (1.0, 3.0));
    }

    #[test]
    fn one_sample_is_its_own_everything() {
        let s = Summary::of(&mut [4.0]).unwrap();
        assert_eq!((s.p50, s.p99, s.median_ci_low, s.median_ci_high, s.std, s.cv), (4.0, 4.0, 4.0, 4.0, 0.0, 0.0));
    }

    #[test]
    fn deviation_is_the_population_s() {
        let s = Summary::of(&mut [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((s.mean, s.std, s.cv), (5.0, 2.0, 0.4));
    }

    #[test]
    fn nothing_comes_from_nothing_or_from_nonsense() {
        assert_eq!(Summary::of(&mut []), None);
        assert_eq!(Summary::of(&mut [1.0, f64::NAN]), None);
        assert_eq!(Summary::of(&mut [0.0, 0.0]).unwrap().cv, 0.0);
    }
}
