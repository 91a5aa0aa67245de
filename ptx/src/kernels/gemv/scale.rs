//! A norm that was put off: products are scaled by what the norm would have divided the activations by.
//!
//! `W (x / rms(x) · gain) = (W (x · gain)) / rms(x)`. So the kernel that makes `x` can round `x · gain` block by block, before anybody
//! knows the whole row, and leave the sum of squares of each block ([`Epilogue::SumQ8`](super::Epilogue::SumQ8)); the kernels that
//! multiply add them up, each for itself. The order is the same in all of them: a lane takes every 32nd block, then comes the tree of
//! [`over_lanes`]. [`norm`](crate::kernels::norm) adds in another order, and rounds to codes after it has divided: results agree with
//! it to the rounding of both, not to the bit.

use super::reduce::over_lanes;
use super::{MAX_TOKENS, PLAIN, Shape};
use crate::build::{F32, KernelBuilder, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::Access;

/// Squares that are asked for before the products of a single token.
const EARLY: u32 = 2;

/// The parameter behind the activations.
#[derive(Clone, Copy)]
pub(super) struct Squares {
    tokens: u32,
    squares: Ptr<F32>,
}

/// What scales the sums of a kernel, if anything does.
#[derive(Clone)]
pub(super) struct Scale {
    squares: Squares,
    eps: Reg<F32>,
    /// The squares of a single token that were asked for early.
    early: Vec<Var<F32>>,
}

impl Squares {
    pub(super) fn params(k: &KernelBuilder, tokens: u32) -> Self {
        Self { tokens, squares: k.param_ptr("squares", Access::Read, 4) }
    }

    /// The last parameter.
    pub(super) fn scale(self, k: &KernelBuilder) -> Scale {
        Scale { squares: self, eps: k.param_f32("eps"), early: Vec::new() }
    }

    /// Squares of a token of the chunk.
    fn of(&self, k: &KernelBuilder, shape: &Shape, token: Reg<U32>) -> Ptr<F32> {
        let row = k.mad(k.ctaid_y(), self.tokens, token);
        k.row(self.squares, row, k.shl(k.shr(shape.columns, 5), 2))
    }
}

impl Scale {
    /// Begins to load, so that the squares of a single token are there when its products are.
    pub(super) fn begin(&mut self, k: &KernelBuilder, shape: &Shape) {
        if self.squares.tokens > 1 {
            return;
        }
        let (of_token, blocks) = (self.squares.of(k, shape, k.value(0)), k.shr(shape.columns, 5));
        self.early = (0..EARLY)
            .map(|i| {
                let (block, square) = (k.add(k.laneid(), 32 * i), k.var(0.0));
                k.if_(k.lt(block, blocks), || k.set(square, k.ld_with(k.index(of_token, block), PLAIN)));
                square
            })
            .collect();
    }

    /// What this lane has of the squares of a token.
    fn of_lane(&self, k: &KernelBuilder, shape: &Shape, token: Reg<U32>) -> Reg<F32> {
        let (of_token, blocks) = (self.squares.of(k, shape, token), k.shr(shape.columns, 5));
        let sum = k.var(0.0);
        self.early.iter().for_each(|square| k.add_into(sum, *square));
        let first = k.add(k.laneid(), 32 * self.early.len() as u32);
        k.for_rolled(first, blocks, 32, |block| k.add_into(sum, k.ld_with(k.index(of_token, block), PLAIN)));
        sum.get()
    }

    /// The reciprocal of the root, of the mean of all squares.
    fn root(&self, k: &KernelBuilder, shape: &Shape, sum: Reg<F32>) -> Reg<F32> {
        k.rcp_rn(k.sqrt_rn(k.add(k.div_rn(sum, k.to_f32(shape.columns)), self.eps)))
    }

    /// The factor of the token whose sums a lane holds after [`over_lanes`] of `R` rows of each token: tokens lie in the same
    /// lanes, whatever `R` is.
    pub(super) fn of_warp(&self, k: &KernelBuilder, shape: &Shape) -> Reg<F32> {
        k.comment("the norm that was put off");
        let tokens = 0..self.squares.tokens;
        let sums = tokens.map(|token| self.of_lane(k, shape, k.value(token))).collect();
        self.root(k, shape, over_lanes(k, sums).sum)
    }

    /// Factors of [`MAX_TOKENS`] tokens in shared memory, by as many warps, for after the next barrier.
    pub(super) fn of_block(&self, k: &KernelBuilder, shape: &Shape) -> Ptr<F32, SharedSpace> {
        k.comment("the norm that was put off: a token per warp");
        let roots = k.shared::<F32>("roots", MAX_TOKENS);
        let sum = k.warp_reduce(self.of_lane(k, shape, k.warp()), |a, b| k.add(a, b));
        k.if_(k.eq(k.laneid(), 0), || k.st(k.index(roots, k.warp()), self.root(k, shape, sum)));
        roots
    }
}
