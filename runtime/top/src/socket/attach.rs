//! The side of the viewer.

use std::io::{BufReader, ErrorKind};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Running, SocketError};
use crate::snapshot::Snapshot;
use crate::wire::{self, WireError};

/// Longest path of a socket: `sun_path` less its terminator, as on Linux (unix(7)); the BSDs have four bytes less.
const LONGEST_PATH: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

pub(super) fn check_length(path: &Path) -> Result<(), SocketError> {
    let found = path.as_os_str().as_bytes().len();
    if found > LONGEST_PATH {
        return Err(SocketError::PathTooLong { path: path.to_path_buf(), found, longest: LONGEST_PATH });
    }
    Ok(())
}

/// A connection to a run.
#[derive(Debug)]
pub struct Attachment {
    reader: BufReader<UnixStream>,
    silence: Option<Duration>,
}

/// Ends a connection from another thread.
#[derive(Debug)]
pub struct Closer(UnixStream);

impl Closer {
    /// A read that waits returns.
    pub fn close(&self) {
        // Fails when the peer was faster.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Attachment {
    /// Attaches to the run at `path`. With `silence`, [`next_frame`](Self::next_frame) waits no longer than that.
    ///
    /// # Errors
    /// [`SocketError::Missing`], [`SocketError::Stale`], [`SocketError::Attach`], [`SocketError::PathTooLong`].
    pub fn open(path: &Path, silence: Option<Duration>) -> Result<Self, SocketError> {
        check_length(path)?;
        let error = |source: std::io::Error| match source.kind() {
            ErrorKind::NotFound => SocketError::Missing { path: path.to_path_buf() },
            ErrorKind::ConnectionRefused => SocketError::Stale { path: path.to_path_buf() },
            _ => SocketError::Attach { path: path.to_path_buf(), source },
        };
        let stream = UnixStream::connect(path).map_err(error)?;
        stream.set_read_timeout(silence).map_err(error)?;
        Ok(Self { reader: BufReader::new(stream), silence })
    }

    /// Something that ends this connection from another thread.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn closer(&self) -> std::io::Result<Closer> {
        self.reader.get_ref().try_clone().map(Closer)
    }

    /// The next frame; `None` when the run is over.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn next_frame(&mut self) -> Result<Option<Snapshot>, WireError> {
        wire::read_frame(&mut self.reader).map_err(|e| match (e, self.silence) {
            (WireError::Io(e), Some(silence)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                WireError::Silent { seconds: silence.as_secs() }
            }
            (e, _) => e,
        })
    }
}

/// The runs that publish in `directory`, by process. Sockets that killed processes left are removed.
///
/// # Errors
/// [`SocketError::List`]; a directory that does not exist has no runs.
pub fn running(directory: &Path) -> Result<Vec<Running>, SocketError> {
    let error = |source| SocketError::List { path: directory.to_path_buf(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(error(e)),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let path = entry.map_err(error)?.path();
        let stem = path.file_stem().and_then(|s| s.to_str());
        let Some(pid) = stem.filter(|_| path.extension().is_some_and(|e| e == "sock")).and_then(|s| s.parse().ok())
        else {
            continue;
        };
        match Attachment::open(&path, None) {
            Ok(_) => runs.push(Running { pid, path }),
            Err(SocketError::Stale { .. }) => {
                // Somebody else may have removed it meanwhile.
                let _ = std::fs::remove_file(&path);
            }
            Err(_) => {}
        }
    }
    runs.sort();
    Ok(runs)
}
