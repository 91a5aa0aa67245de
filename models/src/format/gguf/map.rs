//! Where a file's bytes live: a private read-only memory map, memory of our own, or nowhere (they are made when read).
//!
//! This is the only module of this crate with `unsafe` code.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use memmap2::{Mmap, MmapOptions};

use super::error::{FormatError, GgufError};
use super::generated::{Generated, NoMemory};

/// A page that is missing brings its neighbours with it, those in an aligned run of this many bytes (Linux's
/// `fault_around_bytes`, unless changed).
#[cfg(unix)]
const FAULT_AROUND: usize = 64 << 10;

/// Bytes of a model file.
#[derive(Debug)]
pub(super) enum Storage {
    Map {
        map: Mmap,
        /// The same file, for what is better copied than mapped.
        file: File,
    },
    Owned(Box<[u8]>),
    Generated(Generated),
}

/// The bytes that lie in memory: all, or of a generated file those before its tensors.
impl Deref for Storage {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Storage::Map { map, .. } => map,
            Storage::Owned(bytes) => bytes,
            Storage::Generated(file) => file.head(),
        }
    }
}

impl Storage {
    /// Bytes of the whole file.
    pub(super) fn file_len(&self) -> u64 {
        match self {
            Storage::Generated(file) => file.file_len(),
            here => here.len() as u64,
        }
    }

    /// Bytes of one tensor; `None` if the file has none there.
    pub(super) fn slice(&self, at: u64, len: u64) -> Result<Option<&[u8]>, NoMemory> {
        if let Storage::Generated(file) = self {
            return file.slice(at, len);
        }
        let range = usize::try_from(at).ok().and_then(|at| Some(at..at.checked_add(usize::try_from(len).ok()?)?));
        Ok(range.and_then(|range| self.get(range)))
    }

    /// Takes the memory that [`slice`](Self::slice) of the tensor there needs.
    pub(super) fn reserve(&self, at: u64) -> Result<(), NoMemory> {
        if let Storage::Generated(file) = self { file.reserve(at) } else { Ok(()) }
    }

    /// Maps a whole regular file.
    #[allow(unsafe_code)] // the one place where a file becomes memory
    pub(super) fn map(path: &Path) -> Result<Self, GgufError> {
        let io = |action| move |source| GgufError::Io { path: path.to_owned(), action, source };
        // Looked at before opening: opening a named pipe would wait for its other end.
        let kind = std::fs::metadata(path).map_err(io("open"))?.file_type();
        if !kind.is_file() {
            let found = if kind.is_dir() { "a directory" } else { "not a regular file" };
            return Err(GgufError::NotAFile { path: path.to_owned(), found });
        }
        let file = File::open(path).map_err(io("open"))?;
        let len = file.metadata().map_err(io("read the size of"))?.len();
        if len == 0 {
            return Err(GgufError::Format { path: path.to_owned(), source: FormatError::Empty });
        }
        let len = usize::try_from(len)
            .map_err(|_| io("map")(std::io::Error::other(format!("{len} bytes exceed the address space"))))?;
        // SAFETY: the map is private and read-only and this process never writes to the file, so the bytes stay as they are
        // unless somebody else changes or shortens the file while it is mapped. That cannot be excluded from here and is
        // stated in the documentation of `Gguf::open`; nothing below relies on bytes being the same when read twice:
        // everything derived from them (offsets, lengths, UTF-8) is checked where it is used. `len` is the file's size now.
        let map = unsafe { MmapOptions::new().len(len).map_copy_read_only(&file) }.map_err(io("map"))?;
        debug_assert_eq!(map.len(), len);
        Ok(Storage::Map { map, file })
    }

    /// Copies the bytes from `at` on to `out`. Where the system can, past the map: no page of it is touched, so none takes
    /// memory or has to be given back, and a file that was shortened meanwhile is an error, not a signal.
    pub(super) fn read(&self, at: usize, out: &mut [u8]) -> std::io::Result<()> {
        #[cfg(unix)]
        if let Storage::Map { file, .. } = self {
            return std::os::unix::fs::FileExt::read_exact_at(file, out, at as u64);
        }
        if let Storage::Generated(file) = self {
            return file.read(at as u64, out).ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = self.get(at..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Gives back the memory of the pages of `at..at + len`, and of those around that came with them; reading them again
    /// brings them back from the file. A hint: failure is ignored.
    #[allow(unsafe_code)] // discards pages of the map
    pub(super) fn release(&self, at: usize, len: usize) {
        #[cfg(unix)]
        if let Storage::Map { map, .. } = self
            && at.checked_add(len).is_some_and(|end| end <= map.len())
            && len > 0
        {
            let base = map.as_ptr() as usize;
            let before = ((base + at) % FAULT_AROUND).min(at);
            let behind = (base + at + len).next_multiple_of(FAULT_AROUND) - (base + at + len);
            let (at, len) = (at - before, (before + len + behind).min(map.len() - (at - before)));
            // SAFETY: the map is private, of a file, and never written to: a discarded page comes back with the file's bytes,
            // and slices of it stay valid.
            let _ = unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, at, len) };
        }
        #[cfg(not(unix))]
        let _ = (at, len);
    }

    /// Asks the system to read `at..at + len` ahead. A hint: failure is ignored.
    pub(super) fn prefetch(&self, at: usize, len: usize) {
        #[cfg(unix)]
        if let Storage::Map { map, .. } = self
            && at.checked_add(len).is_some_and(|end| end <= map.len())
            && len > 0
        {
            // Only a hint: without it pages are read when first touched.
            let _ = map.advise_range(memmap2::Advice::WillNeed, at, len);
        }
        #[cfg(not(unix))]
        let _ = (at, len);
    }
}
