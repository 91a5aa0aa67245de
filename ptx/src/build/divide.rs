//! Division of unsigned numbers by constants.
//!
//! `ptxas` divides by constants as it does by variables, powers of two included: a reciprocal, two corrections, about 15
//! instructions (seen with 13.0.88). Compilers for C++ replace such divisions before they reach it; so does the builder.

use super::{KernelBuilder, Reg, U32};
use crate::ir::{BinaryOp, Inst, Operand, Type};

/// How to divide by a constant without a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Divider {
    /// `n >> shift`.
    Shift(u32),
    /// `(n · multiplier >> 32) >> shift`.
    Multiply { multiplier: u32, shift: u32 },
    /// The multiplier is `2^32 + multiplier`: with `t = n · multiplier >> 32`, `(((n - t) >> 1) + t) >> shift`.
    MultiplyWide { multiplier: u32, shift: u32 },
}

/// Granlund and Montgomery, "Division by Invariant Integers using Multiplication" (1994), figure 4.2.
fn divider(divisor: u32) -> Option<Divider> {
    if divisor == 0 {
        return None;
    }
    if divisor.is_power_of_two() {
        return Some(Divider::Shift(divisor.trailing_zeros()));
    }
    // ⌈log2 divisor⌉
    let bits = 32 - (divisor - 1).leading_zeros();
    let low = (1_u128 << (32 + bits)) / u128::from(divisor);
    let high = ((1_u128 << (32 + bits)) + (1_u128 << bits)) / u128::from(divisor);
    // The least multiplier that is exact for all n: the two bounds, halved while a number lies between.
    let (mut low, mut high, mut shift) = (low, high, bits);
    while low / 2 < high / 2 && shift > 0 {
        (low, high, shift) = (low / 2, high / 2, shift - 1);
    }
    Some(match u32::try_from(high) {
        Ok(multiplier) => Divider::Multiply { multiplier, shift },
        Err(_) => Divider::MultiplyWide { multiplier: high as u32, shift: shift - 1 },
    })
}

impl KernelBuilder {
    /// `a / divisor` for a constant divisor that is not 0.
    #[track_caller]
    pub(super) fn div_by(&self, a: Operand, divisor: u32) -> Option<Reg<U32>> {
        let step = |op, a: Operand, b: Operand| {
            let ty = if op == BinaryOp::Shl { Type::B32 } else { Type::U32 };
            self.op::<U32>(|dst| Inst::Binary { op, ty, dst, a, b })
        };
        let number = |n: u32| Operand::int(n.into());
        let shifted = |a: Reg<U32>, by: u32| {
            if by == 0 { a } else { step(BinaryOp::Shr, a.id().into(), number(by)) }
        };
        Some(match divider(divisor)? {
            Divider::Shift(by) => step(BinaryOp::Shr, a, number(by)),
            Divider::Multiply { multiplier, shift } => shifted(step(BinaryOp::MulHi, a, number(multiplier)), shift),
            Divider::MultiplyWide { multiplier, shift } => {
                let t = step(BinaryOp::MulHi, a, number(multiplier)).id().into();
                let half = shifted(step(BinaryOp::Sub, a, t), 1);
                shifted(step(BinaryOp::Add, half.id().into(), t), shift)
            }
        })
    }

    /// `a % divisor` for a constant divisor that is not 0.
    #[track_caller]
    pub(super) fn rem_by(&self, a: Operand, divisor: u32) -> Option<Reg<U32>> {
        if divisor.is_power_of_two() {
            let b = Operand::int((divisor - 1).into());
            return Some(self.op(|dst| Inst::Binary { op: BinaryOp::And, ty: Type::B32, dst, a, b }));
        }
        let quotient = self.div_by(a, divisor)?.id().into();
        let b = Operand::int(divisor.into());
        let whole = self.op::<U32>(|dst| Inst::Binary { op: BinaryOp::Mul, ty: Type::U32, dst, a: quotient, b });
        Some(self.op(|dst| Inst::Binary { op: BinaryOp::Sub, ty: Type::U32, dst, a, b: whole.id().into() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// What the instructions compute.
    fn divide(n: u32, divider: Divider) -> u32 {
        let high = |m: u32| ((u64::from(n) * u64::from(m)) >> 32) as u32;
        match divider {
            Divider::Shift(by) => n >> by,
            Divider::Multiply { multiplier, shift } => high(multiplier) >> shift,
            Divider::MultiplyWide { multiplier, shift } => {
                let t = high(multiplier);
                (((n - t) >> 1) + t) >> shift
            }
        }
    }

    fn check(n: u32, divisor: u32) {
        assert_eq!(divide(n, divider(divisor).unwrap()), n / divisor, "{n} / {divisor}");
    }

    #[test]
    fn exact_around_every_multiple() {
        for divisor in (1..2000).chain([641, 65_537, 1 << 31, (1 << 31) + 1, u32::MAX - 1, u32::MAX]) {
            for multiple in [0, 1, 2, 3, u32::MAX / divisor / 2, u32::MAX / divisor].map(|m| m.saturating_mul(divisor))
            {
                for n in [multiple.wrapping_sub(1), multiple, multiple.saturating_add(1), u32::MAX] {
                    check(n, divisor);
                }
            }
        }
        assert_eq!(divider(0), None);
    }

    proptest! {
        #[test]
        fn exact_everywhere(n: u32, divisor in 1_u32..) {
            check(n, divisor);
        }
    }
}
