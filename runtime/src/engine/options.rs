//! How an engine is set up.

use std::sync::OnceLock;

use brick_profiler::machine::CpuTopology;
use bricks::cpu::SimdLevel;
use bricks::cpu::attention::KvType;

/// Where an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// On this machine's processors.
    #[default]
    Cpu,
    /// On the GPU of this number, or not at all.
    Cuda(usize),
    /// On the first GPU if there is one that can, else on the processors ([`Engine::fallback`](super::Engine::fallback) then says why).
    Auto,
}

/// How an engine is set up.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Threads, the caller's included.
    pub threads: usize,
    /// Binds threads to cores where they fill them (Linux); the caller's own thread is never bound.
    pub pin: bool,
    /// Positions each sequence may have.
    pub context: usize,
    /// Sequences alive at the same time.
    pub sequences: usize,
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Rows of a batch whose logits may be wanted.
    pub max_wanted: usize,
    /// SIMD level of the kernels.
    pub simd: SimdLevel,
    /// Element type of the KV cache.
    pub kv_type: KvType,
    /// Keeps every value of a forward call (for checks and traces); costs memory.
    pub keep_values: bool,
    /// Where the engine computes.
    pub device: DeviceChoice,
    /// Most columns that a GPU's matrix kernels normalise and round themselves where rows are few: every block of the grid does it for
    /// all, and beyond, a launch of its own is cheaper. Changes the speed, never a bit of the results.
    pub streamed_columns: usize,
    /// On a GPU, captured steps run kernels whose blocks note when and where they ran
    /// ([`GpuRunner::stamps`](crate::cuda::GpuRunner::stamps)): slower by some microseconds, and the host reads the notes behind every
    /// step. Off, nothing of it exists.
    pub stamps: bool,
    /// Told how many bytes of weights are on a GPU, of how many, while they are brought there.
    pub uploaded: Option<fn(u64, u64)>,
}

/// Measured on an H200, a model of 1.5 billion weights: 8960 columns rounded by their readers cost 70 of 760 µs per token.
const STREAMED_COLUMNS: usize = 4096;

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            threads: default_threads(),
            pin: true,
            context: 2048,
            sequences: 1,
            max_rows: 512,
            max_wanted: 8,
            simd: SimdLevel::detect(),
            kv_type: KvType::F16,
            keep_values: false,
            device: DeviceChoice::Cpu,
            streamed_columns: STREAMED_COLUMNS,
            stamps: false,
            uploaded: None,
        }
    }
}

impl EngineOptions {
    /// [`max_rows`](Self::max_rows), at least one.
    pub(super) fn most_rows(&self) -> usize {
        self.max_rows.max(1)
    }

    /// [`max_wanted`](Self::max_wanted), at least one and at most as many as rows.
    pub(super) fn most_wanted(&self) -> usize {
        self.max_wanted.clamp(1, self.most_rows())
    }
}

/// Threads that compute at full speed side by side: one per physical core that this process may use, and no more than its
/// CPU quota pays for.
pub fn default_threads() -> usize {
    topology().useful_threads()
}

/// The machine, asked once: it takes some fifty files of the system.
pub(super) fn topology() -> &'static CpuTopology {
    static TOPOLOGY: OnceLock<CpuTopology> = OnceLock::new();
    TOPOLOGY.get_or_init(CpuTopology::detect)
}
