//! From warps to a split, and from splits to the row.

use super::launch::{THREADS, WARPS};
use super::split::{Cta, Head, LOWEST, PER_LANE};
use crate::build::{F32, Ptr, Reg, SharedSpace, U32};
use crate::kernels::arrive::{arrive, written};

/// Where results go.
pub(super) struct Output {
    /// The row, at the first head of the CTA.
    pub(super) out: Ptr<F32>,
    pub(super) parts: Ptr<F32>,
    pub(super) part_sums: Ptr<F32>,
    pub(super) arrivals: Ptr<U32>,
    pub(super) row: Reg<U32>,
    pub(super) first_head: Reg<U32>,
    pub(super) heads: Reg<U32>,
    /// Splits in which the row sees something.
    pub(super) splits: Reg<U32>,
    pub(super) flag: Ptr<U32, SharedSpace>,
}

/// Puts together what the warps of the CTA have, and, in the CTA that arrives last, the splits of the row.
pub(super) fn combine(cta: &Cta<'_>, state: &[Head], output: &Output) {
    let (k, spec) = (cta.k, cta.spec);
    let sums = cta.shared.offset(spec.sums_at() as i32).cast::<F32>();
    store_warp(cta, state, sums);
    k.barrier();

    k.comment("the warps of the CTA: a thread takes four elements of a head");
    let quarters = spec.head_dim / 4;
    let line = k.mul(k.mad(output.row, output.heads, output.first_head), k.nctaid());
    let single = k.eq(output.splits, 1);
    k.for_rolled(k.tid(), spec.heads * quarters, THREADS, |unit| {
        let (head, quarter) = (k.div(unit, quarters), k.rem(unit, quarters));
        let of_head = k.index_by(sums, head, 8);
        let sums: Vec<_> = (0..WARPS).map(|warp| k.ld2(of_head.offset((8 * spec.heads * warp) as i32))).collect();
        let max = sums[1..].iter().fold(sums[0][0], |max, [other, _]| k.max(max, *other));
        let weights: Vec<_> = sums.iter().map(|[of_warp, _]| k.ex2_ftz(k.sub(*of_warp, max))).collect();
        let weighted = |values: &[Reg<F32>]| {
            let products = values.iter().zip(&weights);
            products.fold(k.value::<F32>(0.0), |sum, (value, weight)| k.fma(*value, *weight, sum))
        };
        let sum = weighted(&sums.iter().map(|s| s[1]).collect::<Vec<_>>());
        let stored = k.index_by(k.index_by(cta.shared.cast::<F32>(), head, 4 * spec.head_dim), quarter, 16);
        let of_warps: Vec<_> = (0..WARPS).map(|warp| k.ld4(stored.offset((spec.tile_bytes() * warp) as i32))).collect();
        let y: [_; 4] = std::array::from_fn(|j| weighted(&of_warps.iter().map(|y| y[j]).collect::<Vec<_>>()));

        let element = place(cta, quarter);
        let finished = || {
            let inverse = k.rcp_rn(sum);
            let out = k.index(k.index_by(output.out, head, 4 * spec.head_dim), element);
            k.st4(out, y.map(|y| k.mul(y, inverse)));
        };
        let part = || {
            let part = k.add(k.mad(head, k.nctaid(), line), k.ctaid());
            k.st4(k.index(k.index_by(output.parts, part, 4 * spec.head_dim), element), y);
            k.if_(k.eq(quarter, 0), || k.st2(k.index_by(output.part_sums, part, 8), [max, sum]));
        };
        k.if_else(single, finished, part);
    });
    k.return_if(single);

    k.comment("the splits of the row");
    let ctas = k.special(crate::ir::Special::Nctaid(crate::ir::Dim::Y));
    let arrivals = k.index(output.arrivals, k.mad(output.row, ctas, k.ctaid_y()));
    k.if_(arrive(k, arrivals, output.splits, output.flag), || {
        k.for_rolled(k.tid(), spec.heads * quarters, THREADS, |unit| {
            let (head, quarter) = (k.div(unit, quarters), k.rem(unit, quarters));
            let part = k.mad(head, k.nctaid(), line);
            let sums = k.index_by(output.part_sums, part, 8);
            let element = k.shl(quarter, 2);
            let parts = k.index(k.index_by(output.parts, part, 4 * spec.head_dim), element);
            let max = k.var(LOWEST);
            k.for_rolled(0, output.splits, 1, |i| {
                k.max_into(max, k.ld_with(k.index_by(sums, i, 8), written()));
            });
            let (sum, y): (_, [_; 4]) = (k.var(0.0), std::array::from_fn(|_| k.var(0.0)));
            k.for_rolled(0, output.splits, 1, |i| {
                let [of_split, part] = k.ld_vec(k.index_by(sums, i, 8), written());
                let weight = k.ex2_ftz(k.sub(of_split, max));
                k.fma_into(sum, part, weight);
                let part = k.ld_vec::<_, _, 4>(k.index_by(parts, i, 4 * spec.head_dim), written());
                y.iter().zip(part).for_each(|(y, part)| k.fma_into(*y, part, weight));
            });
            let inverse = k.rcp_rn(sum);
            let out = k.index(k.index_by(output.out, head, 4 * spec.head_dim), element);
            k.st4(out, y.map(|y| k.mul(y, inverse)));
        });
    });
}

/// Adds up what the lanes of the warp have, and stores it: maxima and sums, and the output to where the keys of the
/// warp were.
fn store_warp(cta: &Cta<'_>, state: &[Head], sums: Ptr<F32, SharedSpace>) {
    let (k, spec) = (cta.k, cta.spec);
    k.comment("the lanes of the warp");
    k.warp_barrier();
    let lanes = spec.head_dim / PER_LANE;
    let column = k.rem(k.laneid(), lanes);
    let of_warp = k.index_by(sums, k.warp(), 8 * spec.heads);
    let tile = k.index_by(cta.tile.cast::<F32>(), column, 16);
    let distances: Vec<u32> = [16, 8].into_iter().filter(|&d| d >= lanes).collect();
    for (head, state) in state.iter().enumerate() {
        let sum = k.warp_reduce(state.sum.get(), |a, b| k.add(a, b));
        let y = state.y.map(|y| distances.iter().fold(y.get(), |y, &lane| k.add(y, k.shfl_bfly(y, lane))));
        k.if_(k.eq(k.laneid(), 0), || k.st2(of_warp.offset(8 * head as i32), [state.max.get(), sum]));
        // First the lower four elements of every lane, then the upper four: lanes side by side meet other banks.
        let stored = tile.offset(4 * (head as u32 * spec.head_dim) as i32);
        k.if_(k.lt(k.laneid(), lanes), || {
            k.st4(stored, [y[0], y[1], y[2], y[3]]);
            k.st4(stored.offset(2 * spec.head_dim as i32), [y[4], y[5], y[6], y[7]]);
        });
    }
}

/// The first of the four elements that are stored at a quarter.
fn place(cta: &Cta<'_>, quarter: Reg<U32>) -> Reg<U32> {
    let (k, lanes) = (cta.k, cta.spec.head_dim / PER_LANE);
    let upper = k.ge(quarter, lanes);
    k.mad(k.select(upper, k.sub(quarter, lanes), quarter), PER_LANE, k.select(upper, 4, 0))
}
