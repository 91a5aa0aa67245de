//! From an architecture to a graph: one builder for every decoder.
//!
//! The graph is unfused, one brick per elementary operation, in the order in which a forward call runs them. What may be
//! done together is decided by [`brick_graphs::passes`].

mod names;

use brick_graphs::{Graph, GraphBuilder, GraphError, Handle, WeightId};
use bricks::{AttentionSpec, BrickKind, LinearPart, Op, Rows, WeightShape};

use crate::arch::ArchSpec;

/// Why a model file does not make a graph.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file lacks a tensor that the architecture needs.
    #[error("tensor `{tensor}` is missing: {architecture} needs it for brick `{brick}`")]
    MissingTensor {
        /// Name of the tensor.
        tensor: String,
        /// Brick that would read it.
        brick: String,
        /// The architecture.
        architecture: String,
    },
    /// A tensor has a shape that contradicts the metadata.
    #[error("tensor `{tensor}`: expected {expected}, found {found}")]
    TensorShape {
        /// Name of the tensor.
        tensor: String,
        /// Shape that follows from the metadata.
        expected: String,
        /// Shape in the file.
        found: String,
    },
    /// The architecture's own numbers make no sense.
    #[error("{architecture}: {field}: expected {expected}, found {found}")]
    Spec {
        /// The architecture.
        architecture: String,
        /// Field of [`ArchSpec`].
        field: &'static str,
        /// What would make sense.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The bricks do not fit together.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Builds the unfused graph of a decoder.
///
/// `weight_of` gives type and shape of a tensor of the file by its GGUF name, or `None` if there is none. Biases of
/// projections are used wherever the file has them, since a bias left out is a wrong answer without an error; with
/// [`ArchSpec::qkv_bias`] those of Q, K and V are required.
///
/// # Errors
/// [`BuildError`]: a tensor is missing or has a shape that contradicts the metadata, or the metadata contradicts itself.
pub fn build_graph(spec: &ArchSpec, weight_of: &dyn Fn(&str) -> Option<WeightShape>) -> Result<Graph, BuildError> {
    let dims = Dims::checked(spec)?;
    Decoder { b: GraphBuilder::new(), spec, dims, weight_of }.build()
}

/// Sizes derived from the spec, checked against overflow.
struct Dims {
    layers: u32,
    q: usize,
    kv: usize,
}

impl Dims {
    fn checked(spec: &ArchSpec) -> Result<Self, BuildError> {
        let fail = |field, expected, found: String| {
            Err(BuildError::Spec { architecture: spec.architecture.clone(), field, expected, found })
        };
        let sizes = [
            ("n_layers", spec.n_layers),
            ("hidden", spec.hidden),
            ("n_heads", spec.n_heads),
            ("n_kv_heads", spec.n_kv_heads),
            ("head_dim", spec.head_dim),
            ("ffn", spec.ffn),
            ("vocab", spec.vocab),
            ("sliding_window", spec.sliding_window.unwrap_or(1)),
        ];
        // The bound keeps every product of two sizes within 64 bits.
        if let Some((field, n)) = sizes.into_iter().find(|(_, n)| *n == 0 || *n > MAX_SIZE) {
            return fail(field, "a positive number of at most 2^28", n.to_string());
        }
        if !spec.n_heads.is_multiple_of(spec.n_kv_heads) {
            return fail("n_kv_heads", "a divisor of n_heads", format!("{} of {}", spec.n_kv_heads, spec.n_heads));
        }
        let positive = [("norm_eps", spec.norm_eps), ("rope.base", spec.rope.base)];
        if let Some((field, x)) = positive.into_iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
            return fail(field, "a finite positive number", x.to_string());
        }
        if !spec.embedding_scale.is_finite() {
            return fail("embedding_scale", "a finite number", spec.embedding_scale.to_string());
        }
        Ok(Self { layers: spec.n_layers as u32, q: spec.n_heads * spec.head_dim, kv: spec.n_kv_heads * spec.head_dim })
    }
}

const MAX_SIZE: usize = 1 << 28;

/// A projection to be added.
struct Projection {
    name: String,
    kind: BrickKind,
    layer: Option<u32>,
    label: &'static str,
    input: usize,
    output: usize,
    bias_required: bool,
}

struct Decoder<'a> {
    b: GraphBuilder,
    spec: &'a ArchSpec,
    dims: Dims,
    weight_of: &'a dyn Fn(&str) -> Option<WeightShape>,
}

impl Decoder<'_> {
    fn build(mut self) -> Result<Graph, BuildError> {
        let tokens = self.b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
        let table = self.weight(names::TOKEN_EMBD, names::weight(names::TOKEN_EMBD))?;
        self.expect_shape(names::TOKEN_EMBD, self.spec.vocab, self.spec.hidden)?;
        let embed = Op::Embed { scale: self.spec.embedding_scale };
        let mut x = self.b.push(names::TOKEN_EMBD, BrickKind::Embed, None, embed, &[tokens], &[table]).out();
        for layer in 0..self.dims.layers {
            x = self.attention_block(layer, x)?;
            x = self.ffn_block(layer, x)?;
        }
        let x = self.norm(names::OUTPUT_NORM.into(), BrickKind::FinalNorm, None, Rows::Wanted, x)?;
        let logits = self.lm_head(x, table)?;
        Ok(self.b.finish(logits)?)
    }

    /// `x + Wo · attention(rope(Wq · norm(x)), …)`.
    fn attention_block(&mut self, layer: u32, x: Handle) -> Result<Handle, BuildError> {
        let spec = self.spec;
        let (at, q_dim, kv_dim) = (Some(layer), self.dims.q, self.dims.kv);
        let name = |part: &str| names::block(layer, part);
        let h = self.norm(name(names::ATTN_NORM), BrickKind::RmsNorm, at, Rows::All, x)?;
        let mut qkv = |part: &str, label: &'static str, output: usize| {
            self.linear(
                h,
                Rows::All,
                Projection {
                    name: name(part),
                    kind: BrickKind::Qkv,
                    layer: at,
                    label,
                    input: spec.hidden,
                    output,
                    bias_required: spec.qkv_bias,
                },
            )
        };
        let q = qkv(names::ATTN_Q, "q", q_dim)?;
        let k = qkv(names::ATTN_K, "k", kv_dim)?;
        let v = qkv(names::ATTN_V, "v", kv_dim)?;

        let (n_heads, n_kv_heads, head_dim) = (spec.n_heads, spec.n_kv_heads, spec.head_dim);
        let rope = |n_heads| Op::Rope { n_heads, head_dim, spec: spec.rope.clone() };
        let q = self.b.push(name("rope_q"), BrickKind::Rope, at, rope(n_heads), &[q], &[]).out();
        let k = self.b.push(name("rope_k"), BrickKind::Rope, at, rope(n_kv_heads), &[k], &[]).out();
        let write = Op::KvWrite { n_kv_heads, head_dim };
        let kv = self.b.push(name("kv_write"), BrickKind::KvWrite, at, write, &[k, v], &[]).out();
        let attention = Op::Attention(AttentionSpec {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: 1.0 / (head_dim as f32).sqrt(),
            window: spec.sliding_window,
            softcap: None,
        });
        let h = self.b.push(name("attn"), BrickKind::Attention, at, attention, &[q, kv], &[]).out();
        let h = self.linear(
            h,
            Rows::All,
            Projection {
                name: name(names::ATTN_OUTPUT),
                kind: BrickKind::OProj,
                layer: at,
                label: "o",
                input: q_dim,
                output: spec.hidden,
                bias_required: false,
            },
        )?;
        Ok(self.b.push(name("attn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out())
    }

    /// `x + Wdown · (act(Wgate · norm(x)) · (Wup · norm(x)))`.
    fn ffn_block(&mut self, layer: u32, x: Handle) -> Result<Handle, BuildError> {
        let spec = self.spec;
        let at = Some(layer);
        let name = |part: &str| names::block(layer, part);
        let h = self.norm(name(names::FFN_NORM), BrickKind::RmsNorm, at, Rows::All, x)?;
        let mut project = |h, part: &str, kind, label, input, output| {
            let name = name(part);
            self.linear(h, Rows::All, Projection { name, kind, layer: at, label, input, output, bias_required: false })
        };
        let gate = project(h, names::FFN_GATE, BrickKind::GateUp, "gate", spec.hidden, spec.ffn)?;
        let up = project(h, names::FFN_UP, BrickKind::GateUp, "up", spec.hidden, spec.ffn)?;
        let act = Op::GatedActivation { act: spec.activation };
        let h = self.b.push(name("ffn_act"), BrickKind::Activation, at, act, &[gate, up], &[]).out();
        let down = Projection {
            name: name(names::FFN_DOWN),
            kind: BrickKind::Down,
            layer: at,
            label: "down",
            input: spec.ffn,
            output: spec.hidden,
            bias_required: false,
        };
        let h = self.linear(h, Rows::All, down)?;
        Ok(self.b.push(name("ffn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out())
    }

    /// Logits of the wanted rows. With tied embeddings the matrix is the embedding table: the same weight, read twice.
    fn lm_head(&mut self, x: Handle, table: WeightId) -> Result<Handle, BuildError> {
        let head = Projection {
            name: names::OUTPUT.into(),
            kind: BrickKind::LmHead,
            layer: None,
            label: "logits",
            input: self.spec.hidden,
            output: self.spec.vocab,
            bias_required: false,
        };
        let matrix =
            if self.spec.tied_embeddings { table } else { self.weight(names::OUTPUT, names::weight(names::OUTPUT))? };
        self.linear_with(x, Rows::Wanted, head, matrix)
    }

    fn norm(
        &mut self,
        name: String,
        kind: BrickKind,
        layer: Option<u32>,
        rows: Rows,
        x: Handle,
    ) -> Result<Handle, BuildError> {
        let gain = self.weight(&name, names::weight(&name))?;
        let op = Op::RmsNorm { eps: self.spec.norm_eps, rows };
        Ok(self.b.push(name, kind, layer, op, &[x], &[gain]).out())
    }

    fn linear(&mut self, x: Handle, rows: Rows, p: Projection) -> Result<Handle, BuildError> {
        let matrix = self.weight(&p.name, names::weight(&p.name))?;
        self.linear_with(x, rows, p, matrix)
    }

    fn linear_with(&mut self, x: Handle, rows: Rows, p: Projection, matrix: WeightId) -> Result<Handle, BuildError> {
        let bias_name = names::bias(&p.name);
        let bias = p.bias_required || (self.weight_of)(&bias_name).is_some();
        let mut weights = vec![matrix];
        if bias {
            weights.push(self.weight(&p.name, bias_name)?);
        }
        let parts = vec![LinearPart { label: p.label.into(), rows: p.output, bias }];
        let op = Op::Linear { input: p.input, parts, rows };
        Ok(self.b.push(p.name, p.kind, p.layer, op, &[x], &weights).out())
    }

    /// Registers a tensor of the file.
    fn weight(&mut self, brick: &str, tensor: String) -> Result<WeightId, BuildError> {
        match (self.weight_of)(&tensor) {
            Some(shape) => Ok(self.b.weight(tensor, shape)),
            None => Err(BuildError::MissingTensor {
                tensor,
                brick: brick.to_owned(),
                architecture: self.spec.architecture.clone(),
            }),
        }
    }

    /// The embedding table is what all other widths are measured by, so it is checked by itself.
    fn expect_shape(&self, brick: &str, rows: usize, cols: usize) -> Result<(), BuildError> {
        let tensor = names::weight(brick);
        match (self.weight_of)(&tensor) {
            Some(s) if (s.rows, s.cols) != (rows, cols) => Err(BuildError::TensorShape {
                tensor,
                expected: format!("[{rows}, {cols}]"),
                found: format!("[{}, {}] {}", s.rows, s.cols, s.dtype),
            }),
            _ => Ok(()),
        }
    }
}
