//! What can go wrong, and what to do about it.
//!
//! Two layers. [`SourceError`] is why *one* source did not deliver; the next source is then tried. [`RegistryError`] is
//! what the caller gets: a bad name, a cache that cannot be used, or every source having failed, each with its reason.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a model could not be named, found, pulled, checked or removed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The given text has the form of no reference.
    #[error("`{given}` names no model: {reason}")]
    BadReference {
        /// What was given, shortened if very long.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A well-formed name that the table does not hold.
    #[error(
        "no model is called `{given}`{}; known: {}; or give hf://owner/repo/file.gguf, or the path of a file",
        did_you_mean(.near),
        .known.join(", ")
    )]
    UnknownName {
        /// What was given.
        given: String,
        /// Every known `name:tag`.
        known: Vec<String>,
        /// The known ones that look alike, best first.
        near: Vec<String>,
    },
    /// Something that reads like a path, with no file there.
    #[error("there is no file {}", .path.display())]
    NoSuchFile {
        /// The path.
        path: PathBuf,
    },
    /// A path that is there, but not as a file (a directory, a device).
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Neither `$BRICK_HOME` nor the platform names a cache directory.
    #[error("no directory for models: this platform names no cache directory; set BRICK_HOME")]
    NoHome,
    /// `$BRICK_HOME` (or a directory below it) is there, but is no directory.
    #[error("{} is not a directory; set BRICK_HOME to one, or move what is there", .path.display())]
    HomeNotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A file operation in the cache failed.
    #[error("cannot {action} {}: {source}{}", .path.display(), io_advice(.source))]
    Cache {
        /// What was tried: `create`, `write`, `rename`, …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is full, or would be.
    #[error(
        "not enough space in {}{}; free some, or set BRICK_HOME to a directory on a larger disk",
        .path.display(),
        space(*.needed, *.available)
    )]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// Bytes still to be written, if known.
        needed: Option<u64>,
        /// Bytes there are, if known.
        available: Option<u64>,
    },
    /// No source delivered the file.
    #[error(
        "could not pull {reference}:{}\nwhat was fetched is kept, and the next pull goes on from there; \
         a copy of the file from elsewhere may be put at {}",
        attempts(.tried),
        .place.display()
    )]
    AllSourcesFailed {
        /// What was to be pulled.
        reference: String,
        /// Each source with its reason, in the order tried.
        tried: Vec<Attempt>,
        /// Where the finished file belongs.
        place: PathBuf,
    },
    /// [`Progress::cancelled`](super::Progress::cancelled) said so.
    #[error("interrupted; what was fetched is kept, and the next pull goes on from there")]
    Interrupted,
    /// Asked to remove or check a model that is not in the cache.
    #[error("{reference} is not in the cache; `brick list` shows what is")]
    NotCached {
        /// The model.
        reference: String,
    },
    /// Asked to remove a model while another process is pulling it.
    #[error("another process is pulling {reference}; try again when it is done")]
    Busy {
        /// The model.
        reference: String,
    },
    /// A cached file is not what was put there.
    #[error(
        "{} is damaged: expected {expected}, found {found}; `brick rm {reference}` and pull it again",
        .path.display()
    )]
    Damaged {
        /// The model.
        reference: String,
        /// Its file.
        path: PathBuf,
        /// Size or hash that was recorded.
        expected: String,
        /// Size or hash that is there.
        found: String,
    },
    /// The table of known models is not well-formed.
    #[error("table of known models: {reason}")]
    Table {
        /// Entry and defect.
        reason: String,
    },
}

/// One source that was tried, and why it did not deliver.
#[derive(Debug)]
pub struct Attempt {
    /// The source, in words.
    pub source: String,
    /// The reason.
    pub error: SourceError,
}

/// Why one source did not deliver the file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// No connection: no network, no such host, refused, timed out while connecting.
    #[error("cannot reach {host}: {reason}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The system's answer.
        reason: String,
    },
    /// The connection was made, then broke or fell silent.
    #[error("the connection to {host} failed after {received} bytes: {reason}")]
    Broken {
        /// Host and port.
        host: String,
        /// Bytes of the file had so far.
        received: u64,
        /// The system's answer.
        reason: String,
    },
    /// The server ended early.
    #[error("{from} ended after {received} of {expected} bytes")]
    Short {
        /// Host, or member of a package.
        from: String,
        /// Bytes had.
        received: u64,
        /// Bytes announced.
        expected: u64,
    },
    /// 404 and 410.
    #[error("there is no {url} (HTTP {status}); check owner, repository, revision and file name")]
    NotFound {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// 401 and 403.
    #[error("{url} is not for everyone (HTTP {status}); {}", token_advice(*.token_sent))]
    Denied {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// Whether a token was sent along.
        token_sent: bool,
    },
    /// Any other status that carries no file.
    #[error("{url} answered HTTP {status}")]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
    },
    /// An address that cannot be used, or a redirect that leads nowhere good.
    #[error("{url}: {reason}")]
    BadAddress {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server answered against the protocol's rules or without what is needed to check the file.
    #[error("{host} answered in an unusable way: {reason}")]
    Protocol {
        /// Host and port.
        host: String,
        /// What was wrong.
        reason: String,
    },
    /// A page instead of a file: a login page, a proxy's notice.
    #[error("{url} is a web page, not a model: is a login page or a proxy in between?")]
    WebPage {
        /// The address.
        url: String,
    },
    /// The content does not begin like a GGUF file.
    #[error("the content is no GGUF file: expected it to begin with 47475546 (hex), found {found}")]
    NotGguf {
        /// The first bytes, in hex.
        found: String,
    },
    /// More or fewer bytes than the table or the server's index says.
    #[error("wrong size: expected {expected} bytes, found {found}")]
    WrongSize {
        /// Bytes expected.
        expected: u64,
        /// Bytes announced or had (at least).
        found: u64,
    },
    /// The right number of other bytes.
    #[error("wrong content, thrown away: expected SHA-256 {expected}, found {found}")]
    WrongHash {
        /// Hash expected.
        expected: String,
        /// Hash had or announced.
        found: String,
    },
    /// A program that is needed cannot be started.
    #[error("needs {what}: none of {} could be started; install it, or put it on PATH", .tried.join(", "))]
    NoProgram {
        /// In words.
        what: &'static str,
        /// What was tried.
        tried: Vec<String>,
    },
    /// Python without pip.
    #[error("`{python}` has no pip; install it with `{python} -m ensurepip`")]
    NoPip {
        /// The interpreter.
        python: String,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {output}")]
    Program {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A package that cannot be read.
    #[error("package {package} cannot be read: {reason}")]
    Archive {
        /// Package or file.
        package: String,
        /// What is wrong.
        reason: String,
    },
    /// What was fetched is not what it should be, or cannot be converted.
    #[error("cannot convert what was fetched: {reason}")]
    Convert {
        /// What was expected, and what was found.
        reason: String,
    },
    /// The member is not there, or not alone.
    #[error("package {package} holds {matches} files that match `{member}`, expected one")]
    Member {
        /// Package.
        package: String,
        /// Pattern.
        member: String,
        /// How many matched.
        matches: usize,
    },
}

impl SourceError {
    /// Whether asking the same source again may help.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            SourceError::Unreachable { .. } | SourceError::Broken { .. } | SourceError::Short { .. } => true,
            SourceError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// Inside the module: a source's failure moves on to the next source, a failure of this machine ends the pull.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The source failed.
    Source(SourceError),
    /// This machine or the user ended it.
    Fatal(RegistryError),
}

impl From<SourceError> for FetchError {
    fn from(error: SourceError) -> Self {
        FetchError::Source(error)
    }
}

impl From<RegistryError> for FetchError {
    fn from(error: RegistryError) -> Self {
        FetchError::Fatal(error)
    }
}

/// Makes a [`RegistryError`] of a failed file operation; a full disk is told apart.
pub(super) fn cache_error(action: &'static str, path: &Path, source: io::Error) -> RegistryError {
    if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let path = path.parent().unwrap_or(path).to_path_buf();
        return RegistryError::NoSpace { path, needed: None, available: None };
    }
    RegistryError::Cache { action, path: path.to_path_buf(), source }
}

fn did_you_mean(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(" or ")) }
}

fn io_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::NotADirectory => {
            "; set BRICK_HOME to a directory you can write"
        }
        _ => "",
    }
}

fn space(needed: Option<u64>, available: Option<u64>) -> String {
    match (needed, available) {
        (Some(needed), Some(available)) => format!(": {needed} bytes needed, {available} free"),
        _ => String::new(),
    }
}

fn token_advice(token_sent: bool) -> &'static str {
    if token_sent {
        "the token in HF_TOKEN does not open it: accept the model's terms on its page, or use another token"
    } else {
        "accept the model's terms on its page, and set HF_TOKEN to a token that may read it"
    }
}

fn attempts(tried: &[Attempt]) -> String {
    let mut text = String::new();
    for attempt in tried {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}: {}", attempt.source, attempt.error);
    }
    text
}
