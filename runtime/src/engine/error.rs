//! What can go wrong with an engine.

use bricks::cpu::attention::KvType;
use bricks::cpu::gang::GangPanic;

use crate::arena::ArenaError;
use crate::cuda::GpuError;
use crate::kv::KvError;
use crate::plan::LowerError;
use crate::weights::PackError;

/// An engine cannot be made, or a forward call failed. After a failed call the sequences are as before it.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The graph cannot be lowered.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// Weights cannot be packed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Working memory cannot be allocated.
    #[error(transparent)]
    Arena(#[from] ArenaError),
    /// The KV cache refused.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// A kernel panicked: a bug, please report it.
    #[error(transparent)]
    Panic(#[from] GangPanic),
    /// Threads cannot be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The graph is not a decoder this engine can run.
    #[error("unsupported graph: {0}")]
    Graph(String),
    /// A GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The GPU's KV cache has one type only.
    #[error("the GPU keeps keys and values in f16, found --kv-type {0}; leave it out, or use --device cpu")]
    GpuKvType(KvType),
    /// What only the CPU can do.
    #[error("{0} on the CPU only; use --device cpu")]
    CpuOnly(&'static str),
    /// A batch without rows.
    #[error("the batch is empty: a forward call needs at least one token")]
    EmptyBatch,
    /// A batch larger than the plan.
    #[error("the batch has {found} {what}, the plan was made for {limit}")]
    BatchTooLarge {
        /// Rows, or wanted rows.
        what: &'static str,
        /// In the batch.
        found: usize,
        /// In the plan.
        limit: usize,
    },
    /// A token id outside the vocabulary.
    #[error("row {row}: token {token} is outside the vocabulary of {vocab}")]
    Token {
        /// Row of the batch.
        row: usize,
        /// The id.
        token: u32,
        /// Vocabulary size.
        vocab: usize,
    },
}
