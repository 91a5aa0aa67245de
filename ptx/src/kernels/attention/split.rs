//! One split of the context, for the heads of a CTA.

use super::combine::combine;
use super::launch::{ROUNDS, SPLIT, Spec, THREADS, WARPS};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Access, Kernel, Target, Threads};
use crate::kernels::attention::scalars::Scalars;
use crate::kernels::kv::{self, BLOCK, INACTIVE};

/// Loads of values that are under way in a lane.
const UNROLL: u32 = 4;
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
    /// Line of the block table.
    line: Ptr<U32>,
    kv: Ptr<B32>,
    kv_head: Reg<U32>,
    blocks: Reg<U32>,
    /// First position that is seen.
    first: Reg<U32>,
    /// Last position that is seen.
    last: Reg<U32>,
    /// Cap of scores, in units of the exponent, if there is one.
    softcap: Option<Reg<F32>>,
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
    let builder = KernelBuilder::new(&spec.kernel());
    let k = &builder;
    k.about("Softmax attention of rows over the paged KV cache: a CTA takes a split of the context, the last one combines them.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    // What shared memory leaves room for on an H100. Without a number, ptxas spills a register to fit 7.
    k.min_blocks(if spec.heads <= 4 { 5 } else { 3 });
    let q = k.param_ptr::<F32>("q", Access::Read, 16);
    let positions = k.param_ptr::<U32>("positions", Access::Read, 4);
    let sequences = k.param_ptr::<U32>("sequences", Access::Read, 4);
    let block_table = k.param_ptr::<U32>("block_table", Access::Read, 4);
    let kv = k.param_ptr::<B32>("kv", Access::Read, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let parts = k.param_ptr::<F32>("parts", Access::ReadWrite, 16);
    let part_sums = k.param_ptr::<F32>("part_sums", Access::ReadWrite, 8);
    let arrivals = k.param_ptr::<U32>("arrivals", Access::ReadWrite, 4);
    let scalars = Scalars::params(k, spec.softcap, spec.window);
    let Scalars { heads, group, table_width, blocks, .. } = scalars;
    let shared = k.dynamic_shared::<B32>("shared", spec.shared_bytes());
    let flag = k.shared::<U32>("flag", 1);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }

    k.comment("which split of which row, and what the row sees");
    let (row, first_head) = (k.ctaid_z(), k.mul(k.ctaid_y(), spec.heads));
    let last = k.ld_with(k.index(positions, row), LoadOptions::READ_ONLY.uniform());
    k.return_if(k.eq(last, INACTIVE));
    let first = scalars.first(k, last);
    let first_split = k.div(first, SPLIT);
    let splits = k.add(k.sub(k.div(last, SPLIT), first_split), 1);
    let out = k.index_by(k.row(y, row, k.mul(heads, 4 * spec.head_dim)), first_head, 4 * spec.head_dim);
    k.if_(k.gt(splits, k.nctaid()), || {
        // The context outgrew the grid.
        let mine = k.mad(k.ctaid(), THREADS, k.tid());
        k.for_(mine, spec.heads * spec.head_dim, k.mul(k.nctaid(), THREADS), |i| k.st(k.index(out, i), f32::NAN));
        k.ret();
    });
    k.return_if(k.ge(k.ctaid(), splits));

    let sequence = k.ld_with(k.index(sequences, row), LoadOptions::READ_ONLY.uniform());
    let cta = Cta {
        k,
        spec,
        shared,
        tile: k.index_by(shared, k.warp(), spec.tile_bytes()),
        line: k.row(block_table, sequence, k.shl(table_width, 2)),
        kv,
        kv_head: k.div(first_head, group),
        blocks,
        first,
        last,
        softcap: scalars.cap(k),
    };
    let split = k.add(first_split, k.ctaid());
    let block = k.var(k.mad(split, SPLIT / BLOCK, k.warp()));
    let end = k.shl(k.add(split, 1), (SPLIT / BLOCK).trailing_zeros());
    let copy = |block: Reg<U32>| k.if_(k.and(k.lt(block, end), cta.sees(block)), || cta.copy_keys(block));
    copy(block.get());

    // Scores come out in units of the exponent of 2, or, before a cap, of the cap.
    let unit = scalars.unit(k);
    let of_head = k.index_by(k.row(q, row, k.mul(heads, 4 * spec.head_dim)), first_head, 4 * spec.head_dim);
    let queries = shared.offset(spec.queries_at() as i32).cast::<F32>();
    k.for_(k.shl(k.tid(), 2), spec.heads * spec.head_dim, 4 * THREADS, |i| {
        let q = k.ld_vec::<_, _, 4>(k.index(of_head, i), LoadOptions::READ_ONLY);
        k.st4(k.index(queries, i), q.map(|q| k.mul(q, unit)));
    });
    k.barrier();

    let state: Vec<Head> = (0..spec.heads)
        .map(|_| Head { max: k.var(LOWEST), sum: k.var(0.0), y: std::array::from_fn(|_| k.var(0.0)) })
        .collect();
    k.for_rolled(0, ROUNDS, 1, |_: Reg<U32>| {
        k.cp_async_wait(0);
        k.warp_barrier();
        let next = k.add(block, WARPS);
        let attend = || {
            let weights = cta.scores(&state, block.get());
            copy(next);
            cta.values(&state, block.get(), weights);
        };
        k.if_else(cta.sees(block.get()), attend, || copy(next));
        k.set(block, next);
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

    /// The page of a block.
    fn page(&self, block: Reg<U32>) -> Ptr<B32> {
        let k = self.k;
        let block = k.ld_with(k.index(self.line, block), LoadOptions::READ_ONLY);
        kv::page(k, self.kv, self.kv_head, block, self.blocks, self.spec.head_dim)
    }

    /// Begins to copy the keys of a block to the warp's tile; zeros for those that the row does not see.
    fn copy_keys(&self, block: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        let lanes = spec.head_dim / PER_LANE;
        let (slot, column) = (k.div(k.laneid(), lanes), k.rem(k.laneid(), lanes));
        let from = k.index_by(self.page(block), k.laneid(), 16);
        let to = k.index_by(k.index_by(self.tile, slot, spec.key_stride()), column, 16);
        let position = k.mad(block, BLOCK, slot);
        for i in 0..lanes {
            // 32 lanes copy `step` keys at a time.
            let step = 32 / lanes * i;
            let read = k.select::<U32>(self.sees_position(k.add(position, step)), 16, 0);
            k.cp_async_zfill(to.offset((step * spec.key_stride()) as i32), from.offset(512 * i as i32), read);
        }
        k.cp_async_commit();
    }

    /// Scores of the block whose keys are in the tile, and the online softmax. Gives the weights of its positions,
    /// which the warp has stored to shared memory.
    fn scores(&self, state: &[Head], block: Reg<U32>) -> Ptr<F32, SharedSpace> {
        let (k, spec) = (self.k, self.spec);
        k.comment("scores: a lane takes a position");
        let scores: Vec<_> = state.iter().map(|_| k.var(0.0)).collect();
        let key = k.ptr_var(k.index_by(self.tile, k.laneid(), spec.key_stride()));
        let queries = k.ptr_var(self.shared.offset(spec.queries_at() as i32).cast::<F32>());
        k.for_rolled(0, spec.head_dim / 32, 1, |_: Reg<U32>| {
            for part in 0..4 {
                let words = k.ld4(key.ptr().offset(16 * part));
                let key: Vec<_> = words.into_iter().flat_map(|word| spec.kv.unpack(k, word)).collect();
                for (head, score) in scores.iter().enumerate() {
                    for half in 0..2 {
                        let at = 4 * (head as i32 * spec.head_dim as i32 + 8 * part + 4 * half);
                        for (j, q) in k.ld4(queries.ptr().offset(at)).into_iter().enumerate() {
                            k.fma_into(*score, q, key[4 * half as usize + j]);
                        }
                    }
                }
            }
            k.step(key, 64);
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
        let of_warp = k.index_by(
            self.shared.offset(spec.weights_at() as i32).cast::<F32>(),
            k.warp(),
            BLOCK * spec.weight_stride(),
        );
        let mine = k.index_by(of_warp, k.laneid(), spec.weight_stride());
        for (i, four) in weights.chunks_exact(4).enumerate() {
            k.st4(mine.offset(16 * i as i32), [four[0], four[1], four[2], four[3]]);
        }
        k.warp_barrier();
        of_warp
    }

    /// Adds the values of a block, each times its weight.
    fn values(&self, state: &[Head], block: Reg<U32>, weights: Ptr<F32, SharedSpace>) {
        let (k, spec) = (self.k, self.spec);
        k.comment("values: a lane takes eight elements");
        let lanes = spec.head_dim / PER_LANE;
        let (slot, column) = (k.div(k.laneid(), lanes), k.rem(k.laneid(), lanes));
        let begin = k.shl(block, BLOCK.trailing_zeros());
        // Positions that the row does not see weigh nothing, but what is stored there may be NaN: read a neighbour
        // instead.
        let last = k.min(k.sub(self.last, begin), BLOCK - 1);
        let first = k.sub(k.max(self.first, begin), begin);
        let values = k.index_by(self.page(block).offset(kv::keys_bytes(spec.head_dim) as i32), column, 16);
        let step = 32 / lanes * UNROLL;
        let from = if spec.window { k.mul(k.div(first, step), step) } else { k.value(0) };
        k.for_rolled(from, k.add(last, 1), step, |at| {
            let loaded: Vec<_> = (0..UNROLL)
                .map(|i| {
                    let slot = k.add(k.add(at, slot), 32 / lanes * i);
                    let read = k.min(slot, last);
                    let read = if spec.window { k.max(read, first) } else { read };
                    let value = k.index_by(values, read, 2 * spec.head_dim);
                    (k.index_by(weights, slot, spec.weight_stride()), k.ld_vec::<_, _, 4>(value, LoadOptions::STREAM))
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
