//! `y = a + b`.

use brick_ptx::build::{F32, KernelBuilder};
use brick_ptx::ir::{Access, Kernel, Threads};

pub(crate) fn kernel() -> Kernel {
    let k = KernelBuilder::new("vector_add");
    k.about("y[i] = a[i] + b[i] for i < n, one thread per element.");
    k.threads(Threads::UpTo(256));
    let a = k.param_ptr::<F32>("a", Access::Read, 4);
    let b = k.param_ptr::<F32>("b", Access::Read, 4);
    let y = k.param_ptr::<F32>("y", Access::Write, 4);
    let n = k.param_u32("n");

    let i = k.mad(k.ctaid(), k.ntid(), k.tid());
    k.return_if(k.ge(i, n));
    let sum = k.add(k.ld(k.index(a, i)), k.ld(k.index(b, i)));
    k.st(k.index(y, i), sum);
    k.finish()
}
