//! Attention with its KV cache.

use super::{Activations, Attended, BudgetTable, Rotated, SUM_TOLERANCE, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{AttentionSpec, Op, PortType, Rows};
use crate::reference;

/// [`CausalAttention`] as a brick.
pub type AttentionBrick = Brick<CausalAttention>;

/// Stores keys and values, then attends causally to all that are stored. [`Rotated`]
/// `[T, (n_heads + 2·n_kv_heads) · head_dim]` to [`Attended`] `[T, n_heads · head_dim]`.
#[derive(Debug, Clone)]
pub struct CausalAttention {
    spec: AttentionSpec,
    widths: [usize; 3],
}

/// What an [`AttentionBrick`] takes: rows of one sequence.
#[derive(Debug)]
pub struct Attend<'a> {
    /// Queries, keys and values.
    pub qkv: &'a Activations<Rotated>,
    /// Position of each row.
    pub positions: &'a [u32],
    /// Keys and values of the sequence.
    pub cache: &'a mut KvCache,
}

/// Keys and values of one sequence, contiguous and in f32.
#[derive(Debug, Clone, PartialEq)]
pub struct KvCache {
    kv_dim: usize,
    capacity: usize,
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for up to `capacity` positions of `n_kv_heads · head_dim` values. Memory is taken as positions come.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if the sizes are 0 or their product is absurd.
    pub fn new(n_kv_heads: usize, head_dim: usize, capacity: usize) -> Result<Self, BrickError> {
        let kv_dim = reference::width_of("kv_cache", "KV heads, head_dim", &[n_kv_heads, head_dim])?;
        if capacity == 0 || kv_dim.checked_mul(capacity).is_none() {
            return Err(BrickError::parameter("kv_cache", "capacity", "at least 1, and to fit into memory", capacity));
        }
        Ok(Self { kv_dim, capacity, keys: Vec::new(), values: Vec::new() })
    }

    /// Positions stored.
    pub fn len(&self) -> usize {
        self.keys.len() / self.kv_dim
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Keys, `[len, kv_dim]`.
    pub fn keys(&self) -> &[f32] {
        &self.keys
    }

    /// Values, `[len, kv_dim]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Forgets everything from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        let n = len.saturating_mul(self.kv_dim);
        self.keys.truncate(n);
        self.values.truncate(n);
    }

    /// Stores rows of keys and values at their positions. Each position is stored already, or is the next one: a cache has no
    /// holes.
    ///
    /// # Errors
    /// [`BrickError`] if shapes do not fit, or a position leaves a hole or exceeds the capacity; nothing is stored then.
    pub fn write(&mut self, keys: &[f32], values: &[f32], positions: &[u32]) -> Result<(), BrickError> {
        const NAME: &str = "kv_cache";
        for (what, x) in [("keys", keys), ("values", values)] {
            let rows = reference::rows_of(NAME, what, x, self.kv_dim)?;
            reference::one_per_row(NAME, "positions", positions.len(), rows)?;
        }
        let mut len = self.len();
        for index in positions.iter().map(|&p| p as usize) {
            let limit = (len + 1).min(self.capacity);
            if index >= limit {
                return Err(BrickError::Index { brick: NAME.into(), what: "position", index, limit });
            }
            len = len.max(index + 1);
        }
        self.keys.resize(len * self.kv_dim, 0.0);
        self.values.resize(len * self.kv_dim, 0.0);
        reference::kv_write(&mut self.keys, self.kv_dim, keys, positions)?;
        reference::kv_write(&mut self.values, self.kv_dim, values, positions)
    }
}

impl Brick<CausalAttention> {
    /// Attention of this shape.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if the specification contradicts itself.
    pub fn new(spec: AttentionSpec) -> Result<Self, BrickError> {
        const NAME: &str = CausalAttention::NAME;
        reference::check_attention(NAME, &spec)?;
        let widths = qkv_widths(NAME, spec.n_heads, spec.n_kv_heads, spec.head_dim)?;
        Ok(Self::from_op(CausalAttention { spec, widths }))
    }
}

/// Widths of queries, keys and values, whose sum is known not to overflow.
pub(super) fn qkv_widths(
    brick: &str,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
) -> Result<[usize; 3], BrickError> {
    let q = reference::width_of(brick, "heads, head_dim", &[n_heads, head_dim])?;
    let kv = reference::width_of(brick, "KV heads, head_dim", &[n_kv_heads, head_dim])?;
    match kv.checked_mul(2).and_then(|both| both.checked_add(q)) {
        Some(_) => Ok([q, kv, kv]),
        None => Err(BrickError::parameter(
            brick,
            "heads, head_dim",
            "a width that fits into memory",
            format_args!("{q} + 2·{kv}"),
        )),
    }
}

impl ComputeOp for CausalAttention {
    type Input<'a> = Attend<'a>;
    type Output = Activations<Attended>;
    const NAME: &'static str = "attention";

    fn kind(&self) -> BrickKind {
        BrickKind::Attention
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.widths[0], SUM_TOLERANCE)
    }

    fn tokens(input: &Self::Input<'_>) -> usize {
        input.qkv.rows()
    }

    fn execute(&self, Attend { qkv, positions, cache }: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        qkv.expect_width(Self::NAME, self.widths.iter().sum())?;
        if cache.kv_dim != self.widths[1] {
            return Err(BrickError::shape(
                Self::NAME,
                "KV cache",
                format_args!("[S, {}]", self.widths[1]),
                format_args!("[{}, {}]", cache.len(), cache.kv_dim),
            ));
        }
        let [q, k, v] = qkv.split(self.widths);
        cache.write(&k, &v, positions)?;
        Activations::new(self.widths[0], reference::attention(&self.spec, &q, &cache.keys, &cache.values, positions)?)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let [q, k, v] = self.widths.map(|w| PortType::rows(Rows::All, w));
        let kv = PortType::kv(self.widths[1]);
        let AttentionSpec { n_kv_heads, head_dim, .. } = self.spec;
        Op::KvWrite { n_kv_heads, head_dim }.cost(&[k, v], &[], extent)
            + Op::Attention(self.spec.clone()).cost(&[q, kv], &[], extent)
    }
}
