//! Kernels that note when their blocks ran: the same computation, and a record per block of when it began, when it was past its
//! wait for the kernel before, when it ended, and where.
//!
//! Events tell when a kernel had ended and the next could begin. Where kernels overlap (programmatic dependent launch) there is no
//! such point: blocks of one sit on the multiprocessors while those of the one before still run. Only the blocks know.
//!
//! The last parameter of a stamped kernel, [`PARAMETER`], points to [`RECORD_BYTES`] bytes per block of the grid, in the order of
//! blocks (x first), which are zero before the launch:
//!
//! | byte | what | written by |
//! | ---: | --- | --- |
//! | 0 | `begin`, u64: the block's first instruction | its first thread |
//! | 8 | `waited`, u64: behind the last `griddepcontrol.wait` that the first thread passed; `begin` where it passed none | its first thread |
//! | 16 | `end`, u64: the last of its warps to return | a lane of each warp, by an atomic maximum |
//! | 24 | the multiprocessor, u32 | its first thread |
//! | 28 | 1, u32: the block ran | its first thread |
//!
//! Times are those of `%globaltimer`, in nanoseconds: one clock for all multiprocessors, which ticks every 32 ns on some GPUs and every
//! microsecond on others.

use crate::ir::{
    Access, Address, Atomic, AtomicOp, Base, BinaryOp, Block, CacheHints, Class, Cmp, Dim, Inst, Kernel, Operand,
    Order, Param, ParamId, ParamKind, RegId, Scope, Space, Special, Stmt, StmtKind, Store, TernaryOp, Threads, Type,
};

/// Bytes of a record.
pub const RECORD_BYTES: u64 = 32;
/// Name of the parameter that a stamped kernel has besides.
pub const PARAMETER: &str = "stamps";
/// What the name of a stamped kernel ends with.
pub const SUFFIX: &str = "_stamped";
/// Alignment of the records that the launcher guarantees.
const ALIGN: u32 = 16;
const WAITED: i32 = 8;
const END: i32 = 16;
const PROCESSOR: i32 = 24;

/// What a block noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Record {
    /// Its first instruction, in nanoseconds of the device.
    pub begin: u64,
    /// Behind its wait for the kernel before; `begin` if it has none.
    pub waited: u64,
    /// The end of its last warp.
    pub end: u64,
    /// The multiprocessor it ran on.
    pub processor: u32,
    /// Whether it ran at all.
    pub ran: bool,
}

impl Record {
    /// Reads what a block wrote.
    pub fn from_bytes(bytes: &[u8; RECORD_BYTES as usize]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let word = |i: usize| u32::from_le_bytes(words[i]);
        let long = |i: usize| u64::from(word(i)) | u64::from(word(i + 1)) << 32;
        Self { begin: long(0), waited: long(2), end: long(4), processor: word(6), ran: word(7) != 0 }
    }
}

/// The kernel with stamps: [`PARAMETER`] behind its other parameters, [`SUFFIX`] behind its name. What it computes is the same.
///
/// A kernel that is nested too deep to be valid is given back as it is.
pub fn stamped(kernel: &Kernel) -> Kernel {
    if kernel.is_too_deep() {
        return kernel.clone();
    }
    let mut out = Kernel { body: Vec::new(), ..kernel.clone() };
    out.name += SUFFIX;
    out.about += "\nStamped: every block notes when it began, was past its wait, and ended, and where it ran.";
    let param = ParamId(out.params.len() as u32);
    let access = Access::ReadWrite;
    out.params.push(Param { name: PARAMETER.into(), kind: ParamKind::Pointer { access, align: ALIGN } });
    let mut register = |class| {
        out.registers.push(class);
        RegId(out.registers.len() as u32 - 1)
    };
    let stamper = Stamper {
        linear: matches!(kernel.threads, Threads::UpTo(_) | Threads::Exactly([_, 1, 1])),
        param,
        chosen: register(Class::Pred),
        words: [Class::B32; 3].map(&mut register),
        record: register(Class::B64),
        time: register(Class::B64),
    };
    out.body = stamper.begin();
    out.body.extend(stamper.block(&kernel.body));
    if !matches!(kernel.body.last(), Some(Stmt { kind: StmtKind::Return, .. })) {
        out.body.extend(stamper.end());
    }
    out
}

/// Makes the statements of stamps. Each computes what it needs anew: registers that lived from the first stamp to the last would
/// be missing in between.
struct Stamper {
    /// Whether blocks have one dimension.
    linear: bool,
    param: ParamId,
    chosen: RegId,
    words: [RegId; 3],
    record: RegId,
    time: RegId,
}

impl Stamper {
    /// A block of the kernel with stamps behind its waits and before its returns.
    fn block(&self, block: &Block) -> Block {
        let mut out = Vec::with_capacity(block.len());
        let mut passed = false;
        for stmt in block {
            // Dependents do not wait for the note.
            let lets_begin = matches!(stmt.kind, StmtKind::Inst(Inst::LaunchDependents));
            if passed && !lets_begin {
                out.extend(self.waited());
                passed = false;
            }
            let kind = match &stmt.kind {
                StmtKind::Inst(_) | StmtKind::Comment(_) => stmt.kind.clone(),
                StmtKind::If { cond, then, otherwise } => {
                    StmtKind::If { cond: *cond, then: self.block(then), otherwise: self.block(otherwise) }
                }
                StmtKind::While { head, cond, body, rolled } => {
                    StmtKind::While { head: self.block(head), cond: *cond, body: self.block(body), rolled: *rolled }
                }
                StmtKind::Return => {
                    out.extend(self.end());
                    StmtKind::Return
                }
            };
            out.push(Stmt { kind, source: stmt.source });
            passed |= matches!(stmt.kind, StmtKind::Inst(Inst::WaitForDependencies));
        }
        if passed {
            out.extend(self.waited());
        }
        out
    }

    fn begin(&self) -> Block {
        let [a, ..] = self.words;
        let mut then = vec![read(self.time, Special::GlobalTimer)];
        then.extend(self.locate());
        then.push(store(Type::U64, &[self.time.into(), self.time.into()], self.at(0)));
        then.push(read(a, Special::SmId));
        then.push(store(Type::U32, &[a.into(), Operand::int(1)], self.at(PROCESSOR)));
        self.in_first_thread("stamp: the block begins", then)
    }

    fn waited(&self) -> Block {
        let mut then = vec![read(self.time, Special::GlobalTimer)];
        then.extend(self.locate());
        then.push(store(Type::U64, &[self.time.into()], self.at(WAITED)));
        self.in_first_thread("stamp: what the kernel before wrote is there", then)
    }

    /// The lowest of the lanes that are here notes the time: where only some lanes of a warp return, the others come by later.
    fn end(&self) -> Block {
        let [a, b, _] = self.words;
        let mut then = vec![read(self.time, Special::GlobalTimer)];
        then.extend(self.locate());
        then.push(Inst::Atomic(Atomic {
            op: AtomicOp::Max,
            ty: Type::U64,
            dst: None,
            at: self.at(END),
            compare: None,
            value: self.time.into(),
            order: Order::Relaxed(Scope::Gpu),
        }));
        let choose = vec![
            Inst::ActiveMask { dst: a },
            read(b, Special::LanemaskLt),
            Inst::Binary { op: BinaryOp::And, ty: Type::B32, dst: a, a: a.into(), b: b.into() },
        ];
        self.where_zero("stamp: a warp ends", choose, then)
    }

    fn in_first_thread(&self, comment: &str, then: Vec<Inst>) -> Block {
        let [a, b, _] = self.words;
        let mut choose = vec![read(a, Special::Tid(Dim::X))];
        if !self.linear {
            for dim in [Dim::Y, Dim::Z] {
                choose.push(read(b, Special::Tid(dim)));
                choose.push(Inst::Binary { op: BinaryOp::Or, ty: Type::B32, dst: a, a: a.into(), b: b.into() });
            }
        }
        self.where_zero(comment, choose, then)
    }

    /// Runs `then` in threads in which `choose` leaves zero in the first word.
    fn where_zero(&self, comment: &str, mut choose: Vec<Inst>, then: Vec<Inst>) -> Block {
        let (a, b) = (self.words[0].into(), Operand::int(0));
        choose.push(Inst::Compare { cmp: Cmp::Eq, ty: Type::U32, dst: self.chosen, a, b });
        let mut out = vec![statement(StmtKind::Comment(comment.into()))];
        out.extend(choose.into_iter().map(|inst| statement(StmtKind::Inst(inst))));
        let then = then.into_iter().map(|inst| statement(StmtKind::Inst(inst))).collect();
        out.push(statement(StmtKind::If { cond: self.chosen, then, otherwise: Vec::new() }));
        out
    }

    /// Finds the block's record.
    fn locate(&self) -> Vec<Inst> {
        let [a, b, n] = self.words;
        let mad = || Inst::Ternary { op: TernaryOp::Mad, ty: Type::U32, dst: a, a: a.into(), b: n.into(), c: b.into() };
        vec![
            read(a, Special::Ctaid(Dim::Z)),
            read(n, Special::Nctaid(Dim::Y)),
            read(b, Special::Ctaid(Dim::Y)),
            mad(),
            read(n, Special::Nctaid(Dim::X)),
            read(b, Special::Ctaid(Dim::X)),
            mad(),
            Inst::LoadParam { dst: self.record, param: self.param },
            Inst::Ternary {
                op: TernaryOp::MadWide,
                ty: Type::U32,
                dst: self.record,
                a: a.into(),
                b: Operand::int(RECORD_BYTES.into()),
                c: self.record.into(),
            },
        ]
    }

    fn at(&self, offset: i32) -> Address {
        Address { space: Space::Global, base: Base::Reg(self.record), offset }
    }
}

fn statement(kind: StmtKind) -> Stmt {
    Stmt { kind, source: None }
}

fn read(dst: RegId, special: Special) -> Inst {
    Inst::ReadSpecial { dst, special }
}

fn store(ty: Type, values: &[Operand], to: Address) -> Inst {
    Inst::Store(Store { ty, values: values.to_vec(), to, order: Order::Weak, hints: CacheHints::default() })
}
