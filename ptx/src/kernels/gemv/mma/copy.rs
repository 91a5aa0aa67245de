//! Asynchronous copies of a group of columns to shared memory.

use super::{GemvMma, ROW_SCALES, WARPS};
use crate::build::{B32, KernelBuilder, Ptr, Reg, SharedSpace, U32};
use crate::kernels::gemv::{MAX_TOKENS, TILE};

/// What all copies share.
pub(super) struct Copy {
    pub(super) gemv: GemvMma,
    pub(super) codes: Ptr<B32>,
    pub(super) high: Option<Ptr<B32>>,
    pub(super) scales: Ptr<B32>,
    pub(super) x: Ptr<B32>,
    pub(super) first_row: Reg<U32>,
    pub(super) last_row: Reg<U32>,
    /// Blocks of a row.
    pub(super) blocks: Reg<U32>,
    /// Groups of a row.
    pub(super) groups: Reg<U32>,
}

impl Copy {
    /// Begins to copy codes and scales of a group. Blocks beyond the end become zeros.
    pub(super) fn weights(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        let first_block = k.shl(group, 5);
        let lane = k.laneid();
        let halves = self.gemv.row_codes() / 512;
        let row_bytes = k.mul(self.blocks, 16 * halves);
        let block = k.add(first_block, lane);
        let read = k.select::<U32>(k.lt(block, self.blocks), 16, 0);
        // A warp copies a row of codes, a chunk per lane, and goes on with the row eight further: its place has the same remainder.
        let place = k.mad(k.xor(lane, k.warp()), 16, k.mul(k.warp(), self.gemv.row_codes()));
        let to = k.displace(stage, place);
        for pass in 0..self.gemv.rows() / WARPS {
            let row = self.row(k, k.add(k.warp(), WARPS * pass));
            let from = k.index_by(k.row(self.codes, row, row_bytes), block, 16);
            let to = to.offset((WARPS * pass * self.gemv.row_codes()) as i32);
            for half in 0..halves {
                let from = if half == 0 { from } else { k.index_by(from, self.blocks, 16) };
                k.cp_async_zfill(to.offset(512 * half as i32), from, read);
            }
        }
        if let Some(high) = self.high {
            self.high(k, high, stage, first_block);
        }
        k.if_(k.lt(k.warp(), self.gemv.rows() / 8), || {
            let (row, chunk) = (k.shr(k.tid(), 2), k.and(k.tid(), 3));
            let first = k.mad(chunk, 8, first_block);
            let read = k.select::<U32>(k.lt(first, self.blocks), 16, 0);
            let from = k.row(self.scales, self.row(k, row), k.shl(self.blocks, 1));
            let to = k.index_by(stage, row, ROW_SCALES).offset(self.gemv.scales_at() as i32);
            k.cp_async_zfill(k.index_by(to, scale_place(k, row, chunk), 16), k.index_by(from, first, 2), read);
        });
    }

    /// The same of the high bits: 16 chunks of two blocks per row, so a warp copies two rows.
    fn high(&self, k: &KernelBuilder, high: Ptr<B32>, stage: Ptr<B32, SharedSpace>, first_block: Reg<U32>) {
        let (row_bytes, row_high) = (k.shl(self.blocks, 3), self.gemv.row_high());
        let (row, chunk) = (k.shr(k.tid(), 4), k.and(k.tid(), 15));
        let block = k.mad(chunk, 2, first_block);
        let read = k.select::<U32>(k.lt(block, self.blocks), 16, 0);
        let place = k.mad(k.xor(chunk, k.and(row, 7)), 16, k.mul(row, row_high));
        let to = k.displace(stage, place).offset(self.gemv.high_at() as i32);
        for pass in 0..self.gemv.rows() / (2 * WARPS) {
            let from = k.row(high, self.row(k, k.add(row, 2 * WARPS * pass)), row_bytes);
            let to = to.offset((2 * WARPS * pass * row_high) as i32);
            k.cp_async_zfill(to, k.index_by(from, block, 8), read);
        }
    }

    /// Begins to copy the tiles of a group.
    pub(super) fn activations(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        let from = k.index_by(k.index_by(self.x, group, MAX_TOKENS * TILE), k.warp(), TILE);
        let to = k.index_by(stage, k.warp(), TILE).offset(self.gemv.activations_at() as i32);
        // A warp copies the tile of a token of each chunk: 32 pieces of each half of codes, and 32 of scales.
        let place = k.xor(k.laneid(), k.warp());
        for chunk in 0..self.gemv.chunks() {
            let from = match chunk {
                0 => from,
                _ => k.index_by(from, k.mul(self.groups, chunk), MAX_TOKENS * TILE),
            };
            for part in 0..3 {
                let to = to.offset((MAX_TOKENS * TILE * chunk) as i32 + 512 * part);
                k.cp_async_bypass(k.index_by(to, place, 16), k.index_by(from, k.laneid(), 16).offset(512 * part));
            }
        }
    }

    /// A row of the block; the last one of the matrix where there are fewer.
    pub(super) fn row(&self, k: &KernelBuilder, row: Reg<U32>) -> Reg<U32> {
        k.min(k.add(self.first_row, row), self.last_row)
    }
}

/// Where a chunk of the scales of a row is.
pub(super) fn scale_place(k: &KernelBuilder, row: Reg<U32>, chunk: Reg<U32>) -> Reg<U32> {
    k.xor(chunk, k.and(k.shr(row, 1), 3))
}
