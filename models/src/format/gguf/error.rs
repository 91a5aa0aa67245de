//! Everything that can be wrong with a GGUF file.

use std::path::PathBuf;

/// A file could not be opened as GGUF.
///
/// `Display` names the file and what was tried; the cause is the error's [`source`](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried: `open`, `map`, …
        action: &'static str,
        /// The reason.
        source: std::io::Error,
    },
    /// The path is not a regular file.
    #[error("{} is {found}, expected a GGUF file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
    /// The bytes are not a GGUF file this crate can use.
    #[error("{} is not a usable GGUF file", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: FormatError,
    },
}

/// What is wrong with the bytes of a GGUF file. Offsets count from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Nothing in it.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Not GGUF at all.
    #[error("expected the magic bytes \"GGUF\" at byte 0, found {found}{}", looks_like.map(|l| format!(": this looks like {l}")).unwrap_or_default())]
    Magic {
        /// The first bytes, escaped.
        found: String,
        /// The format the first bytes belong to, if it is a known one.
        looks_like: Option<&'static str>,
    },
    /// Written for big-endian machines.
    #[error(
        "this is a big-endian GGUF file (version {version} with swapped bytes at byte 4); only little-endian files are read"
    )]
    BigEndian {
        /// The version once its bytes are swapped.
        version: u32,
    },
    /// A version without a reader.
    #[error("expected GGUF version 2 or 3 at byte 4, found {found}{}", if *found == 1 { " (obsolete since 2023: convert the model again)" } else { "" })]
    Version {
        /// The file's version.
        found: u32,
    },
    /// The file ends too early.
    #[error("{what} at byte {at} needs {need} bytes, but the file ends {have} bytes later: it is truncated or corrupt")]
    Truncated {
        /// What was being read.
        what: String,
        /// Where it begins.
        at: u64,
        /// Its size.
        need: u64,
        /// Bytes from `at` to the end of the file.
        have: u64,
    },
    /// A count that cannot be true.
    #[error("{what} at byte {at} is {found}, but at most {limit} are possible here")]
    Count {
        /// What is counted.
        what: String,
        /// Where the count stands.
        at: u64,
        /// The count.
        found: u64,
        /// The most that the remaining bytes, or this reader's limits, admit.
        limit: u64,
    },
    /// A string that must be text is not.
    #[error("{what} at byte {at} is not valid UTF-8 (first bad byte at {bad_at})")]
    Utf8 {
        /// The string.
        what: String,
        /// Where it begins.
        at: u64,
        /// Where the first bad byte is.
        bad_at: u64,
    },
    /// A metadata key or tensor name of length 0 or beyond the format's limit.
    #[error("{what} at byte {at} has a length of {len}, expected 1..={limit}")]
    NameLength {
        /// Which name.
        what: String,
        /// Where it begins.
        at: u64,
        /// Its length.
        len: u64,
        /// The format's limit.
        limit: u64,
    },
    /// A metadata type id that does not exist.
    #[error("metadata key `{key}`: expected a value type 0..=12 at byte {at}, found {found}")]
    ValueType {
        /// The key.
        key: String,
        /// Where the type stands.
        at: u64,
        /// The id.
        found: u32,
    },
    /// Arrays of arrays of arrays …
    #[error("metadata key `{key}`: arrays nested more than {limit} deep at byte {at}")]
    Nesting {
        /// The key.
        key: String,
        /// Where the innermost array begins.
        at: u64,
        /// The deepest nesting that is read.
        limit: u32,
    },
    /// A boolean that is neither.
    #[error("metadata key `{key}`: expected a boolean 0 or 1 at byte {at}, found {found}")]
    Bool {
        /// The key.
        key: String,
        /// Where it stands.
        at: u64,
        /// The byte.
        found: u8,
    },
    /// One key twice.
    #[error("metadata key `{key}` occurs twice, at bytes {first} and {second}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Offset of its first value.
        first: u64,
        /// Offset of its second value.
        second: u64,
    },
    /// `general.alignment` makes no sense.
    #[error("metadata key `general.alignment`: expected a power of two of at least 8, found {found}")]
    Alignment {
        /// The value with its type.
        found: String,
    },
    /// One part of a model that is spread over several files.
    #[error(
        "this is one of {count} parts of a split model (`split.count`); join them first (`llama-gguf-split --merge`)"
    )]
    Split {
        /// Number of parts.
        count: u64,
    },
    /// Number of dimensions out of range.
    #[error("tensor `{tensor}`: expected 1 to 4 dimensions at byte {at}, found {found}")]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// Where the number stands.
        at: u64,
        /// The number.
        found: u32,
    },
    /// A dimension is 0 or the product of all does not fit.
    #[error("tensor `{tensor}`: dimensions {dims:?} are {problem}")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its dimensions in file order.
        dims: Vec<u64>,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// Rows do not consist of whole blocks.
    #[error("tensor `{tensor}`: rows of {row} values do not divide into {type_name} blocks of {block}")]
    RowLength {
        /// The tensor.
        tensor: String,
        /// The storage type.
        type_name: &'static str,
        /// Values per row.
        row: u64,
        /// Values per block.
        block: u64,
    },
    /// Data does not begin at a multiple of the alignment.
    #[error("tensor `{tensor}`: expected an offset that is a multiple of {alignment}, found {offset}")]
    TensorAlignment {
        /// The tensor.
        tensor: String,
        /// Its offset in the data section.
        offset: u64,
        /// `general.alignment`.
        alignment: u64,
    },
    /// Data lies outside the file.
    #[error(
        "tensor `{tensor}`: its {} bytes of data begin at byte {at}, but the file has only {file} bytes: it is truncated or corrupt",
        size.map_or_else(|| "(unknown number of)".into(), |s| s.to_string())
    )]
    TensorRange {
        /// The tensor.
        tensor: String,
        /// First byte of its data in the file (saturated if it does not fit 64 bits).
        at: u64,
        /// Size of its data, if the storage type is known.
        size: Option<u64>,
        /// Size of the file.
        file: u64,
    },
    /// Two tensors share bytes.
    #[error("tensors `{first}` and `{second}` overlap at byte {at}")]
    Overlap {
        /// The tensor that begins first.
        first: String,
        /// The one that begins inside it.
        second: String,
        /// Where the second begins.
        at: u64,
    },
    /// One name twice.
    #[error("tensor `{tensor}` occurs twice")]
    DuplicateTensor {
        /// The name.
        tensor: String,
    },
    /// A storage type that cannot be decoded. Raised when the tensor's data is asked for, not when the file is opened.
    #[error("tensor `{tensor}`: storage type {type_id} ({type_name}) is not supported")]
    UnsupportedType {
        /// The tensor.
        tensor: String,
        /// `ggml_type` id.
        type_id: u32,
        /// Its name, or `unknown`.
        type_name: &'static str,
    },
    /// Memory for the data of a generated tensor is short.
    #[error("tensor `{tensor}`: cannot allocate {bytes} bytes for its data")]
    Memory {
        /// The tensor.
        tensor: String,
        /// Bytes asked for.
        bytes: u64,
    },
    /// No tensor of that name.
    #[error("tensor `{tensor}` is missing")]
    MissingTensor {
        /// The name.
        tensor: String,
    },
}

/// A metadata value is missing or of the wrong type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// The key does not occur.
    #[error("metadata key `{key}` is missing (expected {expected})")]
    Missing {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
    },
    /// The key holds something else.
    #[error("metadata key `{key}`: expected {expected}, found {found}")]
    Type {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
        /// Type and value that it has.
        found: String,
    },
}
