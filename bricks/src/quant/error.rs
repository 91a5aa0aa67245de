//! What can be wrong with a row handed to a codec.

use crate::dtype::DType;

/// A row, or a plane of a row, does not have the length its format asks for. Contents are never wrong: every bit
/// pattern decodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// The number of values does not fill whole blocks.
    #[error("{format} row: expected a multiple of {block} values, found {found}")]
    RowLength {
        /// Name of the format.
        format: &'static str,
        /// Values per block.
        block: usize,
        /// Values in the row.
        found: usize,
    },
    /// The bytes do not belong to a row of that many values.
    #[error("{dtype} row of {values} values: expected {expected} bytes, found {found}")]
    ByteLength {
        /// Storage type.
        dtype: DType,
        /// Values in the row.
        values: usize,
        /// Bytes such a row takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A slice beside the row (a plane of it, or the other side of a conversion) has the wrong number of elements.
    #[error("{what}: expected {expected} elements for a row of {values} values, found {found}")]
    PlaneLength {
        /// Which slice.
        what: &'static str,
        /// Values in the row.
        values: usize,
        /// Elements it needs.
        expected: usize,
        /// Elements it has.
        found: usize,
    },
    /// The matrix would not fit into memory.
    #[error("{format} matrix: {rows} rows of {width} values exceed the address space")]
    TooLarge {
        /// Name of the format.
        format: &'static str,
        /// Rows asked for.
        rows: usize,
        /// Values per row.
        width: usize,
    },
    /// The type can be read but not written.
    #[error("expected a type with an encoder (F32, F16, BF16, Q4_0, Q4_1, Q8_0), found {dtype}")]
    NoEncoder {
        /// Storage type asked for.
        dtype: DType,
    },
    /// The type stores floats: it has no codes, scales and minimums to take apart.
    #[error("expected a quantised type, found {dtype}")]
    NotQuantised {
        /// Storage type given.
        dtype: DType,
    },
}
