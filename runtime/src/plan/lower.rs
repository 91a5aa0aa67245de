//! From graph to plan.

use brick_graphs::passes::{Buffer, pack};
use brick_graphs::{Brick, Graph, ValueId, WeightId};
use brick_profiler::StepInfo;
use bricks::cpu::SimdLevel;
use bricks::cpu::attention::{AttentionGroup, KvLayout, KvType};
use bricks::cpu::linear::LinearKernel;
use bricks::{Dim, Op, RopeSpec, Rows, ValueType};

use super::{AttentionLimits, FusedRope, LinearInput, LinearMatrix, Plan, Q8Slot, RopeTable, Slot, Step, StepKind};
use crate::weights::{Weights, expect_bytes};

/// What a plan is made for.
#[derive(Debug, Clone, Copy)]
pub struct LowerOptions {
    /// Rows of the largest batch.
    pub max_rows: usize,
    /// Wanted rows of the largest batch.
    pub max_wanted: usize,
    /// Threads of the gang.
    pub threads: usize,
    /// SIMD level of the kernels.
    pub simd: SimdLevel,
    /// Gives every value its own place, so that all survive a call (for checks and traces).
    pub keep_values: bool,
    /// Positions a sequence may have.
    pub context: usize,
    /// Element type of the KV cache.
    pub kv_type: KvType,
}

/// A graph cannot be lowered to the CPU.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LowerError {
    /// A weight cannot be used.
    #[error("brick {brick}: weight {weight}: {reason}")]
    Weight {
        /// The brick.
        brick: String,
        /// The weight.
        weight: String,
        /// Why not.
        reason: String,
    },
    /// The brick cannot be lowered.
    #[error("brick {brick}: {reason}")]
    Brick {
        /// The brick.
        brick: String,
        /// Why not.
        reason: String,
    },
    /// Buffers for this batch size do not fit an address space.
    #[error("a batch of {rows} rows needs more working memory than can be addressed; use a smaller --batch")]
    TooLarge {
        /// Rows of the largest batch.
        rows: usize,
    },
}

/// Lowers a graph: chooses kernels, decides who rounds activations to Q8, and places every buffer in one arena.
///
/// # Errors
/// [`LowerError`] names the brick and the weight.
pub fn lower(graph: &Graph, weights: &dyn Weights, options: &LowerOptions) -> Result<Plan, LowerError> {
    let mut l = Lowering {
        graph,
        weights,
        options,
        steps: Vec::new(),
        buffers: Vec::new(),
        f32_of: vec![None; graph.values().len()],
        q8_of: vec![None; graph.values().len()],
        tables: Vec::new(),
        kv_layers: 0,
        attention: AttentionLimits { tile_rows: usize::MAX, records: usize::MAX },
    };
    for brick in graph.bricks() {
        l.brick(brick)?;
    }
    l.finish()
}

/// Index into [`Lowering::buffers`].
type BufferId = usize;

#[derive(Clone, Copy)]
struct F32Buffer {
    buffer: BufferId,
    width: usize,
}

#[derive(Clone, Copy)]
struct Q8Buffer {
    planes: [BufferId; 3],
    width: usize,
}

/// Steps are first written with buffer ids where offsets belong, and patched when everything is placed.
struct Lowering<'a> {
    graph: &'a Graph,
    weights: &'a dyn Weights,
    options: &'a LowerOptions,
    steps: Vec<(StepKind, StepInfo, brick_graphs::BrickId)>,
    buffers: Vec<Buffer>,
    f32_of: Vec<Option<F32Buffer>>,
    q8_of: Vec<Option<Q8Buffer>>,
    tables: Vec<(RopeSpec, F32Buffer, F32Buffer)>,
    kv_layers: usize,
    attention: AttentionLimits,
}

impl Lowering<'_> {
    fn too_large(&self) -> LowerError {
        LowerError::TooLarge { rows: self.options.max_rows }
    }

    /// A buffer of `rows × bytes_per_row`, alive from the step about to be written.
    fn buffer(&mut self, rows: usize, bytes_per_row: usize) -> Result<BufferId, LowerError> {
        let bytes = rows.checked_mul(bytes_per_row).ok_or_else(|| self.too_large())?;
        let now = self.steps.len();
        self.buffers.push(Buffer { bytes, first: now, last: now });
        Ok(self.buffers.len() - 1)
    }

    fn f32_buffer(&mut self, rows: usize, width: usize) -> Result<F32Buffer, LowerError> {
        let bytes = width.checked_mul(4).ok_or_else(|| self.too_large())?;
        Ok(F32Buffer { buffer: self.buffer(rows, bytes)?, width })
    }

    fn slot(b: F32Buffer) -> Slot {
        Slot { offset: b.buffer, width: b.width }
    }

    fn q8_slot(b: Q8Buffer) -> Q8Slot {
        Q8Slot { codes: b.planes[0], scales: b.planes[1], sums: b.planes[2], width: b.width }
    }

    fn rows_of(&self, v: ValueId) -> usize {
        match self.graph.value(v).ty.dims.first() {
            Some(Dim::Wanted) => self.options.max_wanted,
            _ => self.options.max_rows,
        }
    }

    /// A new buffer for output `port` of `brick`.
    fn output(&mut self, brick: &Brick, port: usize) -> Result<Slot, LowerError> {
        let v = brick.outputs[port];
        let width = self.graph.value(v).ty.width().ok_or_else(|| LowerError::Brick {
            brick: brick.name.clone(),
            reason: format!("output {port} has no fixed width: {}", self.graph.value(v).ty),
        })?;
        let b = self.f32_buffer(self.rows_of(v), width)?;
        self.f32_of[v.index()] = Some(b);
        Ok(Self::slot(b))
    }

    /// The buffer of input `port`, kept alive until the step about to be written.
    fn input(&mut self, brick: &Brick, port: usize) -> Result<Slot, LowerError> {
        let v = brick.inputs[port];
        let b = self.f32_of[v.index()].ok_or_else(|| LowerError::Brick {
            brick: brick.name.clone(),
            reason: format!("input {port} ({}) is not a buffer of activations", self.graph.value(v).ty),
        })?;
        self.buffers[b.buffer].last = self.steps.len();
        Ok(Self::slot(b))
    }

    /// Q8 planes for a value, alive from the step about to be written.
    fn q8_output(&mut self, v: ValueId, width: usize) -> Result<Q8Slot, LowerError> {
        let rows = self.rows_of(v);
        let blocks = width / 32;
        let planes = [self.buffer(rows, width)?, self.buffer(rows, 4 * blocks)?, self.buffer(rows, 4 * blocks)?];
        let b = Q8Buffer { planes, width };
        self.q8_of[v.index()] = Some(b);
        Ok(Self::q8_slot(b))
    }

    /// Whether any matrix (not a vector) of a brick is stored in a float type, or in a quantised one.
    fn has_matrix(&self, brick: &Brick, float: bool) -> bool {
        let shapes = brick.weights.iter().map(|w| self.graph.weight(*w).shape);
        !brick.op.parts().is_empty() && shapes.into_iter().any(|s| s.rows > 1 && s.dtype.is_float() == float)
    }

    /// Whether anybody needs output `port` as f32: all but linear bricks whose matrices are all quantised.
    fn f32_wanted(&self, brick: &Brick, port: usize) -> bool {
        let value = self.graph.value(brick.outputs[port]);
        let reads_f32 = |c: &brick_graphs::BrickId| {
            let consumer = self.graph.brick(*c);
            consumer.op.parts().is_empty() || self.has_matrix(consumer, true) || !self.has_matrix(consumer, false)
        };
        value.consumers.iter().any(reads_f32) || self.graph.output() == value.id
    }

    /// Q8 planes for output `port` if a quantised matrix reads it.
    fn q8_if_wanted(&mut self, brick: &Brick, port: usize) -> Result<Option<Q8Slot>, LowerError> {
        let v = brick.outputs[port];
        let value = self.graph.value(v);
        let wanted = value.consumers.iter().any(|&c| self.has_matrix(self.graph.brick(c), false));
        match value.ty.width() {
            Some(width) if wanted && width.is_multiple_of(32) => self.q8_output(v, width).map(Some),
            _ => Ok(None),
        }
    }

    fn vector(&self, brick: &Brick, weight: WeightId) -> Result<Box<[f32]>, LowerError> {
        let info = self.graph.weight(weight);
        let mut out = vec![0.0; info.shape.cols * info.shape.rows].into_boxed_slice();
        // Copied: from the map, each of them would bring its neighbourhood into memory.
        let mut bytes = vec![0; self.weights.len(weight)];
        let read = self.weights.read(weight, 0, &mut bytes).map_err(|e| e.to_string());
        read.and_then(|()| bricks::quant::decode_row(info.shape.dtype, &bytes, &mut out).map_err(|e| e.to_string()))
            .map_err(|reason| LowerError::Weight { brick: brick.name.clone(), weight: info.name.clone(), reason })?;
        Ok(out)
    }

    /// Checks that a matrix's bytes are all there.
    fn check_bytes(&self, brick: &Brick, weight: WeightId) -> Result<(), LowerError> {
        let info = self.graph.weight(weight);
        expect_bytes(info.shape, self.weights.len(weight)).map_err(|reason| LowerError::Weight {
            brick: brick.name.clone(),
            weight: info.name.clone(),
            reason,
        })
    }

    fn rope_table(&mut self, spec: &RopeSpec) -> Result<usize, LowerError> {
        if let Some(i) = self.tables.iter().position(|t| t.0 == *spec) {
            return Ok(i);
        }
        let cos = self.f32_buffer(self.options.max_rows, spec.dims / 2)?;
        let sin = self.f32_buffer(self.options.max_rows, spec.dims / 2)?;
        for b in [cos, sin] {
            // Written by the first step; read by every layer.
            self.buffers[b.buffer] = Buffer { first: 0, last: usize::MAX, ..self.buffers[b.buffer] };
        }
        self.tables.push((spec.clone(), cos, sin));
        Ok(self.tables.len() - 1)
    }

    fn push(&mut self, brick: &Brick, kernel: String, kind: StepKind) {
        let mut inputs = self.graph.input_types(brick.id);
        if self.options.kv_type == KvType::Q8_0 {
            // Its cost is another.
            for input in inputs.iter_mut().filter(|i| i.value == ValueType::KvCache) {
                input.value = ValueType::KvCacheQ8;
            }
        }
        let info = StepInfo {
            name: brick.name.clone(),
            kind: brick.kind,
            layer: brick.layer,
            kernel,
            bricks: vec![brick.id.0],
            op: brick.op.clone(),
            inputs,
            weights: self.graph.weight_shapes(brick.id),
        };
        self.steps.push((kind, info, brick.id));
    }

    fn brick(&mut self, brick: &Brick) -> Result<(), LowerError> {
        let simd = self.options.simd.name();
        let kernel = format!("{}_{simd}", brick.op.name());
        let layer = brick.layer.unwrap_or(0) as usize;
        let kind = match &brick.op {
            Op::Input => StepKind::Input,
            Op::Embed { scale } => {
                let table = brick.weights[0];
                self.check_bytes(brick, table)?;
                let dtype = self.graph.weight(table).shape.dtype;
                StepKind::Embed { table, dtype, scale: *scale, dst: self.output(brick, 0)? }
            }
            Op::RmsNorm { eps, rows } => StepKind::RmsNorm {
                src: self.input(brick, 0)?,
                gain: self.vector(brick, brick.weights[0])?,
                eps: *eps,
                rows: *rows,
                dst: self.output(brick, 0)?,
                q8: self.q8_if_wanted(brick, 0)?,
            },
            Op::AddRmsNorm { eps } => StepKind::AddRmsNorm {
                a: self.input(brick, 0)?,
                b: self.input(brick, 1)?,
                gain: self.vector(brick, brick.weights[0])?,
                eps: *eps,
                sum: self.output(brick, 0)?,
                dst: self.output(brick, 1)?,
                q8: self.q8_if_wanted(brick, 1)?,
            },
            Op::Linear { rows, .. } => return self.linear(brick, *rows),
            Op::GatedLinear { .. } => return self.linear(brick, Rows::All),
            Op::Rope { head_dim, spec, .. } => StepKind::Rope {
                src: self.input(brick, 0)?,
                dst: self.output(brick, 0)?,
                head_dim: *head_dim,
                style: spec.style,
                table: self.rope_table(spec)?,
            },
            Op::KvWrite { n_kv_heads, head_dim } => {
                self.kv_layers = self.kv_layers.max(layer + 1);
                StepKind::KvWrite {
                    layer,
                    k: self.input(brick, 0)?,
                    v: self.input(brick, 1)?,
                    n_kv_heads: *n_kv_heads,
                    head_dim: *head_dim,
                    rope: None,
                }
            }
            Op::RopeKvWrite { n_kv_heads, head_dim, spec, .. } => {
                self.kv_layers = self.kv_layers.max(layer + 1);
                let table = self.rope_table(spec)?;
                StepKind::KvWrite {
                    layer,
                    k: self.input(brick, 1)?,
                    v: self.input(brick, 2)?,
                    n_kv_heads: *n_kv_heads,
                    head_dim: *head_dim,
                    rope: Some(FusedRope {
                        q: self.input(brick, 0)?,
                        q_out: self.output(brick, 0)?,
                        style: spec.style,
                        table,
                    }),
                }
            }
            Op::Attention(spec) => {
                // A thread rounds the heads it computed; that works only if their edge is a block's edge.
                let width = spec.n_heads / spec.n_kv_heads * spec.head_dim;
                let q = self.input(brick, 0)?;
                let dst = self.output(brick, 0)?;
                let q8 = if width.is_multiple_of(32) { self.q8_if_wanted(brick, 0)? } else { None };
                let group = self.group(brick, spec)?;
                let LowerOptions { threads, max_rows, context, .. } = *self.options;
                let capacity = crate::exec::record_capacity(&group, spec.n_kv_heads, threads, max_rows, context);
                // The layers share one way to cut a batch: what all have room for.
                self.attention.tile_rows = self.attention.tile_rows.min(group.tile_rows());
                self.attention.records = self.attention.records.min(capacity);
                let records =
                    self.buffer(capacity.saturating_mul(spec.n_kv_heads), group.record_len(1).saturating_mul(4))?;
                StepKind::Attention { layer, q, spec: spec.clone(), dst, q8, records }
            }
            Op::Add => {
                StepKind::Add { a: self.input(brick, 0)?, b: self.input(brick, 1)?, dst: self.output(brick, 0)? }
            }
            Op::GatedActivation { act } => StepKind::GatedActivation {
                gate: self.input(brick, 0)?,
                up: self.input(brick, 1)?,
                act: *act,
                dst: self.output(brick, 0)?,
                q8: self.q8_if_wanted(brick, 0)?,
            },
        };
        self.push(brick, kernel, kind);
        Ok(())
    }

    /// The kernel of an attention brick.
    fn group(&self, brick: &Brick, spec: &bricks::AttentionSpec) -> Result<AttentionGroup, LowerError> {
        let layout = KvLayout::new(self.options.kv_type, spec.head_dim)
            .map_err(|e| LowerError::Brick { brick: brick.name.clone(), reason: e.to_string() })?;
        Ok(crate::exec::group_attention(spec, layout))
    }

    fn linear(&mut self, brick: &Brick, rows: Rows) -> Result<(), LowerError> {
        let parts = brick.op.parts();
        let gated = matches!(brick.op, Op::GatedLinear { .. });
        let v = brick.inputs[0];
        if self.has_matrix(brick, false) && self.q8_of[v.index()].is_none() {
            let src = self.input(brick, 0)?;
            if !src.width.is_multiple_of(32) {
                return Err(LowerError::Brick {
                    brick: brick.name.clone(),
                    reason: format!("quantised weights need an input width divisible by 32, found {}", src.width),
                });
            }
            let q8 = self.q8_output(v, src.width)?;
            let kernel = format!("quantize_q8_{}", self.options.simd.name());
            self.push(brick, kernel, StepKind::Quantize { src, rows, q8 });
            // Its cost is the linear step's own; only the name and the time are separate.
            if let Some((_, info, _)) = self.steps.last_mut() {
                info.name.push_str(".quantize");
                info.op = Op::Add;
                info.inputs.clear();
                info.weights.clear();
            }
        }
        let q8 = self.q8_of[v.index()];
        if let Some(b) = q8 {
            for p in b.planes {
                self.buffers[p].last = self.steps.len();
            }
        }
        // Kept alive only for float matrices and for checks.
        let source = if self.has_matrix(brick, true) || self.options.keep_values {
            self.input(brick, 0)?
        } else {
            self.f32_of[v.index()].map(Self::slot).ok_or_else(|| LowerError::Brick {
                brick: brick.name.clone(),
                reason: "its input is not a buffer of activations".into(),
            })?
        };
        let mut matrices = Vec::with_capacity(parts.len());
        let mut dtypes: Vec<&str> = Vec::new();
        let mut at = 0;
        for (port, part) in parts.iter().enumerate() {
            let weight = brick.weights[at];
            at += 1;
            self.check_bytes(brick, weight)?;
            let shape = self.graph.weight(weight).shape;
            let bias = if part.bias {
                at += 1;
                Some(self.vector(brick, brick.weights[at - 1])?)
            } else {
                None
            };
            let src = if shape.dtype.is_float() {
                Some(LinearInput::F32(source))
            } else {
                q8.map(|b| LinearInput::Q8(Self::q8_slot(b)))
            };
            let src = src.ok_or_else(|| LowerError::Brick {
                brick: brick.name.clone(),
                reason: format!("no activations for a matrix in {}", shape.dtype),
            })?;
            let kernel = LinearKernel::new(shape.dtype, self.options.simd);
            if !dtypes.contains(&shape.dtype.name()) {
                dtypes.push(shape.dtype.name());
            }
            let dst = match matrices.first() {
                Some(LinearMatrix { dst, .. }) if gated => *dst,
                _ => self.output(brick, port)?,
            };
            matrices.push(LinearMatrix { weight, bias, rows: part.rows, src, dst, kernel });
        }
        let kernel = format!("{}_{}_{}", brick.op.name(), dtypes.join("+").to_lowercase(), self.options.simd.name());
        let Op::GatedLinear { act, .. } = brick.op else {
            self.push(brick, kernel, StepKind::Linear { source, matrices, rows });
            return Ok(());
        };
        let matrices: [LinearMatrix; 2] = matrices.try_into().expect("invariant: a gated linear brick has two parts");
        let dst = matrices[0].dst;
        let q8 = self.q8_if_wanted(brick, 0)?;
        let keep = self.options.keep_values || self.f32_wanted(brick, 0);
        let kind = StepKind::GatedLinear { source, matrices: Box::new(matrices), act, dst, keep, q8 };
        self.push(brick, kernel, kind);
        Ok(())
    }

    fn finish(mut self) -> Result<Plan, LowerError> {
        let end = self.steps.len();
        let output = self.graph.output();
        let logits = self.f32_of[output.index()].ok_or_else(|| LowerError::Brick {
            brick: self.graph.brick(self.graph.value(output).producer).name.clone(),
            reason: "the graph's output is not a buffer of activations".into(),
        })?;
        self.buffers[logits.buffer].last = end;

        // One scratch area per thread, alive throughout.
        let attention = AttentionLimits {
            tile_rows: self.attention.tile_rows.min(self.options.max_rows),
            records: if self.attention.tile_rows == usize::MAX { 0 } else { self.attention.records },
        };
        let floats = |kind: &StepKind| scratch_floats(kind, self.options, attention.tile_rows);
        let scratch = self.steps.iter().map(|(kind, ..)| floats(kind)).max().unwrap_or(0).next_multiple_of(16);
        let scratch_buffer = self.f32_buffer(self.options.threads, scratch)?;
        self.buffers[scratch_buffer.buffer] =
            Buffer { first: 0, last: usize::MAX, ..self.buffers[scratch_buffer.buffer] };

        if self.options.keep_values {
            for b in &mut self.buffers {
                (b.first, b.last) = (0, usize::MAX);
            }
        }
        let packing = pack(&self.buffers).filter(|p| isize::try_from(p.bytes).is_ok());
        let brick_graphs::passes::Packing { offsets, bytes: arena_bytes } = packing.ok_or_else(|| self.too_large())?;
        let at = |s: &mut Slot| s.offset = offsets[s.offset];
        let (mut steps, mut info) = (Vec::with_capacity(end), Vec::with_capacity(end));
        for (mut kind, i, brick) in self.steps {
            patch(&mut kind, &offsets);
            steps.push(Step { kind, brick });
            info.push(i);
        }
        let mut logits = Slot { offset: logits.buffer, width: logits.width };
        at(&mut logits);
        let rope_tables = self
            .tables
            .into_iter()
            .map(|(spec, cos, sin)| RopeTable {
                frequencies: spec.inv_freq(),
                cos: Slot { offset: offsets[cos.buffer], width: cos.width },
                sin: Slot { offset: offsets[sin.buffer], width: sin.width },
                spec,
            })
            .collect();
        Ok(Plan {
            steps,
            info,
            rope_tables,
            max_rows: self.options.max_rows,
            max_wanted: self.options.max_wanted,
            logits,
            scratch: (offsets[scratch_buffer.buffer], scratch),
            threads: self.options.threads,
            arena_bytes,
            simd: self.options.simd,
            attention,
            kv_layers: self.kv_layers,
        })
    }
}

/// Scratch floats a thread needs for a step.
fn scratch_floats(kind: &StepKind, options: &LowerOptions, tile_rows: usize) -> usize {
    match kind {
        StepKind::GatedLinear { .. } => options.max_rows.saturating_mul(2 * crate::exec::GATED_COLUMNS),
        StepKind::Attention { spec, .. } => {
            let layout =
                KvLayout::new(options.kv_type, spec.head_dim).expect("invariant: checked when the step was made");
            crate::exec::group_attention(spec, layout).scratch_len(tile_rows)
        }
        StepKind::KvWrite { head_dim, .. } => *head_dim,
        _ => 0,
    }
}

/// Replaces buffer ids by offsets.
fn patch(kind: &mut StepKind, offsets: &[usize]) {
    let f = |s: &mut Slot| s.offset = offsets[s.offset];
    let q = |s: &mut Q8Slot| {
        s.codes = offsets[s.codes];
        s.scales = offsets[s.scales];
        s.sums = offsets[s.sums];
    };
    match kind {
        StepKind::Input => {}
        StepKind::Embed { dst, .. } => f(dst),
        StepKind::RmsNorm { src, dst, q8, .. } => {
            f(src);
            f(dst);
            q8.iter_mut().for_each(q);
        }
        StepKind::AddRmsNorm { a, b, sum, dst, q8, .. } => {
            [a, b, sum, dst].into_iter().for_each(f);
            q8.iter_mut().for_each(q);
        }
        StepKind::Quantize { src, q8, .. } => {
            f(src);
            q(q8);
        }
        StepKind::Linear { source, matrices, .. } => {
            f(source);
            for m in matrices {
                f(&mut m.dst);
                match &mut m.src {
                    LinearInput::F32(s) => f(s),
                    LinearInput::Q8(s) => q(s),
                }
            }
        }
        StepKind::GatedLinear { source, matrices, dst, q8, .. } => {
            f(source);
            f(dst);
            for m in matrices.iter_mut() {
                m.dst = *dst;
                match &mut m.src {
                    LinearInput::F32(s) => f(s),
                    LinearInput::Q8(s) => q(s),
                }
            }
            q8.iter_mut().for_each(q);
        }
        StepKind::Rope { src, dst, .. } => {
            f(src);
            f(dst);
        }
        StepKind::KvWrite { k, v, rope, .. } => {
            f(k);
            f(v);
            if let Some(r) = rope {
                f(&mut r.q);
                f(&mut r.q_out);
            }
        }
        StepKind::Attention { q: query, dst, q8, records, .. } => {
            f(query);
            f(dst);
            *records = offsets[*records];
            q8.iter_mut().for_each(q);
        }
        StepKind::Add { a, b, dst } => [a, b, dst].into_iter().for_each(f),
        StepKind::GatedActivation { gate, up, dst, q8, .. } => {
            [gate, up, dst].into_iter().for_each(f);
            q8.iter_mut().for_each(q);
        }
    }
}
