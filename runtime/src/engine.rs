//! The engine: one entry, [`Engine::forward`], for prompts, decoding, and several sequences at once.

use std::sync::{Arc, OnceLock};

use brick_cuda::Device;
use brick_cuda::driver::Cuda;
use brick_graphs::{Graph, WeightId};
use brick_profiler::machine::CpuTopology;
use brick_profiler::{Arrivals, NoRecord, Phase, Recorder};
use bricks::Op;
use bricks::cpu::SimdLevel;
use bricks::cpu::attention::{KvLayout, KvType};
use bricks::cpu::gang::{Gang, GangPanic, Member};

use crate::arena::{Arena, ArenaError};
use crate::batch::Batch;
use crate::cuda::{self, GpuError, GpuOptions, GpuRunner, GreedyRow, UploadProgress};
use crate::exec::{Call, Tiling};
use crate::kv::{KvCache, KvError, KvShape, SequenceId};
use crate::plan::{LowerError, LowerOptions, Plan, lower};
use crate::weights::{PackError, PackedWeights, Weights};

/// Where an engine computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// On this machine's processors.
    #[default]
    Cpu,
    /// On the GPU of this number, or not at all.
    Cuda(usize),
    /// On the first GPU if there is one that can, else on the processors ([`Engine::fallback`] then says why).
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
            uploaded: None,
        }
    }
}

/// Threads that compute at full speed side by side: one per physical core that this process may use, and no more than its
/// CPU quota pays for.
pub fn default_threads() -> usize {
    topology().useful_threads()
}

/// The machine, asked once: it takes some fifty files of the system.
fn topology() -> &'static CpuTopology {
    static TOPOLOGY: OnceLock<CpuTopology> = OnceLock::new();
    TOPOLOGY.get_or_init(CpuTopology::detect)
}

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

/// Sees the values of a forward call after every step. For checks and traces; [`NoObserver`] compiles to nothing.
pub trait Observer {
    /// Whether anything is observed at all.
    const ENABLED: bool;
    /// Step `step` has finished on all threads.
    fn after_step(&mut self, step: usize, view: &StepView<'_>);
}

/// Observes nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    const ENABLED: bool = false;
    #[inline(always)]
    fn after_step(&mut self, _: usize, _: &StepView<'_>) {}
}

/// Read access to a running call, between two steps.
pub struct StepView<'a> {
    pub(crate) call: &'a Call<'a>,
}

impl StepView<'_> {
    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        self.call.plan
    }

    /// The batch.
    pub fn rows(&self) -> &[crate::batch::Row] {
        self.call.rows
    }

    /// Rows whose logits are wanted.
    pub fn wanted(&self) -> &[usize] {
        self.call.wanted
    }

    /// Row `t` of a buffer. Meaningful for inputs and outputs of the step just done (and for all earlier ones in an engine
    /// made with `keep_values`).
    pub fn row(&self, slot: crate::plan::Slot, t: usize) -> &[f32] {
        self.call.row(slot, t)
    }

    /// The KV cache.
    pub fn kv(&self) -> &KvCache {
        self.call.kv()
    }

    /// Bytes of a weight.
    pub fn weight(&self, id: WeightId) -> &[u8] {
        self.call.weights.bytes(id)
    }
}

/// A plan with everything it needs to run: weights, working memory, KV cache, threads or a GPU.
pub struct Engine {
    plan: Plan,
    kv: KvCache,
    vocab: usize,
    /// Batch rows whose logits are wanted; kept between calls for its memory.
    wanted: Vec<usize>,
    logits_rows: usize,
    backend: Backend,
    /// Why the CPU computes although a GPU might have.
    fallback: Option<String>,
}

/// What computes.
enum Backend {
    Cpu(Box<Cpu>),
    Gpu(Box<GpuRunner>),
}

/// The threads of this machine, and their memory.
struct Cpu {
    weights: Arc<dyn Weights>,
    packed: Arc<PackedWeights>,
    arena: Arena,
    gang: Gang,
    tiling: Tiling,
    /// The embedding table, and its rows that were read since its memory was given back.
    table: Option<WeightId>,
    table_reads: usize,
}

/// Rows of the embedding table after whose reading its memory is given back: each brings 64 KiB of the file with it, and a
/// system call in so many tokens is nothing.
const TABLE_READS: usize = 32;

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("steps", &self.plan.info.len())
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
        let threads = options.threads.max(1);
        let max_rows = options.max_rows.max(1);
        let lower_options = LowerOptions {
            max_rows,
            max_wanted: options.max_wanted.clamp(1, max_rows),
            threads,
            simd: options.simd,
            keep_values: options.keep_values,
            context: options.context.max(1),
            kv_type: options.kv_type,
        };
        let shape = kv_shape(graph, options.kv_type)?;
        let vocab = vocab(graph)?;
        let plan = lower(graph, &*weights, &lower_options)?;
        let arena = Arena::new(plan.arena_bytes)?;
        let kv = KvCache::new(shape, options.context.max(1), options.sequences.max(1))?;
        let limits = plan.attention;
        let tiling = Tiling::new(limits.tile_rows, shape.n_kv_heads, limits.records, max_rows);
        let cpus = if options.pin && threads > 1 { topology().pin_to(threads) } else { Vec::new() };
        let mut gang = Gang::with_cpus(threads, &cpus).map_err(|source| EngineError::Threads { threads, source })?;
        let packed = match packed {
            Some(packed) if packed.covers(graph) => packed,
            _ => Arc::new(PackedWeights::new(graph, &*weights, &mut gang)?),
        };
        let wanted = Vec::with_capacity(plan.max_wanted);
        let table = graph.bricks().find(|b| matches!(b.op, Op::Embed { .. })).and_then(|b| b.weights.first().copied());
        let cpu = Cpu { weights, packed, arena, gang, tiling, table, table_reads: 0 };
        let backend = Backend::Cpu(Box::new(cpu));
        Ok(Self { plan, kv, vocab, wanted, logits_rows: 0, backend, fallback: None })
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
        let max_rows = options.max_rows.max(1);
        let max_wanted = options.max_wanted.clamp(1, max_rows);
        let (context, sequences) = (options.context.max(1), options.sequences.max(1));
        let processors = device.about().processors;
        let streamed_columns = options.streamed_columns;
        let gpu_options = GpuOptions { max_rows, max_wanted, context, sequences, processors, streamed_columns };
        let gpu = cuda::lower(graph, weights, &gpu_options)?;
        let kv = KvCache::on_device(kv_shape(graph, options.kv_type)?, context, sequences)?;
        let vocab = vocab(graph)?;
        let plan = Plan::of_gpu(&gpu, max_rows, max_wanted);
        let runner = GpuRunner::new(device, gpu, weights, options.threads.max(1), progress)?;
        let backend = Backend::Gpu(Box::new(runner));
        let wanted = Vec::with_capacity(max_wanted);
        Ok(Self { plan, kv, vocab, wanted, logits_rows: 0, backend, fallback: None })
    }

    /// The packed weights, for another engine on the same model; none if they are on a GPU.
    pub fn packed(&self) -> Option<&Arc<PackedWeights>> {
        match &self.backend {
            Backend::Cpu(cpu) => Some(&cpu.packed),
            Backend::Gpu(_) => None,
        }
    }

    /// What computes, in words: `cpu avx512-vnni`, `cuda NVIDIA H200`.
    pub fn device(&self) -> String {
        match &self.backend {
            Backend::Cpu(_) => format!("cpu {}", self.plan.simd.name()),
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

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The plan, to break it on purpose.
    pub(crate) fn plan_mut(&mut self) -> &mut Plan {
        &mut self.plan
    }

    /// Gives the plan working memory of `bytes` behind its own, for buffers added on purpose.
    pub(crate) fn grow_arena(&mut self, bytes: usize) -> Result<(), EngineError> {
        if let Backend::Cpu(cpu) = &mut self.backend {
            cpu.arena = Arena::new(self.plan.arena_bytes.saturating_add(bytes))?;
        }
        self.logits_rows = 0;
        Ok(())
    }

    /// Rows of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Threads that compute, the caller's included.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Cpu(cpu) => cpu.gang.size(),
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
                cpu.walk(&self.plan, batch, wanted, &mut self.kv, recorder, observer).map_err(EngineError::from)
            }
            Backend::Gpu(_) if O::ENABLED => Err(EngineError::CpuOnly("values between steps can be looked at")),
            Backend::Gpu(runner) => runner.forward(batch.rows(), wanted, &mut self.kv, recorder).map_err(Into::into),
        };
        if let Err(e) = result {
            self.roll_back(batch, batch.len());
            return Err(e);
        }
        self.logits_rows = self.wanted.len();
        if let Backend::Cpu(cpu) = &mut self.backend {
            cpu.count_reads(batch.len());
        }
        Ok(self.logits())
    }

    /// The logits of the last successful call.
    pub fn logits(&self) -> Logits<'_> {
        let floats = self.logits_rows * self.vocab;
        let data = match &self.backend {
            // SAFETY: no call is running (`&self`, calls take `&mut self`), so nobody writes the arena.
            Backend::Cpu(cpu) => unsafe { cpu.arena.slice::<f32>(self.plan.logits.offset, floats) },
            Backend::Gpu(runner) => &runner.logits()[..floats.min(runner.logits().len())],
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
        self.logits_rows = 0;
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
        if rows.len() > self.plan.max_rows {
            return Err(too_large("rows", rows.len(), self.plan.max_rows));
        }
        let wanted = batch.wanted();
        if wanted > self.plan.max_wanted {
            return Err(too_large("rows with wanted logits", wanted, self.plan.max_wanted));
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

impl Cpu {
    /// All threads walk the step list together; the leader reads the clock at the barriers.
    fn walk<R: Recorder, O: Observer>(
        &mut self,
        plan: &Plan,
        batch: &Batch,
        wanted: &[usize],
        kv: &mut KvCache,
        recorder: &mut R,
        observer: &mut O,
    ) -> Result<(), GangPanic> {
        self.tiling.cut(batch.rows(), self.gang.size());
        let weights = (&*self.weights, &*self.packed);
        let call = Call::new(plan, &self.arena, weights, batch.rows(), wanted, kv, &self.tiling);
        let call = &call;
        let arrivals = &recorder.arrivals();
        self.gang.run(
            |m| {
                for (i, step) in call.plan.steps.iter().enumerate() {
                    call.step(step, m);
                    arrivals.arrive(m.index(), i);
                    m.barrier();
                    recorder.step_done(i);
                    if O::ENABLED {
                        observer.after_step(i, &StepView { call });
                        // The others wait here, or they would run ahead into the buffers being looked at.
                        m.barrier();
                    }
                }
                // Here, not after the gang has come apart: the results are complete at the last barrier.
                if R::ENABLED {
                    recorder.end_forward();
                }
            },
            |m: &Member<'_>| {
                for (i, step) in call.plan.steps.iter().enumerate() {
                    call.step(step, m);
                    arrivals.arrive(m.index(), i);
                    m.barrier();
                    if O::ENABLED {
                        m.barrier();
                    }
                }
            },
        )
    }

    /// Gives the embedding table's memory back once in a while.
    fn count_reads(&mut self, rows: usize) {
        self.table_reads += rows;
        if let Some(table) = self.table.filter(|_| self.table_reads >= TABLE_READS) {
            self.weights.release(table);
            self.table_reads = 0;
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

fn vocab(graph: &Graph) -> Result<usize, EngineError> {
    let embed = graph.bricks().find(|b| matches!(b.op, Op::Embed { .. }));
    let rows = embed.and_then(|b| b.weights.first()).map(|w| graph.weight(*w).shape.rows);
    let out = graph.value(graph.output()).ty.width();
    match (rows, out) {
        (Some(r), Some(o)) if r == o && r > 0 => Ok(r),
        (None, _) => Err(EngineError::Graph("it has no embedding brick".into())),
        (r, o) => Err(EngineError::Graph(format!(
            "the embedding has {} rows, the logits have {} columns",
            r.unwrap_or(0),
            o.unwrap_or(0)
        ))),
    }
}

/// The shape all KV writes of a graph agree on.
fn kv_shape(graph: &Graph, kv_type: KvType) -> Result<KvShape, EngineError> {
    let mut shape: Option<KvShape> = None;
    for b in graph.bricks() {
        if let Op::KvWrite { n_kv_heads, head_dim } | Op::RopeKvWrite { n_kv_heads, head_dim, .. } = b.op {
            let layers = b.layer.unwrap_or(0) as usize + 1;
            let layout = KvLayout::new(kv_type, head_dim)
                .map_err(|e| EngineError::Graph(format!("brick {}: a KV cache in {kv_type}: {e}", b.name)))?;
            let s = shape.get_or_insert(KvShape { layers, n_kv_heads, layout });
            if s.n_kv_heads != n_kv_heads || s.layout.head_dim() != head_dim {
                return Err(EngineError::Graph(format!(
                    "brick {}: {n_kv_heads} KV heads of {head_dim}, other layers have {} of {}",
                    b.name,
                    s.n_kv_heads,
                    s.layout.head_dim()
                )));
            }
            s.layers = s.layers.max(layers);
        }
    }
    shape.ok_or_else(|| EngineError::Graph("no brick writes a KV cache".into()))
}
