//! Threads that start together, for measuring.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bricks::cpu::gang::{self, Gang, GangPanic};

/// One thread of a team.
pub(super) struct Member<'a> {
    gang: &'a gang::Member<'a>,
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
                self.gang.barrier();
                let begin = Instant::now();
                f();
                (begin, Instant::now())
            })
            .collect()
    }

    /// Waits for the others.
    pub(super) fn wait(&self) {
        self.gang.barrier();
    }
}

/// Why there are no results.
#[derive(Debug)]
pub(super) enum TeamError {
    /// The system refuses a thread; no job has run.
    Spawn(std::io::Error),
    /// A job panicked.
    Panic(GangPanic),
}

/// Runs `job` on `threads` threads at once, the caller being one of them; results in the order of members. The threads are
/// those that kernels run on: a gang, one member per core where it fills them.
///
/// # Errors
/// [`TeamError`].
pub(super) fn run<R: Send>(
    threads: usize,
    cpus: &[usize],
    job: impl Fn(&Member<'_>) -> R + Sync,
) -> Result<Vec<R>, TeamError> {
    let threads = threads.max(1);
    let mut gang = Gang::with_cpus(threads, cpus).map_err(TeamError::Spawn)?;
    let results: Vec<Mutex<Option<R>>> = (0..threads).map(|_| Mutex::new(None)).collect();
    let work = |m: &gang::Member<'_>| {
        let result = job(&Member { gang: m, threads });
        *results[m.index()].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    };
    gang.run(work, work).map_err(TeamError::Panic)?;
    Ok(results.into_iter().filter_map(|r| r.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn nobody_passes_the_barrier_early() {
        let (threads, rounds) = (4, 500);
        let arrived = AtomicU64::new(0);
        let early = run(threads, &[], |m| {
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
        let spans = run(3, &[], |m| {
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
