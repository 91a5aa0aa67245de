//! An interpreter of PTX text.

mod counts;
mod decode;
mod exec;
mod fault;
mod flow;
mod gpu;
mod memory;
mod module;
mod op;
mod race;
mod text;
mod ty;
mod unset;

pub use counts::{Class, Counts, LineCount, Traffic};
pub use exec::Schedule;
pub use fault::{Fault, FaultKind, Place, Thread, Verb};
pub use gpu::{Arg, Checks, Gpu, GpuError, Launch, Limits};
pub use memory::{Access, Buffer};
pub use module::Module;
pub use text::{ParseError, ParseErrorKind};
