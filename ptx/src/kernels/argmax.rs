//! Arg-max of rows of logits.
//!
//! `logits`: `[rows][vocab]` f32; `tokens`: `[rows]` u32: index of the largest logit, of several the lowest. NaN is
//! never the largest: a row of nothing else gives [`NO_TOKEN`]. `best`: scratch of `[rows][CTAs of a row]` pairs of
//! u32; `arrivals`: `[rows]` u32, zero before the launch and after it.
//!
//! A logit is compared as a *key* of two words: its bits, turned into an unsigned number of the same order, and the
//! complement of its index, so that the larger key is the winner and no two are equal. A CTA of 256 threads takes
//! [`CHUNK`] logits of a row; the one that arrives last takes the largest of all. Bandwidth binds it: 4 bytes per
//! logit.

use super::Entry;
use super::arrive::{arrive, written};
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Noise, Work, Workload, bytes_of_f32};
use crate::build::{F32, KernelBuilder, LoadOptions, Pred, Ptr, Reg, S32, SharedSpace, U32, Var};
use crate::ir::{Access, Kernel, ReduceOp, Target, Threads};

/// Token of a row without any number.
pub const NO_TOKEN: u32 = u32::MAX;
/// Logits that a CTA takes.
pub const CHUNK: u32 = 8 * 4 * THREADS;

const NAME: &str = "argmax";
const WARPS: u32 = 8;
const THREADS: u32 = 32 * WARPS;

/// A candidate: order of the logit, complement of the index. All zero is less than every number.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) order: Reg<U32>,
    pub(super) place: Reg<U32>,
}

impl Key {
    /// Of a logit. NaN gets the order 0, which no number has.
    pub(super) fn new(k: &KernelBuilder, logit: Reg<F32>, index: Reg<U32>) -> Self {
        // Adding 0 makes -0 and 0 equal.
        let bits = k.bitcast::<F32, U32>(k.add(logit, 0.0));
        let negative = k.lt(bits.as_ty::<S32>(), 0);
        let order = k.select(negative, k.not(bits), k.or(bits, 0x8000_0000));
        Self { order: k.select(k.eq(logit, logit), order, 0), place: k.not(index) }
    }

    /// Less than every number.
    pub(super) fn none(k: &KernelBuilder) -> Self {
        Self { order: k.value(0_u32), place: k.value(0_u32) }
    }

    /// It where `cond` is true, else `other`.
    pub(super) fn or(self, k: &KernelBuilder, other: Self, cond: Reg<Pred>) -> Self {
        Self { order: k.select(cond, self.order, other.order), place: k.select(cond, self.place, other.place) }
    }

    /// The index it was made of.
    pub(super) fn index(self, k: &KernelBuilder) -> Reg<U32> {
        k.not(self.place)
    }

    /// The index it was made of, [`NO_TOKEN`] for the order 0.
    pub(super) fn token(self, k: &KernelBuilder) -> Reg<U32> {
        k.select(k.eq(self.order, 0), NO_TOKEN, self.index(k))
    }

    /// The logit it was made of, NaN for the order 0.
    pub(super) fn logit(self, k: &KernelBuilder) -> Reg<F32> {
        let positive = k.lt(self.order.as_ty::<S32>(), 0);
        k.bitcast(k.select(positive, k.and(self.order, 0x7fff_ffff), k.not(self.order)))
    }

    /// Whether it is larger than `other`.
    pub(super) fn beats(self, k: &KernelBuilder, other: Self) -> Reg<Pred> {
        let tie = k.and(k.eq(self.order, other.order), k.gt(self.place, other.place));
        k.or(k.gt(self.order, other.order), tie)
    }

    /// The largest of the warp, in all lanes.
    pub(super) fn of_warp(self, k: &KernelBuilder) -> Self {
        let order = k.redux(ReduceOp::Max, self.order);
        let place = k.redux(ReduceOp::Max, k.select(k.eq(self.order, order), self.place, 0));
        Self { order, place }
    }

    /// The largest of a CTA of `warps` warps, in all threads. `scratch` holds a pair per warp; there is a barrier after
    /// it is written, none after it is read.
    pub(super) fn of_block(self, k: &KernelBuilder, scratch: Ptr<U32, SharedSpace>, warps: u32) -> Self {
        let of_warp = self.of_warp(k);
        k.if_(k.eq(k.laneid(), 0), || {
            k.st2(k.index_by(scratch, k.warp(), 8), [of_warp.order, of_warp.place]);
        });
        k.barrier();
        let slot = k.index_by(scratch, k.min(k.laneid(), warps - 1), 8);
        let [order, place] = k.ld2(slot);
        Self { order, place }.of_warp(k)
    }
}

/// The largest key so far.
pub(super) struct Best {
    order: Var<U32>,
    place: Var<U32>,
}

impl Best {
    /// None yet.
    pub(super) fn new(k: &KernelBuilder) -> Self {
        Self { order: k.var(0_u32), place: k.var(0_u32) }
    }

    /// This one.
    pub(super) fn of(k: &KernelBuilder, key: Key) -> Self {
        Self { order: k.var(key.order), place: k.var(key.place) }
    }

    /// What it is now.
    pub(super) fn key(&self) -> Key {
        Key { order: self.order.get(), place: self.place.get() }
    }

    /// Takes the larger of both.
    pub(super) fn update(&self, k: &KernelBuilder, key: Key) {
        let better = key.beats(k, self.key());
        self.set(k, key.or(k, self.key(), better));
    }

    /// Replaces it.
    pub(super) fn set(&self, k: &KernelBuilder, key: Key) {
        k.set(self.order, key.order);
        k.set(self.place, key.place);
    }
}

/// `argmax`; for [`Target::Sm90`], with dependent launch.
pub fn argmax(target: Target) -> Kernel {
    let k = KernelBuilder::new(NAME);
    k.about("Index of the largest logit of each row, of several the lowest. The CTA of a row that arrives last compares the others.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let logits = k.param_ptr::<F32>("logits", Access::Read, 4);
    let best = k.param_ptr::<U32>("best", Access::ReadWrite, 8);
    let arrivals = k.param_ptr::<U32>("arrivals", Access::ReadWrite, 4);
    let tokens = k.param_ptr::<U32>("tokens", Access::Write, 4);
    let vocab = k.param_u32("vocab");
    let scratch = k.shared::<U32>("scratch", 2 * WARPS);
    let flag = k.shared::<U32>("flag", 1);
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }

    let row = k.ctaid_y();
    let of_row = k.row(logits, row, k.shl(vocab, 2));
    let largest = Best::new(&k);
    let first = k.mad(k.ctaid(), CHUNK, k.tid());
    let end = k.min(vocab, k.mul(k.add(k.ctaid(), 1), CHUNK));
    // Rows are not aligned to 16 bytes: the vocabulary may be odd. Eight loads of a word are under way together.
    k.for_rolled(first, end, 8 * THREADS, |i| {
        let loaded: Vec<_> = (0..8)
            .map(|j| {
                let logit = k.var(f32::NAN);
                let i = k.add(i, j * THREADS);
                k.if_(k.lt(i, end), || k.set(logit, k.ld_with(k.index(of_row, i), LoadOptions::STREAM)));
                (logit.get(), i)
            })
            .collect();
        for (logit, i) in loaded {
            largest.update(&k, Key::new(&k, logit, i));
        }
    });
    let of_block = largest.key().of_block(&k, scratch, WARPS);

    let bests = k.index_by(k.row(best, row, k.shl(k.nctaid(), 3)), 0, 8);
    k.if_(k.eq(k.tid(), 0), || {
        k.st2(k.index_by(bests, k.ctaid(), 8), [of_block.order, of_block.place]);
    });
    k.if_(arrive(&k, k.index(arrivals, row), k.nctaid(), flag), || {
        largest.set(&k, Key::none(&k));
        k.for_rolled(k.tid(), k.nctaid(), THREADS, |i| {
            let [order, place] = k.ld_vec(k.index_by(bests, i, 8), written());
            largest.update(&k, Key { order, place });
        });
        let winner = largest.key().of_block(&k, scratch, WARPS);
        k.if_(k.eq(k.tid(), 0), || {
            k.st(k.index(tokens, row), winner.token(&k));
        });
    });
    k.finish()
}

/// The launch.
///
/// # Errors
/// [`ShapeError`] unless there are 1 to 65535 rows, and a vocabulary.
pub fn dims(rows: usize, vocab: usize) -> Result<Dims, ShapeError> {
    let vocab = ShapeError::check(NAME, "logits per row", vocab, 1, 1 << 28)?;
    let rows = ShapeError::check(NAME, "rows", rows, 1, 65535)?;
    Ok(Dims { grid: [vocab.div_ceil(CHUNK), rows, 1], block: [THREADS, 1, 1], dynamic_shared: 0 })
}

/// A launch with these logits.
///
/// # Errors
/// As [`dims`].
pub fn workload(logits: &[f32], vocab: usize) -> Result<Workload, ShapeError> {
    let rows = logits.len() / vocab.max(1);
    let dims = dims(rows, vocab)?;
    let args = vec![
        Arg::read("logits", bytes_of_f32(logits)),
        Arg::scratch("best", 8 * rows * dims.grid[0] as usize),
        Arg::update("arrivals", vec![0; 4 * rows]),
        Arg::write("tokens", 4 * rows),
        Arg::U32(vocab as u32),
    ];
    let work = Work {
        activation_bytes: 4 * logits.len() as u64,
        output_bytes: 4 * rows as u64,
        float_ops: logits.len() as u64,
        ..Work::default()
    };
    Ok(Workload { dims, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        name: NAME.into(),
        about: "index of the largest logit of each row",
        oldest: Target::Sm80,
        build: Box::new(argmax),
        workload: workload(&Noise::new(13).floats(2 * 10_000), 10_000)
            .expect("invariant: the shape of a workload is one that its kernel takes"),
    }]
}
