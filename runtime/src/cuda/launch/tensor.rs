//! Products of eight rows and more on tensor cores.

use brick_cuda::{Arg, Launch, Ptr};
use brick_ptx::kernels::Format;
use brick_ptx::kernels::gemv::mma::{FORMATS, GemvMma, TOKENS};

use super::{LaunchError, Launcher, Product, READ, WRITE, n};
use crate::cuda::plan::{CHUNK, Chunks, GpuPlan, MatrixId, View};

impl Launcher<'_> {
    /// A product, or two of matrices on one input: for each matrix a launch, or several where chunks are not a multiple of what a block takes.
    pub(super) fn tensor(&mut self, p: &Product, chunks: Chunks) -> Result<Vec<Launch>, LaunchError> {
        let mut out = self.tensor_of(p, p.matrix, 0, chunks.count)?;
        if let Some(second) = p.second {
            let first_row = self.plan.matrices[p.matrix.0].rows();
            out.extend(self.tensor_of(p, second, first_row, chunks.count)?);
        }
        Ok(out)
    }

    /// A matrix whose rows are behind `first_row` others in the output.
    fn tensor_of(
        &mut self,
        p: &Product,
        matrix: MatrixId,
        first_row: usize,
        chunks: usize,
    ) -> Result<Vec<Launch>, LaunchError> {
        let m = &self.plan.matrices[matrix.0];
        let (format, rows, columns) = (m.format, m.rows(), m.columns);
        let mut out = Vec::new();
        let mut done = 0;
        while done < chunks {
            let kernel = self.widest(format, p.gated, rows, chunks - done)?;
            let of_block = kernel.tokens() / CHUNK;
            let taken = (chunks - done) / of_block * of_block;
            let first = done * CHUNK;
            let mut args: Vec<Arg> = self.regions.weights.planes(matrix).collect();
            args.push(self.input(p.x, done, super::greedy::chunk_bytes(format, columns, CHUNK)));
            if !p.gated {
                args.extend([moved(p.bias, 4 * first_row), moved(p.residual, 4 * (first * p.y.stride + first_row))]);
            }
            args.extend([Arg::Ptr(self.row_of(p.y, first).plus(4 * first_row as u64), WRITE), n(rows), n(columns)]);
            if !p.gated {
                args.push(n(p.y.stride));
            }
            let dims = kernel.dims(rows, columns, taken)?;
            out.push(self.launch(&kernel.name(), |t| kernel.kernel(t), dims, args)?);
            done += taken;
        }
        Ok(out)
    }

    fn row_of(&self, view: View, row: usize) -> Ptr {
        self.regions.view(view).plus(4 * (row * view.stride) as u64)
    }

    /// The kernel that takes most chunks at a time, of those that have the shared memory, and blocks for all multiprocessors: weights that are read
    /// for more rows at a time are not worth idle ones. Where eight rows at a time leave half of them idle, blocks are smaller.
    fn widest(&self, format: Format, gated: bool, rows: usize, chunks: usize) -> Result<GemvMma, LaunchError> {
        let about = self.device.about();
        let blocks = |kernel: &GemvMma| rows.div_ceil(kernel.rows() as usize) * (chunks * CHUNK / kernel.tokens());
        let mut fitting = TOKENS.iter().rev().filter_map(|&tokens| {
            let kernel = GemvMma::new(format, tokens, gated)?;
            let enough = blocks(&kernel) >= about.processors as usize && kernel.shared() <= about.shared;
            (tokens == CHUNK || (tokens <= chunks * CHUNK && enough)).then_some(kernel)
        });
        let kernel = fitting.next().ok_or_else(|| LaunchError::Kernel {
            kernel: "gemv_mma".into(),
            reason: format!("there is none for {}", format.name()),
        })?;
        Ok(if 2 * blocks(&kernel) > about.processors as usize { kernel } else { kernel.narrow() })
    }
}

/// Whether tensor cores take a product: whole chunks of rows, and weights that there are kernels for. Two matrices on one input are two launches of them, no
/// slower than one of the kernel for both.
pub(super) fn on_tensor_cores(plan: &GpuPlan, p: &Product, chunks: Chunks) -> bool {
    let taken = |matrix: MatrixId| {
        let m = &plan.matrices[matrix.0];
        FORMATS.contains(&m.format) && m.columns.is_multiple_of(256)
    };
    chunks.size == CHUNK && taken(p.matrix) && p.second.is_none_or(taken)
}

/// An argument so many bytes further, if it is one.
fn moved(arg: Arg, bytes: usize) -> Arg {
    match arg {
        Arg::Ptr(ptr, _) => Arg::Ptr(ptr.plus(bytes as u64), READ),
        other => other,
    }
}
