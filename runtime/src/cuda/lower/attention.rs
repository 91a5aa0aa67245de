//! Attention, and what is before and behind it.

use brick_graphs::Brick;
use brick_ptx::kernels::rope_kv;
use bricks::{AttentionSpec, RopeSpec, RopeStyle, Rows};

use super::{Heads, Lowering, refused};
use crate::cuda::plan::{FusedAttention, NodeKind, View};
use crate::plan::LowerError;

/// Most query heads per KV head of the kernel that does everything.
const FUSED_GROUP: usize = 8;

impl Lowering<'_> {
    pub(super) fn attention(&mut self, brick: &Brick, spec: &AttentionSpec) -> Result<(), LowerError> {
        let layer = brick.layer.unwrap_or(0) as usize;
        let q = self.input(brick, 0)?;
        let Heads { query, kv, dim, padded, .. } = self.heads;
        let dst = self.f32_buffer(brick, "", Rows::All, query * padded);
        let fused = if dim == padded && query / kv <= FUSED_GROUP { self.fused(q) } else { None };
        let kernel = format!("attention_f16_d{padded}");
        self.push(brick, "", kernel, Rows::All, NodeKind::Attention { layer, spec: spec.clone(), q, dst, fused });
        let out = if dim == padded { dst } else { self.compact(brick, dst) };
        self.f32_of[brick.outputs[0].index()] = Some(out);
        Ok(())
    }

    /// What the kernel that does everything reads, if the rotation that made the queries is the node before.
    fn fused(&mut self, q: View) -> Option<FusedAttention> {
        let (node, _) = self.nodes.last_mut()?;
        let NodeKind::RopeKv { qkv, q: rotated, angles, pairs, style, fused, .. } = &mut node.kind else { return None };
        if *rotated != q {
            return None;
        }
        *fused = true;
        let (qkv, angles, pairs, style) = (*qkv, *angles, *pairs, *style);
        self.keep(qkv.buffer);
        Some(FusedAttention { qkv, angles, pairs, style })
    }

    pub(super) fn rope_kv(&mut self, brick: &Brick, spec: &RopeSpec) -> Result<(), LowerError> {
        let views = [self.input(brick, 0)?, self.input(brick, 1)?, self.input(brick, 2)?];
        let Heads { query, kv, padded, .. } = self.heads;
        let whole = (query + 2 * kv) * padded;
        let [q, k, v] = views;
        let in_one = views.iter().all(|x| x.buffer == q.buffer && x.stride == whole)
            && (q.column, k.column, v.column) == (0, query * padded, (query + kv) * padded);
        if !in_one {
            let reason =
                "queries, keys and values that something else has changed are not on the GPU yet; use --device cpu";
            return Err(refused(brick, reason));
        }
        let angles = self.angles.iter().find(|(s, _)| s == spec).map(|(_, buf)| *buf);
        let angles = angles.ok_or_else(|| refused(brick, "its angles are not there"))?;
        let q = self.f32_buffer(brick, "", Rows::All, query * padded);
        self.f32_of[brick.outputs[0].index()] = Some(q);
        let style = match spec.style {
            RopeStyle::Interleaved => rope_kv::RopeStyle::Interleaved,
            RopeStyle::SplitHalves => rope_kv::RopeStyle::SplitHalves,
        };
        let kind = NodeKind::RopeKv {
            layer: brick.layer.unwrap_or(0) as usize,
            qkv: View { column: 0, width: whole, ..views[0] },
            q,
            angles,
            pairs: spec.dims / 2,
            style,
            fused: false,
        };
        self.push(brick, "", "rope_kv".into(), Rows::All, kind);
        Ok(())
    }

    fn compact(&mut self, brick: &Brick, src: View) -> View {
        let Heads { query, dim, padded, .. } = self.heads;
        let dst = self.f32_buffer(brick, ".compact", Rows::All, query * dim);
        self.keep(src.buffer);
        let kind = NodeKind::Compact { src, dst, heads: query, dims: (padded, dim) };
        self.push(brick, ".compact", "compact_heads".into(), Rows::All, kind);
        dst
    }
}
