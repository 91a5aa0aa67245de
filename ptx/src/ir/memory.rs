//! Memory: addresses, loads and stores, cache hints, ordering, atomics, asynchronous copies.

use super::{Operand, RegId, SharedId, Type};

/// A state space that can be loaded from and stored to. Parameters have an instruction of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    /// Memory of the device; addresses have 64 bits.
    Global,
    /// Memory of the block; addresses have 32 bits.
    Shared,
}

impl Space {
    /// Name in the text, without the dot.
    pub fn name(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Shared => "shared",
        }
    }

    /// Type of an address in it.
    pub fn address(self) -> Type {
        match self {
            Self::Global => Type::U64,
            Self::Shared => Type::U32,
        }
    }
}

/// What an address starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Base {
    /// A register.
    Reg(RegId),
    /// An allocation of shared memory.
    Shared(SharedId),
}

/// `[base+offset]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// Space it points into.
    pub space: Space,
    /// What it starts from.
    pub base: Base,
    /// Bytes from there.
    pub offset: i32,
}

/// Whose threads see an access, an atomic or a fence in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The block.
    Cta,
    /// The device.
    Gpu,
    /// Devices and host.
    Sys,
}

impl Scope {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cta => "cta",
            Self::Gpu => "gpu",
            Self::Sys => "sys",
        }
    }
}

/// Ordering of an access.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// None; other threads see it after a barrier or fence.
    #[default]
    Weak,
    /// Never elided, reordered with other volatile accesses or cached in a register.
    Volatile,
    /// Atomic, without ordering others.
    Relaxed(Scope),
    /// A load before everything that follows it.
    Acquire(Scope),
    /// A store after everything that precedes it.
    Release(Scope),
    /// Both: atomics only.
    AcquireRelease(Scope),
}

/// What the first-level cache does with a line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum L1 {
    #[default]
    Normal,
    NoAllocate,
    EvictFirst,
    EvictLast,
}

/// How much of the surroundings the second-level cache fetches along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Prefetch {
    #[default]
    None,
    B64,
    B128,
    B256,
}

impl Prefetch {
    /// Qualifier in the text.
    pub fn qualifier(self) -> &'static str {
        match self {
            Self::None => "",
            Self::B64 => ".L2::64B",
            Self::B128 => ".L2::128B",
            Self::B256 => ".L2::256B",
        }
    }
}

/// Eviction priority in the second-level cache, for a policy made by `createpolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum L2Priority {
    EvictFirst,
    EvictLast,
    EvictNormal,
}

impl L2Priority {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::EvictFirst => "evict_first",
            Self::EvictLast => "evict_last",
            Self::EvictNormal => "evict_normal",
        }
    }
}

/// Which cache an instruction fetches into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Cache {
    L1,
    L2,
}

/// Hints of an access to global memory. They change speed, never results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CacheHints {
    /// First level.
    pub l1: L1,
    /// Second level: fetched along.
    pub prefetch: Prefetch,
    /// Second level: a policy in a 64-bit register.
    pub policy: Option<RegId>,
}

/// `ld`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Type of an element.
    pub ty: Type,
    /// One register per element: 1, 2 or 4.
    pub dst: Vec<RegId>,
    /// From where.
    pub from: Address,
    /// Through the read-only path (`.nc`): nobody writes there while the kernel runs.
    pub read_only: bool,
    /// All threads that run this read one value, so that control flow may depend on it. The address has to be the same
    /// in all of them.
    pub uniform: bool,
    /// Ordering.
    pub order: Order,
    /// Cache hints.
    pub hints: CacheHints,
}

/// `st`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Type of an element.
    pub ty: Type,
    /// One operand per element: 1, 2 or 4.
    pub values: Vec<Operand>,
    /// Where to.
    pub to: Address,
    /// Ordering.
    pub order: Order,
    /// Cache hints.
    pub hints: CacheHints,
}

/// Operation of an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AtomicOp {
    /// Sum.
    Add,
    /// The smaller.
    Min,
    /// The larger.
    Max,
    /// `old >= b ? 0 : old + 1`.
    Inc,
    /// Bits set in both.
    And,
    /// Bits set in one or both.
    Or,
    /// Bits set in one.
    Xor,
    /// The operand replaces the old value.
    Exch,
    /// The operand replaces the old value if that equals `compare`.
    Cas,
}

impl AtomicOp {
    /// Name in the text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Min => "min",
            Self::Max => "max",
            Self::Inc => "inc",
            Self::And => "and",
            Self::Or => "or",
            Self::Xor => "xor",
            Self::Exch => "exch",
            Self::Cas => "cas",
        }
    }
}

/// `atom`, or `red` where nobody asks for the old value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Atomic {
    /// Operation.
    pub op: AtomicOp,
    /// Type.
    pub ty: Type,
    /// Old value.
    pub dst: Option<RegId>,
    /// Where.
    pub at: Address,
    /// What old values are compared with: `Cas` only.
    pub compare: Option<Operand>,
    /// Operand.
    pub value: Operand,
    /// Ordering: relaxed, acquire, release, or both.
    pub order: Order,
}

/// `cp.async`: copies from global to shared memory without holding registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyAsync {
    /// Shared memory.
    pub to: Address,
    /// Global memory.
    pub from: Address,
    /// 4, 8 or 16.
    pub bytes: u32,
    /// Past the first-level cache (`.cg`); 16 bytes only.
    pub bypass_l1: bool,
    /// Bytes that are read; the rest is filled with zeros.
    pub read_bytes: Option<Operand>,
    /// Second level: fetched along.
    pub prefetch: Prefetch,
    /// Second level: a policy in a 64-bit register.
    pub policy: Option<RegId>,
}

/// What a fence orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FenceKind {
    /// Acquire and release.
    AcquireRelease,
    /// Sequentially consistent.
    Sequential,
}
