//! Linear maps. One type computes them all; a role says between which states, under which name and in which account.

use std::marker::PhantomData;

use super::{
    Activations, Attended, BudgetTable, GateAndUp, Gated, Logits, Normed, Projected, SUM_TOLERANCE, State, Update,
    promises,
};
use crate::assertion::Assertions;
use crate::brick::{Brick, ComputeOp};
use crate::budget::TokenBudget;
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::op::{LinearPart, Op, PortType, Rows, WeightShape};
use crate::reference::{self, Arithmetic, Weight};

/// Which linear map of a decoder a [`Projection`] is.
pub trait ProjectionRole: Send + Sync + 'static {
    /// What it takes.
    type In: State;
    /// What it gives.
    type Out: State;
    /// Name of the brick type.
    const NAME: &'static str;
    /// The accounting category.
    const KIND: BrickKind;
    /// Names of the matrices, whose outputs stand side by side.
    const PARTS: &'static [&'static str];
    /// Which rows it maps.
    const ROWS: Rows = Rows::All;
}

macro_rules! roles {
    ($($(#[$doc:meta])+ $role:ident as $brick:ident: $in:ty => $out:ty, $name:literal, $kind:ident, $parts:expr, $rows:ident;)*) => {$(
        $(#[$doc])+
        #[derive(Debug, Clone, Copy)]
        pub enum $role {}
        impl ProjectionRole for $role {
            type In = $in;
            type Out = $out;
            const NAME: &'static str = $name;
            const KIND: BrickKind = BrickKind::$kind;
            const PARTS: &'static [&'static str] = &$parts;
            const ROWS: Rows = Rows::$rows;
        }
        $(#[$doc])+
        pub type $brick = Brick<Projection<$role>>;
    )*};
}

roles! {
    /// Queries, keys and values: `[T, hidden]` to `[T, q + 2·kv]`. Biases are optional, and mandatory for qwen2.
    QkvRole as QkvBrick: Normed => Projected, "qkv_proj", Qkv, ["q", "k", "v"], All;
    /// The projection of what attention found: `[T, q]` to `[T, hidden]`.
    OProjRole as OProjBrick: Attended => Update, "o_proj", OProj, ["o"], All;
    /// Gate and up of the feed-forward network: `[T, hidden]` to `[T, 2·ffn]`.
    GateUpRole as GateUpBrick: Normed => GateAndUp, "gate_up_proj", GateUp, ["gate", "up"], All;
    /// The way back from the feed-forward network: `[T, ffn]` to `[T, hidden]`.
    DownRole as DownBrick: Gated => Update, "down_proj", Down, ["down"], All;
    /// Scores of the vocabulary: `[L, hidden]` to `[L, vocab]`.
    LmHeadRole as LmHeadBrick: Normed => Logits, "lm_head", LmHead, ["lm_head"], Wanted;
}

/// One matrix of a projection.
#[derive(Debug, Clone)]
pub struct Part {
    weight: Weight<'static>,
    bias: Option<(WeightShape, Vec<f32>)>,
}

impl Part {
    /// A matrix `[out, in]` without bias.
    pub fn new(weight: Weight<'static>) -> Self {
        Self { weight, bias: None }
    }

    /// The same with a bias, a vector of `out`.
    ///
    /// # Errors
    /// [`BrickError::Weight`] if the bias has another shape.
    pub fn with_bias(mut self, bias: &Weight<'_>) -> Result<Self, BrickError> {
        self.bias = Some((bias.shape(), bias.vector("projection", "bias", self.weight.rows())?));
        Ok(self)
    }
}

/// `y = W · x (+ b)` for each part, outputs side by side.
#[derive(Debug, Clone)]
pub struct Projection<R> {
    parts: Vec<Part>,
    n_in: usize,
    n_out: usize,
    arithmetic: Arithmetic,
    role: PhantomData<fn() -> R>,
}

impl<R: ProjectionRole> Brick<Projection<R>> {
    /// A projection of these parts, in the order of [`ProjectionRole::PARTS`].
    ///
    /// # Errors
    /// [`BrickError`] if there are more or fewer parts, or they disagree about the number of inputs.
    pub fn new(parts: impl Into<Vec<Part>>) -> Result<Self, BrickError> {
        let parts = parts.into();
        let (Some(first), true) = (parts.first(), parts.len() == R::PARTS.len()) else {
            return Err(BrickError::parameter(R::NAME, "parts", format_args!("{:?}", R::PARTS), parts.len()));
        };
        let n_in = first.weight.cols();
        let mut n_out = 0usize;
        for (part, &role) in parts.iter().zip(R::PARTS) {
            part.weight.expect_shape(R::NAME, role, part.weight.rows(), n_in)?;
            n_out = n_out
                .checked_add(part.weight.rows())
                .ok_or_else(|| BrickError::Memory { brick: R::NAME.into(), elements: usize::MAX })?;
        }
        let arithmetic = Arithmetic::F32;
        Ok(Self::from_op(Projection { parts, n_in, n_out, arithmetic, role: PhantomData }))
    }

    /// The same brick with other arithmetic; [`Arithmetic::F32`] unless said.
    #[must_use]
    pub fn with_arithmetic(mut self, arithmetic: Arithmetic) -> Self {
        self.op_mut().arithmetic = arithmetic;
        self
    }
}

impl<R: ProjectionRole> Projection<R> {
    /// Values per input row.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Values per output row.
    pub fn n_out(&self) -> usize {
        self.n_out
    }

    /// Output features of each part.
    pub fn part_widths(&self) -> Vec<usize> {
        self.parts.iter().map(|p| p.weight.rows()).collect()
    }
}

impl<R: ProjectionRole> ComputeOp for Projection<R> {
    type Input<'a> = &'a Activations<R::In>;
    type Output = Activations<R::Out>;
    const NAME: &'static str = R::NAME;

    fn kind(&self) -> BrickKind {
        R::KIND
    }

    fn default_budget(&self) -> TokenBudget {
        BudgetTable::DEFAULT.get(R::KIND)
    }

    fn assertions(&self) -> Assertions {
        promises(self.n_out, SUM_TOLERANCE)
    }

    fn tokens(x: &Self::Input<'_>) -> usize {
        x.rows()
    }

    fn execute(&self, x: Self::Input<'_>) -> Result<Self::Output, BrickError> {
        x.expect_width(R::NAME, self.n_in)?;
        let mut outputs = Vec::with_capacity(self.parts.len());
        for Part { weight, bias } in &self.parts {
            let bias = bias.as_ref().map(|(_, b)| b.as_slice());
            outputs.push((weight.rows(), reference::linear(weight, bias, x.values(), self.arithmetic)?));
        }
        Activations::join(&outputs)
    }

    fn cost(&self, extent: &Extent) -> Cost {
        let weights: Vec<WeightShape> = self
            .parts
            .iter()
            .flat_map(|p| std::iter::once(p.weight.shape()).chain(p.bias.as_ref().map(|(shape, _)| *shape)))
            .collect();
        let parts = self
            .parts
            .iter()
            .zip(R::PARTS)
            .map(|(p, &label)| LinearPart { label: label.into(), rows: p.weight.rows(), bias: p.bias.is_some() })
            .collect();
        let input = PortType::rows(R::ROWS, self.n_in);
        Op::Linear { input: self.n_in, parts, rows: R::ROWS }.cost(&[input], &weights, extent)
    }
}
