//! From graph to plan.

mod attention;
mod linear;
mod norm;

use brick_cuda::Place;
use brick_graphs::passes::{Buffer, pack};
use brick_graphs::{Brick, Graph, WeightId};
use brick_profiler::StepInfo;
use brick_ptx::kernels::attention::{SPLIT, heads_per_cta};
use brick_ptx::kernels::kv::{BLOCK, HEAD_DIMS};
use brick_ptx::kernels::step::Step;
use brick_ptx::kernels::{Format, activation, argmax, embed};
use bricks::{DType, Op, RopeSpec, Rows};

use super::plan::{
    Buf, CHUNK, Chunks, GpuKv, GpuPlan, Input, MAX_CAPTURED, MAX_STOPS, MatrixId, MatrixPlan, Node, NodeKind, Part,
    RING, Source, VectorId, VectorPlan, View,
};
use crate::plan::LowerError;
use crate::weights::{Weights, expect_bytes};

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuOptions {
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Wanted rows of the largest batch.
    pub max_wanted: usize,
    /// Positions a sequence may have.
    pub context: usize,
    /// Sequences alive at the same time.
    pub sequences: usize,
    /// Multiprocessors of the device.
    pub processors: u32,
    /// Most columns that matrix kernels round themselves where rows are few. Changes the speed, never a bit.
    pub streamed_columns: usize,
    /// Whether the blocks of captured steps note when they ran.
    pub stamps: bool,
}

/// Bytes that the splits of attention may take: longer prompts run in pieces.
const SPLIT_BYTES: usize = 256 << 20;
/// Blocks per multiprocessor of the LM head's arg-max.
const ARG_MAX_BLOCKS: usize = 8;

/// The format of a type that GPU kernels take.
pub fn format_of(dtype: DType) -> Option<Format> {
    Some(match dtype {
        DType::Q4_0 => Format::Q4_0,
        DType::Q4_1 => Format::Q4_1,
        DType::Q4_K => Format::Q4_K,
        DType::Q5_K => Format::Q5_K,
        DType::Q6_K => Format::Q6_K,
        DType::Q8_0 => Format::Q8_0,
        DType::F16 => Format::F16,
        DType::BF16 => Format::BF16,
        _ => return None,
    })
}

/// Lowers a graph to a GPU.
///
/// # Errors
/// [`LowerError`] names the brick and the weight: types without a GPU kernel, operations that are not on the GPU yet.
pub fn lower(graph: &Graph, weights: &dyn Weights, options: &GpuOptions) -> Result<GpuPlan, LowerError> {
    let heads = Heads::of(graph)?;
    let splits = options.context.div_ceil(SPLIT as usize);
    // Splits of a row: a head's sums, and maximum and sum.
    let per_row = heads.query * splits * (4 * heads.padded + 8);
    let piece = (SPLIT_BYTES / per_row.max(1)).max(CHUNK) / CHUNK * CHUNK;
    let max_rows = Chunks::of(options.max_rows.min(piece)).rows();
    let max_wanted = Chunks::of(options.max_wanted.min(max_rows)).rows();
    // Greedy steps want every row, but no logits.
    let greedy = Chunks::of(options.sequences.min(MAX_CAPTURED).min(max_rows)).rows();
    let mut l = Lowering {
        graph,
        weights,
        options,
        heads,
        max_rows,
        max_wanted,
        final_rows: max_wanted.max(greedy),
        nodes: Vec::new(),
        matrices: Vec::new(),
        vectors: Vec::new(),
        buffers: Vec::new(),
        f32_of: vec![None; graph.values().len()],
        q8_of: vec![None; graph.values().len()],
        bf16_of: vec![None; graph.values().len()],
        norm_of: vec![None; graph.values().len()],
        added: vec![false; graph.len()],
        angles: Vec::new(),
        logits: None,
    };
    for brick in graph.bricks() {
        l.brick(brick)?;
    }
    l.finish(splits)
}

/// What all attention of a graph agrees on.
#[derive(Debug, Clone, Copy)]
struct Heads {
    query: usize,
    kv: usize,
    dim: usize,
    /// As the kernels have it.
    padded: usize,
    layers: usize,
}

impl Heads {
    fn of(graph: &Graph) -> Result<Self, LowerError> {
        let mut found: Option<Self> = None;
        for b in graph.bricks() {
            let Op::Attention(spec) = &b.op else { continue };
            let refused = |reason: String| LowerError::Brick { brick: b.name.clone(), reason };
            let padded = HEAD_DIMS.into_iter().map(|d| d as usize).find(|&d| d >= spec.head_dim).ok_or_else(|| {
                refused(format!("the GPU's attention takes heads of up to 256 elements, found {}", spec.head_dim))
            })?;
            let layers = b.layer.unwrap_or(0) as usize + 1;
            let h = Self { query: spec.n_heads, kv: spec.n_kv_heads, dim: spec.head_dim, padded, layers };
            let first = found.get_or_insert(h);
            if (first.query, first.kv, first.dim) != (h.query, h.kv, h.dim) {
                return Err(refused("its heads differ from those of other layers".into()));
            }
            first.layers = first.layers.max(layers);
        }
        found.ok_or_else(|| LowerError::Brick { brick: "graph".into(), reason: "no brick computes attention".into() })
    }
}

struct Lowering<'a> {
    graph: &'a Graph,
    weights: &'a dyn Weights,
    options: &'a GpuOptions,
    heads: Heads,
    max_rows: usize,
    /// Rows of logits.
    max_wanted: usize,
    /// Rows that the last norm and the LM head's inputs have room for.
    final_rows: usize,
    nodes: Vec<(Node, StepInfo)>,
    matrices: Vec<MatrixPlan>,
    vectors: Vec<VectorPlan>,
    buffers: Vec<(String, Buffer)>,
    f32_of: Vec<Option<View>>,
    q8_of: Vec<Option<Buf>>,
    bf16_of: Vec<Option<Buf>>,
    /// What a norm's output is the norm of.
    norm_of: Vec<Option<Source>>,
    /// Bricks whose addition is done by the matrix before them.
    added: Vec<bool>,
    angles: Vec<(RopeSpec, Buf)>,
    logits: Option<View>,
}

fn refused(brick: &Brick, reason: impl Into<String>) -> LowerError {
    LowerError::Brick { brick: brick.name.clone(), reason: reason.into() }
}

impl Lowering<'_> {
    fn rows_of(&self, rows: Rows) -> usize {
        match rows {
            Rows::All => self.max_rows,
            Rows::Wanted => self.final_rows,
        }
    }

    /// A buffer that lives from the node about to be written.
    fn buffer(&mut self, name: String, bytes: usize) -> Buf {
        let now = self.nodes.len();
        self.buffers.push((name, Buffer { bytes: bytes.next_multiple_of(256), first: now, last: now }));
        Buf(self.buffers.len() - 1)
    }

    /// A buffer that lives always.
    fn lasting(&mut self, name: &str, bytes: usize) -> Buf {
        let buf = self.buffer(name.into(), bytes);
        (self.buffers[buf.0].1.first, self.buffers[buf.0].1.last) = (0, usize::MAX);
        buf
    }

    fn f32_buffer(&mut self, brick: &Brick, what: &str, rows: Rows, width: usize) -> View {
        let bytes = 4 * self.rows_of(rows) * width;
        View::whole(self.buffer(format!("{}{what}", brick.name), bytes), width)
    }

    /// Keeps a buffer until the node about to be written.
    fn keep(&mut self, buf: Buf) {
        let last = &mut self.buffers[buf.0].1.last;
        *last = (*last).max(self.nodes.len());
    }

    /// The same of what a matrix kernel reads.
    fn keep_input(&mut self, input: Input) {
        self.keep(match input {
            Input::Q8(buf) | Input::Bf16(buf) => buf,
            Input::F32(view) => view.buffer,
        });
    }

    /// The f32 rows of input `port`.
    fn input(&mut self, brick: &Brick, port: usize) -> Result<View, LowerError> {
        let v = brick.inputs[port];
        let view = self.f32_of[v.index()]
            .ok_or_else(|| refused(brick, format!("input {port} is not a buffer of activations on the GPU")))?;
        self.keep(view.buffer);
        Ok(view)
    }

    fn width(&self, brick: &Brick, port: usize) -> Result<usize, LowerError> {
        let ty = &self.graph.value(brick.outputs[port]).ty;
        ty.width().ok_or_else(|| refused(brick, format!("output {port} has no fixed width: {ty}")))
    }

    /// New f32 rows for output `port`.
    fn output(&mut self, brick: &Brick, port: usize, rows: Rows) -> Result<View, LowerError> {
        let width = self.width(brick, port)?;
        let view = self.f32_buffer(brick, "", rows, width);
        self.f32_of[brick.outputs[port].index()] = Some(view);
        Ok(view)
    }

    /// Tiles of 8-bit codes for `rows` rows.
    fn tiles(&mut self, name: String, rows: Rows, width: usize) -> Buf {
        let rows = self.rows_of(rows);
        // A chunk of few rows has tiles of its own size; together they never take more than one row each.
        let bytes = activation::bytes(width, 1) * rows;
        self.buffer(name, bytes)
    }

    /// The steps of a brick. Only the first is named and costed as the brick: others are its helpers.
    fn push(&mut self, brick: &Brick, what: &str, kernel: String, rows: Rows, kind: NodeKind) {
        let first = what.is_empty();
        let info = StepInfo {
            name: format!("{}{what}", brick.name),
            kind: brick.kind,
            layer: brick.layer,
            kernel,
            bricks: vec![brick.id.0],
            op: if first { brick.op.clone() } else { Op::Add },
            inputs: if first { self.graph.input_types(brick.id) } else { Vec::new() },
            weights: if first { self.graph.weight_shapes(brick.id) } else { Vec::new() },
        };
        self.nodes.push((Node { kind, rows, brick: brick.id }, info));
    }

    fn vector(&mut self, brick: &Brick, weight: WeightId) -> Result<Vec<f32>, LowerError> {
        let info = self.graph.weight(weight);
        let mut bytes = vec![0; self.weights.len(weight)];
        let mut out = vec![0.0; info.shape.cols * info.shape.rows];
        let read = self.weights.read(weight, 0, &mut bytes).map_err(|e| e.to_string());
        read.and_then(|()| bricks::quant::decode_row(info.shape.dtype, &bytes, &mut out).map_err(|e| e.to_string()))
            .map_err(|reason| LowerError::Weight { brick: brick.name.clone(), weight: info.name.clone(), reason })?;
        Ok(out)
    }

    fn add_vector(&mut self, name: String, values: Vec<f32>) -> VectorId {
        self.vectors.push(VectorPlan { name, values });
        VectorId(self.vectors.len() - 1)
    }

    /// The format of a matrix, whose bytes are all there.
    fn format(&self, brick: &Brick, weight: WeightId) -> Result<Format, LowerError> {
        let info = self.graph.weight(weight);
        let error = |reason| LowerError::Weight { brick: brick.name.clone(), weight: info.name.clone(), reason };
        expect_bytes(info.shape, self.weights.len(weight)).map_err(error)?;
        let format = format_of(info.shape.dtype).ok_or_else(|| {
            error(format!(
                "weights in {} have no GPU kernel (those in {} have); use --device cpu",
                info.shape.dtype,
                Format::ALL.map(|f| f.name().to_uppercase()).join(", ")
            ))
        })?;
        if !info.shape.cols.is_multiple_of(format.column_multiple()) {
            return Err(error(format!(
                "the GPU's kernels for {} take columns in multiples of {}, found {}",
                info.shape.dtype,
                format.column_multiple(),
                info.shape.cols
            )));
        }
        Ok(format)
    }

    fn matrix(&mut self, plan: MatrixPlan) -> MatrixId {
        let same = |m: &MatrixPlan| m.sources == plan.sources && m.gated == plan.gated && m.format == plan.format;
        let at = self.matrices.iter().position(same).unwrap_or_else(|| {
            self.matrices.push(plan);
            self.matrices.len() - 1
        });
        MatrixId(at)
    }

    fn brick(&mut self, brick: &Brick) -> Result<(), LowerError> {
        match &brick.op {
            Op::Input => self.angles(brick),
            Op::Embed { scale } => {
                let weight = brick.weights[0];
                let format = self.format(brick, weight)?;
                let shape = self.graph.weight(weight).shape;
                let table = self.matrix(MatrixPlan {
                    name: self.graph.weight(weight).name.clone(),
                    format,
                    columns: shape.cols,
                    sources: vec![Part { weight, rows: shape.rows, heads: None }],
                    gated: false,
                });
                let dst = self.output(brick, 0, Rows::All)?;
                let kernel = embed::kernel_name(format);
                self.push(brick, "", kernel, Rows::All, NodeKind::Embed { table, scale: *scale, dst });
                Ok(())
            }
            Op::RmsNorm { eps, rows } => {
                let src = self.input(brick, 0)?;
                self.norm(brick, src, *eps, *rows, 0)
            }
            Op::AddRmsNorm { eps } => {
                let sum = self.sum(brick)?;
                self.norm(brick, sum, *eps, Rows::All, 1)
            }
            Op::Linear { rows, .. } => self.linear(brick, *rows),
            Op::GatedLinear { act, .. } => self.gated(brick, *act),
            Op::RopeKvWrite { spec, .. } => self.rope_kv(brick, spec),
            Op::Attention(spec) => self.attention(brick, spec),
            Op::Add => self.sum(brick).map(|_| ()),
            Op::GatedActivation { act } => {
                let (gate, up) = (self.input(brick, 0)?, self.input(brick, 1)?);
                let dst = self.output(brick, 0, Rows::All)?;
                self.gate(brick, "", gate, up, *act, dst)
            }
            op @ (Op::Rope { .. } | Op::KvWrite { .. }) => {
                Err(refused(brick, format!("{} alone is not on the GPU yet; use --device cpu", op.name())))
            }
        }
    }

    fn angles(&mut self, brick: &Brick) -> Result<(), LowerError> {
        let specs: Vec<RopeSpec> = self
            .graph
            .bricks()
            .filter_map(|b| match &b.op {
                Op::RopeKvWrite { spec, .. } => Some(spec.clone()),
                _ => None,
            })
            .collect();
        for spec in specs {
            if self.angles.iter().any(|(s, _)| *s == spec) {
                continue;
            }
            let frequencies = spec.inv_freq();
            let pairs = frequencies.inv_freq.len();
            if pairs > self.heads.padded / 2 {
                return Err(refused(brick, format!("{pairs} pairs are rotated of heads of {}", self.heads.dim)));
            }
            let dst = self.lasting("angles", 8 * pairs * self.max_rows);
            let inv_freq = self.add_vector("inv_freq".into(), frequencies.inv_freq);
            let kind = NodeKind::Angles { inv_freq, pairs, magnitude: frequencies.magnitude, dst };
            let what = if self.angles.is_empty() { "" } else { ".angles" };
            self.push(brick, what, "rope_angles".into(), Rows::All, kind);
            self.angles.push((spec, dst));
        }
        Ok(())
    }

    fn finish(mut self, splits: usize) -> Result<GpuPlan, LowerError> {
        let logits = self.logits.ok_or_else(|| LowerError::Brick {
            brick: self.graph.brick(self.graph.value(self.graph.output()).producer).name.clone(),
            reason: "the graph's output is not the product of a matrix".into(),
        })?;
        let (rows, wanted) = (self.max_rows, self.max_wanted);
        let Heads { query, kv, padded, layers, .. } = self.heads;
        let parts = rows * query * splits;
        let ctas = query / heads_per_cta((query / kv) as u32) as usize;
        let attention = [
            self.lasting("attention.parts", 4 * parts * padded),
            self.lasting("attention.part_sums", 8 * parts),
            self.lasting("attention.arrivals", 4 * rows * ctas),
        ];
        let blocks = ARG_MAX_BLOCKS * self.options.processors.max(1) as usize;
        // Of the LM head's own kernel, or of the one that reads logits.
        let best = (CHUNK * blocks).max(self.final_rows * logits.stride.div_ceil(argmax::CHUNK as usize));
        let argmax =
            [self.lasting("argmax.best", 8 * best), self.lasting("argmax.arrivals", 4 * self.final_rows.max(1))];
        let step = [
            self.lasting("step", Step::new(rows as u32).bytes() as usize),
            self.lasting("sampled", 4 * rows),
            self.lasting("stop_tokens", 4 * MAX_STOPS),
        ];
        let ring = self.lasting("ring", 4 * rows * RING);
        let wanted_rows = self.lasting("wanted", 4 * wanted);
        let too_large = LowerError::TooLarge { rows };
        let placed: Vec<Buffer> = self.buffers.iter().map(|(_, b)| *b).collect();
        let packing = pack(&placed).ok_or(too_large)?;
        let buffers = self.buffers.into_iter().zip(packing.offsets).map(|((name, b), offset)| Place {
            name,
            offset: offset as u64,
            bytes: b.bytes as u64,
        });
        let table_width = self.options.context.div_ceil(BLOCK as usize);
        let (nodes, info) = self.nodes.into_iter().unzip();
        Ok(GpuPlan {
            nodes,
            info,
            matrices: self.matrices,
            vectors: self.vectors,
            buffers: buffers.collect(),
            attention,
            argmax,
            step,
            ring,
            wanted: wanted_rows,
            logits,
            max_rows: rows,
            max_wanted: wanted,
            kv: GpuKv {
                layers,
                kv_heads: kv,
                head_dim: padded as u32,
                blocks: table_width * self.options.sequences,
                table_width,
                sequences: self.options.sequences,
                context: self.options.context,
            },
            stamps: self.options.stamps,
        })
    }
}
