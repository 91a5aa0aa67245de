//! The gated activation of the feed-forward network.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, GateAndUp, Gated, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{ActKind, Op, PortType, Rows};
use crate::reference;

/// [`GatedUnit`] as a brick.
pub type ActivationBrick = Brick<GatedUnit>;

/// `act(gate) · up` (`SwiGLU` with [`ActKind::Silu`]): [`GateAndUp`] `[T, 2·ffn]` to [`Gated`] `[T, ffn]`.
#[derive(Debug, Clone, Copy)]
pub struct GatedUnit {
    act: ActKind,
    ffn: usize,
}

impl Brick<GatedUnit> {
    /// A unit over `ffn` pairs of gate and up.
    ///
    /// # Errors
    /// [`BrickError::Parameter`] if `ffn` is 0 or absurd.
    pub fn new(act: ActKind, ffn: usize) -> Result<Self, BrickError> {
        reference::width_of(GatedUnit::NAME, "ffn", &[ffn, 2])?;
        Ok(Self::from_op(GatedUnit { act, ffn }))
    }
}

impl ComputeOp for GatedUnit {
    type Input<'a> = &'a Activations<GateAndUp>;
    type Output = Activations<Gated>;
    const NAME: &'static str = "gated_activation";

    fn kind(&self) -> BrickKind {
        BrickKind::Activation
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind())
    }

    fn assertions(&self) -> Assertions {
        promises(self.ffn, ELEMENT_TOLERANCE)
    }

    fn tokens(x: &Self::Input<'_>) -> usize {
        x.rows()
    }

    fn execute(&self, x: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        x.expect_width(Self::NAME, 2 * self.ffn)?;
        let [gate, up] = x.split([self.ffn; 2]);
        Activations::new(self.ffn, reference::gated_activation(self.act, &gate, &up)?)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let port = PortType::rows(Rows::All, self.ffn);
        Op::GatedActivation { act: self.act }.cost(&[port.clone(), port], &[], extent)
    }
}
