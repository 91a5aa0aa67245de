//! Metadata values as they lie in the file.

use std::fmt;

use super::cursor::Cursor;
use super::error::FormatError;

/// Arrays nested deeper than this are refused. Real files nest at most two deep.
pub(super) const MAX_DEPTH: u32 = 8;

/// The most strings in one array. The largest vocabularies have under 300 000 entries; this bounds the index of
/// [`Strings`] for files that are mostly holes.
pub(super) const MAX_STRINGS: u64 = 1 << 24;

macro_rules! value_types {
    ($($variant:ident = $id:literal, $name:literal, $size:literal;)*) => {
        /// Type of a metadata value (`enum gguf_type`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // the names say it
        #[repr(u32)]
        pub enum ValueType { $($variant = $id,)* }

        impl ValueType {
            /// The type with this id in a file.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// Name in the field's spelling, e.g. `u32`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Fewest bytes one value can take; for all but strings and arrays the exact number.
            const fn min_bytes(self) -> u64 {
                match self { $(Self::$variant => $size,)* }
            }
        }
    };
}

value_types! {
    U8 = 0, "u8", 1;
    I8 = 1, "i8", 1;
    U16 = 2, "u16", 2;
    I16 = 3, "i16", 2;
    U32 = 4, "u32", 4;
    I32 = 5, "i32", 4;
    F32 = 6, "f32", 4;
    Bool = 7, "bool", 1;
    String = 8, "string", 8;
    Array = 9, "array", 12;
    U64 = 10, "u64", 8;
    I64 = 11, "i64", 8;
    F64 = 12, "f64", 8;
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A metadata value; strings and arrays are views into the file.
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)] // one variant per `ValueType`
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Checked to be UTF-8 when the file is opened, unless it is an array's element: token lists hold raw bytes.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl<'a> Value<'a> {
    /// The value's type.
    pub const fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// The value if it is an integer of any width.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::I8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::I16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::I32(v) => Some(v.into()),
            Value::U64(v) => Some(v.into()),
            Value::I64(v) => Some(v.into()),
            _ => None,
        }
    }

    /// The value if it is a string of valid UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        match *self {
            Value::String(s) => std::str::from_utf8(s).ok(),
            _ => None,
        }
    }

    /// Reads a value that is not an array. `None` for arrays.
    fn read_scalar(c: &mut Cursor<'a>, t: ValueType, key: &str) -> Result<Option<Self>, FormatError> {
        let what = format_args!("value of metadata key `{key}`");
        Ok(Some(match t {
            ValueType::U8 => Value::U8(c.u8(what)?),
            ValueType::I8 => Value::I8(c.i8(what)?),
            ValueType::U16 => Value::U16(c.u16(what)?),
            ValueType::I16 => Value::I16(c.i16(what)?),
            ValueType::U32 => Value::U32(c.u32(what)?),
            ValueType::I32 => Value::I32(c.i32(what)?),
            ValueType::F32 => Value::F32(c.f32(what)?),
            ValueType::U64 => Value::U64(c.u64(what)?),
            ValueType::I64 => Value::I64(c.i64(what)?),
            ValueType::F64 => Value::F64(c.f64(what)?),
            ValueType::Bool => {
                let at = c.at() as u64;
                match c.u8(what)? {
                    0 => Value::Bool(false),
                    1 => Value::Bool(true),
                    found => return Err(FormatError::Bool { key: key.to_owned(), at, found }),
                }
            }
            ValueType::String => Value::String(c.string(what)?),
            ValueType::Array => return Ok(None),
        }))
    }

    /// Reads a value of any type, walking arrays only as far as needed to find their end and check their elements.
    pub(super) fn read(c: &mut Cursor<'a>, t: ValueType, key: &str, depth: u32) -> Result<Self, FormatError> {
        match Self::read_scalar(c, t, key)? {
            Some(value) => Ok(value),
            None => Ok(Value::Array(Array::read(c, key, depth)?)),
        }
    }
}

impl fmt::Display for Value<'_> {
    /// Strings are quoted and arrays show at most their first eight elements.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 8;
        match self {
            Value::F32(v) => write!(f, "{v}"),
            Value::F64(v) => write!(f, "{v}"),
            Value::Bool(v) => write!(f, "{v}"),
            Value::String(s) => write!(f, "{:?}", String::from_utf8_lossy(s)),
            Value::Array(a) => {
                f.write_str("[")?;
                for (i, v) in a.iter().take(SHOWN).enumerate() {
                    write!(f, "{}{v}", if i > 0 { ", " } else { "" })?;
                }
                if a.len() > SHOWN {
                    write!(f, ", … {} in all", a.len())?;
                }
                f.write_str("]")
            }
            integer => write!(f, "{}", integer.as_integer().unwrap_or_default()),
        }
    }
}

/// An array value: a checked view of its encoded elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Array<'a> {
    element: ValueType,
    len: usize,
    payload: &'a [u8],
}

impl<'a> Array<'a> {
    pub(super) const fn from_parts(element: ValueType, len: usize, payload: &'a [u8]) -> Self {
        Self { element, len, payload }
    }

    /// Type of every element.
    pub const fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as encoded in the file.
    pub(super) const fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The elements in order.
    pub fn iter(&self) -> Elements<'a> {
        Elements { cursor: Cursor::new(self.payload), element: self.element, left: self.len }
    }

    /// Reads element type, length and elements, checking each before it is relied on.
    fn read(c: &mut Cursor<'a>, key: &str, depth: u32) -> Result<Self, FormatError> {
        if depth >= MAX_DEPTH {
            return Err(FormatError::Nesting { key: key.to_owned(), at: c.at() as u64, limit: MAX_DEPTH });
        }
        let element = read_type(c, key)?;
        let at = c.at() as u64;
        let found = c.u64(format_args!("array length of metadata key `{key}`"))?;
        let mut limit = c.remaining() / element.min_bytes();
        if element == ValueType::String {
            limit = limit.min(MAX_STRINGS);
        }
        let too_many =
            || FormatError::Count { what: format!("array length of metadata key `{key}`"), at, found, limit };
        let len = usize::try_from(found).ok().filter(|_| found <= limit).ok_or_else(too_many)?;
        let what = format_args!("array of metadata key `{key}`");
        let mut walk = c.clone();
        match element {
            ValueType::String | ValueType::Array | ValueType::Bool => {
                for _ in 0..len {
                    Value::read(&mut walk, element, key, depth + 1)?;
                }
            }
            _ => {
                // Cannot overflow: `len` elements fit into the remaining bytes.
                walk.take(found * element.min_bytes(), what)?;
            }
        }
        let payload = c.take((walk.at() - c.at()) as u64, what)?;
        Ok(Self { element, len, payload })
    }
}

impl<'a> IntoIterator for &Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Elements<'a>;

    fn into_iter(self) -> Elements<'a> {
        self.iter()
    }
}

/// Iterator over an array's elements.
#[derive(Debug, Clone)]
pub struct Elements<'a> {
    cursor: Cursor<'a>,
    element: ValueType,
    left: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        // The elements were checked when the file was opened; should it have changed since, the iteration ends early.
        Value::read(&mut self.cursor, self.element, "", 0).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left))
    }
}

/// Reads a value type.
pub(super) fn read_type(c: &mut Cursor<'_>, key: &str) -> Result<ValueType, FormatError> {
    let at = c.at() as u64;
    let found = c.u32(format_args!("value type of metadata key `{key}`"))?;
    ValueType::from_id(found).ok_or_else(|| FormatError::ValueType { key: key.to_owned(), at, found })
}

/// An array of strings with constant-time access; the strings stay in the file.
///
/// Elements are raw bytes: vocabularies may hold pieces of UTF-8 sequences.
#[derive(Debug, Clone, Copy)]
pub struct Strings<'a> {
    payload: &'a [u8],
    starts: &'a [usize],
}

impl<'a> Strings<'a> {
    pub(super) const fn new(payload: &'a [u8], starts: &'a [usize]) -> Self {
        Self { payload, starts }
    }

    /// Offsets of the strings' first bytes in an array's payload.
    pub(super) fn index(array: &Array<'_>) -> Box<[usize]> {
        let mut cursor = Cursor::new(array.payload);
        let mut starts = Vec::with_capacity(array.len);
        // Bounded by the check in `Array::read`; stops early only if the file changed since.
        while starts.len() < array.len {
            let start = cursor.at() + size_of::<u64>();
            if cursor.string("string").is_err() {
                break;
            }
            starts.push(start);
        }
        starts.into()
    }

    /// Number of strings.
    pub const fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The bytes of string `i`.
    pub fn get(&self, i: usize) -> Option<&'a [u8]> {
        let start = *self.starts.get(i)?;
        let mut c = Cursor::new(self.payload.get(start.checked_sub(size_of::<u64>())?..)?);
        c.string("string").ok()
    }

    /// String `i`, if it is valid UTF-8.
    pub fn get_str(&self, i: usize) -> Option<&'a str> {
        std::str::from_utf8(self.get(i)?).ok()
    }

    /// The bytes of every string in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let this = *self;
        (0..this.len()).map(move |i| this.get(i).unwrap_or_default())
    }
}
