//! The feed-forward network as one brick.

use super::{
    ActivationBrick, Activations, BudgetTable, DownBrick, GateUpBrick, Normed, SUM_TOLERANCE, Update, promises,
};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeBrick as _, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::ActKind;

/// [`FeedForward`] as a brick.
pub type FfnBrick = Brick<FeedForward>;

/// `down · (act(gate · x) · (up · x))`: [`Normed`] to [`Update`], `[T, hidden]` to `[T, hidden]`.
#[derive(Debug, Clone)]
pub struct FeedForward {
    gate_up: GateUpBrick,
    activation: ActivationBrick,
    down: DownBrick,
}

impl Brick<FeedForward> {
    /// A network of these projections.
    ///
    /// # Errors
    /// [`BrickError`] if gate, up and down do not agree on the width of the hidden layer.
    pub fn new(gate_up: GateUpBrick, act: ActKind, down: DownBrick) -> Result<Self, BrickError> {
        let ffn = down.op().n_in();
        let widths = gate_up.op().part_widths();
        if widths.iter().any(|&w| w != ffn) {
            return Err(BrickError::shape(
                FeedForward::NAME,
                "gate and up",
                format_args!("{ffn} features each, as down takes"),
                format_args!("{widths:?}"),
            ));
        }
        Ok(Self::from_op(FeedForward { gate_up, activation: ActivationBrick::new(act, ffn)?, down }))
    }
}

impl FeedForward {
    /// Values per output row.
    pub fn width(&self) -> usize {
        self.down.op().n_out()
    }
}

impl ComputeOp for FeedForward {
    type Input<'a> = &'a Activations<Normed>;
    type Output = Activations<Update>;
    const NAME: &'static str = "ffn";

    /// Three kinds in one: in no account of its own.
    fn kind(&self) -> BrickKind {
        BrickKind::Custom
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.sum(&[BrickKind::GateUp, BrickKind::Activation, BrickKind::Down])
    }

    fn assertions(&self) -> Assertions {
        promises(self.down.op().n_out(), SUM_TOLERANCE)
    }

    fn tokens(x: &Self::Input<'_>) -> usize {
        x.rows()
    }

    fn execute(&self, x: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        let gate_up = self.gate_up.op().execute(x)?;
        let gated = self.activation.op().execute(&gate_up)?;
        self.down.op().execute(&gated)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        self.gate_up.cost(extent) + self.activation.cost(extent) + self.down.cost(extent)
    }
}
