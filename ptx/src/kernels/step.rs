//! The step structure: what a decode step needs to know, in device memory, so that a captured step can be replayed
//! without the host.
//!
//! # Layout
//! Arrays of `T` u32, one after the other; `T` is the number of rows that the graph was captured for. [`Step`] says
//! where each begins.
//!
//! | array | content |
//! | --- | --- |
//! | `tokens` | token that goes into the next step |
//! | `positions` | its position, or [`INACTIVE`]: the row takes no part |
//! | `sequences` | the row's line of the block table |
//! | `produced` | tokens produced so far |
//! | `limits` | positions that the sequence has memory for: at this many, the row becomes inactive |
//!
//! # `advance`
//! After a step, the arg-max (or a sampler) has left a token per row in `sampled`. The kernel puts it into the ring of
//! produced tokens, `[T][ring]` u32, at `produced % ring`, makes it the next input, and adds one to the position. A row
//! ends, and becomes inactive, when its token is one of `stop_tokens` or its context is full; the token that ended it
//! is in the ring, too. A row whose token is [`NO_TOKEN`], because its logits were NaN, ends as well.
//!
//! [`advance_angles`](super::advance_angles) also computes the angles of the next step.
//!
//! The host may launch steps ahead and read the ring later, at most `ring` tokens behind. A thread takes a row; latency
//! binds it.

use super::Entry;
use super::argmax::NO_TOKEN;
use super::kv::INACTIVE;
use super::launch::{Dims, ShapeError};
use super::workload::{Arg, Work, Workload, bytes_of_u32};
use crate::build::{KernelBuilder, LoadOptions, Ptr, Reg, U32};
use crate::ir::{Access, Kernel, Target, Threads};

const NAME: &str = "advance";
const THREADS: u32 = 128;

/// Offsets of the arrays of a step structure, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    rows: u32,
}

impl Step {
    /// Of a structure for that many rows.
    pub fn new(rows: u32) -> Self {
        Self { rows }
    }

    /// Size of the structure.
    pub fn bytes(self) -> u64 {
        self.array(5)
    }

    /// Of `tokens`.
    pub fn tokens(self) -> u64 {
        self.array(0)
    }

    /// Of `positions`.
    pub fn positions(self) -> u64 {
        self.array(1)
    }

    /// Of `sequences`.
    pub fn sequences(self) -> u64 {
        self.array(2)
    }

    /// Of `produced`.
    pub fn produced(self) -> u64 {
        self.array(3)
    }

    /// Of `limits`.
    pub fn limits(self) -> u64 {
        self.array(4)
    }

    /// Arrays begin at multiples of 16 bytes.
    fn array(self, index: u64) -> u64 {
        index * u64::from(self.rows).next_multiple_of(4) * 4
    }
}

/// `advance`; for [`Target::Sm90`], with dependent launch.
pub fn advance(target: Target) -> Kernel {
    let k = KernelBuilder::new(NAME);
    k.about("Makes the sampled tokens the next inputs, moves each row by a position, and ends rows at a stop token or a full context.");
    k.threads(Threads::UpTo(THREADS));
    let params = Params::new(&k);
    let Params { sampled, stop_tokens, positions, produced, limits, rows, stops, .. } = params;

    let row = k.mad(k.ctaid(), k.ntid(), k.tid());
    k.return_if(k.ge(row, rows));
    if target >= Target::Sm90 {
        k.wait_for_dependencies();
        k.launch_dependents();
    }
    let position = k.ld(k.index(positions, row));
    k.return_if(k.eq(position, INACTIVE));
    let token = k.ld_with(k.index(sampled, row), LoadOptions::READ_ONLY);
    let count = k.ld(k.index(produced, row));
    let next = k.add(position, 1);
    let ends = k.var(0_u32);
    let end_if = |cond| k.set(ends, k.or(ends, k.select::<U32>(cond, 1, 0)));
    end_if(k.eq(token, NO_TOKEN));
    end_if(k.ge(next, k.ld_with(k.index(limits, row), LoadOptions::READ_ONLY)));
    k.for_rolled(0, stops, 1, |i| end_if(k.eq(token, k.ld_with(k.index(stop_tokens, i), LoadOptions::READ_ONLY))));
    params.store(&k, row, token, count, k.select(k.ne(ends, 0), INACTIVE, next));
    k.finish()
}

/// The parameters.
#[derive(Clone, Copy)]
pub(super) struct Params {
    pub(super) sampled: Ptr<U32>,
    pub(super) stop_tokens: Ptr<U32>,
    pub(super) tokens: Ptr<U32>,
    pub(super) positions: Ptr<U32>,
    pub(super) produced: Ptr<U32>,
    pub(super) limits: Ptr<U32>,
    pub(super) ring: Ptr<U32>,
    pub(super) rows: Reg<U32>,
    pub(super) stops: Reg<U32>,
    pub(super) ring_len: Reg<U32>,
}

impl Params {
    pub(super) fn new(k: &KernelBuilder) -> Self {
        Self {
            sampled: k.param_ptr("sampled", Access::Read, 4),
            stop_tokens: k.param_ptr("stop_tokens", Access::Read, 4),
            tokens: k.param_ptr("tokens", Access::ReadWrite, 4),
            positions: k.param_ptr("positions", Access::ReadWrite, 4),
            produced: k.param_ptr("produced", Access::ReadWrite, 4),
            limits: k.param_ptr("limits", Access::Read, 4),
            ring: k.param_ptr("ring", Access::ReadWrite, 4),
            rows: k.param_u32("rows"),
            stops: k.param_u32("stops"),
            ring_len: k.param_u32("ring_len"),
        }
    }

    /// Stores what a row becomes that has produced `count` tokens before `token`.
    pub(super) fn store(&self, k: &KernelBuilder, row: Reg<U32>, token: Reg<U32>, count: Reg<U32>, position: Reg<U32>) {
        let ring = k.row(self.ring, row, k.shl(self.ring_len, 2));
        k.st(k.index(ring, k.rem(count, self.ring_len)), token);
        k.st(k.index(self.produced, row), k.add(count, 1));
        k.st(k.index(self.tokens, row), token);
        k.st(k.index(self.positions, row), position);
    }
}

/// The launch for `rows` rows.
///
/// # Errors
/// [`ShapeError`] unless there are rows, and the ring has room for a token.
pub fn dims(rows: usize, ring: usize) -> Result<Dims, ShapeError> {
    ShapeError::check(NAME, "places in the ring", ring, 1, 1 << 20)?;
    Ok(Dims::linear(ShapeError::check(NAME, "rows", rows, 1, 1 << 20)?.div_ceil(THREADS), THREADS))
}

/// Rows before a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rows {
    /// Tokens that the step produced.
    pub sampled: Vec<u32>,
    /// Tokens that end a row.
    pub stop_tokens: Vec<u32>,
    /// Positions of the step.
    pub positions: Vec<u32>,
    /// Tokens produced before.
    pub produced: Vec<u32>,
    /// Positions that there is memory for.
    pub limits: Vec<u32>,
    /// Places in the ring.
    pub ring: usize,
}

/// A launch with these rows.
///
/// # Errors
/// As [`dims`].
pub fn workload(rows: &Rows) -> Result<Workload, ShapeError> {
    let n = rows.sampled.len();
    let args = vec![
        Arg::read("sampled", bytes_of_u32(&rows.sampled)),
        Arg::read("stop_tokens", bytes_of_u32(&rows.stop_tokens)),
        Arg::update("tokens", vec![0; 4 * n]),
        Arg::update("positions", bytes_of_u32(&rows.positions)),
        Arg::update("produced", bytes_of_u32(&rows.produced)),
        Arg::read("limits", bytes_of_u32(&rows.limits)),
        Arg::update("ring", vec![0; 4 * n * rows.ring]),
        Arg::U32(n as u32),
        Arg::U32(rows.stop_tokens.len() as u32),
        Arg::U32(rows.ring as u32),
    ];
    let work = Work {
        activation_bytes: 4 * (4 * n + rows.stop_tokens.len()) as u64,
        output_bytes: 16 * n as u64,
        int_ops: (n * (4 + rows.stop_tokens.len())) as u64,
        ..Work::default()
    };
    Ok(Workload { dims: dims(n, rows.ring)?, args, work })
}

/// Rows of every kind.
pub(super) fn example() -> Rows {
    Rows {
        sampled: vec![17, 2, 40, 5, NO_TOKEN],
        stop_tokens: vec![2, 151_645],
        positions: vec![12, 30, INACTIVE, 63, 7],
        produced: vec![3, 8, 1, 0, 2],
        limits: vec![64; 5],
        ring: 4,
    }
}

/// What ships.
pub(super) fn entries() -> Vec<Entry> {
    vec![Entry {
        name: NAME.into(),
        about: "sampled tokens become the next inputs, positions move on",
        oldest: Target::Sm80,
        build: Box::new(advance),
        workload: workload(&example()).expect("invariant: the shape of a workload is one that its kernel takes"),
    }]
}
