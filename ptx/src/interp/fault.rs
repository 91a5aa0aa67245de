//! What a running kernel can do wrong, and where it did.

use std::fmt;

/// An instruction that broke a rule, with the place in the text and in the launch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    /// Name of the kernel.
    pub kernel: String,
    /// Line of the instruction in the PTX text, from 1.
    pub line: u32,
    /// `%ctaid` of the block.
    pub block: [u32; 3],
    /// Warp within the block.
    pub warp: u32,
    /// Lane within the warp; `None` where the rule is one of the whole warp.
    pub lane: Option<u32>,
    /// The broken rule.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "kernel `{}`, line {}, block ({x}, {y}, {z}), warp {}", self.kernel, self.line, self.warp)?;
        if let Some(lane) = self.lane {
            write!(f, ", lane {lane}")?;
        }
        write!(f, ": {}", self.kind)
    }
}

/// A kind of access, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An atomic read-modify-write.
    Atomic,
    /// An asynchronous copy.
    Copy,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Atomic => "atomic",
            Self::Copy => "asynchronous copy",
        })
    }
}

/// A place in memory as a person would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A byte of a buffer.
    Buffer {
        /// The name the host gave it.
        name: String,
        /// Byte within it; negative before its start.
        offset: i64,
    },
    /// A byte of a shared array.
    Shared {
        /// The name in the text.
        name: String,
        /// Byte within it; negative before its start.
        offset: i64,
    },
    /// An address in global memory that belongs to no buffer.
    Global(u64),
    /// An address in shared memory that belongs to no array.
    SharedAddress(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffer { name, offset } => write!(f, "buffer `{name}` at byte {offset}"),
            Self::Shared { name, offset } => write!(f, "shared array `{name}` at byte {offset}"),
            Self::Global(address) => write!(f, "global address {address:#x}"),
            Self::SharedAddress(address) => write!(f, "shared address {address:#x}"),
        }
    }
}

/// The rules of the machine, as broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultKind {
    /// An access that is not wholly inside one buffer or array.
    #[error("{verb} of {bytes} bytes out of bounds: {place}{}", .size.map_or(String::new(), |s| format!(" of {s} bytes")))]
    OutOfBounds {
        /// What was tried.
        verb: Verb,
        /// How many bytes.
        bytes: u32,
        /// Where.
        place: Place,
        /// Size of the buffer or array, if the address is near one.
        size: Option<u64>,
    },
    /// An address that is not a multiple of the size of the access.
    #[error("misaligned {verb} of {bytes} bytes: {place} is not a multiple of {bytes}")]
    Misaligned {
        /// What was tried.
        verb: Verb,
        /// How many bytes, and the alignment they need.
        bytes: u32,
        /// Where.
        place: Place,
    },
    /// A read of bytes nobody wrote.
    #[error("read of {bytes} bytes nobody wrote: {place}")]
    Uninitialised {
        /// How many bytes.
        bytes: u32,
        /// The first of them that has no value.
        place: Place,
    },
    /// An access the host did not allow at launch.
    #[error("{verb} of {place}, which this launch may only {allowed}")]
    Forbidden {
        /// What was tried.
        verb: Verb,
        /// Where.
        place: Place,
        /// What is allowed.
        allowed: &'static str,
    },
    /// Two accesses with nothing that orders them.
    #[error("race: {verb} of {place} is not ordered after the {other_verb} by {other}")]
    Race {
        /// This access.
        verb: Verb,
        /// Where.
        place: Place,
        /// The earlier access.
        other_verb: Verb,
        /// Who did it.
        other: Thread,
    },
    /// Lanes of one store that disagree about one address.
    #[error("lanes {first} and {second} write different values to {place} in one instruction")]
    LanesDisagree {
        /// The lower lane.
        first: u32,
        /// The higher lane.
        second: u32,
        /// Where.
        place: Place,
    },
    /// A `.nc` load of data that was written during the launch.
    #[error("`.nc` load of {place}, which this launch has written")]
    NotConstant {
        /// Where.
        place: Place,
    },
    /// A use of the target of an asynchronous copy before the copy was waited for.
    #[error("{verb} of {place} while an asynchronous copy to it is under way: no wait_group has completed it")]
    CopyPending {
        /// What was tried.
        verb: Verb,
        /// Where.
        place: Place,
    },
    /// A warp operation that names lanes which do not take part.
    #[error("`{operation}` names lanes {named:#010x}, but only {active:#010x} execute it")]
    Divergent {
        /// The instruction.
        operation: &'static str,
        /// Lanes it names or needs.
        named: u32,
        /// Lanes that execute it.
        active: u32,
    },
    /// A lane that executes a warp operation whose mask leaves it out.
    #[error("`{operation}` is executed by a lane its mask {named:#010x} leaves out")]
    NotMember {
        /// The instruction.
        operation: &'static str,
        /// Lanes it names.
        named: u32,
    },
    /// Lanes that give different operands where all must give the same: the mask of a warp operation, a barrier.
    #[error("the lanes of `{operation}` give different operands: {first:#x} and {second:#x}")]
    OperandDiffers {
        /// The instruction.
        operation: &'static str,
        /// One operand.
        first: u32,
        /// Another.
        second: u32,
    },
    /// A shuffle from a lane that does not take part: its value is undefined.
    #[error("shuffle from lane {source_lane}, which is not one of the lanes {members:#010x} that take part")]
    ShuffleSource {
        /// The lane read from.
        source_lane: u32,
        /// Lanes that take part.
        members: u32,
    },
    /// A branch marked `.uni` that splits the warp.
    #[error("`bra.uni` splits the warp: of the lanes {active:#010x} only {taken:#010x} take it")]
    NotUniform {
        /// Lanes that execute it.
        active: u32,
        /// Lanes that jump.
        taken: u32,
    },
    /// A number of a barrier beyond 15, or a thread count that is no multiple of 32 or too large.
    #[error("barrier {id} for {threads} threads: ids are 0 to 15, threads a multiple of 32 up to the block's {limit}")]
    Barrier {
        /// The barrier.
        id: u32,
        /// Threads it is to wait for.
        threads: u32,
        /// Threads of the block, rounded up to whole warps.
        limit: u32,
    },
    /// Warps that expect different numbers of threads at one barrier.
    #[error("barrier {id} expects {found} threads here and {expected} where another warp waits")]
    BarrierCount {
        /// The barrier.
        id: u32,
        /// What the warps that came before expect.
        expected: u32,
        /// What this one expects.
        found: u32,
    },
    /// Nothing can run any more, and not everything has finished.
    #[error(
        "deadlock: {waiting} warps wait for ever; this one at barrier {id}, where {arrived} of {expected} threads arrived"
    )]
    Deadlock {
        /// Warps that wait, over all resident blocks.
        waiting: u32,
        /// The barrier of the reported warp.
        id: u32,
        /// Threads that arrived there.
        arrived: u32,
        /// Threads it needs.
        expected: u32,
    },
    /// The launch ran longer than it may.
    #[error("the launch took more than {steps} instructions: an endless loop, or a limit too low")]
    StepLimit {
        /// The limit, in instructions of warps.
        steps: u64,
    },
    /// An integer division by zero, whose result PTX leaves open.
    #[error("integer division by zero")]
    DivisionByZero,
    /// A register that is read before anything was written to it.
    #[error("register `{register}` is read before it is written")]
    RegisterUnset {
        /// Its name in the text.
        register: String,
    },
    /// The `trap` instruction.
    #[error("the kernel executed `trap`")]
    Trap,
    /// `cp.async` with more source bytes than it copies.
    #[error("asynchronous copy of {bytes} bytes is told to read {source_bytes}")]
    CopySize {
        /// Bytes of the copy.
        bytes: u32,
        /// Bytes of its source.
        source_bytes: u32,
    },
}

/// A lane of a warp of a block: who did the other half of a race.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Index of the block in the grid, x fastest.
    pub block: u64,
    /// Warp within the block.
    pub warp: u32,
    /// Lane within the warp: the lowest, if several did it at once.
    pub lane: u32,
}

impl fmt::Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {} of warp {} of block {}", self.lane, self.warp, self.block)
    }
}

/// A broken rule and the lane that broke it, before the place in the launch is known.
///
/// Boxed: the error path is rare and must not widen the results of the hot path.
#[derive(Debug)]
pub(crate) struct Broken(Box<(Option<u32>, FaultKind)>);

impl Broken {
    /// Broken by a lane.
    pub(crate) fn at(lane: u32, kind: FaultKind) -> Self {
        Self(Box::new((Some(lane), kind)))
    }

    /// Broken by the whole warp.
    pub(crate) fn warp(kind: FaultKind) -> Self {
        Self(Box::new((None, kind)))
    }

    /// The same, blamed on another lane.
    pub(crate) fn by(self, lane: u32) -> Self {
        Self::at(lane, self.0.1)
    }

    pub(crate) fn parts(self) -> (Option<u32>, FaultKind) {
        *self.0
    }
}

/// The result of one instruction.
pub(crate) type Outcome<T = ()> = Result<T, Broken>;
