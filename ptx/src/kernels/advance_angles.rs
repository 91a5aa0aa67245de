//! [`advance`](super::step) and [`rope_angles`](super::angles) in one launch, for the step that comes: what both do, bit for bit.
//!
//! Parameters are those of `advance`, then `inv_freq`, `angles`, `pairs` and `magnitude` of `rope_angles`. A row moves on, and its line of
//! `angles` becomes that of its new position; the line of a row that takes no part, or ends, stays as it is. The first step of a
//! sequence needs `rope_angles` still.
//!
//! A CTA of 64 threads takes a row. Before the kernel before has ended it reads everything but `sampled`, and computes the angles of the
//! position behind the row's: so that kernel may write nothing else that is read here. Behind it are one round trip, for the token, and the
//! stores.

use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Work, Workload, bytes_of_f32};
use super::{Entry, angles, known, step};
use crate::build::{F32, KernelBuilder, LoadOptions};
use crate::ir::{Access, Kernel, Target, Threads};

const NAME: &str = "advance_angles";
const THREADS: u32 = 64;

/// `advance_angles`; for [`Target::Sm90`], with dependent launch.
pub fn advance_angles(target: Target) -> Kernel {
    let k = KernelBuilder::new(NAME);
    k.about("What `advance` does, and cos and sin for the positions that come of it. A CTA takes a row, its first thread moves it on.");
    k.threads(Threads::Exactly([THREADS, 1, 1]));
    let rows = step::Params::new(&k);
    let inv_freq = k.param_ptr::<F32>("inv_freq", Access::Read, 4);
    let angles = k.param_ptr::<F32>("angles", Access::Write, 8);
    let pairs = k.param_u32("pairs");
    let magnitude = k.param_f32("magnitude");
    // Rows that take no part wait, too: the end of this kernel says that those before it have ended.
    let wait = || {
        if target >= Target::Sm90 {
            k.wait_for_dependencies();
            k.launch_dependents();
        }
    };

    let row = k.ctaid();
    k.if_(k.ge(row, rows.rows), || {
        wait();
        k.ret();
    });
    let uniform = LoadOptions::default().uniform();
    let position = k.ld_with(k.index(rows.positions, row), uniform);
    k.if_(k.eq(position, super::kv::INACTIVE), || {
        wait();
        k.ret();
    });
    k.comment("all but the token");
    let next = k.add(position, 1);
    let count = k.ld_with(k.index(rows.produced, row), uniform);
    let limit = k.ld_with(k.index(rows.limits, row), LoadOptions::READ_ONLY.uniform());
    let is_stop = k.lt(k.laneid(), rows.stops);
    let stop = k.var(0_u32);
    k.if_(is_stop, || k.set(stop, k.ld_with(k.index(rows.stop_tokens, k.laneid()), LoadOptions::READ_ONLY)));
    let of_pair = angles::Angles::new(&k, next, inv_freq, magnitude);
    let first = of_pair.pair(&k, k.min(k.tid(), k.sub(pairs, 1)));
    wait();

    let token = k.ld_with(k.index(rows.sampled, row), LoadOptions::READ_ONLY.uniform());
    k.comment("a lane takes a stop token");
    let stops = k.var(0_u32);
    let stop_if = |cond| k.set(stops, k.or(stops, k.select::<crate::build::U32>(cond, 1, 0)));
    stop_if(k.and(is_stop, k.eq(token, stop)));
    k.for_rolled(k.add(k.laneid(), 32), rows.stops, 32, |i| {
        stop_if(k.eq(token, k.ld_with(k.index(rows.stop_tokens, i), LoadOptions::READ_ONLY)));
    });
    let ends = k.or(k.any(k.ne(stops, 0)), k.or(k.eq(token, super::argmax::NO_TOKEN), k.ge(next, limit)));
    // All threads have read what the first one writes.
    k.barrier();
    k.if_(k.eq(k.tid(), 0), || rows.store(&k, row, token, count, k.select(ends, super::kv::INACTIVE, next)));
    k.return_if(ends);
    let line = k.row(angles, row, k.shl(pairs, 3));
    k.if_(k.lt(k.tid(), pairs), || k.st2(k.index_by(line, k.tid(), 8), first));
    k.for_rolled(k.add(k.tid(), THREADS), pairs, THREADS, |pair| {
        k.st2(k.index_by(line, pair, 8), of_pair.pair(&k, pair));
    });
    k.finish()
}

/// The launch for `rows` rows.
///
/// # Errors
/// [`ShapeError`] unless there are rows and pairs, and the ring has room for a token.
pub fn dims(rows: usize, ring: usize, pairs: usize) -> Result<Dims, ShapeError> {
    ShapeError::check(NAME, "places in the ring", ring, 1, 1 << 20)?;
    ShapeError::check(NAME, "pairs", pairs, 1, 1 << 15)?;
    Ok(Dims::linear(ShapeError::check(NAME, "rows", rows, 1, 1 << 20)?, THREADS))
}

/// A launch with these rows and frequencies.
///
/// # Errors
/// As [`dims`].
pub fn workload(rows: &step::Rows, inv_freq: &[f32], magnitude: f32) -> Result<Workload, ShapeError> {
    let (n, pairs) = (rows.sampled.len(), inv_freq.len());
    let dims = dims(n, rows.ring, pairs)?;
    let Workload { mut args, work, .. } = step::workload(rows)?;
    args.extend([
        Arg::read("inv_freq", bytes_of_f32(inv_freq)),
        Arg::update("angles", vec![0; 8 * n * pairs]),
        Arg::U32(pairs as u32),
        Arg::F32(magnitude),
    ]);
    let work = Work {
        weight_bytes: 4 * pairs as u64,
        output_bytes: work.output_bytes + 8 * (n * pairs) as u64,
        float_ops: 40 * (n * pairs) as u64,
        ..work
    };
    Ok(Workload { dims, args, work })
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    let inv_freq: Vec<f32> = (0..64).map(|i| 1e6_f32.powf(-f32::from(i as u8) / 64.0)).collect();
    vec![Entry {
        name: NAME.into(),
        about: "sampled tokens become the next inputs, positions move on, and their cosines and sines",
        oldest: Target::Sm80,
        build: Box::new(advance_angles),
        workload: known(workload(&step::example(), &inv_freq, 1.0)),
    }]
}
