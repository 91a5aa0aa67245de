//! What a graph *means*: the expression that every value stands for, in elementary operations.
//!
//! Two values mean the same when they are the same expression of the batch's tokens and the named weights. Fused
//! operations are expanded into what they replace, so a graph means the same before and after a fusion, and a pass that
//! breaks this is found without running a kernel (translation validation: the result is checked, not the pass).
//!
//! Expressions are interned: equal expressions get equal [`Term`]s from one [`Terms`] table, exactly, without hashing
//! anything away.

use std::collections::{BTreeMap, HashMap};

use bricks::{Op, Rows};

use crate::graph::{Brick, Graph, ValueId};

/// An interned expression. Comparable only within the [`Terms`] it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(usize);

/// The table of expressions.
#[derive(Debug, Default)]
pub struct Terms {
    known: HashMap<(String, Vec<Term>), Term>,
}

/// What a whole forward call computes and leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The output.
    pub output: Term,
    /// The KV cache of each layer after the call.
    pub kv: BTreeMap<u32, Term>,
}

impl Meaning {
    /// The first thing that differs, in words; `None` when nothing does.
    pub fn difference(&self, other: &Meaning) -> Option<String> {
        if self.output != other.output {
            return Some("the output".into());
        }
        let layers = self.kv.keys().chain(other.kv.keys());
        let mut differing = layers.filter(|l| self.kv.get(l) != other.kv.get(l));
        differing.next().map(|l| format!("the KV cache of layer {l}"))
    }
}

impl Terms {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// The expression of every value of a graph, by [`ValueId`].
    pub fn values(&mut self, graph: &Graph) -> Vec<Term> {
        let mut terms: Vec<Term> = Vec::with_capacity(graph.values().len());
        for b in graph.bricks() {
            let inputs: Vec<Term> = b.inputs.iter().map(|v| terms[v.index()]).collect();
            // Values are ordered by producer, then port: appending keeps the index equal to the id.
            terms.extend(self.outputs(graph, b, &inputs));
        }
        terms
    }

    /// What a forward call computes and leaves behind.
    pub fn meaning(&mut self, graph: &Graph) -> Meaning {
        let terms = self.values(graph);
        let term = |v: &ValueId| terms[v.index()];
        let kv = graph.bricks().filter_map(|b| {
            let state = match b.op {
                Op::KvWrite { .. } => b.outputs.first(),
                Op::RopeKvWrite { .. } => b.outputs.get(1),
                _ => None,
            };
            Some((b.layer?, term(state?)))
        });
        Meaning { output: term(&graph.output()), kv: kv.collect() }
    }

    fn intern(&mut self, what: String, of: &[Term]) -> Term {
        let next = Term(self.known.len());
        *self.known.entry((what, of.to_vec())).or_insert(next)
    }

    /// One term per output port.
    fn outputs(&mut self, graph: &Graph, b: &Brick, x: &[Term]) -> Vec<Term> {
        let weight = |i: usize| b.weights.get(i).map_or("", |w| graph.weight(*w).name.as_str());
        match &b.op {
            Op::Linear { .. } | Op::GatedLinear { .. } => {
                let rows = if let Op::Linear { rows, .. } = &b.op { *rows } else { Rows::All };
                let mut next = 0;
                let mut terms = Vec::with_capacity(b.op.parts().len());
                for p in b.op.parts() {
                    let matrix = weight(next);
                    let bias = if p.bias { weight(next + 1) } else { "" };
                    next += 1 + usize::from(p.bias);
                    terms.push(self.intern(format!("linear {rows:?} {matrix:?} {bias:?}"), x));
                }
                match b.op {
                    Op::GatedLinear { act, .. } => {
                        vec![self.intern(format!("{:?}", Op::GatedActivation { act }), &terms)]
                    }
                    _ => terms,
                }
            }
            Op::AddRmsNorm { eps } => {
                let sum = self.intern("add".into(), x);
                let norm = Op::RmsNorm { eps: *eps, rows: Rows::All };
                vec![sum, self.intern(format!("{norm:?} {:?}", weight(0)), &[sum])]
            }
            Op::RopeKvWrite { n_heads, n_kv_heads, head_dim, spec } => {
                let rope = |n_heads: usize| Op::Rope { n_heads, head_dim: *head_dim, spec: spec.clone() };
                let q = self.intern(format!("{:?}", rope(*n_heads)), &x[..1]);
                let k = self.intern(format!("{:?}", rope(*n_kv_heads)), &x[1..2]);
                let write = Op::KvWrite { n_kv_heads: *n_kv_heads, head_dim: *head_dim };
                vec![q, self.intern(format!("{write:?} {:?}", b.layer), &[k, x[2]])]
            }
            Op::Add => vec![self.intern("add".into(), x)],
            Op::KvWrite { .. } => vec![self.intern(format!("{:?} {:?}", b.op, b.layer), x)],
            Op::Input
            | Op::Embed { .. }
            | Op::RmsNorm { .. }
            | Op::Rope { .. }
            | Op::Attention(_)
            | Op::GatedActivation { .. } => {
                let suffix = if b.weights.is_empty() { String::new() } else { format!(" {:?}", weight(0)) };
                vec![self.intern(format!("{:?}{suffix}", b.op), x)]
            }
        }
    }
}
