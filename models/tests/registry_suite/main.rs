//! The registry from outside: a local HTTP server in the place of the model hub, scripts in the place of pip and npm,
//! a second process in the place of the second user.

#![allow(clippy::unwrap_used)]

mod cache;
mod convert;
mod hub;
#[cfg(unix)]
mod packages;
mod processes;
mod real;
mod server;
mod support;
