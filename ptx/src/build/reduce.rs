//! Reductions over a warp and over a block, for any associative operation.

use super::types::{Elem, Word};
use super::{KernelBuilder, Ptr, Reg, SharedSpace};

impl KernelBuilder {
    /// Combines the values of all lanes; every lane receives the result. Partners are 16, 8, 4, 2, 1 lanes away, so the
    /// order of the combination is always the same.
    #[track_caller]
    pub fn warp_reduce<T: Word>(&self, value: Reg<T>, combine: impl Fn(Reg<T>, Reg<T>) -> Reg<T>) -> Reg<T> {
        [16_u32, 8, 4, 2, 1].iter().fold(value, |v, &distance| combine(v, self.shfl_bfly(v, distance)))
    }

    /// Combines the values of all threads of a block of `warps` whole warps; every thread receives the result.
    ///
    /// `scratch` holds one element per warp, and must not be in use. There is a barrier after it is written, but none
    /// after it is read: put one before it is used again.
    #[track_caller]
    pub fn block_reduce<T: Word + Elem<Reg = T>>(
        &self,
        value: Reg<T>,
        scratch: Ptr<T, SharedSpace>,
        warps: u32,
        combine: impl Fn(Reg<T>, Reg<T>) -> Reg<T>,
    ) -> Reg<T> {
        let of_warp = self.warp_reduce(value, &combine);
        self.if_(self.eq(self.laneid(), 0), || self.st(self.index(scratch, self.warp()), of_warp));
        self.barrier();
        // Every thread reads them in the order of the warps: broadcasts, without a second round of shuffles.
        let first = self.ld(scratch);
        (1..warps).fold(first, |v, warp| combine(v, self.ld(scratch.at(warp as i32))))
    }
}
