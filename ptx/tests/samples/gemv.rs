//! Q8_0 weights times a quantised vector, with dp4a.

use brick_ptx::build::{B32, F16, F32, KernelBuilder, LoadOptions, S32};
use brick_ptx::ir::{Access, Kernel, Threads};

const WARPS: u32 = 8;

pub(crate) fn kernel() -> Kernel {
    let k = KernelBuilder::new("gemv_q8_0");
    k.about(
        "y = W x: W has planes of signed bytes (row-major) and of f16 scales per 32; x is quantised the same way, with\n\
         scale and scaled sum per 32. A warp takes a row; a lane takes 16 bytes of every 512.",
    );
    k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
    let quants = k.param_ptr::<B32>("quants", Access::Read, 16);
    let scales = k.param_ptr::<F16>("scales", Access::Read, 2);
    let x_quants = k.param_ptr::<B32>("x_quants", Access::Read, 16);
    let x_scales = k.param_ptr::<F32>("x_scales", Access::Read, 8);
    let y = k.param_ptr::<F32>("y", Access::Write, 4);
    let rows = k.param_u32("rows");
    let columns = k.param_u32_multiple_of("columns", 512);

    let row = k.mad(k.ctaid(), WARPS, k.warp());
    k.return_if(k.ge(row, rows));
    let quants = k.row(quants, row, columns);
    let scales = k.row(scales, row, k.shr(columns, 4));

    let lane16 = k.shl(k.laneid(), 4);
    let acc = k.var(0.0);
    k.for_(lane16, columns, 512, |i| {
        let w = k.ld_vec::<_, _, 4>(k.index_by(quants, i, 1), LoadOptions::STREAM);
        let x = k.ld_vec::<_, _, 4>(k.index_by(x_quants, i, 1), LoadOptions::READ_ONLY);
        let block = k.shr(i, 5);
        let w_scale = k.f16_to_f32(k.ld_with(k.index(scales, block), LoadOptions::READ_ONLY));
        let x_scale = k.ld_with(k.index_by(x_scales, block, 8), LoadOptions::READ_ONLY);
        // Two chains: a single accumulator would be serial.
        let dot = |j: usize, sum| k.dp4a(w[j].as_ty::<S32>(), x[j].as_ty::<S32>(), sum);
        let (even, odd) = (dot(2, dot(0, k.value(0))), dot(3, dot(1, k.value(0))));
        let dot = k.to_f32(k.add(even, odd));
        k.fma_into(acc, dot, k.mul(w_scale, x_scale));
    });
    let sum = k.warp_reduce(acc.get(), |a, b| k.add(a, b));
    k.if_(k.eq(k.laneid(), 0), || k.st(k.index(y, row), sum));
    k.finish()
}
