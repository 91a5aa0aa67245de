//! What can be wrong with a module.

use std::fmt;

use crate::ir::{Access, Class, MAX_DEPTH, RegId, Source, Space, Target, Type};
use crate::valid::Uniformity;

pub(super) type Check<T> = Result<T, ValidErrorKind>;

/// Something that is wrong with a module, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kernel `{kernel}`{place}: {kind}")]
pub struct ValidError {
    /// Name of the kernel.
    pub kernel: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub kind: ValidErrorKind,
}

/// Where in a kernel something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In its declarations, or as a whole.
    Kernel,
    /// At a statement.
    Statement {
        /// First word of the instruction.
        opcode: &'static str,
        /// Line of Rust that made it, if known.
        source: Source,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => Ok(()),
            Self::Statement { opcode, source: None } => write!(f, ", `{opcode}`"),
            Self::Statement { opcode, source: Some(at) } => write!(f, ", `{opcode}` of {}:{}", at.file(), at.line()),
        }
    }
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // fields are the operands of the message
pub enum ValidErrorKind {
    /// A name that PTX cannot have.
    #[error("`{name}` is no identifier: expected a letter or _, then letters, digits and _, at most 255 in all")]
    Name { name: String },
    /// Two things of one name.
    #[error("two {what} are named `{name}`")]
    Duplicate { what: &'static str, name: String },
    /// A number in a declaration that cannot be.
    #[error("{what} is {found}, expected {expected}")]
    Declaration { what: String, expected: &'static str, found: u64 },
    /// More shared memory than a block can have.
    #[error("{found} bytes of {what} shared memory, but a block can have {limit}")]
    SharedMemory { what: &'static str, found: u64, limit: u64 },
    /// More than one allocation whose size the launch gives.
    #[error("{found} allocations of dynamic shared memory, expected one at most")]
    DynamicShared { found: usize },
    /// Statements nested too deep.
    #[error("statements are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// A register that is not declared.
    #[error("register {} does not exist: the kernel has {count}", reg.0)]
    UnknownRegister { reg: RegId, count: usize },
    /// A parameter that is not declared.
    #[error("parameter {index} does not exist: the kernel has {count}")]
    UnknownParam { index: u32, count: usize },
    /// An allocation that is not declared.
    #[error("shared allocation {index} does not exist: the kernel has {count}")]
    UnknownShared { index: u32, count: usize },
    /// A register of another class.
    #[error("register {} is {found}, expected one for {expected}", reg.0)]
    Mistyped { reg: RegId, expected: Type, found: Class },
    /// An immediate where a register has to be, or of another kind.
    #[error("immediate {value} cannot be an operand of type {expected}")]
    Immediate { value: String, expected: Type },
    /// A number in the instruction that is out of range.
    #[error("{what} is {found}, expected {expected}")]
    Range { what: &'static str, expected: &'static str, found: i128 },
    /// An operation that does not exist for a type.
    #[error("does not exist for {ty}")]
    NoSuchOperation { ty: Type },
    /// An instruction of a newer target.
    #[error("exists from {needs} on, the module is for {target}")]
    Target { needs: Target, target: Target },
    /// A combination that does not exist.
    #[error("{what}")]
    Combination { what: &'static str },
    /// A conversion that does not exist.
    #[error("no conversion from {from} to {to} {rounding}: {why}")]
    Conversion { from: Type, to: Type, rounding: String, why: &'static str },
    /// A vector of a wrong width.
    #[error("{count} elements of {ty}: a vector has 1, 2 or 4 elements and at most 16 bytes")]
    Vector { count: usize, ty: Type },
    /// An address of another space.
    #[error("address in {found:?} memory, expected {expected:?}")]
    WrongSpace { expected: Space, found: Space },
    /// An access outside an allocation of shared memory.
    #[error("bytes {start}..{end} of shared `{name}`, which has {size}")]
    Outside { name: String, start: i64, end: i64, size: u32 },
    /// A read of a register that some path leaves unset.
    #[error("register {} is read, but not every path to here sets it", reg.0)]
    Undefined { reg: RegId },
    /// An instruction that threads wait in, where not all of them come.
    #[error("runs where control flow {is}, but all threads of the {of} have to come here")]
    Divergent { is: Uniformity, of: &'static str },
    /// All lanes are named, but the last warp has fewer.
    #[error("names all 32 lanes, but {threads} threads leave a warp incomplete")]
    PartialWarp { threads: u32 },
    /// A load that is said to be uniform from an address that is not.
    #[error("a load that is marked uniform from an address that {is}")]
    NotUniform { is: Uniformity },
    /// An access that is not known to be aligned.
    #[error(
        "access of {needed} bytes, but the address is only known to be a multiple of {known}; \
         declare the alignment of the parameter, or use `assume_multiple`"
    )]
    Misaligned { needed: u64, known: u64 },
    /// A parameter that is used against its declaration.
    #[error("{what} through parameter `{param}`, which is declared {access:?}")]
    Forbidden { what: &'static str, param: String, access: Access },
}
