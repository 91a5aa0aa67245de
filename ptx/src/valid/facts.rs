//! What is known of a register on every path: uniformity, alignment, origin.
//!
//! One fixed point over three small lattices. Facts start at their strongest and only get weaker, so the iteration ends.
//! A register may be written several times; its fact holds for all of them.

use std::convert::Infallible;
use std::fmt;

use crate::ir::{
    Address, Base, BinaryOp, Dim, FULL_MASK, Inst, Kernel, MatchMode, Operand, ParamId, ParamKind, RegId, SharedId,
    ShuffleMode, Special, Stmt, TernaryOp, Threads, UnaryOp,
};
use crate::valid::walk::{self, Pass};

/// In which threads a value is the same, or control flow goes the same way. Later is weaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uniformity {
    /// In all threads of a block.
    Block,
    /// In all threads of a warp.
    Warp,
    /// In none but itself.
    Thread,
}

impl fmt::Display for Uniformity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "is the same in all threads of the block",
            Self::Warp => "differs between the warps of the block",
            Self::Thread => "differs between the threads of a warp",
        })
    }
}

/// What an address was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was written yet.
    Unset,
    /// No pointer parameter.
    Number,
    /// One pointer parameter.
    Param(ParamId),
    /// Several things, depending on the path.
    Mixed,
}

impl Origin {
    fn join(self, other: Self) -> Self {
        match (self, other) {
            (Self::Unset, x) | (x, Self::Unset) => x,
            (a, b) if a == b => a,
            _ => Self::Mixed,
        }
    }

    /// Of a sum.
    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number | Self::Unset, x) | (x, Self::Number | Self::Unset) => x,
            _ => Self::Mixed,
        }
    }
}

/// Power of two that only zero is a multiple of, in 64 bits.
const ZERO: u32 = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fact {
    uniformity: Uniformity,
    /// The value is a multiple of two to this power.
    power: u32,
    origin: Origin,
    /// It is `%tid.x`.
    is_tid: bool,
}

/// Of a register that nothing is known of.
const UNKNOWN: Fact = Fact { uniformity: Uniformity::Thread, power: 0, origin: Origin::Mixed, is_tid: false };

/// Facts about the registers of a kernel.
#[derive(Debug, Clone)]
pub struct Facts {
    registers: Vec<Fact>,
    assumed: Vec<u32>,
    loop_returns: Vec<Option<Uniformity>>,
}

impl Facts {
    /// Analyses a kernel, valid or not. `None` if it is nested deeper than [`MAX_DEPTH`](crate::ir::MAX_DEPTH).
    pub fn of(kernel: &Kernel) -> Option<Self> {
        if kernel.is_too_deep() {
            return None;
        }
        let strongest = Fact { uniformity: Uniformity::Block, power: ZERO, origin: Origin::Unset, is_tid: true };
        let mut facts = Self {
            registers: vec![strongest; kernel.registers.len()],
            assumed: vec![0; kernel.registers.len()],
            loop_returns: Vec::new(),
        };
        let assumed = &mut facts.assumed;
        let Ok(()) = walk::instructions(kernel, &mut |_, inst| -> Result<(), Infallible> {
            if let Inst::AssumeMultiple { reg, of } = *inst
                && let Some(power) = assumed.get_mut(reg.0 as usize)
            {
                *power = (*power).max(of.trailing_zeros().min(ZERO));
            }
            Ok(())
        });
        loop {
            let mut pass = Transfer { kernel, facts: &mut facts, changed: false };
            let Ok(()) = walk::follow(kernel, &mut pass);
            if !pass.changed {
                return Some(facts);
            }
        }
    }

    /// In which threads a register has one value.
    pub fn uniformity(&self, reg: RegId) -> Uniformity {
        self.fact(reg).uniformity
    }

    /// Power of two that the register is always a multiple of.
    pub fn multiple_of(&self, reg: RegId) -> u64 {
        1 << self.fact(reg).power.min(63)
    }

    /// What the register was computed from.
    pub fn origin(&self, reg: RegId) -> Origin {
        self.fact(reg).origin
    }

    /// Power of two, at most 2^32, that an address is always a multiple of.
    pub(super) fn address_multiple_of(&self, address: Address, kernel: &Kernel) -> u64 {
        let base = match address.base {
            Base::Reg(reg) => self.fact(reg).power,
            Base::Shared(shared) => shared_power(kernel, shared),
        };
        1 << base.min(power_of(i128::from(address.offset))).min(32)
    }

    /// Where each loop, in the order of the text, returns from the kernel.
    pub(super) fn loop_returns(&self) -> &[Option<Uniformity>] {
        &self.loop_returns
    }

    fn fact(&self, reg: RegId) -> Fact {
        self.registers.get(reg.0 as usize).copied().unwrap_or(UNKNOWN)
    }

    fn operand(&self, operand: Operand) -> Fact {
        match operand {
            Operand::Reg(reg) => self.fact(reg),
            Operand::Imm(_) => {
                let power = operand.as_int().map_or(0, power_of);
                Fact { uniformity: Uniformity::Block, power, origin: Origin::Number, is_tid: false }
            }
        }
    }
}

fn power_of(value: i128) -> u32 {
    value.trailing_zeros().min(ZERO)
}

fn shared_power(kernel: &Kernel, shared: SharedId) -> u32 {
    kernel.shared.get(shared.0 as usize).map_or(0, |s| s.align.trailing_zeros().min(31))
}

/// One round of the fixed point.
struct Transfer<'a> {
    kernel: &'a Kernel,
    facts: &'a mut Facts,
    changed: bool,
}

impl Pass<Infallible> for Transfer<'_> {
    fn uniformity(&self, reg: RegId) -> Uniformity {
        self.facts.uniformity(reg)
    }

    fn loop_return(&mut self, index: usize) -> &mut Option<Uniformity> {
        if index >= self.facts.loop_returns.len() {
            self.facts.loop_returns.resize(index + 1, None);
        }
        &mut self.facts.loop_returns[index]
    }

    fn inst(&mut self, _: &Stmt, inst: &Inst, flow: Uniformity) -> Result<(), Infallible> {
        let power = self.power(inst);
        let origin = self.origin(inst);
        let is_tid = matches!(inst, Inst::ReadSpecial { special: Special::Tid(Dim::X), .. });
        let uniformity = self.value(inst).max(flow);
        let kernel = self.kernel;
        inst.defs(kernel, |dst| {
            let index = dst.0 as usize;
            let Some(known) = self.facts.registers.get_mut(index) else { return };
            let next = Fact {
                uniformity: known.uniformity.max(uniformity),
                power: known.power.min(power.max(self.facts.assumed[index])),
                origin: known.origin.join(origin),
                is_tid: known.is_tid && is_tid,
            };
            self.changed |= next != *known;
            *known = next;
        });
        Ok(())
    }
}

impl Transfer<'_> {
    /// In which threads the result is the same, given that they run the instruction together.
    fn value(&self, inst: &Inst) -> Uniformity {
        use Uniformity::{Block, Thread, Warp};
        let of = |operand: Operand| self.facts.operand(operand).uniformity;
        match *inst {
            Inst::ReadSpecial { special, .. } => match special {
                Special::Ntid(_) | Special::Ctaid(_) | Special::Nctaid(_) | Special::SmId | Special::NSmId => Block,
                Special::WarpId => Warp,
                _ => Thread,
            },
            Inst::Load(ref load) if load.uniform => match load.from.base {
                Base::Reg(reg) => of(reg.into()),
                Base::Shared(_) => Block,
            },
            Inst::Load(_) | Inst::Atomic(_) | Inst::ActiveMask { .. } | Inst::LoadMatrix(_) | Inst::Mma(_) => Thread,
            Inst::Shuffle(shuffle) => {
                let whole = shuffle.mode == ShuffleMode::Idx && shuffle.width == 32;
                let one_source = if whole { of(shuffle.lane).max(Warp) } else { Thread };
                of(shuffle.value).min(one_source)
            }
            Inst::Vote { mask, .. } | Inst::Reduce { mask, .. } => {
                if mask.as_int() == Some(FULL_MASK.into()) {
                    Warp
                } else {
                    Thread
                }
            }
            Inst::Match { mode, value, mask, .. } => {
                let full = mask.as_int() == Some(FULL_MASK.into());
                if full && (mode == MatchMode::All || of(value) <= Warp) { Warp } else { Thread }
            }
            Inst::Binary { op, a, b, .. } if self.is_warp_of_thread(op, a, b) => Warp,
            _ => {
                let mut weakest = Block;
                inst.uses(self.kernel, |reg| weakest = weakest.max(of(reg.into())));
                weakest
            }
        }
    }

    /// Whether it computes the index of the warp, or of its first thread, from `%tid.x`.
    fn is_warp_of_thread(&self, op: BinaryOp, a: Operand, b: Operand) -> bool {
        let of_tid = a.reg().is_some_and(|reg| self.facts.fact(reg).is_tid);
        let by_warp = match (op, b.as_int()) {
            (BinaryOp::Shr, Some(by)) => by >= 5,
            (BinaryOp::Div, Some(by)) => by > 0 && by % 32 == 0,
            (BinaryOp::And, Some(mask)) => mask.trailing_zeros() >= 5,
            _ => false,
        };
        // Warps are cut from the linear index, of which `%tid.x` is only a part in blocks of more dimensions.
        let linear = match self.kernel.threads {
            Threads::UpTo(_) => true,
            Threads::Exactly([x, y, z]) => (y == 1 && z == 1) || x % 32 == 0,
            Threads::Any => false,
        };
        of_tid && by_warp && linear
    }

    /// Power of two that the result is a multiple of.
    fn power(&self, inst: &Inst) -> u32 {
        let of = |operand: Operand| self.facts.operand(operand).power;
        let power = match *inst {
            Inst::Mov { src, .. } | Inst::Unary { op: UnaryOp::Neg, a: src, .. } => of(src),
            Inst::Convert { to, from, src, .. } if to.is_integer() && from.is_integer() => of(src),
            Inst::Shuffle(shuffle) => of(shuffle.value),
            Inst::Select { a, b, .. } => of(a).min(of(b)),
            Inst::LoadParam { param, .. } => match self.kernel.params.get(param.0 as usize).map(|p| p.kind) {
                Some(
                    ParamKind::Pointer { align: n, .. }
                    | ParamKind::U32 { multiple_of: n }
                    | ParamKind::U64 { multiple_of: n },
                ) => n.trailing_zeros().min(31),
                _ => 0,
            },
            Inst::AddressOf { shared, .. } => shared_power(self.kernel, shared),
            Inst::ReadSpecial { special: Special::Ntid(dim), .. } => match self.kernel.threads {
                Threads::Exactly(shape) => power_of(i128::from(shape[dim as usize])),
                _ => 0,
            },
            Inst::Binary { op, a, b, .. } => match op {
                BinaryOp::Add
                | BinaryOp::Sub
                | BinaryOp::Min
                | BinaryOp::Max
                | BinaryOp::Or
                | BinaryOp::Xor
                | BinaryOp::Rem => of(a).min(of(b)),
                BinaryOp::And => of(a).max(of(b)),
                BinaryOp::Mul | BinaryOp::MulWide => of(a) + of(b),
                BinaryOp::Shl => of(a) + b.as_int().map_or(0, |by| by.clamp(0, ZERO.into()) as u32),
                BinaryOp::Shr => match b.as_int() {
                    Some(by) if of(a) < ZERO => of(a).saturating_sub(by.clamp(0, ZERO.into()) as u32),
                    _ => 0,
                },
                _ => 0,
            },
            Inst::Ternary { op: TernaryOp::Mad | TernaryOp::MadWide, a, b, c, .. } => (of(a) + of(b)).min(of(c)),
            _ => 0,
        };
        power.min(ZERO)
    }

    fn origin(&self, inst: &Inst) -> Origin {
        let of = |operand: Operand| self.facts.operand(operand).origin;
        match *inst {
            Inst::LoadParam { param, .. } => match self.kernel.params.get(param.0 as usize).map(|p| p.kind) {
                Some(ParamKind::Pointer { .. }) => Origin::Param(param),
                _ => Origin::Number,
            },
            Inst::Mov { src, .. } => of(src),
            Inst::Select { a, b, .. } => of(a).join(of(b)),
            Inst::Binary { op: BinaryOp::Add | BinaryOp::Sub | BinaryOp::And | BinaryOp::Or, a, b, .. } => {
                of(a).plus(of(b))
            }
            Inst::Ternary { op: TernaryOp::Mad | TernaryOp::MadWide, c, .. } => of(c),
            _ => Origin::Number,
        }
    }
}
