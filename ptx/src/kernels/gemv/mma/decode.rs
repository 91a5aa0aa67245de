//! Scales of a group, decoded: what eight warps would do four times over is done once.

use super::copy::{Copy, scale_place};
use super::{GemvMma, ROW_SCALES};
use crate::build::{B32, F16, F16x2, F32, KernelBuilder, LoadOptions, Ptr, Reg, SharedSpace, U32, Var};
use crate::kernels::gemv::weights::MIN_UNIT;

/// Decodes the scales of every row and block of a group: pairs of words, `[32 blocks][rows]`.
///
/// Of Q4_K, f32 scale and f32 minimum; of Q6_K, the f32 scale of the super-block, and the 8-bit scales of the halves in the low bytes.
pub(super) struct Decode {
    gemv: GemvMma,
    to: Ptr<F32, SharedSpace>,
    supers: Option<Supers>,
}

/// Scales of super-blocks, which are too narrow for asynchronous copies: a thread holds that of its row and blocks of the next group.
struct Supers {
    of_row: Ptr<F16>,
    /// Super-blocks of a row.
    count: Reg<U32>,
    next: Var<F16>,
}

impl Supers {
    /// Begins to load that of a group; zero beyond the end.
    fn load(&self, k: &KernelBuilder, group: Reg<U32>) {
        let index = k.mad(group, 4, k.shr(k.warp(), 1));
        k.set(self.next, k.f16(half::f16::ZERO));
        k.if_(k.lt(index, self.count), || {
            k.set(self.next, k.ld_with(k.index(self.of_row, index), LoadOptions::STREAM));
        });
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
        let supers = supers.map(|supers| {
            let row = copy.row(k, k.laneid());
            let of_row = k.row(supers, row, k.shr(copy.blocks, 2));
            Supers { of_row, count: k.shr(copy.blocks, 3), next: k.var(k.f16(half::f16::ZERO)) }
        });
        if let Some(supers) = &supers {
            supers.load(k, k.value(0));
        }
        Self { gemv, to, supers }
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
        match &self.supers {
            Some(supers) => {
                let d = k.f16_to_f32(supers.next.get());
                supers.load(k, k.add(group, 1));
                let [a, b] = k.ld2(k.index_by(chunk, k.and(warp, 1), 8));
                for (block, halves) in [a, k.shr(a, 16), b, k.shr(b, 16)].into_iter().enumerate() {
                    k.st2(at(block), [d, k.bitcast(halves)]);
                }
            }
            None => {
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
    }
}
