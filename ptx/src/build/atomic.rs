//! Atomics and fences.

use super::types::{Elem, Swap};
use super::{KernelBuilder, Ptr, Reg, Source, SpaceOf, Ty, U32};
use crate::ir::{Atomic, AtomicOp, FenceKind, Inst, Operand, Order, Scope};

impl KernelBuilder {
    /// Combines `value` into memory and gives the old value.
    #[track_caller]
    pub fn atom<T: Elem<Reg = T> + Ty, S: SpaceOf>(
        &self,
        op: AtomicOp,
        at: Ptr<T, S>,
        value: impl Source<T>,
        order: Order,
    ) -> Reg<T> {
        let dst = self.fresh();
        let (at, value) = (at.address(), value.operand());
        self.inst(Inst::Atomic(Atomic { op, ty: T::TYPE, dst: Some(dst.id()), at, compare: None, value, order }));
        dst
    }

    /// Combines `value` into memory.
    #[track_caller]
    pub fn red<T: Elem<Reg = T> + Ty, S: SpaceOf>(
        &self,
        op: AtomicOp,
        at: Ptr<T, S>,
        value: impl Source<T>,
        order: Order,
    ) {
        let (at, value) = (at.address(), value.operand());
        self.inst(Inst::Atomic(Atomic { op, ty: T::TYPE, dst: None, at, compare: None, value, order }));
    }

    /// Adds and gives the old value.
    #[track_caller]
    pub fn atom_add<T: Elem<Reg = T> + Ty, S: SpaceOf>(
        &self,
        at: Ptr<T, S>,
        value: impl Source<T>,
        order: Order,
    ) -> Reg<T> {
        self.atom(AtomicOp::Add, at, value, order)
    }

    /// Gives the old value and writes `old >= last ? 0 : old + 1`: counts arrivals around.
    #[track_caller]
    pub fn atom_inc<S: SpaceOf>(&self, at: Ptr<U32, S>, last: impl Source<U32>, order: Order) -> Reg<U32> {
        self.atom(AtomicOp::Inc, at, last, order)
    }

    /// Writes `value` and gives the old value.
    #[track_caller]
    pub fn atom_exch<T: Swap<Reg = T> + Ty, S: SpaceOf>(&self, at: Ptr<T, S>, value: Reg<T>, order: Order) -> Reg<T> {
        self.swap(AtomicOp::Exch, at, None, value.operand(), order)
    }

    /// Writes `value` where memory equals `compare`, and gives the old value.
    #[track_caller]
    pub fn atom_cas<T: Swap<Reg = T> + Ty, S: SpaceOf>(
        &self,
        at: Ptr<T, S>,
        compare: impl Source<T>,
        value: impl Source<T>,
        order: Order,
    ) -> Reg<T> {
        self.swap(AtomicOp::Cas, at, Some(compare.operand()), value.operand(), order)
    }

    #[track_caller]
    fn swap<T: Swap<Reg = T> + Ty, S: SpaceOf>(
        &self,
        op: AtomicOp,
        at: Ptr<T, S>,
        compare: Option<Operand>,
        value: Operand,
        order: Order,
    ) -> Reg<T> {
        let dst = self.fresh();
        let (ty, at) = (T::SWAP, at.address());
        self.inst(Inst::Atomic(Atomic { op, ty, dst: Some(dst.id()), at, compare, value, order }));
        dst
    }

    /// Orders the accesses before it and after it, as seen by the threads of `scope`.
    #[track_caller]
    pub fn fence(&self, kind: FenceKind, scope: Scope) {
        self.inst(Inst::Fence { kind, scope });
    }
}
