//! f32 to blocks of 32 signed bytes with a scale and a scaled sum.

use brick_ptx::build::{B32, F32, KernelBuilder, Reg, S32};
use brick_ptx::ir::{Access, Kernel, Threads};

pub(crate) fn kernel() -> Kernel {
    let k = KernelBuilder::new("quantize_q8_1");
    k.about(
        "Blocks of 32 floats to signed bytes: q = round(x / d), d = max|x| / 127, s = d * sum(q).\n\
         A warp takes four blocks: eight lanes and four floats per lane each. n counts floats and is a multiple of 128.",
    );
    k.threads(Threads::UpTo(256));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let quants = k.param_ptr::<B32>("quants", Access::Write, 4);
    let scales = k.param_ptr::<F32>("scales", Access::Write, 8);
    let n = k.param_u32_multiple_of("n", 128);

    // A whole warp is inside or outside, because n is a multiple of what it takes.
    let warp_first = k.shl(k.add(k.mul(k.ctaid(), k.shr(k.ntid(), 5)), k.warp()), 7);
    k.if_(k.lt(warp_first, n), || {
        let i = k.add(warp_first, k.shl(k.laneid(), 2));
        let x = k.ld4(k.index(x, i));
        let largest = x[1..].iter().fold(k.abs(x[0]), |m, &v| k.max(m, k.abs(v)));
        let largest = over_block(&k, largest, |a, b| k.max(a, b));
        let scale = k.mul(largest, 1.0 / 127.0);
        let inverse = k.select(k.gt(largest, 0.0), k.rcp_rn(scale), 0.0);

        let q = x.map(|x| k.to_s8(k.mul(x, inverse)));
        k.comment("four bytes in one word");
        let pair = |low: Reg<S32>, high: Reg<S32>| k.prmt(low, high, 0x0040);
        let word = k.prmt(pair(q[0], q[1]), pair(q[2], q[3]), 0x5410);
        k.st(k.index(quants, k.shr(i, 2)), word);

        let ones = 0x0101_0101;
        let sum = over_block(&k, k.dp4a(word.as_ty::<S32>(), ones, 0), |a, b| k.add(a, b));
        k.if_(k.eq(k.and(k.laneid(), 7), 0), || {
            let block = k.index_by(scales, k.shr(i, 5), 8);
            k.st2(block, [scale, k.mul(scale, k.to_f32(sum))]);
        });
    });
    k.finish()
}

/// Combines over the eight lanes of a block.
fn over_block<T: brick_ptx::build::types::Word>(
    k: &KernelBuilder,
    value: Reg<T>,
    combine: impl Fn(Reg<T>, Reg<T>) -> Reg<T>,
) -> Reg<T> {
    [4_u32, 2, 1].iter().fold(value, |v, &lane| combine(v, k.shfl_bfly(v, lane)))
}
