//! Types of registers, as types of Rust: an instruction whose operands do not fit does not compile.

use crate::ir::{Class, Type};

mod sealed {
    pub trait Sealed {}
}
use sealed::Sealed;

/// A class of registers.
pub trait ClassOf: Sealed {
    /// The same as a value.
    const CLASS: Class;
}

/// A type of register.
pub trait Ty: Sealed + 'static {
    /// The same as a value.
    const TYPE: Type;
    /// Types of one class may be read as one another without an instruction: [`Reg::as_ty`](super::Reg::as_ty).
    type Class: ClassOf;
}

/// A type of element in memory.
pub trait Elem: Sealed + 'static {
    /// The same as a value.
    const ELEMENT: Type;
    /// Type of register that a load gives and a store takes: a byte travels in 32 bits.
    type Reg: Ty;
    /// Size in bytes.
    const BYTES: u32 = Self::ELEMENT.bytes();
}

/// Types with sums, products, minimum and maximum.
pub trait Number: Ty {}
/// Integers.
pub trait Int: Ordered {}
/// Integers and floats with a sign, and pairs of such.
pub trait Signed: Number {}
/// Floats, and pairs of such: types with `fma`.
pub trait Float: Number {}
/// Types that compare by order.
pub trait Ordered: Number {}
/// Types with logic on bits; predicates are among them.
pub trait Bits: Ty {
    /// Type that logic reads it as.
    const BITS: Type;
}
/// Types that shift.
pub trait Shift: Bits {}
/// Types that count their bits.
pub trait Count: Bits {}
/// Types of 32 bits: what shuffles carry.
pub trait Word: Ty {}
/// Types of 32 or 64 bits that atomics exchange.
pub trait Swap: Elem {
    /// Type that the exchange reads it as.
    const SWAP: Type;
}
/// 32-bit integers, whose product has twice their width.
pub trait Widen: Int {
    /// Type of the product.
    type Wide: Int;
}

macro_rules! classes {
    ($($name:ident = $class:ident),*) => {$(
        #[doc = concat!("Registers of class [`Class::", stringify!($class), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl Sealed for $name {}
        impl ClassOf for $name { const CLASS: Class = Class::$class; }
    )*};
}
classes!(PredClass = Pred, Class16 = B16, Class32 = B32, Class64 = B64, F32Class = F32, F64Class = F64);

macro_rules! types {
    ($($name:ident in $class:ident: $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, Copy)]
        pub enum $name {}
        impl Sealed for $name {}
        impl Ty for $name { const TYPE: Type = Type::$name; type Class = $class; }
    )*};
}
types! {
    Pred in PredClass: "True or false.";
    B16 in Class16: "16 bits.";
    U16 in Class16: "Unsigned number of 16 bits.";
    S16 in Class16: "Signed number of 16 bits.";
    F16 in Class16: "Half-precision float.";
    Bf16 in Class16: "bfloat16.";
    B32 in Class32: "32 bits.";
    U32 in Class32: "Unsigned number of 32 bits.";
    S32 in Class32: "Signed number of 32 bits.";
    F16x2 in Class32: "Two half-precision floats.";
    Bf16x2 in Class32: "Two bfloat16.";
    F32 in F32Class: "Single-precision float.";
    B64 in Class64: "64 bits.";
    U64 in Class64: "Unsigned number of 64 bits.";
    S64 in Class64: "Signed number of 64 bits.";
    F64 in F64Class: "Double-precision float.";
}

macro_rules! elements {
    ($($name:ident),*) => {$(
        impl Elem for $name { const ELEMENT: Type = Type::$name; type Reg = $name; }
    )*};
}
elements!(B16, U16, S16, F16, Bf16, B32, U32, S32, F16x2, Bf16x2, F32, B64, U64, S64, F64);

/// Unsigned number of 8 bits: in memory only, zero-extended to [`U32`] when loaded.
#[derive(Debug, Clone, Copy)]
pub enum U8 {}
impl Sealed for U8 {}
impl Elem for U8 {
    const ELEMENT: Type = Type::U8;
    type Reg = U32;
}

/// Signed number of 8 bits: in memory only, sign-extended to [`S32`] when loaded.
#[derive(Debug, Clone, Copy)]
pub enum S8 {}
impl Sealed for S8 {}
impl Elem for S8 {
    const ELEMENT: Type = Type::S8;
    type Reg = S32;
}

macro_rules! mark {
    ($($trait:ident: $($name:ident),*;)*) => {$($(impl $trait for $name {})*)*};
}
mark! {
    Number: U16, S16, U32, S32, U64, S64, F16, Bf16, F16x2, Bf16x2, F32, F64;
    Int: U16, S16, U32, S32, U64, S64;
    Signed: S16, S32, S64, F16, Bf16, F16x2, Bf16x2, F32, F64;
    Float: F16, Bf16, F16x2, Bf16x2, F32, F64;
    Ordered: U16, S16, U32, S32, U64, S64, F16, Bf16, F32, F64;
    Shift: B16, U16, S16, B32, U32, S32, B64, U64, S64;
    Count: B32, U32, S32, B64, U64, S64;
    Word: B32, U32, S32, F16x2, Bf16x2, F32;
}

macro_rules! bits {
    ($($bits:ident: $($name:ident),*;)*) => {$($(impl Bits for $name { const BITS: Type = Type::$bits; })*)*};
}
bits! {
    Pred: Pred;
    B16: B16, U16, S16, F16, Bf16;
    B32: B32, U32, S32, F16x2, Bf16x2;
    B64: B64, U64, S64;
}

macro_rules! swap {
    ($($bits:ident: $($name:ident),*;)*) => {$($(impl Swap for $name { const SWAP: Type = Type::$bits; })*)*};
}
swap! {
    B32: B32, U32, S32, F32;
    B64: B64, U64, S64, F64;
}

impl Widen for U32 {
    type Wide = U64;
}
impl Widen for S32 {
    type Wide = S64;
}
