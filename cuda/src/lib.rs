//! *Where GPU kernels run*: one interface, [`Device`], and three machines behind it.
//!
//! | device | what it is |
//! | --- | --- |
//! | [`driver::Cuda`] | an NVIDIA GPU, through the driver's library, which is opened at run time |
//! | [`interp::Interp`] | the interpreter of `brick-ptx`: every launch is executed and checked, without a GPU |
//! | [`noop::Noop`] | records what it is told, and computes nothing: launch lists and capture sequences as text |
//!
//! What lowers a graph to launches ([`brick-runtime`]) sees the interface only, so what is tested on the interpreter is what runs on a
//! GPU: the same texts, launches, arguments and order.
//!
//! [`conform`] runs the launch that every shipped kernel carries on a device and compares the results with the interpreter's;
//! [`calibrate`](mod@calibrate) measures the limits of a device that speed is compared with.
//!
//! [`brick-runtime`]: https://github.com/brick-rs/brick/tree/main/runtime

pub mod calibrate;
pub mod conform;
pub mod device;
pub mod driver;
pub mod error;
pub mod interp;
pub mod noop;
pub mod rates;

pub use device::{About, Access, Arg, Captured, Device, KernelId, Launch, Mark, Place, Ptr, Region, Ticket};
pub use error::DeviceError;
