//! A sum over blocks, finished by the block that arrives last.

use brick_ptx::build::{F32, KernelBuilder, LoadOptions, U32};
use brick_ptx::ir::{Access, FenceKind, Kernel, Order, Scope, Threads};

const WARPS: u32 = 4;

pub(crate) fn kernel() -> Kernel {
    let k = KernelBuilder::new("split_sum");
    k.about(
        "Sum of n floats. Every block writes a partial sum; the one that arrives last adds them in the order of the blocks,\n\
         so the result does not depend on who that is. The counter goes back to zero.",
    );
    k.threads(Threads::Exactly([32 * WARPS, 1, 1]));
    let x = k.param_ptr::<F32>("x", Access::Read, 4);
    let partial = k.param_ptr::<F32>("partial", Access::ReadWrite, 4);
    let counter = k.param_ptr::<U32>("counter", Access::ReadWrite, 4);
    let sum = k.param_ptr::<F32>("sum", Access::Write, 4);
    let n = k.param_u32("n");
    let scratch = k.shared::<F32>("scratch", WARPS);
    let last = k.shared::<U32>("last", 1);

    let acc = k.var(0.0);
    let stride = k.mul(k.ntid(), k.nctaid());
    k.for_(k.mad(k.ctaid(), k.ntid(), k.tid()), n, stride, |i| {
        k.add_into(acc, k.ld(k.index(x, i)));
    });
    let of_block = k.block_reduce(acc.get(), scratch, WARPS, |a, b| k.add(a, b));

    k.if_(k.eq(k.tid(), 0), || {
        k.st(k.index(partial, k.ctaid()), of_block);
        k.fence(FenceKind::AcquireRelease, Scope::Gpu);
        let arrived = k.atom_inc(counter, k.sub(k.nctaid(), 1), Order::AcquireRelease(Scope::Gpu));
        k.st(last, arrived);
    });
    k.barrier();
    let arrived = k.ld_with(last, LoadOptions::default().uniform());
    k.if_(k.eq(arrived, k.sub(k.nctaid(), 1)), || {
        k.if_(k.eq(k.tid(), 0), || {
            let total = k.var(0.0);
            k.for_(0, k.nctaid(), 1, |block| {
                let relaxed = LoadOptions::default().order(Order::Relaxed(Scope::Gpu));
                k.add_into(total, k.ld_with(k.index(partial, block), relaxed));
            });
            k.st(sum, total);
        });
    });
    k.finish()
}
