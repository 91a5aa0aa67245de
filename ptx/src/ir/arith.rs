//! Arithmetic operations.

/// What an approximation does with subnormal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subnormals {
    /// Computes with them, which costs a scaling before and after.
    Keep,
    /// Takes them as zero and returns zero for them (`.ftz`): one instruction of the hardware.
    Flush,
}

/// Operations of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-a`.
    Neg,
    /// `|a|`.
    Abs,
    /// Every bit inverted.
    Not,
    /// Number of set bits, as `.u32`.
    Popc,
    /// Number of leading zero bits, as `.u32`.
    Clz,
    /// Bits in reverse order.
    Brev,
    /// `2^a`, approximately.
    Ex2(Subnormals),
    /// `log2 a`, approximately.
    Lg2(Subnormals),
    /// `1/a`, approximately.
    RcpApprox(Subnormals),
    /// `1/a`, rounded to nearest even.
    RcpRn,
    /// `1/√a`, approximately.
    Rsqrt(Subnormals),
    /// `√a`, approximately.
    SqrtApprox(Subnormals),
    /// `√a`, rounded to nearest even.
    SqrtRn,
    /// `tanh a`, approximately.
    Tanh,
    /// `sin a`, approximately.
    Sin,
    /// `cos a`, approximately.
    Cos,
}

/// Operations of two operands of one type. Sums and products of floats are always written with `.rn`: without it the
/// assembler is free to contract a product and a sum into one `fma`, and results would depend on its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a · b`; for integers the low half.
    Mul,
    /// High half of the product of integers.
    MulHi,
    /// Whole product of 32-bit integers, in 64 bits.
    MulWide,
    /// Quotient of integers, toward zero.
    Div,
    /// Remainder of integers.
    Rem,
    /// Quotient of f32, within 2 ulp for divisors in 2^-126 … 2^126 (`div.approx`).
    DivApprox,
    /// Quotient of f32, within 2 ulp over the full range (`div.full`).
    DivFull,
    /// Quotient of floats, rounded to nearest even.
    DivRn,
    /// The smaller; for floats the number if the other is NaN.
    Min,
    /// The larger; for floats the number if the other is NaN.
    Max,
    /// Bits set in both.
    And,
    /// Bits set in one or both.
    Or,
    /// Bits set in one.
    Xor,
    /// Shift to the left; the amount is `.u32`, and amounts over the width give 0.
    Shl,
    /// Shift to the right, arithmetic for signed types; the amount is `.u32`.
    Shr,
}

/// Operations of three operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TernaryOp {
    /// `a · b + c`, low half.
    Mad,
    /// High half of `a · b`, plus `c`.
    MadHi,
    /// `a · b + c`, where the product and `c` are 64 bits wide and `a`, `b` 32.
    MadWide,
    /// `a · b + c` of floats, rounded once, to nearest even.
    Fma,
}

/// How two numbers are compared. For floats these are the ordered comparisons (false if one is NaN), except the last
/// ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less.
    Lt,
    /// Less or equal.
    Le,
    /// Greater.
    Gt,
    /// Greater or equal.
    Ge,
    /// Equal, or one is NaN.
    Equ,
    /// Not equal, or one is NaN.
    Neu,
    /// Less, or one is NaN.
    Ltu,
    /// Less or equal, or one is NaN.
    Leu,
    /// Greater, or one is NaN.
    Gtu,
    /// Greater or equal, or one is NaN.
    Geu,
    /// Neither is NaN.
    Num,
    /// One is NaN.
    Nan,
}

impl Cmp {
    /// All comparisons.
    pub const ALL: [Self; 14] = [
        Self::Eq,
        Self::Ne,
        Self::Lt,
        Self::Le,
        Self::Gt,
        Self::Ge,
        Self::Equ,
        Self::Neu,
        Self::Ltu,
        Self::Leu,
        Self::Gtu,
        Self::Geu,
        Self::Num,
        Self::Nan,
    ];

    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::Gt => "gt",
            Self::Ge => "ge",
            Self::Equ => "equ",
            Self::Neu => "neu",
            Self::Ltu => "ltu",
            Self::Leu => "leu",
            Self::Gtu => "gtu",
            Self::Geu => "geu",
            Self::Num => "num",
            Self::Nan => "nan",
        }
    }

    /// Whether it asks about NaN, so that it is for floats only.
    pub fn is_float_only(self) -> bool {
        !matches!(self, Self::Eq | Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge)
    }
}

/// Rounding of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// To a float: nearest, ties to even.
    Rn,
    /// To a float: toward zero.
    Rz,
    /// To a float: toward −∞.
    Rm,
    /// To a float: toward +∞.
    Rp,
    /// To a whole number: nearest, ties to even.
    Rni,
    /// To a whole number: toward zero.
    Rzi,
    /// To a whole number: toward −∞.
    Rmi,
    /// To a whole number: toward +∞.
    Rpi,
}

impl Rounding {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rn => "rn",
            Self::Rz => "rz",
            Self::Rm => "rm",
            Self::Rp => "rp",
            Self::Rni => "rni",
            Self::Rzi => "rzi",
            Self::Rmi => "rmi",
            Self::Rpi => "rpi",
        }
    }

    /// Whether it rounds to a whole number.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Rni | Self::Rzi | Self::Rmi | Self::Rpi)
    }
}
