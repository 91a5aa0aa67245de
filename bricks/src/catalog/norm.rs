//! RMS normalisation.

use super::{Activations, BudgetTable, ELEMENT_TOLERANCE, Normed, Stream, promises};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{Op, PortType, Rows, WeightShape};
use crate::reference::{self, Weight};

/// [`RmsNorm`] as a brick.
pub type RmsNormBrick = Brick<RmsNorm>;

/// `y = x / sqrt(mean(x²) + eps) · gain`: [`Stream`] to [`Normed`], `[T, d]` to `[T, d]`.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    gain: Vec<f32>,
    shape: WeightShape,
    eps: f32,
    kind: BrickKind,
}

impl Brick<RmsNorm> {
    /// A norm inside a layer. `gain`: a vector of `d`; `eps` from the file's metadata.
    ///
    /// # Errors
    /// [`BrickError`] if the gain is no vector, or `eps` is negative or not finite.
    pub fn new(gain: &Weight<'_>, eps: f32) -> Result<Self, BrickError> {
        Self::of_kind(gain, eps, BrickKind::RmsNorm)
    }

    /// The norm before the LM head: the same operation, in its own account.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn before_lm_head(gain: &Weight<'_>, eps: f32) -> Result<Self, BrickError> {
        Self::of_kind(gain, eps, BrickKind::FinalNorm)
    }

    fn of_kind(gain: &Weight<'_>, eps: f32, kind: BrickKind) -> Result<Self, BrickError> {
        let shape = gain.shape();
        let gain = gain.vector(RmsNorm::NAME, "gain", gain.cols())?;
        // Refuses a bad `eps` here rather than at the first call.
        reference::rms_norm(&[], &gain, eps)?;
        Ok(Self::from_op(RmsNorm { gain, shape, eps, kind }))
    }
}

impl ComputeOp for RmsNorm {
    type Input<'a> = &'a Activations<Stream>;
    type Output = Activations<Normed>;
    const NAME: &'static str = "rms_norm";

    fn kind(&self) -> BrickKind {
        self.kind
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(self.kind)
    }

    fn assertions(&self) -> Assertions {
        promises(self.gain.len(), ELEMENT_TOLERANCE)
    }

    fn tokens(x: &Self::Input<'_>) -> usize {
        x.rows()
    }

    fn execute(&self, x: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        x.expect_width(Self::NAME, self.gain.len())?;
        Activations::new(x.width(), reference::rms_norm(x.values(), &self.gain, self.eps)?)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let input = PortType::rows(Rows::All, self.gain.len());
        Op::RmsNorm { eps: self.eps, rows: Rows::All }.cost(&[input], &[self.shape], extent)
    }
}
