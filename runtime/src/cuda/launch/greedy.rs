//! Greedy steps: the largest logit, and what makes it the next token on the device.

use brick_cuda::{Arg, Launch};
use brick_ptx::kernels::gemv::{Epilogue, Gemv};
use brick_ptx::kernels::{Format, activation, advance_angles, argmax, step};

use super::tensor::on_tensor_cores;
use super::{LaunchError, Launcher, Product, READ, UPDATE, WRITE, n};
use crate::cuda::plan::{Buf, Chunks, Extent, MAX_STOPS, NodeKind, RING, VectorId};

impl Launcher<'_> {
    /// The LM head of a greedy step: a launch per chunk, which keeps the largest logit of each row; or, on tensor cores, all logits and then the largest.
    pub(super) fn argmax(&mut self, p: &Product, chunks: Chunks) -> Result<Vec<Launch>, LaunchError> {
        let m = &self.plan.matrices[p.matrix.0];
        let (format, rows, columns) = (m.format, m.rows(), m.columns);
        let processors = self.device.about().processors;
        let [best, arrivals] = self.plan.argmax.map(|buf| Arg::Ptr(self.regions.buf(buf), UPDATE));
        let sampled = self.regions.buf(self.plan.step[1]);
        let sink =
            |first: usize| [best, arrivals, Arg::Ptr(sampled.plus(4 * first as u64), WRITE), n(rows), n(columns)];
        if let Some(source) = p.source {
            let (kernel, mut args) = self.streamed(p.matrix, source, chunks.size, Epilogue::ArgMax)?;
            args.extend(sink(0));
            args.extend(source.norm.map(|(_, eps)| Arg::F32(eps)));
            let dims = kernel.dims(rows, columns, processors)?;
            return Ok(vec![self.launch(&kernel.name(), |t| kernel.kernel(t), dims, args)?]);
        }
        if on_tensor_cores(self.plan, p, chunks) {
            // One pass over the weights for all rows is worth a launch that reads their logits.
            let mut out = self.tensor(p, chunks)?;
            let args = vec![Arg::Ptr(self.regions.view(p.y), READ), best, arrivals, Arg::Ptr(sampled, WRITE), n(rows)];
            out.push(self.launch("argmax", argmax::argmax, argmax::dims(chunks.rows(), rows)?, args)?);
            return Ok(out);
        }
        let gemv = Gemv::new(format, chunks.size, Epilogue::ArgMax)?;
        let dims = gemv.dims(rows, columns, 1, processors)?;
        let bytes = chunk_bytes(format, columns, chunks.size);
        let mut out = Vec::with_capacity(chunks.count);
        for chunk in 0..chunks.count {
            let mut args: Vec<Arg> = self.regions.weights.planes(p.matrix).collect();
            args.push(self.input(p.x, chunk, bytes));
            args.extend(sink(chunk * chunks.size));
            out.push(self.launch(&gemv.name(), |t| gemv.kernel(t), dims, args)?);
        }
        Ok(out)
    }

    /// The only table of angles, if there is one.
    pub(super) fn table(&self) -> Option<(VectorId, usize, f32, Buf)> {
        let mut tables = self.plan.nodes.iter().filter_map(|node| match node.kind {
            NodeKind::Angles { inv_freq, pairs, magnitude, dst } => Some((inv_freq, pairs, magnitude, dst)),
            _ => None,
        });
        let first = tables.next();
        first.filter(|_| tables.next().is_none())
    }

    /// The launches that make the angles of the first of several greedy steps.
    pub(in crate::cuda) fn first_angles(&mut self) -> Result<Vec<Launch>, LaunchError> {
        let plan = self.plan;
        let alone = Extent { greedy: false, ..self.extent };
        let greedy = std::mem::replace(&mut self.extent, alone);
        let tables = plan.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Angles { .. }));
        let launches = tables.map(|node| self.node(node)).collect::<Result<Vec<_>, _>>();
        self.extent = greedy;
        Ok(launches?.concat())
    }

    /// Moves a greedy step on.
    pub(super) fn advance(&mut self) -> Result<Launch, LaunchError> {
        let (steps, rows) = (self.steps(), self.extent.rows.rows());
        let [_, sampled, stops] = self.plan.step.map(|buf| self.regions.buf(buf));
        let at = |offset, access| Arg::Ptr(self.in_step(offset), access);
        let mut args = vec![
            Arg::Ptr(sampled, READ),
            Arg::Ptr(stops, READ),
            at(steps.tokens(), UPDATE),
            at(steps.positions(), UPDATE),
            at(steps.produced(), UPDATE),
            at(steps.limits(), UPDATE),
            Arg::Ptr(self.regions.buf(self.plan.ring), UPDATE),
            n(rows),
            n(MAX_STOPS),
            n(RING),
        ];
        let Some((inv_freq, pairs, magnitude, angles)) = self.table() else {
            return self.launch("advance", step::advance, step::dims(rows, RING)?, args);
        };
        args.extend([
            Arg::Ptr(self.regions.weights.vector(inv_freq).at(0), READ),
            Arg::Ptr(self.regions.buf(angles), WRITE),
            n(pairs),
            Arg::F32(magnitude),
        ]);
        let dims = advance_angles::dims(rows, RING, pairs)?;
        self.launch("advance_angles", advance_angles::advance_angles, dims, args)
    }
}

/// Bytes of a chunk of activations.
pub(super) fn chunk_bytes(format: Format, columns: usize, size: usize) -> usize {
    match format {
        Format::F16 => 4 * columns * size,
        Format::BF16 => 2 * columns * size,
        _ => activation::bytes(columns, size),
    }
}
