//! Instructions.

use super::{
    Address, Atomic, BinaryOp, Cache, Cmp, CopyAsync, FenceKind, L2Priority, Load, LoadMatrix, MatchMode, Mma, Operand,
    ParamId, ReduceOp, RegId, Rounding, Scope, SharedId, Shuffle, Signedness, Special, Store, TernaryOp, Type, UnaryOp,
    VoteMode,
};

/// One instruction. Which types an operation takes is said by [`valid`](crate::valid).
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // fields are named as in the PTX manual: `dst` is written, the others are read
pub enum Inst {
    /// Copies, also between classes of one width (`.b32`, `.b64`).
    Mov { ty: Type, dst: RegId, src: Operand },
    /// Reads a special register.
    ReadSpecial { dst: RegId, special: Special },
    /// Reads a parameter; a pointer becomes an address in global memory.
    LoadParam { dst: RegId, param: ParamId },
    /// Address of an allocation in the space of shared memory, 32 bits.
    AddressOf { dst: RegId, shared: SharedId },
    /// Joins two halves into `ty` (`.b32`, `.b64`); the low one first.
    Pack { ty: Type, dst: RegId, parts: [RegId; 2] },
    /// Splits `ty` into its halves; the low one first.
    Unpack { ty: Type, dst: [RegId; 2], src: RegId },
    /// One operand.
    Unary { op: UnaryOp, ty: Type, dst: RegId, a: Operand },
    /// Two operands.
    Binary { op: BinaryOp, ty: Type, dst: RegId, a: Operand, b: Operand },
    /// Three operands.
    Ternary { op: TernaryOp, ty: Type, dst: RegId, a: Operand, b: Operand, c: Operand },
    /// `setp`: sets a predicate.
    Compare { cmp: Cmp, ty: Type, dst: RegId, a: Operand, b: Operand },
    /// `selp`: `cond ? a : b`.
    Select { ty: Type, dst: RegId, a: Operand, b: Operand, cond: RegId },
    /// `bfe`: a field of `len` bits from bit `start`, sign-extended for signed types.
    ExtractBits { ty: Type, dst: RegId, a: Operand, start: Operand, len: Operand },
    /// `bfi`: `base` with `len` bits from bit `start` replaced by the low bits of `field`.
    InsertBits { ty: Type, dst: RegId, field: Operand, base: Operand, start: Operand, len: Operand },
    /// `prmt`: four bytes picked from the eight of `{b, a}` by the nibbles of `selector`.
    Permute { dst: RegId, a: Operand, b: Operand, selector: Operand },
    /// `lop3`: any function of three bits, given by its table.
    Logic3 { dst: RegId, a: Operand, b: Operand, c: Operand, table: u8 },
    /// `shf.wrap`: 32 bits of `{high, low}`, shifted to the left (its high word) or to the right (its low word).
    FunnelShift { left: bool, dst: RegId, low: Operand, high: Operand, amount: Operand },
    /// `dp4a`: `c` plus the dot product of two vectors of four bytes.
    Dp4a { a_sign: Signedness, b_sign: Signedness, dst: RegId, a: Operand, b: Operand, c: Operand },
    /// `cvt`.
    Convert { to: Type, from: Type, rounding: Option<Rounding>, saturate: bool, dst: RegId, src: Operand },
    /// `cvt.rn` of two f32 to a packed pair.
    ConvertPair { to: Type, dst: RegId, high: Operand, low: Operand },
    /// `ld`.
    Load(Load),
    /// `st`.
    Store(Store),
    /// `atom` and `red`.
    Atomic(Atomic),
    /// `cp.async`.
    CopyAsync(CopyAsync),
    /// Closes a group of asynchronous copies.
    CommitGroup,
    /// Waits until at most `pending` groups of the thread are under way.
    WaitGroup { pending: u32 },
    /// Fetches a line of global memory into a cache.
    Prefetch { cache: Cache, at: Address },
    /// Makes a cache policy for [`CacheHints::policy`](super::CacheHints::policy).
    CreatePolicy { dst: RegId, priority: L2Priority },
    /// `ldmatrix`.
    LoadMatrix(LoadMatrix),
    /// `mma.sync`.
    Mma(Mma),
    /// `fence`.
    Fence { kind: FenceKind, scope: Scope },
    /// `shfl.sync`.
    Shuffle(Shuffle),
    /// `vote.sync`. `dst` is `.b32` for a ballot, else a predicate.
    Vote { mode: VoteMode, dst: RegId, pred: RegId, mask: Operand },
    /// `match.sync` of 32 or 64 bits.
    Match { mode: MatchMode, ty: Type, dst: RegId, value: Operand, mask: Operand },
    /// `redux.sync`.
    Reduce { op: ReduceOp, ty: Type, dst: RegId, value: Operand, mask: Operand },
    /// Lanes that run this instruction together.
    ActiveMask { dst: RegId },
    /// `bar.sync`: waits for the block, or for `threads` of it.
    Barrier { id: u32, threads: Option<u32> },
    /// `bar.arrive`: counts toward a barrier without waiting.
    Arrive { id: u32, threads: u32 },
    /// `bar.warp.sync`.
    WarpBarrier { mask: Operand },
    /// `griddepcontrol.wait`: waits for the kernels that this one depends on.
    WaitForDependencies,
    /// `griddepcontrol.launch_dependents`: dependent kernels may begin once all blocks have said so or ended.
    LaunchDependents,
    /// Sleeps for about this many nanoseconds.
    Nanosleep { ns: Operand },
    /// Ends the kernel with an error.
    Trap,
    /// No instruction: a promise that `reg` is always a multiple of a power of two, for the check of alignments.
    AssumeMultiple { reg: RegId, of: u32 },
}

impl Inst {
    /// First word of its text, for messages.
    pub fn opcode(&self) -> &'static str {
        match self {
            Self::Mov { .. }
            | Self::ReadSpecial { .. }
            | Self::AddressOf { .. }
            | Self::Pack { .. }
            | Self::Unpack { .. } => "mov",
            Self::LoadParam { .. } => "ld.param",
            Self::Unary { op, .. } => op.name(),
            Self::Binary { op, .. } => op.name(),
            Self::Ternary { op, .. } => op.name(),
            Self::Compare { .. } => "setp",
            Self::Select { .. } => "selp",
            Self::ExtractBits { .. } => "bfe",
            Self::InsertBits { .. } => "bfi",
            Self::Permute { .. } => "prmt",
            Self::Logic3 { .. } => "lop3",
            Self::FunnelShift { .. } => "shf",
            Self::Dp4a { .. } => "dp4a",
            Self::Convert { .. } | Self::ConvertPair { .. } => "cvt",
            Self::Load(_) => "ld",
            Self::Store(_) => "st",
            Self::Atomic(atomic) => {
                if atomic.dst.is_some() {
                    "atom"
                } else {
                    "red"
                }
            }
            Self::CopyAsync(_) => "cp.async",
            Self::CommitGroup => "cp.async.commit_group",
            Self::WaitGroup { .. } => "cp.async.wait_group",
            Self::Prefetch { .. } => "prefetch",
            Self::CreatePolicy { .. } => "createpolicy",
            Self::LoadMatrix(_) => "ldmatrix",
            Self::Mma(_) => "mma.sync",
            Self::Fence { .. } => "fence",
            Self::Shuffle(_) => "shfl.sync",
            Self::Vote { .. } => "vote.sync",
            Self::Match { .. } => "match.sync",
            Self::Reduce { .. } => "redux.sync",
            Self::ActiveMask { .. } => "activemask",
            Self::Barrier { .. } => "bar.sync",
            Self::Arrive { .. } => "bar.arrive",
            Self::WarpBarrier { .. } => "bar.warp.sync",
            Self::WaitForDependencies => "griddepcontrol.wait",
            Self::LaunchDependents => "griddepcontrol.launch_dependents",
            Self::Nanosleep { .. } => "nanosleep",
            Self::Trap => "trap",
            Self::AssumeMultiple { .. } => "assume multiple",
        }
    }
}

impl UnaryOp {
    /// First word of its text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neg => "neg",
            Self::Abs => "abs",
            Self::Not => "not",
            Self::Popc => "popc",
            Self::Clz => "clz",
            Self::Brev => "brev",
            Self::Ex2(_) => "ex2",
            Self::Lg2(_) => "lg2",
            Self::RcpApprox(_) | Self::RcpRn => "rcp",
            Self::Rsqrt(_) => "rsqrt",
            Self::SqrtApprox(_) | Self::SqrtRn => "sqrt",
            Self::Tanh => "tanh",
            Self::Sin => "sin",
            Self::Cos => "cos",
        }
    }
}

impl BinaryOp {
    /// First word of its text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Sub => "sub",
            Self::Mul | Self::MulHi | Self::MulWide => "mul",
            Self::Div | Self::DivApprox | Self::DivFull | Self::DivRn => "div",
            Self::Rem => "rem",
            Self::Min => "min",
            Self::Max => "max",
            Self::And => "and",
            Self::Or => "or",
            Self::Xor => "xor",
            Self::Shl => "shl",
            Self::Shr => "shr",
        }
    }
}

impl TernaryOp {
    /// First word of its text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mad | Self::MadHi | Self::MadWide => "mad",
            Self::Fma => "fma",
        }
    }
}
