//! What becomes of the sums: stores, the gated activation, the largest of all.

use super::reduce::Reduced;
use super::{Epilogue, Gemv, PLAIN, Shape, WARPS};
use crate::build::{F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, U32};
use crate::ir::{Access, FenceKind, Order, Scope};

/// What [`Epilogue::ArgMax`] gives for a token whose values are all NaN.
pub const NO_TOKEN: u32 = u32::MAX;

/// Parameters of an epilogue.
pub(super) enum Sink {
    Store(Store),
    ArgMax(ArgMax),
}

pub(super) struct Store {
    /// Bias and residual: not of the gated activation.
    added: Option<[Ptr<F32>; 2]>,
    y: Ptr<F32>,
}

pub(super) struct ArgMax {
    values: Ptr<F32>,
    rows: Ptr<U32>,
    counter: Ptr<U32>,
    tokens: Ptr<U32>,
    of_warps: [Ptr<F32, SharedSpace>; 2],
    arrived: Ptr<U32, SharedSpace>,
}

impl Sink {
    pub(super) fn params(k: &KernelBuilder, gemv: Gemv) -> Self {
        match gemv.epilogue {
            Epilogue::Store | Epilogue::SwiGlu => Self::Store(Store::params(k, gemv.epilogue == Epilogue::SwiGlu)),
            Epilogue::ArgMax => Self::ArgMax(ArgMax {
                values: k.param_ptr("partial_values", Access::ReadWrite, 4),
                rows: k.param_ptr("partial_rows", Access::ReadWrite, 4),
                counter: k.param_ptr("counter", Access::ReadWrite, 4),
                tokens: k.param_ptr("tokens", Access::Write, 4),
                of_warps: ["warp_values", "warp_rows"].map(|name| k.shared(name, WARPS * gemv.tokens)),
                arrived: k.shared("arrived", 1),
            }),
        }
    }
}

/// Row and token of a sum, and whether this lane is the one that stores it.
pub(super) struct Owner {
    pub(super) row: Reg<U32>,
    pub(super) token: Reg<U32>,
    pub(super) owns: Reg<Pred>,
}

impl Owner {
    fn of(k: &KernelBuilder, gemv: Gemv, first: Reg<U32>, shape: &Shape, reduced: &Reduced) -> Self {
        let per_warp = gemv.rows_per_warp();
        let (row, token) = (k.add(first, k.rem(reduced.index, per_warp)), k.div(reduced.index, per_warp));
        let one_of_copies = k.eq(k.and(k.laneid(), reduced.copies - 1), 0);
        let inside = k.and(k.lt(row, shape.rows), k.lt(token, gemv.tokens));
        Self { row, token, owns: k.and(one_of_copies, inside) }
    }
}

impl Store {
    pub(super) fn params(k: &KernelBuilder, gated: bool) -> Self {
        let added = (!gated).then(|| ["bias", "residual"].map(|name| k.param_ptr(name, Access::Read, 4)));
        Self { added, y: k.param_ptr("y", Access::Write, 4) }
    }

    pub(super) fn store(&self, k: &KernelBuilder, gemv: Gemv, first: Reg<U32>, shape: &Shape, reduced: &Reduced) {
        // Gate is the even row of a pair; the sum of its up is as many lanes away as there are copies of a sum.
        self.write(k, &Owner::of(k, gemv, first, shape, reduced), shape, reduced.sum, reduced.copies);
    }

    /// Stores a sum of each lane. The lane with the next row is `next_row` lanes away.
    pub(super) fn write(&self, k: &KernelBuilder, owner: &Owner, shape: &Shape, sum: Reg<F32>, next_row: u32) {
        k.comment("store");
        let &Owner { row, token, owns } = owner;
        let Some([bias, residual]) = self.added else {
            let up = k.shfl_bfly(sum, next_row);
            k.if_(k.and(owns, k.eq(k.and(row, 1), 0)), || {
                let y = k.index(k.row(self.y, token, k.shl(shape.rows, 1)), k.shr(row, 1));
                k.st(y, k.mul(silu(k, sum), up));
            });
            return;
        };
        k.if_(owns, || {
            let y = k.var(sum);
            let of_token = |ptr: Ptr<F32>| k.index(k.row(ptr, token, k.shl(shape.rows, 2)), row);
            k.if_(k.ne(k.address_of(bias), 0_u64), || k.add_into(y, k.ld_with(k.index(bias, row), PLAIN)));
            // Not through the read-only path: it may be `y`.
            k.if_(k.ne(k.address_of(residual), 0_u64), || k.add_into(y, k.ld(of_token(residual))));
            k.st(of_token(self.y), y);
        });
    }
}

/// `x / (1 + e^-x)`.
fn silu(k: &KernelBuilder, x: Reg<F32>) -> Reg<F32> {
    let power = k.ex2_ftz(k.mul(x, -std::f32::consts::LOG2_E));
    k.div_full(x, k.add(power, 1.0))
}

/// A value and its row.
#[derive(Clone, Copy)]
struct Candidate {
    value: Reg<F32>,
    row: Reg<U32>,
}

/// The larger; of equals, the one with the lower row. No candidate is a row of [`NO_TOKEN`] with a value of -∞.
fn larger(k: &KernelBuilder, a: Candidate, b: Candidate) -> Candidate {
    let earlier = k.and(k.eq(b.value, a.value), k.lt(b.row, a.row));
    let b_wins = k.or(k.gt(b.value, a.value), earlier);
    Candidate { value: k.select(b_wins, b.value, a.value), row: k.select(b_wins, b.row, a.row) }
}

/// The largest of all lanes whose number differs in the bits of `distances` only.
fn over_lanes(k: &KernelBuilder, own: Candidate, distances: &[u32]) -> Candidate {
    distances.iter().fold(own, |best, &distance| {
        let other = Candidate { value: k.shfl_bfly(best.value, distance), row: k.shfl_bfly(best.row, distance) };
        larger(k, best, other)
    })
}

impl ArgMax {
    /// Goes over the rows in steps of the whole grid, and finds the largest of each token: in lanes, in the warp, in the block, and,
    /// in the block that arrives last, in the grid.
    pub(super) fn largest(
        &self,
        k: &KernelBuilder,
        gemv: Gemv,
        first: Reg<U32>,
        shape: &Shape,
        sums: impl FnOnce(Reg<U32>) -> Reduced,
    ) {
        let (tokens, per_warp) = (gemv.tokens, gemv.rows_per_warp());
        let (best, best_row) = (k.var(f32::NEG_INFINITY), k.var(NO_TOKEN));
        let all_warps = k.mul(k.nctaid(), WARPS * per_warp);
        let mut spread = (k.laneid(), 1);
        k.for_rolled(first, shape.rows, all_warps, |first| {
            let reduced = sums(first);
            let Owner { row, .. } = Owner::of(k, gemv, first, shape, &reduced);
            // The row is inside or not, and a NaN is never larger.
            let candidate = Candidate { value: k.select(k.lt(row, shape.rows), reduced.sum, f32::NAN), row };
            let now = larger(k, Candidate { value: best.get(), row: best_row.get() }, candidate);
            k.set(best, now.value);
            k.set(best_row, now.row);
            spread = (reduced.index, reduced.copies);
        });

        k.comment("the largest of the block");
        let (index, copies) = (k.shr(k.laneid(), spread.1.trailing_zeros()), spread.1);
        let rows_of_token: Vec<u32> = (0..per_warp.trailing_zeros()).map(|bit| copies << bit).collect();
        let of_warp = over_lanes(k, Candidate { value: best.get(), row: best_row.get() }, &rows_of_token);
        let token = k.div(index, per_warp);
        let [values, rows] = [self.of_warps[0], self.of_warps[1]];
        let rows = rows.cast::<U32>();
        let one_per_token = k.eq(k.and(k.laneid(), copies * per_warp - 1), 0);
        k.if_(k.and(one_per_token, k.lt(token, tokens)), || {
            let at = k.mad(token, WARPS, k.warp());
            k.st(k.index(values, at), of_warp.value);
            k.st(k.index(rows, at), of_warp.row);
        });
        k.barrier();
        k.if_(k.lt(k.tid(), tokens), || {
            let at = k.mul(k.tid(), WARPS);
            let load = |w: u32| {
                let at = k.add(at, w);
                Candidate { value: k.ld(k.index(values, at)), row: k.ld(k.index(rows, at)) }
            };
            let of_block = (1..WARPS).fold(load(0), |best, w| larger(k, best, load(w)));
            let at = k.mad(k.tid(), k.nctaid(), k.ctaid());
            k.st(k.index(self.values, at), of_block.value);
            k.st(k.index(self.rows, at), of_block.row);
        });
        self.last_block(k, tokens);
    }

    fn last_block(&self, k: &KernelBuilder, tokens: u32) {
        k.comment("the block that arrives last finds the largest of all blocks");
        let last = k.sub(k.nctaid(), 1);
        k.barrier();
        k.if_(k.eq(k.tid(), 0), || {
            k.fence(FenceKind::AcquireRelease, Scope::Gpu);
            k.st(self.arrived, k.atom_inc(self.counter, last, Order::AcquireRelease(Scope::Gpu)));
        });
        k.barrier();
        k.return_if(k.ne(k.ld_with(self.arrived, LoadOptions::default().uniform()), last));
        // A warp takes every fourth token, its lanes every 32nd block.
        k.for_rolled(k.warp(), tokens, WARPS, |token| {
            let (best, best_row) = (k.var(f32::NEG_INFINITY), k.var(NO_TOKEN));
            let relaxed = LoadOptions::default().order(Order::Relaxed(Scope::Gpu));
            k.for_(k.laneid(), k.nctaid(), 32, |block| {
                let at = k.mad(token, k.nctaid(), block);
                let of_block = Candidate {
                    value: k.ld_with(k.index(self.values, at), relaxed),
                    row: k.ld_with(k.index(self.rows, at), relaxed),
                };
                let now = larger(k, Candidate { value: best.get(), row: best_row.get() }, of_block);
                k.set(best, now.value);
                k.set(best_row, now.row);
            });
            let own = Candidate { value: best.get(), row: best_row.get() };
            let of_grid = over_lanes(k, own, &[16, 8, 4, 2, 1]);
            k.if_(k.eq(k.laneid(), 0), || k.st(k.index(self.tokens, token), of_grid.row));
        });
    }
}
