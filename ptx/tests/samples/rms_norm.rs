//! RMSNorm of a row per block.

use brick_ptx::build::{F32, KernelBuilder, LoadOptions};
use brick_ptx::ir::{Access, Kernel, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;

/// With `dependent`, for programmatic dependent launch: the gain is fetched before the row is ready.
pub(crate) fn kernel(dependent: bool) -> Kernel {
    let k = KernelBuilder::new(if dependent { "rms_norm_dependent" } else { "rms_norm" });
    k.about("y = x / sqrt(mean(x^2) + eps) * gain: one row of n floats per block, n a multiple of 4.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let x = k.param_ptr::<F32>("x", Access::Read, 16);
    let gain = k.param_ptr::<F32>("gain", Access::Read, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let n = k.param_u32_multiple_of("n", 4);
    let eps = k.param_f32("eps");
    let scratch = k.shared::<F32>("scratch", WARPS);

    let first = k.shl(k.tid(), 2);
    if dependent {
        k.prefetch(brick_ptx::ir::Cache::L2, k.index(gain, first));
        k.wait_for_dependencies();
    }
    let start = k.mul(k.ctaid(), n);
    let (x, y) = (k.index(x, start), k.index(y, start));

    k.comment("sum of squares");
    let squares = k.var(0.0);
    k.for_(first, n, 4 * THREADS, |i| {
        for x in k.ld4(k.index(x, i)) {
            k.fma_into(squares, x, x);
        }
    });
    let squares = k.block_reduce(squares.get(), scratch, WARPS, |a, b| k.add(a, b));
    let mean = k.div_rn(squares, k.to_f32(n));
    let scale = k.rcp_rn(k.sqrt_rn(k.add(mean, eps)));

    k.comment("scale");
    k.for_(first, n, 4 * THREADS, |i| {
        let x = k.ld4(k.index(x, i));
        let gain = k.ld_vec::<_, _, 4>(k.index(gain, i), LoadOptions::READ_ONLY);
        let y4: [_; 4] = std::array::from_fn(|j| k.mul(k.mul(x[j], scale), gain[j]));
        k.st4(k.index(y, i), y4);
    });
    if dependent {
        k.launch_dependents();
    }
    k.finish()
}
