//! The engine: one entry, [`Engine::forward`], for prompts, decoding, and several sequences at once.
//!
//! What computes is behind it: the threads of this machine (`cpu`), or a GPU ([`crate::cuda`]).

mod cpu;
mod error;
mod observe;
mod options;
mod shape;

use std::sync::Arc;

use brick_cuda::Device;
use brick_cuda::driver::Cuda;
use brick_graphs::Graph;
use brick_profiler::{NoRecord, Phase, Recorder, StepInfo};
use bricks::cpu::attention::KvType;

use crate::batch::Batch;
use crate::cuda::{self, GpuError, GpuOptions, GpuRunner, GreedyRow, UploadProgress};
use crate::kv::{KvCache, SequenceId};
use crate::plan::Plan;
use crate::weights::{PackedWeights, Weights};

use cpu::Cpu;
use shape::{kv_shape, vocab};

pub use error::EngineError;
pub use observe::{NoObserver, Observer, StepView};
pub use options::{DeviceChoice, EngineOptions, default_threads};

/// Logits of the wanted rows of the last forward call, in batch order.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    data: &'a [f32],
    vocab: usize,
}

impl<'a> Logits<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.data.len() / self.vocab
    }

    /// Whether no logits were wanted.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Logits of the `i`-th wanted row, one per token of the vocabulary.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.data[i * self.vocab..(i + 1) * self.vocab]
    }

    /// Logits of the last wanted row.
    pub fn last(&self) -> Option<&'a [f32]> {
        self.len().checked_sub(1).map(|i| self.row(i))
    }
}

/// A plan with everything it needs to run: weights, working memory, KV cache, threads or a GPU.
pub struct Engine {
    backend: Backend,
    kv: KvCache,
    vocab: usize,
    max_rows: usize,
    max_wanted: usize,
    /// Batch rows whose logits are wanted; kept between calls for its memory.
    wanted: Vec<usize>,
    /// Why the CPU computes although a GPU might have.
    fallback: Option<String>,
}

/// What computes.
enum Backend {
    Cpu(Box<Cpu>),
    Gpu(Box<GpuRunner>),
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("steps", &self.steps().len())
            .field("device", &self.device())
            .field("kv", &self.kv.shape())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Lowers `graph`, packs its weights, and allocates everything it will ever need.
    ///
    /// # Errors
    /// When the graph cannot be lowered, memory is short, or threads cannot be started.
    pub fn new(graph: &Graph, weights: Arc<dyn Weights>, options: &EngineOptions) -> Result<Self, EngineError> {
        Self::sharing(graph, weights, None, options)
    }

    /// As [`Engine::new`], with weights that another engine has packed (if they are those of `graph`).
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn sharing(
        graph: &Graph,
        weights: Arc<dyn Weights>,
        packed: Option<Arc<PackedWeights>>,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let gpu = |ordinal| -> Result<Self, EngineError> {
            let device = Cuda::open(ordinal).map_err(GpuError::from)?;
            let mut told = |done, total| {
                if let Some(uploaded) = options.uploaded {
                    uploaded(done, total);
                }
            };
            Self::on_device(graph, &*weights, options, Box::new(device), &mut told)
        };
        let fallback = match options.device {
            DeviceChoice::Cpu => None,
            DeviceChoice::Cuda(ordinal) => return gpu(ordinal),
            DeviceChoice::Auto => match gpu(0) {
                Ok(engine) => return Ok(engine),
                Err(e) => Some(e.to_string()),
            },
        };
        Ok(Self { fallback, ..Self::on_cpu(graph, weights, packed, options)? })
    }

    fn on_cpu(
        graph: &Graph,
        weights: Arc<dyn Weights>,
        packed: Option<Arc<PackedWeights>>,
        options: &EngineOptions,
    ) -> Result<Self, EngineError> {
        let kv_shape = kv_shape(graph, options.kv_type)?;
        let vocab = vocab(graph)?;
        let cpu = Cpu::new(graph, weights, packed, options, kv_shape)?;
        let kv = KvCache::new(kv_shape, options.context.max(1), options.sequences.max(1))?;
        Ok(Self::of(Backend::Cpu(Box::new(cpu)), kv, vocab, options))
    }

    fn of(backend: Backend, kv: KvCache, vocab: usize, options: &EngineOptions) -> Self {
        let wanted = Vec::with_capacity(options.most_wanted());
        let (max_rows, max_wanted) = (options.most_rows(), options.most_wanted());
        Self { backend, kv, vocab, max_rows, max_wanted, wanted, fallback: None }
    }

    /// As [`Engine::new`], on a device that is open already, whatever [`EngineOptions::device`] says.
    ///
    /// # Errors
    /// When the graph cannot be lowered to it, or its memory is short.
    pub fn on_device(
        graph: &Graph,
        weights: &dyn Weights,
        options: &EngineOptions,
        device: Box<dyn Device>,
        progress: &mut dyn UploadProgress,
    ) -> Result<Self, EngineError> {
        if options.kv_type != KvType::F16 {
            return Err(EngineError::GpuKvType(options.kv_type));
        }
        if options.keep_values {
            return Err(EngineError::CpuOnly("values are kept"));
        }
        let (context, sequences) = (options.context.max(1), options.sequences.max(1));
        let gpu_options = GpuOptions {
            max_rows: options.most_rows(),
            max_wanted: options.most_wanted(),
            context,
            sequences,
            processors: device.about().processors,
            streamed_columns: options.streamed_columns,
            stamps: options.stamps,
        };
        let plan = cuda::lower(graph, weights, &gpu_options)?;
        let kv = KvCache::on_device(kv_shape(graph, options.kv_type)?, context, sequences)?;
        let vocab = vocab(graph)?;
        let runner = GpuRunner::new(device, plan, weights, options.threads.max(1), progress)?;
        Ok(Self::of(Backend::Gpu(Box::new(runner)), kv, vocab, options))
    }

    /// The packed weights, for another engine on the same model; none if they are on a GPU.
    pub fn packed(&self) -> Option<&Arc<PackedWeights>> {
        match &self.backend {
            Backend::Cpu(cpu) => Some(cpu.packed()),
            Backend::Gpu(_) => None,
        }
    }

    /// What computes, in words: `cpu avx512-vnni`, `cuda NVIDIA H200`.
    pub fn device(&self) -> String {
        match &self.backend {
            Backend::Cpu(cpu) => format!("cpu {}", cpu.plan().simd.name()),
            Backend::Gpu(runner) => {
                let about = runner.device().about();
                format!("{} {}", about.backend, about.name)
            }
        }
    }

    /// Why the CPU computes, if [`DeviceChoice::Auto`] found no GPU that would.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The GPU's side, if a GPU computes.
    pub fn gpu(&self) -> Option<&GpuRunner> {
        match &self.backend {
            Backend::Cpu(_) => None,
            Backend::Gpu(runner) => Some(runner),
        }
    }

    /// The GPU's side, if a GPU computes.
    pub fn gpu_mut(&mut self) -> Option<&mut GpuRunner> {
        match &mut self.backend {
            Backend::Cpu(_) => None,
            Backend::Gpu(runner) => Some(runner),
        }
    }

    /// What a forward call does, step by step, as the profiler sees it.
    pub fn steps(&self) -> &[StepInfo] {
        match &self.backend {
            Backend::Cpu(cpu) => &cpu.plan().info,
            Backend::Gpu(runner) => &runner.plan().info,
        }
    }

    /// Rows of the largest batch.
    pub fn max_rows(&self) -> usize {
        self.max_rows
    }

    /// Rows of a batch whose logits may be wanted.
    pub fn max_wanted(&self) -> usize {
        self.max_wanted
    }

    /// The plan of the CPU.
    ///
    /// # Errors
    /// [`EngineError::CpuOnly`] if a GPU computes; its plan is [`GpuRunner::plan`].
    pub fn plan(&self) -> Result<&Plan, EngineError> {
        match &self.backend {
            Backend::Cpu(cpu) => Ok(cpu.plan()),
            Backend::Gpu(_) => Err(EngineError::CpuOnly("the CPU's plan can be looked at")),
        }
    }

    /// The CPU's side, to break its plan on purpose.
    pub(crate) fn cpu_mut(&mut self) -> Result<&mut Cpu, EngineError> {
        match &mut self.backend {
            Backend::Cpu(cpu) => Ok(cpu),
            Backend::Gpu(_) => Err(EngineError::CpuOnly("the CPU's plan can be changed")),
        }
    }

    /// Rows of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Cpu(cpu) => cpu.threads(),
            Backend::Gpu(_) => 1,
        }
    }

    /// Sequences and their positions.
    pub fn kv(&self) -> &KvCache {
        &self.kv
    }

    /// Sequences and their positions: create, fork, truncate, release.
    pub fn kv_mut(&mut self) -> &mut KvCache {
        &mut self.kv
    }

    /// Starts an empty sequence.
    ///
    /// # Errors
    /// When all sequences are in use.
    pub fn new_sequence(&mut self) -> Result<SequenceId, EngineError> {
        Ok(self.kv.create()?)
    }

    /// Runs the plan on a batch and gives the logits of its wanted rows.
    ///
    /// The bits of a row's logits do not depend on the rest of the batch, on the number of threads, or on how the tokens
    /// before it were cut into calls. Allocates nothing and takes no lock.
    ///
    /// # Errors
    /// A bad batch (empty, too large, token outside the vocabulary, wrong position), a full context or cache. The sequences
    /// are then as before the call.
    pub fn forward<R: Recorder + Send>(&mut self, batch: &Batch, recorder: &mut R) -> Result<Logits<'_>, EngineError> {
        self.forward_observed(batch, recorder, &mut NoObserver)
    }

    /// [`Engine::forward`] without recording.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn forward_quiet(&mut self, batch: &Batch) -> Result<Logits<'_>, EngineError> {
        self.forward(batch, &mut NoRecord)
    }

    /// [`Engine::forward`] with an observer of the values after every step.
    ///
    /// # Errors
    /// As [`Engine::forward`].
    pub fn forward_observed<R: Recorder, O: Observer>(
        &mut self,
        batch: &Batch,
        recorder: &mut R,
        observer: &mut O,
    ) -> Result<Logits<'_>, EngineError> {
        self.admit(batch)?;
        if R::ENABLED {
            recorder.begin_forward(&batch.extent(), phase(batch));
        }
        let wanted = &self.wanted;
        let result = match &mut self.backend {
            Backend::Cpu(cpu) => {
                cpu.forward(batch, wanted, &mut self.kv, recorder, observer).map_err(EngineError::from)
            }
            Backend::Gpu(_) if O::ENABLED => Err(EngineError::CpuOnly("values between steps can be looked at")),
            Backend::Gpu(runner) => runner.forward(batch.rows(), wanted, &mut self.kv, recorder).map_err(Into::into),
        };
        if let Err(e) = result {
            self.roll_back(batch, batch.len());
            return Err(e);
        }
        Ok(self.logits())
    }

    /// The logits of the last successful call.
    pub fn logits(&self) -> Logits<'_> {
        let data = match &self.backend {
            Backend::Cpu(cpu) => cpu.logits(),
            Backend::Gpu(runner) => runner.logits(),
        };
        Logits { data, vocab: self.vocab }
    }

    /// Decodes sequences greedily on a GPU, for at most `steps` tokens each: every token goes into the next step on the device, and
    /// the host reads it some steps later. `rows` are sequences with the token that comes next in each; `on_step` gets a token per
    /// sequence, and says whether to go on.
    ///
    /// Every sequence then holds the tokens that went into the steps that `on_step` saw. Gives their number.
    ///
    /// # Errors
    /// [`EngineError::CpuOnly`] without a GPU, a full context, or a failure of the device; the sequences are then as before.
    pub fn decode_greedy(
        &mut self,
        rows: &[(SequenceId, u32)],
        steps: usize,
        on_step: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<usize, EngineError> {
        let Backend::Gpu(runner) = &mut self.backend else {
            return Err(EngineError::CpuOnly("steps follow each other one by one"));
        };
        let mut greedy = Vec::with_capacity(rows.len());
        for (row, &(sequence, token)) in rows.iter().enumerate() {
            if token as usize >= self.vocab {
                return Err(EngineError::Token { row, token, vocab: self.vocab });
            }
            greedy.push(GreedyRow { sequence: sequence.0, token, position: self.kv.len(sequence)? });
        }
        let back = |kv: &mut KvCache, seen: usize| {
            for (row, &(sequence, _)) in greedy.iter().zip(rows) {
                // Each was there a moment ago.
                let _ = kv.truncate(sequence, row.position + seen);
            }
        };
        let mut room = Ok(());
        for (row, &(sequence, _)) in greedy.iter().zip(rows) {
            for step in 0..steps {
                room = room.and_then(|()| self.kv.append(sequence, row.position + step));
            }
        }
        let result = match room {
            Ok(()) => runner.greedy(&greedy, steps, &mut self.kv, on_step).map_err(EngineError::from),
            Err(e) => Err(e.into()),
        };
        back(&mut self.kv, *result.as_ref().unwrap_or(&0));
        result
    }

    /// Checks a batch and makes room for its rows.
    fn admit(&mut self, batch: &Batch) -> Result<(), EngineError> {
        let rows = batch.rows();
        if rows.is_empty() {
            return Err(EngineError::EmptyBatch);
        }
        let too_large = |what, found, limit| EngineError::BatchTooLarge { what, found, limit };
        if rows.len() > self.max_rows {
            return Err(too_large("rows", rows.len(), self.max_rows));
        }
        let wanted = batch.wanted();
        if wanted > self.max_wanted {
            return Err(too_large("rows with wanted logits", wanted, self.max_wanted));
        }
        if let Some((row, r)) = rows.iter().enumerate().find(|(_, r)| r.token as usize >= self.vocab) {
            return Err(EngineError::Token { row, token: r.token, vocab: self.vocab });
        }
        for (i, r) in rows.iter().enumerate() {
            if let Err(e) = self.kv.append(r.sequence, r.position) {
                self.roll_back(batch, i);
                return Err(e.into());
            }
        }
        self.wanted.clear();
        self.wanted.extend(rows.iter().enumerate().filter(|(_, r)| r.wanted).map(|(i, _)| i));
        Ok(())
    }

    /// Takes back the first `n` rows of a batch.
    fn roll_back(&mut self, batch: &Batch, n: usize) {
        for r in batch.rows()[..n].iter().rev() {
            // The row was admitted, so its sequence exists.
            let _ = self.kv.truncate(r.sequence, r.position);
        }
    }
}

/// A batch is decoding when no two rows belong to the same sequence; a prompt when only one sequence is in it.
fn phase(batch: &Batch) -> Phase {
    let rows = batch.rows();
    let same = |w: &[crate::batch::Row]| w[0].sequence == w[1].sequence;
    if !rows.windows(2).any(same) {
        Phase::Decode
    } else if rows.windows(2).all(same) {
        Phase::Prefill
    } else {
        Phase::Mixed
    }
}
