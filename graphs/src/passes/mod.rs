//! Passes: what is done to a graph between building and lowering it.
//!
//! A pass is a pure function: `Graph -> Graph` (a rewrite) or `Graph -> annotation`. Each can be called alone, and
//! [`run_until`] runs the [`pipeline`] up to a named pass, so that the graph can be printed after each.
//!
//! After every rewrite [`run_until`] compares what the graph [means](crate::meaning) with what it meant before; a fusion
//! that computes something else is an error before anything runs, not a wrong answer afterwards.

mod cost;
mod gated;
mod linear;
mod liveness;
mod place;
mod residual;
mod rewrite;
mod rope;

pub use cost::{CostTable, cost_table};
pub use gated::fuse_gated;
pub use linear::{fuse_gate_up, fuse_qkv};
pub use liveness::{Interval, Liveness, liveness};
pub use place::{ALIGN, Buffer, MaxRows, Packing, Placement, Slot, pack, place, place_without_reuse};
pub use residual::fuse_residual_norm;
pub use rope::fuse_rope_kv;

use crate::error::GraphError;
use crate::graph::{Graph, ValueId};
use crate::meaning::Terms;

/// A named pass of the [`pipeline`].
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Its name on the command line, e.g. `fuse-qkv`.
    pub name: &'static str,
    /// What it does, in a few words.
    pub about: &'static str,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    Rewrite(fn(&Graph) -> Result<Graph, GraphError>),
    Liveness,
    Place,
}

impl Pass {
    /// Whether it gives another graph (rather than finding something out about one).
    pub fn rewrites(&self) -> bool {
        matches!(self.run, Run::Rewrite(_))
    }
}

/// A graph with what the annotating passes found out about it.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The graph after the last rewrite.
    pub graph: Graph,
    /// When each value is needed, if that pass ran.
    pub liveness: Option<Liveness>,
    /// Where each value lies, if that pass ran.
    pub placement: Option<Placement>,
}

/// Checks everything about a graph again, as [`GraphBuilder::finish`](crate::GraphBuilder::finish) did.
///
/// # Errors
/// As [`GraphBuilder::finish`](crate::GraphBuilder::finish); none for a graph that came from there.
pub fn validate(graph: &Graph) -> Result<Graph, GraphError> {
    graph.recheck()
}

/// All passes in order.
pub fn pipeline() -> &'static [Pass] {
    const fn rewrite(name: &'static str, about: &'static str, f: fn(&Graph) -> Result<Graph, GraphError>) -> Pass {
        Pass { name, about, run: Run::Rewrite(f) }
    }
    const PIPELINE: &[Pass] = &[
        rewrite("validate", "check ports, shapes, names, order and readers", validate),
        rewrite("fuse-qkv", "query, key and value projections become one brick", fuse_qkv),
        rewrite("fuse-gate-up", "gate and up projections become one brick", fuse_gate_up),
        rewrite("fuse-gated", "gate, up and the activation after them become one brick", fuse_gated),
        rewrite("fuse-residual-norm", "a residual addition and the norm after it become one brick", fuse_residual_norm),
        rewrite("fuse-rope-kv", "rotary embedding and the KV cache write become one brick", fuse_rope_kv),
        Pass { name: "liveness", about: "first and last use of every value", run: Run::Liveness },
        Pass { name: "place", about: "all values in one arena, reusing bytes", run: Run::Place },
    ];
    PIPELINE
}

/// Runs the pipeline up to and including the pass of that name. `max_rows` is the batch the arena is made for.
///
/// # Errors
/// [`GraphError::UnknownPass`]; [`GraphError::MeaningChanged`] when a rewrite is wrong; whatever a pass returns.
pub fn run_until(graph: &Graph, name: &str, max_rows: MaxRows) -> Result<Compiled, GraphError> {
    let passes = pipeline();
    let Some(last) = passes.iter().position(|p| p.name == name) else {
        let known: Vec<&str> = passes.iter().map(|p| p.name).collect();
        return Err(GraphError::UnknownPass { name: name.to_owned(), known: known.join(", ") });
    };
    run(graph, &passes[..=last], max_rows)
}

/// Runs the whole pipeline.
///
/// # Errors
/// As [`run_until`].
pub fn run_all(graph: &Graph, max_rows: MaxRows) -> Result<Compiled, GraphError> {
    run(graph, pipeline(), max_rows)
}

/// All rewrites of the pipeline: the graph that is lowered. Weights keep their ids.
///
/// # Errors
/// As [`run_until`].
pub fn fuse_all(graph: &Graph) -> Result<Graph, GraphError> {
    let rewrites: Vec<Pass> = pipeline().iter().filter(|p| p.rewrites()).copied().collect();
    // No rewrite looks at the size of a batch.
    Ok(run(graph, &rewrites, MaxRows { tokens: 0, wanted: 0 })?.graph)
}

/// [`fuse_all`] without one of the rewrites: what a gate must notice.
///
/// # Errors
/// [`GraphError::UnknownPass`] unless it is a rewrite; whatever another pass returns.
#[doc(hidden)]
pub fn fuse_all_but(graph: &Graph, name: &str) -> Result<Graph, GraphError> {
    let rewrites: Vec<Pass> = pipeline().iter().filter(|p| p.rewrites()).copied().collect();
    let others: Vec<Pass> = rewrites.iter().filter(|p| p.name != name).copied().collect();
    if others.len() == rewrites.len() {
        let known: Vec<&str> = rewrites.iter().map(|p| p.name).collect();
        return Err(GraphError::UnknownPass { name: name.to_owned(), known: known.join(", ") });
    }
    Ok(run(graph, &others, MaxRows { tokens: 0, wanted: 0 })?.graph)
}

fn run(graph: &Graph, passes: &[Pass], max_rows: MaxRows) -> Result<Compiled, GraphError> {
    let mut terms = Terms::new();
    let meaning = terms.meaning(graph);
    let mut done = Compiled { graph: graph.clone(), liveness: None, placement: None };
    for pass in passes {
        match pass.run {
            Run::Rewrite(f) => {
                done.graph = f(&done.graph)?;
                if let Some(what) = meaning.difference(&terms.meaning(&done.graph)) {
                    return Err(GraphError::MeaningChanged { pass: pass.name, what });
                }
            }
            Run::Liveness => done.liveness = Some(liveness(&done.graph)),
            Run::Place => {
                let live = done.liveness.get_or_insert_with(|| liveness(&done.graph));
                done.placement = Some(place(&done.graph, live, max_rows)?);
            }
        }
    }
    Ok(done)
}

/// `brick` or, for a brick with several outputs, `brick:port`.
fn value_name(graph: &Graph, id: ValueId) -> String {
    let v = graph.value(id);
    let b = graph.brick(v.producer);
    if b.outputs.len() == 1 { b.name.clone() } else { format!("{}:{}", b.name, v.port) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bricks::{BrickKind, DType, Op, Rows, WeightShape};

    use super::*;
    use crate::assemble::assemble;
    use crate::builder::GraphBuilder;

    fn graph() -> Graph {
        let mut b = GraphBuilder::new();
        let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]);
        let table = b.weight("table", WeightShape { dtype: DType::F32, rows: 4, cols: 8 });
        let gain = b.weight("gain", WeightShape { dtype: DType::F32, rows: 1, cols: 8 });
        let x = b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens.out()], &[table]);
        let norm = Op::RmsNorm { eps: 1e-5, rows: Rows::All };
        let y = b.push("norm", BrickKind::RmsNorm, None, norm, &[x.out()], &[gain]);
        b.finish(y.out()).unwrap()
    }

    /// A rewrite that passes every check of types but computes something else.
    fn forgetful(graph: &Graph) -> Result<Graph, GraphError> {
        let mut drafts = graph.drafts();
        for d in &mut drafts {
            if let Op::RmsNorm { eps, .. } = &mut d.op {
                *eps = 1e-6;
            }
        }
        assemble(drafts, graph.weights().to_vec(), graph.source(graph.output()))
    }

    #[test]
    fn a_rewrite_that_changes_the_meaning_is_found() {
        let max_rows = MaxRows { tokens: 1, wanted: 1 };
        let passes = |f| [Pass { name: "test", about: "", run: Run::Rewrite(f) }];
        assert!(run(&graph(), &passes(validate), max_rows).is_ok());
        let e = run(&graph(), &passes(forgetful), max_rows).unwrap_err();
        assert_eq!(
            e.to_string(),
            "pass `test` changed the meaning of the graph: the output is another expression than before"
        );
    }
}
