//! Rotation of queries and keys.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, Projected, Rotated, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{Op, PortType, Rows};
use crate::reference;
use crate::rope::RopeSpec;

/// [`Rotation`] as a brick.
pub type RopeBrick = Brick<Rotation>;

/// Rotates the heads of queries and keys by their positions; values pass through. [`Projected`] to [`Rotated`], both
/// `[T, (n_heads + 2·n_kv_heads) · head_dim]`.
#[derive(Debug, Clone)]
pub struct Rotation {
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    spec: RopeSpec,
}

/// What a [`RopeBrick`] takes.
#[derive(Debug, Clone, Copy)]
pub struct Rotate<'a> {
    /// Queries, keys and values.
    pub qkv: &'a Activations<Projected>,
    /// Position of each row.
    pub positions: &'a [u32],
}

impl Brick<Rotation> {
    /// A rotation of `n_heads` query heads and `n_kv_heads` key heads.
    ///
    /// # Errors
    /// [`BrickError`] if a size is 0 or absurd, or the specification describes no rotation of such heads.
    pub fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize, spec: RopeSpec) -> Result<Self, BrickError> {
        const NAME: &str = Rotation::NAME;
        super::attention::qkv_widths(NAME, n_heads, n_kv_heads, head_dim)?;
        // Refuses a bad specification here rather than at the first call.
        reference::rope(&spec, 1, head_dim, &[], &[])?;
        Ok(Self::from_op(Rotation { n_heads, n_kv_heads, head_dim, spec }))
    }
}

impl Rotation {
    fn widths(&self) -> [usize; 3] {
        [self.n_heads, self.n_kv_heads, self.n_kv_heads].map(|n| n * self.head_dim)
    }
}

impl ComputeOp for Rotation {
    type Input<'a> = Rotate<'a>;
    type Output = Activations<Rotated>;
    const NAME: &'static str = "rope";

    fn kind(&self) -> BrickKind {
        BrickKind::Rope
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.widths().iter().sum(), ELEMENT_TOLERANCE)
    }

    fn tokens(input: &Self::Input<'_>) -> usize {
        input.qkv.rows()
    }

    fn execute(&self, Rotate { qkv, positions }: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        qkv.expect_width(Self::NAME, self.widths().iter().sum())?;
        let widths = self.widths();
        let [q, k, v] = qkv.split(widths);
        let q = reference::rope(&self.spec, self.n_heads, self.head_dim, &q, positions)?;
        let k = reference::rope(&self.spec, self.n_kv_heads, self.head_dim, &k, positions)?;
        Activations::join(&[(widths[0], q), (widths[1], k), (widths[2], v)])
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let rotate = |n_heads: usize| {
            let port = PortType::rows(Rows::All, n_heads * self.head_dim);
            Op::Rope { n_heads, head_dim: self.head_dim, spec: self.spec.clone() }.cost(&[port], &[], extent)
        };
        rotate(self.n_heads) + rotate(self.n_kv_heads)
    }
}
