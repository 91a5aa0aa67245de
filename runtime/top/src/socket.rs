//! Frames for other processes of the same user, through a Unix-domain socket.
//!
//! A run publishes at `DIRECTORY/PID.sock`, readable and writable by its user alone. It never waits for a viewer: each has the
//! line that is on its way and the newest one after it; older ones are dropped.
//!
//! | module | content |
//! | --- | --- |
//! | `publish` | the side of the run |
//! | `attach` | the side of the viewer; which runs there are |

#[cfg(unix)]
mod attach;
#[cfg(unix)]
mod publish;
#[cfg(not(unix))]
mod unsupported;

use std::path::{Path, PathBuf};

#[cfg(unix)]
pub use attach::{Attachment, Closer, running};
#[cfg(unix)]
pub use publish::Publisher;
#[cfg(not(unix))]
pub use unsupported::{Attachment, Closer, Publisher, running};

/// A run that can be watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running {
    /// Its process.
    pub pid: u32,
    /// Its socket.
    pub path: PathBuf,
}

/// A run cannot be published, or not be watched.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The socket cannot be made.
    #[error("cannot make the socket {}: {source}", path.display())]
    Publish {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The path is too long for the address of a socket.
    #[error(
        "the path of the socket has {found} bytes, expected at most {longest}: {}; set BRICK_HOME to a shorter directory",
        path.display()
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        found: usize,
        /// What the system allows.
        longest: usize,
    },
    /// Nothing is there.
    #[error("no run can be watched at {}: expected the socket of `brick run --live`, found none", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// A socket is there, and nobody listens.
    #[error("the run at {} is gone; its socket is left over", path.display())]
    Stale {
        /// Where.
        path: PathBuf,
    },
    /// The socket is there and refuses.
    #[error("cannot attach to {}: {source}", path.display())]
    Attach {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The directory of sockets cannot be read.
    #[error("cannot list the runs in {}: {source}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// This system has no Unix-domain sockets.
    #[error(
        "watching another process needs Unix-domain sockets, which brick does not use on this system; `brick top MODEL` works"
    )]
    Unsupported,
}

/// Where the run of a process publishes.
pub fn path_of(directory: &Path, pid: u32) -> PathBuf {
    directory.join(format!("{pid}.sock"))
}
