//! The decoded instruction: operands are dense indexes into a warp's register files, immediates included.
//!
//! An immediate is a register that is filled once when a warp starts, so that an operand is always one index and the
//! lane loops have one shape. Special registers are handled the same way, except for the clocks.

use super::ty::Ty;

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

/// One instruction with what is needed to execute and to report it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Instr {
    pub(crate) guard: Option<Pin>,
    pub(crate) op: Op,
    /// Line of the text.
    pub(crate) line: u32,
    /// Where the lanes of a divergent branch meet again; [`NEVER`] if they do not.
    pub(crate) reconverge: u32,
}

/// No instruction: the reconvergence point of branches whose sides never meet.
pub(crate) const NEVER: u32 = u32::MAX;

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

/// Every instruction of the subset, decoded.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Op {
    Nop,
    Mov32 {
        d: R,
        a: R,
    },
    Mov64 {
        d: D,
        a: D,
    },
    MovPred {
        d: P,
        a: P,
    },
    Pack32 {
        d: R,
        parts: [R; 2],
    },
    Unpack32 {
        parts: [R; 2],
        a: R,
    },
    Pack64 {
        d: D,
        parts: [R; 2],
    },
    Unpack64 {
        parts: [R; 2],
        a: D,
    },
    Pack64x4 {
        d: D,
        parts: [R; 4],
    },
    Unpack64x4 {
        parts: [R; 4],
        a: D,
    },
    Clock32 {
        d: R,
        high: bool,
    },
    Clock64 {
        d: D,
    },
    Int32 {
        f: IntBin,
        d: R,
        a: R,
        b: R,
    },
    Int64 {
        f: IntBin,
        d: D,
        a: D,
        b: D,
    },
    Int16 {
        f: IntBin,
        d: R,
        a: R,
        b: R,
    },
    Shift16 {
        f: Shift,
        d: R,
        a: R,
        n: R,
    },
    Shift32 {
        f: Shift,
        d: R,
        a: R,
        n: R,
    },
    Shift64 {
        f: Shift,
        d: D,
        a: D,
        n: R,
    },
    IntUn16 {
        f: IntUn,
        d: R,
        a: R,
    },
    IntUn32 {
        f: IntUn,
        d: R,
        a: R,
    },
    IntUn64 {
        f: IntUn,
        d: D,
        a: D,
    },
    /// `popc.b64` and `clz.b64`, whose result has 32 bits.
    Count64 {
        f: IntUn,
        d: R,
        a: D,
    },
    Mad16 {
        f: IntBin,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Mad32 {
        f: IntBin,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Mad64 {
        f: IntBin,
        d: D,
        a: D,
        b: D,
        c: D,
    },
    MulWide16 {
        signed: bool,
        d: R,
        a: R,
        b: R,
        c: Option<R>,
    },
    MulWide32 {
        signed: bool,
        d: D,
        a: R,
        b: R,
        c: Option<D>,
    },
    Lop3 {
        lut: u8,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Prmt {
        mode: PrmtMode,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Shf {
        left: bool,
        wrap: bool,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Bfe32 {
        signed: bool,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Bfe64 {
        signed: bool,
        d: D,
        a: D,
        b: R,
        c: R,
    },
    Bfi32 {
        d: R,
        a: R,
        b: R,
        c: R,
        len: R,
    },
    Bfi64 {
        d: D,
        a: D,
        b: D,
        c: R,
        len: R,
    },
    Dp4a {
        a_signed: bool,
        b_signed: bool,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Float32 {
        f: FloatBin,
        mode: FloatMode,
        d: R,
        a: R,
        b: R,
    },
    Float64 {
        f: FloatBin,
        d: D,
        a: D,
        b: D,
    },
    FloatUn32 {
        f: FloatUn,
        mode: FloatMode,
        d: R,
        a: R,
    },
    FloatUn64 {
        f: FloatUn,
        d: D,
        a: D,
    },
    Fma32 {
        mode: FloatMode,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Fma64 {
        d: D,
        a: D,
        b: D,
        c: D,
    },
    Half {
        f: HalfFn,
        ty: HalfTy,
        packed: bool,
        mode: FloatMode,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Setp {
        ty: Ty,
        cmp: Cmp,
        ftz: bool,
        p: Option<P>,
        q: Option<P>,
        a: Any,
        b: Any,
        with: Option<(PredFn, Pin)>,
    },
    Selp32 {
        d: R,
        a: R,
        b: R,
        p: Pin,
    },
    Selp64 {
        d: D,
        a: D,
        b: D,
        p: Pin,
    },
    Slct32 {
        float: bool,
        d: R,
        a: R,
        b: R,
        c: R,
    },
    Slct64 {
        float: bool,
        d: D,
        a: D,
        b: D,
        c: R,
    },
    PredBin {
        f: PredFn,
        d: P,
        a: Pin,
        b: Pin,
    },
    PredNot {
        d: P,
        a: P,
    },
    Cvt(Cvt),
    /// Two floats to one register of halves; `a` becomes the upper half.
    CvtPack {
        ty: HalfTy,
        round: Round,
        sat: bool,
        d: R,
        a: R,
        b: R,
    },
    LdParam {
        offset: u32,
        bytes: u8,
        signed: bool,
        count: u8,
        regs: [Any; 4],
    },
    Ld(Access),
    St(Access),
    Atom(Atom),
    Fence {
        scope: Scope,
    },
    CpAsync {
        to: Addr,
        from: Addr,
        bytes: u8,
        source_bytes: Option<R>,
    },
    CpCommit,
    /// Waits until at most `pending` groups are outstanding; `None` waits for all copies.
    CpWait {
        pending: Option<u32>,
    },
    LdMatrix {
        d: [R; 4],
        count: u8,
        transposed: bool,
        addr: Addr,
    },
    Mma(Mma),
    Shfl(Shfl),
    Vote {
        f: VoteFn,
        d: P,
        a: Pin,
        members: R,
    },
    Ballot {
        d: R,
        a: Pin,
        members: R,
    },
    MatchAny {
        d: R,
        a: Any,
        members: R,
    },
    MatchAll {
        d: R,
        p: Option<P>,
        a: Any,
        members: R,
    },
    Redux {
        f: ReduxFn,
        d: R,
        a: R,
        members: R,
    },
    ActiveMask {
        d: R,
    },
    Bar {
        id: R,
        threads: Option<R>,
        arrive: bool,
    },
    BarWarp {
        members: R,
    },
    Bra {
        target: u32,
        uniform: bool,
    },
    Exit,
    Trap,
    Nanosleep,
}
