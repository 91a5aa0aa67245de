//! One split of the context, for the heads of a CTA.

use super::combine::combine;
use super::fused::{Fused, Input, Place};
use super::launch::{ROUNDS, SPLIT, Spec, THREADS, WARPS};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Access, Cache, Kernel, L1, Prefetch, Target, Threads};
use crate::kernels::attention::scalars::Scalars;
use crate::kernels::kv::{self, BLOCK, INACTIVE};

/// Loads of values that are under way in a lane, from shared memory and from the cache.
const UNROLL_SHARED: u32 = 4;
const UNROLL_GLOBAL: u32 = 8;
/// Bytes that a prefetch fetches.
const LINE: u32 = 128;
/// Elements of a value that a lane takes: 16 bytes.
pub(super) const PER_LANE: u32 = 8;
/// Less than any score, and finite: the difference of two of them is a number.
pub(in crate::kernels) const LOWEST: f32 = -1e30;

/// Pointers and numbers that the parts of the kernel share.
pub(super) struct Cta<'a> {
    pub(super) k: &'a KernelBuilder,
    pub(super) spec: Spec,
    /// Dynamic shared memory.
    pub(super) shared: Ptr<B32, SharedSpace>,
    /// Keys of the warp's block in shared memory.
    pub(super) tile: Ptr<B32, SharedSpace>,
    kv: Ptr<B32>,
    pub(super) kv_head: Reg<U32>,
    blocks: Reg<U32>,
    /// First position that is seen.
    first: Reg<U32>,
    /// Last position that is seen.
    pub(super) last: Reg<U32>,
    /// Cap of scores, in units of the exponent, if there is one.
    softcap: Option<Reg<F32>>,
    /// Where the CTA keeps the key and the value of the last position, if it makes them itself.
    own: Option<Ptr<B32, SharedSpace>>,
}

/// Half of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Keys,
    Values,
}

/// Where queries come from.
enum Queries {
    Rotated(Ptr<F32>),
    Raw(Input),
}

/// Maximum, sum and output of a head, as a lane holds them.
pub(super) struct Head {
    /// The same in all lanes.
    pub(super) max: Var<F32>,
    /// Over the lane's positions.
    pub(super) sum: Var<F32>,
    /// Over the lane's positions, for its elements.
    pub(super) y: [Var<F32>; PER_LANE as usize],
}

/// `attention_…`; for [`Target::Sm90`], with dependent launch.
pub fn attention(spec: Spec, target: Target) -> Kernel {
    build(spec, None, target)
}

/// Attention, or all that is fused with it.
pub(super) fn build(spec: Spec, fused: Option<Fused>, target: Target) -> Kernel {
    let name = fused.map_or_else(|| spec.kernel(), Fused::kernel);
    let builder = KernelBuilder::new(&name);
    let k = &builder;
    k.about(match fused {
        None => "Softmax attention of rows over the paged KV cache: a CTA takes a split of the context, the last one combines them.",
        Some(_) => {
            "Rotation of queries and keys, the write to the paged KV cache, and softmax attention of rows over it:\n\
             a CTA takes a split of the context, the last one combines them."
        }
    });
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    // What shared memory leaves room for on an H100, but for small heads. Without a number, ptxas spills a register to fit 7.
    k.min_blocks(if spec.heads <= 4 && spec.head_dim == 64 { 4 } else { 3 });
    let input = match fused {
        Some(fused) => Queries::Raw(Input::params(k, fused.style)),
        None => Queries::Rotated(k.param_ptr("q", Access::Read, 16)),
    };
    let positions = k.param_ptr::<U32>("positions", Access::Read, 4);
    let sequences = k.param_ptr::<U32>("sequences", Access::Read, 4);
    let block_table = k.param_ptr::<U32>("block_table", Access::Read, 4);
    let kv = k.param_ptr::<B32>("kv", if fused.is_some() { Access::ReadWrite } else { Access::Read }, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let parts = k.param_ptr::<F32>("parts", Access::ReadWrite, 16);
    let part_sums = k.param_ptr::<F32>("part_sums", Access::ReadWrite, 8);
    let arrivals = k.param_ptr::<U32>("arrivals", Access::ReadWrite, 4);
    let scalars = Scalars::params(k, spec.softcap, spec.window);
    let Scalars { heads, group, table_width, blocks, .. } = scalars;
    let pairs = fused.map(|_| k.param_u32("pairs"));
    let shared = k.dynamic_shared::<B32>("shared", fused.map_or_else(|| spec.shared_bytes(), Fused::shared_bytes));
    let flag = k.shared::<U32>("flag", 1);
    // CTAs that have nothing to do wait, too: the end of this kernel says that those before it have ended.
    let wait = || {
        if target >= Target::Sm90 {
            k.wait_for_dependencies();
            k.launch_dependents();
        }
    };

    k.comment("which split of which row, and what the row sees: none of it depends on the kernel before");
    let (row, first_head) = (k.ctaid_z(), k.mul(k.ctaid_y(), spec.heads));
    let [last, sequence] =
        [positions, sequences].map(|of_rows| k.ld_with(k.index(of_rows, row), LoadOptions::READ_ONLY.uniform()));
    let first = scalars.first(k, last);
    let first_split = k.div(first, SPLIT);
    let splits = k.add(k.sub(k.div(last, SPLIT), first_split), 1);
    let out = k.index_by(k.row(y, row, k.mul(heads, 4 * spec.head_dim)), first_head, 4 * spec.head_dim);
    k.if_(k.eq(last, INACTIVE), || {
        wait();
        k.ret();
    });
    k.if_(k.gt(splits, k.nctaid()), || {
        // The context outgrew the grid.
        wait();
        let mine = k.mad(k.ctaid(), THREADS, k.tid());
        k.for_(mine, spec.heads * spec.head_dim, k.mul(k.nctaid(), THREADS), |i| k.st(k.index(out, i), f32::NAN));
        k.ret();
    });
    k.if_(k.ge(k.ctaid(), splits), || {
        wait();
        k.ret();
    });

    let cta = Cta {
        k,
        spec,
        shared,
        tile: k.index_by(shared, k.warp(), spec.tile_bytes()),
        kv,
        kv_head: k.div(first_head, group),
        blocks,
        first,
        last,
        softcap: scalars.cap(k),
        own: fused.map(|_| shared.offset(spec.shared_bytes() as i32)),
    };
    let split = k.add(first_split, k.ctaid());
    let block = k.var(k.mad(split, SPLIT / BLOCK, k.warp()));
    let end = k.shl(k.add(split, 1), (SPLIT / BLOCK).trailing_zeros());
    let line = k.row(block_table, sequence, k.shl(table_width, 2));
    // Of blocks that the row does not see, the entry of one that it does: their page is not used.
    let [first_block, last_block] = [first, last].map(|position| k.shr(position, BLOCK.trailing_zeros()));
    let entry = |block: Reg<U32>| {
        k.ld_with(k.index(line, k.max(k.min(block, last_block), first_block)), LoadOptions::READ_ONLY)
    };
    const { assert!(ROUNDS == 2) };
    let (this, next) = (k.var(entry(block.get())), entry(k.add(block, WARPS)));
    let own_page = fused.map(|_| cta.page(entry(last_block)));
    let copy = |part: Part, block: Reg<U32>, entry: Reg<U32>| {
        k.if_(k.and(k.lt(block, end), cta.sees(block)), || match part {
            Part::Values if !spec.values_in_shared() => cta.prefetch_values(entry),
            _ => cta.copy(part, block, entry),
        });
        k.cp_async_commit();
    };
    let copy_both = || [Part::Keys, Part::Values].map(|part| copy(part, block.get(), this.get()));

    // Scores come out in units of the exponent of 2, or, before a cap, of the cap.
    let unit = scalars.unit(k);
    let queries = shared.offset(spec.queries_at() as i32).cast::<F32>();
    match (&input, pairs, own_page) {
        (Queries::Raw(input), Some(pairs), Some(page)) => {
            let own = k.eq(k.add(k.ctaid(), 1), splits);
            let place = Place { row, first_head, heads, pairs, own, page };
            // Here, and not where they are read: the branches keep the assembler from moving all of it behind the wait.
            let sources = input.sources(&cta, &place);
            k.comment("what earlier steps left in the cache does not depend on the kernel before, either");
            copy_both();
            let second = k.add(block, WARPS);
            k.if_(cta.sees(second), || cta.prefetch_page(next));
            wait();
            input.rotate(&cta, &place, &sources, unit, queries);
        }
        (Queries::Rotated(q), ..) => {
            wait();
            copy_both();
            let of_head = k.index_by(k.row(*q, row, k.mul(heads, 4 * spec.head_dim)), first_head, 4 * spec.head_dim);
            k.for_(k.shl(k.tid(), 2), spec.heads * spec.head_dim, 4 * THREADS, |i| {
                let q = k.ld_vec::<_, _, 4>(k.index(of_head, i), LoadOptions::READ_ONLY);
                k.st4(k.index(queries, i), q.map(|q| k.mul(q, unit)));
            });
        }
        (Queries::Raw(_), ..) => {}
    }
    k.barrier();

    let state: Vec<Head> = (0..spec.heads)
        .map(|_| Head { max: k.var(LOWEST), sum: k.var(0.0), y: std::array::from_fn(|_| k.var(0.0)) })
        .collect();
    k.for_rolled(0, ROUNDS, 1, |_: Reg<U32>| {
        // A group of keys and one of values are under way, or empty.
        let (sees, following) = (cta.sees(block.get()), k.add(block, WARPS));
        k.if_(sees, || {
            cta.copied(Part::Keys, block.get());
            cta.scores(&state, block.get());
        });
        copy(Part::Keys, following, next);
        k.if_(sees, || {
            cta.copied(Part::Values, block.get());
            cta.values(&state, block.get(), this.get());
            k.warp_barrier();
        });
        copy(Part::Values, following, next);
        k.set(block, following);
        k.set(this, next);
    });
    combine(
        &cta,
        &state,
        &super::combine::Output { out, parts, part_sums, arrivals, row, first_head, heads, splits, flag },
    );
    builder.finish()
}

impl Cta<'_> {
    /// Whether the row sees a position of a block.
    fn sees(&self, block: Reg<U32>) -> Reg<Pred> {
        let k = self.k;
        let begin = k.shl(block, BLOCK.trailing_zeros());
        k.and(k.le(begin, self.last), k.ge(k.add(begin, BLOCK - 1), self.first))
    }

    /// Whether the row sees a position.
    fn sees_position(&self, position: Reg<U32>) -> Reg<Pred> {
        let (k, before) = (self.k, self.k.le(position, self.last));
        if self.spec.window { k.and(before, k.ge(position, self.first)) } else { before }
    }

    /// Whether the cache holds a position that the row sees.
    fn in_cache(&self, position: Reg<U32>) -> Reg<Pred> {
        let k = self.k;
        match self.own {
            Some(_) => k.and(self.sees_position(position), k.lt(position, self.last)),
            None => self.sees_position(position),
        }
    }

    /// The page of an entry of the block table.
    fn page(&self, entry: Reg<U32>) -> Ptr<B32> {
        kv::page(self.k, self.kv, self.kv_head, entry, self.blocks, self.spec.head_dim)
    }

    /// Values of the warp's block in shared memory.
    fn value_tile(&self) -> Ptr<B32, SharedSpace> {
        self.tile.offset((WARPS * self.spec.tile_bytes()) as i32)
    }

    /// Begins to copy the keys or the values of a block to the warp's tile; zeros for those that the row does not see.
    fn copy(&self, part: Part, block: Reg<U32>, entry: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        let lanes = spec.head_dim / PER_LANE;
        let (slot, column) = (k.div(k.laneid(), lanes), k.rem(k.laneid(), lanes));
        let half = if part == Part::Keys { 0 } else { kv::keys_bytes(spec.head_dim) };
        let from = k.index_by(self.page(entry), k.laneid(), 16).offset(half as i32);
        let position = k.mad(block, BLOCK, slot);
        for i in 0..lanes {
            // 32 lanes copy `step` positions at a time.
            let step = 32 / lanes * i;
            let read = k.select::<U32>(self.in_cache(k.add(position, step)), 16, 0);
            let to = match part {
                Part::Keys => {
                    let column = k.xor(k.xor(column, slot), step % 8);
                    k.index_by(k.index_by(self.tile, slot, spec.key_bytes()), column, 16)
                }
                Part::Values => k.index_by(self.value_tile(), k.laneid(), 16),
            };
            k.cp_async_zfill(to.offset((step * spec.key_bytes()) as i32), from.offset(512 * i as i32), read);
        }
    }

    /// Waits for keys or values that were copied, and puts those that the CTA made beside them.
    fn copied(&self, part: Part, block: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        if part == Part::Values && !spec.values_in_shared() {
            return;
        }
        k.cp_async_wait(1);
        k.warp_barrier();
        let Some(own) = self.own else { return };
        let mine = k.eq(block, k.shr(self.last, BLOCK.trailing_zeros()));
        k.if_(k.and(mine, k.lt(k.laneid(), spec.head_dim / PER_LANE)), || {
            let slot = k.rem(self.last, BLOCK);
            let (half, tile, column) = match part {
                Part::Keys => (0, self.tile, k.xor(k.laneid(), k.rem(slot, 8))),
                Part::Values => (spec.key_bytes(), self.value_tile(), k.laneid()),
            };
            let words = k.ld4(k.index_by(own.offset(half as i32), k.laneid(), 16));
            k.st4(k.index_by(k.index_by(tile, slot, spec.key_bytes()), column, 16), words);
        });
        k.warp_barrier();
    }

    /// Fetches a page to the second-level cache.
    fn prefetch_page(&self, entry: Reg<U32>) {
        let lines = self.k.index_by(self.page(entry), self.k.laneid(), LINE);
        (0..kv::page_bytes(self.spec.head_dim)).step_by(32 * LINE as usize).for_each(|at| self.prefetch(lines, at));
    }

    /// Fetches the values of a page to the second-level cache.
    fn prefetch_values(&self, entry: Reg<U32>) {
        let lines = self.k.index_by(self.page(entry), self.k.laneid(), LINE);
        let (begin, end) = (kv::keys_bytes(self.spec.head_dim), kv::page_bytes(self.spec.head_dim));
        (begin..end).step_by(32 * LINE as usize).for_each(|at| self.prefetch(lines, at));
    }

    fn prefetch(&self, lines: Ptr<B32>, at: u32) {
        self.k.prefetch(Cache::L2, lines.offset(at as i32));
    }

    /// Weights of the warp's positions in shared memory.
    fn weights(&self) -> Ptr<F32, SharedSpace> {
        let (k, spec) = (self.k, self.spec);
        let weights = self.shared.offset(spec.weights_at() as i32).cast::<F32>();
        k.index_by(weights, k.warp(), BLOCK * spec.weight_stride())
    }

    /// Scores of the block whose keys are in the tile, and the online softmax. The warp stores the weights of its
    /// positions to shared memory.
    fn scores(&self, state: &[Head], block: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        k.comment("scores: a lane takes a position");
        let scores: Vec<_> = state.iter().map(|_| k.var(0.0)).collect();
        let key = k.index_by(self.tile, k.laneid(), spec.key_bytes());
        let turn = k.shl(k.rem(k.laneid(), 8), 4);
        let queries = k.ptr_var(self.shared.offset(spec.queries_at() as i32).cast::<F32>());
        k.for_rolled(0, spec.key_bytes(), 64, |begin: Reg<U32>| {
            for part in 0..4 {
                let column = k.xor(k.xor(turn, 16 * part), begin);
                let words = k.ld4(k.displace(key, k.assume_multiple(column, 16)));
                let key: Vec<_> = words.into_iter().flat_map(|word| spec.kv.unpack(k, word)).collect();
                for (head, score) in scores.iter().enumerate() {
                    for half in 0..2 {
                        let at = 4 * (head as u32 * spec.head_dim + 8 * part + 4 * half);
                        for (j, q) in k.ld4(queries.ptr().offset(at as i32)).into_iter().enumerate() {
                            k.fma_into(*score, q, key[4 * half as usize + j]);
                        }
                    }
                }
            }
            k.step(queries, 128);
        });

        k.comment("softmax");
        let seen = self.sees_position(k.mad(block, BLOCK, k.laneid()));
        let weights = scores.iter().zip(state).map(|(score, head)| {
            let score = self.softcap.map_or(score.get(), |cap| k.mul(cap, tanh(k, score.get())));
            let score = k.select(seen, score, f32::NEG_INFINITY);
            let max = k.max(head.max, k.warp_reduce(score, |a, b| k.max(a, b)));
            let decay = k.ex2_ftz(k.sub(head.max, max));
            let weight = k.ex2_ftz(k.sub(score, max));
            k.set(head.sum, k.fma(head.sum, decay, weight));
            head.y.iter().for_each(|y| k.set(*y, k.mul(*y, decay)));
            k.set(head.max, max);
            weight
        });
        let mut weights: Vec<_> = weights.collect();
        weights.resize(weights.len().next_multiple_of(4), weights[0]);
        let mine = k.index_by(self.weights(), k.laneid(), spec.weight_stride());
        for (i, four) in weights.chunks_exact(4).enumerate() {
            k.st4(mine.offset(16 * i as i32), [four[0], four[1], four[2], four[3]]);
        }
        k.warp_barrier();
    }

    /// How values are loaded: the CTA itself may have written one.
    fn stream(&self) -> LoadOptions {
        match self.own {
            Some(_) => LoadOptions::default().l1(L1::NoAllocate).prefetch(Prefetch::B256),
            None => LoadOptions::STREAM,
        }
    }

    /// Adds the values of a block, each times its weight.
    fn values(&self, state: &[Head], block: Reg<U32>, entry: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        k.comment("values: a lane takes eight elements");
        let lanes = spec.head_dim / PER_LANE;
        let (slot, column) = (k.div(k.laneid(), lanes), k.rem(k.laneid(), lanes));
        let begin = k.shl(block, BLOCK.trailing_zeros());
        // Positions that the row does not see weigh nothing, but what the cache has there may be NaN: read a neighbour
        // instead. In shared memory they are zero.
        let last = k.min(k.sub(self.last, begin), BLOCK - 1);
        let first = k.sub(k.max(self.first, begin), begin);
        let page = k.index_by(self.page(entry).offset(kv::keys_bytes(spec.head_dim) as i32), column, 16);
        let tile = k.index_by(self.value_tile(), column, 16);
        let weights = self.weights();
        let load = |slot: Reg<U32>| {
            if spec.values_in_shared() {
                return k.ld4(k.index_by(tile, slot, spec.key_bytes()));
            }
            let read = k.min(slot, last);
            let read = if spec.window { k.max(read, first) } else { read };
            k.ld_vec(k.index_by(page, read, spec.key_bytes()), self.stream())
        };
        let unroll = if spec.values_in_shared() { UNROLL_SHARED } else { UNROLL_GLOBAL };
        let step = 32 / lanes * unroll;
        let from = if spec.window { k.mul(k.div(first, step), step) } else { k.value(0) };
        k.for_rolled(from, k.add(last, 1), step, |at| {
            let loaded: Vec<_> = (0..unroll)
                .map(|i| {
                    let slot = k.add(k.add(at, slot), 32 / lanes * i);
                    (k.index_by(weights, slot, spec.weight_stride()), load(slot))
                })
                .collect();
            for (weights, words) in loaded {
                let value: Vec<_> = words.into_iter().flat_map(|word| spec.kv.unpack(k, word)).collect();
                for (four, heads) in state.chunks(4).enumerate() {
                    for (weight, head) in k.ld4(weights.offset(16 * four as i32)).into_iter().zip(heads) {
                        head.y.iter().zip(&value).for_each(|(y, v)| k.fma_into(*y, weight, *v));
                    }
                }
            }
        });
    }
}

/// `tanh x` with an error of about 1e-7: a single instruction has one of 5e-4, which a cap multiplies.
pub(in crate::kernels) fn tanh(k: &KernelBuilder, x: Reg<F32>) -> Reg<F32> {
    let power = k.ex2_ftz(k.mul(x, 2.0 * std::f32::consts::LOG2_E));
    k.fma(k.rcp_approx(k.add(power, 1.0)), -2.0, 1.0)
}
