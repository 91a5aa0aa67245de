//! From an architecture to a graph: one builder for every decoder.
//!
//! The graph is unfused, one brick per elementary operation, in the order in which a forward call runs them. What may be
//! done together is decided by [`brick_graphs::passes`]. A brick that reads a matrix or a norm's gain is called like that
//! tensor, without its suffix.

use brick_graphs::{Graph, GraphBuilder, GraphError, Handle, WeightId};
use bricks::{AttentionSpec, BrickKind, LinearPart, Op, Rows, WeightShape};

use crate::arch::{ArchSpec, WeightNames, WeightRole};

/// Why a model file does not make a graph.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The file lacks a tensor that the architecture needs.
    #[error("tensor `{tensor}` ({what}) is missing: {architecture} needs it")]
    MissingTensor {
        /// Name of the tensor.
        tensor: String,
        /// What it is for.
        what: &'static str,
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
/// `weight_of` gives type and shape of a tensor of the file by its GGUF name, or `None` if there is none. That the file has
/// no tensors beyond those is checked by [`ArchSpec::from_gguf`].
///
/// # Errors
/// [`BuildError`]: a tensor is missing or has a shape that contradicts the metadata, or the metadata contradicts itself.
pub fn build_graph(spec: &ArchSpec, weight_of: &dyn Fn(&str) -> Option<WeightShape>) -> Result<Graph, BuildError> {
    check(spec)?;
    Decoder { b: GraphBuilder::new(), spec, layers: spec.n_layers as u32, weight_of }.build()
}

/// The largest size of any kind: keeps every product of two of them within 64 bits.
const MAX_SIZE: usize = 1 << 28;

/// Refuses numbers that no graph can be made of. Whether they agree with the tensors is found by building.
fn check(spec: &ArchSpec) -> Result<(), BuildError> {
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
    Ok(())
}

/// A projection to be added: its matrix, and its bias if the architecture has one.
struct Projection {
    matrix: WeightRole,
    bias: Option<WeightRole>,
    kind: BrickKind,
    label: &'static str,
}

impl Projection {
    const fn new(matrix: WeightRole, kind: BrickKind, label: &'static str) -> Self {
        Self { matrix, bias: None, kind, label }
    }

    const fn with_bias(self, bias: WeightRole) -> Self {
        Self { bias: Some(bias), ..self }
    }
}

const Q: Projection = Projection::new(WeightRole::AttnQ, BrickKind::Qkv, "q").with_bias(WeightRole::AttnQBias);
const K: Projection = Projection::new(WeightRole::AttnK, BrickKind::Qkv, "k").with_bias(WeightRole::AttnKBias);
const V: Projection = Projection::new(WeightRole::AttnV, BrickKind::Qkv, "v").with_bias(WeightRole::AttnVBias);
const O: Projection = Projection::new(WeightRole::AttnOutput, BrickKind::OProj, "o");
const GATE: Projection = Projection::new(WeightRole::FfnGate, BrickKind::GateUp, "gate");
const UP: Projection = Projection::new(WeightRole::FfnUp, BrickKind::GateUp, "up");
const DOWN: Projection = Projection::new(WeightRole::FfnDown, BrickKind::Down, "down");
const LM_HEAD: Projection = Projection::new(WeightRole::Output, BrickKind::LmHead, "logits");

/// Where a brick is: a layer, or outside of all.
type At = Option<u32>;

struct Decoder<'a> {
    b: GraphBuilder,
    spec: &'a ArchSpec,
    layers: u32,
    weight_of: &'a dyn Fn(&str) -> Option<WeightShape>,
}

impl Decoder<'_> {
    fn build(mut self) -> Result<Graph, BuildError> {
        let tokens = self.b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
        let (name, table) = self.table()?;
        let embed = Op::Embed { scale: self.spec.embedding_scale };
        let mut x = self.b.push(name, BrickKind::Embed, None, embed, &[tokens], &[table]).out();
        for layer in 0..self.layers {
            x = self.attention_block(layer, x)?;
            x = self.ffn_block(layer, x)?;
        }
        let x = self.norm(WeightRole::OutputNorm, BrickKind::FinalNorm, None, x)?;
        // With tied embeddings the matrix is the embedding table: the same weight, read twice.
        let logits = if self.spec.tied_embeddings {
            self.linear_with(&LM_HEAD, None, x, table)?
        } else {
            self.linear(&LM_HEAD, None, x)?
        };
        Ok(self.b.finish(logits)?)
    }

    /// `x + Wo · attention(rope(Wq · norm(x)), …)`.
    fn attention_block(&mut self, layer: u32, x: Handle) -> Result<Handle, BuildError> {
        let (spec, at) = (self.spec, Some(layer));
        let name = |part: &str| format!("blk.{layer}.{part}");
        let (n_heads, n_kv_heads, head_dim) = (spec.n_heads, spec.n_kv_heads, spec.head_dim);

        let h = self.norm(WeightRole::AttnNorm, BrickKind::RmsNorm, at, x)?;
        let q = self.linear(&Q, at, h)?;
        let k = self.linear(&K, at, h)?;
        let v = self.linear(&V, at, h)?;
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
        let h = self.linear(&O, at, h)?;
        Ok(self.b.push(name("attn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out())
    }

    /// `x + Wdown · (act(Wgate · norm(x)) · (Wup · norm(x)))`.
    fn ffn_block(&mut self, layer: u32, x: Handle) -> Result<Handle, BuildError> {
        let at = Some(layer);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let h = self.norm(WeightRole::FfnNorm, BrickKind::RmsNorm, at, x)?;
        let gate = self.linear(&GATE, at, h)?;
        let up = self.linear(&UP, at, h)?;
        let act = Op::GatedActivation { act: self.spec.activation };
        let h = self.b.push(name("ffn_act"), BrickKind::Activation, at, act, &[gate, up], &[]).out();
        let h = self.linear(&DOWN, at, h)?;
        Ok(self.b.push(name("ffn_residual"), BrickKind::Residual, at, Op::Add, &[x, h], &[]).out())
    }

    /// The final norm also gathers: only wanted rows go through the LM head.
    fn norm(&mut self, role: WeightRole, kind: BrickKind, at: At, x: Handle) -> Result<Handle, BuildError> {
        let rows = if kind == BrickKind::FinalNorm { Rows::Wanted } else { Rows::All };
        let gain = self.weight(role, at)?;
        let op = Op::RmsNorm { eps: self.spec.norm_eps, rows };
        Ok(self.b.push(brick_name(role, at), kind, at, op, &[x], &[gain]).out())
    }

    fn linear(&mut self, p: &Projection, at: At, x: Handle) -> Result<Handle, BuildError> {
        let matrix = self.weight(p.matrix, at)?;
        self.linear_with(p, at, x, matrix)
    }

    fn linear_with(&mut self, p: &Projection, at: At, x: Handle, matrix: WeightId) -> Result<Handle, BuildError> {
        let mut weights = vec![matrix];
        if let Some(bias) = p.bias.filter(|b| self.spec.has(*b)) {
            weights.push(self.weight(bias, at)?);
        }
        let (output, input) = self.spec.weight_shape(p.matrix);
        let parts = vec![LinearPart { label: p.label.into(), rows: output, bias: weights.len() > 1 }];
        let rows = if p.kind == BrickKind::LmHead { Rows::Wanted } else { Rows::All };
        let op = Op::Linear { input, parts, rows };
        Ok(self.b.push(brick_name(p.matrix, at), p.kind, at, op, &[x], &weights).out())
    }

    /// The embedding table and the name of its brick. It is what all other widths are measured by, so it is checked itself.
    fn table(&mut self) -> Result<(String, WeightId), BuildError> {
        let role = WeightRole::TokenEmbedding;
        let id = self.weight(role, None)?;
        let tensor = tensor_name(role, None);
        let (rows, cols) = self.spec.weight_shape(role);
        match (self.weight_of)(&tensor) {
            Some(s) if (s.rows, s.cols) != (rows, cols) => Err(BuildError::TensorShape {
                tensor,
                expected: format!("[{rows}, {cols}]"),
                found: format!("[{}, {}] {}", s.rows, s.cols, s.dtype),
            }),
            _ => Ok((brick_name(role, None), id)),
        }
    }

    /// Registers a tensor of the file.
    fn weight(&mut self, role: WeightRole, at: At) -> Result<WeightId, BuildError> {
        let tensor = tensor_name(role, at);
        match (self.weight_of)(&tensor) {
            Some(shape) => Ok(self.b.weight(tensor, shape)),
            None => Err(BuildError::MissingTensor {
                tensor,
                what: role.description(),
                architecture: self.spec.architecture.clone(),
            }),
        }
    }
}

fn tensor_name(role: WeightRole, at: At) -> String {
    WeightNames::GGUF.name(role, at.unwrap_or(0) as usize)
}

/// `blk.3.attn_q.weight` → `blk.3.attn_q`.
fn brick_name(role: WeightRole, at: At) -> String {
    let tensor = tensor_name(role, at);
    tensor.strip_suffix(".weight").map(str::to_owned).unwrap_or(tensor)
}
