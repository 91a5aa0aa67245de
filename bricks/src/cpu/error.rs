//! What can be wrong with a kernel call.

use crate::DType;

/// The arguments of a kernel contradict each other. Nothing was computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A length does not fit the others.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// Which argument, in which unit.
        what: &'static str,
        /// What the other arguments ask for.
        expected: usize,
        /// What was given.
        found: usize,
    },
    /// Something exceeds its limit.
    #[error("{what}: expected at most {limit}, found {found}")]
    Limit {
        /// Which argument, in which unit.
        what: &'static str,
        /// The most it may be.
        limit: usize,
        /// What was given.
        found: usize,
    },
    /// Rows of a matrix that do not fill whole blocks of its type, or are empty.
    #[error("{dtype} rows: expected a positive multiple of {} values, found {cols}", dtype.block_len())]
    Columns {
        /// Type of the weights.
        dtype: DType,
        /// Values per row.
        cols: usize,
    },
    /// A matrix of another type than the kernel's.
    #[error("weights: expected {expected}, found {found}")]
    Type {
        /// What the kernel is for.
        expected: DType,
        /// Type of the matrix.
        found: DType,
    },
    /// Activations of the other kind: quantised weights take Q8, float weights f32.
    #[error("activations of {dtype} weights: expected {expected}, found {found}")]
    Activations {
        /// Type of the weights.
        dtype: DType,
        /// What this type takes.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
}

/// `found == expected`, or an error that says what it was.
#[inline]
pub(super) fn same(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}

/// `found <= limit`, or an error that says what it was.
#[inline]
pub(super) fn at_most(what: &'static str, limit: usize, found: usize) -> Result<(), KernelError> {
    if found <= limit { Ok(()) } else { Err(KernelError::Limit { what, limit, found }) }
}
