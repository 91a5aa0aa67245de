//! The activations of a block: encoded once, by all its threads, into shared memory.
//!
//! Tiles are those of [`activation`](crate::kernels::activation), `[groups][T]`, but the second half of their codes begins 64 bytes
//! later: a warp that stores both halves of four blocks meets no bank twice.

use super::super::weights::Activation;
use super::{Source, WARPS};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::Access;
use crate::kernels::activation::{GROUP, TILE};
use crate::kernels::format::Format;
use crate::kernels::{norm, q8};

/// Bytes of a tile.
pub(super) const BYTES: u32 = TILE as u32 + GAP;
/// Bytes between the halves.
const GAP: u32 = 64;
/// Where in a tile the second half begins.
const SECOND: u32 = 512 + GAP;
/// Where in a tile the scales begin.
const SCALES: u32 = GROUP as u32 + GAP;
/// Loads of 16 bytes that a thread has under way.
const LOADS: u32 = 4;

/// Parameters, and what is made of them.
pub(super) struct Tiles {
    tokens: u32,
    x: Ptr<F32>,
    /// Gain of a norm, and in shared memory a sum of squares of each token and warp.
    norm: Option<(Ptr<F32>, Ptr<F32, SharedSpace>)>,
    /// The first tile.
    start: Ptr<B32, SharedSpace>,
}

/// The gain of the next columns of a thread.
pub(super) struct Gain {
    gain: Ptr<F32>,
    next: Vec<[Var<F32>; 4]>,
}

impl Gain {
    /// Begins to load that of the columns from `first` on.
    fn load(&self, k: &KernelBuilder, first: Reg<U32>, columns: Reg<U32>) {
        for (j, next) in self.next.iter().enumerate() {
            load_inside(k, self.gain, k.add(first, GROUP as u32 * j as u32), columns, next);
        }
    }
}

/// Loads four values at a column, if there is such a column.
fn load_inside(k: &KernelBuilder, row: Ptr<F32>, column: Reg<U32>, columns: Reg<U32>, into: &[Var<F32>; 4]) {
    k.if_(k.lt(column, columns), || {
        for (var, x) in into.iter().zip(k.ld_vec::<_, _, 4>(k.index(row, column), LoadOptions::READ_ONLY)) {
            k.set(*var, x);
        }
    });
}

fn zeros(k: &KernelBuilder) -> [Var<F32>; 4] {
    std::array::from_fn(|_| k.var(0.0))
}

impl Tiles {
    pub(super) fn params(k: &KernelBuilder, tokens: u32, source: Source, max_bytes: u32) -> Self {
        let x = k.param_ptr("x", Access::Read, 16);
        let norm = (source == Source::Norm)
            .then(|| (k.param_ptr("gain", Access::Read, 16), k.shared("squares", tokens * WARPS)));
        Self { tokens, x, norm, start: k.dynamic_shared("activations", max_bytes) }
    }

    /// Rounds of 1024 columns whose loads are under way together.
    fn rounds(&self) -> u32 {
        LOADS / self.tokens
    }

    /// The same of those that are encoded: behind a norm, they come from the first-level cache, and the gain needs registers.
    fn encoded_rounds(&self) -> u32 {
        if self.norm.is_some() { self.rounds().min(2) } else { self.rounds() }
    }

    /// Begins to load the gain, which does not depend on the kernel before.
    pub(super) fn gain(&self, k: &KernelBuilder, columns: Reg<U32>) -> Option<Gain> {
        let (gain, _) = self.norm?;
        let gain = Gain { gain, next: (0..self.encoded_rounds()).map(|_| zeros(k)).collect() };
        gain.load(k, k.shl(k.tid(), 2), columns);
        Some(gain)
    }

    /// What the thread has of each token, of so many rounds from column `first` on: zeros where there are no columns.
    fn load(&self, k: &KernelBuilder, rounds: u32, first: Reg<U32>, columns: Reg<U32>) -> Vec<Vec<[Reg<F32>; 4]>> {
        let of_token = |token: u32| k.row(self.x, token, k.shl(columns, 2));
        let rows: Vec<_> = (0..self.tokens).map(of_token).collect();
        (0..rounds)
            .map(|j| {
                let column = k.add(first, GROUP as u32 * j);
                let load = |row: &Ptr<F32>| {
                    let x = zeros(k);
                    load_inside(k, *row, column, columns, &x);
                    x.map(Var::get)
                };
                rows.iter().map(load).collect()
            })
            .collect()
    }

    /// The reciprocal of the root of each token: the arithmetic of [`norm`], bit for bit. There is one barrier.
    fn roots(
        &self,
        k: &KernelBuilder,
        columns: Reg<U32>,
        eps: Reg<F32>,
        squares: Ptr<F32, SharedSpace>,
    ) -> Vec<Reg<F32>> {
        k.comment("sums of squares");
        let chains: Vec<_> = (0..self.tokens).map(|_| zeros(k)).collect();
        k.for_rolled(k.shl(k.tid(), 2), columns, GROUP as u32 * self.rounds(), |first| {
            for round in self.load(k, self.rounds(), first, columns) {
                for (chains, x) in chains.iter().zip(round) {
                    // Zeros change no bit of a sum of squares.
                    chains.iter().zip(x).for_each(|(chain, x)| k.fma_into(*chain, x, x));
                }
            }
        });
        let at = |token: u32, warp: u32| squares.at((token * WARPS + warp) as i32);
        for (token, [a, b, c, d]) in (0..).zip(chains) {
            let of_warp = k.warp_reduce(k.add(k.add(a, b), k.add(c, d)), |a, b| k.add(a, b));
            k.if_(k.eq(k.laneid(), 0), || k.st(k.index(at(token, 0), k.warp()), of_warp));
        }
        k.barrier();
        (0..self.tokens)
            .map(|token| {
                let sum = (1..WARPS).fold(k.ld(at(token, 0)), |sum, warp| k.add(sum, k.ld(at(token, warp))));
                norm::root(k, sum, columns, eps)
            })
            .collect()
    }

    /// Makes the tiles. A barrier follows.
    pub(super) fn make(&self, k: &KernelBuilder, columns: Reg<U32>, eps: Option<Reg<F32>>, gain: Option<&Gain>) {
        let roots = match (self.norm, eps) {
            (Some((_, squares)), Some(eps)) => self.roots(k, columns, eps, squares),
            _ => Vec::new(),
        };
        k.comment("activations in 8-bit codes");
        let (block, half) = (k.shr(k.tid(), 3), k.and(k.shr(k.tid(), 2), 1));
        let of_block = k.index_by(self.start, block, 16);
        let of_codes = k.index(k.index_by(of_block, half, SECOND), k.and(k.laneid(), 3));
        let (codes, scales) = (k.ptr_var(of_codes), k.ptr_var(of_block.offset(SCALES as i32)));
        let first_of_block = k.eq(k.and(k.laneid(), 7), 0);
        let step = GROUP as u32 * self.encoded_rounds();
        k.for_rolled(0, columns, step, |group: Reg<U32>| {
            let first = k.add(group, k.shl(k.tid(), 2));
            let rounds = self.load(k, self.encoded_rounds(), first, columns);
            for (j, round) in (0_u32..).zip(rounds) {
                let encode = || {
                    for (t, x) in (0_u32..).zip(&round) {
                        let y = match gain {
                            Some(gain) => {
                                std::array::from_fn(|i| k.mul(k.mul(x[i], roots[t as usize]), gain.next[j as usize][i]))
                            }
                            None => *x,
                        };
                        let coded = q8::encode(k, y);
                        let tile = (BYTES * (self.tokens * j + t)) as i32;
                        k.st(codes.ptr().offset(tile), coded.codes);
                        k.if_(first_of_block, || k.st4(scales.ptr().offset(tile), coded.parts(k)));
                    }
                };
                match j {
                    0 => encode(),
                    _ => k.if_(k.lt(k.add(group, GROUP as u32 * j), columns), encode),
                }
            }
            if let Some(gain) = gain {
                gain.load(k, k.add(first, step), columns);
            }
            let bytes = BYTES * self.tokens * self.encoded_rounds();
            k.step(codes, bytes);
            k.step(scales, bytes);
        });
        k.barrier();
    }

    /// Where token 0 has the block of this lane in the first group.
    pub(super) fn of_lane(&self, k: &KernelBuilder) -> Ptr<B32, SharedSpace> {
        k.index_by(self.start, k.laneid(), 16)
    }

    /// The block of a token, where that of token 0 is at `at`.
    pub(super) fn activation(k: &KernelBuilder, format: Format, at: Ptr<B32, SharedSpace>, token: u32) -> Activation {
        let at = at.offset((BYTES * token) as i32);
        Activation::load_parts(k, format, at, [SECOND as i32, SCALES as i32], LoadOptions::default())
    }
}
