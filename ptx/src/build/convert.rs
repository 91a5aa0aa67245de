//! Conversions of values.

use super::types::{Int, Ordered};
use super::{B32, Bf16, Bf16x2, F16, F16x2, F32, KernelBuilder, Reg, S32, Source, Ty, U32, U64};
use crate::ir::{Inst, Rounding, Type};

impl KernelBuilder {
    /// An integer as a float, rounded to nearest even.
    #[track_caller]
    pub fn to_f32<T: Int>(&self, a: impl Source<T>) -> Reg<F32> {
        self.cvt(Some(Rounding::Rn), a)
    }

    /// A float as an integer, rounded as `rounding` says and limited to the range of the integer; NaN is 0.
    #[track_caller]
    pub fn to_int<T: Int>(&self, a: impl Source<F32>, rounding: Rounding) -> Reg<T> {
        self.cvt(Some(rounding), a)
    }

    /// A float rounded to a whole number.
    #[track_caller]
    pub fn round(&self, a: impl Source<F32>, rounding: Rounding) -> Reg<F32> {
        self.cvt(Some(rounding), a)
    }

    /// A float as a signed byte in 32 bits, rounded to nearest even and limited to -128 … 127.
    #[track_caller]
    pub fn to_s8(&self, a: impl Source<F32>) -> Reg<S32> {
        self.op(|dst| Inst::Convert {
            to: Type::S8,
            from: Type::F32,
            rounding: Some(Rounding::Rni),
            saturate: true,
            dst,
            src: a.operand(),
        })
    }

    /// The lowest byte, with its sign.
    #[track_caller]
    pub fn sign_extend8(&self, a: impl Source<S32>) -> Reg<S32> {
        let (to, from) = (Type::S32, Type::S8);
        self.op(|dst| Inst::Convert { to, from, rounding: None, saturate: false, dst, src: a.operand() })
    }

    /// Between integers: extends with zeros or the sign of `T`, or cuts.
    #[track_caller]
    pub fn int_cast<T: Int, U: Int>(&self, a: impl Source<T>) -> Reg<U> {
        self.cvt(None, a)
    }

    /// With zeros in the high half.
    #[track_caller]
    pub fn widen(&self, a: impl Source<U32>) -> Reg<U64> {
        self.int_cast::<U32, U64>(a)
    }

    /// A half-precision float, exactly.
    #[track_caller]
    pub fn f16_to_f32(&self, a: impl Source<F16>) -> Reg<F32> {
        self.cvt(None, a)
    }

    /// Two half-precision floats, exactly, the low one first.
    #[track_caller]
    pub fn f16x2_to_f32(&self, a: Reg<F16x2>) -> [Reg<F32>; 2] {
        self.unpack16::<F16x2, F16>(a).map(|half| self.f16_to_f32(half))
    }

    /// To half precision, rounded to nearest even.
    #[track_caller]
    pub fn to_f16(&self, a: impl Source<F32>) -> Reg<F16> {
        self.cvt(Some(Rounding::Rn), a)
    }

    /// Two floats to half precision, rounded to nearest even.
    #[track_caller]
    pub fn to_f16x2(&self, low: impl Source<F32>, high: impl Source<F32>) -> Reg<F16x2> {
        self.op(|dst| Inst::ConvertPair { to: Type::F16x2, dst, high: high.operand(), low: low.operand() })
    }

    /// Two bfloat16, exactly, the low one first. A bfloat16 is the high half of a float, so this needs no conversion and
    /// no target.
    #[track_caller]
    pub fn bf16x2_to_f32(&self, a: Reg<Bf16x2>) -> [Reg<F32>; 2] {
        let bits = a.as_ty::<B32>();
        [self.bitcast(self.shl(bits, 16)), self.bitcast(self.and(bits, 0xffff_0000))]
    }

    /// To bfloat16, rounded to nearest even.
    #[track_caller]
    pub fn to_bf16(&self, a: impl Source<F32>) -> Reg<Bf16> {
        self.cvt(Some(Rounding::Rn), a)
    }

    /// Two floats to bfloat16, rounded to nearest even.
    #[track_caller]
    pub fn to_bf16x2(&self, low: impl Source<F32>, high: impl Source<F32>) -> Reg<Bf16x2> {
        self.op(|dst| Inst::ConvertPair { to: Type::Bf16x2, dst, high: high.operand(), low: low.operand() })
    }

    /// A constant of half precision: instructions of f16 take no numbers.
    #[track_caller]
    pub fn f16(&self, value: half::f16) -> Reg<F16> {
        self.value::<super::B16>(value.to_bits()).as_ty()
    }

    /// A constant pair of half precision.
    #[track_caller]
    pub fn f16x2(&self, low: half::f16, high: half::f16) -> Reg<F16x2> {
        self.value::<B32>(u32::from(high.to_bits()) << 16 | u32::from(low.to_bits())).as_ty()
    }

    /// Any conversion between one number and another.
    #[track_caller]
    pub fn cvt<T: Ordered, U: Ordered>(&self, rounding: Option<Rounding>, a: impl Source<T>) -> Reg<U> {
        self.op(|dst| Inst::Convert {
            to: <U as Ty>::TYPE,
            from: <T as Ty>::TYPE,
            rounding,
            saturate: false,
            dst,
            src: a.operand(),
        })
    }
}
