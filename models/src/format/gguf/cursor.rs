//! A reader over bytes that never steps outside them and says where it stood when it could not go on.

use std::fmt::Display;

use super::error::FormatError;

/// A position in a byte slice. Little-endian, as GGUF is.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! readers {
    ($($name:ident: $type:ty),*) => {
        $(pub(super) fn $name(&mut self, what: impl Display) -> Result<$type, FormatError> {
            Ok(<$type>::from_le_bytes(self.array(what)?))
        })*
    };
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Byte offset of the next read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub(super) fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes. `what` is formatted only when they are not there.
    pub(super) fn take(&mut self, n: u64, what: impl Display) -> Result<&'a [u8], FormatError> {
        let truncated = || FormatError::Truncated {
            what: what.to_string(),
            at: self.at as u64,
            need: n,
            have: self.bytes.len().saturating_sub(self.at) as u64,
        };
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n)).ok_or_else(truncated)?;
        let taken = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: impl Display) -> Result<[u8; N], FormatError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    readers!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64, f32: f32, f64: f64);

    /// A length-prefixed string as raw bytes.
    pub(super) fn string(&mut self, what: impl Display) -> Result<&'a [u8], FormatError> {
        let len = self.u64(format_args!("length of {what}"))?;
        self.take(len, what)
    }
}
