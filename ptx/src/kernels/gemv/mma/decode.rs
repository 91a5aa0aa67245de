//! Scales of a group, decoded: what eight warps would do four times over is done once.

use super::copy::{Copy, scale_place};
use super::{GemvMma, ROW_SCALES, WARPS};
use crate::build::{B32, F16, F16x2, F32, KernelBuilder, LoadOptions, Ptr, Reg, SharedSpace, U32, Var};
use crate::kernels::format::Format;
use crate::kernels::gemv::weights::MIN_UNIT;

/// Bytes of shared memory for scales of super-blocks.
pub(super) fn supers_bytes(format: Format) -> u32 {
    if format == Format::Q6_K { 2 * SUPERS * STRIDE } else { 0 }
}

/// Decodes the scales of every row and block of a group: pairs of words, `[32 blocks][rows]`.
///
/// Of Q4_K, f32 scale and f32 minimum; of Q6_K, the f32 scale of the super-block, and the 8-bit scales of the halves in the low bytes.
pub(super) struct Decode {
    gemv: GemvMma,
    to: Ptr<F32, SharedSpace>,
    supers: Option<Supers>,
}

/// Super-blocks of a row that are loaded together: a sector of memory, four groups.
const SUPERS: u32 = 16;
/// Values from a super-block's scales to the next in shared memory: so that 16 of them, of a row and the next, are in different banks.
const STRIDE: u32 = 34;

/// Scales of super-blocks, which are too narrow for asynchronous copies: threads hold the next ones of all rows, and put them to shared memory when
/// their first group comes.
struct Supers {
    plane: Ptr<F16>,
    /// Of each value that a thread holds, its row in the matrix.
    rows: Vec<Reg<U32>>,
    blocks: Reg<U32>,
    next: Vec<Var<F16>>,
    /// `[SUPERS][STRIDE]`, a value per row.
    staged: Ptr<F16, SharedSpace>,
}

impl Supers {
    fn new(k: &KernelBuilder, gemv: GemvMma, plane: Ptr<F16>, copy: &Copy) -> Self {
        let (threads, values) = (32 * WARPS, gemv.rows() * SUPERS);
        let row = |part: u32| copy.row(k, k.div(k.add(k.tid(), threads * part), SUPERS));
        Self {
            plane,
            rows: (0..values / threads).map(row).collect(),
            blocks: copy.blocks,
            next: (0..values / threads).map(|_| k.var(k.f16(half::f16::ZERO))).collect(),
            staged: k.shared("supers_of_groups", SUPERS * STRIDE),
        }
    }

    /// Begins to load those from a super-block on; zeros beyond the end.
    fn load(&self, k: &KernelBuilder, first: Reg<U32>) {
        let index = k.add(first, k.and(k.tid(), SUPERS - 1));
        for (row, next) in self.rows.iter().zip(&self.next) {
            k.set(*next, k.f16(half::f16::ZERO));
            k.if_(k.lt(index, k.shr(self.blocks, 3)), || {
                let of_row = k.row(self.plane, *row, k.shr(self.blocks, 2));
                k.set(*next, k.ld_with(k.index(of_row, index), LoadOptions::STREAM));
            });
        }
    }

    /// Stages those of four groups, where `group` is the first of them.
    fn stage(&self, k: &KernelBuilder, group: Reg<U32>) {
        k.if_(k.eq(k.and(group, 3), 0), || {
            for (part, next) in (0..).zip(&self.next) {
                let row = k.div(k.add(k.tid(), 32 * WARPS * part), SUPERS);
                let at = k.mad(k.and(k.tid(), SUPERS - 1), STRIDE, row);
                k.st(k.index(self.staged, at), *next);
            }
            self.load(k, k.mad(group, 4, SUPERS));
        });
    }

    /// That of a row of the block, and of a super-block of a group.
    fn get(&self, k: &KernelBuilder, group: Reg<U32>, super_block: Reg<U32>, row: Reg<U32>) -> Reg<F32> {
        let index = k.mad(k.and(group, 3), 4, super_block);
        k.f16_to_f32(k.ld(k.index(self.staged, k.mad(index, STRIDE, row))))
    }
}

impl Decode {
    /// Begins with the first group.
    pub(super) fn new(
        k: &KernelBuilder,
        gemv: GemvMma,
        supers: Option<Ptr<F16>>,
        copy: &Copy,
        to: Ptr<F32, SharedSpace>,
    ) -> Self {
        let supers = supers.map(|plane| Supers::new(k, gemv, plane, copy));
        if let Some(supers) = &supers {
            supers.load(k, k.value(0));
        }
        Self { gemv, to, supers }
    }

    /// What precedes [`group`](Self::group), with a barrier in between.
    pub(super) fn before(&self, k: &KernelBuilder, group: Reg<U32>) {
        if let Some(supers) = &self.supers {
            supers.stage(k, group);
        }
    }

    /// Decodes a group that is in shared memory: a lane has a row, a warp four blocks, half of a super-block. All threads take part.
    pub(super) fn group(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        match self.gemv.rows() {
            32 => self.rows(k, stage, group),
            rows => k.if_(k.lt(k.laneid(), rows), || self.rows(k, stage, group)),
        }
    }

    fn rows(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, group: Reg<U32>) {
        let rows = self.gemv.rows();
        k.comment("scales of the group");
        let (row, warp) = (k.laneid(), k.warp());
        let of_row = k.index_by(stage, row, ROW_SCALES).offset(self.gemv.scales_at() as i32);
        let chunk = k.index_by(of_row, scale_place(k, row, k.shr(warp, 1)), 16);
        let to = k.index_by(k.index_by(self.to, warp, 4 * 8 * rows), row, 8);
        let at = |block: usize| to.at((2 * rows) as i32 * block as i32);
        if let Some(supers) = &self.supers {
            let d = supers.get(k, group, k.shr(warp, 1), row);
            let [a, b, later_a, later_b] = k.ld4(chunk);
            let second_half = k.ne(k.and(warp, 1), 0);
            let (a, b) = (k.select(second_half, later_a, a), k.select(second_half, later_b, b));
            for (block, halves) in [a, k.shr(a, 16), b, k.shr(b, 16)].into_iter().enumerate() {
                k.st2(at(block), [d, k.bitcast(halves)]);
            }
            return;
        }
        let [d, a, b, c] = k.ld4(chunk);
        let [d, dmin] = k.f16x2_to_f32(d.as_ty::<F16x2>());
        let second_half = k.ne(k.and(warp, 1), 0);
        // Four fields are 48 bits, from bit 0 or from bit 48.
        let low = k.select(second_half, k.shf_right(b, c, 16), a);
        let high = k.select(second_half, k.shr(c, 16), b);
        for block in 0..4 {
            let field = match block {
                3 => k.shr(high, 4),
                _ => k.shf_right(low, high, 12 * block as u32),
            };
            let (scale, min) = (k.and(field.as_ty::<U32>(), 63), k.and(field.as_ty::<U32>(), 0xfc0));
            let min = k.mul(k.mul(dmin, k.to_f32(min)), -1.0 / MIN_UNIT);
            k.st2(at(block), [k.mul(d, k.to_f32(scale)), min]);
        }
    }
}
