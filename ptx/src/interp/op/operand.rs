//! Operands and modifiers of decoded instructions.

use crate::interp::ty::Ty;

/// A register of at most 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct R(pub(crate) u16);

/// A register of 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct D(pub(crate) u16);

/// A predicate register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct P(pub(crate) u16);

/// A predicate as an input, perhaps negated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) p: P,
    pub(crate) negated: bool,
}

/// Two-operand operations on integers and bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntBin {
    Add,
    Sub,
    MulLo,
    MulHiU,
    MulHiS,
    DivU,
    DivS,
    RemU,
    RemS,
    MinU,
    MinS,
    MaxU,
    MaxS,
    AddSatS,
    SubSatS,
    And,
    Or,
    Xor,
}

/// Shifts: the amount is always 32 bits wide and clamped to the width of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shift {
    Left,
    RightU,
    RightS,
}

/// One-operand operations on integers and bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntUn {
    Neg,
    Abs,
    Not,
    Brev,
    Popc,
    Clz,
}

/// Two-operand operations on floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatBin {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

/// One-operand operations on floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FloatUn {
    Neg,
    Abs,
    Ex2,
    Lg2,
    Rcp,
    Rsqrt,
    Sqrt,
    Sin,
    Cos,
    Tanh,
}

/// The modifiers of float arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FloatMode {
    /// `.ftz`: subnormal inputs and results become zero.
    pub(crate) ftz: bool,
    /// `.sat`: the result is clamped to 0..=1.
    pub(crate) sat: bool,
    /// `.NaN` of min and max: a NaN input wins.
    pub(crate) nan: bool,
}

/// The two half formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfTy {
    F16,
    Bf16,
}

/// Arithmetic on halves, one or two in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HalfFn {
    Bin(FloatBin),
    Un(FloatUn),
    Fma,
}

/// Comparisons; the unordered forms are true when an operand is NaN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cmp {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// How `setp` combines its result with another predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PredFn {
    And,
    Or,
    Xor,
}

/// The rounding of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

/// A conversion between two scalar types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cvt {
    pub(crate) from: Ty,
    pub(crate) to: Ty,
    pub(crate) round: Round,
    /// `.rni`, `.rzi` …: a float is rounded to a whole number.
    pub(crate) whole: bool,
    pub(crate) sat: bool,
    pub(crate) ftz: bool,
    pub(crate) a: Any,
    pub(crate) d: Any,
}

/// A register of either width, with the width of its declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Any {
    R8(R),
    R16(R),
    R32(R),
    R64(D),
}

/// An address: a register of either width plus a constant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addr {
    pub(crate) base: Any,
    pub(crate) offset: i64,
}

/// The state spaces memory instructions reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Global,
    Shared,
}

/// How far an atomic or a fence reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Scope {
    Cta,
    /// `.gpu`, `.cluster` and `.sys`: the whole launch.
    #[default]
    Gpu,
}

/// How an access takes part in synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Order {
    /// Relaxed, volatile or atomic: two such accesses never race.
    pub(crate) strong: bool,
    pub(crate) acquire: bool,
    pub(crate) release: bool,
    pub(crate) scope: Scope,
}

/// A load from, or a store to, shared or global memory: up to four elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) space: Space,
    pub(crate) regs: [Any; 4],
    /// How many of `regs` are meant.
    pub(crate) count: u8,
    /// Bytes of one element.
    pub(crate) bytes: u8,
    /// Loads of `.s8` and `.s16` extend the sign.
    pub(crate) signed: bool,
    /// `.nc`: the data must not change during the launch.
    pub(crate) constant: bool,
    pub(crate) order: Order,
    pub(crate) addr: Addr,
}

/// The operation of an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtomFn {
    AddInt,
    AddF32,
    AddF64,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

/// An atomic read-modify-write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Atom {
    pub(crate) f: AtomFn,
    pub(crate) space: Space,
    pub(crate) wide: bool,
    pub(crate) order: Order,
    /// The old value; `red` has none.
    pub(crate) d: Option<Any>,
    pub(crate) addr: Addr,
    pub(crate) b: Any,
    /// The new value of `cas`; `b` then is what it compares with.
    pub(crate) c: Any,
}

/// The four ways to shuffle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShflMode {
    Up,
    Down,
    Bfly,
    Idx,
}

/// `shfl.sync`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shfl {
    pub(crate) mode: ShflMode,
    pub(crate) d: R,
    pub(crate) p: Option<P>,
    pub(crate) a: R,
    pub(crate) b: R,
    pub(crate) c: R,
    pub(crate) members: R,
}

/// What `vote.sync` computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VoteFn {
    All,
    Any,
    Uni,
}

/// What `redux.sync` computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReduxFn {
    Add,
    MinU,
    MinS,
    MaxU,
    MaxS,
    And,
    Or,
    Xor,
}

/// The modes of `prmt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrmtMode {
    Index,
    F4e,
    B4e,
    Rc8,
    Ecl,
    Ecr,
    Rc16,
}

/// The element type of a matrix instruction's inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MmaTy {
    F16,
    Bf16,
    /// 8-bit integers; whether A and B are signed.
    Int8(bool, bool),
}

/// `mma.sync.aligned.m16n8kK.row.col`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mma {
    pub(crate) ty: MmaTy,
    /// K is 8 (16 for 8-bit types) times this: the blocks of A and B registers.
    pub(crate) blocks: u8,
    pub(crate) sat: bool,
    pub(crate) d: [R; 4],
    pub(crate) a: [R; 4],
    pub(crate) b: [R; 2],
    pub(crate) c: [R; 4],
}
