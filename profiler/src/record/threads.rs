//! Who waited at which barrier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::recorder::Arrivals;
use super::ring::NOT_RUN;
use crate::clock::{Clock, TimeSource};

/// Words of a cache line: rows of different threads never share one.
const LINE: usize = 8;

/// When each thread reached the barrier of each step of the running forward call; a row per thread.
#[derive(Debug)]
struct Table {
    clock: Clock,
    steps: usize,
    stride: usize,
    times: Box<[AtomicU64]>,
}

/// A handle on the table of arrival times, for the threads of a gang. Without a table (no threads were announced, the mode has no
/// times of steps, or the clock belongs to one thread) it does nothing.
#[derive(Debug, Clone)]
pub struct Stamps(Option<Arc<Table>>);

impl Arrivals for Stamps {
    #[inline]
    fn arrive(&self, thread: usize, step: usize) {
        let Some(table) = &self.0 else { return };
        if step >= table.steps {
            return;
        }
        if let Some(cell) = table.times.get(thread * table.stride + step) {
            // Relaxed: the barrier that follows orders it before the leader's read.
            cell.store(table.clock.now_ns(), Ordering::Relaxed);
        }
    }
}

/// Time of one thread in one step, over all forward calls of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadTime {
    /// From the beginning of the step until the thread had no work left.
    pub busy_ns: u64,
    /// From then until all threads had none left.
    pub wait_ns: u64,
}

impl ThreadTime {
    pub(super) fn add(&mut self, other: ThreadTime) {
        self.busy_ns = self.busy_ns.saturating_add(other.busy_ns);
        self.wait_ns = self.wait_ns.saturating_add(other.wait_ns);
    }
}

/// The arrival times of the running call, and sums of those before it, per phase.
#[derive(Debug)]
pub(super) struct Threads {
    stamps: Stamps,
    count: usize,
    steps: usize,
    /// `[phase][step][thread]`.
    sums: Vec<ThreadTime>,
}

impl Threads {
    pub(super) fn none() -> Self {
        Self { stamps: Stamps(None), count: 0, steps: 0, sums: vec![] }
    }

    pub(super) fn new(threads: usize, steps: usize, phases: usize, clock: Clock) -> Self {
        // A line of room behind each row, so that rows need no alignment to stay apart.
        let stride = steps.next_multiple_of(LINE) + LINE;
        let times = (0..threads * stride).map(|_| AtomicU64::new(NOT_RUN)).collect();
        let table = Table { clock, steps, stride, times };
        let sums = vec![ThreadTime::default(); phases * steps * threads];
        Self { stamps: Stamps(Some(Arc::new(table))), count: threads, steps, sums }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn stamps(&self) -> Stamps {
        self.stamps.clone()
    }

    pub(super) fn clear(&mut self) {
        self.sums.fill(ThreadTime::default());
    }

    /// Adds the call that has just ended: `ends` are clock readings behind the barrier of each step ([`NOT_RUN`] where there was none),
    /// `begin` the one before the first. Gives the number of the leader's clock reads.
    pub(super) fn add(&mut self, phase: usize, begin: u64, ends: &[u64]) -> u64 {
        let Stamps(Some(table)) = &self.stamps else { return 0 };
        let (mut start, mut reads) = (begin, 0);
        for (step, &end) in ends.iter().enumerate().take(self.steps) {
            if end == NOT_RUN {
                continue;
            }
            let sums = &mut self.sums[(phase * self.steps + step) * self.count..][..self.count];
            for (thread, sum) in sums.iter_mut().enumerate() {
                // Relaxed: the step's barrier is behind us. What is older than the call is of a call before: the thread said nothing.
                let at = table.times[thread * table.stride + step].load(Ordering::Relaxed);
                if at != NOT_RUN && at >= begin {
                    reads += u64::from(thread == 0);
                    let at = at.clamp(start, end.max(start));
                    sum.add(ThreadTime { busy_ns: at - start, wait_ns: end.saturating_sub(at) });
                }
            }
            start = end;
        }
        reads
    }

    /// Times of all threads in a step; empty where none were recorded.
    pub(super) fn step(&self, phase: usize, step: usize) -> &[ThreadTime] {
        if step >= self.steps {
            return &[];
        }
        &self.sums[(phase * self.steps + step) * self.count..][..self.count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_and_wait_fill_the_step() {
        let mut t = Threads::new(2, 3, 1, Clock::new());
        let stamps = t.stamps();
        let table = stamps.0.as_ref().expect("a table");
        let set = |thread: usize, step: usize, ns: u64| {
            table.times[thread * table.stride + step].store(ns, Ordering::Relaxed);
        };
        // Steps end at 100 and 250; the second did not run.
        for (thread, step, ns) in [(0, 0, 60), (1, 0, 95), (0, 2, 250), (1, 2, 90)] {
            set(thread, step, ns);
        }
        assert_eq!(t.add(0, 10, &[100, NOT_RUN, 250]), 2);
        let time = |busy_ns, wait_ns| ThreadTime { busy_ns, wait_ns };
        assert_eq!(t.step(0, 0), [time(50, 40), time(85, 5)]);
        assert_eq!(t.step(0, 1), [ThreadTime::default(); 2]);
        assert_eq!(t.step(0, 2), [time(150, 0), time(0, 150)], "a reading before the step counts as its beginning");
        // A thread that says nothing in the next call adds nothing.
        assert_eq!(t.add(0, 260, &[300, NOT_RUN, 450]), 0);
        assert_eq!(t.step(0, 0), [time(50, 40), time(85, 5)]);
        t.clear();
        assert_eq!(t.step(0, 0), [ThreadTime::default(); 2]);
    }

    #[test]
    fn strangers_are_ignored() {
        let t = Threads::new(2, 3, 1, Clock::new());
        t.stamps().arrive(2, 0);
        t.stamps().arrive(0, 3);
        Threads::none().stamps().arrive(0, 0);
        assert_eq!(t.step(0, 3), []);
        let table = t.stamps.0.as_ref().expect("a table");
        assert!(table.times.iter().all(|x| x.load(Ordering::Relaxed) == NOT_RUN));
    }
}
