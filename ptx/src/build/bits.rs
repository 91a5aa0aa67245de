//! Bits: logic, shifts, fields, bytes.

use super::types::{Bits, Count, Shift, Word};
use super::{B32, KernelBuilder, Reg, S32, S64, Source, Ty, U32, U64};
use crate::ir::{BinaryOp, Inst, Type, UnaryOp};

/// Integers that have bit fields.
pub trait Field: Bits {}
impl Field for U32 {}
impl Field for S32 {}
impl Field for U64 {}
impl Field for S64 {}

macro_rules! logic {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: Bits>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
            self.op(|dst| Inst::Binary { op: BinaryOp::$op, ty: T::BITS, dst, a: a.operand(), b: b.operand() })
        }
    )*};
}

macro_rules! count {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: Count>(&self, a: impl Source<T>) -> Reg<U32> {
            self.op(|dst| Inst::Unary { op: UnaryOp::$op, ty: T::BITS, dst, a: a.operand() })
        }
    )*};
}

impl KernelBuilder {
    logic! {
        /// Bits set in both; of predicates, both.
        and = And;
        /// Bits set in one or both; of predicates, one or both.
        or = Or;
        /// Bits set in one; of predicates, one.
        xor = Xor;
    }

    count! {
        /// Number of set bits.
        popc = Popc;
        /// Number of zero bits before the highest set one.
        clz = Clz;
    }

    /// Every bit inverted; of a predicate, the opposite.
    #[track_caller]
    pub fn not<T: Bits>(&self, a: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Unary { op: UnaryOp::Not, ty: T::BITS, dst, a: a.operand() })
    }

    /// Bits in reverse order.
    #[track_caller]
    pub fn brev<T: Count>(&self, a: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Unary { op: UnaryOp::Brev, ty: T::BITS, dst, a: a.operand() })
    }

    /// `a << by`; zero from the width on.
    #[track_caller]
    pub fn shl<T: Shift>(&self, a: impl Source<T>, by: impl Source<U32>) -> Reg<T> {
        self.op(|dst| Inst::Binary { op: BinaryOp::Shl, ty: T::BITS, dst, a: a.operand(), b: by.operand() })
    }

    /// `a >> by`, with the sign for signed types; zero or the sign from the width on.
    #[track_caller]
    pub fn shr<T: Shift>(&self, a: impl Source<T>, by: impl Source<U32>) -> Reg<T> {
        self.op(|dst| Inst::Binary { op: BinaryOp::Shr, ty: T::TYPE, dst, a: a.operand(), b: by.operand() })
    }

    /// `len` bits from bit `start`, with the sign for signed types.
    #[track_caller]
    pub fn bfe<T: Field>(&self, a: impl Source<T>, start: impl Source<U32>, len: impl Source<U32>) -> Reg<T> {
        let (a, start, len) = (a.operand(), start.operand(), len.operand());
        self.op(|dst| Inst::ExtractBits { ty: T::TYPE, dst, a, start, len })
    }

    /// `base` with `len` bits from bit `start` replaced by the low bits of `field`.
    #[track_caller]
    pub fn bfi<T: Field>(
        &self,
        field: impl Source<T>,
        base: impl Source<T>,
        start: impl Source<U32>,
        len: impl Source<U32>,
    ) -> Reg<T> {
        let (field, base, start, len) = (field.operand(), base.operand(), start.operand(), len.operand());
        self.op(|dst| Inst::InsertBits { ty: T::BITS, dst, field, base, start, len })
    }

    /// Four bytes of the eight in `{b, a}` (`a` holds bytes 0 to 3), picked by the four low nibbles of `selector`. Bit 3 of a
    /// nibble spreads the sign of the byte.
    #[track_caller]
    pub fn prmt<T: Word>(&self, a: impl Source<T>, b: impl Source<T>, selector: impl Source<U32>) -> Reg<B32> {
        let (a, b, selector) = (a.operand(), b.operand(), selector.operand());
        self.op(|dst| Inst::Permute { dst, a, b, selector })
    }

    /// Any function of three bits, bit by bit. `table` is what the function gives for `a = 0xF0`, `b = 0xCC`, `c = 0xAA`.
    #[track_caller]
    pub fn lop3<T: Word + Bits>(&self, a: impl Source<T>, b: impl Source<T>, c: impl Source<T>, table: u8) -> Reg<T> {
        let (a, b, c) = (a.operand(), b.operand(), c.operand());
        self.op(|dst| Inst::Logic3 { dst, a, b, c, table })
    }

    /// High word of `{high, low} << (by % 32)`.
    #[track_caller]
    pub fn shf_left<T: Word + Bits>(&self, low: impl Source<T>, high: impl Source<T>, by: impl Source<U32>) -> Reg<T> {
        let (low, high, amount) = (low.operand(), high.operand(), by.operand());
        self.op(|dst| Inst::FunnelShift { left: true, dst, low, high, amount })
    }

    /// Low word of `{high, low} >> (by % 32)`.
    #[track_caller]
    pub fn shf_right<T: Word + Bits>(&self, low: impl Source<T>, high: impl Source<T>, by: impl Source<U32>) -> Reg<T> {
        let (low, high, amount) = (low.operand(), high.operand(), by.operand());
        self.op(|dst| Inst::FunnelShift { left: false, dst, low, high, amount })
    }

    /// The bits of a value of 32 bits, as another type of 32 bits.
    #[track_caller]
    pub fn bitcast<T: Word, U: Word>(&self, a: Reg<T>) -> Reg<U> {
        self.op(|dst| Inst::Mov { ty: Type::B32, dst, src: a.operand() })
    }

    /// Joins two halves of 16 bits, the low one first.
    #[track_caller]
    pub fn pack16<H: Ty<Class = super::types::Class16>, T: Word + Bits>(&self, low: Reg<H>, high: Reg<H>) -> Reg<T> {
        self.op(|dst| Inst::Pack { ty: Type::B32, dst, parts: [low.id(), high.id()] })
    }

    /// Splits 32 bits into halves, the low one first.
    #[track_caller]
    pub fn unpack16<T: Word, H: Ty<Class = super::types::Class16>>(&self, a: Reg<T>) -> [Reg<H>; 2] {
        let dst = [self.fresh::<H>(), self.fresh()];
        self.inst(Inst::Unpack { ty: Type::B32, dst: dst.map(Reg::id), src: a.id() });
        dst
    }

    /// Joins two halves of 32 bits, the low one first.
    #[track_caller]
    pub fn pack32<T: Shift + Ty<Class = super::types::Class64>>(&self, low: Reg<B32>, high: Reg<B32>) -> Reg<T> {
        self.op(|dst| Inst::Pack { ty: Type::B64, dst, parts: [low.id(), high.id()] })
    }

    /// Splits 64 bits into halves, the low one first.
    #[track_caller]
    pub fn unpack32<T: Ty<Class = super::types::Class64>>(&self, a: Reg<T>) -> [Reg<B32>; 2] {
        let dst = [self.fresh::<B32>(), self.fresh()];
        self.inst(Inst::Unpack { ty: Type::B64, dst: dst.map(Reg::id), src: a.id() });
        dst
    }
}
