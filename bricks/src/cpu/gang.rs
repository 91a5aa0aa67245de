//! A gang of threads that enters **once** per forward call and walks a list of steps together.
//!
//! A decode step of a small model has hundreds of steps of a few microseconds each, so a fork-join per step would cost more
//! than the work. Here the threads meet at spin barriers instead: the last one to arrive resets the shared work counter and
//! releases the others. Work inside a step is handed out by that atomic counter, so a thread that the system takes away
//! only delays the chunk it holds.
//!
//! Waiting is spin-then-yield inside a call (two threads on one core make progress) and spin-then-park between calls (an
//! idle gang uses no processor time). The hot path takes no lock, allocates nothing and, while threads keep their cores,
//! makes no system call.
//!
//! A panic on any thread poisons the barrier: everybody leaves, and [`Gang::run`] returns [`GangPanic`].

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{JoinHandle, Thread};

/// Spins of a waiting thread inside a call before it starts to yield its core: about 20 µs.
const SPINS_BEFORE_YIELD: u32 = 2_000;
/// Spins of an idle worker between calls before it parks: about 300 µs, longer than sampling a token takes.
const SPINS_BEFORE_PARK: u32 = 30_000;

/// A thread of the gang panicked; the call's results are void, the gang itself stays usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a compute thread panicked: {message}")]
pub struct GangPanic {
    /// The panic's message, if it was text.
    pub message: String,
}

/// Thrown (and caught) inside the gang to leave a poisoned barrier; never seen outside.
struct Poisoned;

type Job<'a> = dyn Fn(&Member<'_>) + Sync + 'a;

struct Shared {
    size: usize,
    /// Incremented by the leader to start a call.
    generation: AtomicU64,
    /// The call's closure; written by the leader before `generation`, read by workers after it.
    job: UnsafeCell<Option<*const Job<'static>>>,
    /// Workers that have not finished the current call.
    running: AtomicUsize,
    shutdown: AtomicBool,
    poisoned: AtomicBool,
    /// First panic message of a call.
    message: std::sync::Mutex<Option<String>>,
    // Barrier.
    arrived: AtomicUsize,
    phase: AtomicU32,
    /// Next piece of work of the current step.
    next: AtomicUsize,
    /// Whether worker `i + 1` is parked (or about to be).
    parked: Vec<AtomicBool>,
}

// SAFETY: `job` is the only field that is not `Sync` by itself. It is written by the leader only while no worker runs
// (`running == 0`) and published by the release store to `generation`; workers read it after the matching acquire load.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `job` is only dereferenced during the call that stored it, while the closure is borrowed.
unsafe impl Send for Shared {}

/// A fixed set of threads; the caller's thread is member 0, the *leader*.
pub struct Gang {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
}

/// One thread's view of a running call.
pub struct Member<'a> {
    shared: &'a Shared,
    index: usize,
}

impl Member<'_> {
    /// This thread's number, `0..size`; 0 is the leader.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Threads in the gang.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Takes the next chunk of `0..total` in pieces of `chunk`, or `None` when all is handed out.
    /// Every member must use the same `total` and `chunk` between two barriers.
    pub fn take(&self, total: usize, chunk: usize) -> Option<std::ops::Range<usize>> {
        debug_assert!(chunk > 0);
        let s = self.shared;
        if s.size == 1 {
            // No sharing: the counter still remembers what was taken, without a locked instruction.
            let start = s.next.load(Ordering::Relaxed);
            s.next.store(start.saturating_add(chunk), Ordering::Relaxed);
            return (start < total).then(|| start..(start + chunk).min(total));
        }
        let start = s.next.fetch_add(chunk, Ordering::Relaxed);
        (start < total).then(|| start..(start + chunk).min(total))
    }

    /// Waits for all members, then starts a new round of [`Member::take`].
    pub fn barrier(&self) {
        let s = self.shared;
        if s.size == 1 {
            s.next.store(0, Ordering::Relaxed);
            return;
        }
        let phase = s.phase.load(Ordering::Relaxed);
        if s.arrived.fetch_add(1, Ordering::AcqRel) + 1 == s.size {
            s.arrived.store(0, Ordering::Relaxed);
            s.next.store(0, Ordering::Relaxed);
            // Release: everything any member wrote before it arrived (acquired through `arrived`) is visible after.
            s.phase.store(phase.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0u32;
        while s.phase.load(Ordering::Acquire) == phase {
            if s.poisoned.load(Ordering::Relaxed) {
                std::panic::resume_unwind(Box::new(Poisoned));
            }
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

impl Gang {
    /// Starts a gang of `size` threads (the caller counts as one; 0 means 1).
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn new(size: usize) -> std::io::Result<Self> {
        let size = size.max(1);
        let shared = Arc::new(Shared {
            size,
            generation: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            running: AtomicUsize::new(0),
            shutdown: AtomicBool::new(false),
            poisoned: AtomicBool::new(false),
            message: std::sync::Mutex::new(None),
            arrived: AtomicUsize::new(0),
            phase: AtomicU32::new(0),
            next: AtomicUsize::new(0),
            parked: (1..size).map(|_| AtomicBool::new(false)).collect(),
        });
        // Built up in place so that a failed spawn shuts down the threads started before it.
        let mut gang = Self { shared, workers: Vec::with_capacity(size - 1), handles: Vec::with_capacity(size - 1) };
        for index in 1..size {
            let shared = Arc::clone(&gang.shared);
            let worker =
                std::thread::Builder::new().name(format!("brick-{index}")).spawn(move || worker(&shared, index))?;
            gang.handles.push(worker.thread().clone());
            gang.workers.push(worker);
        }
        Ok(gang)
    }

    /// Threads in the gang, the caller included.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Runs `leader` on this thread and `worker` on every other, and returns when all have finished.
    ///
    /// Both must pass the same number of barriers. Two closures, because the leader alone may hold exclusive state (the
    /// recorder).
    ///
    /// # Errors
    /// [`GangPanic`] when any thread panicked.
    pub fn run<L, W>(&mut self, leader: L, worker: W) -> Result<(), GangPanic>
    where
        L: FnOnce(&Member<'_>),
        W: Fn(&Member<'_>) + Sync,
    {
        let s = &*self.shared;
        s.next.store(0, Ordering::Relaxed);
        if s.size > 1 {
            debug_assert_eq!(s.running.load(Ordering::Acquire), 0, "a call is already running");
            let job: *const Job<'_> = &raw const worker;
            #[allow(clippy::transmute_ptr_to_ptr)] // a cast may not extend the lifetime of a trait object
            // SAFETY: the lifetime is erased, but workers use the pointer only until they decrement `running`, and this
            // function does not return (nor unwind: the leader runs under catch_unwind) before `running` is 0 again.
            let job: *const Job<'static> = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
            // SAFETY: no worker runs (`running == 0`, `&mut self`), so nobody reads `job` now.
            unsafe { *s.job.get() = Some(job) };
            s.running.store(s.size - 1, Ordering::Relaxed);
            // SeqCst pairs with the worker's SeqCst store to `parked` followed by its load of `generation`: either the
            // worker sees the new generation, or we see that it is parked.
            s.generation.fetch_add(1, Ordering::SeqCst);
            for (parked, handle) in s.parked.iter().zip(&self.handles) {
                if parked.load(Ordering::SeqCst) {
                    handle.unpark();
                }
            }
        }
        let me = Member { shared: s, index: 0 };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| leader(&me))) {
            poison(s, &*payload);
        }
        let mut spins = 0u32;
        while s.running.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if s.poisoned.load(Ordering::Relaxed) {
            // Everybody has left: the barrier can be used again.
            s.arrived.store(0, Ordering::Relaxed);
            s.poisoned.store(false, Ordering::Relaxed);
            let message = s.message.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            return Err(GangPanic { message: message.unwrap_or_else(|| "no message".into()) });
        }
        Ok(())
    }
}

impl Drop for Gang {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        self.shared.generation.fetch_add(1, Ordering::SeqCst);
        for handle in &self.handles {
            handle.unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker catches its panics, so joining fails only if the runtime itself is broken.
            let _ = worker.join();
        }
    }
}

fn poison(s: &Shared, payload: &(dyn Any + Send)) {
    if !payload.is::<Poisoned>() {
        let text = payload
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        s.message.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(text);
    }
    s.poisoned.store(true, Ordering::Relaxed);
}

fn worker(s: &Shared, index: usize) {
    let parked = &s.parked[index - 1];
    let mut seen = 0u64;
    loop {
        let mut spins = 0u32;
        loop {
            if s.generation.load(Ordering::Acquire) != seen {
                break;
            }
            spins += 1;
            if spins < SPINS_BEFORE_PARK {
                std::hint::spin_loop();
                continue;
            }
            parked.store(true, Ordering::SeqCst);
            if s.generation.load(Ordering::SeqCst) == seen {
                std::thread::park();
            }
            parked.store(false, Ordering::Relaxed);
        }
        seen += 1;
        if s.shutdown.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the acquire load of `generation` makes the leader's store to `job` visible; nobody writes it before
        // this worker has decremented `running`.
        let job = unsafe { (*s.job.get()).expect("invariant: a generation is published with its job") };
        let me = Member { shared: s, index };
        // SAFETY: the leader keeps the closure alive until `running` reaches 0 (see `Gang::run`).
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job)(&me) }));
        if let Err(payload) = result {
            poison(s, &*payload);
        }
        s.running.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sum_of_steps(size: usize, steps: usize, n: usize) -> Vec<usize> {
        let mut gang = Gang::new(size).unwrap();
        let cells: Vec<AtomicUsize> = (0..steps).map(|_| AtomicUsize::new(0)).collect();
        let work = |m: &Member<'_>| {
            for cell in &cells {
                while let Some(r) = m.take(n, 3) {
                    cell.fetch_add(r.sum::<usize>(), Ordering::Relaxed);
                }
                m.barrier();
            }
        };
        gang.run(work, work).unwrap();
        cells.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn every_item_is_done_exactly_once_in_every_step() {
        for size in [1, 2, 3, 5] {
            assert_eq!(sum_of_steps(size, 50, 100), vec![4950; 50], "{size} threads");
        }
    }

    #[test]
    fn writes_before_a_barrier_are_seen_after_it() {
        let mut gang = Gang::new(3).unwrap();
        let data: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
        let work = |m: &Member<'_>| {
            for step in 1..100 {
                while let Some(r) = m.take(64, 5) {
                    for i in r {
                        // Reads what another thread may have written in the step before.
                        let before = data[(i + 1) % 64].load(Ordering::Relaxed);
                        assert!(before == step - 1 || before == step);
                        data[i].store(step, Ordering::Relaxed);
                    }
                }
                m.barrier();
            }
        };
        gang.run(work, work).unwrap();
        assert!(data.iter().all(|d| d.load(Ordering::Relaxed) == 99));
    }

    #[test]
    fn a_panic_becomes_an_error_and_the_gang_survives() {
        let mut gang = Gang::new(3).unwrap();
        for culprit in 0..3 {
            let work = |m: &Member<'_>| {
                m.barrier();
                assert!(m.index() != culprit, "planted in {culprit}");
                m.barrier();
            };
            let err = gang.run(work, work).unwrap_err();
            assert!(err.message.contains(&format!("planted in {culprit}")), "{err}");
            let ok = |m: &Member<'_>| m.barrier();
            gang.run(ok, ok).unwrap();
        }
    }

    #[test]
    fn parks_and_wakes_again() {
        let mut gang = Gang::new(2).unwrap();
        for _ in 0..3 {
            // Wait until the worker has parked; bounded, and the outcome does not depend on the time it takes.
            for _ in 0..2_000 {
                if gang.shared.parked[0].load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert!(gang.shared.parked[0].load(Ordering::SeqCst), "an idle worker must park");
            let hits = AtomicUsize::new(0);
            let work = |m: &Member<'_>| {
                hits.fetch_add(1, Ordering::Relaxed);
                m.barrier();
            };
            gang.run(work, work).unwrap();
            assert_eq!(hits.load(Ordering::Relaxed), 2);
        }
    }
}
