//! What can be wrong with a PTX text.

use super::Pos;

/// A text that is not PTX of our subset, with the place where that shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {kind}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong there.
    pub kind: ParseErrorKind,
}

impl ParseError {
    pub(crate) fn new(pos: Pos, kind: ParseErrorKind) -> Self {
        Self { line: pos.line, column: pos.column, kind }
    }
}

/// The ways a text can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// A character no token starts with.
    #[error("unexpected character {0:?}")]
    Character(char),
    /// A comment or string that never ends.
    #[error("{0} without an end")]
    Unterminated(&'static str),
    /// A literal that starts like a number and is none, or does not fit 64 bits.
    #[error("`{0}` is not a number of PTX")]
    Number(String),
    /// The grammar asks for something else here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What the grammar asks for.
        expected: &'static str,
        /// What the text has.
        found: String,
    },
    /// A directive outside our subset.
    #[error("directive `.{0}` is not part of the subset")]
    Directive(String),
    /// An instruction outside our subset.
    #[error("instruction `{0}` is not part of the subset")]
    Instruction(String),
    /// A modifier this instruction does not have.
    #[error("`{instruction}` has no modifier `.{modifier}`")]
    Modifier {
        /// Name of the instruction.
        instruction: String,
        /// The modifier, without its dot.
        modifier: String,
    },
    /// A modifier the instruction needs is missing.
    #[error("`{instruction}` needs {needs}")]
    Missing {
        /// Name of the instruction.
        instruction: String,
        /// What it needs.
        needs: &'static str,
    },
    /// A combination of instruction and type outside our subset.
    #[error("`{instruction}` is not defined for `{ty}`")]
    Type {
        /// Name of the instruction.
        instruction: String,
        /// The type, with its dot.
        ty: String,
    },
    /// The wrong number of operands.
    #[error("`{instruction}` takes {expected} operands, found {found}")]
    OperandCount {
        /// Name of the instruction.
        instruction: String,
        /// How many it takes.
        expected: &'static str,
        /// How many there are.
        found: usize,
    },
    /// An operand of the wrong kind.
    #[error("operand {index} of `{instruction}`: expected {expected}, found {found}")]
    Operand {
        /// Name of the instruction.
        instruction: String,
        /// Which operand, from 1.
        index: usize,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A register, label, variable or parameter that was never declared.
    #[error("{what} `{name}` is not declared")]
    Undeclared {
        /// Register, label, variable …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A name declared twice in one scope.
    #[error("{what} `{name}` is declared twice")]
    Duplicate {
        /// Register, label, variable …
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A number outside what PTX or the interpreter allows.
    #[error("{what} is {found}, at most {limit} is possible")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// An alignment that is not a power of two.
    #[error("alignment {0} is not a power of two up to 4096")]
    Alignment(u64),
}
