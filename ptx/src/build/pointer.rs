//! Addresses with an element type and a state space.

use std::marker::PhantomData;

use super::types::{Elem, Int};
use super::{KernelBuilder, Reg, Source, Ty, U32, U64, Var};
use crate::ir::{Address, Base, BinaryOp, Inst, Operand, Space};

/// A state space, as a type.
pub trait SpaceOf: Copy + 'static {
    /// The same as a value.
    const SPACE: Space;
    /// Type of an address.
    type Address: Int;

    /// A constant distance, modulo the size of the space.
    #[doc(hidden)]
    fn distance(bytes: i32) -> Operand;

    /// `index · stride + base`.
    #[doc(hidden)]
    #[track_caller]
    fn index(k: &KernelBuilder, base: Reg<Self::Address>, index: impl Source<U32>, stride: u32) -> Reg<Self::Address>;
}

/// Memory of the device.
#[derive(Debug, Clone, Copy)]
pub struct Global;

/// Memory of the block.
#[derive(Debug, Clone, Copy)]
pub struct SharedSpace;

impl SpaceOf for Global {
    const SPACE: Space = Space::Global;
    type Address = U64;

    fn distance(bytes: i32) -> Operand {
        Operand::int((i64::from(bytes) as u64).into())
    }

    #[track_caller]
    fn index(k: &KernelBuilder, base: Reg<U64>, index: impl Source<U32>, stride: u32) -> Reg<U64> {
        k.mad_wide(index, stride, base)
    }
}

impl SpaceOf for SharedSpace {
    const SPACE: Space = Space::Shared;
    type Address = U32;

    fn distance(bytes: i32) -> Operand {
        Operand::int((bytes as u32).into())
    }

    #[track_caller]
    fn index(k: &KernelBuilder, base: Reg<U32>, index: impl Source<U32>, stride: u32) -> Reg<U32> {
        k.mad(index, stride, base)
    }
}

/// An address of a `T`. Adding constants costs no instruction: they become part of the access.
pub struct Ptr<T, S = Global> {
    base: Base,
    offset: i32,
    to: PhantomData<fn() -> (T, S)>,
}

impl<T, S> Clone for Ptr<T, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, S> Copy for Ptr<T, S> {}

impl<T, S> std::fmt::Debug for Ptr<T, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ptr({:?}{:+})", self.base, self.offset)
    }
}

impl<T: Elem, S: SpaceOf> Ptr<T, S> {
    pub(super) fn new(base: Base) -> Self {
        Self { base, offset: 0, to: PhantomData }
    }

    /// An address that was computed or loaded.
    pub fn from_address(address: Reg<S::Address>) -> Self {
        Self::new(Base::Reg(address.id()))
    }

    /// That many bytes further.
    #[must_use]
    pub fn offset(self, bytes: i32) -> Self {
        Self { offset: self.offset + bytes, ..self }
    }

    /// That many elements further.
    #[must_use]
    pub fn at(self, elements: i32) -> Self {
        self.offset(elements * T::BYTES as i32)
    }

    /// The same address, of other elements.
    #[must_use]
    pub fn cast<U: Elem>(self) -> Ptr<U, S> {
        Ptr { base: self.base, offset: self.offset, to: PhantomData }
    }

    /// As an address of the IR.
    pub fn address(self) -> Address {
        Address { space: S::SPACE, base: self.base, offset: self.offset }
    }
}

/// A pointer that moves.
#[derive(Debug)]
pub struct PtrVar<T, S: SpaceOf = Global> {
    address: Var<S::Address>,
    to: PhantomData<fn() -> T>,
}

impl<T, S: SpaceOf> Clone for PtrVar<T, S> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, S: SpaceOf> Copy for PtrVar<T, S> {}

impl<T: Elem, S: SpaceOf> PtrVar<T, S> {
    /// Where it points whenever it is used.
    pub fn ptr(self) -> Ptr<T, S> {
        Ptr::from_address(self.address.get())
    }
}

impl KernelBuilder {
    /// `index` elements after `ptr`. The constant part of `ptr` stays a part of the access.
    #[track_caller]
    pub fn index<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>, index: impl Source<U32>) -> Ptr<T, S> {
        self.index_by(ptr, index, T::BYTES)
    }

    /// `index · stride` bytes after `ptr`.
    #[track_caller]
    pub fn index_by<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>, index: impl Source<U32>, stride: u32) -> Ptr<T, S> {
        let base = S::index(self, self.base(ptr), index, stride);
        Ptr::from_address(base).offset(ptr.offset)
    }

    /// `row · bytes` after `ptr`, where both are values: the product has 64 bits.
    #[track_caller]
    pub fn row<T: Elem>(&self, ptr: Ptr<T>, row: impl Source<U32>, bytes: impl Source<U32>) -> Ptr<T> {
        let base = self.mad_wide(row, bytes, self.base(ptr));
        Ptr::from_address(base).offset(ptr.offset)
    }

    /// `bytes` after `ptr`.
    #[track_caller]
    pub fn displace<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>, bytes: impl Source<S::Address>) -> Ptr<T, S> {
        let base = self.add(self.base(ptr), bytes);
        Ptr::from_address(base).offset(ptr.offset)
    }

    /// The address in a register.
    #[track_caller]
    pub fn address_of<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>) -> Reg<S::Address> {
        let base = self.base(ptr);
        if ptr.offset == 0 {
            return base;
        }
        let b = S::distance(ptr.offset);
        self.op(|dst| Inst::Binary { op: BinaryOp::Add, ty: S::Address::TYPE, dst, a: base.id().into(), b })
    }

    /// A pointer that moves, and starts at `ptr`.
    #[track_caller]
    pub fn ptr_var<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>) -> PtrVar<T, S> {
        PtrVar { address: self.var(self.address_of(ptr)), to: PhantomData }
    }

    /// Moves a pointer by a number of bytes.
    #[track_caller]
    pub fn step<T: Elem, S: SpaceOf>(&self, ptr: PtrVar<T, S>, bytes: impl Source<S::Address>) {
        self.set(ptr.address, self.add(ptr.address, bytes));
    }

    /// The base in a register.
    #[track_caller]
    fn base<T: Elem, S: SpaceOf>(&self, ptr: Ptr<T, S>) -> Reg<S::Address> {
        match ptr.base {
            Base::Reg(reg) => Reg::new(reg),
            Base::Shared(shared) => self.op(|dst| Inst::AddressOf { dst, shared }),
        }
    }
}
