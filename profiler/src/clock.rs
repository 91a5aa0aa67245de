//! Where nanoseconds come from, and how good they are.

use std::cell::Cell;
use std::time::Instant;

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

/// The operating system's monotonic clock. On Linux a read is served by the vDSO: no system call, some 20 ns.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
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
        Self { origin: Instant::now() }
    }

    /// Measures resolution and cost of a read. Takes well under a millisecond on common machines.
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
        // u64 nanoseconds last 584 years.
        self.origin.elapsed().as_nanos() as u64
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
