//! A gang of threads that enters **once** per forward call and walks a list of steps together.
//!
//! | module | content |
//! | --- | --- |
//! | `sync` | atomics, cells and threads, the standard library's or the model checker's; the asymmetric fence |
//! | `wait` | spin, then park, and how long to spin |
//! | `pin` | binding a thread to a processor |
//!
//! A decode step of a small model has hundreds of steps of a few microseconds each, so a fork-join per step would cost more
//! than the work. Here the threads meet at barriers instead. The barrier is the *dissemination barrier* (Hensgen, Finkel,
//! Manber 1988): in round `r` every member signals the one `2^r` seats on and waits for the one `2^r` seats back. A signal
//! is a plain store to a cache line with one writer and one reader, there is no counter that all members fight for; two
//! threads need one round.
//!
//! Work inside a step is handed out by [`Member::take`]: every member has a range of its own and takes pieces from its front;
//! who has finished takes pieces from the back of another's. Memory is read in order, each part by the same member in
//! every call, and a thread that is slow or taken away delays little.
//!
//! Waiting is spin-then-park, inside a call and between calls: an idle gang uses no processor time, and a thread that waits
//! for one that has lost its core soon gives up its own. Where that is the rule (more threads than cores) members stop
//! spinning. The hot path takes no lock, allocates nothing and, while threads keep their cores, makes no system call.
//!
//! A panic on any thread poisons the call: everybody leaves, and [`Gang::run`] returns [`GangPanic`].

#[cfg(all(test, loom))]
mod model;
mod pin;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;
mod wait;

use std::any::Any;
use std::cell::Cell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Fences, JoinHandle, Ordering, Padded, UnsafeCell, thread};
use wait::{Patience, Seat};

/// A thread of the gang panicked; the call's results are void, the gang itself stays usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a compute thread panicked: {message}")]
pub struct GangPanic {
    /// The panic's message, if it was text.
    pub message: String,
}

/// Thrown (and caught) inside the gang to leave a poisoned call; never seen outside.
struct Poisoned;

type Job<'a> = dyn Fn(&Member<'_>) + Sync + 'a;

/// What a call is, for the workers.
#[derive(Clone, Copy)]
struct Call {
    job: *const Job<'static>,
    /// Barriers passed before this call, modulo 2³².
    epoch: u32,
}

/// Pieces that are taken of a range: from its front in the low 32 bits, from its back in the high ones.
struct Taken(AtomicU64);

impl Taken {
    const BACK: u64 = 1 << 32;

    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Takes a piece of a range that has `pieces`.
    fn take(&self, pieces: usize, from_back: bool) -> Option<usize> {
        let one = if from_back { Self::BACK } else { 1 };
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let (front, back) = ((taken % Self::BACK) as usize, (taken / Self::BACK) as usize);
            if front + back >= pieces {
                return None;
            }
            // Relaxed: nothing but the number is passed on; the barriers order what is computed.
            match self.0.compare_exchange_weak(taken, taken + one, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(if from_back { pieces - 1 - back } else { front }),
                Err(now) => taken = now,
            }
        }
    }
}

struct Shared {
    size: usize,
    fences: Fences,
    /// Number of the call, modulo 2³²; changed by the leader to start one, and to end the gang.
    generation: Padded<AtomicU32>,
    /// Written by the leader before `generation`, read by workers after it; `None` ends the gang.
    call: UnsafeCell<Option<Call>>,
    /// Workers that have not finished the current call.
    running: Padded<AtomicUsize>,
    poisoned: Padded<AtomicBool>,
    /// First panic message of a call.
    message: std::sync::Mutex<Option<String>>,
    /// The last barrier whose signal of round `r` has reached member `i`, at `r · size + i`.
    signals: Box<[Padded<AtomicU32>]>,
    /// Pieces taken of the range of member `i`, see [`Taken`]: in this epoch, and in the next one (kept zero).
    taken: [Box<[Padded<Taken>]>; 2],
    seats: Box<[Padded<Seat>]>,
}

// SAFETY: `call` is the only field that is not `Sync` by itself. It is written by the leader only while no worker runs
// (`running == 0`) and published by the release store to `generation`; workers read it after the matching acquire load.
unsafe impl Sync for Shared {}
// SAFETY: the raw pointer in `call` is only dereferenced during the call that stored it, while the closure is borrowed.
unsafe impl Send for Shared {}

impl Shared {
    fn new(size: usize) -> Self {
        let rounds = size.next_power_of_two().trailing_zeros() as usize;
        Self {
            size,
            fences: Fences::detect(),
            generation: Padded(AtomicU32::new(0)),
            call: UnsafeCell::new(None),
            running: Padded(AtomicUsize::new(0)),
            poisoned: Padded(AtomicBool::new(false)),
            message: std::sync::Mutex::new(None),
            signals: (0..rounds * size).map(|_| Padded(AtomicU32::new(0))).collect(),
            taken: [0, 1].map(|_| (0..size).map(|_| Padded(Taken::new())).collect()),
            seats: (0..size).map(|_| Padded(Seat::new())).collect(),
        }
    }

    /// Starts call `generation`, or ends the gang.
    fn publish(&self, generation: u32, call: Option<Call>) {
        debug_assert_eq!(self.running.load(Ordering::Acquire), 0, "a call is already running");
        // SAFETY: no worker runs (`running == 0`; `Gang::run` and `drop` have the gang to themselves), so nobody reads now.
        self.call.with_mut(|c| unsafe { *c = call });
        if call.is_some() {
            self.running.store(self.size - 1, Ordering::Relaxed);
        }
        // Release: workers see `call`, `running` and everything the caller wrote before.
        self.generation.store(generation, Ordering::Release);
        self.seats[1..].iter().for_each(|seat| seat.wake(self.fences));
    }

    fn poison(&self, payload: &(dyn Any + Send)) {
        if !payload.is::<Poisoned>() {
            let text = payload
                .downcast_ref::<&str>()
                .map(ToString::to_string)
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".into());
            self.message.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(text);
        }
        self.poisoned.store(true, Ordering::Release);
        self.seats.iter().for_each(|seat| seat.wake(self.fences));
    }
}

/// A fixed set of threads; the caller's thread is member 0, the *leader*.
pub struct Gang {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Calls so far, modulo 2³².
    generation: u32,
    /// Barriers passed so far, modulo 2³².
    epoch: u32,
    patience: Patience,
    /// The thread that sits in the leader's seat.
    leader: Option<thread::ThreadId>,
}

/// One thread's view of a running call.
pub struct Member<'a> {
    shared: &'a Shared,
    index: usize,
    patience: &'a Patience,
    /// Barriers passed, modulo 2³².
    epoch: Cell<u32>,
    /// Whose range is being taken from, counted from this member's own.
    distance: Cell<usize>,
}

impl<'a> Member<'a> {
    fn new(shared: &'a Shared, index: usize, epoch: u32, patience: &'a Patience) -> Self {
        Self { shared, index, patience, epoch: Cell::new(epoch), distance: Cell::new(0) }
    }

    /// This thread's number, `0..size`; 0 is the leader.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Threads in the gang.
    pub fn size(&self) -> usize {
        self.shared.size
    }

    /// Takes the next piece of `0..total`, or `None` when all is handed out. Pieces begin at multiples of `chunk` and have
    /// `chunk` items, the last one the rest. Every member must use the same `total` and `chunk` between two barriers.
    pub fn take(&self, total: usize, chunk: usize) -> Option<Range<usize>> {
        debug_assert!(chunk > 0);
        let s = self.shared;
        let pieces = total.div_ceil(chunk);
        assert!(u32::try_from(pieces).is_ok(), "{pieces} pieces are too many");
        let taken = &s.taken[self.epoch.get() as usize % 2];
        while self.distance.get() < s.size {
            let whose = (self.index + self.distance.get()) % s.size;
            let first = whose * pieces / s.size;
            let own = (whose + 1) * pieces / s.size - first;
            if let Some(piece) = taken[whose].take(own, whose != self.index) {
                let start = (first + piece) * chunk;
                return Some(start..start.saturating_add(chunk).min(total));
            }
            self.distance.set(self.distance.get() + 1);
        }
        None
    }

    /// Waits for all members, then starts a new round of [`Member::take`].
    pub fn barrier(&self) {
        let s = self.shared;
        self.distance.set(0);
        let epoch = self.epoch.get().wrapping_add(1);
        self.epoch.set(epoch);
        let (mut distance, mut round) = (1, 0);
        while distance < s.size {
            let to = (self.index + distance) % s.size;
            // Release: whatever this member wrote, and saw of others in earlier rounds, is visible to `to`.
            s.signals[round + to].store(epoch, Ordering::Release);
            s.seats[to].wake(s.fences);
            let signal = &s.signals[round + self.index];
            // The sender may be one barrier ahead, never two: for that it needs us.
            let arrived = || signal.load(Ordering::Acquire).wrapping_sub(epoch) < 1 << 31;
            let poisoned = || s.poisoned.load(Ordering::Acquire);
            self.patience.wait(&s.seats[self.index], s.fences, || arrived() || poisoned());
            if !arrived() {
                std::panic::resume_unwind(Box::new(Poisoned));
            }
            distance *= 2;
            round += s.size;
        }
        // Counted the epoch that has just ended, which nobody is in any more; the next one begins after our next barrier.
        s.taken[epoch.wrapping_add(1) as usize % 2][self.index].reset();
    }
}

impl Gang {
    /// Starts a gang of `size` threads (the caller counts as one; 0 means 1) that run where the system puts them.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn new(size: usize) -> std::io::Result<Self> {
        Self::with_cpus(size, &[])
    }

    /// Starts a gang of `size` threads (the caller counts as one; 0 means 1), member `i` bound to hardware thread `cpus[i]`.
    /// The leader is the caller's own thread and is left alone: `cpus[0]` is where the system will find room for it. With
    /// fewer `cpus` than threads, or where the system cannot bind, threads run where the system puts them.
    ///
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn with_cpus(size: usize, cpus: &[usize]) -> std::io::Result<Self> {
        let size = size.max(1);
        let shared = Arc::new(Shared::new(size));
        // Built up in place so that a failed spawn shuts down the threads started before it.
        let workers = Vec::with_capacity(size - 1);
        let mut gang = Self { shared, workers, generation: 0, epoch: 0, patience: Patience::new(), leader: None };
        for index in 1..size {
            let shared = Arc::clone(&gang.shared);
            let cpu = cpus.get(index).copied().filter(|_| cpus.len() >= size);
            let body = move || {
                if let Some(cpu) = cpu {
                    pin::pin(cpu);
                }
                worker(&shared, index);
            };
            let worker = thread::Builder::new().name(format!("brick-{index}")).spawn(body)?;
            gang.shared.seats[index].occupy(worker.thread().clone());
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
        s.taken.iter().flatten().for_each(|taken| taken.reset());
        if s.size > 1 {
            let me = thread::current();
            if self.leader != Some(me.id()) {
                self.leader = Some(me.id());
                s.seats[0].occupy(me);
            }
            let job: *const Job<'_> = &raw const worker;
            #[allow(clippy::transmute_ptr_to_ptr)] // a cast may not extend the lifetime of a trait object
            // SAFETY: the lifetime is erased, but workers use the pointer only until they decrement `running`, and this
            // function does not return (nor unwind: the leader runs under catch_unwind) before `running` is 0 again.
            let job: *const Job<'static> = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
            self.generation = self.generation.wrapping_add(1);
            s.publish(self.generation, Some(Call { job, epoch: self.epoch }));
        }
        let me = Member::new(s, 0, self.epoch, &self.patience);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| leader(&me))) {
            s.poison(&*payload);
        }
        self.patience.wait(&s.seats[0], s.fences, || s.running.load(Ordering::Acquire) == 0);
        if s.poisoned.load(Ordering::Relaxed) {
            // Everybody has left, each at another barrier: back to where the call began.
            s.signals.iter().for_each(|signal| signal.store(self.epoch, Ordering::Relaxed));
            s.poisoned.store(false, Ordering::Relaxed);
            let message = s.message.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            return Err(GangPanic { message: message.unwrap_or_else(|| "no message".into()) });
        }
        self.epoch = me.epoch.get();
        Ok(())
    }
}

impl Drop for Gang {
    fn drop(&mut self) {
        self.shared.publish(self.generation.wrapping_add(1), None);
        for worker in self.workers.drain(..) {
            // A worker catches its panics, so joining fails only if the runtime itself is broken.
            let _ = worker.join();
        }
    }
}

fn worker(s: &Shared, index: usize) {
    let patience = Patience::new();
    let mut seen = 0u32;
    loop {
        patience.wait_idle(&s.seats[index], s.fences, || s.generation.load(Ordering::Acquire) != seen);
        seen = seen.wrapping_add(1);
        // SAFETY: the acquire load of `generation` makes the leader's store to `call` visible; nobody writes it before this
        // worker has decremented `running`.
        let Some(call) = s.call.with(|c| unsafe { *c }) else { return };
        let me = Member::new(s, index, call.epoch, &patience);
        // SAFETY: the leader keeps the closure alive until `running` reaches 0 (see `Gang::run`).
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*call.job)(&me) }));
        if let Err(payload) = result {
            s.poison(&*payload);
        }
        // AcqRel: the last one passes on what all others wrote.
        if s.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            s.seats[0].wake(s.fences);
        }
    }
}
