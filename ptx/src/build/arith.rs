//! Arithmetic and comparisons.

use super::types::{Float, Int, Number, Ordered, Signed, Widen};
use super::{F32, KernelBuilder, Pred, Reg, S32, Source, Ty, U32, Var};
use crate::ir::{BinaryOp, Cmp, Inst, Operand, Signedness, Subnormals, TernaryOp, Type, UnaryOp};

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident: $trait:ident = $op:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: $trait>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
            self.binary(BinaryOp::$op, a, b)
        }
    )*};
}

macro_rules! unary_f32 {
    ($($(#[$doc:meta])* $name:ident = $op:expr;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name(&self, a: impl Source<F32>) -> Reg<F32> {
            self.unary($op, a)
        }
    )*};
}

macro_rules! compare {
    ($($(#[$doc:meta])* $name:ident = $cmp:ident;)*) => {$(
        $(#[$doc])*
        #[track_caller]
        pub fn $name<T: Ordered>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<Pred> {
            self.compare(Cmp::$cmp, a, b)
        }
    )*};
}

impl KernelBuilder {
    binary! {
        /// `a + b`. Floats are rounded to nearest even, and never contracted with a product.
        add: Number = Add;
        /// `a - b`.
        sub: Number = Sub;
        /// `a · b`; the low half for integers.
        mul: Number = Mul;
        /// The smaller; the number, if one is NaN.
        min: Number = Min;
        /// The larger; the number, if one is NaN.
        max: Number = Max;
        /// High half of the product.
        mul_hi: Int = MulHi;
    }

    /// Quotient, toward zero. About 15 instructions, but two or three for a constant divisor of [`U32`].
    #[track_caller]
    pub fn div<T: Int>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
        match constant::<T>(b.operand()).and_then(|b| self.div_by(a.operand(), b)) {
            Some(quotient) => Reg::new(quotient.id()),
            None => self.binary(BinaryOp::Div, a, b),
        }
    }

    /// Remainder. As expensive as [`div`](Self::div), but one instruction for a constant power of two of [`U32`].
    #[track_caller]
    pub fn rem<T: Int>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
        match constant::<T>(b.operand()).and_then(|b| self.rem_by(a.operand(), b)) {
            Some(remainder) => Reg::new(remainder.id()),
            None => self.binary(BinaryOp::Rem, a, b),
        }
    }

    /// Whole product of 32-bit integers.
    #[track_caller]
    pub fn mul_wide<T: Widen>(&self, a: impl Source<T>, b: impl Source<T>) -> Reg<T::Wide> {
        self.op(|dst| Inst::Binary { op: BinaryOp::MulWide, ty: T::TYPE, dst, a: a.operand(), b: b.operand() })
    }

    /// `a · b + c` of integers, low half.
    #[track_caller]
    pub fn mad<T: Int>(&self, a: impl Source<T>, b: impl Source<T>, c: impl Source<T>) -> Reg<T> {
        self.ternary(TernaryOp::Mad, a, b, c)
    }

    /// High half of `a · b`, plus `c`.
    #[track_caller]
    pub fn mad_hi<T: Int>(&self, a: impl Source<T>, b: impl Source<T>, c: impl Source<T>) -> Reg<T> {
        self.ternary(TernaryOp::MadHi, a, b, c)
    }

    /// `a · b + c`, the product and `c` with 64 bits.
    #[track_caller]
    pub fn mad_wide<T: Widen>(&self, a: impl Source<T>, b: impl Source<T>, c: impl Source<T::Wide>) -> Reg<T::Wide> {
        let (a, b, c) = (a.operand(), b.operand(), c.operand());
        self.op(|dst| Inst::Ternary { op: TernaryOp::MadWide, ty: T::TYPE, dst, a, b, c })
    }

    /// `a · b + c` of floats, rounded once.
    #[track_caller]
    pub fn fma<T: Float>(&self, a: impl Source<T>, b: impl Source<T>, c: impl Source<T>) -> Reg<T> {
        self.ternary(TernaryOp::Fma, a, b, c)
    }

    /// `-a`.
    #[track_caller]
    pub fn neg<T: Signed>(&self, a: impl Source<T>) -> Reg<T> {
        self.unary(UnaryOp::Neg, a)
    }

    /// `|a|`.
    #[track_caller]
    pub fn abs<T: Signed>(&self, a: impl Source<T>) -> Reg<T> {
        self.unary(UnaryOp::Abs, a)
    }

    /// `a / b`, rounded to nearest even. About ten instructions and a slow path.
    #[track_caller]
    pub fn div_rn(&self, a: impl Source<F32>, b: impl Source<F32>) -> Reg<F32> {
        self.binary(BinaryOp::DivRn, a, b)
    }

    /// `a / b` within 2 ulp, over the full range of divisors.
    #[track_caller]
    pub fn div_full(&self, a: impl Source<F32>, b: impl Source<F32>) -> Reg<F32> {
        self.binary(BinaryOp::DivFull, a, b)
    }

    /// `a / b` within 2 ulp, for divisors in 2^-126 … 2^126.
    #[track_caller]
    pub fn div_approx(&self, a: impl Source<F32>, b: impl Source<F32>) -> Reg<F32> {
        self.binary(BinaryOp::DivApprox, a, b)
    }

    unary_f32! {
        /// `2^a`, within 2 ulp.
        ex2 = UnaryOp::Ex2(Subnormals::Keep);
        /// `2^a`, within 2 ulp; subnormal numbers are zero. One instruction of the hardware.
        ex2_ftz = UnaryOp::Ex2(Subnormals::Flush);
        /// `log2 a`, approximately.
        lg2 = UnaryOp::Lg2(Subnormals::Keep);
        /// `1/a`, within 1 ulp.
        rcp_approx = UnaryOp::RcpApprox(Subnormals::Keep);
        /// `1/a`, within 1 ulp; subnormal numbers are zero. One instruction of the hardware.
        rcp_ftz = UnaryOp::RcpApprox(Subnormals::Flush);
        /// `1/a`, rounded to nearest even.
        rcp_rn = UnaryOp::RcpRn;
        /// `1/√a`, approximately.
        rsqrt = UnaryOp::Rsqrt(Subnormals::Keep);
        /// `√a`, approximately.
        sqrt_approx = UnaryOp::SqrtApprox(Subnormals::Keep);
        /// `√a`, rounded to nearest even.
        sqrt_rn = UnaryOp::SqrtRn;
        /// `tanh a`, with an error of 2^-11.
        tanh_approx = UnaryOp::Tanh;
        /// `sin a`, approximately; accurate in -π … π only.
        sin_approx = UnaryOp::Sin;
        /// `cos a`, approximately; accurate in -π … π only.
        cos_approx = UnaryOp::Cos;
    }

    compare! {
        /// `a == b`; false if one is NaN.
        eq = Eq;
        /// `a != b`; false if one is NaN.
        ne = Ne;
        /// `a < b`; false if one is NaN.
        lt = Lt;
        /// `a <= b`; false if one is NaN.
        le = Le;
        /// `a > b`; false if one is NaN.
        gt = Gt;
        /// `a >= b`; false if one is NaN.
        ge = Ge;
    }

    /// Any comparison.
    #[track_caller]
    pub fn compare<T: Ordered>(&self, cmp: Cmp, a: impl Source<T>, b: impl Source<T>) -> Reg<Pred> {
        self.op(|dst| Inst::Compare { cmp, ty: T::TYPE, dst, a: a.operand(), b: b.operand() })
    }

    /// `cond ? a : b`.
    #[track_caller]
    pub fn select<T: Ty>(&self, cond: Reg<Pred>, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
        let cond = cond.id();
        self.op(|dst| Inst::Select { ty: T::TYPE, dst, a: a.operand(), b: b.operand(), cond })
    }

    /// `c` plus the dot product of four signed bytes with four signed bytes.
    #[track_caller]
    pub fn dp4a(&self, a: impl Source<S32>, b: impl Source<S32>, c: impl Source<S32>) -> Reg<S32> {
        self.dot(Signedness::Signed, Signedness::Signed, a.operand(), b.operand(), c.operand())
    }

    /// `c` plus the dot product of four unsigned bytes with four signed bytes.
    #[track_caller]
    pub fn dp4a_us(&self, a: impl Source<U32>, b: impl Source<S32>, c: impl Source<S32>) -> Reg<S32> {
        self.dot(Signedness::Unsigned, Signedness::Signed, a.operand(), b.operand(), c.operand())
    }

    /// `c` plus the dot product of four signed bytes with four unsigned bytes.
    #[track_caller]
    pub fn dp4a_su(&self, a: impl Source<S32>, b: impl Source<U32>, c: impl Source<S32>) -> Reg<S32> {
        self.dot(Signedness::Signed, Signedness::Unsigned, a.operand(), b.operand(), c.operand())
    }

    /// `c` plus the dot product of four unsigned bytes with four unsigned bytes.
    #[track_caller]
    pub fn dp4a_uu(&self, a: impl Source<U32>, b: impl Source<U32>, c: impl Source<U32>) -> Reg<U32> {
        self.dot(Signedness::Unsigned, Signedness::Unsigned, a.operand(), b.operand(), c.operand())
    }

    /// `into += a`.
    #[track_caller]
    pub fn add_into<T: Number>(&self, into: Var<T>, a: impl Source<T>) {
        self.binary_into(BinaryOp::Add, into, a);
    }

    /// `into = max(into, a)`; the number, if one is NaN.
    #[track_caller]
    pub fn max_into<T: Number>(&self, into: Var<T>, a: impl Source<T>) {
        self.binary_into(BinaryOp::Max, into, a);
    }

    /// `into += a · b`, rounded once.
    #[track_caller]
    pub fn fma_into<T: Float>(&self, into: Var<T>, a: impl Source<T>, b: impl Source<T>) {
        let (dst, a, b, c) = (into.id(), a.operand(), b.operand(), into.operand());
        self.inst(Inst::Ternary { op: TernaryOp::Fma, ty: T::TYPE, dst, a, b, c });
    }

    /// `into` plus the dot product of four signed bytes with four signed bytes.
    #[track_caller]
    pub fn dp4a_into(&self, into: Var<S32>, a: impl Source<S32>, b: impl Source<S32>) {
        let (dst, a, b, c) = (into.id(), a.operand(), b.operand(), into.operand());
        self.inst(Inst::Dp4a { a_sign: Signedness::Signed, b_sign: Signedness::Signed, dst, a, b, c });
    }

    /// `into` plus the dot product of four unsigned bytes with four signed bytes.
    #[track_caller]
    pub fn dp4a_us_into(&self, into: Var<S32>, a: impl Source<U32>, b: impl Source<S32>) {
        let (dst, a, b, c) = (into.id(), a.operand(), b.operand(), into.operand());
        self.inst(Inst::Dp4a { a_sign: Signedness::Unsigned, b_sign: Signedness::Signed, dst, a, b, c });
    }

    #[track_caller]
    fn binary_into<T: Ty>(&self, op: BinaryOp, into: Var<T>, a: impl Source<T>) {
        let (dst, a, b) = (into.id(), into.operand(), a.operand());
        self.inst(Inst::Binary { op, ty: T::TYPE, dst, a, b });
    }

    #[track_caller]
    fn dot<T: Ty>(&self, a_sign: Signedness, b_sign: Signedness, a: Operand, b: Operand, c: Operand) -> Reg<T> {
        self.op(|dst| Inst::Dp4a { a_sign, b_sign, dst, a, b, c })
    }

    #[track_caller]
    pub(super) fn unary<T: Ty>(&self, op: UnaryOp, a: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Unary { op, ty: T::TYPE, dst, a: a.operand() })
    }

    #[track_caller]
    pub(super) fn binary<T: Ty>(&self, op: BinaryOp, a: impl Source<T>, b: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Binary { op, ty: T::TYPE, dst, a: a.operand(), b: b.operand() })
    }

    #[track_caller]
    fn ternary<T: Ty>(&self, op: TernaryOp, a: impl Source<T>, b: impl Source<T>, c: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Ternary { op, ty: T::TYPE, dst, a: a.operand(), b: b.operand(), c: c.operand() })
    }
}

/// The number, if `operand` is a constant of `U32`.
fn constant<T: Ty>(operand: Operand) -> Option<u32> {
    let number = operand.as_int().filter(|_| T::TYPE == Type::U32)?;
    u32::try_from(number).ok()
}
