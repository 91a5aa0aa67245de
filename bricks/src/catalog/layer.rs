//! A transformer layer: bricks composed into a brick.

use std::time::Instant;

use super::{
    Activations, Attend, AttentionBrick, BudgetTable, FfnBrick, KvCache, OProjBrick, QkvBrick, ResidualBrick,
    RmsNormBrick, RopeBrick, Rotate, Stream, Sum,
};
use crate::assertion::{Assertions, BrickAssertion};
use crate::brick::{ComputeBrick, Observe, RunBrick};
use crate::budget::{BudgetOrigin, BudgetPolicy, TokenBudget, TokenResult};
use crate::cost::{Cost, Extent};
use crate::error::BrickError;
use crate::kind::BrickKind;
use crate::line::{BottleneckReport, BrickLine, LineReport};
use crate::op::Dim;

/// The parts of a layer, in the order in which they run (the residual twice).
#[derive(Debug, Clone)]
pub struct LayerParts {
    /// Norm before attention.
    pub attn_norm: RmsNormBrick,
    /// Query, key and value projections.
    pub qkv: QkvBrick,
    /// Rotation of queries and keys.
    pub rope: RopeBrick,
    /// Attention with its cache.
    pub attention: AttentionBrick,
    /// Projection of what attention found.
    pub o_proj: OProjBrick,
    /// The addition after attention and after the feed-forward network.
    pub residual: ResidualBrick,
    /// Norm before the feed-forward network.
    pub ffn_norm: RmsNormBrick,
    /// The feed-forward network.
    pub ffn: FfnBrick,
}

/// A pre-norm decoder layer: [`Stream`] to [`Stream`], `[T, hidden]`.
///
/// Its budget is the sum of the budgets of its parts, and its report names the part that holds it up.
#[derive(Debug, Clone)]
pub struct TransformerLayerBrick {
    index: usize,
    parts: LayerParts,
    assertions: Assertions,
}

/// What a [`TransformerLayerBrick`] takes: rows of one sequence.
#[derive(Debug)]
pub struct LayerInput<'a> {
    /// The residual stream.
    pub stream: &'a Activations<Stream>,
    /// Position of each row.
    pub positions: &'a [u32],
    /// Keys and values of the sequence in this layer.
    pub cache: &'a mut KvCache,
}

/// What a [`TransformerLayerBrick`] gives.
#[derive(Debug, Clone)]
pub struct LayerOutput {
    /// The residual stream.
    pub stream: Activations<Stream>,
    /// What each part took.
    pub report: LineReport,
}

impl LayerOutput {
    /// The slowest part.
    pub fn bottleneck(&self) -> Option<BottleneckReport> {
        self.report.bottleneck()
    }
}

impl Observe for LayerOutput {
    fn values(&self) -> &[f32] {
        self.stream.values()
    }

    fn shape(&self) -> Vec<usize> {
        self.stream.shape()
    }
}

impl TransformerLayerBrick {
    /// Layer number `index` of these parts. Sizes that do not fit each other show when it runs.
    pub fn new(index: usize, parts: LayerParts) -> Self {
        let hidden = parts.ffn.op().width();
        // No equivalence to the scalar reference: the parts promise that, each within its own tolerance.
        let assertions = Assertions::of(BrickAssertion::shape([Dim::Tokens, Dim::Fixed(hidden)]))
            .and(BrickAssertion::finite())
            .and(BrickAssertion::budget_met());
        Self { index, parts, assertions }
    }

    /// The same layer with the budgets of another table for all its parts.
    #[must_use]
    pub fn with_budgets(mut self, table: &BudgetTable) -> Self {
        let LayerParts { attn_norm, qkv, rope, attention, o_proj, residual, ffn_norm, ffn } = self.parts;
        let ffn_budget = table.sum(&[BrickKind::GateUp, BrickKind::Activation, BrickKind::Down]);
        self.parts = LayerParts {
            attn_norm: attn_norm.with_budget(table.get(BrickKind::RmsNorm)),
            qkv: qkv.with_budget(table.get(BrickKind::Qkv)),
            rope: rope.with_budget(table.get(BrickKind::Rope)),
            attention: attention.with_budget(table.get(BrickKind::Attention)),
            o_proj: o_proj.with_budget(table.get(BrickKind::OProj)),
            residual: residual.with_budget(table.get(BrickKind::Residual)),
            ffn_norm: ffn_norm.with_budget(table.get(BrickKind::RmsNorm)),
            ffn: ffn.with_budget(ffn_budget),
        };
        self
    }

    /// The parts.
    pub fn parts(&self) -> &LayerParts {
        &self.parts
    }

    /// Every execution of a part, in the order in which they run.
    fn steps(&self) -> [&dyn ComputeBrick; 9] {
        let LayerParts { attn_norm, qkv, rope, attention, o_proj, residual, ffn_norm, ffn } = &self.parts;
        [attn_norm, qkv, rope, attention, o_proj, residual, ffn_norm, ffn, residual]
    }

    /// Runs the parts on a line under `policy`. With [`BudgetPolicy::Strict`] the first part over its budget ends the layer.
    ///
    /// # Errors
    /// What the line reports. Keys and values that were stored before a part failed stay stored.
    pub fn run_on_line(&self, policy: BudgetPolicy, input: LayerInput<'_>) -> Result<LayerOutput, BrickError> {
        let LayerInput { stream, positions, cache } = input;
        let p = &self.parts;
        let mut line = BrickLine::new(policy).in_layer(self.index);
        let normed = line.step(&p.attn_norm, stream)?;
        let projected = line.step(&p.qkv, &normed)?;
        let rotated = line.step(&p.rope, Rotate { qkv: &projected, positions })?;
        let attended = line.step(&p.attention, Attend { qkv: &rotated, positions, cache })?;
        let update = line.step(&p.o_proj, &attended)?;
        let middle = line.step(&p.residual, Sum { stream, update: &update })?;
        let normed = line.step(&p.ffn_norm, &middle)?;
        let update = line.step(&p.ffn, &normed)?;
        let stream = line.step(&p.residual, Sum { stream: &middle, update: &update })?;
        Ok(LayerOutput { stream, report: line.finish() })
    }
}

impl ComputeBrick for TransformerLayerBrick {
    fn name(&self) -> &'static str {
        "transformer_layer"
    }

    /// All kinds in one: in no account of its own.
    fn kind(&self) -> BrickKind {
        BrickKind::Custom
    }

    /// The sum of the budgets of the parts; of one origin if all parts agree on it, else explicit.
    fn budget(&self) -> TokenBudget {
        let budgets = self.steps().map(ComputeBrick::budget);
        let origin = budgets[0].origin();
        let origin = if budgets.iter().all(|b| b.origin() == origin) { origin } else { BudgetOrigin::Explicit };
        let us: f64 = budgets.iter().map(TokenBudget::us_per_token).sum();
        TokenBudget::from_latency(f64::min(us, f64::MAX), origin)
            .expect("invariant: a sum of positive figures is positive, and the limit keeps it finite")
    }

    fn assertions(&self) -> &Assertions {
        &self.assertions
    }

    fn cost(&self, extent: &Extent) -> Cost {
        self.steps().iter().map(|brick| brick.cost(extent)).sum()
    }
}

impl RunBrick for TransformerLayerBrick {
    type Input<'a> = LayerInput<'a>;
    type Output = LayerOutput;

    fn run(&self, input: LayerInput<'_>) -> Result<TokenResult<LayerOutput>, BrickError> {
        let tokens = input.stream.rows();
        let start = Instant::now();
        let output = self.run_on_line(BudgetPolicy::Report, input)?;
        let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(TokenResult::new(output, ns, tokens, &self.budget()))
    }
}
