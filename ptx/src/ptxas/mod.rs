//! What NVIDIA's assembler makes of a text: resources and instructions of the hardware, without a GPU.
//!
//! `ptxas` turns PTX into machine code, and says how many registers it takes and whether they spill; `nvdisasm` shows the
//! code. Both are deterministic, so their numbers are compared exactly: a lost vector load or a first spill fails a test
//! on any machine. Neither program is part of brick: their licence does not allow it. They are looked for ([`Search`]) and,
//! if one asks, fetched from the Python package index:
//!
//! ```sh
//! cargo run -p brick-ptx --example fetch_ptxas     # once
//! REQUIRE_PTXAS=1 cargo test -p brick-ptx          # without it, tests that lack the programs say that they skip
//! ```
//!
//! ```no_run
//! use brick_ptx::ir::Arch;
//! use brick_ptx::ptxas::Tools;
//!
//! let tools = Tools::find()?;
//! let assembled = tools.assemble(".version 8.0\n.target sm_80\n.address_size 64\n", Arch::Sm90)?;
//! for resources in &assembled.resources {
//!     println!("{resources}");
//! }
//! # Ok::<(), brick_ptx::ptxas::PtxasError>(())
//! ```

mod assemble;
mod error;
mod fetch;
mod locate;
mod occupancy;
mod sass;

pub use assemble::{Assembled, Resources};
pub use error::PtxasError;
pub use locate::{Search, Tools};
pub use sass::{Histogram, Sass, SassInst};
