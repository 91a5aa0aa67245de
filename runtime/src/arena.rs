//! One allocation for everything a forward call writes, shared by the gang.
//!
//! Buffers are placed when the plan is made ([`crate::plan`]); nothing is allocated afterwards. The steps of a plan hand out
//! disjoint pieces of it to threads, which is why this file (and the kernels' calls in `exec`) may use `unsafe`.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of the arena and of every buffer in it: a cache line, and a 512-bit vector.
pub const ALIGN: usize = 64;

/// The arena could not be allocated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot allocate {bytes} bytes of working memory; use a smaller batch (--batch)")]
pub struct ArenaError {
    /// Bytes asked for.
    pub bytes: usize,
}

/// Zeroed, aligned bytes. Pages are touched on first use only.
#[derive(Debug)]
pub struct Arena {
    /// The first aligned byte.
    ptr: NonNull<u8>,
    bytes: usize,
    /// What was allocated: [`ALIGN`] bytes more than is used.
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: an arena owns its memory; all access goes through `unsafe` functions whose callers guarantee disjointness.
unsafe impl Send for Arena {}
// SAFETY: as above; shared references hand out raw memory only through `unsafe` functions.
unsafe impl Sync for Arena {}

/// Size of a huge page where the system has them (x86-64, and aarch64 with pages of 4 KiB). Small under Miri, which then checks the
/// same arithmetic on memory that it can walk through in a moment.
const HUGE_PAGE: usize = if cfg!(miri) { 4 << 10 } else { 2 << 20 };

impl Arena {
    /// As [`Arena::new`], in huge pages if the system gives them: for memory that is read from end to end again and again.
    ///
    /// # Errors
    /// When memory is short.
    pub fn huge(bytes: usize) -> Result<Self, ArenaError> {
        // Room to begin at a huge page: the system makes one only of an aligned run.
        let padded = if bytes < HUGE_PAGE { bytes } else { bytes.saturating_add(HUGE_PAGE) };
        let mut arena = Self::new(padded).map_err(|_| ArenaError { bytes })?;
        let skip = arena.ptr.as_ptr().align_offset(HUGE_PAGE);
        if skip.checked_add(bytes).is_some_and(|end| end <= padded) {
            // SAFETY: `skip + bytes` are within the allocation.
            arena.ptr = unsafe { arena.ptr.add(skip) };
            // A hint: where the system refuses, pages stay small.
            #[cfg(all(target_os = "linux", not(miri)))]
            // SAFETY: the range is this arena's own, and begins at a page.
            unsafe {
                libc::madvise(arena.ptr.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
            }
        }
        arena.bytes = bytes;
        Ok(arena)
    }

    /// Allocates `bytes` zero bytes.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(bytes: usize) -> Result<Self, ArenaError> {
        let error = ArenaError { bytes };
        // Aligned by hand: for a larger alignment than malloc's own the allocator would clear the memory itself, and so
        // touch every page of it.
        let size = bytes.checked_add(ALIGN).ok_or_else(|| error.clone())?;
        let layout = Layout::from_size_align(size, align_of::<u64>()).map_err(|_| error.clone())?;
        // SAFETY: the layout's size is at least ALIGN, so not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(error)?;
        let skip = base.as_ptr().align_offset(ALIGN);
        debug_assert!(skip < ALIGN);
        // SAFETY: `skip < ALIGN`, and ALIGN bytes more than `bytes` were allocated.
        let ptr = unsafe { base.add(skip) };
        Ok(Self { ptr, bytes, base, layout })
    }

    /// Bytes that can be used.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `len` elements at byte `offset`, read-only.
    ///
    /// # Safety
    /// No thread writes to these bytes while the slice lives. `T` is valid for any bit pattern.
    pub(crate) unsafe fn slice<T: Plain>(&self, offset: usize, len: usize) -> &[T] {
        self.check::<T>(offset, len);
        // SAFETY: in bounds and aligned (checked above in debug builds, guaranteed by the plan's placement), initialised
        // (zeroed), any bit pattern is a T; the caller guarantees that nobody writes.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr().add(offset).cast::<T>(), len) }
    }

    /// `len` elements at byte `offset`, writable.
    ///
    /// # Safety
    /// No other thread accesses these bytes while the slice lives. `T` is valid for any bit pattern.
    #[allow(clippy::mut_from_ref)] // the whole point: the caller proves disjointness
    pub(crate) unsafe fn slice_mut<T: Plain>(&self, offset: usize, len: usize) -> &mut [T] {
        self.check::<T>(offset, len);
        // SAFETY: as in `slice`; the caller guarantees exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr().add(offset).cast::<T>(), len) }
    }

    /// Pointer to byte `offset`, for kernels that write strided outputs.
    pub(crate) fn ptr<T: Plain>(&self, offset: usize) -> *mut T {
        self.check::<T>(offset, 0);
        // SAFETY: in bounds (checked above in debug builds).
        unsafe { self.ptr.as_ptr().add(offset).cast::<T>() }
    }

    fn check<T>(&self, offset: usize, len: usize) {
        debug_assert!(offset.is_multiple_of(align_of::<T>()), "offset {offset} is not aligned");
        debug_assert!(
            len.checked_mul(size_of::<T>()).and_then(|n| n.checked_add(offset)).is_some_and(|end| end <= self.bytes()),
            "{len} elements at {offset} leave the arena of {} bytes",
            self.bytes()
        );
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// Types that any bytes are a valid value of.
///
/// # Safety
/// Implement only for types without padding and without invalid bit patterns.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: every bit pattern is a valid f32.
unsafe impl Plain for f32 {}
// SAFETY: every bit pattern is a valid u8.
unsafe impl Plain for u8 {}
// SAFETY: every bit pattern is a valid i8.
unsafe impl Plain for i8 {}
// SAFETY: every bit pattern is a valid pair of i16, without padding.
unsafe impl Plain for [i16; 2] {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_aligned_and_keeps_what_is_written() {
        let arena = Arena::new(1000).unwrap();
        // SAFETY: one thread, slices used one after the other.
        unsafe {
            assert!(arena.slice::<f32>(0, 250).iter().all(|&x| x == 0.0));
            arena.slice_mut::<f32>(64, 4).copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
            assert_eq!(arena.slice::<f32>(64, 4), [1.0, 2.0, 3.0, 4.0]);
        }
        assert!((arena.ptr::<f32>(0) as usize).is_multiple_of(ALIGN));
    }

    #[test]
    fn huge_arenas_are_zeroed_aligned_and_of_any_size() {
        for bytes in [0, 1, HUGE_PAGE / 2, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let arena = Arena::huge(bytes).unwrap();
            assert_eq!(arena.bytes(), bytes);
            // SAFETY: one thread, slices used one after the other.
            unsafe {
                assert!(arena.slice::<u8>(0, bytes).iter().all(|&x| x == 0));
                arena.slice_mut::<u8>(0, bytes).fill(7);
            }
            assert!((arena.ptr::<u8>(0) as usize).is_multiple_of(ALIGN));
        }
        assert_eq!(Arena::huge(usize::MAX).unwrap_err(), ArenaError { bytes: usize::MAX });
    }

    #[test]
    fn absurd_sizes_are_errors() {
        assert_eq!(Arena::new(usize::MAX).unwrap_err(), ArenaError { bytes: usize::MAX });
        assert!(Arena::new(usize::MAX / 2).is_err());
    }
}
