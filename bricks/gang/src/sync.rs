//! What the gang is built on: the standard library's primitives or, under `cfg(loom)`, the model checker's.
//!
//! Also the *asymmetric fence*. A member that signals has to look whether the other one sleeps, and a member that goes to
//! sleep has to look whether it was signalled: each stores, then loads, and a processor may swap the two. Signals are
//! frequent and sleeping is rare, so the sleeper pays: with Linux's `membarrier` it makes every thread of the process run
//! a fence, and the signaller needs none. Where the call is missing both sides run an ordinary fence.

#[cfg(loom)]
pub(super) use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};
#[cfg(not(loom))]
pub(super) use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    thread::{self, JoinHandle},
};

/// `std::cell::UnsafeCell` with loom's interface, which sees every access.
#[cfg(not(loom))]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}

/// Puts a thread to sleep and wakes it; a wake-up that comes first is kept.
#[cfg(not(loom))]
pub(super) struct Parker(std::sync::Mutex<Option<thread::Thread>>);

#[cfg(not(loom))]
impl Parker {
    pub(super) const fn new() -> Self {
        Self(std::sync::Mutex::new(None))
    }

    /// Who is to be woken.
    pub(super) fn occupy(&self, thread: thread::Thread) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(thread);
    }

    /// Sleeps, on the thread that occupies this place; may end early.
    #[allow(clippy::unused_self)] // loom's parker has its token inside
    pub(super) fn park(&self) {
        thread::park();
    }

    pub(super) fn unpark(&self) {
        if let Some(thread) = &*self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

/// The same with a token of its own: a late wake-up of `loom::thread::unpark` would upset loom's own `join`.
#[cfg(loom)]
pub(super) struct Parker(loom::sync::Mutex<bool>, loom::sync::Condvar);

#[cfg(loom)]
#[allow(clippy::unwrap_used)] // nothing panics under these locks
impl Parker {
    pub(super) fn new() -> Self {
        Self(loom::sync::Mutex::new(false), loom::sync::Condvar::new())
    }

    #[allow(clippy::unused_self, clippy::needless_pass_by_value)]
    pub(super) fn occupy(&self, _: thread::Thread) {}

    pub(super) fn park(&self) {
        let mut token = self.0.lock().unwrap();
        while !*token {
            token = self.1.wait(token).unwrap();
        }
        *token = false;
    }

    pub(super) fn unpark(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }
}

/// A value on cache lines of its own: two of them, as processors fetch lines in pairs.
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// How this process orders a store before a load on two threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fences {
    /// A full fence on both sides.
    Symmetric,
    /// Nothing on the frequent side, `membarrier` on the rare one.
    #[cfg_attr(any(loom, miri, not(target_os = "linux")), allow(dead_code))]
    Asymmetric,
}

impl Fences {
    /// The cheaper kind that this system has.
    #[cfg(all(target_os = "linux", not(loom), not(miri)))]
    pub(super) fn detect() -> Self {
        static KIND: std::sync::OnceLock<Fences> = std::sync::OnceLock::new();
        *KIND.get_or_init(|| if membarrier::register() { Self::Asymmetric } else { Self::Symmetric })
    }

    #[cfg(not(all(target_os = "linux", not(loom), not(miri))))]
    pub(super) fn detect() -> Self {
        Self::Symmetric
    }

    /// Between the store and the load of the frequent side.
    #[inline]
    pub(super) fn frequent(self) {
        match self {
            Self::Symmetric => full(),
            Self::Asymmetric => std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst),
        }
    }

    /// Between the store and the load of the rare side.
    pub(super) fn rare(self) {
        full();
        #[cfg(all(target_os = "linux", not(loom), not(miri)))]
        if self == Self::Asymmetric {
            membarrier::run();
        }
    }
}

#[cfg(not(loom))]
fn full() {
    std::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(loom)]
fn full() {
    loom::sync::atomic::fence(Ordering::SeqCst);
}

#[cfg(all(target_os = "linux", not(loom), not(miri)))]
mod membarrier {
    const PRIVATE_EXPEDITED: libc::c_long = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;

    fn call(command: libc::c_long) -> bool {
        // SAFETY: membarrier(2) with a command, no flags and no CPU reads and writes no memory of ours.
        unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
    }

    /// Announces that this process will call [`run`]; false where the system refuses.
    pub(super) fn register() -> bool {
        call(REGISTER_PRIVATE_EXPEDITED) && call(PRIVATE_EXPEDITED)
    }

    /// A full fence on every running thread of this process.
    pub(super) fn run() {
        let done = call(PRIVATE_EXPEDITED);
        debug_assert!(done, "a registered membarrier cannot fail");
    }
}
