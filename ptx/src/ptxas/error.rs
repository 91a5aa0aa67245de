//! What can go wrong with the assembler.

use std::io;
use std::path::PathBuf;

use crate::ir::Arch;

/// Why a text could not be assembled or looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // fields are the operands of the message
pub enum PtxasError {
    /// A program that is nowhere.
    #[error("no {tool}: looked at {tried}; name it in ${variable} or fetch it")]
    NotFound { tool: &'static str, variable: &'static str, tried: String },
    /// A program that does not start.
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: io::Error },
    /// A program of another release. Releases before 13 crash on texts that are newer than they are.
    #[error("{} says `{found}`, expected release {expected}", program.display())]
    Version { program: PathBuf, expected: &'static str, found: String },
    /// A program that ended without saying anything.
    #[error("{} ended with {status}: {output}", program.display())]
    Crashed { program: PathBuf, status: String, output: String },
    /// A text that the assembler does not take.
    #[error("ptxas for {arch} rejects the text:\n{log}")]
    Rejected { arch: Arch, log: String },
    /// A report that says something else than expected.
    #[error("{tool} does not say {expected}:\n{output}")]
    Report { tool: &'static str, expected: String, output: String },
    /// A file that cannot be read or written.
    #[error("cannot {what} {}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// A system that the programs are not fetched for.
    #[error("{tool} is fetched for Linux only; name it in ${variable}")]
    Platform { tool: &'static str, variable: &'static str },
    /// No place to keep what is fetched.
    #[error("no directory to keep {tool} in: set BRICK_HOME")]
    NoCache { tool: &'static str },
    /// A download that failed.
    #[error("`{command}` failed: {output}")]
    Download { command: String, output: String },
    /// A package without the program.
    #[error("{} has no {member}", wheel.display())]
    Package { wheel: PathBuf, member: String },
    /// A package that cannot be read.
    #[error("cannot read {}", wheel.display())]
    Archive { wheel: PathBuf, source: zip::result::ZipError },
}

impl PtxasError {
    /// For `map_err` on a file operation.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
