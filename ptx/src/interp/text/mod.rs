//! From text to statements: the lexer, the parser and the errors of both. Nothing here knows what an instruction means.

mod error;
mod lex;
mod parse;
mod raw;

pub use error::{ParseError, ParseErrorKind};
pub(crate) use parse::parse;
pub(crate) use raw::{Pos, RawInstr, RawKernel, RawModule, RawOperand, RawReg, RawShared, RawStatement};
