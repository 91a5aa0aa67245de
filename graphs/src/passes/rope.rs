//! Fusing rotary embedding with the write into the KV cache.

use std::collections::HashSet;

use bricks::{BrickKind, Op};

use super::rewrite::{Fusion, apply, joined_name};
use crate::error::GraphError;
use crate::graph::{Brick, BrickId, Graph};

/// Makes the rotation of queries, the rotation of keys and the write into the KV cache one brick. Rotated keys go straight
/// into the cache instead of through memory, and two barriers per layer disappear.
///
/// Both rotations must be the same one, and nobody but the cache may read the rotated keys. Accounted under
/// [`BrickKind::Rope`].
///
/// # Errors
/// None for a checked graph; the result is checked like any other.
pub fn fuse_rope_kv(graph: &Graph) -> Result<Graph, GraphError> {
    let mut taken: HashSet<BrickId> = HashSet::new();
    let mut fusions = Vec::new();
    for attention in graph.bricks() {
        if let Some(f) = candidate(graph, attention)
            && f.members.iter().all(|m| !taken.contains(m))
        {
            taken.extend(&f.members);
            fusions.push(f);
        }
    }
    apply(graph, &fusions)
}

/// Looks upwards from an attention brick: its queries and its cache say which rotations belong together.
fn candidate(graph: &Graph, attention: &Brick) -> Option<Fusion> {
    let (Op::Attention(_), [q, kv]) = (&attention.op, attention.inputs.as_slice()) else { return None };
    let producer = |v| graph.brick(graph.value(v).producer);
    let (rope_q, write) = (producer(*q), producer(*kv));
    let (Op::KvWrite { n_kv_heads, head_dim }, [k, v]) = (&write.op, write.inputs.as_slice()) else { return None };
    let rope_k = producer(*k);
    let (Op::Rope { n_heads, head_dim: q_dim, spec }, Op::Rope { n_heads: k_heads, head_dim: k_dim, spec: k_spec }) =
        (&rope_q.op, &rope_k.op)
    else {
        return None;
    };
    let same_rotation = spec == k_spec && q_dim == head_dim && k_dim == head_dim && k_heads == n_kv_heads;
    let keys_are_private = graph.value(*k).consumers == [write.id] && k != v && graph.output() != *k;
    let same_layer = rope_q.layer == write.layer && rope_k.layer == write.layer;
    if !(same_rotation && keys_are_private && same_layer && rope_q.id != rope_k.id) {
        return None;
    }
    let mut members = vec![rope_q.id, rope_k.id, write.id];
    members.sort_unstable();
    Some(Fusion {
        members,
        name: joined_name(&[&joined_name(&[&rope_q.name, &rope_k.name]), &write.name]),
        kind: BrickKind::Rope,
        layer: write.layer,
        op: Op::RopeKvWrite { n_heads: *n_heads, n_kv_heads: *n_kv_heads, head_dim: *head_dim, spec: spec.clone() },
        inputs: vec![*rope_q.inputs.first()?, *rope_k.inputs.first()?, *v],
        weights: Vec::new(),
        outputs: vec![*q, *kv],
    })
}
