//! Where nanoseconds come from, and how good they are.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bricks::cpu::TickCounter;
use serde::{Deserialize, Serialize};

/// A monotonic source of nanoseconds since an arbitrary origin. The recorder is generic over it, so that tests can count the
/// reads and choose the times.
pub trait TimeSource {
    /// Nanoseconds since the origin; never decreases.
    fn now_ns(&self) -> u64;

    /// A clock with the same origin that any thread may read, if there is one.
    fn shared(&self) -> Option<Clock> {
        None
    }
}

impl<T: TimeSource + ?Sized> TimeSource for &T {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        T::now_ns(self)
    }

    fn shared(&self) -> Option<Clock> {
        T::shared(self)
    }
}

/// The processor's counter where it can be trusted, scaled by the operating system's monotonic clock; that clock itself elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
    ticks: Option<Ticks>,
}

/// A counter and what its readings mean.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    counter: TickCounter,
    origin: u64,
    rate: Rate,
}

/// Nanoseconds of a tick, times 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate(u64);

impl Rate {
    /// How long the system's clock and the counter are watched: a read's 50 ns are 1/40,000 of it.
    const WATCHED: Duration = Duration::from_millis(2);

    /// The counter's rate on this machine; measured once.
    fn of(counter: TickCounter) -> Option<Self> {
        static RATE: OnceLock<Option<Rate>> = OnceLock::new();
        *RATE.get_or_init(|| {
            let (origin, first) = (Instant::now(), counter.ticks());
            loop {
                let (elapsed, last) = (origin.elapsed(), counter.ticks());
                if elapsed >= Self::WATCHED {
                    return Self::new(elapsed, last.checked_sub(first)?);
                }
            }
        })
    }

    /// None if the counter stood still, or is slower than a second a tick.
    fn new(elapsed: Duration, ticks: u64) -> Option<Self> {
        let scaled = (elapsed.as_nanos() << 32).checked_div(u128::from(ticks))?;
        u64::try_from(scaled).ok().filter(|&rate| rate > 0).map(Self)
    }

    #[inline(always)]
    fn ns(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.0)) >> 32) as u64
    }
}

/// What the clock can resolve on this machine. Measured, and printed in every report: a brick faster than the precision has
/// no time worth printing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockPrecision {
    /// Smallest non-zero difference seen between two consecutive reads.
    pub resolution_ns: u64,
    /// Mean cost of one read.
    pub read_ns: f64,
}

impl Clock {
    /// A clock whose origin is now.
    pub fn new() -> Self {
        let ticks = TickCounter::detect().and_then(|counter| {
            let rate = Rate::of(counter)?;
            Some(Ticks { counter, origin: counter.ticks(), rate })
        });
        Self { origin: Instant::now(), ticks }
    }

    /// Measures resolution and cost of a read. Takes well under a millisecond on common machines; the first clock of a process two
    /// more.
    pub fn precision() -> ClockPrecision {
        measure_precision(&Self::new(), 4096)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl TimeSource for Clock {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        match self.ticks {
            Some(t) => t.rate.ns(t.counter.ticks().saturating_sub(t.origin)),
            // u64 nanoseconds last 584 years.
            None => self.origin.elapsed().as_nanos() as u64,
        }
    }

    fn shared(&self) -> Option<Clock> {
        Some(*self)
    }
}

/// Reads the source `reads` times (at least twice). A source that never advances has a resolution of [`u64::MAX`].
fn measure_precision<T: TimeSource>(source: &T, reads: u32) -> ClockPrecision {
    let reads = reads.max(2);
    let first = source.now_ns();
    let (mut last, mut resolution_ns) = (first, u64::MAX);
    for _ in 1..reads {
        let now = source.now_ns();
        let step = now.saturating_sub(last);
        if step > 0 {
            resolution_ns = resolution_ns.min(step);
        }
        last = now;
    }
    ClockPrecision { resolution_ns, read_ns: last.saturating_sub(first) as f64 / f64::from(reads - 1) }
}

/// A clock that moves only when told to, and counts its reads. For tests and for replaying recorded times.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ns: Cell<u64>,
    reads: Cell<u64>,
}

impl ManualClock {
    /// A clock at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock forward.
    pub fn advance(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get().saturating_add(ns));
    }

    /// How often the clock was read.
    pub fn reads(&self) -> u64 {
        self.reads.get()
    }
}

impl TimeSource for ManualClock {
    fn now_ns(&self) -> u64 {
        self.reads.set(self.reads.get() + 1);
        self.now_ns.get()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Advances by 0, then 40, then 0, then 40, … per read.
    struct Coarse(Cell<u64>);
    impl TimeSource for Coarse {
        fn now_ns(&self) -> u64 {
            let n = self.0.get();
            self.0.set(n + 1);
            n / 2 * 40
        }
    }

    #[test]
    fn precision_is_the_smallest_step_that_is_not_zero() {
        let p = measure_precision(&Coarse(Cell::new(0)), 101);
        assert_eq!(p.resolution_ns, 40);
        assert_eq!(p.read_ns, 20.0);
    }

    #[test]
    fn a_clock_that_stands_still_resolves_nothing() {
        let p = measure_precision(&ManualClock::new(), 10);
        assert_eq!(p, ClockPrecision { resolution_ns: u64::MAX, read_ns: 0.0 });
    }

    #[test]
    fn a_rate_is_the_counters_ticks_in_the_systems_time() {
        let rate = Rate::new(Duration::from_millis(2), 4_200_000).unwrap();
        assert_eq!(rate.ns(2_100_000_000), 999_999_999, "2.1 GHz");
        assert_eq!(rate.ns(0), 0);
        // A year, and the largest number of ticks: no overflow.
        assert!(rate.ns(2_100_000_000 * 31_536_000).abs_diff(31_536_000_000_000_000) < 40_000_000);
        assert!(rate.ns(u64::MAX) > u64::MAX / 3);
        assert_eq!(Rate::new(Duration::from_millis(2), 0), None);
    }

    #[test]
    fn the_real_clock_agrees_with_the_systems() {
        let clock = Clock::new();
        let (system, begin) = (Instant::now(), clock.now_ns());
        std::thread::sleep(Duration::from_millis(20));
        let inner = clock.now_ns() - begin;
        let outer = system.elapsed().as_nanos() as u64;
        // The inner interval lies within the outer one, up to the rate's error.
        assert!(inner <= outer + outer / 1000 && inner >= 19_900_000, "{inner} within {outer}");
    }

    #[test]
    fn the_real_clock_never_goes_back() {
        let clock = Clock::new();
        let mut last = 0;
        for _ in 0..10_000 {
            let now = clock.now_ns();
            assert!(now >= last, "went from {last} to {now}");
            last = now;
        }
        let p = Clock::precision();
        assert!(p.resolution_ns > 0 && p.read_ns.is_finite());
    }
}
