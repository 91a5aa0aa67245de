//! Control flow. Loops that are unrolled are loops of Rust.

use super::types::{Int, Ordered};
use super::{KernelBuilder, Pred, Reg, Source};
use crate::ir::StmtKind;

impl KernelBuilder {
    /// Runs `then` where `cond` is true.
    #[track_caller]
    pub fn if_(&self, cond: Reg<Pred>, then: impl FnOnce()) {
        let then = self.block(then);
        self.push(StmtKind::If { cond: cond.id(), then, otherwise: Vec::new() });
    }

    /// Runs `then` where `cond` is true, and `otherwise` where it is not.
    #[track_caller]
    pub fn if_else(&self, cond: Reg<Pred>, then: impl FnOnce(), otherwise: impl FnOnce()) {
        let (then, otherwise) = (self.block(then), self.block(otherwise));
        self.push(StmtKind::If { cond: cond.id(), then, otherwise });
    }

    /// Computes `cond` and runs `body` until it is false.
    #[track_caller]
    pub fn while_(&self, cond: impl FnOnce() -> Reg<Pred>, body: impl FnOnce()) {
        self.repeat(cond, body, false);
    }

    /// The same, and the assembler does not unroll it.
    #[track_caller]
    pub fn while_rolled(&self, cond: impl FnOnce() -> Reg<Pred>, body: impl FnOnce()) {
        self.repeat(cond, body, true);
    }

    /// Runs `body` for `start`, `start + step`, … below `end`.
    #[track_caller]
    pub fn for_<T: Int + Ordered>(
        &self,
        start: impl Source<T>,
        end: impl Source<T>,
        step: impl Source<T>,
        body: impl FnOnce(Reg<T>),
    ) {
        self.count(start, end, step, body, false);
    }

    /// The same, and the assembler does not unroll it: for bodies that already are.
    #[track_caller]
    pub fn for_rolled<T: Int + Ordered>(
        &self,
        start: impl Source<T>,
        end: impl Source<T>,
        step: impl Source<T>,
        body: impl FnOnce(Reg<T>),
    ) {
        self.count(start, end, step, body, true);
    }

    /// Ends the thread.
    #[track_caller]
    pub fn ret(&self) {
        self.push(StmtKind::Return);
    }

    /// Ends the threads where `cond` is true. If they are only some of a block, no barrier may follow.
    #[track_caller]
    pub fn return_if(&self, cond: Reg<Pred>) {
        let then = self.block(|| self.ret());
        self.push(StmtKind::If { cond: cond.id(), then, otherwise: Vec::new() });
    }

    #[track_caller]
    fn count<T: Int + Ordered>(
        &self,
        start: impl Source<T>,
        end: impl Source<T>,
        step: impl Source<T>,
        body: impl FnOnce(Reg<T>),
        rolled: bool,
    ) {
        let i = self.var(start);
        let round = || {
            body(i.get());
            self.add_into(i, step);
        };
        self.repeat(|| self.lt(i, end), round, rolled);
    }

    #[track_caller]
    fn repeat(&self, cond: impl FnOnce() -> Reg<Pred>, body: impl FnOnce(), rolled: bool) {
        let (head, cond) = self.block_with(cond);
        let body = self.block(body);
        self.push(StmtKind::While { head, cond: cond.id(), body, rolled });
    }
}
