//! Results that the next matrix is multiplied with: rounded by the CTA that computes them, which owns whole blocks.
//!
//! The 32 outputs of a block are those of the 64 rows that a CTA takes together. Every warp leaves its own in shared memory, besides
//! `y`; behind a barrier, the first warp rounds them while the others begin with the next rows. There are two such blocks of
//! shared memory in turn, so that the one barrier also says that the block before last was read.

use super::super::epilogue::Owner;
use super::super::reduce::Reduced;
use super::super::{Gemv, Shape};
use super::WARPS;
use crate::build::{B32, F32, KernelBuilder, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::Access;
use crate::kernels::elementwise::Activation;
use crate::kernels::q8;

/// Outputs of a block.
const BLOCK: u32 = 32;
/// Rows of a block: gate and up in turn.
pub(in super::super) const ROWS: u32 = 2 * BLOCK;
/// Consecutive rows that a warp takes of a block.
pub(super) const WARP_ROWS: u32 = ROWS / WARPS;
/// Values from a token's outputs to the next: four more than there are, so that two tokens are in different banks.
const STRIDE: u32 = BLOCK + 4;

/// The first row of a warp, of those that its block takes from a row of the first warp on.
pub(super) fn of_warp(k: &KernelBuilder, first: Reg<U32>) -> Reg<U32> {
    k.mad(k.warp(), WARP_ROWS, first)
}

/// Parameters, and the outputs of a block.
pub(super) struct Blocks {
    tokens: u32,
    y: Ptr<F32>,
    tiles: Ptr<B32>,
    /// `[2][T][STRIDE]`.
    outputs: Ptr<F32, SharedSpace>,
}

impl Blocks {
    pub(super) fn params(k: &KernelBuilder, tokens: u32) -> Self {
        let y = k.param_ptr("y", Access::Write, 4);
        let tiles = k.param_ptr("tiles", Access::Write, 16);
        Self { tokens, y, tiles, outputs: k.shared("outputs", 2 * tokens * STRIDE) }
    }

    /// Takes the sums of a warp, where the first warp of the block has the rows from `first` on; with those of its last rows of a block, all warps of the CTA come to a barrier. `turn` is 0 at first.
    pub(super) fn take(
        &self,
        k: &KernelBuilder,
        gemv: Gemv,
        first: Reg<U32>,
        shape: &Shape,
        reduced: &Reduced,
        turn: Var<U32>,
    ) {
        k.comment("store");
        let owner = Owner::of(k, gemv, of_warp(k, first), shape);
        let up = k.shfl_bfly(reduced.sum, reduced.copies);
        let outputs = k.index(self.outputs, turn);
        k.if_(k.and(owner.owns, k.eq(k.and(owner.row, 1), 0)), || {
            let output = k.shr(owner.row, 1);
            let value = k.mul(Activation::Silu.apply(k, reduced.sum), up);
            k.st(k.index(k.row(self.y, owner.token, k.shl(shape.rows, 1)), output), value);
            let at = k.mad(owner.token, STRIDE, k.and(output, BLOCK - 1));
            k.st(k.index(outputs, at), value);
        });
        k.if_(k.eq(k.and(first, WARP_ROWS - 1), WARP_ROWS - gemv.rows_per_warp()), || {
            k.barrier();
            k.if_(k.eq(k.warp(), 0), || self.round(k, k.div(first, ROWS), shape, outputs));
            k.set(turn, k.xor(turn, self.tokens * STRIDE));
        });
    }

    /// Rounds block number `block` of all tokens, and what is beyond the last. All lanes of a warp take part.
    fn round(&self, k: &KernelBuilder, block: Reg<U32>, shape: &Shape, outputs: Ptr<F32, SharedSpace>) {
        let tiles = q8::Tiles { start: self.tiles, tokens: k.value(self.tokens) };
        // Eight lanes have a token; those beyond the last have the same ones again.
        let (token, place) = (k.and(k.shr(k.laneid(), 3), self.tokens - 1), k.shl(k.and(k.laneid(), 7), 2));
        let coded = q8::encode(k, k.ld4(k.index(outputs, k.mad(token, STRIDE, place))));
        k.if_(k.lt(k.laneid(), 8 * self.tokens), || {
            tiles.store(k, token, k.mad(block, BLOCK, place), &coded);
        });
        k.comment("blocks of zeros to the end of the last group");
        k.if_(k.eq(k.mul(k.add(block, 1), ROWS), shape.rows), || {
            let (group, from) = (k.shr(block, 5), k.add(k.and(block, 31), 1));
            for token in 0..self.tokens {
                tiles.clear(k, k.value(token), group, from);
            }
        });
    }
}
