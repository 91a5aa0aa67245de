//! What becomes of the sums: stores, the gated activation, the largest of all.

use super::reduce::{self, Reduced};
use super::{Epilogue, Gemv, PLAIN, Shape, WARPS};
use crate::build::{F32, KernelBuilder, Pred, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::Access;
use crate::kernels::argmax::{Best, Key};
use crate::kernels::arrive::{arrive, written};
use crate::kernels::elementwise::Activation;

/// Parameters of an epilogue.
pub(super) enum Sink {
    Store(Store),
    ArgMax(ArgMax),
}

pub(super) struct Store {
    /// Tokens of a chunk.
    tokens: u32,
    /// Bias, and residual if it is a parameter: not of the gated activation.
    added: Option<(Ptr<F32>, Option<Ptr<F32>>)>,
    /// Where they are loaded long before there are sums, if they are.
    early: Option<[Var<F32>; 2]>,
    y: Ptr<F32>,
}

/// What is added to sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// A constant.
    Bias,
    /// What kernels before have made.
    Residual,
}

pub(super) struct ArgMax {
    /// Warps of a block.
    warps: u32,
    /// Scratch: the largest of each block, `[T][blocks]` keys.
    best: Ptr<U32>,
    arrivals: Ptr<U32>,
    tokens: Ptr<U32>,
    /// The largest of each warp, `[WARPS][T]` keys.
    of_warps: Ptr<U32, SharedSpace>,
    flag: Ptr<U32, SharedSpace>,
}

impl Sink {
    pub(super) fn params(k: &KernelBuilder, gemv: Gemv) -> Self {
        match gemv.epilogue {
            Epilogue::ArgMax => Self::ArgMax(ArgMax::params(k, gemv.tokens, WARPS)),
            epilogue => Self::Store(Store::params(k, gemv.tokens, epilogue)),
        }
    }
}

/// Row and token of a sum, in its chunk, and whether this lane is the one that stores it.
pub(super) struct Owner {
    pub(super) row: Reg<U32>,
    pub(super) token: Reg<U32>,
    pub(super) owns: Reg<Pred>,
}

impl Owner {
    pub(super) fn of(k: &KernelBuilder, gemv: Gemv, first: Reg<U32>, shape: &Shape) -> Self {
        let per_warp = gemv.rows_per_warp();
        let (index, copies) = reduce::place(k, gemv.tokens * per_warp);
        let (row, token) = (k.add(first, k.rem(index, per_warp)), k.div(index, per_warp));
        let one_of_copies = k.eq(k.and(k.laneid(), copies - 1), 0);
        let inside = k.and(k.lt(row, shape.rows), k.lt(token, gemv.tokens));
        Self { row, token, owns: k.and(one_of_copies, inside) }
    }
}

impl Store {
    pub(super) fn params(k: &KernelBuilder, tokens: u32, epilogue: Epilogue) -> Self {
        let plain = epilogue == Epilogue::Store;
        let read = |name| k.param_ptr(name, Access::Read, 4);
        let added = plain.then(|| (read("bias"), Some(read("residual"))));
        Self { tokens, added, early: None, y: k.param_ptr("y", Access::Write, 4) }
    }

    /// Of a kernel that takes no residual.
    pub(super) fn biased(k: &KernelBuilder, tokens: u32) -> Self {
        let added = Some((k.param_ptr("bias", Access::Read, 4), None));
        Self { tokens, added, early: None, y: k.param_ptr("y", Access::Write, 4) }
    }

    pub(super) fn store(&self, k: &KernelBuilder, gemv: Gemv, first: Reg<U32>, shape: &Shape, reduced: &Reduced) {
        // Gate is the even row of a pair; the sum of its up is as many lanes away as there are copies of a sum.
        self.write(k, &Owner::of(k, gemv, first, shape), shape, reduced.sum, reduced.copies);
    }

    /// The same, and what is added to sums is what [`load`](Self::load) has loaded.
    pub(super) fn early(self, k: &KernelBuilder) -> Self {
        Self { early: self.added.map(|_| [k.var(0.0), k.var(0.0)]), ..self }
    }

    /// Begins to load what is added to the sum of a lane, in lanes that store one.
    pub(super) fn load(&self, k: &KernelBuilder, what: Added, owner: &Owner, shape: &Shape) {
        let (Some([bias, residual]), Some(added), Some(stride)) = (self.early, self.added, shape.stride) else {
            return;
        };
        match (what, added) {
            (Added::Bias, (from, _)) => k.if_(k.and(owner.owns, k.ne(k.address_of(from), 0_u64)), || {
                k.set(bias, k.ld_with(k.index(from, owner.row), PLAIN));
            }),
            (Added::Residual, (_, Some(from))) => k.if_(k.and(owner.owns, k.ne(k.address_of(from), 0_u64)), || {
                let token = k.mad(k.ctaid_y(), self.tokens, owner.token);
                // Not through the read-only path: it may be `y`.
                k.set(residual, k.ld(k.index(k.row(from, token, k.shl(stride, 2)), owner.row)));
            }),
            (Added::Residual, (_, None)) => {}
        }
    }

    /// Stores a sum of each lane. The lane with the next row is `next_row` lanes away.
    pub(super) fn write(&self, k: &KernelBuilder, owner: &Owner, shape: &Shape, sum: Reg<F32>, next_row: u32) {
        k.comment("store");
        let &Owner { row, token, owns } = owner;
        let token = k.mad(k.ctaid_y(), self.tokens, token);
        let (Some((bias, residual)), Some(stride)) = (self.added, shape.stride) else {
            let up = k.shfl_bfly(sum, next_row);
            k.if_(k.and(owns, k.eq(k.and(row, 1), 0)), || {
                let y = k.index(k.row(self.y, token, k.shl(shape.rows, 1)), k.shr(row, 1));
                k.st(y, k.mul(Activation::Silu.apply(k, sum), up));
            });
            return;
        };
        k.if_(owns, || {
            let y = k.var(sum);
            let of_token = |ptr: Ptr<F32>| k.index(k.row(ptr, token, k.shl(stride, 2)), row);
            k.if_(k.ne(k.address_of(bias), 0_u64), || match self.early {
                Some([bias, _]) => k.add_into(y, bias),
                None => k.add_into(y, k.ld_with(k.index(bias, row), PLAIN)),
            });
            if let Some(residual) = residual {
                k.if_(k.ne(k.address_of(residual), 0_u64), || match self.early {
                    Some([_, residual]) => k.add_into(y, residual),
                    // Not through the read-only path: it may be `y`.
                    None => k.add_into(y, k.ld(of_token(residual))),
                });
            }
            k.st(of_token(self.y), y);
        });
    }
}

/// The largest of all lanes whose number differs in the bits of `distances` only.
fn over_lanes(k: &KernelBuilder, own: Key, distances: &[u32]) -> Key {
    distances.iter().fold(own, |best, &distance| {
        let other = Key { order: k.shfl_bfly(best.order, distance), place: k.shfl_bfly(best.place, distance) };
        other.or(k, best, other.beats(k, best))
    })
}

impl ArgMax {
    /// Of a kernel whose blocks have `warps` warps.
    pub(super) fn params(k: &KernelBuilder, tokens: u32, warps: u32) -> Self {
        Self {
            warps,
            best: k.param_ptr("best", Access::ReadWrite, 8),
            arrivals: k.param_ptr("arrivals", Access::ReadWrite, 4),
            tokens: k.param_ptr("tokens", Access::Write, 4),
            of_warps: k.shared("of_warps", 2 * warps * tokens),
            flag: k.shared("flag", 1),
        }
    }

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
        let best = Best::new(k);
        let all_warps = k.mul(k.nctaid(), self.warps * gemv.rows_per_warp());
        let mut copies = 1;
        k.for_rolled(first, shape.rows, all_warps, |first| {
            let reduced = sums(first);
            Self::take(k, &best, gemv, first, shape, &reduced);
            copies = reduced.copies;
        });
        self.of_grid(k, gemv, &best, copies);
    }

    /// Takes the sum of a lane into account.
    pub(super) fn take(k: &KernelBuilder, best: &Best, gemv: Gemv, first: Reg<U32>, shape: &Shape, reduced: &Reduced) {
        let Owner { row, .. } = Owner::of(k, gemv, first, shape);
        // The row is inside or not, and a NaN is less than every number.
        best.update(k, Key::new(k, k.select(k.lt(row, shape.rows), reduced.sum, f32::NAN), row));
    }

    /// The largest of all lanes of the grid, where `copies` lanes hold the same.
    pub(super) fn of_grid(&self, k: &KernelBuilder, gemv: Gemv, best: &Best, copies: u32) {
        let (tokens, per_warp) = (gemv.tokens, gemv.rows_per_warp());
        k.comment("the largest of the block");
        let rows_of_token: Vec<u32> = (0..per_warp.trailing_zeros()).map(|bit| copies << bit).collect();
        let of_warp = over_lanes(k, best.key(), &rows_of_token);
        let token = k.div(k.laneid(), copies * per_warp);
        let one_per_token = k.eq(k.and(k.laneid(), copies * per_warp - 1), 0);
        k.if_(k.and(one_per_token, k.lt(token, tokens)), || {
            let at = k.index_by(self.of_warps, k.mad(k.warp(), tokens, token), 8);
            k.st2(at, [of_warp.order, of_warp.place]);
        });
        k.barrier();
        k.if_(k.lt(k.tid(), tokens), || {
            let of_token = k.index_by(self.of_warps, k.tid(), 8);
            let key = |w: u32| {
                let [order, place] = k.ld2(of_token.offset((8 * tokens * w) as i32));
                Key { order, place }
            };
            let [largest, others @ ..] = &(0..self.warps).map(key).collect::<Vec<_>>()[..] else { return };
            let of_block = others.iter().fold(*largest, |best, key| key.or(k, best, key.beats(k, best)));
            let at = k.index_by(self.best, k.mad(k.tid(), k.nctaid(), k.ctaid()), 8);
            k.st2(at, [of_block.order, of_block.place]);
        });

        k.comment("the block that arrives last finds the largest of all blocks");
        let last = arrive(k, self.arrivals, k.nctaid(), self.flag);
        k.return_if(k.not(last));
        // A warp takes a token in turn, its lanes every 32nd block.
        k.for_rolled(k.warp(), tokens, self.warps, |token| {
            let best = Best::new(k);
            k.for_(k.laneid(), k.nctaid(), 32, |block| {
                let at = k.index_by(self.best, k.mad(token, k.nctaid(), block), 8);
                let [order, place] = k.ld_vec(at, written());
                best.update(k, Key { order, place });
            });
            let winner = best.key().of_warp(k);
            k.if_(k.eq(k.laneid(), 0), || k.st(k.index(self.tokens, token), winner.token(k)));
        });
    }
}
