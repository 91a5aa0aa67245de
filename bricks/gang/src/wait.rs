//! Waiting for another member: spin, then park; and how long to spin.

use std::cell::Cell;

use super::sync::{AtomicBool, Fences, Ordering, Parker, thread::Thread};

/// Longest spin inside a call. Parking and waking cost about as much, so that the wait is at most twice what the better
/// choice would have cost.
const LONGEST_US: u32 = 50;
/// Shortest spin: most waits between members that run are shorter.
const SHORTEST_US: u32 = 1;
/// Longest spin between two calls: longer than sampling a token takes.
const GRACE_US: u32 = 300;
/// Of the waits that would end early, one in this many spins to the end, to see whether it pays again.
const PROBE: u32 = 16;

/// Where a member sleeps.
pub(super) struct Seat {
    /// Whether its member is parked or about to be.
    sleeping: AtomicBool,
    /// The thread that sits here; the leader's may change from call to call.
    parker: Parker,
}

impl Seat {
    pub(super) fn new() -> Self {
        Self { sleeping: AtomicBool::new(false), parker: Parker::new() }
    }

    /// Who is to be woken.
    pub(super) fn occupy(&self, thread: Thread) {
        self.parker.occupy(thread);
    }

    /// Whether the member is parked or about to be.
    #[cfg(all(test, not(loom)))]
    pub(super) fn is_sleeping(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst)
    }

    /// Wakes the member if it sleeps; to be called after the store it may be waiting for.
    #[inline]
    pub(super) fn wake(&self, fences: Fences) {
        fences.frequent();
        if self.sleeping.load(Ordering::Relaxed) {
            self.parker.unpark();
        }
    }

    /// Parks until `done`. Whoever makes it true calls [`Seat::wake`] afterwards.
    #[cold]
    fn park(&self, fences: Fences, done: impl Fn() -> bool) {
        self.sleeping.store(true, Ordering::Relaxed);
        // Either we see what the waker stored, or it sees that we sleep.
        fences.rare();
        while !done() {
            // A wake-up that came too late for an earlier wait may end this early.
            self.parker.park();
        }
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

/// How long a member spins before it parks. A wait that spinning could not end says that the other member has no core;
/// when that happens again and again (more threads than cores), spinning only takes its time away.
#[derive(Debug, Clone)]
pub(super) struct Patience {
    /// Present limit, in spins.
    spins: Cell<u32>,
    /// Waits that ended early since the last probe.
    early: Cell<u32>,
    per_us: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        let per_us = spins_per_us();
        Self { spins: Cell::new(LONGEST_US * per_us), early: Cell::new(0), per_us }
    }

    /// Waits inside a call.
    #[inline]
    pub(super) fn wait(&self, seat: &Seat, fences: Fences, done: impl Fn() -> bool) {
        if !done() {
            self.wait_long(seat, fences, done);
        }
    }

    fn wait_long(&self, seat: &Seat, fences: Fences, done: impl Fn() -> bool) {
        let (longest, shortest) = (LONGEST_US * self.per_us, SHORTEST_US * self.per_us);
        let mut limit = self.spins.get();
        if limit < longest {
            self.early.set(self.early.get() + 1);
            if self.early.get() == PROBE {
                self.early.set(0);
                limit = longest;
            }
        }
        if spin(limit, &done) {
            self.spins.set((self.spins.get() * 4).min(longest));
        } else {
            self.spins.set((self.spins.get() / 2).max(shortest));
            seat.park(fences, done);
        }
    }

    /// Waits between calls: longer while spinning pays inside calls.
    pub(super) fn wait_idle(&self, seat: &Seat, fences: Fences, done: impl Fn() -> bool) {
        if !spin(self.spins.get() * (GRACE_US / LONGEST_US), &done) {
            seat.park(fences, done);
        }
    }
}

/// Whether `done` became true within `limit` spins.
fn spin(limit: u32, done: &impl Fn() -> bool) -> bool {
    for _ in 0..limit {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    done()
}

/// Spins that take a microsecond: the instruction behind a spin takes 4 to 140 cycles, depending on the processor.
#[cfg(not(any(loom, miri)))]
fn spins_per_us() -> u32 {
    static PER_US: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *PER_US.get_or_init(|| {
        const SPINS: u32 = 100;
        let time = || {
            let start = std::time::Instant::now();
            for _ in 0..SPINS {
                std::hint::spin_loop();
            }
            start.elapsed()
        };
        let best = (0..5).map(|_| time()).min().unwrap_or_default();
        (SPINS * 1000 / (best.as_nanos() as u32).max(1)).clamp(1, 1000)
    })
}

/// No spinning where every spin is a state to explore.
#[cfg(any(loom, miri))]
fn spins_per_us() -> u32 {
    0
}
