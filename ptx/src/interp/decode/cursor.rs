//! Modifiers and operands of one raw instruction, taken one by one: what nobody takes is an error.

use std::collections::HashMap;

use super::names::{Key, Names, Reg, Special};
use crate::interp::op::{Addr, Any, D, P, Pin, R};
use crate::interp::text::{ParseError, ParseErrorKind, RawInstr, RawOperand};
use crate::interp::ty::Ty;

/// The variables an instruction may name.
pub(super) struct Variables<'a> {
    /// Shared arrays by address.
    pub(super) shared: HashMap<&'a str, u32>,
    /// Parameters by offset and type.
    pub(super) params: HashMap<&'a str, (u32, Ty)>,
    /// Size of all parameters.
    pub(super) param_bytes: u64,
    /// Labels by instruction.
    pub(super) labels: HashMap<&'a str, u32>,
}

pub(super) struct Cursor<'c, 'a> {
    instr: &'c RawInstr<'a>,
    pub(super) names: &'c mut Names<'a>,
    variables: &'c Variables<'a>,
    taken: Vec<bool>,
    /// Registers read and written so far, for the check of unset registers.
    pub(super) reads: Vec<Key>,
    pub(super) writes: Vec<Key>,
}

pub(super) type Decoded<T> = Result<T, ParseError>;

impl<'c, 'a> Cursor<'c, 'a> {
    pub(super) fn new(instr: &'c RawInstr<'a>, names: &'c mut Names<'a>, variables: &'c Variables<'a>) -> Self {
        let taken = vec![false; instr.modifiers.len()];
        Self { instr, names, variables, taken, reads: Vec::new(), writes: Vec::new() }
    }

    pub(super) fn name(&self) -> &'a str {
        self.instr.name
    }

    pub(super) fn operands(&self) -> usize {
        self.instr.operands.len()
    }

    pub(super) fn fail<T>(&self, kind: ParseErrorKind) -> Decoded<T> {
        Err(ParseError::new(self.instr.pos, kind))
    }

    pub(super) fn missing<T>(&self, needs: &'static str) -> Decoded<T> {
        self.fail(ParseErrorKind::Missing { instruction: self.name().to_owned(), needs })
    }

    pub(super) fn bad_type<T>(&self, ty: Ty) -> Decoded<T> {
        self.fail(ParseErrorKind::Type { instruction: self.name().to_owned(), ty: ty.to_string() })
    }

    // ---- modifiers ----

    /// Takes the modifier `name` if it is there.
    pub(super) fn has(&mut self, name: &str) -> bool {
        for (i, modifier) in self.instr.modifiers.iter().enumerate() {
            if !self.taken[i] && *modifier == name {
                self.taken[i] = true;
                return true;
            }
        }
        false
    }

    /// Takes the first modifier of a table.
    pub(super) fn choose<T: Copy>(&mut self, table: &[(&str, T)]) -> Option<T> {
        for (i, modifier) in self.instr.modifiers.iter().enumerate() {
            if self.taken[i] {
                continue;
            }
            if let Some(&(_, value)) = table.iter().find(|(name, _)| name == modifier) {
                self.taken[i] = true;
                return Some(value);
            }
        }
        None
    }

    /// Takes every modifier that starts with `prefix`.
    pub(super) fn ignore_prefixed(&mut self, prefix: &str) {
        for (i, modifier) in self.instr.modifiers.iter().enumerate() {
            if modifier.starts_with(prefix) {
                self.taken[i] = true;
            }
        }
    }

    /// Takes the first type.
    pub(super) fn ty(&mut self) -> Decoded<Ty> {
        for (i, modifier) in self.instr.modifiers.iter().enumerate() {
            if !self.taken[i]
                && let Some(ty) = Ty::parse(modifier)
            {
                self.taken[i] = true;
                return Ok(ty);
            }
        }
        self.missing("a type")
    }

    /// Every modifier must have been taken.
    pub(super) fn finish(&self) -> Decoded<()> {
        match self.taken.iter().position(|taken| !taken) {
            None => Ok(()),
            Some(i) => self.fail(ParseErrorKind::Modifier {
                instruction: self.name().to_owned(),
                modifier: self.instr.modifiers[i].to_owned(),
            }),
        }
    }

    // ---- operands ----

    pub(super) fn count(&self, expected: usize) -> Decoded<()> {
        const WORDS: [&str; 7] = ["no", "1", "2", "3", "4", "5", "6"];
        if self.operands() == expected {
            return Ok(());
        }
        self.fail(ParseErrorKind::OperandCount {
            instruction: self.name().to_owned(),
            expected: WORDS[expected.min(6)],
            found: self.operands(),
        })
    }

    pub(super) fn raw(&self, i: usize) -> Decoded<&'c RawOperand<'a>> {
        match self.instr.operands.get(i) {
            Some(operand) => Ok(operand),
            None => self.fail(ParseErrorKind::OperandCount {
                instruction: self.name().to_owned(),
                expected: "more",
                found: self.operands(),
            }),
        }
    }

    pub(super) fn bad_operand<T>(&self, i: usize, expected: impl Into<String>) -> Decoded<T> {
        let found = self.raw(i).map_or("nothing".to_owned(), RawOperand::describe);
        self.bad(i, expected, found)
    }

    fn bad<T>(&self, i: usize, expected: impl Into<String>, found: String) -> Decoded<T> {
        self.fail(ParseErrorKind::Operand {
            instruction: self.name().to_owned(),
            index: i + 1,
            expected: expected.into(),
            found,
        })
    }

    fn undeclared<T>(&self, what: &'static str, name: &str) -> Decoded<T> {
        self.fail(ParseErrorKind::Undeclared { what, name: name.to_owned() })
    }

    /// The register an operand names; anything else is an error.
    fn register(&mut self, i: usize, operand: &RawOperand<'a>) -> Decoded<Reg> {
        match *operand {
            RawOperand::Name(name) => match self.names.register(name, self.instr.pos)? {
                Some(reg) => Ok(reg),
                None => self.undeclared("register", name),
            },
            _ => self.bad(i, "a register", operand.describe()),
        }
    }

    fn check(&self, i: usize, reg: Reg, ty: Ty, wider: bool) -> Decoded<()> {
        let fits = if wider { reg.ty.holds(ty) } else { reg.ty.matches(ty) };
        if fits {
            return Ok(());
        }
        let expected = if wider { format!("a register of {ty} or wider") } else { format!("a register of {ty}") };
        self.bad(i, expected, format!("one of {}", reg.ty))
    }

    fn any(reg: Reg) -> Any {
        match reg.ty.bytes() {
            1 => Any::R8(R(reg.index)),
            2 => Any::R16(R(reg.index)),
            8 => Any::R64(D(reg.index)),
            _ => Any::R32(R(reg.index)),
        }
    }

    /// The bits of an immediate of type `ty`.
    fn immediate(&self, i: usize, operand: &RawOperand<'a>, ty: Ty) -> Decoded<u64> {
        let wrong = || self.bad(i, format!("a register or an immediate of {ty}"), operand.describe());
        match (operand, ty) {
            (&RawOperand::F32(bits), Ty::F32 | Ty::B32) => Ok(bits.into()),
            (&RawOperand::F64(value), Ty::F64) => Ok(value.to_bits()),
            (&RawOperand::F64(value), Ty::F32) => Ok((value as f32).to_bits().into()),
            (&RawOperand::Int(value), _) if !ty.is_float() && ty != Ty::Pred => {
                let bits = ty.bytes() * 8;
                let signed = value as i64;
                let fits = bits == 64 || value >> bits == 0 || signed >> (bits - 1) == -1;
                if fits { Ok(if bits == 64 { value } else { value & ((1 << bits) - 1) }) } else { wrong() }
            }
            _ => wrong(),
        }
    }

    fn source(&mut self, i: usize, operand: &RawOperand<'a>, ty: Ty, wider: bool) -> Decoded<Any> {
        if let RawOperand::Name(name) = *operand {
            if let Some(reg) = self.names.register(name, self.instr.pos)? {
                self.check(i, reg, ty, wider)?;
                self.reads.push(reg.key());
                return Ok(Self::any(reg));
            }
            if name == "WARP_SZ" {
                return self.constant(32, ty);
            }
            return self.undeclared("register", name);
        }
        let bits = self.immediate(i, operand, ty)?;
        self.constant(bits, ty)
    }

    fn constant(&mut self, bits: u64, ty: Ty) -> Decoded<Any> {
        let pos = self.instr.pos;
        Ok(match ty.bytes() {
            8 => Any::R64(self.names.constant64(bits, pos)?),
            2 => Any::R16(self.names.constant32(bits as u32, pos)?),
            1 => Any::R8(self.names.constant32(bits as u32, pos)?),
            _ => Any::R32(self.names.constant32(bits as u32, pos)?),
        })
    }

    /// A source of exactly the width of `ty`.
    pub(super) fn src(&mut self, i: usize, ty: Ty) -> Decoded<Any> {
        let operand = self.raw(i)?;
        self.source(i, operand, ty, false)
    }

    /// A source of `ty` in a register that may be wider.
    pub(super) fn src_wide(&mut self, i: usize, ty: Ty) -> Decoded<Any> {
        let operand = self.raw(i)?;
        self.source(i, operand, ty, true)
    }

    /// A source of at most 32 bits.
    pub(super) fn src32(&mut self, i: usize, ty: Ty) -> Decoded<R> {
        match self.src(i, ty)? {
            Any::R8(r) | Any::R16(r) | Any::R32(r) => Ok(r),
            Any::R64(_) => self.bad_type(ty),
        }
    }

    /// A source of 64 bits.
    pub(super) fn src64(&mut self, i: usize, ty: Ty) -> Decoded<D> {
        match self.src(i, ty)? {
            Any::R64(d) => Ok(d),
            _ => self.bad_type(ty),
        }
    }

    fn destination(&mut self, i: usize, operand: &RawOperand<'a>, ty: Ty, wider: bool) -> Decoded<Reg> {
        if *operand == RawOperand::Name("_") {
            return self.names.sink(ty, self.instr.pos);
        }
        let reg = self.register(i, operand)?;
        self.check(i, reg, ty, wider)?;
        self.writes.push(reg.key());
        Ok(reg)
    }

    pub(super) fn dst32(&mut self, i: usize, ty: Ty) -> Decoded<R> {
        let operand = self.raw(i)?;
        Ok(R(self.destination(i, operand, ty, false)?.index))
    }

    pub(super) fn dst64(&mut self, i: usize, ty: Ty) -> Decoded<D> {
        let operand = self.raw(i)?;
        Ok(D(self.destination(i, operand, ty, false)?.index))
    }

    /// A destination of exactly the width of `ty`.
    pub(super) fn dst(&mut self, i: usize, ty: Ty) -> Decoded<Any> {
        let operand = self.raw(i)?;
        Ok(Self::any(self.destination(i, operand, ty, false)?))
    }

    /// A destination that may be wider than `ty`.
    pub(super) fn dst_wide(&mut self, i: usize, ty: Ty) -> Decoded<Any> {
        let operand = self.raw(i)?;
        Ok(Self::any(self.destination(i, operand, ty, true)?))
    }

    pub(super) fn dst_pred(&mut self, i: usize) -> Decoded<P> {
        let operand = self.raw(i)?;
        Ok(Names::pred(self.destination(i, operand, Ty::Pred, false)?))
    }

    /// `p` or `p|q`; a `_` leaves its half out.
    pub(super) fn dst_pred_pair(&mut self, i: usize) -> Decoded<(Option<P>, Option<P>)> {
        if let &RawOperand::Pair(p, q) = self.raw(i)? {
            let mut half = |name| -> Decoded<Option<P>> {
                if name == "_" {
                    return Ok(None);
                }
                Ok(Some(Names::pred(self.destination(i, &RawOperand::Name(name), Ty::Pred, false)?)))
            };
            return Ok((half(p)?, half(q)?));
        }
        Ok((Some(self.dst_pred(i)?), None))
    }

    /// `d` or `d|p`, where `d` has type `ty` of at most 32 bits.
    pub(super) fn dst32_pred(&mut self, i: usize, ty: Ty) -> Decoded<(R, Option<P>)> {
        if let &RawOperand::Pair(d, p) = self.raw(i)? {
            let d = self.destination(i, &RawOperand::Name(d), ty, false)?;
            let p = self.destination(i, &RawOperand::Name(p), Ty::Pred, false)?;
            return Ok((R(d.index), Some(Names::pred(p))));
        }
        Ok((self.dst32(i, ty)?, None))
    }

    /// A predicate to read, perhaps negated.
    pub(super) fn src_pred(&mut self, i: usize) -> Decoded<Pin> {
        let (name, negated) = match *self.raw(i)? {
            RawOperand::Name(name) => (name, false),
            RawOperand::Not(name) => (name, true),
            _ => return self.bad_operand(i, "a predicate"),
        };
        self.pred_by_name(name, negated, i)
    }

    pub(super) fn pred_by_name(&mut self, name: &'a str, negated: bool, i: usize) -> Decoded<Pin> {
        match self.names.register(name, self.instr.pos)? {
            Some(reg) if reg.ty == Ty::Pred => {
                self.reads.push(reg.key());
                Ok(Pin { p: P(reg.index), negated })
            }
            Some(reg) => self.bad(i, "a predicate", format!("a register of {}", reg.ty)),
            None => self.undeclared("predicate", name),
        }
    }

    /// The parts of a `{…}` operand.
    pub(super) fn vector(&self, i: usize) -> Option<&'c [RawOperand<'a>]> {
        match self.instr.operands.get(i) {
            Some(RawOperand::Vector(parts)) => Some(parts),
            _ => None,
        }
    }

    /// A vector of exactly `N` sources.
    pub(super) fn src_parts<const N: usize>(&mut self, i: usize, ty: Ty, wider: bool) -> Decoded<[Any; N]> {
        let Some(parts) = self.vector(i).filter(|parts| parts.len() == N) else {
            return self.bad_operand(i, format!("a vector of {N}"));
        };
        let mut out = [Any::R32(R(0)); N];
        for (slot, part) in out.iter_mut().zip(parts) {
            *slot = self.source(i, part, ty, wider)?;
        }
        Ok(out)
    }

    /// A vector of exactly `N` destinations.
    pub(super) fn dst_parts<const N: usize>(&mut self, i: usize, ty: Ty, wider: bool) -> Decoded<[Any; N]> {
        let Some(parts) = self.vector(i).filter(|parts| parts.len() == N) else {
            return self.bad_operand(i, format!("a vector of {N}"));
        };
        let mut out = [Any::R32(R(0)); N];
        for (slot, part) in out.iter_mut().zip(parts) {
            *slot = Self::any(self.destination(i, part, ty, wider)?);
        }
        Ok(out)
    }

    /// `[register + offset]`, `[shared + offset]`; the base must be able to hold an address of its space.
    pub(super) fn address(&mut self, i: usize, shared: bool) -> Decoded<Addr> {
        let RawOperand::Address(base, offset) = self.raw(i)? else {
            return self.bad_operand(i, "an address");
        };
        let base = match **base {
            RawOperand::Name(name) => match self.names.register(name, self.instr.pos)? {
                Some(reg) => {
                    let wide = reg.ty.bytes() == 8;
                    if !(wide || shared && reg.ty.bytes() == 4) || reg.ty.is_float() {
                        let expected = if shared { "a register of 32 or 64 bits" } else { "a register of 64 bits" };
                        return self.bad(i, expected, format!("one of {}", reg.ty));
                    }
                    self.reads.push(reg.key());
                    Self::any(reg)
                }
                None => match self.variables.shared.get(name) {
                    Some(&address) if shared => self.constant(address.into(), Ty::U32)?,
                    _ => return self.undeclared("register or shared variable", name),
                },
            },
            RawOperand::Int(value) => self.constant(value, Ty::U64)?,
            _ => return self.bad_operand(i, "an address"),
        };
        Ok(Addr { base, offset: *offset })
    }

    /// `[parameter + offset]`: its offset in the block of parameters.
    pub(super) fn param_address(&mut self, i: usize) -> Decoded<u64> {
        match self.raw(i)? {
            RawOperand::Address(base, offset) => match **base {
                RawOperand::Name(name) => match self.variables.params.get(name) {
                    Some(&(start, _)) => Ok(u64::from(start).wrapping_add_signed(*offset)),
                    None => self.undeclared("parameter", name),
                },
                _ => self.bad_operand(i, "a parameter"),
            },
            _ => self.bad_operand(i, "an address"),
        }
    }

    pub(super) fn param_bytes(&self) -> u64 {
        self.variables.param_bytes
    }

    pub(super) fn constant64(&mut self, value: u64) -> Decoded<D> {
        self.names.constant64(value, self.instr.pos)
    }

    /// The address of the shared variable an operand names, if it names one.
    pub(super) fn shared_variable(&self, i: usize) -> Option<u32> {
        match self.instr.operands.get(i) {
            Some(RawOperand::Name(name)) => self.variables.shared.get(name).copied(),
            _ => None,
        }
    }

    /// The special register an operand names, if it names one.
    pub(super) fn special_register(&self, i: usize) -> Option<Special> {
        match self.instr.operands.get(i) {
            Some(RawOperand::Name(name)) => Special::parse(name, None),
            Some(RawOperand::Component(name, part)) => Special::parse(name, Some(part)),
            _ => None,
        }
    }

    pub(super) fn special_source(&mut self, special: Special) -> Decoded<R> {
        self.names.special(special, self.instr.pos)
    }

    pub(super) fn shared_source(&mut self, address: u32, wide: bool) -> Decoded<Any> {
        self.constant(address.into(), if wide { Ty::U64 } else { Ty::U32 })
    }

    /// The instruction a label stands before.
    pub(super) fn label(&self, i: usize) -> Decoded<u32> {
        match *self.raw(i)? {
            RawOperand::Name(name) => match self.variables.labels.get(name) {
                Some(&target) => Ok(target),
                None => self.undeclared("label", name),
            },
            _ => self.bad_operand(i, "a label"),
        }
    }

    /// An integer written in the text itself.
    pub(super) fn literal(&self, i: usize, limit: u64) -> Decoded<u64> {
        match *self.raw(i)? {
            RawOperand::Int(found) if found <= limit => Ok(found),
            RawOperand::Int(found) => {
                self.fail(ParseErrorKind::TooLarge { what: "an immediate operand", found, limit })
            }
            _ => self.bad_operand(i, "an integer immediate"),
        }
    }
}
