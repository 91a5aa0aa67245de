//! What a gate has on record of a model ([`brick_profiler::gate`]): facts of its graph, its plan, and one short run.

use std::collections::BTreeMap;
use std::hint::black_box;

use brick_graphs::passes::{self, MaxRows};
use brick_graphs::{Graph, GraphError};
use brick_profiler::gate::{BrickFacts, Conditions, Facts, GraphFacts, PlanFacts, fold_name, layer_ranges};
use brick_profiler::{NoRecord, Phase, Recorder, StepInfo};
use bricks::cpu::SimdLevel;
use bricks::cpu::attention::KvType;
use bricks::{Extent, WeightShape};

use crate::allocations;
use crate::batch::{Batch, Row};
use crate::engine::{Engine, EngineError, EngineOptions};
use crate::fault::{Fault, FaultError};
use crate::kv::SequenceId;
use crate::model::Model;
use crate::plan::Plan;

/// Decoded tokens whose allocations are counted; more than a block of the KV cache has positions, so that its edge is among them.
const DECODED: u64 = 40;

/// Decoded tokens before that: what is allocated once is not counted.
const WARM_UP: u64 = 2;

/// Facts cannot be gathered.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The graph.
    #[error(transparent)]
    Graph(#[from] Box<GraphError>),
    /// A fault that was asked for.
    #[error(transparent)]
    Fault(#[from] FaultError),
    /// Conditions that this program does not know, or that do not fit the model.
    #[error("conditions.{key}: expected {expected}, found {found}")]
    Conditions {
        /// Which.
        key: &'static str,
        /// What may stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
}

/// Facts, and the steps they are about.
#[derive(Debug)]
pub struct Gathered {
    /// The facts.
    pub facts: Facts,
    /// The steps of the plan.
    pub steps: Vec<StepInfo>,
}

/// Conditions that suit a model: a token at 512 and a prompt of 512, less where the model ends before.
pub fn conditions(model: &Model) -> Conditions {
    let context = model.spec.context_length.clamp(2, 1024);
    let half = context.min(512);
    Conditions {
        context,
        batch: half,
        threads: 2,
        kv_type: KvType::F16.name().to_owned(),
        decode_context: half as u64,
        prompt_rows: half as u64,
    }
}

/// Engine options of these conditions.
///
/// # Errors
/// An unknown element type of the KV cache.
pub fn engine_options(conditions: &Conditions) -> Result<EngineOptions, FactsError> {
    let kv_type = [KvType::F16, KvType::Q8_0].into_iter().find(|k| k.name() == conditions.kv_type);
    let kv_type = kv_type.ok_or_else(|| FactsError::Conditions {
        key: "kv_type",
        expected: format!("{} or {}", KvType::F16, KvType::Q8_0),
        found: conditions.kv_type.clone(),
    })?;
    Ok(EngineOptions {
        threads: conditions.threads,
        context: conditions.context,
        max_rows: conditions.batch,
        kv_type,
        simd: SimdLevel::detect(),
        ..EngineOptions::default()
    })
}

/// An engine, with a fault if one is asked for, and the graph it runs.
///
/// # Errors
/// The engine cannot be made, or not broken in this way.
pub fn engine(
    model: &Model,
    options: &EngineOptions,
    fault: Option<&Fault>,
) -> Result<(Engine, Option<Graph>), FactsError> {
    let Some(fault) = fault else { return Ok((model.engine(options)?, None)) };
    let graph = fault.graph(&model.graph)?;
    let mut engine = match &graph {
        Some(graph) => Engine::new(graph, model.weights(), options)?,
        None => model.engine(options)?,
    };
    fault.inject(&mut engine)?;
    Ok((engine, graph))
}

/// Gathers the facts of a model. They are the same on every machine, but for the kernels, which are those of the SIMD level here.
///
/// # Errors
/// [`FactsError`].
pub fn gather(model: &Model, conditions: &Conditions, fault: Option<&Fault>) -> Result<Gathered, FactsError> {
    if let Some((key, found)) = [("context", conditions.context as u64), ("prompt_rows", conditions.prompt_rows)]
        .into_iter()
        .find(|(_, n)| *n > model.spec.context_length as u64)
    {
        let expected = format!("at most {}, the context of the model", model.spec.context_length);
        return Err(FactsError::Conditions { key, expected, found: found.to_string() });
    }
    let options = engine_options(conditions)?;
    let (mut engine, graph) = engine(model, &options, fault)?;
    let graph = graph.as_ref().unwrap_or(&model.fused);
    let decode = Extent::one_sequence(1, conditions.decode_context, 1);
    let prompt = Extent::one_sequence(conditions.prompt_rows, conditions.prompt_rows, 1);
    let steps = engine.steps().to_vec();
    let (bricks, kernels): (Vec<BrickFacts>, Vec<String>) =
        groups(graph, engine.plan()?, &decode, &prompt).into_iter().unzip();
    let kernels = bricks.iter().map(|b| b.label(&bricks)).zip(kernels).collect();
    let level = engine.plan()?.simd.name().to_owned();
    let graph = graph_facts(model, graph)?;
    let plan = plan_facts(&mut engine, conditions, fault)?;
    let facts = Facts { graph, plan, bricks, kernels: BTreeMap::from([(level, kernels)]) };
    Ok(Gathered { facts, steps })
}

fn graph_facts(model: &Model, graph: &Graph) -> Result<GraphFacts, FactsError> {
    let no_rows = MaxRows { tokens: 0, wanted: 0 };
    let mut bricks_after = Vec::new();
    for pass in passes::pipeline().iter().filter(|p| p.rewrites()) {
        let after = passes::run_until(&model.graph, pass.name, no_rows).map_err(Box::new)?;
        bricks_after.push((pass.name.to_owned(), after.graph.len()));
    }
    Ok(GraphFacts {
        architecture: model.spec.architecture.clone(),
        hash: graph.hash_hex(),
        built_bricks: model.graph.len(),
        built_wires: model.graph.petgraph().edge_count(),
        bricks_after,
        bricks: graph.len(),
        wires: graph.petgraph().edge_count(),
    })
}

/// Steps that do the same, with their kernel, in the order in which the first of each runs.
fn groups(graph: &Graph, plan: &Plan, decode: &Extent, prompt: &Extent) -> Vec<(BrickFacts, String)> {
    let mut groups: Vec<(BrickFacts, String, Vec<u32>)> = Vec::new();
    for (step, info) in plan.steps.iter().zip(&plan.info) {
        let brick = graph.brick(step.brick);
        // A step of its own for rounding stands for nothing that was built.
        let fused: &[String] = if brick.name == info.name { &brick.stands_for } else { &[] };
        let weight = |w: &WeightShape| format!("{}[{}, {}]", w.dtype, w.rows, w.cols);
        let facts = BrickFacts {
            name: fold_name(&info.name, info.layer),
            kind: info.kind.name().to_owned(),
            count: 0,
            layers: String::new(),
            fused: fused.iter().map(|name| fold_fused(name, info.layer)).collect(),
            weights: info.weights.iter().map(weight).collect(),
            decode: info.cost(decode).into(),
            prompt: info.cost(prompt).into(),
        };
        let at = groups.iter().position(|(g, kernel, _)| *g == facts && *kernel == info.kernel);
        let at = at.unwrap_or_else(|| {
            groups.push((facts, info.kernel.clone(), Vec::new()));
            groups.len() - 1
        });
        // The count stays 0 until all are found, so that equal steps compare equal.
        groups[at].2.extend(info.layer);
        if info.layer.is_none() {
            groups[at].2.push(u32::MAX);
        }
    }
    groups
        .into_iter()
        .map(|(facts, kernel, mut layers)| {
            let count = layers.len();
            layers.retain(|l| *l != u32::MAX);
            (BrickFacts { count, layers: layer_ranges(&layers), ..facts }, kernel)
        })
        .collect()
}

/// As [`fold_name`]; a brick of the layer before, whose residual is added in this one, has `*-1`.
fn fold_fused(name: &str, layer: Option<u32>) -> String {
    let folded = fold_name(name, layer);
    match layer.and_then(|l| l.checked_sub(1)) {
        Some(before) if folded == name => fold_name(name, Some(before)).replace('*', "*-1"),
        _ => folded,
    }
}

/// Counts barriers; allocates at each if told to.
struct Barriers {
    passed: u64,
    allocate: bool,
}

impl Recorder for Barriers {
    const ENABLED: bool = true;
    type Arrivals = ();

    fn arrivals(&self) {}

    fn begin_forward(&mut self, _: &Extent, _: Phase) {}

    fn step_done(&mut self, _: usize) {
        self.passed += 1;
        if self.allocate {
            drop(black_box(Box::new(1u8)));
        }
    }

    fn end_forward(&mut self) {}
}

fn plan_facts(engine: &mut Engine, c: &Conditions, fault: Option<&Fault>) -> Result<PlanFacts, FactsError> {
    let sequence = engine.new_sequence()?;
    let mut recorder = Barriers { passed: 0, allocate: fault == Some(&Fault::Allocation) };
    let mut batch = Batch::with_capacity(engine.max_rows());
    fill(engine, &mut batch, sequence, c.prompt_rows as usize, &mut recorder)?;
    let barriers_per_prompt = std::mem::take(&mut recorder.passed);

    // The tokens before the one at `decode_context`, as far as there are any.
    let decoded = DECODED.min(c.decode_context);
    let warm_up = WARM_UP.min(c.decode_context - decoded);
    let first = (c.decode_context - decoded - warm_up) as usize;
    let have = engine.kv().len(sequence).map_err(EngineError::from)?;
    if have < first {
        engine.kv_mut().truncate(sequence, 0).map_err(EngineError::from)?;
        fill(engine, &mut batch, sequence, first, &mut NoRecord)?;
    } else {
        engine.kv_mut().truncate(sequence, first).map_err(EngineError::from)?;
    }
    let mut decode = |engine: &mut Engine, from: usize, n: u64, recorder: &mut Barriers| -> Result<(), EngineError> {
        for position in from..from + n as usize {
            batch.clear();
            batch.push(Row { token: synthetic_token(position, engine.vocab()), position, sequence, wanted: true });
            engine.forward(&batch, recorder)?;
        }
        Ok(())
    };
    decode(engine, first, warm_up, &mut recorder)?;
    recorder.passed = 0;
    let (done, allocations) = allocations::count(|| decode(engine, first + warm_up as usize, decoded, &mut recorder));
    done?;
    let plan = engine.plan()?;
    Ok(PlanFacts {
        steps: plan.steps.len(),
        barriers_per_token: recorder.passed / decoded,
        barriers_per_prompt,
        // One allocation in many tokens is no steady state either.
        allocations_per_token: allocations.map(|n| n.div_ceil(decoded)),
        arena_bytes: plan.arena_bytes,
        kv_bytes_per_token: engine.kv().shape().bytes_per_position(),
        packed_weight_bytes: engine.packed().map_or(0, |packed| packed.bytes()),
    })
}

/// Fills an empty sequence with a synthetic prompt.
///
/// # Errors
/// When the engine fails.
pub fn fill<R: Recorder + Send>(
    engine: &mut Engine,
    batch: &mut Batch,
    sequence: SequenceId,
    tokens: usize,
    recorder: &mut R,
) -> Result<(), EngineError> {
    let max_rows = engine.max_rows();
    let prompt: Vec<u32> = (0..tokens).map(|i| synthetic_token(i, engine.vocab())).collect();
    for (i, part) in prompt.chunks(max_rows).enumerate() {
        batch.clear();
        batch.push_tokens(sequence, i * max_rows, part);
        engine.forward(batch, recorder)?;
    }
    Ok(())
}

/// What a text says makes no difference to its cost.
pub fn synthetic_token(position: usize, vocab: usize) -> u32 {
    ((position * 7919 + 101) % vocab) as u32
}
