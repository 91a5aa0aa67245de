//! Counting heap allocations.
//!
//! A program that wants to count makes [`CountingAllocator`] its global allocator. While nobody counts it costs a relaxed load of
//! a flag per allocation, which is nothing beside the allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The system's allocator, counting if told to.
#[derive(Debug, Clone, Copy, Default)]
pub struct CountingAllocator;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

#[inline]
fn note() {
    if ON.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }
    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as above. Passed on, or large zeroed memory would be touched page by page.
        unsafe { System.alloc_zeroed(layout) }
    }
    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note();
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// What `work` gives, and how often anybody in the process allocated, reallocated or freed meanwhile: `None` unless
/// [`CountingAllocator`] is the program's allocator. One count at a time; others wait.
pub fn count<T>(work: impl FnOnce() -> T) -> (T, Option<u64>) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let counted = |work: &mut dyn FnMut()| {
        COUNT.store(0, Ordering::SeqCst);
        ON.store(true, Ordering::SeqCst);
        work();
        ON.store(false, Ordering::SeqCst);
        COUNT.load(Ordering::SeqCst)
    };
    let counts = counted(&mut || drop(black_box(Box::new(1u8)))) > 0;
    let (mut work, mut result) = (Some(work), None);
    let n = counted(&mut || result = work.take().map(|work| work()));
    (result.expect("invariant: called once"), counts.then_some(n))
}
