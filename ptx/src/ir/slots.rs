//! What an instruction reads and writes, in one place: checks and analyses walk over this.

use super::{
    Address, Base, BinaryOp, Inst, Kernel, MatchMode, Operand, ParamKind, RegId, Signedness, TernaryOp, Type, UnaryOp,
    VoteMode,
};

/// What a register has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Type that the instruction reads or writes it as.
    pub ty: Type,
    /// Whether a wider integer register does too: loads, stores and conversions of 8 and 16 bits extend and truncate.
    pub or_wider: bool,
}

impl Need {
    fn exactly(ty: Type) -> Self {
        Self { ty, or_wider: false }
    }

    /// As exact as memory and conversions are about `ty`.
    fn converted(ty: Type) -> Self {
        Self { ty, or_wider: ty.bits() == 8 || (ty.bits() == 16 && (ty.is_integer() || ty.is_bits())) }
    }

    /// Whether a register of `class` will do.
    pub fn takes(self, class: super::Class) -> bool {
        use super::Class;
        self.ty.fits(class) || (self.or_wider && (class == Class::B32 || (class == Class::B16 && self.ty.bits() == 8)))
    }
}

/// One operand of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// Written.
    Def(RegId, Need),
    /// Read.
    Use(Operand, Need),
}

impl Inst {
    /// Calls `visit` for every operand. `kernel` tells the types of parameters.
    pub fn slots(&self, kernel: &Kernel, visit: &mut impl FnMut(Slot)) {
        let mut slots = Slots { visit };
        slots.of(self, kernel);
    }

    /// Calls `visit` for every register that is written.
    pub fn defs(&self, kernel: &Kernel, mut visit: impl FnMut(RegId)) {
        self.slots(kernel, &mut |slot| {
            if let Slot::Def(reg, _) = slot {
                visit(reg);
            }
        });
    }

    /// Calls `visit` for every register that is read.
    pub fn uses(&self, kernel: &Kernel, mut visit: impl FnMut(RegId)) {
        self.slots(kernel, &mut |slot| {
            if let Slot::Use(Operand::Reg(reg), _) = slot {
                visit(reg);
            }
        });
    }
}

struct Slots<'a, F> {
    visit: &'a mut F,
}

impl<F: FnMut(Slot)> Slots<'_, F> {
    fn def(&mut self, reg: RegId, ty: Type) {
        (self.visit)(Slot::Def(reg, Need::exactly(ty)));
    }

    fn read(&mut self, operand: impl Into<Operand>, ty: Type) {
        (self.visit)(Slot::Use(operand.into(), Need::exactly(ty)));
    }

    fn reads(&mut self, operands: &[Operand], ty: Type) {
        for operand in operands {
            self.read(*operand, ty);
        }
    }

    fn address(&mut self, address: Address) {
        if let Base::Reg(reg) = address.base {
            self.read(reg, address.space.address());
        }
    }

    fn of(&mut self, inst: &Inst, kernel: &Kernel) {
        use Type::{B32, F32, Pred, S32, U32, U64};
        match *inst {
            Inst::Mov { ty, dst, src } => {
                self.def(dst, ty);
                self.read(src, ty);
            }
            Inst::ReadSpecial { dst, special } => self.def(dst, special.ty()),
            Inst::LoadParam { dst, param } => {
                let ty = match kernel.params.get(param.0 as usize).map(|p| p.kind) {
                    Some(ParamKind::U32 { .. }) => Type::U32,
                    Some(ParamKind::F32) => Type::F32,
                    // An unknown parameter is an error of its own.
                    Some(ParamKind::Pointer { .. } | ParamKind::U64 { .. }) | None => Type::U64,
                };
                self.def(dst, ty);
            }
            Inst::AddressOf { dst, .. } | Inst::ActiveMask { dst } => self.def(dst, U32),
            Inst::Pack { ty, dst, parts } => {
                self.def(dst, ty);
                self.reads(&parts.map(Operand::Reg), half(ty));
            }
            Inst::Unpack { ty, dst, src } => {
                for d in dst {
                    self.def(d, half(ty));
                }
                self.read(src, ty);
            }
            Inst::Unary { op, ty, dst, a } => {
                let counts = matches!(op, UnaryOp::Popc | UnaryOp::Clz);
                self.def(dst, if counts { U32 } else { ty });
                self.read(a, ty);
            }
            Inst::Binary { op, ty, dst, a, b } => {
                self.def(dst, if op == BinaryOp::MulWide { wide(ty) } else { ty });
                self.read(a, ty);
                self.read(b, if matches!(op, BinaryOp::Shl | BinaryOp::Shr) { U32 } else { ty });
            }
            Inst::Ternary { op, ty, dst, a, b, c } => {
                let result = if op == TernaryOp::MadWide { wide(ty) } else { ty };
                self.def(dst, result);
                self.reads(&[a, b], ty);
                self.read(c, result);
            }
            Inst::Compare { ty, dst, a, b, .. } => {
                self.def(dst, Pred);
                self.reads(&[a, b], ty);
            }
            Inst::Select { ty, dst, a, b, cond } => {
                self.def(dst, ty);
                self.reads(&[a, b], ty);
                self.read(cond, Pred);
            }
            Inst::ExtractBits { ty, dst, a, start, len } => {
                self.def(dst, ty);
                self.read(a, ty);
                self.reads(&[start, len], U32);
            }
            Inst::InsertBits { ty, dst, field, base, start, len } => {
                self.def(dst, ty);
                self.reads(&[field, base], ty);
                self.reads(&[start, len], U32);
            }
            Inst::Permute { dst, a, b, selector: c } | Inst::Logic3 { dst, a, b, c, .. } => {
                self.def(dst, B32);
                self.reads(&[a, b, c], B32);
            }
            Inst::FunnelShift { dst, low, high, amount, .. } => {
                self.def(dst, B32);
                self.reads(&[low, high], B32);
                self.read(amount, U32);
            }
            Inst::Dp4a { a_sign, b_sign, dst, a, b, c } => {
                let unsigned = a_sign == Signedness::Unsigned && b_sign == Signedness::Unsigned;
                let sum = if unsigned { U32 } else { S32 };
                self.def(dst, sum);
                self.read(a, a_sign.words());
                self.read(b, b_sign.words());
                self.read(c, sum);
            }
            Inst::Convert { to, from, dst, src, .. } => {
                (self.visit)(Slot::Def(dst, Need::converted(to)));
                (self.visit)(Slot::Use(src, Need::converted(from)));
            }
            Inst::ConvertPair { to, dst, high, low } => {
                self.def(dst, to);
                self.reads(&[high, low], F32);
            }
            Inst::Load(ref load) => {
                load.dst.iter().for_each(|&d| (self.visit)(Slot::Def(d, Need::converted(load.ty))));
                self.address(load.from);
                load.hints.policy.into_iter().for_each(|p| self.read(p, U64));
            }
            Inst::Store(ref store) => {
                store.values.iter().for_each(|&v| (self.visit)(Slot::Use(v, Need::converted(store.ty))));
                self.address(store.to);
                store.hints.policy.into_iter().for_each(|p| self.read(p, U64));
            }
            Inst::Atomic(atomic) => {
                atomic.dst.into_iter().for_each(|d| self.def(d, atomic.ty));
                self.address(atomic.at);
                atomic.compare.into_iter().for_each(|c| self.read(c, atomic.ty));
                self.read(atomic.value, atomic.ty);
            }
            Inst::CopyAsync(copy) => {
                self.address(copy.to);
                self.address(copy.from);
                copy.read_bytes.into_iter().for_each(|n| self.read(n, U32));
                copy.policy.into_iter().for_each(|p| self.read(p, U64));
            }
            Inst::Prefetch { at, .. } => self.address(at),
            Inst::CreatePolicy { dst, .. } => self.def(dst, U64),
            Inst::LoadMatrix(ref load) => {
                load.dst.iter().for_each(|&d| self.def(d, U32));
                self.address(load.from);
            }
            Inst::Mma(mma) => {
                mma.d.into_iter().for_each(|d| self.def(d, mma.kind.accumulator()));
                // Fragments are packed: an f32 register holds none.
                self.reads(&mma.a.map(Operand::Reg), U32);
                self.reads(&mma.b.map(Operand::Reg), U32);
                self.reads(&mma.c.map(Operand::Reg), mma.kind.accumulator());
            }
            Inst::Shuffle(shuffle) => {
                self.def(shuffle.dst, B32);
                shuffle.in_range.into_iter().for_each(|p| self.def(p, Pred));
                self.read(shuffle.value, B32);
                self.reads(&[shuffle.lane, shuffle.mask], U32);
            }
            Inst::Vote { mode, dst, pred, mask } => {
                self.def(dst, if mode == VoteMode::Ballot { U32 } else { Pred });
                self.read(pred, Pred);
                self.read(mask, U32);
            }
            Inst::Match { mode: MatchMode::Any | MatchMode::All, ty, dst, value, mask } => {
                self.def(dst, U32);
                self.read(value, ty);
                self.read(mask, U32);
            }
            Inst::Reduce { ty, dst, value, mask, .. } => {
                // Even the bitwise ones take no float registers.
                let ty = if ty == B32 { U32 } else { ty };
                self.def(dst, ty);
                self.read(value, ty);
                self.read(mask, U32);
            }
            Inst::WarpBarrier { mask: a } | Inst::Nanosleep { ns: a } => self.read(a, U32),
            Inst::AssumeMultiple { reg, .. } => {
                let wide = kernel.registers.get(reg.0 as usize) == Some(&super::Class::B64);
                self.read(reg, if wide { U64 } else { U32 });
            }
            Inst::CommitGroup
            | Inst::WaitGroup { .. }
            | Inst::Fence { .. }
            | Inst::Barrier { .. }
            | Inst::Arrive { .. }
            | Inst::WaitForDependencies
            | Inst::LaunchDependents
            | Inst::Trap => {}
        }
    }
}

/// Half of a type that can be split. Other types are an error of their own.
fn half(ty: Type) -> Type {
    if ty.bits() == 64 { Type::B32 } else { Type::B16 }
}

/// Twice the width of a type that can be widened. Other types are an error of their own.
fn wide(ty: Type) -> Type {
    match ty {
        Type::S32 => Type::S64,
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        _ => Type::U64,
    }
}
