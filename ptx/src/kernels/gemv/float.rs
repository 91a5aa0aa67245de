//! Rows of F16 and BF16 times activations: a lane takes 8 columns of every 256.

use super::weights::Moving;
use super::{Bounded, Gemv, PLAIN, Shape, steps};
use crate::build::{B32, Bf16x2, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, U32, Var};
use crate::ir::Access;
use crate::kernels::format::Format;

/// Columns of a lane: 16 bytes of weights.
const COLUMNS: u32 = 8;

/// Lanes' columns in a row.
fn units(k: &KernelBuilder, shape: &Shape) -> Reg<U32> {
    k.shr(shape.columns, COLUMNS.trailing_zeros())
}

pub(super) struct Float {
    gemv: Gemv,
    codes: Ptr<B32>,
    x: Ptr<B32>,
}

impl Float {
    pub(super) fn params(k: &KernelBuilder, gemv: Gemv) -> Self {
        let codes = k.param_ptr("codes", Access::Read, 16);
        Self { gemv, codes, x: k.param_ptr("x", Access::Read, 16) }
    }

    pub(super) fn weights(&self) -> Ptr<B32> {
        self.codes
    }

    /// Bytes of a value of the activations.
    fn x_bytes(&self) -> u32 {
        if self.gemv.format == Format::BF16 { 2 } else { 4 }
    }

    /// The same weights, and the activations of the launch's chunk.
    pub(super) fn of_chunk(self, k: &KernelBuilder, shape: &Shape) -> Self {
        let first = k.mul(k.ctaid_y(), self.gemv.tokens);
        Self { x: k.row(self.x, first, k.mul(units(k, shape), COLUMNS * self.x_bytes())), ..self }
    }

    pub(super) fn multiply(&self, k: &KernelBuilder, rows: &[Reg<U32>], shape: &Shape, acc: &[Var<F32>]) {
        let units = units(k, shape);
        let at = |ptr: Ptr<B32>, row: Reg<U32>, bytes: u32| k.row(ptr, row, k.mul(units, COLUMNS * bytes));
        let rows: Vec<Ptr<B32>> = rows.iter().map(|&row| at(self.codes, row, 2)).collect();
        let x: Vec<Ptr<B32>> = (0..self.gemv.tokens).map(|t| at(self.x, k.value(t), self.x_bytes())).collect();
        let chunks = self.gemv.chunks();
        let mut moving = Moving::default();
        let mut start = |ptr: &Ptr<B32>, bytes: u32| {
            let ptr = k.index_by(*ptr, k.laneid(), COLUMNS * bytes);
            moving.ptr(k, ptr, u64::from(256 * bytes))
        };
        let rows_at: Vec<_> = rows.iter().map(|row| start(row, 2)).collect();
        let x_at: Vec<_> = x.iter().map(|x| start(x, self.x_bytes())).collect();
        let load = |at: Ptr<B32>| k.ld_vec::<_, _, 4>(at, LoadOptions::STREAM);
        let step = || {
            let chunks = 0..chunks as i32;
            let raw: Vec<Vec<_>> =
                chunks.clone().map(|c| rows_at.iter().map(|row| load(row.offset(512 * c))).collect()).collect();
            for (c, raw) in chunks.zip(raw) {
                let x: Vec<_> = x_at.iter().map(|x| x.offset(256 * self.x_bytes() as i32 * c)).collect();
                self.chunk(k, raw, &x, None, acc);
            }
            moving.step(k, self.gemv.chunks());
        };
        let last = |first: Reg<U32>, chunks: u32| {
            let at: Vec<_> = (0..chunks).map(|c| Bounded::new(k, k.add(first, 32 * c), units)).collect();
            let raw: Vec<Vec<_>> =
                at.iter().map(|at| rows.iter().map(|row| load(k.index_by(*row, at.index, 16))).collect()).collect();
            for (at, raw) in at.into_iter().zip(raw) {
                let x: Vec<_> = x.iter().map(|x| k.index_by(*x, at.index, COLUMNS * self.x_bytes())).collect();
                self.chunk(k, raw, &x, Some(at.inside), acc);
            }
        };
        steps(k, units, chunks, step, last);
    }

    fn chunk(
        &self,
        k: &KernelBuilder,
        raw: Vec<[Reg<B32>; 4]>,
        x: &[Ptr<B32>],
        inside: Option<Reg<Pred>>,
        acc: &[Var<F32>],
    ) {
        let w: Vec<[Reg<F32>; 8]> = raw.into_iter().map(|raw| self.values(k, raw)).collect();
        for (x, acc) in x.iter().zip(acc.chunks(w.len())) {
            let x = self.activations(k, *x);
            for (w, acc) in w.iter().zip(acc) {
                let total = w.iter().zip(x).fold(acc.get(), |sum, (&w, x)| k.fma(w, x, sum));
                match inside {
                    None => k.set(*acc, total),
                    Some(inside) => k.set(*acc, k.select(inside, total, *acc)),
                }
            }
        }
    }

    fn activations(&self, k: &KernelBuilder, at: Ptr<B32>) -> [Reg<F32>; 8] {
        if self.gemv.format == Format::BF16 {
            return self.values(k, k.ld_vec(at, PLAIN));
        }
        let [low, high] = [0, 4].map(|i| k.ld_vec::<F32, _, 4>(at.cast().at(i), PLAIN));
        std::array::from_fn(|i| if i < 4 { low[i] } else { high[i - 4] })
    }

    fn values(&self, k: &KernelBuilder, raw: [Reg<B32>; 4]) -> [Reg<F32>; 8] {
        let pairs = raw.map(|pair| match self.gemv.format {
            Format::BF16 => k.bf16x2_to_f32(pair.as_ty::<Bf16x2>()),
            _ => k.f16x2_to_f32(pair.as_ty()),
        });
        std::array::from_fn(|i| pairs[i / 2][i % 2])
    }
}
