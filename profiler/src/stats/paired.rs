//! Statistics of pairs measured in turn.
//!
//! Both sides of a pair run shortly after one another, so what the machine does to one it mostly does to the other; the
//! ratio within a pair is the observation, and its **median** over all pairs the estimate. The order within pairs has to be
//! balanced (as often A before B as B before A; [`Order`] gives such sequences), because whatever runs second finds the caches
//! as the first left them.
//!
//! Disturbances last longer than one pair, so neighbouring pairs are not independent and an interval that pretends so is too
//! narrow. The bootstrap here therefore resamples *blocks* of neighbouring pairs (circular blocks of ⌈n^⅓⌉: Politis and
//! Romano 1992; the exponent: Hall, Horowitz and Jing 1995). It is seeded: the same data give the same interval.
//!
//! A third arm that does exactly what the first does is the **control**: its true ratio is 1, so how far its interval reaches
//! from 1 is what the set-up cannot resolve at that moment.
//!
//! ```
//! use brick_profiler::paired::{Bootstrap, Pair, Rule, Verdict};
//!
//! // Base and candidate in µs; the machine slowed down half-way, the ratio did not.
//! let pairs: Vec<Pair> = (0..60).map(|i| if i < 30 { 100.0 } else { 180.0 }).map(|t| Pair { base: t, candidate: t * 1.01 }).collect();
//! let ratio = Bootstrap::default().ratio(&pairs)?;
//! assert!((ratio.estimate - 1.01).abs() < 1e-9);
//!
//! let control = Bootstrap::default().ratio(&pairs.iter().map(|p| Pair { base: p.base, candidate: p.base }).collect::<Vec<_>>())?;
//! assert_eq!(Rule { limit: 1.02, control_spread: 0.015 }.verdict(&ratio, &control), Verdict::Holds);
//! # Ok::<(), brick_profiler::paired::StatsError>(())
//! ```

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

/// One observation: the same work done by both sides, one shortly after the other. Any unit, the same for both.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair {
    /// What is compared with.
    pub base: f64,
    /// What is judged.
    pub candidate: f64,
}

/// Data from which no ratio can be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StatsError {
    /// Too few pairs for an interval.
    #[error("{found} pairs: expected at least {MIN_PAIRS}, fewer say nothing about the spread")]
    TooFew {
        /// Pairs given.
        found: usize,
    },
    /// A time that is not a positive, finite number.
    #[error("pair {index}: base {base}, candidate {candidate}; expected positive, finite numbers")]
    NotPositive {
        /// Which pair.
        index: usize,
        /// Its base.
        base: f64,
        /// Its candidate.
        candidate: f64,
    },
}

/// Pairs below which no interval is given: the median of five values leaves its range in one case of sixteen.
pub const MIN_PAIRS: usize = 5;

/// A ratio candidate / base with its interval, of 95 % unless another was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Median of the ratios within pairs.
    pub estimate: f64,
    /// Lower end of the interval of the estimate.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Median of all candidates / median of all bases: agrees with the estimate unless the machine changed in between.
    pub of_medians: f64,
    /// Median of the bases.
    pub base_median: f64,
    /// Median of the candidates.
    pub candidate_median: f64,
    /// Observations.
    pub pairs: usize,
}

impl Ratio {
    /// How far the interval reaches from 1: for a control, what the set-up cannot resolve.
    pub fn reach(&self) -> f64 {
        (self.high - 1.0).abs().max((1.0 - self.low).abs())
    }

    /// Whether 1 lies outside the interval: the two sides differ.
    pub fn differs_from_one(&self) -> bool {
        self.low > 1.0 || self.high < 1.0
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} [{:.4}, {:.4}] over {} pairs", self.estimate, self.low, self.high, self.pairs)
    }
}

/// How intervals are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Resamples.
    pub resamples: usize,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { resamples: 2000, seed: 0x0062_7269_636b }
    }
}

impl Bootstrap {
    /// The ratio of pairs given in the order in which they were measured, with its 95 % interval.
    ///
    /// # Errors
    /// Fewer than [`MIN_PAIRS`] pairs, or a value that is not positive and finite.
    pub fn ratio(&self, pairs: &[Pair]) -> Result<Ratio, StatsError> {
        self.ratio_at(pairs, 0.05)
    }

    /// The same with an interval that misses in a fraction `alpha` of cases: smaller where many ratios are judged together, so that
    /// all their intervals hold at once (Bonferroni: 0.05 divided by how many there are). No resample reaches further out than the
    /// outermost of [`resamples`](Self::resamples), so `alpha` means what it says down to `2 / resamples`, and is taken as that
    /// below.
    ///
    /// # Errors
    /// As [`ratio`](Self::ratio).
    pub fn ratio_at(&self, pairs: &[Pair], alpha: f64) -> Result<Ratio, StatsError> {
        if pairs.len() < MIN_PAIRS {
            return Err(StatsError::TooFew { found: pairs.len() });
        }
        let good = |x: f64| x.is_finite() && x > 0.0;
        if let Some((index, p)) = pairs.iter().enumerate().find(|(_, p)| !good(p.base) || !good(p.candidate)) {
            return Err(StatsError::NotPositive { index, base: p.base, candidate: p.candidate });
        }
        let ratios: Vec<f64> = pairs.iter().map(|p| p.candidate / p.base).collect();
        let (low, high) = self.interval_of_median(&ratios, alpha);
        let base_median = median(&mut pairs.iter().map(|p| p.base).collect::<Vec<_>>());
        let candidate_median = median(&mut pairs.iter().map(|p| p.candidate).collect::<Vec<_>>());
        Ok(Ratio {
            estimate: median(&mut ratios.clone()),
            low,
            high,
            of_medians: candidate_median / base_median,
            base_median,
            candidate_median,
            pairs: pairs.len(),
        })
    }

    /// Percentile interval of the median under the circular block bootstrap.
    fn interval_of_median(&self, x: &[f64], alpha: f64) -> (f64, f64) {
        let n = x.len();
        let block = (n as f64).cbrt().ceil() as usize;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut sample = Vec::with_capacity(n);
        let mut medians: Vec<f64> = (0..self.resamples.max(1))
            .map(|_| {
                sample.clear();
                while sample.len() < n {
                    // Multiply and shift: the bias of 2⁻³² per value is far below what resampling itself adds.
                    let start = ((u64::from(rng.next_u32()) * n as u64) >> 32) as usize;
                    let take = block.min(n - sample.len());
                    sample.extend((0..take).map(|i| x[(start + i) % n]));
                }
                median(&mut sample)
            })
            .collect();
        medians.sort_unstable_by(f64::total_cmp);
        let at = |q: f64| medians[((medians.len() - 1) as f64 * q).round() as usize];
        (at(alpha / 2.0), at(1.0 - alpha / 2.0))
    }
}

/// The middle value, or the mean of the two in the middle. Reorders `x`; NaN for nothing.
pub fn median(x: &mut [f64]) -> f64 {
    let n = x.len();
    if n == 0 {
        return f64::NAN;
    }
    let (below, &mut upper, _) = x.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

/// What is claimed of a ratio, and how good the set-up has to be to judge it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rule {
    /// The ratio is claimed to be at most this.
    pub limit: f64,
    /// A control whose interval reaches further from 1 than this makes every verdict inconclusive.
    pub control_spread: f64,
}

/// What pairs say about a [`Rule`]. Noise never fails: it makes a verdict inconclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The whole interval is at or below the limit.
    Holds,
    /// The whole interval is above the limit.
    Broken,
    /// The interval contains the limit, or the control is too unsteady.
    Inconclusive,
}

impl Rule {
    /// Judges a ratio by its interval and by the control that was measured with it.
    pub fn verdict(&self, ratio: &Ratio, control: &Ratio) -> Verdict {
        if control.reach() > self.control_spread {
            Verdict::Inconclusive
        } else if ratio.high <= self.limit {
            Verdict::Holds
        } else if ratio.low > self.limit {
            Verdict::Broken
        } else {
            Verdict::Inconclusive
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Holds => "HOLDS",
            Self::Broken => "BROKEN",
            Self::Inconclusive => "INCONCLUSIVE",
        })
    }
}

/// Orders of three arms (0 base, 1 control, 2 candidate) for round after round.
///
/// ABBA for three: six rounds go through all permutations, so every arm is as often first, second and last as every other,
/// and each runs directly after each other equally often within rounds.
#[derive(Debug, Clone, Default)]
pub struct Order {
    round: usize,
}

impl Iterator for Order {
    type Item = [usize; 3];

    fn next(&mut self) -> Option<[usize; 3]> {
        // Mirrored permutations side by side, so that a drift cancels within two rounds.
        const ALL: [[usize; 3]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];
        let order = ALL[self.round % ALL.len()];
        self.round = self.round.wrapping_add(1);
        Some(order)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Uniform in 0..1.
    fn uniform(rng: &mut ChaCha8Rng) -> f64 {
        f64::from(rng.next_u32()) / 4_294_967_296.0
    }

    /// Pairs on a machine that jumps between two speeds for ten pairs at a time, with outliers on either side.
    fn noisy(seed: u64, n: usize, ratio: f64) -> Vec<Pair> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut speed = 1.0;
        (0..n)
            .map(|i| {
                if i % 10 == 0 {
                    speed = if uniform(&mut rng) < 0.5 { 1.0 } else { 1.6 };
                }
                let mut time = |x: f64| {
                    let outlier = if uniform(&mut rng) < 0.05 { 3.0 } else { 1.0 };
                    x * speed * outlier * (1.0 + 0.02 * (uniform(&mut rng) - 0.5))
                };
                Pair { base: time(100.0), candidate: time(100.0 * ratio) }
            })
            .collect()
    }

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), 2.5);
        assert_eq!(median(&mut [7.0]), 7.0);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn a_known_ratio_is_found_through_jumps_and_outliers() {
        let r = Bootstrap::default().ratio(&noisy(1, 200, 1.05)).unwrap();
        assert!((r.estimate - 1.05).abs() < 0.003, "{r}");
        assert!(r.low <= r.estimate && r.estimate <= r.high, "{r}");
        assert!(r.low > 1.04 && r.high < 1.06, "{r}");
        assert!(r.differs_from_one());
    }

    #[test]
    fn intervals_of_equal_sides_contain_one_about_as_often_as_they_say() {
        let seeds = 0..200;
        let covered = seeds
            .filter(|&s| !Bootstrap { resamples: 400, seed: 9 }.ratio(&noisy(s, 80, 1.0)).unwrap().differs_from_one());
        // 95 % of 200 is 190; the percentile bootstrap of a median is somewhat off, in either direction.
        let covered = covered.count();
        assert!((175..=200).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn a_smaller_alpha_widens_the_interval() {
        let pairs = noisy(5, 60, 1.0);
        let [usual, strict, all] =
            [0.05, 0.001, 0.0].map(|alpha| Bootstrap::default().ratio_at(&pairs, alpha).unwrap());
        assert_eq!(usual, Bootstrap::default().ratio(&pairs).unwrap());
        assert!(strict.low < usual.low && usual.high < strict.high, "{strict} {usual}");
        assert!(all.low <= strict.low && strict.high <= all.high && all.low > 0.0, "{all}");
        assert_eq!(usual.estimate, strict.estimate);
    }

    #[test]
    fn dependent_pairs_widen_the_interval() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        // The ratio itself wanders in runs of five: the same values in random order look far more certain.
        let mut level = 0.0;
        let runs: Vec<Pair> = (0..960)
            .map(|i| {
                if i % 5 == 0 {
                    level = 0.1 * (uniform(&mut rng) - 0.5);
                }
                Pair { base: 1.0, candidate: 1.0 + level + 0.001 * uniform(&mut rng) }
            })
            .collect();
        let mut shuffled = runs.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, (uniform(&mut rng) * (i + 1) as f64) as usize);
        }
        let width = |p: &[Pair]| Bootstrap::default().ratio(p).map(|r| r.high - r.low).unwrap();
        assert!(width(&runs) > 1.3 * width(&shuffled), "{} against {}", width(&runs), width(&shuffled));
    }

    #[test]
    fn the_same_data_give_the_same_interval() {
        let pairs = noisy(4, 50, 1.0);
        let a = Bootstrap::default().ratio(&pairs).unwrap();
        assert_eq!(a, Bootstrap::default().ratio(&pairs).unwrap());
        let other = Bootstrap { seed: 1, ..Bootstrap::default() }.ratio(&pairs).unwrap();
        assert_eq!(a.estimate, other.estimate, "the estimate does not depend on the seed");
    }

    #[test]
    fn bad_data_are_refused() {
        let ok = Pair { base: 1.0, candidate: 1.0 };
        assert_eq!(Bootstrap::default().ratio(&[ok; 4]), Err(StatsError::TooFew { found: 4 }));
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            for pair in [Pair { base: bad, ..ok }, Pair { candidate: bad, ..ok }] {
                let err = Bootstrap::default().ratio(&[ok, ok, ok, pair, ok]).unwrap_err();
                assert!(matches!(err, StatsError::NotPositive { index: 3, .. }), "{err}");
            }
        }
    }

    #[test]
    fn verdicts() {
        let ratio = |low: f64, high: f64| Ratio {
            estimate: f64::midpoint(low, high),
            low,
            high,
            of_medians: 1.0,
            base_median: 1.0,
            candidate_median: 1.0,
            pairs: 40,
        };
        let rule = Rule { limit: 1.02, control_spread: 0.015 };
        let steady = ratio(0.995, 1.005);
        assert_eq!(rule.verdict(&ratio(1.0, 1.02), &steady), Verdict::Holds);
        assert_eq!(rule.verdict(&ratio(1.021, 1.03), &steady), Verdict::Broken);
        assert_eq!(rule.verdict(&ratio(1.01, 1.03), &steady), Verdict::Inconclusive);
        // A wide control on either side of 1 takes the word from everything.
        for control in [ratio(0.98, 1.0), ratio(1.0, 1.02)] {
            assert_eq!(rule.verdict(&ratio(1.5, 1.6), &control), Verdict::Inconclusive);
        }
    }

    #[test]
    fn ten_per_cent_more_work_breaks_a_rule_and_none_never_does() {
        let rule = Rule { limit: 1.02, control_spread: 0.015 };
        let verdict = |seed, ratio| {
            let control = Bootstrap::default().ratio(&noisy(seed + 1000, 60, 1.0)).unwrap();
            rule.verdict(&Bootstrap::default().ratio(&noisy(seed, 60, ratio)).unwrap(), &control)
        };
        assert!((0..20).all(|s| verdict(s, 1.1) == Verdict::Broken));
        assert!((0..20).all(|s| verdict(s, 1.0) == Verdict::Holds));
    }

    #[test]
    fn orders_are_balanced() {
        let orders: Vec<[usize; 3]> = Order::default().take(12).collect();
        assert_eq!(orders[..6], orders[6..]);
        for arm in 0..3 {
            for place in 0..3 {
                assert_eq!(orders[..6].iter().filter(|o| o[place] == arm).count(), 2, "arm {arm} at place {place}");
            }
            for other in (0..3).filter(|&o| o != arm) {
                let follows = |o: &[usize; 3]| o.windows(2).any(|w| w == [arm, other]);
                assert_eq!(orders[..6].iter().filter(|o| follows(o)).count(), 2, "{other} after {arm}");
            }
        }
    }
}
