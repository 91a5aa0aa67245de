//! Kernels as plain data: what a [`Module`] of PTX is made of, before it is text.
//!
//! Nothing here checks anything: an IR can be made or loaded by hand, so it can be wrong in every way. What it has to
//! satisfy is said by [`valid`](crate::valid). Registers are dense indices ([`RegId`]) into [`Kernel::registers`], and
//! control flow is structured: a body is a list of [`Stmt`], some of which hold lists of their own. There is no branch.

mod arith;
mod inst;
mod matrix;
mod memory;
mod operand;
mod slots;
mod special;
mod target;
mod types;
mod warp;

pub use arith::{BinaryOp, Cmp, Rounding, Subnormals, TernaryOp, UnaryOp};
pub use inst::Inst;
pub use matrix::{LoadMatrix, Mma, MmaKind, Signedness};
pub use memory::{
    Address, Atomic, AtomicOp, Base, Cache, CacheHints, CopyAsync, FenceKind, L1, L2Priority, Load, Order, Prefetch,
    Scope, Space, Store,
};
pub use operand::{Imm, Operand, RegId};
pub use slots::{Need, Slot};
pub use special::{Dim, Special};
pub use target::{Arch, Target};
pub use types::{Class, Type};
pub use warp::{FULL_MASK, MatchMode, ReduceOp, Shuffle, ShuffleMode, VoteMode};

/// Where in its author's Rust source a statement was made. `None` in an IR that no builder made.
pub type Source = Option<&'static std::panic::Location<'static>>;

/// A list of statements that run in order.
pub type Block = Vec<Stmt>;

/// One text of PTX: several kernels that are loaded together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Module {
    /// The kernels, in the order of their text. Names are unique.
    pub kernels: Vec<Kernel>,
}

/// One `.entry`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Kernel {
    /// Name that the launcher asks the driver for.
    pub name: String,
    /// What it computes, in a sentence or several: printed above the entry.
    pub about: String,
    /// Threads per block that it is written for.
    pub threads: Threads,
    /// Blocks per multiprocessor that registers have to leave room for (`.minnctapersm`).
    pub min_blocks: Option<u32>,
    /// Parameters in the order in which the launcher passes them.
    pub params: Vec<Param>,
    /// Shared memory.
    pub shared: Vec<Shared>,
    /// Class of each register; a [`RegId`] is an index into it.
    pub registers: Vec<Class>,
    /// What every thread runs. Its end returns.
    pub body: Block,
}

/// Shape of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Threads {
    /// No promise: any shape up to the hardware's limit.
    #[default]
    Any,
    /// One-dimensional blocks of at most this many threads (`.maxntid`).
    UpTo(u32),
    /// Exactly this shape (`.reqntid`).
    Exactly([u32; 3]),
}

/// Index of a parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ParamId(pub u32);

/// Index of an allocation of shared memory of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedId(pub u32);

/// A parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Name, unique in its kernel.
    pub name: String,
    /// What is passed.
    pub kind: ParamKind,
}

/// What a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Address in global memory.
    Pointer {
        /// What the kernel may do there.
        access: Access,
        /// Alignment in bytes that the launcher guarantees: a power of two.
        align: u32,
    },
    /// A 32-bit unsigned number.
    U32 {
        /// The launcher guarantees a multiple of this power of two; 1 promises nothing.
        multiple_of: u32,
    },
    /// A 64-bit unsigned number.
    U64 {
        /// The launcher guarantees a multiple of this power of two; 1 promises nothing.
        multiple_of: u32,
    },
    /// A 32-bit float.
    F32,
}

/// What a kernel may do with the memory of a pointer parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only; nobody writes there while the kernel runs, so loads may be `.nc`.
    Read,
    /// Stores only.
    Write,
    /// Loads, stores and atomics.
    ReadWrite,
}

/// An allocation of shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Name, unique in its kernel.
    pub name: String,
    /// Alignment in bytes: a power of two.
    pub align: u32,
    /// Size.
    pub size: SharedSize,
}

/// Size of an allocation of shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedSize {
    /// Known in the text.
    Static {
        /// Size in bytes.
        bytes: u32,
    },
    /// Given at the launch. A kernel has at most one of these.
    Dynamic {
        /// Most that a launch will ask for, in bytes.
        max_bytes: u32,
    },
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub struct Stmt {
    /// What it does.
    pub kind: StmtKind,
    /// Who made it.
    pub source: Source,
}

/// What a statement does.
#[derive(Debug, Clone, PartialEq)]
pub enum StmtKind {
    /// One instruction.
    Inst(Inst),
    /// A line for the reader of the text.
    Comment(String),
    /// Runs one of two blocks.
    If {
        /// A predicate.
        cond: RegId,
        /// Runs where it is true.
        then: Block,
        /// Runs where it is false; may be empty.
        otherwise: Block,
    },
    /// Runs `head`, leaves where `cond` is false, runs `body`, and begins again.
    While {
        /// Computes the condition.
        head: Block,
        /// A predicate, set in `head`.
        cond: RegId,
        /// Runs while it is true.
        body: Block,
        /// Keep the assembler from unrolling (`.pragma "nounroll"`).
        rolled: bool,
    },
    /// The thread is done.
    Return,
}

impl Kernel {
    /// Bytes of shared memory: those in the text, and the most that a launch may ask for besides.
    pub fn shared_bytes(&self) -> (u64, u64) {
        self.shared.iter().fold((0, 0), |(fixed, dynamic), shared| match shared.size {
            SharedSize::Static { bytes } => {
                let align = u64::from(shared.align.max(1));
                (u64::div_ceil(fixed, align) * align + u64::from(bytes), dynamic)
            }
            SharedSize::Dynamic { max_bytes } => (fixed, dynamic + u64::from(max_bytes)),
        })
    }
}

/// Deepest nesting of statements that checks and emission follow.
pub const MAX_DEPTH: usize = 64;

impl Kernel {
    /// Whether statements are nested deeper than [`MAX_DEPTH`]. Takes no stack, so it is safe to ask of any IR.
    pub fn is_too_deep(&self) -> bool {
        let mut open = vec![(&self.body, 1)];
        while let Some((block, depth)) = open.pop() {
            if depth > MAX_DEPTH {
                return true;
            }
            for stmt in block {
                match &stmt.kind {
                    StmtKind::If { then: a, otherwise: b, .. } | StmtKind::While { head: a, body: b, .. } => {
                        open.extend([(a, depth + 1), (b, depth + 1)]);
                    }
                    StmtKind::Inst(_) | StmtKind::Comment(_) | StmtKind::Return => {}
                }
            }
        }
        false
    }
}
