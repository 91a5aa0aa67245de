//! The `brick` program from outside: commands as a user types them, what they print, how they end.
//!
//! One binary, so that it is linked once. Most tests run on tiny models made on the spot ([`tiny`]) or kept in the
//! repository; those in [`real`] fetch SmolLM2 135M into the user's own cache if it is not there yet.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod bad_files;
mod bad_usage;
mod bench;
mod check;
mod gate;
mod generate;
mod gpu;
mod help;
mod inspect;
mod otlp;
mod profile;
mod ptx;
mod real;
mod registry;
mod report;
mod server;
mod shell;
mod signals;
mod synthetic;
mod tiny;
mod tokenize;
mod top;
mod trace;
