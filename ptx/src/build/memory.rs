//! Loads, stores, asynchronous copies, prefetches.

use super::types::Elem;
use super::{B64, Global, KernelBuilder, Ptr, Reg, SharedSpace, Source, SpaceOf, U32};
use crate::ir::{Cache, CacheHints, CopyAsync, Inst, L1, L2Priority, Load, Order, Prefetch, Store};

/// How a load is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    read_only: bool,
    uniform: bool,
    order: Order,
    hints: CacheHints,
}

impl LoadOptions {
    /// For weights, which are read once: `.nc.L1::no_allocate.L2::256B`.
    pub const STREAM: Self = Self {
        read_only: true,
        uniform: false,
        order: Order::Weak,
        hints: CacheHints { l1: L1::NoAllocate, prefetch: Prefetch::B256, policy: None },
    };

    /// For what many blocks read and nobody writes: `.nc`.
    pub const READ_ONLY: Self = Self {
        read_only: true,
        uniform: false,
        order: Order::Weak,
        hints: CacheHints { l1: L1::Normal, prefetch: Prefetch::None, policy: None },
    };

    /// Promises that all threads read one value, so that control flow with barriers may depend on it. The address has to
    /// be the same in all of them.
    #[must_use]
    pub fn uniform(self) -> Self {
        Self { uniform: true, ..self }
    }

    /// Ordering.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// What the first-level cache does.
    #[must_use]
    pub fn l1(mut self, l1: L1) -> Self {
        self.hints.l1 = l1;
        self
    }

    /// What the second-level cache fetches along.
    #[must_use]
    pub fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.hints.prefetch = prefetch;
        self
    }

    /// Policy of the second-level cache: see [`KernelBuilder::cache_policy`].
    #[must_use]
    pub fn policy(mut self, policy: Reg<B64>) -> Self {
        self.hints.policy = Some(policy.id());
        self
    }
}

/// How a store is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct StoreOptions {
    order: Order,
    hints: CacheHints,
}

impl StoreOptions {
    /// Ordering.
    #[must_use]
    pub fn order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// What the first-level cache does.
    #[must_use]
    pub fn l1(mut self, l1: L1) -> Self {
        self.hints.l1 = l1;
        self
    }

    /// Policy of the second-level cache: see [`KernelBuilder::cache_policy`].
    #[must_use]
    pub fn policy(mut self, policy: Reg<B64>) -> Self {
        self.hints.policy = Some(policy.id());
        self
    }
}

impl KernelBuilder {
    /// Loads one element.
    #[track_caller]
    pub fn ld<T: Elem, S: SpaceOf>(&self, from: Ptr<T, S>) -> Reg<T::Reg> {
        self.ld_with(from, LoadOptions::default())
    }

    /// Loads one element.
    #[track_caller]
    pub fn ld_with<T: Elem, S: SpaceOf>(&self, from: Ptr<T, S>, options: LoadOptions) -> Reg<T::Reg> {
        let [one] = self.ld_vec(from, options);
        one
    }

    /// Loads two elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn ld2<T: Elem, S: SpaceOf>(&self, from: Ptr<T, S>) -> [Reg<T::Reg>; 2] {
        self.ld_vec(from, LoadOptions::default())
    }

    /// Loads four elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn ld4<T: Elem, S: SpaceOf>(&self, from: Ptr<T, S>) -> [Reg<T::Reg>; 4] {
        self.ld_vec(from, LoadOptions::default())
    }

    /// Loads 1, 2 or 4 elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn ld_vec<T: Elem, S: SpaceOf, const N: usize>(
        &self,
        from: Ptr<T, S>,
        options: LoadOptions,
    ) -> [Reg<T::Reg>; N] {
        let dst = std::array::from_fn(|_| self.fresh());
        let LoadOptions { read_only, uniform, order, hints } = options;
        self.inst(Inst::Load(Load {
            ty: T::ELEMENT,
            dst: dst.iter().map(|d: &Reg<T::Reg>| d.id()).collect(),
            from: from.address(),
            read_only,
            uniform,
            order,
            hints,
        }));
        dst
    }

    /// Stores one element.
    #[track_caller]
    pub fn st<T: Elem, S: SpaceOf>(&self, to: Ptr<T, S>, value: impl Source<T::Reg>) {
        self.st_with(to, value, StoreOptions::default());
    }

    /// Stores one element.
    #[track_caller]
    pub fn st_with<T: Elem, S: SpaceOf>(&self, to: Ptr<T, S>, value: impl Source<T::Reg>, options: StoreOptions) {
        self.st_vec(to, [value], options);
    }

    /// Stores two elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn st2<T: Elem, S: SpaceOf>(&self, to: Ptr<T, S>, values: [impl Source<T::Reg>; 2]) {
        self.st_vec(to, values, StoreOptions::default());
    }

    /// Stores four elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn st4<T: Elem, S: SpaceOf>(&self, to: Ptr<T, S>, values: [impl Source<T::Reg>; 4]) {
        self.st_vec(to, values, StoreOptions::default());
    }

    /// Stores 1, 2 or 4 elements in one access; the address is a multiple of their size together.
    #[track_caller]
    pub fn st_vec<T: Elem, S: SpaceOf, const N: usize>(
        &self,
        to: Ptr<T, S>,
        values: [impl Source<T::Reg>; N],
        options: StoreOptions,
    ) {
        let StoreOptions { order, hints } = options;
        let values = values.iter().map(|v| v.operand()).collect();
        self.inst(Inst::Store(Store { ty: T::ELEMENT, values, to: to.address(), order, hints }));
    }

    /// Begins to copy `bytes` (4, 8 or 16) to shared memory, through L1 (`cp.async.ca`).
    #[track_caller]
    pub fn cp_async<T: Elem>(&self, to: Ptr<T, SharedSpace>, from: Ptr<T>, bytes: u32) {
        self.copy(to, from, bytes, false, None);
    }

    /// Begins to copy 16 bytes to shared memory, past L1 (`cp.async.cg`).
    #[track_caller]
    pub fn cp_async_bypass<T: Elem>(&self, to: Ptr<T, SharedSpace>, from: Ptr<T>) {
        self.copy(to, from, 16, true, None);
    }

    /// The same, but reads only `read` of the 16 bytes and fills up with zeros.
    #[track_caller]
    pub fn cp_async_zfill<T: Elem>(&self, to: Ptr<T, SharedSpace>, from: Ptr<T>, read: impl Source<U32>) {
        self.copy(to, from, 16, true, Some(read.operand()));
    }

    #[track_caller]
    fn copy<T: Elem>(
        &self,
        to: Ptr<T, SharedSpace>,
        from: Ptr<T>,
        bytes: u32,
        bypass_l1: bool,
        read_bytes: Option<crate::ir::Operand>,
    ) {
        self.inst(Inst::CopyAsync(CopyAsync {
            to: to.address(),
            from: from.address(),
            bytes,
            bypass_l1,
            read_bytes,
            prefetch: Prefetch::B128,
            policy: None,
        }));
    }

    /// Closes a group of the copies that the thread began.
    #[track_caller]
    pub fn cp_async_commit(&self) {
        self.inst(Inst::CommitGroup);
    }

    /// Waits until at most `pending` of the thread's groups are under way. Other threads see the copies after a barrier.
    #[track_caller]
    pub fn cp_async_wait(&self, pending: u32) {
        self.inst(Inst::WaitGroup { pending });
    }

    /// Fetches the line at `at` into a cache.
    #[track_caller]
    pub fn prefetch<T: Elem>(&self, cache: Cache, at: Ptr<T, Global>) {
        self.inst(Inst::Prefetch { cache, at: at.address() });
    }

    /// A policy for the second-level cache, for [`LoadOptions::policy`].
    #[track_caller]
    pub fn cache_policy(&self, priority: L2Priority) -> Reg<B64> {
        self.op(|dst| Inst::CreatePolicy { dst, priority })
    }
}
