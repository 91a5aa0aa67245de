//! A tile of a matrix product on tensor cores, with a pipeline of asynchronous copies.

use brick_ptx::build::{B32, Bf16, F32, KernelBuilder, Ptr, Reg, SharedSpace, U32, Var};
use brick_ptx::ir::{Access, Kernel, Threads};

const TILE: u32 = 64;
const DEPTH: u32 = 32;
const STAGES: u32 = 3;
/// Bytes of a row of a tile.
const ROW: u32 = DEPTH * 2;
const TILE_BYTES: u32 = TILE * ROW;
const STAGE_BYTES: u32 = 2 * TILE_BYTES;

/// Four warps, each of 32×32 of the tile: two fragments along m, four along n.
pub(crate) fn kernel() -> Kernel {
    let k = KernelBuilder::new("gemm_bf16");
    k.about(
        "C = A * B^T with A m*k, B n*k (bf16, row-major) and C m*n (f32); m, n multiples of 64, k of 32.\n\
         A block of four warps makes a 64*64 tile; copies of three steps of 32 along k are under way.",
    );
    k.threads(Threads::Exactly([128, 1, 1]));
    let a = k.param_ptr::<Bf16>("a", Access::Read, 16);
    let b = k.param_ptr::<Bf16>("b", Access::Read, 16);
    let c = k.param_ptr::<F32>("c", Access::Write, 16);
    let n = k.param_u32_multiple_of("n", 64);
    let depth = k.param_u32_multiple_of("depth", 32);
    let ring = k.dynamic_shared::<B32>("ring", STAGES * STAGE_BYTES);

    let row_bytes = k.shl(depth, 1);
    let (tile_m, tile_n) = (k.shl(k.ctaid_y(), 6), k.shl(k.ctaid(), 6));
    let copy = Copy { row_bytes, a: k.row(a, tile_m, row_bytes).cast(), b: k.row(b, tile_n, row_bytes).cast() };
    let steps = k.shr(depth, 5);

    k.comment("the first two steps");
    for stage in 0..STAGES - 1 {
        k.if_(k.gt(steps, stage), || copy.begin(&k, ring.offset((stage * STAGE_BYTES) as i32), k.value(stage)));
        k.cp_async_commit();
    }

    let acc: [[[Var<F32>; 4]; 4]; 2] =
        std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| k.var(0.0))));
    let warp_m = k.shl(k.and(k.warp(), 1), 5);
    let warp_n = k.shl(k.shr(k.warp(), 1), 5);
    k.for_rolled(0, steps, 1, |step| {
        k.cp_async_wait(STAGES - 2);
        k.barrier();
        k.comment("begin the copy that goes where everybody has read");
        let ahead = k.add(step, STAGES - 1);
        k.if_(k.lt(ahead, steps), || copy.begin(&k, k.index_by(ring, k.rem(ahead, STAGES), STAGE_BYTES), ahead));
        k.cp_async_commit();

        let tile = k.index_by(ring, k.rem(step, STAGES), STAGE_BYTES);
        for half in 0..2 {
            let a: [[Reg<B32>; 4]; 2] = std::array::from_fn(|i| {
                let row = k.add(warp_m, 16 * i as u32);
                k.ldmatrix(swizzled(&k, tile, k.add(row, k.and(k.laneid(), 15)), half, k.shr(k.laneid(), 4)))
            });
            let b: [[Reg<B32>; 4]; 2] = std::array::from_fn(|j| {
                let row = k.add(warp_n, 16 * j as u32);
                let in_tile = k.add(k.and(k.laneid(), 7), k.shl(k.shr(k.laneid(), 4), 3));
                let column = k.and(k.shr(k.laneid(), 3), 1);
                k.ldmatrix(swizzled(&k, tile.offset(TILE_BYTES as i32), k.add(row, in_tile), half, column))
            });
            for (i, acc) in acc.iter().enumerate() {
                for (j, acc) in acc.iter().enumerate() {
                    let b = [b[j / 2][2 * (j % 2)], b[j / 2][2 * (j % 2) + 1]];
                    k.mma_bf16_into(*acc, a[i], b);
                }
            }
        }
    });

    k.comment("store");
    let row = k.add(k.add(tile_m, warp_m), k.shr(k.laneid(), 2));
    let column = k.add(k.add(tile_n, warp_n), k.shl(k.and(k.laneid(), 3), 1));
    let out = k.index(k.row(c, row, k.shl(n, 2)), column);
    for (i, acc) in acc.iter().enumerate() {
        for half in 0..2 {
            let out = k.displace(out, k.widen(k.mul(n, (16 * i as u32 + 8 * half) * 4)));
            for (j, acc) in acc.iter().enumerate() {
                k.st2(out.at(8 * j as i32), [acc[2 * half as usize].get(), acc[2 * half as usize + 1].get()]);
            }
        }
    }
    k.finish()
}

/// What the copies of all steps share.
struct Copy {
    row_bytes: Reg<U32>,
    a: Ptr<B32>,
    b: Ptr<B32>,
}

impl Copy {
    /// Begins to copy step number `step` of both tiles: 64 rows of four chunks of 16 bytes, two chunks per thread and tile.
    fn begin(&self, k: &KernelBuilder, stage: Ptr<B32, SharedSpace>, step: Reg<U32>) {
        let column = k.and(k.tid(), 3);
        for pass in 0..2 {
            let row = k.add(k.shr(k.tid(), 2), 32 * pass);
            let from = k.add(k.mul(step, ROW), k.shl(column, 4));
            for (to, base) in [(stage, self.a), (stage.offset(TILE_BYTES as i32), self.b)] {
                let from = k.displace(k.row(base, row, self.row_bytes), k.widen(from));
                k.cp_async_bypass(swizzled(k, to, row, 0, column), from);
            }
        }
    }
}

/// Chunk `2·half + column` of a row, in the place that keeps eight rows of one column in different banks.
fn swizzled(
    k: &KernelBuilder,
    tile: Ptr<B32, SharedSpace>,
    row: Reg<U32>,
    half: u32,
    column: Reg<U32>,
) -> Ptr<B32, SharedSpace> {
    let chunk = k.xor(k.add(column, 2 * half), k.and(k.shr(row, 1), 3));
    k.index_by(k.index_by(tile, row, ROW), chunk, 16)
}
