//! Barriers, dependencies between kernels, sleeping, trapping.

use super::{KernelBuilder, Source, U32};
use crate::ir::{FULL_MASK, Inst, Operand};

impl KernelBuilder {
    /// Waits for all threads of the block at barrier 0, and makes what they wrote to memory visible to them.
    #[track_caller]
    pub fn barrier(&self) {
        self.inst(Inst::Barrier { id: 0, threads: None });
    }

    /// Waits for `threads` threads, whole warps, at barrier `id` (0 to 15).
    #[track_caller]
    pub fn barrier_of(&self, id: u32, threads: u32) {
        self.inst(Inst::Barrier { id, threads: Some(threads) });
    }

    /// Counts toward `threads` at barrier `id`, without waiting.
    #[track_caller]
    pub fn arrive(&self, id: u32, threads: u32) {
        self.inst(Inst::Arrive { id, threads });
    }

    /// Waits for all lanes of the warp, and makes what they wrote to memory visible to them.
    #[track_caller]
    pub fn warp_barrier(&self) {
        self.inst(Inst::WarpBarrier { mask: Operand::int(FULL_MASK.into()) });
    }

    /// Waits for the lanes of `mask`.
    #[track_caller]
    pub fn warp_barrier_of(&self, mask: impl Source<U32>) {
        self.inst(Inst::WarpBarrier { mask: mask.operand() });
    }

    /// Waits until the kernels that this one depends on have ended and their writes are visible. `sm_90` on.
    #[track_caller]
    pub fn wait_for_dependencies(&self) {
        self.inst(Inst::WaitForDependencies);
    }

    /// Lets dependent kernels begin, once all blocks have said so or ended. `sm_90` on.
    #[track_caller]
    pub fn launch_dependents(&self) {
        self.inst(Inst::LaunchDependents);
    }

    /// Sleeps for about this many nanoseconds, at most a million.
    #[track_caller]
    pub fn nanosleep(&self, ns: impl Source<U32>) {
        self.inst(Inst::Nanosleep { ns: ns.operand() });
    }

    /// Ends the kernel with an error.
    #[track_caller]
    pub fn trap(&self) {
        self.inst(Inst::Trap);
    }
}
