//! From logits to what a sampler chooses from: the k largest, and probabilities.
//!
//! # `top_k`
//! `logits`: `[rows][vocab]` f32; `top_logits`, `top_tokens`: `[rows][k]` f32 and u32: larger logits first, of equal
//! ones the lower index first. NaN is never among them; where a row has fewer than `k` numbers, the rest is `-inf` and
//! [`NO_TOKEN`]. `lists`: scratch of `[rows][CTAs of a row][k]` pairs of u32; `arrivals`: `[rows]` u32, zero before the
//! launch and after it.
//!
//! A CTA takes [`CHUNK`] logits, a thread eight of them, and sorts those in registers. Then `k` times: the largest head
//! of all threads' lists is written out, and its list moves on. The CTA of a row that arrives last does the same with
//! the lists of the CTAs, one per thread. `2 · k` rounds of two reductions and a barrier bind it: about 10 µs for `k =
//! 64` (derived), whatever the vocabulary.
//!
//! # `softmax`
//! `y = softmax(x / temperature)` per row; `x`, `y`: `[rows][columns]` f32, `temperatures`: `[rows]` f32, above 0.
//! Logits of `-inf` get 0; where there is no distribution, all are NaN. A CTA takes a row, in three passes.

use std::f32::consts::LOG2_E;

use super::Entry;
use super::argmax::{Best, Key, NO_TOKEN};
use super::arrive::{arrive, written};
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use crate::build::{F32, KernelBuilder, LoadOptions, Ptr, Reg, SharedSpace, U32};
use crate::ir::{Access, Kernel, Target, Threads};

/// Most that `top_k` finds.
pub const MAX_K: u32 = 64;
/// Logits that a CTA of `top_k` takes.
pub const CHUNK: u32 = PER_THREAD * THREADS;

const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;
const PER_THREAD: u32 = 8;

/// Exchanges that sort eight elements (Batcher's odd-even merge sort).
const NETWORK: [(usize, usize); 19] = [
    (0, 1),
    (2, 3),
    (4, 5),
    (6, 7),
    (0, 2),
    (1, 3),
    (4, 6),
    (5, 7),
    (1, 2),
    (5, 6),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
    (2, 4),
    (3, 5),
    (1, 2),
    (3, 4),
    (5, 6),
];

/// `top_k`; for [`Target::Sm90`], with dependent launch.
pub fn top_k(target: Target) -> Kernel {
    let builder = KernelBuilder::new("top_k");
    let k = &builder;
    k.about(
        "The count largest logits of each row and their indices, larger first, of equal ones the lower index first.",
    );
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let logits = k.param_ptr::<F32>("logits", Access::Read, 4);
    let lists = k.param_ptr::<U32>("lists", Access::ReadWrite, 8);
    let arrivals = k.param_ptr::<U32>("arrivals", Access::ReadWrite, 4);
    let top_logits = k.param_ptr::<F32>("top_logits", Access::Write, 4);
    let top_tokens = k.param_ptr::<U32>("top_tokens", Access::Write, 4);
    let vocab = k.param_u32("vocab");
    let count = k.param_u32("count");
    let scratch = k.shared::<U32>("scratch", 2 * 2 * WARPS);
    let flag = k.shared::<U32>("flag", 1);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }

    let row = k.ctaid_y();
    let of_row = k.row(logits, row, k.shl(vocab, 2));
    let first = k.mad(k.ctaid(), CHUNK, k.tid());
    let loaded: Vec<_> = (0..PER_THREAD)
        .map(|j| {
            let (logit, i) = (k.var(f32::NAN), k.add(first, j * THREADS));
            k.if_(k.lt(i, vocab), || k.set(logit, k.ld_with(k.index(of_row, i), LoadOptions::STREAM)));
            (logit.get(), i)
        })
        .collect();
    k.comment("sort the thread's own");
    let mut sorted: Vec<Key> = loaded.into_iter().map(|(logit, i)| Key::new(k, logit, i)).collect();
    for (a, b) in NETWORK {
        let (x, y) = (sorted[a], sorted[b]);
        let swap = y.beats(k, x);
        sorted[a] = y.or(k, x, swap);
        sorted[b] = x.or(k, y, swap);
    }
    let list: Vec<Best> = sorted.into_iter().map(|key| Best::of(k, key)).collect();

    k.comment("the largest of the CTA, one after the other");
    let of_cta = k.mul(k.mad(row, k.nctaid(), k.ctaid()), count);
    k.for_rolled(0, count, 1, |round| {
        let winner = tournament(k, list[0].key(), round, scratch);
        k.if_(k.eq(k.tid(), 0), || {
            k.st2(k.index_by(lists, k.add(of_cta, round), 8), [winner.order, winner.place]);
        });
        let mine = k.eq(list[0].key().place, winner.place);
        for pair in list.windows(2) {
            pair[0].set(k, pair[1].key().or(k, pair[0].key(), mine));
        }
        if let Some(last) = list.last() {
            last.set(k, Key::none(k).or(k, last.key(), mine));
        }
    });

    k.if_(arrive(k, k.index(arrivals, row), k.nctaid(), flag), || {
        k.comment("the largest of the row");
        let of_thread = k.mul(k.mad(row, k.nctaid(), k.tid()), count);
        let (head, next) = (Best::new(k), k.var(0_u32));
        let load = || {
            let [order, place] = k.ld_vec(k.index_by(lists, k.add(of_thread, next), 8), written());
            head.set(k, Key { order, place });
        };
        k.if_(k.lt(k.tid(), k.nctaid()), load);
        k.for_rolled(0, count, 1, |round| {
            let winner = tournament(k, head.key(), round, scratch);
            k.if_(k.eq(k.tid(), 0), || {
                let none = k.eq(winner.order, 0);
                let at = k.mad(row, count, round);
                k.st(k.index(top_logits, at), k.select(none, f32::NEG_INFINITY, winner.logit(k)));
                k.st(k.index(top_tokens, at), k.select(none, NO_TOKEN, winner.index(k)));
            });
            let mine = k.and(k.eq(head.key().place, winner.place), k.ne(winner.order, 0));
            k.if_(mine, || {
                k.add_into(next, 1);
                k.if_else(k.lt(next, count), load, || head.set(k, Key::none(k)));
            });
        });
    });
    builder.finish()
}

/// The largest key of the CTA, in all threads. Rounds take turns in two places of `scratch`, so one barrier a round is
/// enough.
fn tournament(k: &KernelBuilder, head: Key, round: Reg<U32>, scratch: Ptr<U32, SharedSpace>) -> Key {
    head.of_block(k, k.index_by(scratch, k.and(round, 1), 8 * WARPS), WARPS)
}

/// `softmax`; for [`Target::Sm90`], with dependent launch.
pub fn softmax(target: Target) -> Kernel {
    let k = KernelBuilder::new("softmax");
    k.about("y = softmax(x / temperature) of each row: one row per CTA.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let x = k.param_ptr::<F32>("x", Access::Read, 4);
    let temperatures = k.param_ptr::<F32>("temperatures", Access::Read, 4);
    let y = k.param_ptr::<F32>("y", Access::Write, 4);
    let columns = k.param_u32("columns");
    let scratch = k.shared::<F32>("scratch", 2 * WARPS);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let row = k.ctaid();
    let [x, y] = [x, y].map(|ptr| k.row(ptr, row, k.shl(columns, 2)));
    let unit = k.div_rn(LOG2_E, k.ld_with(k.index(temperatures, row), LoadOptions::READ_ONLY));
    let load = |i: Reg<U32>| k.ld_with(k.index(x, i), LoadOptions::READ_ONLY);

    let max = k.var(f32::NEG_INFINITY);
    k.for_(k.tid(), columns, THREADS, |i| k.max_into(max, load(i)));
    let max = k.block_reduce(max.get(), scratch, WARPS, |a, b| k.max(a, b));
    let weight = |i: Reg<U32>| k.ex2(k.mul(k.sub(load(i), max), unit));
    let sum = k.var(0.0);
    k.for_(k.tid(), columns, THREADS, |i| k.add_into(sum, weight(i)));
    let sum = k.block_reduce(sum.get(), scratch.at(WARPS as i32), WARPS, |a, b| k.add(a, b));
    let inverse = k.rcp_rn(sum);
    k.for_(k.tid(), columns, THREADS, |i| k.st(k.index(y, i), k.mul(weight(i), inverse)));
    k.finish()
}

/// The launch of `top_k`.
///
/// # Errors
/// [`ShapeError`] unless `count` is 1 to [`MAX_K`], there are 1 to 65535 rows, and the vocabulary is at most a list per
/// thread: 524,288.
pub fn top_k_dims(rows: usize, vocab: usize, count: usize) -> Result<Dims, ShapeError> {
    ShapeError::check("top_k", "count", count, 1, MAX_K)?;
    let vocab = ShapeError::check("top_k", "logits per row", vocab, 1, CHUNK * THREADS)?;
    let rows = ShapeError::check("top_k", "rows", rows, 1, 65535)?;
    Ok(Dims { grid: [vocab.div_ceil(CHUNK), rows, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// The launch of `softmax`.
///
/// # Errors
/// [`ShapeError`] unless there are rows and columns.
pub fn softmax_dims(rows: usize, columns: usize) -> Result<Dims, ShapeError> {
    ShapeError::check("softmax", "columns", columns, 1, 1 << 28)?;
    Ok(Dims::linear(ShapeError::check("softmax", "rows", rows, 1, 1 << 30)?, THREADS))
}

/// A launch of `top_k` on these logits.
///
/// # Errors
/// As [`top_k_dims`].
pub fn top_k_workload(logits: &[f32], vocab: usize, count: usize) -> Result<Workload, ShapeError> {
    let rows = logits.len() / vocab.max(1);
    let dims = top_k_dims(rows, vocab, count)?;
    let args = vec![
        Arg::read("logits", bytes_of_f32(logits)),
        Arg::scratch("lists", 8 * rows * count * dims.grid[0] as usize),
        Arg::update("arrivals", vec![0; 4 * rows]),
        Arg::write("top_logits", 4 * rows * count),
        Arg::write("top_tokens", 4 * rows * count),
        Arg::U32(vocab as u32),
        Arg::U32(count as u32),
    ];
    let work = Work {
        activation_bytes: 4 * logits.len() as u64,
        output_bytes: 8 * (rows * count) as u64,
        float_ops: logits.len() as u64,
        ..Work::default()
    };
    Ok(Workload { dims, args, work })
}

/// A launch of `softmax` on these rows, one per temperature.
///
/// # Errors
/// As [`softmax_dims`].
pub fn softmax_workload(x: &[f32], temperatures: &[f32]) -> Result<Workload, ShapeError> {
    let columns = x.len() / temperatures.len().max(1);
    let n = x.len() as u64;
    let args = vec![
        Arg::read("x", bytes_of_f32(x)),
        Arg::read("temperatures", bytes_of_f32(temperatures)),
        Arg::write("y", 4 * x.len()),
        Arg::U32(columns as u32),
    ];
    let work = Work { activation_bytes: 4 * n, output_bytes: 4 * n, float_ops: 5 * n, ..Work::default() };
    Ok(Workload { dims: softmax_dims(temperatures.len(), columns)?, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    const INVARIANT: &str = "invariant: the shape of a workload is one that its kernel takes";
    let logits = Noise::new(20).floats(2 * 5000);
    vec![
        Entry {
            name: "top_k".into(),
            about: "the k largest logits of each row, in order",
            oldest: Target::Sm80,
            build: Box::new(top_k),
            workload: top_k_workload(&logits, 5000, 40).expect(INVARIANT),
        },
        Entry {
            name: "softmax".into(),
            about: "probabilities of each row, with a temperature",
            oldest: Target::Sm80,
            build: Box::new(softmax),
            workload: softmax_workload(&logits[..2000], &[0.7, 1.0]).expect(INVARIANT),
        },
    ]
}
