//! The memories of the machine: bytes, which of them have a value, and what may be done with them.

mod cells;
mod global;
mod shared;

pub(crate) use cells::Cells;
pub(crate) use global::Global;
pub use global::{Access, Buffer};
pub(crate) use shared::Shared;
