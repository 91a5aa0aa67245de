//! What can go wrong between a conversation and its prompt.

use std::error::Error as _;
use std::fmt;

use super::python::Raised;
use crate::format::gguf::MetadataError;

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The file's template has another type than string.
    #[error("chat template: {0}")]
    Metadata(#[from] MetadataError),
    /// The source is not a template.
    #[error("chat template{}: expected a Jinja template, found {message}", Line(*.line))]
    Syntax {
        /// Line of the template, from 1, where known.
        line: Option<usize>,
        /// What the engine found.
        message: String,
    },
    /// The template itself refused the conversation (`raise_exception`), for instance for a role it does not know.
    #[error("chat template{}: the model does not take this conversation: {message}", Line(*.line))]
    Refused {
        /// Line of the template, from 1, where known.
        line: Option<usize>,
        /// The template's own words.
        message: String,
    },
    /// The template failed: an operation that is not defined, or more steps than any sensible template takes.
    #[error("chat template{}: {message}", Line(*.line))]
    Render {
        /// Line of the template, from 1, where known.
        line: Option<usize>,
        /// What the engine said.
        message: String,
    },
}

impl ChatError {
    pub(super) fn syntax(error: &minijinja::Error) -> Self {
        Self::Syntax { line: error.line(), message: message(error) }
    }

    pub(super) fn render(error: &minijinja::Error) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(Raised(message)) = inner.downcast_ref() {
                return Self::Refused { line: error.line(), message: message.clone() };
            }
            cause = inner.source();
        }
        Self::Render { line: error.line(), message: message(error) }
    }
}

/// The engine's message without its place, which is told on its own.
fn message(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

/// `, line 3` or nothing.
struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}
