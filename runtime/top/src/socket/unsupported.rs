//! The same interface where there are no Unix-domain sockets: everything refuses.

use std::path::Path;
use std::time::Duration;

use super::{Running, SocketError};
use crate::live::Tap;
use crate::snapshot::Snapshot;
use crate::wire::WireError;

/// A run that others can watch: none can, here.
#[derive(Debug)]
pub enum Publisher {}

impl Publisher {
    /// Refuses.
    ///
    /// # Errors
    /// Always [`SocketError::Unsupported`].
    pub fn open(_: &Path) -> Result<(Self, Tap), SocketError> {
        Err(SocketError::Unsupported)
    }

    /// The socket.
    pub fn path(&self) -> &Path {
        match *self {}
    }
}

/// A connection to a run: there is none, here.
#[derive(Debug)]
pub enum Attachment {}

/// Ends a connection from another thread.
#[derive(Debug)]
pub enum Closer {}

impl Closer {
    /// A read that waits returns.
    pub fn close(&self) {
        match *self {}
    }
}

impl Attachment {
    /// Refuses.
    ///
    /// # Errors
    /// Always [`SocketError::Unsupported`].
    pub fn open(_: &Path, _: Option<Duration>) -> Result<Self, SocketError> {
        Err(SocketError::Unsupported)
    }

    /// Something that ends this connection from another thread.
    ///
    /// # Errors
    /// Never: there is no connection.
    pub fn closer(&self) -> std::io::Result<Closer> {
        match *self {}
    }

    /// The next frame.
    ///
    /// # Errors
    /// Never: there is no connection.
    pub fn next_frame(&mut self) -> Result<Option<Snapshot>, WireError> {
        match *self {}
    }
}

/// The runs that can be watched.
///
/// # Errors
/// Always [`SocketError::Unsupported`].
pub fn running(_: &Path) -> Result<Vec<Running>, SocketError> {
    Err(SocketError::Unsupported)
}
