//! Threads that start together, and the barrier between them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A barrier on which threads spin. After a while they offer their core to others, so that more threads than cores make
/// progress too.
#[derive(Debug)]
pub(super) struct SpinBarrier {
    threads: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
}

impl SpinBarrier {
    const SPINS: u32 = 4096;

    fn new(threads: usize) -> Self {
        Self { threads, arrived: AtomicUsize::new(0), generation: AtomicUsize::new(0) }
    }

    /// Returns when all threads have called it.
    pub(super) fn wait(&self) {
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.threads {
            // Nobody arrives for the next generation before this store releases the present one.
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            if spins < Self::SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// One thread of a team.
pub(super) struct Member<'a> {
    barrier: &'a SpinBarrier,
    /// Threads in the team.
    pub(super) threads: usize,
}

/// When a repeat began and ended on one thread.
type Span = (Instant, Instant);

impl Member<'_> {
    /// Runs `f` `repeats` times, each time starting together with the other members, who must call this too.
    pub(super) fn time(&self, repeats: u32, mut f: impl FnMut()) -> Vec<Span> {
        (0..repeats)
            .map(|_| {
                self.barrier.wait();
                let begin = Instant::now();
                f();
                (begin, Instant::now())
            })
            .collect()
    }

    /// Waits for the others.
    pub(super) fn wait(&self) {
        self.barrier.wait();
    }
}

/// Runs `job` on `threads` threads at once, the caller being one of them.
///
/// # Errors
/// The system refuses a thread; then no job has run.
pub(super) fn run<R: Send>(threads: usize, job: impl Fn(&Member<'_>) -> R + Sync) -> std::io::Result<Vec<R>> {
    const WAIT: usize = 0;
    const GO: usize = 1;
    const GIVE_UP: usize = 2;
    let threads = threads.max(1);
    let barrier = SpinBarrier::new(threads);
    let signal = AtomicUsize::new(WAIT);
    let member = Member { barrier: &barrier, threads };
    std::thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads - 1);
        for _ in 1..threads {
            let spawned = std::thread::Builder::new().spawn_scoped(scope, || {
                loop {
                    match signal.load(Ordering::Acquire) {
                        WAIT => std::thread::yield_now(),
                        GO => return Some(job(&member)),
                        _ => return None,
                    }
                }
            });
            match spawned {
                Ok(handle) => handles.push(handle),
                Err(e) => {
                    signal.store(GIVE_UP, Ordering::Release);
                    return Err(e);
                }
            }
        }
        signal.store(GO, Ordering::Release);
        let mut results = vec![job(&member)];
        for handle in handles {
            match handle.join() {
                Ok(result) => results.extend(result),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(results)
    })
}

/// The shortest repeat: from the first thread's beginning to the last thread's end.
pub(super) fn best(members: &[&[Span]]) -> Option<Duration> {
    let repeats = members.iter().map(|m| m.len()).min()?;
    (0..repeats)
        .filter_map(|i| {
            let begin = members.iter().map(|m| m[i].0).min()?;
            let end = members.iter().map(|m| m[i].1).max()?;
            Some(end.saturating_duration_since(begin))
        })
        .min()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn nobody_passes_the_barrier_early() {
        let (threads, rounds) = (4, 500);
        let arrived = AtomicU64::new(0);
        let early = run(threads, |m| {
            let mut early = 0;
            for round in 1..=rounds {
                arrived.fetch_add(1, Ordering::Relaxed);
                m.wait();
                early += u64::from(arrived.load(Ordering::Relaxed) < round * threads as u64);
                m.wait();
            }
            early
        })
        .unwrap();
        assert_eq!(early, vec![0; threads]);
        assert_eq!(arrived.into_inner(), rounds * threads as u64);
    }

    #[test]
    fn a_repeat_lasts_from_the_first_beginning_to_the_last_end() {
        let t = Instant::now();
        let at = |ms| t + Duration::from_millis(ms);
        let (a, b) = ([(at(0), at(10)), (at(20), at(25))], [(at(2), at(12)), (at(21), at(29))]);
        assert_eq!(best(&[&a, &b]), Some(Duration::from_millis(9)));
        assert_eq!(best(&[&a]), Some(Duration::from_millis(5)));
        assert_eq!(best(&[]), None);
        assert_eq!(best(&[&[]]), None);
    }

    #[test]
    fn every_member_runs_every_repeat() {
        let runs = AtomicU64::new(0);
        let spans = run(3, |m| {
            assert_eq!(m.threads, 3);
            m.time(5, || {
                runs.fetch_add(1, Ordering::Relaxed);
            })
        })
        .unwrap();
        assert_eq!((spans.len(), runs.into_inner()), (3, 15));
        assert!(spans.iter().all(|s| s.len() == 5));
    }
}
