//! One of each: what the builder and the emitter can write, for the assembler to read.

use brick_ptx::build::{
    B32, Bf16, Bf16x2, F16, F16x2, F32, F64, KernelBuilder, LoadOptions, Pred, Ptr, Reg, S8, S16, S32, S64,
    StoreOptions, U8, U16, U32, U64,
};
use brick_ptx::ir::{
    Access, AtomicOp, Cache, Cmp, Dim, FenceKind, Kernel, L1, L2Priority, Order, Prefetch, ReduceOp, Rounding, Scope,
    ShuffleMode, Signedness, Special, Threads,
};
use half::f16;

/// Where results go, so that the assembler keeps what computes them.
struct Sink<'a> {
    k: &'a KernelBuilder,
    out: Ptr<B32>,
}

impl Sink<'_> {
    fn word<T: brick_ptx::build::types::Word>(&self, value: Reg<T>) {
        self.k.red(AtomicOp::Xor, self.out, self.k.bitcast::<T, B32>(value), Order::Relaxed(Scope::Gpu));
    }

    fn pred(&self, p: Reg<Pred>) {
        self.word(self.k.select::<U32>(p, 1, 0));
    }
}

pub(crate) fn kernels() -> Vec<Kernel> {
    vec![numbers(), bits(), conversions(), memory(), warp(), matrix()]
}

fn begin(name: &str) -> (KernelBuilder, Ptr<B32>) {
    let k = KernelBuilder::new(name);
    k.threads(Threads::Exactly([64, 1, 1]));
    let out = k.param_ptr::<B32>("out", Access::ReadWrite, 16);
    (k, out)
}

fn numbers() -> Kernel {
    let (k, out) = begin("numbers");
    let sink = Sink { k: &k, out };
    let a = k.ld(out.cast::<F32>());
    let b = k.ld(out.cast::<F32>().at(1));
    for x in [k.add(a, b), k.sub(1.0, a), k.mul(a, b), k.min(a, b), k.max(a, b), k.fma(a, b, 1.0), k.neg(a), k.abs(a)] {
        sink.word(x);
    }
    for x in [k.div_rn(a, b), k.div_full(a, b), k.div_approx(a, b), k.ex2(a), k.ex2_ftz(a), k.lg2(a), k.rcp_approx(a)] {
        sink.word(x);
    }
    for x in [k.rcp_ftz(a), k.rcp_rn(a), k.rsqrt(a), k.sqrt_approx(a), k.sqrt_rn(a), k.tanh_approx(a), k.sin_approx(a)]
    {
        sink.word(x);
    }
    sink.word(k.cos_approx(a));
    for cmp in Cmp::ALL {
        sink.pred(k.compare(cmp, a, b));
    }
    let (i, j) = (k.ld(out.cast::<S32>().at(2)), k.ld(out.cast::<S32>().at(3)));
    for x in
        [k.div(i, j), k.rem(i, -3), k.mul_hi(i, j), k.mad(i, j, 5), k.mad_hi(i, j, i), k.neg(i), k.abs(i), k.min(i, j)]
    {
        sink.word(x);
    }
    let u = k.ld(out.cast::<U32>().at(2));
    for x in [k.div(u, 7), k.rem(u, 3), k.div(u, 8), k.rem(u, 8), k.div(u, u), k.rem(u, u), k.max(u, 4)] {
        sink.word(x);
    }
    let wide: [_; 2] = [k.mul_wide(i, j), k.mad_wide(i, -7, i64::MIN)];
    let u64s = [k.mad_wide(u, 3, u64::MAX), k.div(k.mul_wide(u, u), 5), k.widen(u)];
    for x in wide.map(Reg::as_ty::<U64>).into_iter().chain(u64s) {
        let [low, high] = k.unpack32(x);
        sink.word(k.xor(low, high));
    }
    let d: [_; 2] = [k.ld(out.cast::<F64>()), k.ld(out.cast::<F64>().at(1))];
    let d = k.fma(d[0], 0.1, k.add(d[1], k.cvt::<S64, F64>(Some(Rounding::Rn), wide[0])));
    sink.word(k.cvt::<F64, F32>(Some(Rounding::Rz), d));
    let h = k.ld2(out.cast::<F16>());
    let sum = k.fma(h[0], h[1], k.max(k.f16(f16::ONE), k.mul(h[0], k.neg(h[1]))));
    sink.word(k.f16_to_f32(sum));
    let pair = k.ld(out.cast::<F16x2>());
    sink.word(k.add(k.fma(pair, pair, k.f16x2(f16::ONE, f16::NEG_ONE)), k.abs(pair)));
    let bf = k.ld(out.cast::<Bf16x2>());
    sink.word(k.max(k.fma(bf, bf, bf), bf));
    let narrow = k.ld2(out.cast::<S16>());
    sink.word(k.int_cast::<S16, S32>(k.mad(narrow[0], narrow[1], 3)));
    let (s, un) = (k.ld(out.cast::<S32>()), k.ld(out.cast::<U32>()));
    for x in [k.dp4a(s, i, 0), k.dp4a_us(un, s, i), k.dp4a_su(s, un, 1), k.dp4a_uu(un, u, 2).as_ty()] {
        sink.word(x);
    }
    let acc = k.var(0);
    k.dp4a_into(acc, s, i);
    k.dp4a_us_into(acc, un, i);
    k.max_into(acc, 3);
    sink.word(acc.get());
    k.finish()
}

fn bits() -> Kernel {
    let (k, out) = begin("bits");
    let sink = Sink { k: &k, out };
    let [a, b, c, d] = k.ld4(out.cast::<U32>());
    for x in [k.and(a, b), k.or(a, 7), k.xor(a, b), k.not(a), k.brev(a), k.popc(a), k.clz(b), k.shl(a, c), k.shr(a, 3)]
    {
        sink.word(x);
    }
    sink.word(k.shr(a.as_ty::<S32>(), d));
    for x in [k.bfe(a, 4, 6), k.bfi(a, b, c, d), k.lop3(a, b, c, 0xe8), k.shf_left(a, b, 4), k.shf_right(a, b, c)] {
        sink.word(x);
    }
    sink.word(k.bfe(a.as_ty::<S32>(), c, 8));
    sink.word(k.prmt(a, b, 0x5410));
    let wide = k.pack32::<U64>(a.as_ty(), b.as_ty());
    let wide = k.shl(k.xor(wide, k.bfe(wide, 3, 40)), 3);
    sink.word(k.add(k.popc(wide), k.clz(wide)));
    let [low, high] = k.unpack16::<U32, U16>(a);
    sink.word(k.pack16::<U16, U32>(high, low));
    let (p, q) = (k.lt(a, b), k.ge(a.as_ty::<S32>(), -4));
    for p in [k.and(p, q), k.or(p, q), k.xor(p, q), k.not(p)] {
        sink.pred(p);
    }
    for dim in [Dim::X, Dim::Y, Dim::Z] {
        for special in [Special::Tid(dim), Special::Ntid(dim), Special::Ctaid(dim), Special::Nctaid(dim)] {
            sink.word(k.special(special));
        }
    }
    for special in [
        Special::LaneId,
        Special::WarpId,
        Special::SmId,
        Special::NSmId,
        Special::Clock,
        Special::LanemaskEq,
        Special::LanemaskLt,
        Special::LanemaskLe,
        Special::LanemaskGt,
        Special::LanemaskGe,
    ] {
        sink.word(k.special(special));
    }
    sink.word(k.unpack32(k.sub(k.globaltimer(), k.clock64()))[0]);
    k.finish()
}

fn conversions() -> Kernel {
    let (k, out) = begin("conversions");
    let sink = Sink { k: &k, out };
    let x = k.ld(out.cast::<F32>());
    for rounding in [Rounding::Rni, Rounding::Rzi, Rounding::Rmi, Rounding::Rpi] {
        sink.word(k.round(x, rounding));
        sink.word(k.to_int::<S32>(x, rounding));
        sink.word(k.to_int::<U32>(x, rounding));
        sink.word(k.cvt::<S64, S32>(None, k.to_int::<S64>(x, rounding)));
    }
    sink.word(k.to_s8(x));
    let i = k.ld(out.cast::<S32>());
    sink.word(k.sign_extend8(i));
    for rounding in [Rounding::Rn, Rounding::Rz, Rounding::Rm, Rounding::Rp] {
        sink.word(k.cvt::<S32, F32>(Some(rounding), i));
        sink.word(k.f16_to_f32(k.cvt::<F32, F16>(Some(rounding), x)));
        let wide = k.cvt::<F32, F64>(None, x);
        sink.word(k.cvt::<F64, F32>(Some(rounding), wide));
    }
    sink.word(k.to_f16x2(x, 1.0));
    sink.word(k.to_bf16x2(x, 2.0));
    let [a, b] = k.f16x2_to_f32(k.ld(out.cast::<F16x2>()));
    let [c, d] = k.bf16x2_to_f32(k.ld(out.cast::<Bf16x2>()));
    for x in [a, b, c, d, k.to_f32(k.ld(out.cast::<U16>())), k.to_f32(k.widen(i.as_ty::<U32>()))] {
        sink.word(x);
    }
    k.st(out.cast::<Bf16>(), k.to_bf16(x));
    k.finish()
}

fn memory() -> Kernel {
    let (k, out) = begin("memory");
    let sink = Sink { k: &k, out };
    let x = k.param_ptr::<B32>("x", Access::Read, 16);
    let tile = k.shared::<B32>("tile", 64);
    let policy = k.cache_policy(L2Priority::EvictFirst);
    for l1 in [L1::Normal, L1::NoAllocate, L1::EvictFirst, L1::EvictLast] {
        for prefetch in [Prefetch::None, Prefetch::B64, Prefetch::B128, Prefetch::B256] {
            let options = LoadOptions::READ_ONLY.l1(l1).prefetch(prefetch);
            let [a, b, c, d] = k.ld_vec(x, options);
            let [e, f] = k.ld_vec(x, options.policy(policy));
            for x in [a, b, c, d, e, f, k.ld_with(x, LoadOptions::default().l1(l1).prefetch(prefetch))] {
                sink.word(x);
            }
        }
        k.st_with(out, 1, StoreOptions::default().l1(l1).policy(policy));
    }
    sink.word(k.ld(x.cast::<U8>().at(3)));
    sink.word(k.ld(x.cast::<S8>().at(-1)));
    k.st4(out.cast::<U8>(), [1_u32, 2, 3, 4]);
    k.st2(out.cast::<F64>(), [1.0, f64::NAN]);
    for scope in [Scope::Cta, Scope::Gpu, Scope::Sys] {
        let load = |order| k.ld_with(out, LoadOptions::default().order(order));
        for x in [load(Order::Volatile), load(Order::Relaxed(scope)), load(Order::Acquire(scope))] {
            sink.word(x);
        }
        for order in [Order::Volatile, Order::Relaxed(scope), Order::Release(scope)] {
            k.st_with(out, 1, StoreOptions::default().order(order));
        }
        k.fence(FenceKind::AcquireRelease, scope);
        k.fence(FenceKind::Sequential, scope);
        for order in [Order::Relaxed(scope), Order::Acquire(scope), Order::Release(scope), Order::AcquireRelease(scope)]
        {
            sink.word(k.atom_inc(out.cast::<U32>(), 7, order));
            sink.word(k.atom_cas(out, 1, 2, order));
            sink.word(k.atom_exch(tile, k.value(3), order));
        }
    }
    let relaxed = Order::Relaxed(Scope::Gpu);
    k.red(AtomicOp::Add, out.cast::<F32>(), 1.0, relaxed);
    k.red(AtomicOp::Add, out.cast::<F64>(), 1.0, relaxed);
    k.red(AtomicOp::Add, out.cast::<U64>(), 1, Order::Release(Scope::Sys));
    k.red(AtomicOp::Min, out.cast::<S64>(), -1, relaxed);
    k.red(AtomicOp::And, out, 1, relaxed);
    sink.word(k.atom(AtomicOp::Or, tile, 1, relaxed));
    sink.word(k.atom(AtomicOp::Max, tile.cast::<S32>(), -5, relaxed));
    sink.word(k.atom_add(tile.cast::<F32>(), 1.0, relaxed));

    k.cp_async(tile, x, 4);
    k.cp_async(tile, x, 8);
    k.cp_async(tile, x, 16);
    k.cp_async_bypass(tile.at(4), x.at(4));
    k.cp_async_zfill(tile.at(8), x, k.ntid());
    k.cp_async_commit();
    k.cp_async_wait(0);
    k.prefetch(Cache::L1, x);
    k.prefetch(Cache::L2, x.offset(-4096));
    let moving = k.ptr_var(x.offset(32));
    k.for_rolled(0, 9, 1, |_: Reg<U32>| {
        sink.word(k.ld4(moving.ptr())[0]);
        k.step(moving, 16);
    });
    let moving = k.ptr_var(tile.at(4));
    k.while_(
        || k.lt(k.ld(moving.ptr().cast::<U32>()), 5),
        || {
            k.nanosleep(20);
            k.step(moving, 4);
        },
    );
    k.if_else(k.lt(k.tid(), 3), || k.trap(), || k.st(tile, 1));
    k.finish()
}

fn warp() -> Kernel {
    let (k, out) = begin("warp");
    let sink = Sink { k: &k, out };
    let value = k.tid();
    for width in [32, 16, 8, 4, 2, 1] {
        for mode in [ShuffleMode::Idx, ShuffleMode::Up, ShuffleMode::Down, ShuffleMode::Bfly] {
            sink.word(k.shuffle(mode, value, 1, width, u32::MAX));
            let (x, inside) =
                k.shuffle_in_range(mode, k.to_f32(value), k.laneid(), width, k.activemask().as_ty::<U32>());
            sink.word(x);
            sink.pred(inside);
        }
    }
    for x in [k.shfl_idx(value, 0), k.shfl_up(value, 1), k.shfl_down(value, 1), k.shfl_bfly(value, 1)] {
        sink.word(x);
    }
    let odd = k.eq(k.and(value, 1), 1);
    sink.word(k.ballot(odd));
    sink.pred(k.any(odd));
    sink.pred(k.all(odd));
    sink.word(k.match_any(value));
    sink.word(k.match_all(k.to_f32(value)));
    for op in [ReduceOp::Add, ReduceOp::Min, ReduceOp::Max, ReduceOp::And, ReduceOp::Or, ReduceOp::Xor] {
        sink.word(k.redux(op, value));
        sink.word(k.redux(op, value.as_ty::<S32>()));
    }
    k.if_(odd, || k.warp_barrier_of(0xaaaa_aaaa));
    k.warp_barrier();
    k.barrier();
    k.if_else(k.eq(k.warp(), 0), || k.barrier_of(1, 64), || k.arrive(1, 64));
    k.ret();
    k.finish()
}

fn matrix() -> Kernel {
    let (k, out) = begin("matrix");
    let sink = Sink { k: &k, out };
    let tile = k.shared::<F16>("tile", 1024);
    let row = k.index(tile, k.shl(k.laneid(), 3));
    let a: [_; 4] = k.ldmatrix(row);
    let b: [_; 2] = k.ldmatrix_trans(row);
    let [one] = k.ldmatrix(row);
    sink.word(one);
    let f = std::array::from_fn(|_| k.value(0.0));
    let f = k.mma_bf16(a, b, k.mma_f16(a, b, f));
    let acc = f.map(|x| k.var(x));
    k.mma_f16_into(acc, a, b);
    k.mma_bf16_into(acc, a, b);
    for x in acc {
        sink.word(x.get());
    }
    let signs = [Signedness::Unsigned, Signedness::Signed];
    let mut c = std::array::from_fn(|_| k.value(0));
    for a_sign in signs {
        for b_sign in signs {
            c = k.mma_int8((a_sign, b_sign), a, b, c);
        }
    }
    for x in c {
        sink.word(x);
    }
    k.finish()
}
