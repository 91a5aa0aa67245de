//! The key/value part of a file and typed access to it.

use std::ops::Range;

use super::cursor::Cursor;
use super::error::{FormatError, MetadataError};
use super::value::{Array, Strings, Value, ValueType, read_type};

/// Longest key and longest tensor name (the format's limit for keys).
pub(super) const MAX_NAME: u64 = 65_535;

/// One key and where its value lies.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Box<str>,
    /// Offset of the value's type id.
    at: usize,
    value: Stored,
}

/// Scalars by value; strings and arrays by position, so that a vocabulary costs its index and nothing else.
#[derive(Debug)]
enum Stored {
    Scalar(Value<'static>),
    String(Range<usize>),
    Array { element: ValueType, len: usize, payload: Range<usize>, starts: Option<Box<[usize]>> },
}

impl Entry {
    /// Reads a key and its value and checks everything about them that can be checked.
    pub(super) fn read(c: &mut Cursor<'_>, index: u64) -> Result<Self, FormatError> {
        let key = read_name(c, format_args!("metadata key {index}"))?;
        let at = c.at();
        let value_type = read_type(c, &key)?;
        let value = match Value::read(c, value_type, &key, 0)? {
            Value::String(s) => {
                let start = c.at() - s.len();
                utf8(s, start, format_args!("value of metadata key `{key}`"))?;
                Stored::String(start..c.at())
            }
            Value::Array(a) => {
                let starts = (a.element_type() == ValueType::String).then(|| Strings::index(&a));
                let payload = c.at() - a.payload().len()..c.at();
                Stored::Array { element: a.element_type(), len: a.len(), payload, starts }
            }
            Value::U8(v) => Stored::Scalar(Value::U8(v)),
            Value::I8(v) => Stored::Scalar(Value::I8(v)),
            Value::U16(v) => Stored::Scalar(Value::U16(v)),
            Value::I16(v) => Stored::Scalar(Value::I16(v)),
            Value::U32(v) => Stored::Scalar(Value::U32(v)),
            Value::I32(v) => Stored::Scalar(Value::I32(v)),
            Value::F32(v) => Stored::Scalar(Value::F32(v)),
            Value::Bool(v) => Stored::Scalar(Value::Bool(v)),
            Value::U64(v) => Stored::Scalar(Value::U64(v)),
            Value::I64(v) => Stored::Scalar(Value::I64(v)),
            Value::F64(v) => Stored::Scalar(Value::F64(v)),
        };
        Ok(Self { key: key.into(), at, value })
    }

    /// The value, looked up in the bytes it was read from.
    fn view<'a>(&'a self, bytes: &'a [u8]) -> Value<'a> {
        match &self.value {
            Stored::Scalar(v) => *v,
            Stored::String(range) => Value::String(bytes.get(range.clone()).unwrap_or_default()),
            Stored::Array { element, len, payload, .. } => {
                Value::Array(Array::from_parts(*element, *len, bytes.get(payload.clone()).unwrap_or_default()))
            }
        }
    }
}

/// Reads a key or tensor name: UTF-8 of 1 to [`MAX_NAME`] bytes.
pub(super) fn read_name(c: &mut Cursor<'_>, what: std::fmt::Arguments<'_>) -> Result<String, FormatError> {
    let at = c.at() as u64;
    let len = c.u64(format_args!("length of {what}"))?;
    if len == 0 || len > MAX_NAME {
        return Err(FormatError::NameLength { what: what.to_string(), at, len, limit: MAX_NAME });
    }
    let start = c.at();
    utf8(c.take(len, what)?, start, what).map(str::to_owned)
}

fn utf8<'a>(bytes: &'a [u8], at: usize, what: std::fmt::Arguments<'_>) -> Result<&'a str, FormatError> {
    std::str::from_utf8(bytes).map_err(|e| FormatError::Utf8 {
        what: what.to_string(),
        at: at as u64,
        bad_at: (at + e.valid_up_to()) as u64,
    })
}

/// Entries in file order, found by key.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Indices of `entries`, sorted by key.
    by_key: Vec<u32>,
}

impl Table {
    /// Sorts the entries' keys and refuses duplicates.
    pub(super) fn new(entries: Vec<Entry>) -> Result<Self, FormatError> {
        let mut by_key: Vec<u32> = (0..entries.len() as u32).collect();
        by_key.sort_by_key(|&i| (&*entries[i as usize].key, i));
        for pair in by_key.windows(2) {
            let (a, b) = (&entries[pair[0] as usize], &entries[pair[1] as usize]);
            if a.key == b.key {
                return Err(FormatError::DuplicateKey {
                    key: a.key.to_string(),
                    first: a.at as u64,
                    second: b.at as u64,
                });
            }
        }
        Ok(Self { entries, by_key })
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        let at = self.by_key.binary_search_by(|&i| (*self.entries[i as usize].key).cmp(key)).ok()?;
        self.entries.get(*self.by_key.get(at)? as usize)
    }
}

/// The metadata of a file.
///
/// Typed access is [`get`](Self::get) for keys that must exist and [`opt`](Self::opt) for those that may; both say key,
/// expected and found type on failure. Integers are accepted in any width that holds the value, because files in the wild
/// differ in the widths they use; floats are accepted as `f32` or `f64`.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a> {
    bytes: &'a [u8],
    table: &'a Table,
}

impl<'a> Metadata<'a> {
    pub(super) const fn new(bytes: &'a [u8], table: &'a Table) -> Self {
        Self { bytes, table }
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// Keys and values in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'a str, Value<'a>)> + use<'a> {
        let bytes = self.bytes;
        self.table.entries.iter().map(move |e| (&*e.key, e.view(bytes)))
    }

    /// The value of a key, whatever its type.
    pub fn value(&self, key: &str) -> Option<Value<'a>> {
        self.table.find(key).map(|e| e.view(self.bytes))
    }

    /// The value of a key that may be missing.
    ///
    /// # Errors
    /// [`MetadataError::Type`] if the key exists with a type or value that `T` cannot hold.
    pub fn opt<T: FromValue<'a>>(&self, key: &str) -> Result<Option<T>, MetadataError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(v) => Ok(Some(v)),
            None => Err(wrong_type(key, T::EXPECTED, &value)),
        }
    }

    /// The value of a key that must exist.
    ///
    /// # Errors
    /// [`MetadataError::Missing`], or [`MetadataError::Type`] if `T` cannot hold the value.
    pub fn get<T: FromValue<'a>>(&self, key: &str) -> Result<T, MetadataError> {
        self.opt(key)?.ok_or_else(|| MetadataError::Missing { key: key.to_owned(), expected: T::EXPECTED })
    }

    /// A required integer that fits 32 bits. See [`get`](Self::get), also for the errors of the following.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_u32(&self, key: &str) -> Result<u32, MetadataError> {
        self.get(key)
    }

    /// A required unsigned integer.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_u64(&self, key: &str) -> Result<u64, MetadataError> {
        self.get(key)
    }

    /// A required float.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_f32(&self, key: &str) -> Result<f32, MetadataError> {
        self.get(key)
    }

    /// A required boolean.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_bool(&self, key: &str) -> Result<bool, MetadataError> {
        self.get(key)
    }

    /// A required string.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_str(&self, key: &str) -> Result<&'a str, MetadataError> {
        self.get(key)
    }

    /// A required array of integers that fit 32 bits with sign (token types, for instance).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_array_i32(&self, key: &str) -> Result<Vec<i32>, MetadataError> {
        self.get(key)
    }

    /// A required array of floats (token scores, for instance).
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_array_f32(&self, key: &str) -> Result<Vec<f32>, MetadataError> {
        self.get(key)
    }

    /// A required array of strings; no string is copied.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn get_array_str(&self, key: &str) -> Result<Strings<'a>, MetadataError> {
        self.opt_array_str(key)?
            .ok_or_else(|| MetadataError::Missing { key: key.to_owned(), expected: EXPECTED_STRINGS })
    }

    /// An array of strings that may be missing; no string is copied.
    ///
    /// # Errors
    /// [`MetadataError::Type`] if the key holds anything else.
    pub fn opt_array_str(&self, key: &str) -> Result<Option<Strings<'a>>, MetadataError> {
        let Some(entry) = self.table.find(key) else { return Ok(None) };
        match &entry.value {
            Stored::Array { payload, starts: Some(starts), .. } => {
                Ok(Some(Strings::new(self.bytes.get(payload.clone()).unwrap_or_default(), starts)))
            }
            _ => Err(wrong_type(key, EXPECTED_STRINGS, &entry.view(self.bytes))),
        }
    }
}

const EXPECTED_STRINGS: &str = "an array of strings";

fn wrong_type(key: &str, expected: &'static str, value: &Value<'_>) -> MetadataError {
    let found = match value {
        Value::Array(a) => format!("an array of {} values of type {}", a.len(), a.element_type()),
        Value::String(s) => {
            // Long values (chat templates) would bury the message.
            let text: String = String::from_utf8_lossy(s.get(..60).unwrap_or(s)).into_owned();
            format!("string {text:?}{}", if s.len() > 60 { "…" } else { "" })
        }
        scalar => format!("{} {scalar}", scalar.value_type()),
    };
    MetadataError::Type { key: key.to_owned(), expected, found }
}

/// A Rust type that metadata values convert to without loss of meaning.
pub trait FromValue<'a>: Sized {
    /// What error messages call it.
    const EXPECTED: &'static str;

    /// The conversion; `None` if the value has another type or does not fit.
    fn from_value(value: Value<'a>) -> Option<Self>;
}

macro_rules! from_integer {
    ($($type:ty, $expected:literal, $array:literal;)*) => {
        $(impl<'a> FromValue<'a> for $type {
            const EXPECTED: &'static str = $expected;

            fn from_value(value: Value<'a>) -> Option<Self> {
                value.as_integer().and_then(|v| v.try_into().ok())
            }
        }

        impl<'a> FromValue<'a> for Vec<$type> {
            const EXPECTED: &'static str = $array;

            fn from_value(value: Value<'a>) -> Option<Self> {
                collect(value)
            }
        })*
    };
}

from_integer! {
    u32, "an integer 0..=4294967295", "an array of integers 0..=4294967295";
    i32, "an integer of 32 bits", "an array of integers of 32 bits";
    u64, "an unsigned integer", "an array of unsigned integers";
    i64, "an integer of 64 bits", "an array of integers of 64 bits";
}

impl<'a> FromValue<'a> for f32 {
    const EXPECTED: &'static str = "a float";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for Vec<f32> {
    const EXPECTED: &'static str = "an array of floats";

    fn from_value(value: Value<'a>) -> Option<Self> {
        collect(value)
    }
}

impl<'a> FromValue<'a> for bool {
    const EXPECTED: &'static str = "a boolean";

    fn from_value(value: Value<'a>) -> Option<Self> {
        match value {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }
}

impl<'a> FromValue<'a> for &'a str {
    const EXPECTED: &'static str = "a string";

    fn from_value(value: Value<'a>) -> Option<Self> {
        value.as_str()
    }
}

fn collect<'a, T: FromValue<'a>>(value: Value<'a>) -> Option<Vec<T>> {
    match value {
        Value::Array(a) => {
            // Exactly one element per announced one, or none of them is believed.
            let items: Vec<T> = a.iter().map(T::from_value).collect::<Option<_>>()?;
            (items.len() == a.len()).then_some(items)
        }
        _ => None,
    }
}
