//! Statements as the parser leaves them: names are still names, operands are not yet checked.

use crate::interp::ty::Ty;

/// A place in the text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pos {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

pub(crate) struct RawModule<'a> {
    pub(crate) version: (u32, u32),
    pub(crate) target: &'a str,
    pub(crate) kernels: Vec<RawKernel<'a>>,
    /// Shared variables of the module scope.
    pub(crate) shared: Vec<RawShared<'a>>,
}

pub(crate) struct RawKernel<'a> {
    pub(crate) name: &'a str,
    pub(crate) pos: Pos,
    pub(crate) params: Vec<RawParam<'a>>,
    pub(crate) required_block: Option<[u32; 3]>,
    pub(crate) max_block: Option<[u32; 3]>,
    pub(crate) body: Vec<RawStatement<'a>>,
    /// Line of the closing brace: where a kernel that falls off its end returns.
    pub(crate) end: Pos,
}

pub(crate) struct RawParam<'a> {
    pub(crate) name: &'a str,
    pub(crate) ty: Ty,
    /// Elements of an array parameter; 1 for a scalar.
    pub(crate) len: u64,
    pub(crate) align: u64,
    pub(crate) pos: Pos,
}

pub(crate) struct RawShared<'a> {
    pub(crate) name: &'a str,
    pub(crate) align: u64,
    /// Size, or `None` for the dynamic part of the launch.
    pub(crate) bytes: Option<u64>,
    pub(crate) pos: Pos,
}

pub(crate) struct RawReg<'a> {
    pub(crate) name: &'a str,
    /// `%r<10>` declares ten registers `%r0` … `%r9`.
    pub(crate) count: Option<u32>,
    pub(crate) ty: Ty,
    pub(crate) pos: Pos,
}

pub(crate) enum RawStatement<'a> {
    Reg(RawReg<'a>),
    Shared(RawShared<'a>),
    Label(&'a str, Pos),
    Instr(RawInstr<'a>),
    /// `{` and `}`: registers declared between them are known only there.
    Open,
    Close,
}

pub(crate) struct RawInstr<'a> {
    /// `@p` or `@!p`.
    pub(crate) guard: Option<(&'a str, bool)>,
    pub(crate) name: &'a str,
    pub(crate) modifiers: Vec<&'a str>,
    pub(crate) operands: Vec<RawOperand<'a>>,
    pub(crate) pos: Pos,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RawOperand<'a> {
    /// A register, variable, parameter or label.
    Name(&'a str),
    /// `%tid.x` and the other special registers with a component.
    Component(&'a str, &'a str),
    /// `!p`.
    Not(&'a str),
    /// `p|q`.
    Pair(&'a str, &'a str),
    /// An integer, in two's complement.
    Int(u64),
    /// `0f…`: the bits.
    F32(u32),
    /// `0d…` or a decimal number.
    F64(f64),
    /// `{a, b, …}`.
    Vector(Vec<RawOperand<'a>>),
    /// `[base + offset]`.
    Address(Box<RawOperand<'a>>, i64),
}

impl RawOperand<'_> {
    /// In the words of an error message.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Name(name) => format!("`{name}`"),
            Self::Component(name, part) => format!("`{name}.{part}`"),
            Self::Not(name) => format!("`!{name}`"),
            Self::Pair(a, b) => format!("`{a}|{b}`"),
            Self::Int(v) => format!("the integer {}", *v as i64),
            Self::F32(bits) => format!("the float 0f{bits:08X}"),
            Self::F64(v) => format!("the float {v:?}"),
            Self::Vector(parts) => format!("a vector of {}", parts.len()),
            Self::Address(..) => "an address".to_owned(),
        }
    }
}
