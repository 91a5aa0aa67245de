//! Files that lie nowhere: the bytes before the tensors in memory, the tensors' bytes made by a rule when they are read.

use std::fmt;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::Gguf;
use super::error::FormatError;
use super::map::Storage;
use super::writer::{GgufWriter, Head, WriteError};

/// What one thread makes at a time when a whole tensor is made.
const PIECE: usize = 1 << 20;

/// A rule that makes a tensor's bytes. Any part at any time, on any thread: the same bytes every time.
pub trait TensorSource: Send + Sync {
    /// Writes the bytes from `at` on to `out`. The caller has checked that the tensor has as many.
    fn fill(&self, at: usize, out: &mut [u8]);
}

/// A file's head, and its tensors as rules.
pub(super) struct Generated {
    head: Box<[u8]>,
    file_len: u64,
    /// By offset.
    tensors: Vec<Lazy>,
}

/// One tensor: its place in the file, its rule, and its bytes once they were asked for as a whole.
struct Lazy {
    place: Range<u64>,
    source: Box<dyn TensorSource>,
    /// Memory for the bytes, taken before it is used.
    reserved: Mutex<Vec<u8>>,
    bytes: OnceLock<Box<[u8]>>,
}

impl Gguf {
    /// The file that `head` would write, without its tensors' bytes: those of tensor `i` are what `sources[i]` makes.
    ///
    /// [`read`](Self::read) makes what it is asked for and keeps nothing. [`bytes`](Self::bytes) makes a whole tensor on all
    /// processors, once, and keeps it as long as the value lives.
    ///
    /// # Errors
    /// [`WriteError`] if `head` is no valid file, or has not as many tensors as there are sources.
    pub fn generated(head: &GgufWriter<'_>, sources: Vec<Box<dyn TensorSource>>) -> Result<Self, WriteError> {
        let Head { bytes, places, file_len } = head.head()?;
        if places.len() != sources.len() {
            return Err(WriteError::Sources { expected: places.len(), found: sources.len() });
        }
        let lazy = |(place, source)| Lazy { place, source, reserved: Mutex::default(), bytes: OnceLock::new() };
        let mut tensors: Vec<Lazy> = places.into_iter().zip(sources).map(lazy).collect();
        tensors.sort_by_key(|t| t.place.start);
        Ok(Self::from_storage(Storage::Generated(Generated { head: bytes.into(), file_len, tensors }))?)
    }
}

impl Generated {
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn file_len(&self) -> u64 {
        self.file_len
    }

    fn find(&self, start: u64) -> Option<&Lazy> {
        let i = self.tensors.partition_point(|t| t.place.end <= start);
        self.tensors.get(i).filter(|t| t.place.start <= start)
    }

    /// Bytes of one tensor or a part of it, which makes all of it; `None` if there are none.
    pub(super) fn slice(&self, start: u64, len: u64) -> Result<Option<&[u8]>, NoMemory> {
        let Some(tensor) = self.find(start) else { return Ok(None) };
        let at = (start - tensor.place.start) as usize;
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        Ok(tensor.bytes()?.get(at..).and_then(|rest| rest.get(..len)))
    }

    /// Takes the memory for a tensor, so that making it cannot fail later.
    pub(super) fn reserve(&self, start: u64) -> Result<(), NoMemory> {
        self.find(start).map_or(Ok(()), |t| if t.bytes.get().is_some() { Ok(()) } else { t.reserve().map(drop) })
    }

    /// Makes bytes of one tensor; `None` if it has none there.
    pub(super) fn read(&self, start: u64, out: &mut [u8]) -> Option<()> {
        let tensor = self.find(start)?;
        let at = start - tensor.place.start;
        at.checked_add(out.len() as u64).filter(|end| *end <= tensor.place.end - tensor.place.start)?;
        match tensor.bytes.get() {
            Some(bytes) => out.copy_from_slice(bytes.get(at as usize..)?.get(..out.len())?),
            None => tensor.source.fill(at as usize, out),
        }
        Some(())
    }
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generated")
            .field("head", &self.head.len())
            .field("file_len", &self.file_len)
            .finish_non_exhaustive()
    }
}

/// So many bytes could not be allocated.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoMemory(pub(super) u64);

impl NoMemory {
    pub(super) fn of(self, tensor: &str) -> FormatError {
        FormatError::Memory { tensor: tensor.to_owned(), bytes: self.0 }
    }
}

impl Lazy {
    fn len(&self) -> u64 {
        self.place.end - self.place.start
    }

    fn reserve(&self) -> Result<std::sync::MutexGuard<'_, Vec<u8>>, NoMemory> {
        let failed = NoMemory(self.len());
        let mut memory = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let len = usize::try_from(self.len()).map_err(|_| failed)?;
        // The system gives pages when they are written: until then this costs addresses only.
        memory.try_reserve_exact(len).map_err(|_| failed)?;
        Ok(memory)
    }

    fn bytes(&self) -> Result<&[u8], NoMemory> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        // Held meanwhile: a second thread waits instead of making the same.
        let mut memory = self.reserve()?;
        Ok(self.bytes.get_or_init(|| {
            let mut bytes = std::mem::take(&mut *memory);
            bytes.resize(self.len() as usize, 0);
            fill_on_all_threads(&*self.source, &mut bytes);
            bytes.into_boxed_slice()
        }))
    }
}

/// Makes all bytes. Which thread makes which piece makes no difference: a piece depends on its place only.
fn fill_on_all_threads(source: &dyn TensorSource, out: &mut [u8]) {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = threads.min(out.len().div_ceil(PIECE));
    let pieces = Mutex::new(out.chunks_mut(PIECE).enumerate());
    let work = || {
        loop {
            let next = pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, piece)) = next else { return };
            source.fill(i * PIECE, piece);
        }
    };
    std::thread::scope(|s| {
        for _ in 1..threads {
            s.spawn(work);
        }
        work();
    });
}
