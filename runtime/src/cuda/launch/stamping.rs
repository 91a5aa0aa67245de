//! Deals out the records of a step's blocks.

use brick_cuda::{Access, Arg, Ptr};
use brick_ptx::stamp::RECORD_BYTES;

use crate::cuda::stamps::blocks;

/// Where the blocks of a step note when they ran: one launch's records behind those of the launch before.
#[derive(Debug)]
pub(in crate::cuda) struct Stamping {
    /// None while nobody knows how many there are.
    records: Option<Ptr>,
    used: u64,
}

impl Stamping {
    pub(in crate::cuda) fn new(records: Option<Ptr>) -> Self {
        Self { records, used: 0 }
    }

    /// The argument of the next launch.
    pub(super) fn next(&mut self, grid: [u32; 3]) -> Arg {
        let offset = RECORD_BYTES * self.used;
        self.used += blocks(grid);
        self.records.map_or(Arg::Null, |records| Arg::Ptr(records.plus(offset), Access::ReadWrite))
    }
}
