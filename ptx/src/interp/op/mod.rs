//! The decoded instruction: operands are dense indexes into a warp's register files, immediates included.
//!
//! An immediate is a register that is filled once when a warp starts, so that an operand is always one index and the
//! lane loops have one shape. Special registers are handled the same way, except for the clocks.

mod operand;

pub(crate) use operand::{
    Access, Addr, Any, Atom, AtomFn, Cmp, Cvt, D, FloatBin, FloatMode, FloatUn, HalfFn, HalfTy, IntBin, IntUn, Mma,
    MmaTy, Order, P, Pin, PredFn, PrmtMode, R, ReduxFn, Round, Scope, Shfl, ShflMode, Shift, Space, VoteFn,
};

use super::ty::Ty;

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
