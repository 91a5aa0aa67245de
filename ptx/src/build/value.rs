//! Handles of registers, and what may stand where a register is read.

use std::marker::PhantomData;

use super::types::{B16, B32, B64, F32, F64, S16, S32, S64, Ty, U16, U32, U64};
use crate::ir::{Imm, Operand, RegId};

/// A value: a register that is written once.
pub struct Reg<T> {
    id: RegId,
    ty: PhantomData<fn() -> T>,
}

/// A variable: a register that [`set`](super::KernelBuilder::set) writes again.
pub struct Var<T> {
    id: RegId,
    ty: PhantomData<fn() -> T>,
}

macro_rules! handle {
    ($name:ident) => {
        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }
        impl<T> Copy for $name<T> {}
        impl<T> std::fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.id.0)
            }
        }
        impl<T: Ty> $name<T> {
            pub(super) fn new(id: RegId) -> Self {
                Self { id, ty: PhantomData }
            }

            /// The register in the IR.
            pub fn id(self) -> RegId {
                self.id
            }

            /// The same register, read as another type of its class. Costs no instruction.
            pub fn as_ty<U: Ty<Class = T::Class>>(self) -> $name<U> {
                $name::new(self.id)
            }
        }
        impl<T: Ty> Source<T> for $name<T> {
            fn operand(self) -> Operand {
                self.id.into()
            }
        }
    };
}
handle!(Reg);
handle!(Var);

impl<T: Ty> Var<T> {
    /// The variable, as a value that changes whenever it is set.
    pub fn get(self) -> Reg<T> {
        Reg::new(self.id)
    }
}

/// What may stand where a `T` is read: a [`Reg`], a [`Var`], or a number of Rust.
pub trait Source<T: Ty>: Copy {
    /// As an operand of the IR.
    fn operand(self) -> Operand;
}

macro_rules! literals {
    ($($rust:ident => $($ty:ident),*;)*) => {$($(
        impl Source<$ty> for $rust {
            fn operand(self) -> Operand { Operand::int(i128::from(self)) }
        }
    )*)*};
}
literals! {
    u16 => U16, B16;
    i16 => S16;
    u32 => U32, B32;
    i32 => S32;
    u64 => U64, B64;
    i64 => S64;
}

impl Source<F32> for f32 {
    fn operand(self) -> Operand {
        Operand::Imm(Imm::F32(self.to_bits()))
    }
}

impl Source<F64> for f64 {
    fn operand(self) -> Operand {
        Operand::Imm(Imm::F64(self.to_bits()))
    }
}
