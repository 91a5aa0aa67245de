//! Arbitrary IR from arbitrary bytes: mostly nonsense, sometimes nearly right. For properties and for the fuzzer.

#![allow(dead_code)] // not every test binary makes whole modules

use brick_ptx::ir::{
    Access, Address, Atomic, AtomicOp, Base, BinaryOp, Block, Cache, CacheHints, Class, Cmp, CopyAsync, Dim, FenceKind,
    Imm, Inst, Kernel, L1, L2Priority, Load, LoadMatrix, MatchMode, Mma, MmaKind, Module, Operand, Order, Param,
    ParamId, ParamKind, Prefetch, ReduceOp, RegId, Rounding, Scope, Shared, SharedId, SharedSize, Shuffle, ShuffleMode,
    Signedness, Space, Special, Stmt, StmtKind, Store, Subnormals, TernaryOp, Threads, Type, UnaryOp, VoteMode,
};

/// Takes decisions from bytes; zeros when they are used up, so that everything ends.
pub(crate) struct Nonsense<'a> {
    bytes: std::slice::Iter<'a, u8>,
    /// Registers of the kernel that is being made.
    registers: u32,
}

impl<'a> Nonsense<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.iter(), registers: 0 }
    }

    /// An instruction over that many registers.
    pub(crate) fn inst_over(&mut self, registers: u32) -> Inst {
        self.registers = registers;
        self.inst()
    }

    pub(crate) fn module(&mut self) -> Module {
        let count = self.below(3) + 1;
        Module { kernels: (0..count).map(|_| self.kernel()).collect() }
    }

    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn below(&mut self, n: u32) -> u32 {
        u32::from(self.byte()) % n
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    fn name(&mut self) -> String {
        self.pick(&["a", "b", "c", "ret", "", "a b", "\"\n}", "%r1", "ä", "_", "x1", "tile"]).to_owned()
    }

    /// Small numbers that occur, or anything.
    fn size(&mut self) -> u32 {
        match self.below(4) {
            0 => self.u32(),
            _ => self.pick(&[0, 1, 2, 4, 8, 12, 16, 32, 64, 128, 256, 1024, 4096, u32::MAX]),
        }
    }

    fn kernel(&mut self) -> Kernel {
        let registers: Vec<Class> = (0..self.below(24)).map(|_| self.pick(&Class::ALL)).collect();
        self.registers = registers.len() as u32;
        let threads = match self.below(3) {
            0 => Threads::Any,
            1 => Threads::UpTo(self.size()),
            _ => Threads::Exactly([self.size(), self.size(), 1]),
        };
        let mut kernel = Kernel {
            name: self.name(),
            about: self.name(),
            threads,
            min_blocks: if self.flag() { Some(self.size()) } else { None },
            params: (0..self.below(4)).map(|_| self.param()).collect(),
            shared: (0..self.below(3)).map(|_| self.shared()).collect(),
            registers,
            body: Block::new(),
        };
        kernel.body = self.block(0);
        kernel
    }

    fn param(&mut self) -> Param {
        let kind = match self.below(4) {
            0 => ParamKind::U32 { multiple_of: self.size() },
            1 => ParamKind::U64 { multiple_of: self.size() },
            2 => ParamKind::F32,
            _ => ParamKind::Pointer {
                access: self.pick(&[Access::Read, Access::Write, Access::ReadWrite]),
                align: self.size(),
            },
        };
        Param { name: self.name(), kind }
    }

    fn shared(&mut self) -> Shared {
        let (name, align, bytes) = (self.name(), self.size(), self.size());
        let size = if self.flag() { SharedSize::Static { bytes } } else { SharedSize::Dynamic { max_bytes: bytes } };
        Shared { name, align, size }
    }

    fn block(&mut self, depth: usize) -> Block {
        let statements = self.below(12);
        (0..statements).map(|_| Stmt { kind: self.stmt(depth), source: None }).collect()
    }

    fn stmt(&mut self, depth: usize) -> StmtKind {
        match self.below(16) {
            0 => StmtKind::Comment(self.name()),
            1 => StmtKind::Return,
            2 | 3 if depth < 70 => {
                StmtKind::If { cond: self.reg(), then: self.block(depth + 1), otherwise: self.block(depth + 1) }
            }
            4 | 5 if depth < 70 => StmtKind::While {
                head: self.block(depth + 1),
                cond: self.reg(),
                body: self.block(depth + 1),
                rolled: self.flag(),
            },
            _ => StmtKind::Inst(self.inst()),
        }
    }

    /// Mostly one that exists.
    fn reg(&mut self) -> RegId {
        match self.below(64) {
            0 => RegId(self.u32()),
            n => RegId(n % self.registers.max(1)),
        }
    }

    fn regs<const N: usize>(&mut self) -> [RegId; N] {
        std::array::from_fn(|_| self.reg())
    }

    fn operand(&mut self) -> Operand {
        match self.below(8) {
            0 => Operand::Imm(Imm::F32(self.u32())),
            1 => Operand::Imm(Imm::F64(u64::from(self.u32()) << 32)),
            2 => Operand::int(i128::MIN + i128::from(self.u32())),
            3 => Operand::int(self.pick(&[0, 1, -1, 5, 32, 31, 1 << 31, i128::MAX, u32::MAX.into(), u64::MAX.into()])),
            _ => self.reg().into(),
        }
    }

    fn ty(&mut self) -> Type {
        self.pick(&Type::ALL)
    }

    fn scope(&mut self) -> Scope {
        self.pick(&[Scope::Cta, Scope::Gpu, Scope::Sys])
    }

    fn order(&mut self) -> Order {
        let scope = self.scope();
        self.pick(&[
            Order::Weak,
            Order::Volatile,
            Order::Relaxed(scope),
            Order::Acquire(scope),
            Order::Release(scope),
            Order::AcquireRelease(scope),
        ])
    }

    fn address(&mut self) -> Address {
        let base = if self.flag() { Base::Reg(self.reg()) } else { Base::Shared(SharedId(self.below(4))) };
        let offset = if self.flag() { 0 } else { self.size() as i32 };
        Address { space: self.pick(&[Space::Global, Space::Shared]), base, offset }
    }

    fn hints(&mut self) -> CacheHints {
        CacheHints {
            l1: self.pick(&[L1::Normal, L1::NoAllocate, L1::EvictFirst, L1::EvictLast]),
            prefetch: self.pick(&[Prefetch::None, Prefetch::B64, Prefetch::B128, Prefetch::B256]),
            policy: if self.flag() { Some(self.reg()) } else { None },
        }
    }

    fn sign(&mut self) -> Signedness {
        self.pick(&[Signedness::Unsigned, Signedness::Signed])
    }

    fn unary(&mut self) -> UnaryOp {
        let s = self.pick(&[Subnormals::Keep, Subnormals::Flush]);
        self.pick(&[
            UnaryOp::Neg,
            UnaryOp::Abs,
            UnaryOp::Not,
            UnaryOp::Popc,
            UnaryOp::Clz,
            UnaryOp::Brev,
            UnaryOp::Ex2(s),
            UnaryOp::RcpApprox(s),
            UnaryOp::SqrtRn,
            UnaryOp::Tanh,
        ])
    }

    fn binary(&mut self) -> BinaryOp {
        self.pick(&[
            BinaryOp::Add,
            BinaryOp::Sub,
            BinaryOp::Mul,
            BinaryOp::MulHi,
            BinaryOp::MulWide,
            BinaryOp::Div,
            BinaryOp::Rem,
            BinaryOp::DivFull,
            BinaryOp::Min,
            BinaryOp::And,
            BinaryOp::Or,
            BinaryOp::Shl,
            BinaryOp::Shr,
        ])
    }

    fn inst(&mut self) -> Inst {
        let (ty, dst, a, b, c) = (self.ty(), self.reg(), self.operand(), self.operand(), self.operand());
        match self.below(45) {
            0..4 => Inst::Mov { ty, dst, src: a },
            4 => Inst::ReadSpecial {
                dst,
                special: self.pick(&[Special::Tid(Dim::X), Special::Ctaid(Dim::Y), Special::Clock64, Special::LaneId]),
            },
            5 => Inst::LoadParam { dst, param: ParamId(self.below(5)) },
            6 => Inst::AddressOf { dst, shared: SharedId(self.below(4)) },
            7 => Inst::Pack { ty, dst, parts: self.regs() },
            8 => Inst::Unpack { ty, dst: self.regs(), src: dst },
            9 => Inst::Unary { op: self.unary(), ty, dst, a },
            10..14 => Inst::Binary { op: self.binary(), ty, dst, a, b },
            14 => {
                let op = self.pick(&[TernaryOp::Mad, TernaryOp::MadHi, TernaryOp::MadWide, TernaryOp::Fma]);
                Inst::Ternary { op, ty, dst, a, b, c }
            }
            15 | 16 => Inst::Compare { cmp: self.pick(&Cmp::ALL), ty, dst, a, b },
            17 => Inst::Select { ty, dst, a, b, cond: self.reg() },
            18 => Inst::ExtractBits { ty, dst, a, start: b, len: c },
            19 => Inst::InsertBits { ty, dst, field: a, base: b, start: c, len: a },
            20 => Inst::Permute { dst, a, b, selector: c },
            21 => Inst::Logic3 { dst, a, b, c, table: self.byte() },
            22 => Inst::FunnelShift { left: self.flag(), dst, low: a, high: b, amount: c },
            23 => Inst::Dp4a { a_sign: self.sign(), b_sign: self.sign(), dst, a, b, c },
            24 => {
                let rounding = self.pick(&[None, Some(Rounding::Rn), Some(Rounding::Rzi), Some(Rounding::Rm)]);
                Inst::Convert { to: ty, from: self.ty(), rounding, saturate: self.flag(), dst, src: a }
            }
            25 => Inst::ConvertPair { to: ty, dst, high: a, low: b },
            26 | 27 => Inst::Load(Load {
                ty,
                dst: (0..self.below(6)).map(|_| self.reg()).collect(),
                from: self.address(),
                read_only: self.flag(),
                uniform: self.flag(),
                order: self.order(),
                hints: self.hints(),
            }),
            28 | 29 => Inst::Store(Store {
                ty,
                values: (0..self.below(6)).map(|_| self.operand()).collect(),
                to: self.address(),
                order: self.order(),
                hints: self.hints(),
            }),
            30 => Inst::Atomic(Atomic {
                op: self.pick(&[AtomicOp::Add, AtomicOp::Inc, AtomicOp::Exch, AtomicOp::Cas, AtomicOp::Max]),
                ty,
                dst: if self.flag() { Some(dst) } else { None },
                at: self.address(),
                compare: if self.flag() { Some(a) } else { None },
                value: b,
                order: self.order(),
            }),
            31 => Inst::CopyAsync(CopyAsync {
                to: self.address(),
                from: self.address(),
                bytes: self.size(),
                bypass_l1: self.flag(),
                read_bytes: if self.flag() { Some(a) } else { None },
                prefetch: Prefetch::B128,
                policy: if self.flag() { Some(dst) } else { None },
            }),
            32 => self
                .pick(&[Inst::CommitGroup, Inst::WaitForDependencies, Inst::LaunchDependents, Inst::Trap].each_ref())
                .clone(),
            33 => Inst::WaitGroup { pending: self.size() },
            34 => Inst::Prefetch { cache: self.pick(&[Cache::L1, Cache::L2]), at: self.address() },
            35 => Inst::CreatePolicy { dst, priority: self.pick(&[L2Priority::EvictFirst, L2Priority::EvictLast]) },
            36 => Inst::LoadMatrix(LoadMatrix {
                dst: (0..self.below(6)).map(|_| self.reg()).collect(),
                from: self.address(),
                transposed: self.flag(),
            }),
            37 => {
                let int8 = MmaKind::Int8 { a: self.sign(), b: self.sign() };
                let kind = self.pick(&[MmaKind::F16, MmaKind::Bf16, int8]);
                Inst::Mma(Mma { kind, d: self.regs(), a: self.regs(), b: self.regs(), c: self.regs() })
            }
            38 => Inst::Fence {
                kind: self.pick(&[FenceKind::AcquireRelease, FenceKind::Sequential]),
                scope: self.scope(),
            },
            39 => Inst::Shuffle(Shuffle {
                mode: self.pick(&[ShuffleMode::Idx, ShuffleMode::Up, ShuffleMode::Bfly]),
                dst,
                in_range: if self.flag() { Some(self.reg()) } else { None },
                value: a,
                lane: b,
                width: self.size(),
                mask: c,
            }),
            40 => {
                let mode = self.pick(&[VoteMode::Ballot, VoteMode::Any, VoteMode::All]);
                Inst::Vote { mode, dst, pred: self.reg(), mask: a }
            }
            41 => Inst::Match { mode: self.pick(&[MatchMode::Any, MatchMode::All]), ty, dst, value: a, mask: b },
            42 => Inst::Reduce { op: self.pick(&[ReduceOp::Add, ReduceOp::Xor]), ty, dst, value: a, mask: b },
            43 => match self.below(6) {
                0 => Inst::Barrier { id: self.size(), threads: None },
                1 => Inst::Barrier { id: self.below(20), threads: Some(self.size()) },
                2 => Inst::Arrive { id: self.below(20), threads: self.size() },
                3 => Inst::WarpBarrier { mask: a },
                4 => Inst::Nanosleep { ns: a },
                _ => Inst::ActiveMask { dst },
            },
            _ => Inst::AssumeMultiple { reg: dst, of: self.size() },
        }
    }
}
