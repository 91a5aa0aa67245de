//! Names of a kernel and the dense indexes they become: registers by scope, constants, shared variables, parameters.

use std::collections::HashMap;

use crate::interp::op::{D, P, R};
use crate::interp::text::{ParseError, ParseErrorKind, Pos, RawReg};
use crate::interp::ty::Ty;

/// Names and indexes of one kernel.
#[derive(Default)]
pub(super) struct Names<'a> {
    scopes: Vec<Scope<'a>>,
    pub(super) files: Files,
    constants32: HashMap<u32, R>,
    constants64: HashMap<u64, D>,
    specials: HashMap<Special, R>,
    /// Names of the registers that were used, for messages.
    pub(super) used: HashMap<Key, String>,
}

/// How many registers of each width a warp needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    pub(crate) r32: u16,
    pub(crate) r64: u16,
    pub(crate) pred: u16,
}

#[derive(Default)]
struct Scope<'a> {
    single: HashMap<&'a str, Ty>,
    /// `%r<10>`: prefix to count and type.
    families: HashMap<&'a str, (u32, Ty)>,
    /// Registers that were used, already placed.
    placed: HashMap<&'a str, Reg>,
}

/// A placed register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reg {
    pub(super) ty: Ty,
    pub(super) index: u16,
}

impl Reg {
    pub(super) fn key(self) -> Key {
        match self.ty {
            Ty::Pred => Key::Pred(self.index),
            ty if ty.bytes() == 8 => Key::Wide(self.index),
            _ => Key::Narrow(self.index),
        }
    }
}

/// A register of any of the three files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Narrow(u16),
    Wide(u16),
    Pred(u16),
}

/// Special registers whose value is fixed when a warp starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicShared,
    TotalShared,
}

impl Special {
    pub(super) fn parse(name: &str, part: Option<&str>) -> Option<Self> {
        let axis = match part {
            Some("x") => Some(0),
            Some("y") => Some(1),
            Some("z") => Some(2),
            Some(_) => return None,
            None => None,
        };
        Some(match (name, axis) {
            ("%tid", Some(axis)) => Self::Tid(axis),
            ("%ntid", Some(axis)) => Self::Ntid(axis),
            ("%ctaid", Some(axis)) => Self::Ctaid(axis),
            ("%nctaid", Some(axis)) => Self::Nctaid(axis),
            ("%laneid", None) => Self::LaneId,
            ("%warpid", None) => Self::WarpId,
            ("%nwarpid", None) => Self::NWarpId,
            ("%smid", None) => Self::SmId,
            ("%nsmid", None) => Self::NSmId,
            ("%lanemask_eq", None) => Self::LaneMaskEq,
            ("%lanemask_lt", None) => Self::LaneMaskLt,
            ("%lanemask_le", None) => Self::LaneMaskLe,
            ("%lanemask_gt", None) => Self::LaneMaskGt,
            ("%lanemask_ge", None) => Self::LaneMaskGe,
            ("%dynamic_smem_size", None) => Self::DynamicShared,
            ("%total_smem_size", None) => Self::TotalShared,
            _ => return None,
        })
    }
}

fn next(counter: &mut u16, pos: Pos) -> Result<u16, ParseError> {
    let index = *counter;
    *counter = counter.checked_add(1).ok_or_else(|| {
        let kind = ParseErrorKind::TooLarge { what: "the number of registers", found: 1 << 16, limit: u16::MAX.into() };
        ParseError::new(pos, kind)
    })?;
    Ok(index)
}

impl<'a> Names<'a> {
    pub(super) fn open(&mut self) {
        self.scopes.push(Scope::default());
    }

    pub(super) fn close(&mut self) {
        self.scopes.pop();
    }

    pub(super) fn declare(&mut self, reg: &RawReg<'a>) -> Result<(), ParseError> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        let duplicate = match reg.count {
            Some(count) => scope.families.insert(reg.name, (count, reg.ty)).is_some(),
            None => scope.single.insert(reg.name, reg.ty).is_some(),
        };
        if duplicate {
            let kind = ParseErrorKind::Duplicate { what: "register", name: reg.name.to_owned() };
            return Err(ParseError::new(reg.pos, kind));
        }
        Ok(())
    }

    /// The register `name` in the innermost scope that has it.
    pub(super) fn register(&mut self, name: &'a str, pos: Pos) -> Result<Option<Reg>, ParseError> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(&reg) = scope.placed.get(name) {
                return Ok(Some(reg));
            }
            let ty = scope.single.get(name).copied().or_else(|| {
                let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
                let digits = &name[prefix.len()..];
                let &(count, ty) = scope.families.get(prefix)?;
                let canonical = digits == "0" || !digits.starts_with('0');
                (canonical && digits.parse::<u32>().ok()? < count).then_some(ty)
            });
            if let Some(ty) = ty {
                let counter = match ty {
                    Ty::Pred => &mut self.files.pred,
                    ty if ty.bytes() == 8 => &mut self.files.r64,
                    _ => &mut self.files.r32,
                };
                let reg = Reg { ty, index: next(counter, pos)? };
                scope.placed.insert(name, reg);
                self.used.insert(reg.key(), name.to_owned());
                return Ok(Some(reg));
            }
        }
        Ok(None)
    }

    pub(super) fn constant32(&mut self, value: u32, pos: Pos) -> Result<R, ParseError> {
        if let Some(&r) = self.constants32.get(&value) {
            return Ok(r);
        }
        let r = R(next(&mut self.files.r32, pos)?);
        self.constants32.insert(value, r);
        Ok(r)
    }

    pub(super) fn constant64(&mut self, value: u64, pos: Pos) -> Result<D, ParseError> {
        if let Some(&d) = self.constants64.get(&value) {
            return Ok(d);
        }
        let d = D(next(&mut self.files.r64, pos)?);
        self.constants64.insert(value, d);
        Ok(d)
    }

    pub(super) fn special(&mut self, special: Special, pos: Pos) -> Result<R, ParseError> {
        if let Some(&r) = self.specials.get(&special) {
            return Ok(r);
        }
        let r = R(next(&mut self.files.r32, pos)?);
        self.specials.insert(special, r);
        Ok(r)
    }

    /// A register nobody reads: where `_` is written to.
    pub(super) fn sink(&mut self, ty: Ty, pos: Pos) -> Result<Reg, ParseError> {
        let counter = match ty {
            Ty::Pred => &mut self.files.pred,
            ty if ty.bytes() == 8 => &mut self.files.r64,
            _ => &mut self.files.r32,
        };
        Ok(Reg { ty, index: next(counter, pos)? })
    }

    /// The registers to fill when a warp starts.
    pub(super) fn into_presets(self) -> (Files, Presets, HashMap<Key, String>) {
        let presets = Presets {
            narrow: self.constants32.into_iter().map(|(value, r)| (r, value)).collect(),
            wide: self.constants64.into_iter().map(|(value, d)| (d, value)).collect(),
            special: self.specials.into_iter().map(|(special, r)| (r, special)).collect(),
        };
        (self.files, presets, self.used)
    }

    /// A predicate's index, which the caller knows to be one.
    pub(super) fn pred(reg: Reg) -> P {
        P(reg.index)
    }
}

/// Registers with a value before the first instruction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presets {
    pub(crate) narrow: Vec<(R, u32)>,
    pub(crate) wide: Vec<(D, u64)>,
    pub(crate) special: Vec<(R, Special)>,
}
