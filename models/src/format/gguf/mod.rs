//! GGUF, the container format of llama.cpp, versions 2 and 3 (little-endian).
//!
//! A file is a header, a list of metadata keys with typed values, a directory of tensors, and the tensors' data, aligned.
//! The format is specified in `docs/gguf.md` of the ggml repository. [`Gguf::open`] maps a file and checks all of it except
//! the numbers inside the tensors: after that every offset, length and count is known to be good, and reading a tensor's
//! bytes is slicing the map.
//!
//! What is checked before it is used: magic, version and byte order; counts against the bytes that are left; the length of
//! every string and array; nesting of arrays; that keys, names and single strings are UTF-8 (strings *in arrays* may be any
//! bytes: vocabularies hold pieces of characters); duplicate keys and tensor names; `general.alignment`; dimensions and
//! their product; whole blocks in rows; that data is aligned, inside the file and does not overlap. Storage types that cannot
//! be decoded are listed but their data is refused, so that a file can be inspected before it can be run.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use brick_models::format::gguf::Gguf;
//!
//! let file = Gguf::open("model.gguf")?;
//! println!("{}", file.metadata().get_str("general.architecture")?);
//! for tensor in file.tensors() {
//!     println!("{} {:?} {}", tensor.name, tensor.dims, tensor.type_name());
//! }
//! # Ok(())
//! # }
//! ```

#![deny(unsafe_code)] // except for the memory map in `map.rs`

mod cursor;
mod encode;
mod error;
mod generated;
mod map;
mod metadata;
pub mod requantize;
mod sniff;
mod tensor;
mod value;
pub mod writer;

use std::path::{Path, PathBuf};

pub use error::{FormatError, GgufError, MetadataError};
pub use generated::TensorSource;
pub use metadata::{FromValue, Metadata};
pub use requantize::{RequantizeError, requantize};
pub use tensor::TensorInfo;
pub use value::{Array, Elements, Strings, Value, ValueType};
pub use writer::GgufWriter;

use cursor::Cursor;
use map::Storage;
use metadata::{Entry, Table};
use tensor::Directory;

/// Alignment of tensor data when `general.alignment` is absent.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// The most keys and the most tensors that are read: far above any real file, low enough that nothing hostile gets far.
const MAX_COUNT: u64 = 1 << 20;

/// An open GGUF file: its bytes and what they mean. Shared between threads behind an `Arc`.
pub struct Gguf {
    storage: Storage,
    path: Option<PathBuf>,
    layout: Layout,
}

impl Gguf {
    /// Maps a file into memory and checks it.
    ///
    /// Data is not copied: pages are read when they are touched and shared with other processes through the page cache
    /// (see [`prefetch`](Self::prefetch)). The map lasts as long as the value.
    ///
    /// **Do not change the file while it is open.** Replacing it by rename is fine. Writing into it may change weights under
    /// a running model, and shortening it makes the operating system kill the process (`SIGBUS`) at the next access to a
    /// page that is gone. This is inherent in memory maps; there is no portable defence that costs less than a copy.
    ///
    /// # Errors
    /// [`GgufError`] names the file; its source says what was expected, what was found, and at which byte, key or tensor.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GgufError> {
        let path = path.as_ref();
        let storage = Storage::map(path)?;
        match Layout::parse(&storage, storage.file_len()) {
            Ok(layout) => Ok(Self { storage, path: Some(path.to_owned()), layout }),
            Err(source) => Err(GgufError::Format { path: path.to_owned(), source }),
        }
    }

    /// Checks a file that is already in memory. Unlike mapped files, its data may lie at any address.
    ///
    /// # Errors
    /// [`FormatError`] says what was expected, what was found, and at which byte, key or tensor.
    pub fn from_bytes(bytes: impl Into<Box<[u8]>>) -> Result<Self, FormatError> {
        Self::from_storage(Storage::Owned(bytes.into()))
    }

    fn from_storage(storage: Storage) -> Result<Self, FormatError> {
        let layout = Layout::parse(&storage, storage.file_len())?;
        Ok(Self { storage, path: None, layout })
    }

    /// The file's path; `None` if it was given as bytes or is generated.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.layout.version
    }

    /// Size of the file in bytes.
    pub fn file_size(&self) -> u64 {
        self.storage.file_len()
    }

    /// Alignment of tensor data in bytes.
    pub fn alignment(&self) -> u64 {
        self.layout.alignment
    }

    /// Keys and values.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata::new(&self.storage, &self.layout.metadata)
    }

    /// Every tensor, in file order.
    pub fn tensors(&self) -> &[TensorInfo] {
        self.layout.directory.tensors()
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.layout.directory.find(name)
    }

    /// The tensor of that name, which must exist.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`].
    pub fn require(&self, name: &str) -> Result<&TensorInfo, FormatError> {
        self.tensor(name).ok_or_else(|| FormatError::MissingTensor { tensor: name.to_owned() })
    }

    /// A tensor's data: `rows` × [`DType::row_bytes`](bricks::DType::row_bytes), rows in order. The same memory every time.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`FormatError::Memory`] if the data is generated and memory for it is short, unless
    /// [`reserve`](Self::reserve) took it.
    pub fn bytes(&self, tensor: &TensorInfo) -> Result<&[u8], FormatError> {
        let size = self.check(tensor)?;
        let found = self.storage.slice(tensor.offset, size).map_err(|e| e.of(&tensor.name))?;
        found.ok_or_else(|| self.range_error(tensor))
    }

    /// Whether a tensor's data is there and can be decoded; its size in bytes. Touches none of it.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedType`] if the storage type cannot be decoded; [`FormatError::TensorRange`] if `tensor` is
    /// not one of this file's and lies outside of it.
    pub fn check(&self, tensor: &TensorInfo) -> Result<u64, FormatError> {
        let size = tensor.n_bytes.filter(|_| tensor.dtype.is_some()).ok_or_else(|| tensor.unsupported())?;
        match tensor.offset.checked_add(size) {
            Some(end) if end <= self.file_size() => Ok(size),
            _ => Err(self.range_error(tensor)),
        }
    }

    /// Takes the memory that [`bytes`](Self::bytes) of a generated tensor needs, so that it cannot fail later. Pages are used
    /// only when the data is made. Nothing to do where the data is in a file or in memory.
    ///
    /// # Errors
    /// [`FormatError::Memory`].
    pub fn reserve(&self, tensor: &TensorInfo) -> Result<(), FormatError> {
        self.storage.reserve(tensor.offset).map_err(|e| e.of(&tensor.name))
    }

    fn range_error(&self, tensor: &TensorInfo) -> FormatError {
        FormatError::TensorRange {
            tensor: tensor.name.clone(),
            at: tensor.offset,
            size: tensor.n_bytes,
            file: self.file_size(),
        }
    }

    /// Copies a tensor's data from byte `at` on to `out`, without taking memory for pages of the map where the system allows.
    /// For data that is read once.
    ///
    /// # Errors
    /// When the tensor has no such bytes, or the file cannot be read (any more).
    pub fn read(&self, tensor: &TensorInfo, at: usize, out: &mut [u8]) -> std::io::Result<()> {
        let size = self.check(tensor).map_err(std::io::Error::other)?;
        if at.checked_add(out.len()).is_none_or(|end| end as u64 > size) {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.storage.read(tensor.offset as usize + at, out)
    }

    /// Says that a tensor's data will not be read for some time: the memory of its pages is given back until then. A hint: does
    /// nothing where it is not available, or if `tensor` is not one of this file's.
    pub fn release(&self, tensor: &TensorInfo) {
        if let Ok(size) = self.check(tensor) {
            self.storage.release(tensor.offset as usize, size as usize);
        }
    }

    /// As [`release`](Self::release), of the metadata.
    pub fn release_metadata(&self) {
        self.storage.release(0, self.layout.data_at as usize);
    }

    /// As [`release`](Self::release), of the whole file.
    pub fn release_all(&self) {
        self.storage.release(0, self.storage.len());
    }

    /// Asks the operating system to read all tensor data ahead; returns at once. Worth calling before a model is run, not
    /// before it is listed. A hint: does nothing where it is not available.
    pub fn prefetch(&self) {
        let start = self.layout.data_at as usize;
        self.storage.prefetch(start, self.storage.len().saturating_sub(start));
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gguf")
            .field("path", &self.path)
            .field("version", &self.version())
            .field("file_size", &self.file_size())
            .field("metadata", &self.metadata().len())
            .field("tensors", &self.tensors().len())
            .finish_non_exhaustive()
    }
}

/// What a file's bytes mean. Borrows nothing: positions only.
#[derive(Debug)]
struct Layout {
    version: u32,
    alignment: u64,
    metadata: Table,
    directory: Directory,
    /// Offset of the data section.
    data_at: u64,
}

impl Layout {
    /// Reads and checks everything before the data section. Pure: no input or output, memory in proportion to the input. `bytes`
    /// may end where the data section begins; the file is as long as `file_len` says.
    fn parse(bytes: &[u8], file_len: u64) -> Result<Self, FormatError> {
        sniff::check_magic(bytes)?;
        let mut c = Cursor::new(bytes);
        c.take(sniff::MAGIC.len() as u64, "magic")?;
        let version = c.u32("version")?;
        match (version, version.swap_bytes()) {
            (2 | 3, _) => {}
            (_, version @ 1..=3) => return Err(FormatError::BigEndian { version }),
            _ => return Err(FormatError::Version { found: version }),
        }
        let tensors_at = c.at() as u64;
        let n_tensors = c.u64("number of tensors")?;
        let entries_at = c.at() as u64;
        let n_entries = c.u64("number of metadata keys")?;
        // A key of one byte with a value of one byte: 8 + 1 + 4 + 1.
        check_count("number of metadata keys", entries_at, n_entries, c.remaining() / 14)?;
        check_count("number of tensors", tensors_at, n_tensors, c.remaining() / Directory::MIN_ENTRY)?;
        let mut entries = Vec::new();
        for index in 0..n_entries {
            entries.push(Entry::read(&mut c, index)?);
        }
        let table = Table::new(entries)?;
        let metadata = Metadata::new(bytes, &table);
        let alignment = alignment(&metadata)?;
        // Read leniently: a part of a model is refused as such, whatever the type of the count.
        if let Some(count) = metadata.value("split.count").and_then(|v| v.as_integer()).filter(|n| *n > 1) {
            return Err(FormatError::Split { count: count as u64 });
        }
        // Again, now that the metadata's size is known: the better message for a file cut off there.
        check_count("number of tensors", tensors_at, n_tensors, c.remaining() / Directory::MIN_ENTRY)?;
        let (directory, data_at) = Directory::read(&mut c, n_tensors, alignment, file_len)?;
        Ok(Self { version, alignment, metadata: table, directory, data_at })
    }
}

fn check_count(what: &str, at: u64, found: u64, possible: u64) -> Result<(), FormatError> {
    let limit = possible.min(MAX_COUNT);
    if found > limit { Err(FormatError::Count { what: what.to_owned(), at, found, limit }) } else { Ok(()) }
}

fn alignment(metadata: &Metadata<'_>) -> Result<u64, FormatError> {
    let Some(value) = metadata.value("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    value
        .as_integer()
        .and_then(|v| u32::try_from(v).ok())
        .filter(|v| v.is_power_of_two() && *v >= 8)
        .map(u64::from)
        .ok_or_else(|| FormatError::Alignment { found: format!("{} {value}", value.value_type()) })
}
