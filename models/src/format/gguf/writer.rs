//! Writing GGUF version 3.
//!
//! The same input gives the same bytes: keys and tensors are written in the order they were added, padding is zero.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use brick_models::format::gguf::{Gguf, GgufWriter};
//! use bricks::DType;
//!
//! let mut w = GgufWriter::new();
//! w.set("general.architecture", "llama").set("llama.block_count", 2_u32);
//! w.tensor("output_norm.weight", &[4], DType::F32, vec![0; 16]);
//! let file = Gguf::from_bytes(w.to_bytes()?)?;
//! assert_eq!(file.metadata().get_u32("llama.block_count")?, 2);
//! # Ok(())
//! # }
//! ```

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bricks::DType;

use super::encode::ValueArray;
pub use super::encode::{WriteElement, WriteValue};
use super::metadata::MAX_NAME;
use super::sniff::MAGIC;
use super::tensor::n_bytes;
use super::value::{Value, ValueType};
use super::{DEFAULT_ALIGNMENT, FormatError};

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// What was added does not make a valid file.
    #[error("cannot write a valid GGUF file")]
    Invalid(#[from] FormatError),
    /// A tensor's data is not as long as its shape and type say.
    #[error("tensor `{tensor}`: expected {expected} bytes of data, found {found}")]
    DataLength {
        /// The tensor.
        tensor: String,
        /// Bytes that its shape and type need.
        expected: u64,
        /// Bytes given (when it is too much: at least these).
        found: u64,
    },
    /// A generated file needs a source for each tensor.
    #[error("expected {expected} sources, one for each tensor, found {found}")]
    Sources {
        /// Tensors.
        expected: usize,
        /// Sources given.
        found: usize,
    },
    /// The output could not be written.
    #[error("cannot write GGUF data")]
    Io(#[from] io::Error),
    /// The output file could not be created, completed or moved into place.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The destination.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// Where a tensor's data comes from when the file is written.
type Producer<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

enum Data<'a> {
    Bytes(Cow<'a, [u8]>),
    Producer(Producer<'a>),
}

struct Tensor<'a> {
    name: String,
    dims: Vec<u64>,
    dtype: DType,
    data: Data<'a>,
}

/// Collects metadata and tensors and writes them as one file.
#[derive(Default)]
pub struct GgufWriter<'a> {
    entries: Vec<(String, Encoded)>,
    tensors: Vec<Tensor<'a>>,
}

/// A file without its tensors' data.
pub(super) struct Head {
    /// The file up to where tensor data begins.
    pub(super) bytes: Vec<u8>,
    /// Where each tensor's data belongs.
    pub(super) places: Vec<Range<u64>>,
    /// Length of the whole file.
    pub(super) file_len: u64,
}

/// A value's type and its bytes.
struct Encoded {
    value_type: ValueType,
    bytes: Vec<u8>,
}

impl<'a> GgufWriter<'a> {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key: the value replaces an earlier one of that key in its place, or is added at the end. Values are Rust
    /// scalars, strings, slices and vectors of these, or a [`Value`] of another file.
    #[allow(clippy::needless_pass_by_value)] // literals are passed as they are
    pub fn set(&mut self, key: &str, value: impl WriteValue) -> &mut Self {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        let encoded = Encoded { value_type: value.value_type(), bytes };
        match self.entries.iter_mut().find(|(k, _)| k == key) {
            Some((_, old)) => *old = encoded,
            None => self.entries.push((key.to_owned(), encoded)),
        }
        self
    }

    /// Sets a key to an array of strings that need not be UTF-8 (token lists).
    pub fn set_byte_strings<S: AsRef<[u8]>>(&mut self, key: &str, strings: &[S]) -> &mut Self {
        let values: Vec<Value<'_>> = strings.iter().map(|s| Value::String(s.as_ref())).collect();
        self.set(key, ValueArray(ValueType::String, &values))
    }

    /// Removes a key; `true` if it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        self.entries.retain(|(k, _)| k != key);
        self.entries.len() != before
    }

    /// Adds a tensor. `dims[0]` is the length of a row; `data` holds the rows in storage format.
    pub fn tensor(&mut self, name: &str, dims: &[u64], dtype: DType, data: impl Into<Cow<'a, [u8]>>) -> &mut Self {
        self.push(name, dims, dtype, Data::Bytes(data.into()))
    }

    /// Adds a tensor of F32 values.
    pub fn tensor_f32(&mut self, name: &str, dims: &[u64], values: &[f32]) -> &mut Self {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensor(name, dims, DType::F32, bytes)
    }

    /// Adds a tensor whose data is produced when the file is written, so that it need not be in memory as a whole.
    pub fn tensor_with(
        &mut self,
        name: &str,
        dims: &[u64],
        dtype: DType,
        produce: impl Fn(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> &mut Self {
        self.push(name, dims, dtype, Data::Producer(Box::new(produce)))
    }

    /// Removes a tensor; `true` if it was there.
    pub fn remove_tensor(&mut self, name: &str) -> bool {
        let before = self.tensors.len();
        self.tensors.retain(|t| t.name != name);
        self.tensors.len() != before
    }

    fn push(&mut self, name: &str, dims: &[u64], dtype: DType, data: Data<'a>) -> &mut Self {
        self.tensors.push(Tensor { name: name.to_owned(), dims: dims.to_vec(), dtype, data });
        self
    }

    /// The whole file in memory.
    ///
    /// # Errors
    /// As [`write_to`](Self::write_to).
    pub fn to_bytes(&self) -> Result<Vec<u8>, WriteError> {
        let mut out = Vec::new();
        self.write_to(&mut out)?;
        Ok(out)
    }

    /// Writes a file that appears at `path` complete or not at all: a temporary file in the same directory is written,
    /// flushed to the disk and renamed. An existing file is replaced.
    ///
    /// # Errors
    /// [`WriteError`]; no file is left behind.
    pub fn write_file(&self, path: impl AsRef<Path>) -> Result<(), WriteError> {
        let path = path.as_ref();
        let file_error = |action| move |source| WriteError::File { path: path.to_owned(), action, source };
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(".gguf-");
        #[cfg(unix)]
        {
            // Temporary files are private by default; a model gets the permissions any new file would.
            use std::os::unix::fs::PermissionsExt;
            temporary.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = temporary.tempfile_in(dir).map_err(file_error("create a file beside"))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        self.write_to(&mut out)?;
        let file = out.into_inner().map_err(|e| file_error("write")(e.into_error()))?;
        file.as_file().sync_all().map_err(file_error("write"))?;
        file.persist(path).map_err(|e| file_error("replace")(e.error))?;
        Ok(())
    }

    /// Writes the file. Nothing is written unless everything but the produced data is known to be valid.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] for names, shapes or an alignment that the reader would refuse, [`WriteError::DataLength`],
    /// [`WriteError::Io`].
    pub fn write_to(&self, out: impl Write) -> Result<(), WriteError> {
        let alignment = self.alignment()?;
        let sizes = self.check()?;
        let mut out = Counted { inner: out, at: 0 };
        self.write_head(&mut out, alignment, &sizes)?;
        for (t, size) in self.tensors.iter().zip(&sizes) {
            out.pad(alignment)?;
            let start = out.at;
            let mut limited = Limited { out: &mut out, left: *size };
            let written = match &t.data {
                Data::Bytes(bytes) => limited.write_all(bytes),
                Data::Producer(produce) => produce(&mut limited),
            };
            let overran = limited.left == 0 && written.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WriteZero);
            let found = out.at - start + u64::from(overran);
            if !overran {
                written?;
            }
            if found != *size {
                return Err(WriteError::DataLength { tensor: t.name.clone(), expected: *size, found });
            }
        }
        out.pad(alignment)?;
        Ok(out.flush()?)
    }

    /// The file without its tensors' data.
    pub(super) fn head(&self) -> Result<Head, WriteError> {
        let alignment = self.alignment()?;
        let sizes = self.check()?;
        let mut bytes = Vec::new();
        let mut out = Counted { inner: &mut bytes, at: 0 };
        self.write_head(&mut out, alignment, &sizes)?;
        out.pad(alignment)?;
        let mut end = out.at;
        let mut places = Vec::with_capacity(sizes.len());
        for (t, size) in self.tensors.iter().zip(&sizes) {
            let data_end = end.checked_add(*size).ok_or_else(|| t.too_large())?;
            places.push(end..data_end);
            end = data_end.checked_next_multiple_of(alignment).ok_or_else(|| t.too_large())?;
        }
        Ok(Head { bytes, places, file_len: end })
    }

    /// Writes what comes before the tensors' data.
    fn write_head(&self, out: &mut impl Write, alignment: u64, sizes: &[u64]) -> Result<(), WriteError> {
        out.write_all(&MAGIC)?;
        out.write_all(&3_u32.to_le_bytes())?;
        out.write_all(&(self.tensors.len() as u64).to_le_bytes())?;
        out.write_all(&(self.entries.len() as u64).to_le_bytes())?;
        for (key, value) in &self.entries {
            put_string(out, key.as_bytes())?;
            out.write_all(&(value.value_type as u32).to_le_bytes())?;
            out.write_all(&value.bytes)?;
        }
        let mut offset = 0_u64;
        for (t, size) in self.tensors.iter().zip(sizes) {
            put_string(out, t.name.as_bytes())?;
            out.write_all(&(t.dims.len() as u32).to_le_bytes())?;
            for d in &t.dims {
                out.write_all(&d.to_le_bytes())?;
            }
            out.write_all(&(t.dtype as u32).to_le_bytes())?;
            out.write_all(&offset.to_le_bytes())?;
            offset = offset
                .checked_add(*size)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .ok_or_else(|| t.too_large())?;
        }
        Ok(())
    }

    /// The value of `general.alignment`, or its default.
    fn alignment(&self) -> Result<u64, FormatError> {
        let Some((_, value)) = self.entries.iter().find(|(k, _)| k == "general.alignment") else {
            return Ok(DEFAULT_ALIGNMENT);
        };
        let found = <[u8; 4]>::try_from(value.bytes.as_slice()).ok().map(u32::from_le_bytes);
        match found.filter(|v| value.value_type == ValueType::U32 && v.is_power_of_two() && *v >= 8) {
            Some(v) => Ok(v.into()),
            None => Err(FormatError::Alignment {
                found: format!("{} {}", value.value_type, found.map_or_else(String::new, |v| v.to_string())),
            }),
        }
    }

    /// Checks names and shapes; gives each tensor's size in bytes.
    fn check(&self) -> Result<Vec<u64>, WriteError> {
        for (key, value) in &self.entries {
            check_name("metadata key", key)?;
            if value.value_type == ValueType::String {
                // The payload of a string follows its length.
                let text = value.bytes.get(size_of::<u64>()..).unwrap_or_default();
                if let Err(e) = std::str::from_utf8(text) {
                    let bad_at = e.valid_up_to() as u64;
                    return Err(
                        FormatError::Utf8 { what: format!("value of metadata key `{key}`"), at: 0, bad_at }.into()
                    );
                }
            }
        }
        let mut names: Vec<&str> = self.tensors.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(FormatError::DuplicateTensor { tensor: pair[0].to_owned() }.into());
        }
        self.tensors
            .iter()
            .map(|t| {
                check_name("name of tensor", &t.name)?;
                if !(1..=4).contains(&t.dims.len()) {
                    let found = t.dims.len() as u32;
                    return Err(FormatError::Dimensions { tensor: t.name.clone(), at: 0, found }.into());
                }
                let size = n_bytes(&t.name, &t.dims, t.dtype as u32)?.ok_or_else(|| t.too_large())?;
                match &t.data {
                    Data::Bytes(b) if b.len() as u64 != size => {
                        Err(WriteError::DataLength { tensor: t.name.clone(), expected: size, found: b.len() as u64 })
                    }
                    _ => Ok(size),
                }
            })
            .collect()
    }
}

impl std::fmt::Debug for GgufWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GgufWriter")
            .field("metadata", &self.entries.len())
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

impl Tensor<'_> {
    fn too_large(&self) -> FormatError {
        let problem = "too large: the file would exceed 64-bit offsets";
        FormatError::Shape { tensor: self.name.clone(), dims: self.dims.clone(), problem }
    }
}

fn check_name(what: &str, name: &str) -> Result<(), FormatError> {
    match name.len() as u64 {
        1..=MAX_NAME => Ok(()),
        len => Err(FormatError::NameLength { what: what.to_owned(), at: 0, len, limit: MAX_NAME }),
    }
}

fn put_string(out: &mut impl Write, s: &[u8]) -> io::Result<()> {
    out.write_all(&(s.len() as u64).to_le_bytes())?;
    out.write_all(s)
}

/// Counts what passes through.
struct Counted<W> {
    inner: W,
    at: u64,
}

impl<W: Write> Counted<W> {
    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        const ZEROS: [u8; 64] = [0; 64];
        let mut missing = self.at.next_multiple_of(alignment) - self.at;
        while missing > 0 {
            let n = missing.min(ZEROS.len() as u64);
            self.write_all(&ZEROS[..n as usize])?;
            missing -= n;
        }
        Ok(())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Lets a producer write as many bytes as its tensor has, and no more.
struct Limited<'w, W> {
    out: &'w mut W,
    left: u64,
}

impl<W: Write> Write for Limited<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        // `Ok(0)` for bytes beyond the tensor becomes `WriteZero` in `write_all`.
        let n = if n == 0 { 0 } else { self.out.write(&buf[..n])? };
        self.left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
