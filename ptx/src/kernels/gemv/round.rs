//! Results that the next matrix is multiplied with: rounded to tiles in the launch that computes them.
//!
//! The outputs of a block of 32 come from several CTAs. Each stores its own, f32, and counts itself in at the block's counter; the one
//! that arrives last reads the whole block and rounds it, so codes do not depend on the schedule. It is one warp that does so; all
//! others have left by then, and none waits.

use super::epilogue::Owner;
use super::reduce::Reduced;
use super::{Epilogue, Gemv, PLAIN, Shape, WARPS};
use crate::build::{B32, F32, KernelBuilder, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Access, Order, Scope};
use crate::kernels::arrive::written;
use crate::kernels::elementwise::Activation;
use crate::kernels::q8::{self, Tiles};

/// Outputs of a block.
pub(super) const BLOCK: u32 = 32;
/// Lanes of a block, four outputs each.
const LANES: u32 = 8;

/// Parameters of an epilogue that rounds.
pub(super) struct Round {
    epilogue: Epilogue,
    /// Tokens of a chunk.
    tokens: u32,
    y: Ptr<F32>,
    tiles: Ptr<B32>,
    arrivals: Ptr<U32>,
    /// Of [`Epilogue::SumQ8`] only.
    sum: Option<Sum>,
}

/// Parameters of a sum whose norm is put off.
struct Sum {
    residual: Ptr<F32>,
    gain: Ptr<F32>,
    squares: Ptr<F32>,
}

impl Round {
    pub(super) fn params(k: &KernelBuilder, tokens: u32, epilogue: Epilogue) -> Self {
        let read = |name| k.param_ptr(name, Access::Read, 16);
        let sums = epilogue == Epilogue::SumQ8;
        let residual = sums.then(|| read("residual"));
        let y = k.param_ptr("y", Access::ReadWrite, 16);
        let gain = sums.then(|| read("gain"));
        let tiles = k.param_ptr("tiles", Access::Write, 16);
        let squares = sums.then(|| k.param_ptr("squares", Access::Write, 4));
        let arrivals = k.param_ptr("arrivals", Access::ReadWrite, 4);
        let sum = match (residual, gain, squares) {
            (Some(residual), Some(gain), Some(squares)) => Some(Sum { residual, gain, squares }),
            _ => None,
        };
        Self { epilogue, tokens, y, tiles, arrivals, sum }
    }

    /// Outputs of a token.
    fn outputs(&self, k: &KernelBuilder, shape: &Shape) -> Reg<U32> {
        k.shr(shape.rows, self.epilogue.rows_per_output().trailing_zeros())
    }

    /// Takes the sums of a warp.
    pub(super) fn of_warp(&self, k: &KernelBuilder, gemv: Gemv, first: Reg<U32>, shape: &Shape, reduced: &Reduced) {
        let owner = Owner::of(k, gemv, first, shape, reduced);
        let rows = WARPS * gemv.rows_per_warp();
        if !gemv.narrow || self.epilogue.rows_per_output() == 1 {
            return self.of_lane(k, &owner, shape, reduced.sum, reduced.copies, rows);
        }
        k.comment("gate and up are of different warps");
        let of_warps: Ptr<F32, SharedSpace> = k.shared("of_warps", WARPS);
        k.if_(k.eq(k.laneid(), 0), || k.st(k.index(of_warps, k.warp()), reduced.sum));
        k.barrier();
        // A warp of up reads itself, and stores nothing.
        let up = k.ld(k.index(of_warps, k.or(k.warp(), 1)));
        self.store(k, &owner, shape, reduced.sum, Some(up));
        self.arrive(k, shape, rows);
    }

    /// Takes a sum of each lane of a CTA of `rows` rows. The lane with the next row is `next_row` lanes away.
    pub(super) fn of_lane(
        &self,
        k: &KernelBuilder,
        owner: &Owner,
        shape: &Shape,
        sum: Reg<F32>,
        next_row: u32,
        rows: u32,
    ) {
        let up = (self.epilogue.rows_per_output() == 2).then(|| k.shfl_bfly(sum, next_row));
        self.store(k, owner, shape, sum, up);
        self.arrive(k, shape, rows);
    }

    /// Stores the output of a row.
    fn store(&self, k: &KernelBuilder, owner: &Owner, shape: &Shape, sum: Reg<F32>, up: Option<Reg<F32>>) {
        k.comment("store");
        let &Owner { row, token, owns } = owner;
        let token = k.mad(k.ctaid_y(), self.tokens, token);
        let line = k.shl(self.outputs(k, shape), 2);
        if let Some(up) = up {
            k.if_(k.and(owns, k.eq(k.and(row, 1), 0)), || {
                let y = k.index(k.row(self.y, token, line), k.shr(row, 1));
                k.st(y, k.mul(Activation::Silu.apply(k, sum), up));
            });
        } else if let Some(Sum { residual, .. }) = self.sum {
            k.if_(owns, || {
                let of_token = |ptr: Ptr<F32>| k.index(k.row(ptr, token, line), row);
                let y = k.var(sum);
                k.if_(k.ne(k.address_of(residual), 0_u64), || k.add_into(y, k.ld_with(of_token(residual), PLAIN)));
                k.st(of_token(self.y), y);
            });
        }
    }

    /// Counts a CTA of `rows` rows in at its block, and rounds the block if it is the last.
    fn arrive(&self, k: &KernelBuilder, shape: &Shape, rows: u32) {
        let ctas = BLOCK * self.epilogue.rows_per_output() / rows;
        let blocks = k.shr(self.outputs(k, shape), BLOCK.trailing_zeros());
        let block = k.div(k.ctaid(), ctas);
        k.barrier();
        k.comment("the last of a block's CTAs rounds it: one warp");
        k.return_if(k.ne(k.warp(), 0));
        if ctas > 1 {
            let before = k.var(0);
            k.if_(k.eq(k.laneid(), 0), || {
                let counter = k.index(self.arrivals, k.mad(k.ctaid_y(), blocks, block));
                // The barrier has ordered what the other warps stored before it.
                k.set(before, k.atom_inc(counter, ctas - 1, Order::AcquireRelease(Scope::Gpu)));
            });
            k.warp_barrier();
            k.return_if(k.ne(k.shfl_idx(before, 0), ctas - 1));
        }
        self.round(k, shape, block, blocks);
    }

    /// Rounds block number `block`, of all tokens of the chunk, and what is beyond the last.
    fn round(&self, k: &KernelBuilder, shape: &Shape, block: Reg<U32>, blocks: Reg<U32>) {
        let outputs = self.outputs(k, shape);
        let tiles = Tiles::of_chunk(k, self.tiles, outputs, k.value(self.tokens), k.ctaid_y());
        let column = k.mad(block, BLOCK, k.shl(k.and(k.laneid(), LANES - 1), 2));
        for first in (0..self.tokens).step_by((32 / LANES) as usize) {
            let token = k.add(k.div(k.laneid(), LANES), first);
            let inside = k.lt(token, self.tokens);
            let line = k.mad(k.ctaid_y(), self.tokens, token);
            let y: [_; 4] = std::array::from_fn(|_| k.var(0.0));
            k.if_(inside, || {
                let at = k.index(k.row(self.y, line, k.shl(outputs, 2)), column);
                y.iter().zip(k.ld_vec::<_, _, 4>(at, written())).for_each(|(y, value)| k.set(*y, value));
            });
            let mut y = y.map(Var::get);
            if let Some(Sum { gain, squares, .. }) = self.sum {
                let sum = q8::squares(k, y);
                k.if_(k.and(inside, k.eq(k.and(k.laneid(), LANES - 1), 0)), || {
                    k.st(k.index(k.row(squares, line, k.shl(blocks, 2)), block), sum);
                });
                let gain = k.ld_vec::<_, _, 4>(k.index(gain, column), PLAIN);
                y = std::array::from_fn(|i| k.mul(y[i], gain[i]));
            }
            let coded = q8::encode(k, y);
            k.if_(inside, || tiles.store(k, token, column, &coded));
        }
        k.comment("blocks of zeros to the end of the last group");
        k.if_(k.eq(k.add(block, 1), blocks), || {
            let (group, from) = (k.shr(block, 5), k.add(k.and(block, 31), 1));
            k.for_rolled(0, self.tokens, 1, |token| tiles.clear(k, token, group, from));
        });
    }
}
