//! Rust values as metadata values: their types and their bytes.

use super::value::{Value, ValueType};

/// A Rust value that can be written as a metadata value.
pub trait WriteValue {
    /// Its type in the file.
    fn value_type(&self) -> ValueType;

    /// Appends its bytes: little-endian; strings and arrays with their lengths.
    fn encode(&self, out: &mut Vec<u8>);
}

/// A Rust type that can be an array's element: its type in the file does not depend on the value.
pub trait WriteElement: WriteValue {
    /// Its type in the file.
    const TYPE: ValueType;
}

macro_rules! write_scalar {
    ($($type:ty = $variant:ident),*) => {
        $(impl WriteValue for $type {
            fn value_type(&self) -> ValueType {
                ValueType::$variant
            }

            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl WriteElement for $type {
            const TYPE: ValueType = ValueType::$variant;
        })*
    };
}

write_scalar!(u8 = U8, i8 = I8, u16 = U16, i16 = I16, u32 = U32, i32 = I32, u64 = U64, i64 = I64, f32 = F32, f64 = F64);

macro_rules! write_by {
    ($($type:ty = $value_type:expr, |$self:ident, $out:ident| $encode:expr;)*) => {
        $(impl WriteValue for $type {
            fn value_type(&self) -> ValueType {
                $value_type
            }

            fn encode(&$self, $out: &mut Vec<u8>) {
                $encode
            }
        }

        impl WriteElement for $type {
            const TYPE: ValueType = $value_type;
        })*
    };
}

write_by! {
    bool = ValueType::Bool, |self, out| out.push(u8::from(*self));
    &str = ValueType::String, |self, out| encode_string(self.as_bytes(), out);
    String = ValueType::String, |self, out| encode_string(self.as_bytes(), out);
}

fn encode_string(s: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(s.len() as u64).to_le_bytes());
    out.extend_from_slice(s);
}

fn encode_array<T: WriteValue>(element: ValueType, items: &[T], out: &mut Vec<u8>) {
    out.extend_from_slice(&(element as u32).to_le_bytes());
    out.extend_from_slice(&(items.len() as u64).to_le_bytes());
    for item in items {
        item.encode(out);
    }
}

impl<T: WriteElement> WriteValue for &[T] {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_array(T::TYPE, self, out);
    }
}

impl<T: WriteElement> WriteElement for &[T] {
    const TYPE: ValueType = ValueType::Array;
}

impl<T: WriteElement> WriteValue for Vec<T> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_array(T::TYPE, self, out);
    }
}

impl<T: WriteElement> WriteElement for Vec<T> {
    const TYPE: ValueType = ValueType::Array;
}

impl WriteValue for Value<'_> {
    fn value_type(&self) -> ValueType {
        Value::value_type(self)
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Value::U8(v) => v.encode(out),
            Value::I8(v) => v.encode(out),
            Value::U16(v) => v.encode(out),
            Value::I16(v) => v.encode(out),
            Value::U32(v) => v.encode(out),
            Value::I32(v) => v.encode(out),
            Value::F32(v) => v.encode(out),
            Value::Bool(v) => v.encode(out),
            Value::String(s) => encode_string(s, out),
            Value::U64(v) => v.encode(out),
            Value::I64(v) => v.encode(out),
            Value::F64(v) => v.encode(out),
            // A view of encoded elements: copied as it is.
            Value::Array(a) => {
                out.extend_from_slice(&(a.element_type() as u32).to_le_bytes());
                out.extend_from_slice(&(a.len() as u64).to_le_bytes());
                out.extend_from_slice(a.payload());
            }
        }
    }
}

/// Values of one stated type as an array.
pub(super) struct ValueArray<'v>(pub(super) ValueType, pub(super) &'v [Value<'v>]);

impl WriteValue for ValueArray<'_> {
    fn value_type(&self) -> ValueType {
        ValueType::Array
    }

    fn encode(&self, out: &mut Vec<u8>) {
        encode_array(self.0, self.1, out);
    }
}
