//! From the nodes of a plan to launches, for a given number of rows.

mod greedy;
mod stamping;
mod tensor;

use std::collections::HashMap;

use brick_cuda::{Access, Arg, Device, DeviceError, KernelId, Launch, Ptr, Region};
use brick_ptx::ir::{self, Target};
use brick_ptx::kernels::attention::{self, heads_per_cta};
use brick_ptx::kernels::elementwise::{self, Activation};
use brick_ptx::kernels::gemv::pair::GemvPair;
use brick_ptx::kernels::gemv::stream::pair::GemvStreamPair;
use brick_ptx::kernels::gemv::stream::{self, GemvStream};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::kv::KvType;
use brick_ptx::kernels::step::Step;
use brick_ptx::kernels::{Dims, Format, ShapeError, angles, embed, heads, norm, quantize, rope_kv};
use brick_ptx::stamp::{SUFFIX, stamped};
use bricks::{ActKind, AttentionSpec, Rows};

use crate::cuda::plan::{
    Buf, Chunks, Extent, FusedAttention, GpuPlan, Input, MatrixId, Node, NodeKind, ROUNDED_BY_MAKER, Source, View,
};
use crate::cuda::weights::GpuWeights;
use tensor::on_tensor_cores;

pub(super) use stamping::Stamping;

/// A launch cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A shape that a kernel does not take.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A kernel that is not valid: a bug, please report it.
    #[error("kernel {kernel}: {reason}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where everything of a plan is on a device.
#[derive(Debug)]
pub(super) struct Regions {
    pub(super) weights: GpuWeights,
    /// By [`Buf`].
    pub(super) buffers: Vec<Region>,
    /// By layer.
    pub(super) kv: Vec<Region>,
    pub(super) block_table: Region,
}

impl Regions {
    pub(super) fn buf(&self, buf: Buf) -> Ptr {
        self.buffers[buf.0].at(0)
    }

    fn view(&self, view: View) -> Ptr {
        self.buf(view.buffer).plus(4 * view.column as u64)
    }
}

/// Kernels that were loaded, by name.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    loaded: HashMap<String, KernelId>,
    /// Name and text of each, in the order of loading.
    pub(super) texts: Vec<(String, String)>,
}

impl Kernels {
    /// The name of a kernel.
    pub(super) fn name(&self, id: KernelId) -> &str {
        self.loaded.iter().find(|(_, loaded)| **loaded == id).map_or("", |(name, _)| name)
    }

    fn get(
        &mut self,
        device: &mut dyn Device,
        name: &str,
        build: impl FnOnce(Target) -> ir::Kernel,
    ) -> Result<KernelId, LaunchError> {
        if let Some(&id) = self.loaded.get(name) {
            return Ok(id);
        }
        let target = device.about().target();
        let text = brick_ptx::compile(&ir::Module { kernels: vec![build(target)] }, target)
            .map_err(|e| LaunchError::Kernel { kernel: name.to_owned(), reason: e.to_string() })?;
        let id = device.kernel(name, &text)?;
        self.loaded.insert(name.to_owned(), id);
        self.texts.push((name.to_owned(), text));
        Ok(id)
    }
}

/// What is done with a launch, and with the index of the node it belongs to.
pub(super) type Run<'a> = dyn FnMut(&mut dyn Device, usize, &Launch) -> Result<(), DeviceError> + 'a;

/// Makes launches.
pub(super) struct Launcher<'a> {
    pub(super) device: &'a mut dyn Device,
    pub(super) kernels: &'a mut Kernels,
    pub(super) plan: &'a GpuPlan,
    pub(super) regions: &'a Regions,
    pub(super) extent: Extent,
    /// Whether blocks note when they ran, and where.
    pub(super) stamping: Option<Stamping>,
}

const READ: Access = Access::Read;
const WRITE: Access = Access::Write;
const UPDATE: Access = Access::ReadWrite;

fn n(value: usize) -> Arg {
    Arg::U32(value as u32)
}

impl Launcher<'_> {
    /// All launches of a step, in order, with the index of the node each belongs to; the launch that moves a greedy step on belongs
    /// to the last node.
    pub(super) fn step(&mut self, run: &mut Run<'_>) -> Result<(), LaunchError> {
        let plan = self.plan;
        for (i, node) in plan.nodes.iter().enumerate() {
            for launch in self.node(node)? {
                run(self.device, i, &launch)?;
            }
        }
        if self.extent.greedy {
            let launch = self.advance()?;
            run(self.device, plan.nodes.len() - 1, &launch)?;
        }
        Ok(())
    }

    fn steps(&self) -> Step {
        Step::new(self.plan.max_rows as u32)
    }

    fn in_step(&self, offset: u64) -> Ptr {
        self.regions.buf(self.plan.step[0]).plus(offset)
    }

    fn positions(&self) -> Arg {
        Arg::Ptr(self.in_step(self.steps().positions()), READ)
    }

    fn chunks(&self, rows: Rows) -> Chunks {
        match rows {
            Rows::All => self.extent.rows,
            Rows::Wanted => self.extent.wanted.unwrap_or(self.extent.rows),
        }
    }

    fn launch(
        &mut self,
        name: &str,
        build: impl FnOnce(Target) -> ir::Kernel,
        dims: Dims,
        mut args: Vec<Arg>,
    ) -> Result<Launch, LaunchError> {
        let kernel = match &mut self.stamping {
            None => self.kernels.get(self.device, name, build)?,
            Some(stamping) => {
                args.push(stamping.next(dims.grid));
                self.kernels.get(self.device, &format!("{name}{SUFFIX}"), |target| stamped(&build(target)))?
            }
        };
        Ok(Launch { kernel, dims, args, dependent: true })
    }

    fn node(&mut self, node: &Node) -> Result<Vec<Launch>, LaunchError> {
        let chunks = self.chunks(node.rows);
        let r = self.regions;
        let rows = chunks.rows();
        if rows == 0 {
            // Nobody wants logits: a piece of a prompt that is not its last.
            return Ok(Vec::new());
        }
        let one = |launch: Result<Launch, LaunchError>| launch.map(|l| vec![l]);
        match &node.kind {
            // A greedy step leaves the angles of the next.
            NodeKind::Angles { .. } if self.extent.greedy && self.table().is_some() => Ok(Vec::new()),
            NodeKind::Angles { inv_freq, pairs, magnitude, dst } => {
                let args = vec![
                    self.positions(),
                    Arg::Ptr(r.weights.vector(*inv_freq).at(0), READ),
                    Arg::Ptr(r.buf(*dst), WRITE),
                    n(*pairs),
                    Arg::F32(*magnitude),
                ];
                one(self.launch("rope_angles", angles::rope_angles, angles::dims(rows, *pairs)?, args))
            }
            NodeKind::Embed { table, scale, dst } => {
                let m = &self.plan.matrices[table.0];
                let format = m.format;
                let mut args: Vec<Arg> = r.weights.planes(*table).collect();
                args.extend([
                    Arg::Ptr(self.in_step(self.steps().tokens()), READ),
                    Arg::Ptr(r.view(*dst), WRITE),
                    n(m.rows()),
                    n(m.columns),
                    Arg::F32(*scale),
                ]);
                let dims = embed::dims(format, m.columns, rows)?;
                one(self.launch(&embed::kernel_name(format), |t| embed::embed(format, t), dims, args))
            }
            NodeKind::Norm { streamed: true, .. } if self.streams(node.rows) => Ok(Vec::new()),
            NodeKind::Round { until, .. } if self.streams(node.rows) && rows <= *until => Ok(Vec::new()),
            NodeKind::Norm { src, gain, eps, gathered, dst, .. } => {
                let mut out = Vec::new();
                let mut from = *src;
                if let (Some(view), Some(_)) = (gathered, self.extent.wanted) {
                    let args = vec![
                        Arg::Ptr(r.view(*src), READ),
                        Arg::Ptr(r.buf(self.plan.wanted), READ),
                        Arg::Ptr(r.view(*view), WRITE),
                        n(src.width),
                    ];
                    let dims = heads::gather_rows_dims(rows, src.width)?;
                    out.push(self.launch("gather_rows", heads::gather_rows, dims, args)?);
                    from = *view;
                }
                let (output, to) = match dst {
                    Input::Q8(buf) | Input::Bf16(buf) => (norm::Output::Q8, r.buf(*buf)),
                    Input::F32(view) => (norm::Output::F32, r.view(*view)),
                };
                let args = vec![
                    Arg::Ptr(r.view(from), READ),
                    Arg::Ptr(r.weights.vector(*gain).at(0), READ),
                    Arg::Ptr(to, WRITE),
                    n(from.width),
                    Arg::F32(*eps),
                ];
                let dims = norm::dims(output, chunks.size, from.width, chunks.count)?;
                out.push(self.launch(output.kernel(), |t| norm::rms_norm(output, t), dims, args)?);
                Ok(out)
            }
            NodeKind::RopeKv { fused: true, .. } if self.extent.apart => Ok(Vec::new()),
            NodeKind::Round { src, dst: Input::Bf16(buf), .. } => {
                let values = rows * src.width;
                let args = vec![Arg::Ptr(r.view(*src), READ), Arg::Ptr(r.buf(*buf), WRITE), n(values)];
                one(self.launch("round_bf16", quantize::round_bf16, quantize::round_bf16_dims(values)?, args))
            }
            NodeKind::Round { src, dst, .. } => {
                let to = match dst {
                    Input::Q8(buf) | Input::Bf16(buf) => r.buf(*buf),
                    Input::F32(view) => r.view(*view),
                };
                let args = vec![Arg::Ptr(r.view(*src), READ), Arg::Ptr(to, WRITE), n(src.width)];
                let dims = quantize::quantize_q8_dims(src.width, chunks.size, chunks.count)?;
                one(self.launch("quantize_q8", quantize::quantize_q8, dims, args))
            }
            NodeKind::Linear { matrix, second, x, source, bias, residual, y, codes, gated, logits } => {
                let p = Product {
                    matrix: *matrix,
                    second: *second,
                    x: *x,
                    source: source.filter(|_| self.streams(node.rows)),
                    bias: bias.map_or(Arg::Null, |b| Arg::Ptr(r.weights.vector(b).at(0), READ)),
                    residual: residual.map_or(Arg::Null, |v| Arg::Ptr(r.view(v), READ)),
                    y: *y,
                    codes: codes.filter(|_| rows <= ROUNDED_BY_MAKER),
                    gated: *gated,
                };
                if *logits && self.extent.greedy {
                    return self.argmax(&p, chunks);
                }
                if p.source.is_none() && on_tensor_cores(self.plan, &p, chunks) {
                    return self.tensor(&p, chunks);
                }
                one(match (p.source, p.second) {
                    (Some(source), None) => self.stream(&p, source, chunks.size),
                    (Some(source), Some(second)) => self.stream_pair(&p, second, source, chunks.size),
                    (None, Some(second)) => self.pair(&p, second, chunks),
                    (None, None) => self.linear(&p, chunks),
                })
            }
            NodeKind::RopeKv { layer, qkv, q, angles, pairs, style, .. } => {
                let kv = self.plan.kv;
                let width = kv.head_dim as usize;
                let spec = rope_kv::Spec { head_dim: kv.head_dim, style: *style, bias: false, kv: KvType::F16 };
                let (heads, pairs) = (q.width / width, *pairs);
                let shape = rope_kv::Shape { rows, heads, kv_heads: kv.kv_heads, pairs };
                let args = vec![
                    Arg::Ptr(r.view(*qkv), READ),
                    Arg::Ptr(r.buf(*angles), READ),
                    self.positions(),
                    Arg::Ptr(self.in_step(self.steps().sequences()), READ),
                    Arg::Ptr(r.block_table.at(0), READ),
                    Arg::Ptr(r.view(*q), WRITE),
                    Arg::Ptr(r.kv[*layer].at(0), UPDATE),
                    n(heads),
                    n(kv.kv_heads),
                    n(pairs),
                    n(kv.table_width),
                    n(kv.blocks),
                ];
                one(self.launch(&spec.kernel(), |t| rope_kv::rope_kv(spec, t), rope_kv::dims(spec, shape)?, args))
            }
            NodeKind::Attention { layer, spec, q, dst, fused } => {
                let fused = fused.filter(|_| self.extent.apart);
                one(self.attention(*layer, spec, *q, *dst, fused, chunks))
            }
            NodeKind::Compact { src, dst, heads, dims: (from, to) } => {
                let args =
                    vec![Arg::Ptr(r.view(*src), READ), Arg::Ptr(r.view(*dst), WRITE), n(*heads), n(*from), n(*to)];
                one(self.launch(
                    "compact_heads",
                    heads::compact_heads,
                    heads::compact_heads_dims(rows, *heads, *to)?,
                    args,
                ))
            }
            NodeKind::Gate { gate, up, act, dst } => {
                let activation = match act {
                    ActKind::Silu => Activation::Silu,
                    ActKind::GeluTanh => Activation::GeluTanh,
                };
                let args = vec![
                    Arg::Ptr(r.view(*gate), READ),
                    Arg::Ptr(r.view(*up), READ),
                    Arg::Ptr(r.view(*dst), WRITE),
                    n(dst.width),
                    n(gate.stride),
                ];
                let dims = elementwise::gate_dims(activation, rows, dst.width, gate.stride)?;
                one(self.launch(activation.kernel(), |t| elementwise::gate(activation, t), dims, args))
            }
            NodeKind::Add { a, b, dst } => {
                let values = rows * dst.width;
                let args = vec![
                    Arg::Ptr(r.view(*a), READ),
                    Arg::Ptr(r.view(*b), READ),
                    Arg::Ptr(r.view(*dst), WRITE),
                    n(values),
                ];
                one(self.launch("add", elementwise::add, elementwise::add_dims(values)?, args))
            }
        }
    }

    fn input(&self, x: Input, chunk: usize, size: usize) -> Arg {
        let r = self.regions;
        match x {
            Input::Q8(buf) | Input::Bf16(buf) => Arg::Ptr(r.buf(buf).plus((chunk * size) as u64), READ),
            Input::F32(view) => Arg::Ptr(r.view(view).plus((chunk * size) as u64), READ),
        }
    }

    /// Whether matrix kernels normalise and round what they read themselves: rows are few, and all of them take part.
    fn streams(&self, rows: Rows) -> bool {
        self.extent.few() && (rows == Rows::All || self.extent.wanted.is_none())
    }

    /// A matrix whose kernel normalises and rounds what it reads.
    fn stream(&mut self, p: &Product, source: Source, tokens: usize) -> Result<Launch, LaunchError> {
        let epilogue = match (p.gated, p.codes) {
            (false, _) => Epilogue::Store,
            (true, None) => Epilogue::SwiGlu,
            (true, Some(_)) => Epilogue::SwiGluQ8,
        };
        let (kernel, mut args) = self.streamed(p.matrix, source, tokens, epilogue)?;
        let m = &self.plan.matrices[p.matrix.0];
        let (rows, columns, processors) = (m.rows(), m.columns, self.device.about().processors);
        if !p.gated {
            args.extend([p.bias, p.residual]);
        }
        args.push(Arg::Ptr(self.regions.view(p.y), WRITE));
        args.extend(p.codes.map(|tiles| Arg::Ptr(self.regions.buf(tiles), WRITE)));
        args.extend([n(rows), n(columns)]);
        if !p.gated {
            args.push(n(p.y.stride));
        }
        args.extend(source.norm.map(|(_, eps)| Arg::F32(eps)));
        let dims = kernel.dims(rows, columns, processors)?;
        self.launch(&kernel.name(), |t| kernel.kernel(t), dims, args)
    }

    /// Two matrices of different formats whose kernel normalises and rounds what it reads.
    fn stream_pair(
        &mut self,
        p: &Product,
        second: MatrixId,
        source: Source,
        tokens: usize,
    ) -> Result<Launch, LaunchError> {
        let r = self.regions;
        let [a, b] = [&self.plan.matrices[p.matrix.0], &self.plan.matrices[second.0]];
        let (rows, columns, processors) = ([a.rows(), b.rows()], a.columns, self.device.about().processors);
        let kernel = GemvStreamPair::new([a.format, b.format], tokens, kind(source));
        let kernel = kernel.ok_or_else(|| no_pair(a.format, b.format))?;
        let mut args: Vec<Arg> = r.weights.planes(p.matrix).chain(r.weights.planes(second)).collect();
        args.push(Arg::Ptr(r.view(source.x), READ));
        args.extend(source.norm.map(|(gain, _)| Arg::Ptr(r.weights.vector(gain).at(0), READ)));
        args.extend([p.bias, Arg::Ptr(r.view(p.y), WRITE), n(rows[0]), n(rows[1]), n(columns), n(p.y.stride)]);
        args.extend(source.norm.map(|(_, eps)| Arg::F32(eps)));
        let dims = kernel.dims(rows, columns, processors)?;
        self.launch(&kernel.name(), |t| kernel.kernel(t), dims, args)
    }

    /// The kernel of such a matrix, and its first arguments: planes, rows, gain.
    fn streamed(
        &self,
        matrix: MatrixId,
        source: Source,
        tokens: usize,
        epilogue: Epilogue,
    ) -> Result<(GemvStream, Vec<Arg>), LaunchError> {
        let format = self.plan.matrices[matrix.0].format;
        let kernel = GemvStream::new(format, tokens, epilogue, kind(source)).ok_or_else(|| LaunchError::Kernel {
            kernel: "gemv_stream".into(),
            reason: format!("there is none for {} and {tokens} tokens", format.name()),
        })?;
        let mut args: Vec<Arg> = self.regions.weights.planes(matrix).collect();
        args.push(Arg::Ptr(self.regions.view(source.x), READ));
        args.extend(source.norm.map(|(gain, _)| Arg::Ptr(self.regions.weights.vector(gain).at(0), READ)));
        Ok((kernel, args))
    }

    /// Two matrices of different formats on one input, in one launch.
    fn pair(&mut self, p: &Product, second: MatrixId, chunks: Chunks) -> Result<Launch, LaunchError> {
        let r = self.regions;
        let [a, b] = [&self.plan.matrices[p.matrix.0], &self.plan.matrices[second.0]];
        let columns = a.columns;
        let kernel = GemvPair::new([a.format, b.format], chunks.size).ok_or_else(|| no_pair(a.format, b.format))?;
        let rows = [a.rows(), b.rows()];
        let mut args: Vec<Arg> = r.weights.planes(p.matrix).chain(r.weights.planes(second)).collect();
        args.push(self.input(p.x, 0, 0));
        args.extend([p.bias, Arg::Ptr(r.view(p.y), WRITE), n(rows[0]), n(rows[1]), n(columns), n(p.y.stride)]);
        let dims = kernel.dims(rows, columns, chunks.count)?;
        self.launch(&kernel.name(), |t| kernel.kernel(t), dims, args)
    }

    fn linear(&mut self, p: &Product, chunks: Chunks) -> Result<Launch, LaunchError> {
        let m = &self.plan.matrices[p.matrix.0];
        let (format, rows, columns) = (m.format, m.rows(), m.columns);
        let processors = self.device.about().processors;
        let mut args: Vec<Arg> = self.regions.weights.planes(p.matrix).collect();
        args.push(self.input(p.x, 0, 0));
        if !p.gated {
            args.extend([p.bias, p.residual]);
        }
        args.extend([Arg::Ptr(self.regions.view(p.y), WRITE), n(rows), n(columns)]);
        if !p.gated {
            args.push(n(p.y.stride));
        }
        let epilogue = if p.gated { Epilogue::SwiGlu } else { Epilogue::Store };
        let mut gemv = Gemv::new(format, chunks.size, epilogue)?;
        if gemv.prefers_narrow(rows, processors) {
            gemv = gemv.narrow();
        }
        let dims = gemv.dims(rows, columns, chunks.count, processors)?;
        self.launch(&gemv.name(), |t| gemv.kernel(t), dims, args)
    }

    fn attention(
        &mut self,
        layer: usize,
        spec: &AttentionSpec,
        q: View,
        dst: View,
        fused: Option<FusedAttention>,
        chunks: Chunks,
    ) -> Result<Launch, LaunchError> {
        let kv = self.plan.kv;
        let group = spec.n_heads / spec.n_kv_heads;
        let kernel = attention::Spec {
            head_dim: kv.head_dim,
            heads: heads_per_cta(group as u32),
            kv: KvType::F16,
            softcap: spec.softcap.is_some(),
            window: spec.window.is_some(),
        };
        let shape = attention::Shape {
            rows: chunks.rows(),
            heads: spec.n_heads,
            kv_heads: spec.n_kv_heads,
            context: self.extent.context,
            window: spec.window.unwrap_or(0),
        };
        let r = self.regions;
        let mut args = match fused {
            None => vec![Arg::Ptr(r.view(q), READ)],
            Some(f) => vec![Arg::Ptr(r.view(f.qkv), READ), Arg::Ptr(r.buf(f.angles), READ)],
        };
        args.extend([
            self.positions(),
            Arg::Ptr(self.in_step(self.steps().sequences()), READ),
            Arg::Ptr(r.block_table.at(0), READ),
            Arg::Ptr(r.kv[layer].at(0), if fused.is_some() { UPDATE } else { READ }),
            Arg::Ptr(r.view(dst), WRITE),
        ]);
        args.extend(self.plan.attention.map(|buf| Arg::Ptr(r.buf(buf), UPDATE)));
        args.extend([n(spec.n_heads), n(group), n(kv.table_width), n(kv.blocks), Arg::F32(spec.scale)]);
        args.extend(spec.softcap.map(Arg::F32));
        args.extend(spec.window.map(n));
        let Some(f) = fused else {
            let dims = attention::dims(kernel, shape)?;
            return self.launch(&kernel.kernel(), |t| attention::attention(kernel, t), dims, args);
        };
        args.push(n(f.pairs));
        let kernel = attention::Fused { spec: kernel, style: f.style };
        let dims = kernel.dims(shape, f.pairs)?;
        self.launch(&kernel.kernel(), |t| attention::attention_fused(kernel, t), dims, args)
    }
}

/// A product with a matrix, and what becomes of it.
#[derive(Clone, Copy)]
struct Product {
    matrix: MatrixId,
    second: Option<MatrixId>,
    x: Input,
    /// What is read instead of `x`, where rows are few.
    source: Option<Source>,
    bias: Arg,
    residual: Arg,
    y: View,
    /// Where the output is rounded to, too.
    codes: Option<Buf>,
    gated: bool,
}

/// What a kernel that rounds what it reads is told of it.
fn kind(source: Source) -> stream::Source {
    if source.norm.is_some() { stream::Source::Norm } else { stream::Source::Plain }
}

fn no_pair(a: Format, b: Format) -> LaunchError {
    LaunchError::Kernel {
        kernel: "gemv_pair".into(),
        reason: format!("there is none for {} and {}", a.name(), b.name()),
    }
}
