//! The kernel: a tile of rows against one block of the context after the other.

use super::launch::{Spec, THREADS, TILE};
use crate::build::{B32, F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, U32, Var};
use crate::ir::{Access, Kernel, Target, Threads};
use crate::kernels::attention::scalars::Scalars;
use crate::kernels::attention::{LOWEST, tanh};
use crate::kernels::kv::{self, BLOCK, KvType};

/// Fragments of scores: 8 positions each.
const COLUMNS: u32 = BLOCK / 8;

/// What the parts of the kernel share.
struct Cta<'a> {
    k: &'a KernelBuilder,
    spec: Spec,
    shared: Ptr<B32, SharedSpace>,
    /// Line of the block table.
    line: Ptr<U32>,
    kv: Ptr<B32>,
    kv_head: Reg<U32>,
    blocks: Reg<U32>,
    /// First position that the first row sees.
    first: Reg<U32>,
    /// Last position that the last row sees.
    last: Reg<U32>,
    /// Positions of the lane's two rows.
    rows: [Reg<U32>; 2],
    /// Position of the first row of the warp.
    warp_row: Reg<U32>,
    /// Multiplies scores: to the exponent of 2, or, before a cap, to units of the cap.
    unit: Reg<F32>,
    /// Cap of scores, in units of the exponent, if there is one.
    softcap: Option<Reg<F32>>,
    window: Option<Reg<U32>>,
}

/// Online softmax of the lane's two rows, and the warp's output.
struct State {
    max: [Var<F32>; 2],
    sum: [Var<F32>; 2],
    /// A fragment per 8 elements of the head.
    y: Vec<[Var<F32>; 4]>,
}

/// Fragments of queries, one per 16 elements of the head.
enum Queries {
    Registers(Vec<[Reg<B32>; 4]>),
    /// The lane's part of the first; the next is 512 bytes further.
    Shared(Ptr<B32, SharedSpace>),
}

/// `attention_prefill_…`; for [`Target::Sm90`], with dependent launch.
pub fn attention_prefill(spec: Spec, target: Target) -> Kernel {
    let builder = KernelBuilder::new(&spec.kernel());
    let k = &builder;
    k.about(
        "Softmax attention of a tile of rows over the paged KV cache, on tensor cores. A CTA takes a tile and a head.",
    );
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    // Without a number, ptxas spills registers to fit one CTA more.
    k.min_blocks(if spec.head_dim == 64 { 4 } else { 2 });
    let q = k.param_ptr::<F32>("q", Access::Read, 16);
    let tiles = k.param_ptr::<U32>("tiles", Access::Read, 16);
    let block_table = k.param_ptr::<U32>("block_table", Access::Read, 4);
    let kv = k.param_ptr::<B32>("kv", Access::Read, 16);
    let y = k.param_ptr::<F32>("y", Access::Write, 16);
    let scalars = Scalars::params(k, spec.softcap, spec.window);
    let Scalars { heads, group, table_width, blocks, window, .. } = scalars;
    let shared = k.dynamic_shared::<B32>("shared", spec.shared_bytes());
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }

    k.comment("which rows, and what they see");
    let tile = k.index_by(tiles, k.ctaid(), 16);
    let [first_row, rows, sequence, position] = k.ld_vec(tile, LoadOptions::READ_ONLY.uniform());
    k.return_if(k.eq(rows, 0));
    let last_row = k.sub(rows, 1);
    let head = k.ctaid_y();
    // The lane's rows are `of_lane` and 8 further.
    let warp_first = k.shl(k.warp(), 4);
    let of_lane = k.add(warp_first, k.shr(k.laneid(), 2));
    let own = [of_lane, k.add(of_lane, 8)];
    let cta = Cta {
        k,
        spec,
        shared,
        line: k.row(block_table, sequence, k.shl(table_width, 2)),
        kv,
        kv_head: k.div(head, group),
        blocks,
        first: scalars.first(k, position),
        last: k.add(position, last_row),
        rows: own.map(|row| k.add(position, row)),
        warp_row: k.add(position, warp_first),
        unit: scalars.unit(k),
        softcap: scalars.cap(k),
        window,
    };
    let block = k.var(k.div(cta.first, BLOCK));
    cta.copy(block.get());

    // Rows behind the last one of the tile compute what the last one does, and store nothing.
    let row_bytes = k.mul(heads, 4 * spec.head_dim);
    let of_row = |ptr: Ptr<F32>, row: Reg<U32>| {
        let column = k.shl(k.and(k.laneid(), 3), 1);
        let row = k.row(ptr, k.add(first_row, row), row_bytes);
        k.index(k.index_by(row, head, 4 * spec.head_dim), column)
    };
    let queries = cta.queries(own.map(|row| of_row(q, k.min(row, last_row))));
    let state = State {
        max: [k.var(LOWEST), k.var(LOWEST)],
        sum: [k.var(0.0), k.var(0.0)],
        y: (0..spec.head_dim / 8).map(|_| std::array::from_fn(|_| k.var(0.0))).collect(),
    };
    k.while_rolled(
        || k.le(k.shl(block, BLOCK.trailing_zeros()), cta.last),
        || {
            k.cp_async_wait(0);
            k.barrier();
            let next = k.add(block, 1);
            k.if_(k.le(k.shl(next, BLOCK.trailing_zeros()), cta.last), || cta.copy(next));
            let scores = cta.scores(&queries, block.get());
            cta.mask(&scores, block.get());
            cta.softmax(&state, &scores);
            cta.values(&state, &scores, block.get());
            k.set(block, next);
        },
    );

    k.comment("divide by the sums, and store");
    for (half, row) in own.into_iter().enumerate() {
        let sum = [1_u32, 2].iter().fold(state.sum[half].get(), |sum, &lane| k.add(sum, k.shfl_bfly(sum, lane)));
        let inverse = k.rcp_rn(sum);
        k.if_(k.lt(row, rows), || {
            let out = of_row(y, row);
            for (i, y) in state.y.iter().enumerate() {
                k.st2(out.at(8 * i as i32), [y[2 * half], y[2 * half + 1]].map(|y| k.mul(y, inverse)));
            }
        });
    }
    builder.finish()
}

impl Cta<'_> {
    /// Begins to copy keys and values of a block; zeros for positions that no row sees.
    fn copy(&self, block: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        let columns = spec.head_dim / 8;
        let page = k.ld_with(k.index(self.line, block), LoadOptions::READ_ONLY);
        let page = kv::page(k, self.kv, self.kv_head, page, self.blocks, spec.head_dim);
        let from = k.index_by(page, k.tid(), 16);
        let stage = self.stage(block);
        let (row, column) = (k.div(k.tid(), columns), k.rem(k.tid(), columns));
        // As `columns` threads copy a row, the threads of a round copy a multiple of 4 rows: for 4 rows, the swizzle
        // alternates.
        let rows = THREADS / columns;
        let position = k.mad(block, BLOCK, row);
        let swizzled: Vec<_> = (0..8_u32.div_ceil(rows))
            .map(|i| {
                let row = k.add(row, i * rows);
                k.index_by(k.index_by(stage, row, 2 * spec.head_dim), k.xor(column, k.and(row, 7)), 16)
            })
            .collect();
        for round in 0..2 * BLOCK / rows {
            let first = round * rows;
            let position = k.add(position, first % BLOCK);
            let seen = k.and(k.le(position, self.last), k.ge(position, self.first));
            let (turn, turns) = (round % swizzled.len() as u32, round / swizzled.len() as u32);
            let to = swizzled[turn as usize].offset((turns * swizzled.len() as u32 * rows * 2 * spec.head_dim) as i32);
            let read = k.select::<U32>(seen, 16, 0);
            k.cp_async_zfill(to, from.offset((round * THREADS * 16) as i32), read);
        }
        k.cp_async_commit();
    }

    /// Where a block is in shared memory.
    fn stage(&self, block: Reg<U32>) -> Ptr<B32, SharedSpace> {
        self.k.index_by(self.shared, self.k.and(block, 1), self.spec.stage_bytes())
    }

    /// Rounds the queries of the lane's rows to fragments.
    fn queries(&self, rows: [Ptr<F32>; 2]) -> Queries {
        let (k, spec) = (self.k, self.spec);
        let fragment = |i: u32| -> [Reg<B32>; 4] {
            std::array::from_fn(|j| {
                let at = rows[j % 2].at((16 * i + 8 * (j as u32 / 2)) as i32);
                let [low, high] = k.ld_vec(at, LoadOptions::READ_ONLY);
                spec.kv.pack(k, low, high)
            })
        };
        let fragments = spec.head_dim / 16;
        if !spec.queries_in_shared() {
            return Queries::Registers((0..fragments).map(fragment).collect());
        }
        let of_warp = k.index_by(self.shared.offset(2 * spec.stage_bytes() as i32), k.warp(), 2 * 16 * spec.head_dim);
        let of_lane = k.index_by(of_warp, k.laneid(), 16);
        (0..fragments).for_each(|i| k.st4(of_lane.offset(512 * i as i32), fragment(i)));
        Queries::Shared(of_lane)
    }

    /// Scores of the warp's rows against a block, in units of the exponent.
    fn scores(&self, queries: &Queries, block: Reg<U32>) -> Vec<[Var<F32>; 4]> {
        let (k, spec) = (self.k, self.spec);
        k.comment("scores");
        let scores: Vec<[Var<F32>; 4]> = (0..COLUMNS).map(|_| std::array::from_fn(|_| k.var(0.0))).collect();
        let matrix = k.shr(k.laneid(), 3);
        let row = k.mad(k.shr(matrix, 1), 8, k.and(k.laneid(), 7));
        let keys = k.index_by(self.stage(block), row, 2 * spec.head_dim);
        for i in 0..spec.head_dim / 16 {
            let query = match queries {
                Queries::Registers(fragments) => fragments[i as usize],
                Queries::Shared(first) => k.ld4(first.offset(512 * i as i32)),
            };
            // Rows of a matrix lie 8 apart, so one swizzle serves all of them.
            let column = k.xor(k.add(k.and(matrix, 1), 2 * i), k.and(k.laneid(), 7));
            let keys = k.index_by(keys, column, 16);
            for (j, pair) in scores.chunks_exact(2).enumerate() {
                let [a, b, c, d] = k.ldmatrix(keys.offset((16 * j as u32 * 2 * spec.head_dim) as i32));
                mma(k, spec.kv, pair[0], query, [a, b]);
                mma(k, spec.kv, pair[1], query, [c, d]);
            }
        }
        for score in scores.iter().flatten() {
            let scaled = k.mul(score.get(), self.unit);
            k.set(*score, self.softcap.map_or(scaled, |cap| k.mul(cap, tanh(k, scaled))));
        }
        scores
    }

    /// Takes out the positions of a block that a row does not see, where there are any.
    fn mask(&self, scores: &[[Var<F32>; 4]], block: Reg<U32>) {
        let k = self.k;
        let begin = k.shl(block, BLOCK.trailing_zeros());
        let beyond = k.gt(k.add(begin, BLOCK - 1), self.warp_row);
        let edge = self.window.map_or(beyond, |window| {
            // The last row of the warp does not see the first position.
            k.or(beyond, k.le(k.add(begin, window), k.add(self.warp_row, 15)))
        });
        k.if_(edge, || {
            let first = k.add(begin, k.shl(k.and(k.laneid(), 3), 1));
            for (j, fragment) in scores.iter().enumerate() {
                for (i, score) in fragment.iter().enumerate() {
                    let position = k.add(first, (8 * j + i % 2) as u32);
                    let seen = self.sees(self.rows[i / 2], position);
                    k.set(*score, k.select(seen, score.get(), f32::NEG_INFINITY));
                }
            }
        });
    }

    /// Whether the row at a position sees another.
    fn sees(&self, row: Reg<U32>, position: Reg<U32>) -> Reg<Pred> {
        let k = self.k;
        let before = k.le(position, row);
        self.window.map_or(before, |window| k.and(before, k.gt(k.add(position, window), row)))
    }

    /// Turns scores into weights, and brings the state to the new maxima.
    fn softmax(&self, state: &State, scores: &[[Var<F32>; 4]]) {
        let k = self.k;
        k.comment("softmax");
        for half in 0..2 {
            let own: Vec<Var<F32>> = scores.iter().flat_map(|s| [s[2 * half], s[2 * half + 1]]).collect();
            let largest = own[1..].iter().fold(own[0].get(), |max, score| k.max(max, *score));
            // Four lanes share a row.
            let largest = [1_u32, 2].iter().fold(largest, |max, &lane| k.max(max, k.shfl_bfly(max, lane)));
            let max = k.max(state.max[half], largest);
            let decay = k.ex2_ftz(k.sub(state.max[half], max));
            k.set(state.max[half], max);
            let sum = k.var(k.mul(state.sum[half], decay));
            for score in own {
                k.set(score, k.ex2_ftz(k.sub(score, max)));
                k.add_into(sum, score);
            }
            k.set(state.sum[half], sum);
            for y in &state.y {
                y[2 * half..2 * half + 2].iter().for_each(|y| k.set(*y, k.mul(*y, decay)));
            }
        }
    }

    /// Adds the values of a block, each times its weight.
    fn values(&self, state: &State, weights: &[[Var<F32>; 4]], block: Reg<U32>) {
        let (k, spec) = (self.k, self.spec);
        k.comment("values");
        let matrix = k.shr(k.laneid(), 3);
        let row = k.mad(k.and(matrix, 1), 8, k.and(k.laneid(), 7));
        let values = k.index_by(self.stage(block).offset(kv::keys_bytes(spec.head_dim) as i32), row, 2 * spec.head_dim);
        let fragments: Vec<[Reg<B32>; 4]> = weights
            .chunks_exact(2)
            .map(|pair| {
                let pack = |w: [Var<F32>; 4], half: usize| spec.kv.pack(k, w[2 * half], w[2 * half + 1]);
                [pack(pair[0], 0), pack(pair[0], 1), pack(pair[1], 0), pack(pair[1], 1)]
            })
            .collect();
        for (i, pair) in state.y.chunks_exact(2).enumerate() {
            let column = k.xor(k.add(k.shr(matrix, 1), 2 * i as u32), k.and(k.laneid(), 7));
            let values = k.index_by(values, column, 16);
            for (j, weights) in fragments.iter().enumerate() {
                let [a, b, c, d] = k.ldmatrix_trans(values.offset((16 * j as u32 * 2 * spec.head_dim) as i32));
                mma(k, spec.kv, pair[0], *weights, [a, b]);
                mma(k, spec.kv, pair[1], *weights, [c, d]);
            }
        }
    }
}

fn mma(k: &KernelBuilder, kv: KvType, into: [Var<F32>; 4], a: [Reg<B32>; 4], b: [Reg<B32>; 2]) {
    match kv {
        KvType::F16 => k.mma_f16_into(into, a, b),
        KvType::Bf16 => k.mma_bf16_into(into, a, b),
    }
}

const _: () = assert!(TILE == THREADS / 32 * 16, "a warp takes 16 rows");
