//! Rounding errors: of brick's own arithmetic, and of stored weights.

use std::collections::HashMap;

use brick_graphs::Graph;
use brick_models::format::gguf::Gguf;
use brick_profiler::trace::{
    ErrorSums, ModelQuantizationError, ModelTracerConfig, QuantizationBasis, QuantizationErrorTrace,
};
use bricks::reference::{self, Arithmetic, Context, Weight};
use bricks::{BrickError, Op, Rows};

use super::TraceError;
use crate::check::ports;
use crate::engine::StepView;
use crate::plan::{LinearInput, LinearMatrix, Plan, Slot, StepKind};
use crate::weights::Weights;

/// Rows of a call that are compared, its last ones: the reference is slow on purpose.
pub(super) const ROWS: usize = 4;

/// What brick's arithmetic adds: bricks that round their input to 8 bits, and what the KV cache keeps of keys and values, each
/// against the f32 reference on the input it really had. The other bricks round nothing but the last bit of an f32.
pub(super) struct ArithmeticError {
    graph: Graph,
    /// Slots of each step, by port.
    ports: Vec<crate::check::Ports>,
    config: ModelTracerConfig,
    rows: usize,
    errors: Vec<QuantizationErrorTrace>,
}

impl ArithmeticError {
    pub(super) fn new(graph: &Graph, plan: &Plan, config: &ModelTracerConfig) -> Self {
        Self {
            graph: graph.clone(),
            ports: plan.steps.iter().map(ports).collect(),
            config: config.clone(),
            rows: 0,
            errors: Vec::new(),
        }
    }

    pub(super) fn finish(self) -> ModelQuantizationError {
        ModelQuantizationError {
            basis: QuantizationBasis::Arithmetic,
            against: "f32 reference".into(),
            rows: Some(self.rows as u64),
            bricks: self.errors,
        }
    }

    /// Compares the step that is done, if it rounds.
    pub(super) fn look(&mut self, index: usize, view: &StepView<'_>) -> Result<(), TraceError> {
        let plan = view.plan();
        let info = &plan.info[index];
        self.rows = view.rows().len().min(ROWS);
        if info.layer.is_some_and(|l| !self.config.has_layer(l)) {
            return Ok(());
        }
        let rounds = |m: &LinearMatrix| matches!(m.src, LinearInput::Q8(_));
        let mut sums = ErrorSums::default();
        let (done, format) = match &plan.steps[index].kind {
            StepKind::Linear { matrices, .. } if matrices.iter().any(rounds) => {
                (self.linear(index, view, &mut sums), info.kernel.clone())
            }
            StepKind::GatedLinear { matrices, .. } if matrices.iter().any(rounds) => {
                (self.linear(index, view, &mut sums), info.kernel.clone())
            }
            StepKind::KvWrite { .. } => {
                (Self::kv_write(index, view, &mut sums), format!("kv_{}", view.kv().shape().layout.kind().name()))
            }
            _ => return Ok(()),
        };
        done.map_err(|source| TraceError::Reference { brick: info.name.clone(), source: Box::new(source) })?;
        self.errors.push(QuantizationErrorTrace::new(info.name.clone(), info.layer, format, &sums));
        Ok(())
    }

    fn linear(&self, index: usize, view: &StepView<'_>, sums: &mut ErrorSums) -> Result<(), BrickError> {
        let info = &view.plan().info[index];
        let brick = self.graph.brick(view.plan().steps[index].brick);
        let rows = match &info.op {
            Op::Linear { rows: Rows::Wanted, .. } => view.wanted().len(),
            _ => view.rows().len(),
        };
        let weight = |&w: &brick_graphs::WeightId| {
            let shape = self.graph.weight(w).shape;
            Weight::new(shape.dtype, shape.rows, shape.cols, view.weight(w))
        };
        let weights = brick.weights.iter().map(weight).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<Vec<f32>> = self.ports[index].inputs.iter().map(|s| last_rows(view, *s, rows)).collect();
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let context = Context { arithmetic: Arithmetic::F32, ..Context::default() };
        let expected = reference::run(&info.op, &inputs, &weights, &context)?;
        for (slot, expected) in self.ports[index].outputs.iter().zip(&expected) {
            sums.add(&last_rows(view, *slot, rows), expected);
        }
        Ok(())
    }

    fn kv_write(index: usize, view: &StepView<'_>, sums: &mut ErrorSums) -> Result<(), BrickError> {
        let info = &view.plan().info[index];
        let StepKind::KvWrite { layer, k, v, .. } = &view.plan().steps[index].kind else { return Ok(()) };
        let rows = &view.rows()[view.rows().len().saturating_sub(ROWS)..];
        let (mut keys, values) = (last_rows(view, *k, view.rows().len()), last_rows(view, *v, view.rows().len()));
        if let Op::RopeKvWrite { n_kv_heads, head_dim, spec, .. } = &info.op {
            let positions: Vec<u32> = rows.iter().map(|r| r.position as u32).collect();
            keys = reference::rope(spec, *n_kv_heads, *head_dim, &keys, &positions)?;
        }
        for ((row, key), value) in rows.iter().zip(keys.chunks_exact(k.width)).zip(values.chunks_exact(v.width)) {
            let stored = view.kv().gather(row.sequence, *layer, row.position + 1);
            let (stored_keys, stored_values) = stored.expect("invariant: the batch's rows are in the cache");
            sums.add(&stored_keys[row.position * k.width..], key);
            sums.add(&stored_values[row.position * v.width..], value);
        }
        Ok(())
    }
}

/// The last [`ROWS`] of `rows` rows.
fn last_rows(view: &StepView<'_>, slot: Slot, rows: usize) -> Vec<f32> {
    (rows.saturating_sub(ROWS)..rows).flat_map(|t| view.row(slot, t).iter().copied()).collect()
}

/// The error of every stored tensor against the tensor of the same name in another file of the same model.
///
/// # Errors
/// [`TraceError::OtherModel`] where the other file has no such tensor, or one of another shape.
pub fn weight_errors(
    graph: &Graph,
    weights: &dyn Weights,
    (other, name): (&Gguf, &str),
    config: &ModelTracerConfig,
) -> Result<ModelQuantizationError, TraceError> {
    let mut layers: HashMap<brick_graphs::WeightId, Option<u32>> = HashMap::new();
    for brick in graph.bricks() {
        for &w in &brick.weights {
            layers.entry(w).or_insert(brick.layer);
        }
    }
    let mut read: Vec<_> = layers.into_iter().filter(|(_, l)| l.is_none_or(|l| config.has_layer(l))).collect();
    read.sort_by_key(|(w, _)| *w);
    let mut bricks = Vec::with_capacity(read.len());
    for (id, layer) in read {
        let info = graph.weight(id);
        let fail = |expected: String, found: String| TraceError::OtherModel {
            file: name.to_owned(),
            tensor: info.name.clone(),
            expected,
            found,
        };
        let expected = || format!("[{}, {}] as in the traced model", info.shape.rows, info.shape.cols);
        let tensor = other.tensor(&info.name).ok_or_else(|| fail(expected(), "no such tensor".into()))?;
        let shape = tensor.shape().map_err(|e| fail(expected(), e.to_string()))?;
        if (shape.rows, shape.cols) != (info.shape.rows, info.shape.cols) {
            return Err(fail(expected(), format!("[{}, {}]", shape.rows, shape.cols)));
        }
        let bytes = other.bytes(tensor).map_err(|e| fail(expected(), e.to_string()))?;
        let reference = |source| TraceError::Reference { brick: info.name.clone(), source: Box::new(source) };
        let own = Weight::new(info.shape.dtype, info.shape.rows, info.shape.cols, weights.bytes(id));
        let own = own.map_err(reference)?;
        let theirs = Weight::new(shape.dtype, shape.rows, shape.cols, bytes).map_err(reference)?;
        let (mut a, mut b) = (vec![0.0; shape.cols], vec![0.0; shape.cols]);
        let mut sums = ErrorSums::default();
        for row in 0..shape.rows {
            own.decode_row(row, &mut a).and_then(|()| theirs.decode_row(row, &mut b)).map_err(reference)?;
            sums.add(&a, &b);
        }
        weights.release(id);
        other.release(tensor);
        let format = format!("{} / {}", info.shape.dtype.name(), shape.dtype.name());
        bricks.push(QuantizationErrorTrace::new(info.name.clone(), layer, format, &sums));
    }
    Ok(ModelQuantizationError { basis: QuantizationBasis::Weights, against: name.to_owned(), rows: None, bricks })
}
