//! Running a plan on a device: eager launches for prompts, captured and replayed ones for what repeats.

mod replay;

use std::collections::{HashMap, VecDeque};

use brick_cuda::{Captured, Device, DeviceError, Launch, Mark, Place, Ptr, Ticket};
use brick_profiler::{Recorder, SyncMode};
use brick_ptx::kernels::attention::SPLIT;
use brick_ptx::kernels::kv::{INACTIVE, page_bytes};
use brick_ptx::kernels::step::Step;

use super::launch::{Kernels, LaunchError, Launcher, Regions};
use super::plan::{Chunks, Extent, GpuPlan, MAX_CAPTURED, MAX_STOPS};
use super::stamps::StepStamps;
use super::weights::{GpuWeights, UploadError, UploadProgress};
use crate::batch::Row;
use crate::kv::{BLOCK, KvCache};
use crate::weights::Weights;

/// Greedy steps that are asked for before the first of them is read.
const AHEAD: usize = 6;
/// What no token is: fills the list of tokens that end a sequence.
const NO_STOP: u32 = u32::MAX - 1;

/// The device failed, or a launch could not be made.
#[derive(Debug, thiserror::Error)]
pub enum GpuError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A launch.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Weights.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// All logits of a row are NaN.
    #[error("row {row}: all logits are NaN after position {position}")]
    NotANumber {
        /// Row of the batch.
        row: usize,
        /// Position of the token before.
        position: usize,
    },
    /// More rows than a captured step has.
    #[error("a greedy step takes 1 to {most} sequences, found {found}")]
    GreedyRows {
        /// Sequences.
        found: usize,
        /// Sequences that it takes.
        most: usize,
    },
}

/// What a runner did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuCounts {
    /// Steps that were captured: one per number of rows, reach of attention, and kind of step.
    pub captures: u64,
    /// Captured steps that ran.
    pub replays: u64,
    /// Steps whose launches were made one by one.
    pub eager: u64,
    /// Bytes of weights on the device.
    pub weight_bytes: u64,
    /// Bytes of the KV cache on the device.
    pub kv_bytes: u64,
    /// Bytes of activations on the device.
    pub activation_bytes: u64,
}

/// A sequence of a greedy run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GreedyRow {
    /// The sequence's line of the block table.
    pub sequence: u32,
    /// The token to go on from.
    pub token: u32,
    /// Its position.
    pub position: usize,
}

/// Marks in order, with the node that each is behind.
type Marks = Vec<(Option<usize>, Mark)>;

/// A plan on a device.
pub struct GpuRunner {
    device: Box<dyn Device>,
    plan: GpuPlan,
    regions: Regions,
    kernels: Kernels,
    graphs: HashMap<Extent, replay::Graph>,
    /// What the last replayed steps noted, oldest first, if the plan has stamps.
    stamps: VecDeque<StepStamps>,
    /// The block table as the device has it.
    table: Vec<u32>,
    logits: Vec<f32>,
    counts: GpuCounts,
    /// Whether steps that repeat are captured.
    capture: bool,
    /// Marks of launches that are made one by one.
    marks: Marks,
    /// Nanoseconds of each node in the running call.
    took: Vec<u64>,
    words: Vec<u32>,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for GpuRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GpuRunner")
            .field("about", self.device.about())
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl GpuRunner {
    /// Allocates weights, KV cache and activations, an arena each, and uploads the weights.
    pub(crate) fn new(
        mut device: Box<dyn Device>,
        plan: GpuPlan,
        weights: &dyn Weights,
        threads: usize,
        progress: &mut dyn UploadProgress,
    ) -> Result<Self, GpuError> {
        let kv = plan.kv;
        let layer_bytes = (kv.kv_heads * kv.blocks) as u64 * u64::from(page_bytes(kv.head_dim));
        // The small arenas first: that they do not fit is known before gigabytes are copied.
        let layers = Place::in_turn((0..kv.layers).map(|i| (format!("kv.{i}"), layer_bytes)));
        let kv_regions = device.arena("KV pages", &layers)?;
        let table_bytes = 4 * (kv.sequences * kv.table_width) as u64;
        let end = Place::end(&plan.buffers).next_multiple_of(Place::ALIGN);
        let mut places = plan.buffers.clone();
        places.push(Place { name: "block_table".into(), offset: end, bytes: table_bytes.max(4) });
        let mut buffers = device.arena("activations", &places)?;
        let block_table = buffers.pop().expect("invariant: the table was placed last");
        for (region, place) in buffers.iter().zip(&places) {
            device.clear(region.at(0), place.bytes)?;
        }
        // Pages that no token was written to are never read, but for the tail of a block, whose values are masked by a product
        // with zero: they have to be numbers.
        for region in &kv_regions {
            device.clear(region.at(0), layer_bytes)?;
        }
        let mut stops = Vec::with_capacity(4 * MAX_STOPS);
        (0..MAX_STOPS).for_each(|_| stops.extend(NO_STOP.to_le_bytes()));
        device.write(buffers[plan.step[2].0].at(0), &stops)?;
        let table = vec![0; kv.sequences * kv.table_width];
        device.clear(block_table.at(0), table_bytes)?;
        let weights = GpuWeights::upload(&mut *device, &plan, weights, threads, progress)?;
        let counts = GpuCounts {
            weight_bytes: weights.bytes(),
            kv_bytes: Place::end(&layers),
            activation_bytes: Place::end(&places),
            ..GpuCounts::default()
        };
        Ok(Self {
            device,
            plan,
            regions: Regions { weights, buffers, kv: kv_regions, block_table },
            kernels: Kernels::default(),
            graphs: HashMap::new(),
            stamps: VecDeque::new(),
            table,
            logits: Vec::new(),
            counts,
            capture: true,
            marks: Vec::new(),
            took: Vec::new(),
            words: Vec::new(),
            bytes: Vec::new(),
        })
    }

    /// The plan.
    pub fn plan(&self) -> &GpuPlan {
        &self.plan
    }

    /// The device.
    pub fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// The device, to ask it things that only it knows.
    pub fn device_mut(&mut self) -> &mut dyn Device {
        &mut *self.device
    }

    /// What was done so far.
    pub fn counts(&self) -> GpuCounts {
        self.counts
    }

    /// What the blocks of the last replayed steps noted, oldest first; none unless
    /// [`EngineOptions::stamps`](crate::EngineOptions::stamps) asked for it.
    pub fn stamps(&self) -> impl DoubleEndedIterator<Item = &StepStamps> + ExactSizeIterator {
        self.stamps.iter()
    }

    /// Captures and replays what repeats (the default), or launches everything one by one.
    pub fn set_capture(&mut self, capture: bool) {
        self.capture = capture;
    }

    /// Name and text of every kernel that was loaded.
    pub fn kernels(&self) -> &[(String, String)] {
        &self.kernels.texts
    }

    /// The launches of a decode step of one sequence that reads logits, in order: of which node, which kernel, and how.
    ///
    /// # Errors
    /// If a kernel cannot be loaded.
    pub fn decode_launches(&mut self) -> Result<Vec<(usize, String, Launch)>, GpuError> {
        let extent = Extent {
            rows: Chunks::of(1),
            wanted: None,
            context: self.reach(1, true),
            apart: true,
            greedy: false,
            timed: false,
        };
        let mut list = Vec::new();
        self.launcher(extent).step(&mut |_, node, launch| {
            list.push((node, launch.clone()));
            Ok(())
        })?;
        let named = |(node, launch): (usize, Launch)| (node, self.kernels.name(launch.kernel).to_owned(), launch);
        Ok(list.into_iter().map(named).collect())
    }

    /// The captured step of an extent as a graph in DOT, if there is one and the device can show it.
    ///
    /// # Errors
    /// Failures of the driver.
    pub fn dot(&self, extent: &Extent) -> Result<Option<String>, GpuError> {
        match self.graphs.get(extent) {
            Some(graph) => Ok(self.device.dot(graph.captured)?),
            None => Ok(None),
        }
    }

    /// What was captured, with the number of its launches.
    pub fn captured(&self) -> impl Iterator<Item = (&Extent, Captured, usize)> {
        self.graphs.iter().map(|(extent, graph)| (extent, graph.captured, graph.launches))
    }

    /// Logits of the wanted rows of the last call.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Runs rows whose places in the cache are there.
    pub(crate) fn forward<R: Recorder>(
        &mut self,
        rows: &[Row],
        wanted: &[usize],
        kv: &mut KvCache,
        recorder: &mut R,
    ) -> Result<(), GpuError> {
        self.logits.clear();
        self.pages(kv)?;
        self.block_table(rows.iter().map(|r| r.sequence.0), kv)?;
        let sync = if R::ENABLED { recorder.sync() } else { SyncMode::None };
        self.took.clear();
        self.took.resize(self.plan.nodes.len(), 0);
        let piece = self.plan.max_rows;
        for (i, part) in rows.chunks(piece).enumerate() {
            let range = i * piece..i * piece + part.len();
            let wanted: Vec<u32> =
                wanted.iter().filter(|w| range.contains(w)).map(|w| (w - range.start) as u32).collect();
            self.part(part, &wanted, sync)?;
        }
        if R::ENABLED {
            let mut at = 0;
            for (node, ns) in self.took.iter().enumerate() {
                at += ns;
                recorder.step_ended(node, at);
            }
            recorder.end_forward();
        }
        Ok(())
    }

    fn part(&mut self, rows: &[Row], wanted: &[u32], sync: SyncMode) -> Result<(), GpuError> {
        let chunks = Chunks::of(rows.len());
        let all = wanted.len() == rows.len();
        let reach = rows.iter().map(|r| r.position + 1).max().unwrap_or(1);
        // Where the host waits for nodes or layers, launches are made one by one.
        let replayed = matches!(sync, SyncMode::None | SyncMode::Deferred);
        let repeats = all && rows.len() <= MAX_CAPTURED && self.capture && replayed;
        let extent = Extent {
            rows: chunks,
            wanted: (!all).then(|| Chunks::of(wanted.len())),
            context: self.reach(reach, repeats),
            apart: apart(rows),
            greedy: false,
            // Marks between launches would keep them from overlapping, which is what stamps are there to show.
            timed: sync == SyncMode::Deferred && !(repeats && self.plan.stamps),
        };
        let step = Step::new(self.plan.max_rows as u32);
        self.words.clear();
        self.words.resize((step.produced() / 4) as usize, 0);
        let arrays = [step.tokens(), step.positions(), step.sequences()].map(|at| (at / 4) as usize);
        self.words[arrays[1]..][..chunks.rows()].fill(INACTIVE);
        for (i, row) in rows.iter().enumerate() {
            self.words[arrays[0] + i] = row.token;
            self.words[arrays[1] + i] = row.position as u32;
            self.words[arrays[2] + i] = row.sequence.0;
        }
        let to = self.regions.buf(self.plan.step[0]);
        self.write_words(to)?;
        if let Some(chunks) = extent.wanted.filter(|_| !wanted.is_empty()) {
            self.words.clear();
            self.words.extend(wanted);
            self.words.resize(chunks.rows(), u32::MAX);
            let to = self.regions.buf(self.plan.wanted);
            self.write_words(to)?;
        }
        if repeats {
            self.replay(extent)?;
        } else {
            self.eager(extent, sync)?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let bytes = 4 * wanted.len() * self.plan.logits.width;
        self.bytes.resize(bytes, 0);
        let from = self.regions.buf(self.plan.logits.buffer);
        self.device.read(from, &mut self.bytes)?;
        self.logits.extend(self.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
        Ok(())
    }

    /// Positions that attention is made to reach: what is needed, or, for what is captured, few different ones.
    fn reach(&self, needed: usize, captured: bool) -> usize {
        let splits = needed.div_ceil(SPLIT as usize);
        let splits = if captured { splits.next_power_of_two() } else { splits };
        (splits * SPLIT as usize).min(self.plan.kv.context.next_multiple_of(SPLIT as usize))
    }

    fn write_words(&mut self, to: Ptr) -> Result<(), DeviceError> {
        self.bytes.clear();
        self.bytes.extend(self.words.iter().flat_map(|w| w.to_le_bytes()));
        self.device.write(to, &self.bytes)
    }

    fn launcher(&mut self, extent: Extent) -> Launcher<'_> {
        Launcher {
            device: &mut *self.device,
            kernels: &mut self.kernels,
            plan: &self.plan,
            regions: &self.regions,
            extent,
            stamping: None,
        }
    }

    /// Copies on the device what the cache's bookkeeping has copied.
    fn pages(&mut self, kv: &mut KvCache) -> Result<(), DeviceError> {
        let shape = self.plan.kv;
        let bytes = u64::from(page_bytes(shape.head_dim));
        for (from, to) in kv.take_copies() {
            for region in &self.regions.kv {
                for head in 0..shape.kv_heads {
                    let page = |block: u32| region.at((head * shape.blocks + block as usize) as u64 * bytes);
                    self.device.copy(page(from), page(to), bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Brings lines of the block table that have changed to the device.
    fn block_table(&mut self, sequences: impl Iterator<Item = u32>, kv: &KvCache) -> Result<(), GpuError> {
        let width = self.plan.kv.table_width;
        let mut last = None;
        for sequence in sequences {
            if last.replace(sequence) == Some(sequence) {
                continue;
            }
            let blocks = kv.blocks_of(sequence);
            let line = &mut self.table[sequence as usize * width..][..width];
            if line.starts_with(blocks) {
                continue;
            }
            line[..blocks.len()].copy_from_slice(blocks);
            self.bytes.clear();
            self.bytes.extend(line.iter().flat_map(|b| b.to_le_bytes()));
            self.device.write(self.regions.block_table.at(4 * (sequence as usize * width) as u64), &self.bytes)?;
        }
        Ok(())
    }

    /// Decodes greedily for at most `steps` steps: each step's tokens go into the next on the device, and the host reads them some
    /// steps later. `on_step` gets a token per row and says whether to go on; steps that ran beyond what it saw are as if they had
    /// not been. The cache has blocks for all of them.
    ///
    /// Gives the steps that `on_step` saw.
    pub(crate) fn greedy(
        &mut self,
        rows: &[GreedyRow],
        steps: usize,
        kv: &mut KvCache,
        on_step: &mut dyn FnMut(&[u32]) -> bool,
    ) -> Result<usize, GpuError> {
        let most = MAX_CAPTURED.min(self.plan.max_rows).min(self.plan.kv.sequences);
        if rows.is_empty() || rows.len() > most {
            return Err(GpuError::GreedyRows { found: rows.len(), most });
        }
        self.logits.clear();
        self.pages(kv)?;
        self.block_table(rows.iter().map(|r| r.sequence), kv)?;
        let chunks = Chunks::of(rows.len());
        let step = Step::new(self.plan.max_rows as u32);
        let arrays = [step.tokens(), step.positions(), step.sequences(), step.limits()].map(|at| (at / 4) as usize);
        self.words.clear();
        self.words.resize((step.bytes() / 4) as usize, 0);
        self.words[arrays[1]..][..chunks.rows()].fill(INACTIVE);
        for (i, row) in rows.iter().enumerate() {
            self.words[arrays[0] + i] = row.token;
            self.words[arrays[1] + i] = row.position as u32;
            self.words[arrays[2] + i] = row.sequence;
            self.words[arrays[3] + i] = (row.position + steps) as u32;
        }
        let to = self.regions.buf(self.plan.step[0]);
        self.write_words(to)?;
        let tokens = to.plus(step.tokens());
        let deepest = rows.iter().map(|r| r.position).max().unwrap_or(0);
        let first = Extent {
            rows: chunks,
            wanted: None,
            context: self.reach(deepest + 1, self.capture),
            apart: true,
            greedy: true,
            timed: false,
        };
        for launch in self.launcher(first).first_angles()? {
            self.device.launch(&launch)?;
        }
        let mut under_way: VecDeque<Ticket> = VecDeque::with_capacity(AHEAD);
        let (mut asked, mut seen) = (0, 0);
        let (mut bytes, mut found) = (vec![0; 4 * rows.len()], vec![0; rows.len()]);
        loop {
            while asked < steps && under_way.len() < AHEAD {
                let extent = Extent { context: self.reach(deepest + asked + 1, self.capture), ..first };
                if self.capture {
                    self.replay(extent)?;
                } else {
                    self.eager(extent, SyncMode::None)?;
                }
                under_way.push_back(self.device.fetch(tokens, bytes.len())?);
                asked += 1;
            }
            let Some(ticket) = under_way.pop_front() else { break };
            self.device.receive(ticket, &mut bytes)?;
            for (found, b) in found.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *found = u32::from_le_bytes(*b);
            }
            seen += 1;
            if let Some(row) = found.iter().position(|&t| t == brick_ptx::kernels::argmax::NO_TOKEN) {
                self.drain(&mut under_way, &mut bytes)?;
                return Err(GpuError::NotANumber { row, position: rows[row].position + seen - 1 });
            }
            if !on_step(&found) {
                break;
            }
        }
        self.drain(&mut under_way, &mut bytes)?;
        Ok(seen)
    }

    fn drain(&mut self, under_way: &mut VecDeque<Ticket>, bytes: &mut [u8]) -> Result<(), DeviceError> {
        under_way.drain(..).try_for_each(|ticket| self.device.receive(ticket, bytes))
    }
}

/// Whether no two rows are of one sequence. Not looked for among many rows: they are a prompt.
fn apart(rows: &[Row]) -> bool {
    let first = |(i, row): (usize, &Row)| rows[..i].iter().all(|r| r.sequence != row.sequence);
    rows.len() <= MAX_CAPTURED && rows.iter().enumerate().all(first)
}

const _: () = assert!(BLOCK == brick_ptx::kernels::kv::BLOCK as usize, "host and device cut sequences alike");
