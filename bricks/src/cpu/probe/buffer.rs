//! Memory to read from, on the pages that are asked for.

/// Which pages a [`Buffer`] asks the system for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pages {
    /// Transparent huge pages (2 MiB on x86-64), as kernels ask for weights and KV cache.
    Huge,
    /// The smallest pages (4 KiB on x86-64).
    Small,
}

/// Bytes that have been written, so that their pages exist, near the thread that made them.
#[derive(Debug)]
pub struct Buffer {
    #[cfg(all(target_os = "linux", not(miri)))]
    map: map::Map,
    #[cfg(not(all(target_os = "linux", not(miri))))]
    bytes: Vec<u8>,
}

impl Buffer {
    /// Makes `bytes` bytes on pages of the wanted kind, as far as the system has them; elsewhere than on Linux, on whatever
    /// pages there are.
    ///
    /// # Errors
    /// Memory is short.
    pub fn new(bytes: usize, pages: Pages) -> std::io::Result<Self> {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let mut map = map::Map::new(bytes, pages)?;
            // Not zero: the system may keep all zero pages in one place.
            map.bytes_mut().fill(1);
            Ok(Self { map })
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        {
            let _ = pages;
            let mut all = Vec::new();
            all.try_reserve_exact(bytes).map_err(|_| std::io::Error::from(std::io::ErrorKind::OutOfMemory))?;
            all.resize(bytes, 1);
            Ok(Self { bytes: all })
        }
    }

    /// The bytes, aligned to a cache line on Linux.
    pub fn bytes(&self) -> &[u8] {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            self.map.bytes()
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        {
            &self.bytes
        }
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
mod map {
    use std::io::{Error, ErrorKind};
    use std::ptr::NonNull;

    use super::Pages;

    /// Size and alignment of a huge page on common systems; elsewhere the advice is merely less exact.
    const HUGE: usize = 2 << 20;

    /// An anonymous mapping of its own, so that the advice reaches no other memory.
    #[derive(Debug)]
    pub(super) struct Map {
        /// The mapping and its length.
        base: NonNull<u8>,
        mapped: usize,
        /// The first byte at a huge page's boundary, and the bytes asked for.
        start: NonNull<u8>,
        len: usize,
    }

    // SAFETY: a mapping is plain memory, owned by one value.
    unsafe impl Send for Map {}
    // SAFETY: shared references only read it.
    unsafe impl Sync for Map {}

    impl Map {
        pub(super) fn new(len: usize, pages: Pages) -> Result<Self, Error> {
            let short = || Error::from(ErrorKind::OutOfMemory);
            // Whole huge pages, and one more to reach a boundary.
            let whole = len.max(1).checked_next_multiple_of(HUGE).ok_or_else(short)?;
            let mapped = whole.checked_add(HUGE).ok_or_else(short)?;
            let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new anonymous mapping at an address of the system's choice touches no existing memory.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, kind, -1, 0) };
            if base == libc::MAP_FAILED {
                return Err(Error::last_os_error());
            }
            let base = NonNull::new(base.cast::<u8>()).ok_or_else(short)?;
            let skip = base.as_ptr().align_offset(HUGE);
            debug_assert!(skip < HUGE && skip + whole <= mapped);
            // SAFETY: `skip` is less than HUGE, by which the mapping is longer than `whole`.
            let start = unsafe { base.add(skip) };
            let advice = if pages == Pages::Huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
            // SAFETY: `whole` bytes from `start` are our own mapping. The advice may be refused, which changes nothing.
            unsafe { libc::madvise(start.as_ptr().cast(), whole, advice) };
            Ok(Self { base, mapped, start, len })
        }

        pub(super) fn bytes(&self) -> &[u8] {
            // SAFETY: `len` bytes from `start` lie in the mapping (see `new`), are initialised (zero at least), and are
            // written through `&mut self` only.
            unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
        }

        pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
            // SAFETY: as in `bytes`; `&mut self` is exclusive.
            unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
        }
    }

    impl Drop for Map {
        fn drop(&mut self) {
            // SAFETY: mapped in `new` with this length, unmapped once, and no slice outlives `self`.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.mapped) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_there() {
        for pages in [Pages::Huge, Pages::Small] {
            for len in [0, 1, 4096, (2 << 20) + 1] {
                let buffer = Buffer::new(len, pages).unwrap();
                assert_eq!((buffer.bytes().len(), buffer.bytes().iter().all(|&b| b == 1)), (len, true));
            }
        }
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Buffer::new(usize::MAX, Pages::Huge).is_err());
        assert!(Buffer::new(usize::MAX / 4, Pages::Small).is_err());
    }
}
