//! Comparing a running plan with the scalar reference, brick by brick.
//!
//! Every step is judged on the inputs it really had, so an error does not travel: the first brick that diverges is the one
//! whose kernel is wrong, not one that was fed wrong numbers.

use std::sync::Arc;

use brick_graphs::Graph;
use brick_profiler::NoRecord;
use bricks::cpu::attention::KvType;
use bricks::reference::{self, Arithmetic, Context, Weight};
use bricks::{BrickError, BrickKind, Op, Rows};
use serde::Serialize;

use crate::batch::Batch;
use crate::engine::{Engine, EngineError, EngineOptions, Observer, StepView};
use crate::plan::{LinearInput, Plan, Slot, Step, StepKind};
use crate::weights::Weights;

/// How far one brick is from its reference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrickCheck {
    /// The brick.
    pub brick: String,
    /// Its kind.
    pub kind: BrickKind,
    /// Its layer.
    pub layer: Option<u32>,
    /// The kernel that was judged.
    pub kernel: String,
    /// `‖output − reference‖ / ‖reference‖` over all rows and outputs; NaN counts as infinite.
    pub relative_error: f64,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Where it is: output, row, column.
    pub worst: (usize, usize, usize),
    /// The kernel's value there.
    pub found: f32,
    /// The reference's value there.
    pub expected: f32,
    /// Largest `relative_error` that passes.
    pub tolerance: f64,
    /// Whether every value is finite.
    pub finite: bool,
    /// Whether the brick passes.
    pub ok: bool,
}

/// The outcome of [`check`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckReport {
    /// One entry per brick, in execution order.
    pub bricks: Vec<BrickCheck>,
    /// Index of the first brick that does not pass.
    pub first_divergence: Option<usize>,
    /// Tokens that ran.
    pub tokens: usize,
    /// SIMD level of the kernels.
    pub simd: &'static str,
}

impl CheckReport {
    /// The first brick that does not pass.
    pub fn first(&self) -> Option<&BrickCheck> {
        self.first_divergence.map(|i| &self.bricks[i])
    }
}

/// A check could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The reference refused: shapes that do not fit, a bug in the plan.
    #[error("brick {brick}: the reference cannot be computed: {source}")]
    Reference {
        /// The brick.
        brick: String,
        /// Why not.
        source: Box<BrickError>,
    },
    /// No brick of that name.
    #[error("there is no brick {name:?} in the graph that runs; `brick graph` lists them ({examples}, …)")]
    UnknownBrick {
        /// What was asked for.
        name: String,
        /// Some that exist.
        examples: String,
    },
}

/// Runs `tokens` through the graph as one prompt and compares every brick with its scalar reference.
///
/// `sabotage` names a brick whose kernel is broken on purpose, to show that the check finds it.
///
/// # Errors
/// [`CheckError`] when the check cannot be made; a brick that diverges is no error but part of the report.
pub fn check(
    graph: &Graph,
    weights: Arc<dyn Weights>,
    options: &EngineOptions,
    tokens: &[u32],
    sabotage: Option<&str>,
) -> Result<CheckReport, CheckError> {
    let n = tokens.len().max(1);
    let options = EngineOptions { keep_values: true, max_rows: n, max_wanted: n, context: n, sequences: 1, ..*options };
    let mut engine = Engine::new(graph, weights, &options)?;
    // Where inputs and outputs are, before anything is broken.
    let ports = engine.plan()?.steps.iter().map(ports).collect();
    if let Some(name) = sabotage {
        break_kernel(engine.cpu_mut()?.plan_mut(), name)?;
    }
    let sequence = engine.new_sequence()?;
    let mut batch = Batch::with_capacity(n);
    batch.push_tokens(sequence, 0, tokens);
    let mut checker = Checker { graph, ports, bricks: Vec::new(), error: None };
    engine.forward_observed(&batch, &mut NoRecord, &mut checker)?;
    if let Some(e) = checker.error {
        return Err(e);
    }
    let bricks = checker.bricks;
    Ok(CheckReport {
        first_divergence: bricks.iter().position(|b| !b.ok),
        bricks,
        tokens: tokens.len(),
        simd: options.simd.name(),
    })
}

struct Checker<'a> {
    graph: &'a Graph,
    ports: Vec<Ports>,
    bricks: Vec<BrickCheck>,
    error: Option<CheckError>,
}

impl Observer for Checker<'_> {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        let plan = view.plan();
        if self.error.is_some() || matches!(plan.steps[step].kind, StepKind::Input | StepKind::Quantize { .. }) {
            return;
        }
        match self.judge(step, view) {
            Ok(b) => self.bricks.push(b),
            Err(source) => {
                self.error =
                    Some(CheckError::Reference { brick: plan.info[step].name.clone(), source: Box::new(source) });
            }
        }
    }
}

impl Checker<'_> {
    fn judge(&self, index: usize, view: &StepView<'_>) -> Result<BrickCheck, BrickError> {
        let plan = view.plan();
        let (step, info) = (&plan.steps[index], &plan.info[index]);
        let brick = self.graph.brick(step.brick);
        let weights = brick
            .weights
            .iter()
            .map(|&w| {
                let shape = self.graph.weight(w).shape;
                Weight::new(shape.dtype, shape.rows, shape.cols, view.weight(w))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let Ports { inputs, outputs } = &self.ports[index];
        let rows = match &info.op {
            Op::Linear { rows: Rows::Wanted, .. } => view.wanted().len(),
            _ => view.rows().len(),
        };
        let gather = |slot: Slot, rows: usize| -> Vec<f32> {
            (0..rows).flat_map(|t| view.row(slot, t).iter().copied()).collect()
        };
        let inputs: Vec<Vec<f32>> = inputs.iter().map(|s| gather(*s, rows)).collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let tokens: Vec<u32> = view.rows().iter().map(|r| r.token).collect();
        let positions: Vec<u32> = view.rows().iter().map(|r| r.position as u32).collect();
        // One prompt from position 0: the cache holds exactly the batch.
        let sequence = view.rows()[0].sequence;
        let cache = |layer: usize| {
            view.kv().gather(sequence, layer, positions.len()).expect("invariant: the batch's rows are in the cache")
        };
        let layer = info.layer.unwrap_or(0) as usize;
        let (keys, values) = match &info.op {
            Op::Attention(_) => cache(layer),
            // The reference overwrites every position.
            Op::KvWrite { n_kv_heads, head_dim } | Op::RopeKvWrite { n_kv_heads, head_dim, .. } => {
                let zeros = vec![0.0; positions.len() * n_kv_heads * head_dim];
                (zeros.clone(), zeros)
            }
            _ => (Vec::new(), Vec::new()),
        };
        let rounds = |m: &crate::plan::LinearMatrix| {
            matches!(m.src, LinearInput::Q8(_)) || m.kernel.dtype() == bricks::DType::BF16
        };
        let arithmetic = match &step.kind {
            StepKind::Linear { matrices, .. } if matrices.iter().any(rounds) => Arithmetic::Q8,
            StepKind::GatedLinear { matrices, .. } if matrices.iter().any(rounds) => Arithmetic::Q8,
            _ => Arithmetic::F32,
        };
        let context = Context {
            tokens: &tokens,
            positions: &positions,
            wanted: view.wanted(),
            keys: &keys,
            values: &values,
            arithmetic,
        };
        let expected = reference::run(&info.op, &inputs, &weights, &context)?;
        let out_rows = match &info.op {
            Op::RmsNorm { rows: Rows::Wanted, .. } | Op::Linear { rows: Rows::Wanted, .. } => view.wanted().len(),
            _ => view.rows().len(),
        };
        let mut found: Vec<Vec<f32>> = outputs.iter().map(|s| gather(*s, out_rows)).collect();
        if matches!(info.op, Op::KvWrite { .. } | Op::RopeKvWrite { .. }) {
            let (k, v) = cache(layer);
            found.extend([k, v]);
        }
        let tolerance = tolerance(&info.op, view.kv().shape().layout.kind());
        Ok(compare(info, tolerance, &found, &expected, out_rows.max(1)))
    }
}

/// Largest relative error that passes, per operation. Sources of difference: order of f32 additions (all), the vectorised
/// exponential (softmax, activation), rounding of keys and values to f16 or to codes of 8 bits, whose step is 1/127 of the largest of
/// 32 values.
fn tolerance(op: &Op, kv_type: KvType) -> f64 {
    match op {
        Op::Input | Op::Embed { .. } | Op::Add => 1e-6,
        Op::RmsNorm { .. } | Op::AddRmsNorm { .. } | Op::Rope { .. } | Op::GatedActivation { .. } => 1e-5,
        Op::Linear { .. } | Op::GatedLinear { .. } | Op::Attention(_) => 1e-4,
        Op::KvWrite { .. } | Op::RopeKvWrite { .. } => match kv_type {
            KvType::F16 => 1e-3,
            KvType::Q8_0 => 2e-2,
        },
    }
}

fn compare(
    info: &brick_profiler::StepInfo,
    tolerance: f64,
    found: &[Vec<f32>],
    expected: &[Vec<f32>],
    rows: usize,
) -> BrickCheck {
    let (mut error2, mut norm2, mut max_abs, mut finite) = (0.0f64, 0.0f64, -1.0f64, true);
    let (mut worst, mut at) = ((0, 0, 0), (0.0f32, 0.0f32));
    let mut fits = found.len() == expected.len();
    for (o, (f, e)) in found.iter().zip(expected).enumerate() {
        fits &= f.len() == e.len();
        let width = (e.len() / rows).max(1);
        for (i, (&f, &e)) in f.iter().zip(e).enumerate() {
            finite &= f.is_finite();
            let d = (f64::from(f) - f64::from(e)).abs();
            let d = if d.is_nan() { f64::INFINITY } else { d };
            error2 += d * d;
            norm2 += f64::from(e) * f64::from(e);
            if d > max_abs {
                max_abs = d;
                worst = (o, i / width, i % width);
                at = (f, e);
            }
        }
    }
    let relative_error = if !fits || error2.is_infinite() {
        f64::INFINITY
    } else if error2 == 0.0 {
        0.0
    } else {
        (error2 / norm2.max(f64::MIN_POSITIVE)).sqrt()
    };
    BrickCheck {
        brick: info.name.clone(),
        kind: info.kind,
        layer: info.layer,
        kernel: info.kernel.clone(),
        relative_error,
        max_abs_error: max_abs.max(0.0),
        worst,
        found: at.0,
        expected: at.1,
        tolerance,
        finite,
        ok: finite && relative_error <= tolerance,
    }
}

/// Activation inputs and outputs of a step in port order (the KV cache is no buffer).
pub(crate) struct Ports {
    pub(crate) inputs: Vec<Slot>,
    pub(crate) outputs: Vec<Slot>,
}

pub(crate) fn ports(step: &Step) -> Ports {
    let (inputs, outputs) = match &step.kind {
        StepKind::Input => (vec![], vec![]),
        StepKind::Embed { dst, .. } => (vec![], vec![*dst]),
        StepKind::RmsNorm { src, dst, .. } | StepKind::Rope { src, dst, .. } => (vec![*src], vec![*dst]),
        StepKind::AddRmsNorm { a, b, sum, dst, .. } => (vec![*a, *b], vec![*sum, *dst]),
        StepKind::Quantize { src, .. } => (vec![*src], vec![]),
        StepKind::GatedLinear { source, dst, .. } => (vec![*source], vec![*dst]),
        StepKind::Linear { source, matrices, .. } => (vec![*source], matrices.iter().map(|m| m.dst).collect()),
        StepKind::KvWrite { k, v, rope: None, .. } => (vec![*k, *v], vec![]),
        StepKind::KvWrite { k, v, rope: Some(r), .. } => (vec![r.q, *k, *v], vec![r.q_out]),
        StepKind::Attention { q, dst, .. } => (vec![*q], vec![*dst]),
        StepKind::Add { a, b, dst } => (vec![*a, *b], vec![*dst]),
        StepKind::GatedActivation { gate, up, dst, .. } => (vec![*gate, *up], vec![*dst]),
    };
    Ports { inputs, outputs }
}

/// Changes a kernel's parameters so that it computes something else.
fn break_kernel(plan: &mut Plan, name: &str) -> Result<(), CheckError> {
    let is_target = |i: usize| plan.info[i].name == name && !matches!(plan.steps[i].kind, StepKind::Input);
    let Some(i) = (0..plan.steps.len()).find(|&i| is_target(i)) else {
        let examples: Vec<&str> = plan.info.iter().skip(1).step_by(7).take(4).map(|i| i.name.as_str()).collect();
        return Err(CheckError::UnknownBrick { name: name.to_owned(), examples: examples.join(", ") });
    };
    match &mut plan.steps[i].kind {
        StepKind::Input => {}
        StepKind::Embed { scale, .. } => *scale *= 1.01,
        StepKind::RmsNorm { gain, .. } | StepKind::AddRmsNorm { gain, .. } => {
            gain.iter_mut().take(1).for_each(|g| *g += 1.0);
        }
        StepKind::Quantize { src, .. } => src.offset = 0,
        StepKind::Linear { matrices, .. } => {
            for m in matrices {
                let mut bias = m.bias.take().unwrap_or_else(|| vec![0.0; m.rows].into_boxed_slice());
                bias.iter_mut().take(1).for_each(|b| *b += 10.0);
                m.bias = Some(bias);
            }
        }
        StepKind::Rope { style, .. } | StepKind::KvWrite { rope: Some(crate::plan::FusedRope { style, .. }), .. } => {
            *style = match style {
                bricks::RopeStyle::Interleaved => bricks::RopeStyle::SplitHalves,
                bricks::RopeStyle::SplitHalves => bricks::RopeStyle::Interleaved,
            };
        }
        StepKind::KvWrite { k, v, .. } => std::mem::swap(k, v),
        StepKind::Attention { spec, .. } => spec.scale *= 1.5,
        StepKind::Add { a, b, .. } => *b = *a,
        StepKind::GatedActivation { gate, up, .. } => std::mem::swap(gate, up),
        StepKind::GatedLinear { matrices, .. } => matrices.swap(0, 1),
    }
    Ok(())
}
