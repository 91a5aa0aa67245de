//! What a brick computes, as data: parameters, port types, static cost.

use serde::{Deserialize, Serialize};

use crate::cost::{Cost, Extent};
use crate::dtype::DType;
use crate::rope::RopeSpec;

/// One axis of a port. Symbolic axes get their size from the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dim {
    /// A size known when the graph is built.
    Fixed(usize),
    /// Rows of the batch, `T`.
    Tokens,
    /// Rows of the batch whose logits are wanted, `L`.
    Wanted,
    /// Positions in the KV cache, `S`.
    Context,
}

impl std::fmt::Display for Dim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Dim::Fixed(n) => write!(f, "{n}"),
            Dim::Tokens => f.write_str("T"),
            Dim::Wanted => f.write_str("L"),
            Dim::Context => f.write_str("S"),
        }
    }
}

/// What flows along an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// Token ids (u32).
    TokenId,
    /// Activations (f32).
    F32,
    /// The state of one layer's KV cache (f16 pages): an ordering, not a buffer.
    KvCache,
    /// The same with q8_0 pages: what a plan makes of it, never a graph.
    KvCacheQ8,
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ValueType::TokenId => "token",
            ValueType::F32 => "f32",
            ValueType::KvCache => "kv",
            ValueType::KvCacheQ8 => "kv_q8_0",
        })
    }
}

/// Type of a port: element type and symbolic shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortType {
    /// Element type.
    pub value: ValueType,
    /// Axes, outermost first.
    pub dims: Vec<Dim>,
}

impl PortType {
    /// Activations `[rows, width]`.
    pub fn rows(rows: Rows, width: usize) -> Self {
        Self { value: ValueType::F32, dims: vec![rows.dim(), Dim::Fixed(width)] }
    }

    /// Token ids `[T]`.
    pub fn tokens() -> Self {
        Self { value: ValueType::TokenId, dims: vec![Dim::Tokens] }
    }

    /// KV cache of a layer, `[S, kv_dim]`.
    pub fn kv(kv_dim: usize) -> Self {
        Self { value: ValueType::KvCache, dims: vec![Dim::Context, Dim::Fixed(kv_dim)] }
    }

    /// Size of the last axis, if it is fixed.
    pub fn width(&self) -> Option<usize> {
        match self.dims.last() {
            Some(Dim::Fixed(n)) => Some(*n),
            _ => None,
        }
    }
}

impl std::fmt::Display for PortType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}[", self.value)?;
        for (i, d) in self.dims.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}

/// Which rows of the batch a brick produces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Every row.
    All,
    /// Only the rows whose logits are wanted.
    Wanted,
}

impl Rows {
    /// The symbolic axis.
    pub const fn dim(self) -> Dim {
        match self {
            Rows::All => Dim::Tokens,
            Rows::Wanted => Dim::Wanted,
        }
    }

    /// The number of rows in a given call.
    pub const fn count(self, e: &Extent) -> u64 {
        match self {
            Rows::All => e.tokens,
            Rows::Wanted => e.wanted,
        }
    }
}

/// One matrix of a [`Op::Linear`] brick: `y[rows] = W[rows, in] · x (+ b)`. Each part has its own output port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinearPart {
    /// What it produces, e.g. `q`, `k`, `gate`.
    pub label: String,
    /// Output features.
    pub rows: usize,
    /// Whether a bias vector follows the matrix in the brick's weight list.
    pub bias: bool,
}

/// Shape of attention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttentionSpec {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; query head `h` reads KV head `h * n_kv_heads / n_heads`.
    pub n_kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Multiplies the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Sliding window: a query at position `p` sees keys `> p - window`.
    pub window: Option<usize>,
    /// `cap · tanh(score / cap)` before the softmax.
    pub softcap: Option<f32>,
}

/// Function of the gate in a gated feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActKind {
    /// `x · sigmoid(x)`: `SwiGLU`.
    Silu,
    /// `GELU`, tanh approximation: `GeGLU`.
    GeluTanh,
}

/// What a brick computes. Weights are listed beside it by the graph, in the order each variant states.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// The batch's token ids: no inputs, one output `token[T]`.
    Input,
    /// Gathers rows of the embedding table. Input `token[T]`; weights `[table (vocab × width)]`; output `f32[T, width]`.
    Embed {
        /// Multiplies the embedding (1 for most models).
        scale: f32,
    },
    /// `y = x / sqrt(mean(x²) + eps) · g`. Input `f32[T, d]`; weights `[g (d)]`; output `f32[rows, d]`.
    RmsNorm {
        /// Inside the square root, from the file's metadata.
        eps: f32,
        /// Rows to normalise; `Wanted` also gathers them.
        rows: Rows,
    },
    /// Residual and norm in one: inputs `r`, `x` (`f32[T, d]`); weights `[g (d)]`; outputs `r + x` and its norm.
    AddRmsNorm {
        /// Inside the square root.
        eps: f32,
    },
    /// One or more matrices on the same input. Input `f32[rows, in]`; weights: each part's matrix, followed by its bias if it
    /// has one; one output `f32[rows, part.rows]` per part.
    Linear {
        /// Input features.
        input: usize,
        /// The matrices.
        parts: Vec<LinearPart>,
        /// `Wanted` when the input already holds only wanted rows (LM head).
        rows: Rows,
    },
    /// Two matrices on the same input and the gated activation of their outputs: `act(gate · x) · (up · x)`. Input `f32[T, in]`;
    /// weights: each part's matrix, followed by its bias if it has one; output `f32[T, part.rows]`.
    GatedLinear {
        /// Input features.
        input: usize,
        /// The gate, then up; both of the same number of rows.
        parts: [LinearPart; 2],
        /// Function of the gate.
        act: ActKind,
    },
    /// Rotates the heads of `x`. Input and output `f32[T, n_heads · head_dim]`.
    Rope {
        /// Heads in a row.
        n_heads: usize,
        /// Elements per head.
        head_dim: usize,
        /// Frequencies and pairing.
        spec: RopeSpec,
    },
    /// Stores keys and values at their positions. Inputs `k`, `v` (`f32[T, kv_dim]`); output `kv[S, kv_dim]`.
    KvWrite {
        /// Key/value heads.
        n_kv_heads: usize,
        /// Elements per head.
        head_dim: usize,
    },
    /// Rotates queries and keys and stores keys and values, in one. Inputs `q`, `k`, `v`; outputs rotated `q` and `kv[S, kv_dim]`.
    RopeKvWrite {
        /// Query heads.
        n_heads: usize,
        /// Key/value heads.
        n_kv_heads: usize,
        /// Elements per head.
        head_dim: usize,
        /// Frequencies and pairing.
        spec: RopeSpec,
    },
    /// Causal attention over the KV cache. Inputs `q` (`f32[T, n_heads · head_dim]`), `kv`; output like `q`.
    Attention(AttentionSpec),
    /// `a + b`. Inputs and output `f32[T, d]`.
    Add,
    /// `act(gate) · up`. Inputs `gate`, `up` (`f32[T, d]`); output `f32[T, d]`.
    GatedActivation {
        /// Function of the gate.
        act: ActKind,
    },
}

/// Shape and type of a weight as an operation sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightShape {
    /// Storage type.
    pub dtype: DType,
    /// Output features (1 for a vector).
    pub rows: usize,
    /// Input features (the vector's length).
    pub cols: usize,
}

impl WeightShape {
    /// Bytes in storage (rows that do not fill their last block are rejected elsewhere and count as 0 here).
    pub fn bytes(&self) -> u64 {
        self.dtype.row_bytes(self.cols).unwrap_or(0) as u64 * self.rows as u64
    }
}

/// A brick's inputs or weights do not fit its operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// Wrong number of inputs.
    #[error("expected {expected} inputs, found {found}")]
    InputCount {
        /// What the operation takes.
        expected: usize,
        /// What it was given.
        found: usize,
    },
    /// Wrong number of weights.
    #[error("expected {expected} weights, found {found}")]
    WeightCount {
        /// What the operation takes.
        expected: usize,
        /// What it was given.
        found: usize,
    },
    /// An input port has the wrong type or shape.
    #[error("input {port}: expected {expected}, found {found}")]
    Input {
        /// Index of the input.
        port: usize,
        /// What the operation takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// A weight has the wrong shape.
    #[error("weight {index} ({role}): expected {expected}, found {found}")]
    Weight {
        /// Index in the weight list.
        index: usize,
        /// What the weight is for.
        role: &'static str,
        /// Expected shape.
        expected: String,
        /// Found shape.
        found: String,
    },
    /// The operation's own parameters contradict each other.
    #[error("{0}")]
    Parameters(String),
}

impl Op {
    /// Name of the operation itself, used as the name of its kernel.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input => "input",
            Op::Embed { .. } => "embed",
            Op::RmsNorm { .. } => "rms_norm",
            Op::AddRmsNorm { .. } => "add_rms_norm",
            Op::Linear { .. } => "linear",
            Op::GatedLinear { .. } => "gated_linear",
            Op::Rope { .. } => "rope",
            Op::KvWrite { .. } => "kv_write",
            Op::RopeKvWrite { .. } => "rope_kv_write",
            Op::Attention(_) => "attention",
            Op::Add => "add",
            Op::GatedActivation { .. } => "gated_activation",
        }
    }

    /// The matrices it multiplies with; weights of the brick are each part's matrix, then its bias if it has one.
    pub fn parts(&self) -> &[LinearPart] {
        match self {
            Op::Linear { parts, .. } => parts,
            Op::GatedLinear { parts, .. } => parts,
            _ => &[],
        }
    }

    /// Checks inputs and weights and gives the types of the outputs.
    ///
    /// # Errors
    /// [`OpError`] names the port or weight, what was expected and what was found.
    pub fn outputs(&self, inputs: &[PortType], weights: &[WeightShape]) -> Result<Vec<PortType>, OpError> {
        let n_inputs = |n: usize| -> Result<(), OpError> {
            if inputs.len() == n { Ok(()) } else { Err(OpError::InputCount { expected: n, found: inputs.len() }) }
        };
        let n_weights = |n: usize| -> Result<(), OpError> {
            if weights.len() == n { Ok(()) } else { Err(OpError::WeightCount { expected: n, found: weights.len() }) }
        };
        let want = |port: usize, expected: &PortType| -> Result<(), OpError> {
            if inputs[port] == *expected {
                Ok(())
            } else {
                Err(OpError::Input { port, expected: expected.to_string(), found: inputs[port].to_string() })
            }
        };
        // Any `f32[T, d]`: returns d.
        let rows_of = |port: usize, rows: Rows| -> Result<usize, OpError> {
            match inputs[port] {
                PortType { value: ValueType::F32, ref dims } if dims.len() == 2 && dims[0] == rows.dim() => {
                    inputs[port].width().ok_or_else(|| OpError::Input {
                        port,
                        expected: format!("f32[{}, width]", rows.dim()),
                        found: inputs[port].to_string(),
                    })
                }
                _ => Err(OpError::Input {
                    port,
                    expected: format!("f32[{}, width]", rows.dim()),
                    found: inputs[port].to_string(),
                }),
            }
        };
        let weight = |index: usize, role: &'static str, rows: usize, cols: usize| -> Result<(), OpError> {
            let w = weights[index];
            if w.rows == rows && w.cols == cols {
                Ok(())
            } else {
                Err(OpError::Weight {
                    index,
                    role,
                    expected: format!("[{rows}, {cols}]"),
                    found: format!("[{}, {}] {}", w.rows, w.cols, w.dtype),
                })
            }
        };
        match self {
            Op::Input => {
                n_inputs(0)?;
                n_weights(0)?;
                Ok(vec![PortType::tokens()])
            }
            Op::Embed { .. } => {
                n_inputs(1)?;
                n_weights(1)?;
                want(0, &PortType::tokens())?;
                Ok(vec![PortType::rows(Rows::All, weights[0].cols)])
            }
            Op::RmsNorm { rows, .. } => {
                n_inputs(1)?;
                n_weights(1)?;
                let d = rows_of(0, Rows::All)?;
                weight(0, "gain", 1, d)?;
                Ok(vec![PortType::rows(*rows, d)])
            }
            Op::AddRmsNorm { .. } => {
                n_inputs(2)?;
                n_weights(1)?;
                let d = rows_of(0, Rows::All)?;
                want(1, &PortType::rows(Rows::All, d))?;
                weight(0, "gain", 1, d)?;
                Ok(vec![PortType::rows(Rows::All, d); 2])
            }
            Op::Linear { input, .. } | Op::GatedLinear { input, .. } => {
                let parts = self.parts();
                let rows = if let Op::Linear { rows, .. } = self { *rows } else { Rows::All };
                n_inputs(1)?;
                n_weights(parts.iter().map(|p| 1 + usize::from(p.bias)).sum())?;
                if parts.is_empty() {
                    return Err(OpError::Parameters("a linear brick needs at least one matrix".into()));
                }
                want(0, &PortType::rows(rows, *input))?;
                let mut i = 0;
                for p in parts {
                    weight(i, "matrix", p.rows, *input)?;
                    i += 1;
                    if p.bias {
                        weight(i, "bias", 1, p.rows)?;
                        i += 1;
                    }
                }
                if let Op::GatedLinear { parts: [gate, up], .. } = self {
                    if gate.rows != up.rows {
                        return Err(OpError::Parameters(format!(
                            "gate and up need the same number of rows, found {} and {}",
                            gate.rows, up.rows
                        )));
                    }
                    return Ok(vec![PortType::rows(rows, gate.rows)]);
                }
                Ok(parts.iter().map(|p| PortType::rows(rows, p.rows)).collect())
            }
            Op::Rope { n_heads, head_dim, spec } => {
                n_inputs(1)?;
                n_weights(0)?;
                check_rope(spec, *head_dim)?;
                let t = PortType::rows(Rows::All, n_heads * head_dim);
                want(0, &t)?;
                Ok(vec![t])
            }
            Op::KvWrite { n_kv_heads, head_dim } => {
                n_inputs(2)?;
                n_weights(0)?;
                let t = PortType::rows(Rows::All, n_kv_heads * head_dim);
                want(0, &t)?;
                want(1, &t)?;
                Ok(vec![PortType::kv(n_kv_heads * head_dim)])
            }
            Op::RopeKvWrite { n_heads, n_kv_heads, head_dim, spec } => {
                n_inputs(3)?;
                n_weights(0)?;
                check_rope(spec, *head_dim)?;
                let q = PortType::rows(Rows::All, n_heads * head_dim);
                let kv = PortType::rows(Rows::All, n_kv_heads * head_dim);
                want(0, &q)?;
                want(1, &kv)?;
                want(2, &kv)?;
                Ok(vec![q, PortType::kv(n_kv_heads * head_dim)])
            }
            Op::Attention(s) => {
                n_inputs(2)?;
                n_weights(0)?;
                if s.n_kv_heads == 0 || !s.n_heads.is_multiple_of(s.n_kv_heads) {
                    return Err(OpError::Parameters(format!(
                        "{} query heads cannot share {} KV heads evenly",
                        s.n_heads, s.n_kv_heads
                    )));
                }
                let q = PortType::rows(Rows::All, s.n_heads * s.head_dim);
                want(0, &q)?;
                want(1, &PortType::kv(s.n_kv_heads * s.head_dim))?;
                Ok(vec![q])
            }
            Op::Add | Op::GatedActivation { .. } => {
                n_inputs(2)?;
                n_weights(0)?;
                let d = rows_of(0, Rows::All)?;
                let t = PortType::rows(Rows::All, d);
                want(1, &t)?;
                Ok(vec![t])
            }
        }
    }

    /// Bytes and operations of one call. `inputs` and `weights` are those the brick was checked with.
    pub fn cost(&self, inputs: &[PortType], weights: &[WeightShape], e: &Extent) -> Cost {
        let width = |i: usize| inputs.get(i).and_then(PortType::width).unwrap_or(0) as u64;
        let weight_bytes = weights.iter().map(WeightShape::bytes).sum();
        let t = e.tokens;
        match self {
            Op::Input => Cost::default(),
            Op::Embed { .. } => {
                let d = weights.first().map_or(0, |w| w.cols as u64);
                let row = weights.first().and_then(|w| w.dtype.row_bytes(w.cols)).unwrap_or(0) as u64;
                Cost { weight_bytes: t * row, read_bytes: 4 * t, write_bytes: 4 * t * d, int_ops: 0, flops: t * d }
            }
            Op::RmsNorm { rows, .. } => {
                let n = rows.count(e) * width(0);
                Cost { weight_bytes, read_bytes: 4 * n, write_bytes: 4 * n, int_ops: 0, flops: 4 * n }
            }
            Op::AddRmsNorm { .. } => {
                let n = t * width(0);
                Cost { weight_bytes, read_bytes: 8 * n, write_bytes: 8 * n, int_ops: 0, flops: 5 * n }
            }
            Op::Linear { input, .. } | Op::GatedLinear { input, .. } => {
                let parts = self.parts();
                let n = if let Op::Linear { rows, .. } = self { rows.count(e) } else { t };
                let mut out: u64 = parts.iter().map(|p| p.rows as u64).sum();
                let (mut int_ops, mut flops) = (0, 0);
                let mut at = 0;
                for p in parts {
                    let ops = 2 * n * p.rows as u64 * *input as u64;
                    let float = weights.get(at).is_some_and(|w| w.dtype.is_float());
                    if float {
                        flops += ops;
                    } else {
                        int_ops += ops;
                    }
                    at += 1 + usize::from(p.bias);
                    flops += if p.bias { n * p.rows as u64 } else { 0 };
                }
                if matches!(self, Op::GatedLinear { .. }) {
                    // The activation's own operations; its inputs never leave the caches of a thread.
                    out /= 2;
                    flops += 6 * n * out;
                }
                Cost { weight_bytes, read_bytes: 4 * n * *input as u64, write_bytes: 4 * n * out, int_ops, flops }
            }
            Op::Rope { n_heads, spec, .. } => {
                let n = t * width(0);
                Cost {
                    weight_bytes: 0,
                    read_bytes: 4 * n,
                    write_bytes: 4 * n,
                    int_ops: 0,
                    flops: t * 3 * (*n_heads * spec.dims) as u64,
                }
            }
            Op::KvWrite { .. } => {
                let n = t * width(0);
                Cost { weight_bytes: 0, read_bytes: 8 * n, write_bytes: 4 * n, int_ops: 0, flops: 0 }
            }
            Op::RopeKvWrite { n_heads, n_kv_heads, spec, .. } => {
                let (q, kv) = (t * width(0), t * width(1));
                Cost {
                    weight_bytes: 0,
                    read_bytes: 4 * (q + 2 * kv),
                    write_bytes: 4 * q + 4 * kv,
                    int_ops: 0,
                    flops: t * 3 * ((n_heads + n_kv_heads) * spec.dims) as u64,
                }
            }
            Op::Attention(s) => {
                let q = t * (s.n_heads * s.head_dim) as u64;
                // A window caps what each query sees; exact for decode, an upper bound during prefill.
                let pairs = s.window.map_or(e.pairs, |w| e.pairs.min(t * w as u64));
                let context = s.window.map_or(e.context, |w| e.context.min(t + w as u64));
                // Keys and values; q8_0 takes 34 bytes for 32 elements.
                let elements = context * (s.n_kv_heads * s.head_dim) as u64 * 2;
                let q8 = inputs.get(1).is_some_and(|kv| kv.value == ValueType::KvCacheQ8);
                Cost {
                    weight_bytes: 0,
                    read_bytes: 4 * q + if q8 { elements / 32 * 34 } else { elements * 2 },
                    write_bytes: 4 * q,
                    int_ops: 0,
                    flops: pairs * s.n_heads as u64 * (4 * s.head_dim as u64 + 5),
                }
            }
            Op::Add => {
                let n = t * width(0);
                Cost { weight_bytes: 0, read_bytes: 8 * n, write_bytes: 4 * n, int_ops: 0, flops: n }
            }
            Op::GatedActivation { .. } => {
                let n = t * width(0);
                Cost { weight_bytes: 0, read_bytes: 8 * n, write_bytes: 4 * n, int_ops: 0, flops: 6 * n }
            }
        }
    }
}

fn check_rope(spec: &RopeSpec, head_dim: usize) -> Result<(), OpError> {
    spec.check().map_err(|e| OpError::Parameters(e.to_string()))?;
    if spec.dims > head_dim {
        return Err(OpError::Parameters(format!(
            "rotary dims: expected at most head_dim {head_dim}, found {}",
            spec.dims
        )));
    }
    Ok(())
}
