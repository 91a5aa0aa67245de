//! The backend for GPUs: the plan lowered to launches, the decode step captured once and replayed.
//!
//! ```text
//! Graph ── lower ──▶ GpuPlan ── Launcher(extent) ──▶ launches ── Device ──▶ CUDA │ interpreter │ recorder
//! ```
//!
//! The same fused graph that the CPU runs is lowered to nodes ([`plan`]), each a launch or two of kernels of `brick-ptx`. What a call
//! launches follows from the plan and the call's [`plan::Extent`]: rows in chunks of 1, 2, 4 or 8, how far attention reaches,
//! whether logits or only the largest of them are wanted. Where every row's logits are wanted and there are at most
//! [`plan::MAX_CAPTURED`] rows (decoding, and checking of drafts), the launches are captured once per extent and replayed;
//! positions, tokens and block tables are read from device memory. Prompts are launched one by one.
//!
//! Every row is computed by kernels whose sums do not depend on the other rows, so, as on the CPU, the bits of a row's logits do not
//! depend on the rest of the batch or on how a prompt was cut.
//!
//! The device has an arena each for weights, KV pages and activations; nothing is allocated after the engine is made, but pinned memory of
//! the host for copies, and captured graphs.

pub mod certify;
mod launch;
mod lower;
pub mod plan;
mod runner;
pub mod stamps;
mod weights;

pub use launch::LaunchError;
pub use lower::{GpuOptions, format_of, lower};
pub use runner::{GpuCounts, GpuError, GpuRunner, GreedyRow};
pub use weights::{UploadError, UploadProgress};
