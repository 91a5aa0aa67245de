//! What an engine has to know of a graph: its vocabulary, and the shape of its KV cache.

use brick_graphs::Graph;
use bricks::Op;
use bricks::cpu::attention::{KvLayout, KvType};

use super::EngineError;
use crate::kv::KvShape;

/// Rows of the embedding table, which the logits have as columns.
pub(super) fn vocab(graph: &Graph) -> Result<usize, EngineError> {
    let embed = graph.bricks().find(|b| matches!(b.op, Op::Embed { .. }));
    let rows = embed.and_then(|b| b.weights.first()).map(|w| graph.weight(*w).shape.rows);
    let out = graph.value(graph.output()).ty.width();
    match (rows, out) {
        (Some(r), Some(o)) if r == o && r > 0 => Ok(r),
        (None, _) => Err(EngineError::Graph("it has no embedding brick".into())),
        (r, o) => Err(EngineError::Graph(format!(
            "the embedding has {} rows, the logits have {} columns",
            r.unwrap_or(0),
            o.unwrap_or(0)
        ))),
    }
}

/// The shape all KV writes of a graph agree on.
pub(super) fn kv_shape(graph: &Graph, kv_type: KvType) -> Result<KvShape, EngineError> {
    let mut shape: Option<KvShape> = None;
    for b in graph.bricks() {
        if let Op::KvWrite { n_kv_heads, head_dim } | Op::RopeKvWrite { n_kv_heads, head_dim, .. } = b.op {
            let layers = b.layer.unwrap_or(0) as usize + 1;
            let layout = KvLayout::new(kv_type, head_dim)
                .map_err(|e| EngineError::Graph(format!("brick {}: a KV cache in {kv_type}: {e}", b.name)))?;
            let s = shape.get_or_insert(KvShape { layers, n_kv_heads, layout });
            if s.n_kv_heads != n_kv_heads || s.layout.head_dim() != head_dim {
                return Err(EngineError::Graph(format!(
                    "brick {}: {n_kv_heads} KV heads of {head_dim}, other layers have {} of {}",
                    b.name,
                    s.n_kv_heads,
                    s.layout.head_dim()
                )));
            }
            s.layers = s.layers.max(layers);
        }
    }
    shape.ok_or_else(|| EngineError::Graph("no brick writes a KV cache".into()))
}
