//! The builder: kernels written in Rust.
//!
//! A [`KernelBuilder`] takes instructions in the order in which it is called and gives the IR of a kernel. Registers have
//! types, so most mistakes do not compile; the rest is found by [`valid`](crate::valid), which names the line of Rust.
//!
//! - Methods take `&self`, so calls nest: `k.add(k.mul(a, b), c)`.
//! - Values ([`Reg`]) are written once; what changes is a variable ([`Var`]): `let acc = k.var(0.0);`, then `k.set(acc, x)`
//!   or, for sums, `k.fma_into(acc, x, w)`.
//! - Where a value is read, a number of Rust will do: `k.add(i, 1)`.
//! - Blocks are closures: `k.if_(p, || …)`, `k.for_(0, n, 1, |i| …)`. Loops of Rust unroll.
//! - Constant parts of addresses are folded: `p.at(3)` is elements, `p.offset(48)` is bytes, both `[reg+48]`.
//!
//! | file | what |
//! | --- | --- |
//! | `types`, `value` | [`Ty`] and the types of registers; [`Reg`], [`Var`], [`Source`] |
//! | `pointer` | [`Ptr`] and computing with addresses |
//! | `declare` | parameters, shared memory, shape of blocks; special registers |
//! | `arith`, `divide`, `bits`, `convert` | computing |
//! | `memory`, `atomic` | loads, stores, asynchronous copies, prefetches; atomics, fences |
//! | `flow`, `sync` | `if_`, `while_`, `for_`; barriers |
//! | `warp`, `reduce`, `matrix` | shuffles, votes; reductions over warp and block; `ldmatrix`, `mma` |

mod arith;
mod atomic;
mod bits;
mod convert;
mod declare;
mod divide;
mod flow;
mod matrix;
mod memory;
mod pointer;
mod reduce;
mod sync;
pub mod types;
mod value;
mod warp;

pub use memory::{LoadOptions, StoreOptions};
pub use pointer::{Global, Ptr, PtrVar, SharedSpace, SpaceOf};
pub use types::{
    B16, B32, B64, Bf16, Bf16x2, Elem, F16, F16x2, F32, F64, Pred, S8, S16, S32, S64, Ty, U8, U16, U32, U64,
};
pub use value::{Reg, Source, Var};

use std::cell::RefCell;
use std::panic::Location;

use crate::ir::{Block, Inst, Kernel, RegId, Stmt, StmtKind, Threads};
use types::ClassOf;

/// Builds one kernel.
#[derive(Debug)]
pub struct KernelBuilder {
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    kernel: Kernel,
    /// Blocks that are being built, the outermost first. The last receives statements.
    open: Vec<Block>,
}

impl KernelBuilder {
    /// Begins a kernel with this name.
    pub fn new(name: &str) -> Self {
        let kernel = Kernel { name: name.to_owned(), ..Kernel::default() };
        Self { state: RefCell::new(State { kernel, open: vec![Block::new()] }) }
    }

    /// Says what the kernel computes: printed above it.
    pub fn about(&self, about: &str) {
        about.clone_into(&mut self.state.borrow_mut().kernel.about);
    }

    /// Says which blocks it is written for.
    pub fn threads(&self, threads: Threads) {
        self.state.borrow_mut().kernel.threads = threads;
    }

    /// Asks for registers to be few enough that this many blocks fit a multiprocessor.
    pub fn min_blocks(&self, blocks: u32) {
        self.state.borrow_mut().kernel.min_blocks = Some(blocks);
    }

    /// The kernel. Nothing is checked yet.
    pub fn finish(self) -> Kernel {
        let State { mut kernel, mut open } = self.state.into_inner();
        // Every closure of a block has returned, so the outermost is the only one open.
        kernel.body = open.pop().unwrap_or_default();
        kernel
    }

    /// A line in the text, for its reader.
    #[track_caller]
    pub fn comment(&self, text: &str) {
        self.push(StmtKind::Comment(text.to_owned()));
    }

    /// A variable with a first value.
    #[track_caller]
    pub fn var<T: Ty>(&self, first: impl Source<T>) -> Var<T> {
        let var = Var::new(self.fresh::<T>().id());
        self.set(var, first);
        var
    }

    /// Sets a variable.
    #[track_caller]
    pub fn set<T: Ty>(&self, var: Var<T>, value: impl Source<T>) {
        self.inst(Inst::Mov { ty: T::TYPE, dst: var.id(), src: value.operand() });
    }

    /// A value in a register: a number of Rust, or what a variable holds now.
    #[track_caller]
    pub fn value<T: Ty>(&self, value: impl Source<T>) -> Reg<T> {
        self.op(|dst| Inst::Mov { ty: T::TYPE, dst, src: value.operand() })
    }

    /// A register that nothing has written yet.
    fn fresh<T: Ty>(&self) -> Reg<T> {
        let registers = &mut self.state.borrow_mut().kernel.registers;
        registers.push(T::Class::CLASS);
        Reg::new(RegId(registers.len() as u32 - 1))
    }

    #[track_caller]
    fn push(&self, kind: StmtKind) {
        let stmt = Stmt { kind, source: Some(Location::caller()) };
        if let Some(block) = self.state.borrow_mut().open.last_mut() {
            block.push(stmt);
        }
    }

    #[track_caller]
    fn inst(&self, inst: Inst) {
        self.push(StmtKind::Inst(inst));
    }

    /// An instruction with one result.
    #[track_caller]
    fn op<T: Ty>(&self, inst: impl FnOnce(RegId) -> Inst) -> Reg<T> {
        let dst = self.fresh();
        self.inst(inst(dst.id()));
        dst
    }

    /// The statements that `body` makes.
    fn block(&self, body: impl FnOnce()) -> Block {
        self.block_with(body).0
    }

    fn block_with<R>(&self, body: impl FnOnce() -> R) -> (Block, R) {
        self.state.borrow_mut().open.push(Block::new());
        let result = body();
        (self.state.borrow_mut().open.pop().unwrap_or_default(), result)
    }
}
