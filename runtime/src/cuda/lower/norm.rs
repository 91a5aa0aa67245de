//! Sums and norms of the residual stream.

use brick_graphs::{Brick, BrickId, ValueId};
use bricks::{Op, Rows};

use super::{Lowering, refused};
use crate::cuda::plan::{Input, NodeKind, Source, View};
use crate::plan::LowerError;

impl Lowering<'_> {
    /// The sum of a brick's inputs: done already by the matrix that made one of them, or to be done here.
    pub(super) fn sum(&mut self, brick: &Brick) -> Result<View, LowerError> {
        if self.added[brick.id.index()] {
            let sum = self.f32_of[brick.outputs[0].index()].ok_or_else(|| refused(brick, "its sum is not there"))?;
            self.keep(sum.buffer);
            return Ok(sum);
        }
        let (a, b) = (self.input(brick, 0)?, self.input(brick, 1)?);
        let dst = self.output(brick, 0, Rows::All)?;
        if !(a.is_whole() && b.is_whole()) {
            return Err(refused(brick, "it adds parts of rows, which is not on the GPU yet"));
        }
        let what = if matches!(brick.op, Op::Add) { "" } else { ".add" };
        self.push(brick, what, "add".into(), Rows::All, NodeKind::Add { a, b, dst });
        self.keep(dst.buffer);
        Ok(dst)
    }

    /// Whether every reader of a value is a brick of quantised matrices only.
    pub(super) fn codes_only(&self, v: ValueId) -> bool {
        let value = self.graph.value(v);
        let quantised = |id: &BrickId| {
            let c = self.graph.brick(*id);
            let matrices: Vec<_> =
                c.weights.iter().map(|w| self.graph.weight(*w).shape).filter(|s| s.rows > 1).collect();
            !c.op.parts().is_empty() && !matrices.is_empty() && matrices.iter().all(|s| !s.dtype.is_float())
        };
        self.graph.output() != v && !value.consumers.is_empty() && value.consumers.iter().all(quantised)
    }

    pub(super) fn norm(
        &mut self,
        brick: &Brick,
        src: View,
        eps: f32,
        rows: Rows,
        port: usize,
    ) -> Result<(), LowerError> {
        let v = brick.outputs[port];
        let width = self.width(brick, port)?;
        if !src.is_whole() || src.width != width {
            return Err(refused(brick, "it normalises parts of rows, which is not on the GPU yet"));
        }
        let values = self.vector(brick, brick.weights[0])?;
        let gain = self.add_vector(self.graph.weight(brick.weights[0]).name.clone(), values);
        let gathered = (rows == Rows::Wanted).then(|| self.f32_buffer(brick, ".gathered", rows, width));
        let codes = self.codes_only(v) && width.is_multiple_of(32);
        let streamed = codes && self.streams(width);
        if streamed {
            self.norm_of[v.index()] = Some(Source { x: src, norm: Some((gain, eps)) });
        }
        let (dst, kernel) = if codes {
            let tiles = self.tiles(brick.name.clone(), rows, width);
            self.q8_of[v.index()] = Some(tiles);
            (Input::Q8(tiles), "rms_norm_q8")
        } else {
            (Input::F32(self.output(brick, port, rows)?), "rms_norm")
        };
        self.push(brick, "", kernel.into(), rows, NodeKind::Norm { src, gain, eps, gathered, streamed, dst });
        Ok(())
    }
}
