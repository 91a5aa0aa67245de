//! What a GPU can do, measured: the rates that a [ceiling](super::ceiling) is derived from. No model needs these kernels.
//!
//! | kernel | parameters | per launch |
//! | --- | --- | --- |
//! | `read_bandwidth` | `x`, `y`, `tiles` | reads [`TILE_BYTES`] · `tiles`; writes a word per CTA: the XOR of all words that it read |
//! | `copy_bandwidth` | `x`, `y`, `tiles` | reads and writes [`TILE_BYTES`] · `tiles` each |
//! | `dp4a_rate` | `y`, `rounds` | [`DP4A_PER_ROUND`] · `rounds` dp4a per thread, eight operations each; writes a word per thread |
//! | `mma_rate` | `y`, `rounds` | [`MMA_PER_ROUND`] · `rounds` mma of 16×8×32 8-bit integers per warp, 8192 operations each; writes a word per thread |
//! | `touch` | `counter` | one addition to a word in memory per CTA: what is left is the boundary between kernels |
//!
//! CTAs of 256 threads (`touch`: of a warp), four per multiprocessor (`touch`: one). A tile is what a CTA reads at once: eight loads of 16
//! bytes per thread are under way, 128 KiB per multiprocessor, against the 24.4 kB that latency times bandwidth ask for. Tiles go round
//! the grid: their number should be a multiple of that of CTAs. Chains of dp4a and of mma depend on themselves, so that none can be left
//! out; there are eight per warp, and eight warps per sub-partition, which hides their latency.
//!
//! Their results are checked as those of any kernel: what was read is in the XOR, what was counted is in the sums.

use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload};
use super::{Entry, known};
use crate::build::{B32, KernelBuilder, LoadOptions, Ptr, Reg, S32, U32, Var};
use crate::ir::{Access, AtomicOp, Kernel, Order, Scope, Signedness, Target, Threads};

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
/// CTAs per multiprocessor. Registers leave room for all of them at once, so that no second wave is measured.
const BLOCKS: u32 = 4;
/// Loads of 16 bytes that a thread has under way.
const LOADS: u32 = 8;
/// Bytes that a CTA reads at once.
pub const TILE_BYTES: u32 = 16 * THREADS * LOADS;
/// Sums of a thread that do not wait for one another.
const CHAINS: usize = 8;
/// dp4a of a thread per round.
pub const DP4A_PER_ROUND: u32 = 16;
/// mma of a warp per round.
pub const MMA_PER_ROUND: u32 = CHAINS as u32;
/// Operations of a dp4a: multiplications and additions.
pub const DP4A_OPS: u32 = 8;
/// Operations of an mma of 16×8×32.
pub const MMA_OPS: u32 = 2 * 16 * 8 * 32;

/// Begins a kernel with blocks of that many threads.
fn begin(name: &str, about: &str, threads: u32) -> KernelBuilder {
    let k = KernelBuilder::new(name);
    k.about(about);
    k.threads(Threads::Exactly([threads, 1, 1]));
    k.min_blocks(BLOCKS);
    k
}

/// Dependent launch, for [`Target::Sm90`].
fn wait(k: &KernelBuilder, target: Target) {
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
}

/// Runs `body` for every tile of this CTA, with the thread's first piece of it: pieces are 4 KiB apart.
fn each_tile<const N: usize>(
    k: &KernelBuilder,
    buffers: [Ptr<B32>; N],
    tiles: Reg<U32>,
    body: impl FnOnce([Ptr<B32>; N]),
) {
    let of_thread = buffers.map(|buffer| k.index_by(buffer, k.tid(), 16));
    k.for_rolled(k.ctaid(), tiles, k.nctaid(), |tile| body(of_thread.map(|at| k.index_by(at, tile, TILE_BYTES))));
}

/// The pieces of a tile, all loaded before the first is used.
fn load_tile(k: &KernelBuilder, x: Ptr<B32>) -> [[Reg<B32>; 4]; LOADS as usize] {
    std::array::from_fn(|i| k.ld_vec(piece(x, i), LoadOptions::STREAM))
}

fn piece(tile: Ptr<B32>, i: usize) -> Ptr<B32> {
    tile.offset((16 * THREADS) as i32 * i as i32)
}

/// `read_bandwidth`.
pub fn read_bandwidth(target: Target) -> Kernel {
    let k = begin("read_bandwidth", "Reads tiles of 32 KiB and writes the XOR of all words of a CTA's tiles.", THREADS);
    let x = k.param_ptr::<B32>("x", Access::Read, 16);
    let y = k.param_ptr::<U32>("y", Access::Write, 4);
    let tiles = k.param_u32("tiles");
    let scratch = k.shared::<U32>("scratch", WARPS);
    wait(&k, target);
    let sums: [Var<B32>; 4] = std::array::from_fn(|_| k.var(0_u32));
    each_tile(&k, [x], tiles, |[x]| {
        for words in load_tile(&k, x) {
            for (sum, word) in sums.iter().zip(words) {
                k.set(*sum, k.xor(*sum, word));
            }
        }
    });
    let [a, b, c, d] = sums.map(Var::get);
    let own = k.xor(k.xor(a, b), k.xor(c, d)).as_ty::<U32>();
    let of_block = k.block_reduce(own, scratch, WARPS, |a, b| k.xor(a, b));
    k.if_(k.eq(k.tid(), 0), || k.st(k.index(y, k.ctaid()), of_block));
    k.finish()
}

/// `copy_bandwidth`.
pub fn copy_bandwidth(target: Target) -> Kernel {
    let k = begin("copy_bandwidth", "Copies tiles of 32 KiB from x to y.", THREADS);
    let x = k.param_ptr::<B32>("x", Access::Read, 16);
    let y = k.param_ptr::<B32>("y", Access::Write, 16);
    let tiles = k.param_u32("tiles");
    wait(&k, target);
    each_tile(&k, [x, y], tiles, |[x, y]| {
        for (i, words) in load_tile(&k, x).into_iter().enumerate() {
            k.st4(piece(y, i), words);
        }
    });
    k.finish()
}

/// The number of a thread in the grid.
fn thread(k: &KernelBuilder) -> Reg<U32> {
    k.mad(k.ctaid(), THREADS, k.tid())
}

/// `dp4a_rate`.
pub fn dp4a_rate(target: Target) -> Kernel {
    let k = begin(
        "dp4a_rate",
        "y = XOR of eight chains of s = s + dot(s, thread) of four bytes, 2 * rounds steps each.",
        THREADS,
    );
    let y = k.param_ptr::<U32>("y", Access::Write, 4);
    let rounds = k.param_u32("rounds");
    wait(&k, target);
    let factor = k.add(thread(&k), 0x0102_0304).as_ty::<S32>();
    let sums: [Var<S32>; CHAINS] = std::array::from_fn(|i| k.var(i as i32 + 1));
    k.for_rolled(0, rounds, 1, |_: Reg<U32>| {
        for _ in 0..DP4A_PER_ROUND as usize / CHAINS {
            for sum in sums {
                k.set(sum, k.dp4a(sum, factor, sum));
            }
        }
    });
    let [first, others @ ..] = sums.map(Var::get);
    let all = others.into_iter().fold(first, |all, sum| k.xor(all, sum));
    k.st(k.index(y, thread(&k)), all.as_ty::<U32>());
    k.finish()
}

/// `mma_rate`.
pub fn mma_rate(target: Target) -> Kernel {
    let k =
        begin("mma_rate", "y = XOR of what a thread holds of eight matrices C = A B + C, rounds times each.", THREADS);
    let y = k.param_ptr::<U32>("y", Access::Write, 4);
    let rounds = k.param_u32("rounds");
    wait(&k, target);
    let word = |i: u32| k.mad(thread(&k), 0x0101_0101, i).as_ty::<B32>();
    let (a, b) = ([0, 1, 2, 3].map(word), [4, 5].map(word));
    let sums: [[Var<S32>; 4]; CHAINS] = std::array::from_fn(|i| std::array::from_fn(|j| k.var((4 * i + j) as i32)));
    k.for_rolled(0, rounds, 1, |_: Reg<U32>| {
        for sum in sums {
            let next = k.mma_int8((Signedness::Signed, Signedness::Signed), a, b, sum.map(Var::get));
            for (sum, next) in sum.into_iter().zip(next) {
                k.set(sum, next);
            }
        }
    });
    let all = sums.as_flattened().iter().fold(k.value(0), |all: Reg<S32>, sum| k.xor(all, *sum));
    k.st(k.index(y, thread(&k)), all.as_ty::<U32>());
    k.finish()
}

/// `touch`.
pub fn touch(target: Target) -> Kernel {
    let k = begin("touch", "Adds 1 to the counter, once per CTA.", 32);
    let counter = k.param_ptr::<U32>("counter", Access::ReadWrite, 4);
    wait(&k, target);
    k.if_(k.eq(k.tid(), 0), || k.red(AtomicOp::Add, counter, 1_u32, Order::Relaxed(Scope::Gpu)));
    k.finish()
}

/// The launch of all kernels but `touch`, for a number of multiprocessors. `y` of `read_bandwidth` has as many words as there are CTAs.
///
/// # Errors
/// [`ShapeError`] unless there are 1 to 65536 multiprocessors.
pub fn dims(processors: usize) -> Result<Dims, ShapeError> {
    Ok(Dims::linear(BLOCKS * ShapeError::check("calibration", "multiprocessors", processors, 1, 1 << 16)?, THREADS))
}

/// The launch of `touch`: a CTA per multiprocessor.
///
/// # Errors
/// As [`dims`].
pub fn touch_dims(processors: usize) -> Result<Dims, ShapeError> {
    Ok(Dims::linear(ShapeError::check("touch", "multiprocessors", processors, 1, 1 << 16)?, 32))
}

/// A launch of `read_bandwidth` (or `copy_bandwidth`) over seeded tiles.
///
/// # Errors
/// As [`dims`].
pub fn bandwidth_workload(copy: bool, processors: usize, tiles: usize, seed: u64) -> Result<Workload, ShapeError> {
    let dims = dims(processors)?;
    let bytes = TILE_BYTES as usize * tiles;
    let output = if copy { bytes } else { 4 * dims.grid[0] as usize };
    let args = vec![Arg::read("x", Noise::new(seed).bytes(bytes)), Arg::write("y", output), Arg::U32(tiles as u32)];
    let work = Work { activation_bytes: bytes as u64, output_bytes: output as u64, ..Work::default() };
    Ok(Workload { dims, args, work })
}

/// A launch of `dp4a_rate` (or `mma_rate`).
///
/// # Errors
/// As [`dims`].
pub fn rate_workload(mma: bool, processors: usize, rounds: u32) -> Result<Workload, ShapeError> {
    let dims = dims(processors)?;
    let threads = u64::from(dims.grid[0] * THREADS);
    let args = vec![Arg::write("y", 4 * threads as usize), Arg::U32(rounds)];
    let of_round = if mma {
        threads / 32 * u64::from(MMA_PER_ROUND * MMA_OPS)
    } else {
        threads * u64::from(DP4A_PER_ROUND * DP4A_OPS)
    };
    let work = Work { output_bytes: 4 * threads, int_ops: of_round * u64::from(rounds), ..Work::default() };
    Ok(Workload { dims, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |name: &str, about, build: fn(Target) -> Kernel, workload| Entry {
        name: name.into(),
        about,
        oldest: Target::Sm80,
        build: Box::new(build),
        workload: known(workload),
    };
    let touch_workload = touch_dims(3).map(|dims| Workload {
        dims,
        args: vec![Arg::update("counter", vec![0; 4])],
        work: Work { output_bytes: 4, int_ops: 3, ..Work::default() },
    });
    vec![
        entry("read_bandwidth", "calibration: reads", read_bandwidth, bandwidth_workload(false, 1, 11, 28)),
        entry("copy_bandwidth", "calibration: copies", copy_bandwidth, bandwidth_workload(true, 1, 11, 29)),
        entry("dp4a_rate", "calibration: dp4a", dp4a_rate, rate_workload(false, 1, 3)),
        entry("mma_rate", "calibration: mma of 8-bit integers", mma_rate, rate_workload(true, 1, 3)),
        entry("touch", "calibration: nothing but a launch", touch, touch_workload),
    ]
}
