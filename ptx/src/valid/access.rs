//! Accesses are aligned, and memory of a parameter is used as declared.

use super::{Checked, Facts, Origin, ValidErrorKind};
use crate::ir::{Access, Address, Base, Inst, Kernel, ParamKind, Space};

pub(super) fn check(inst: &Inst, kernel: &Kernel, facts: &Facts) -> Checked {
    let check = Check { kernel, facts };
    match inst {
        Inst::Load(load) => {
            check.aligned(load.from, load.ty.bytes() * load.dst.len() as u32)?;
            if load.read_only {
                return check.may(load.from, "a read-only load", |access| access == Access::Read);
            }
            check.may(load.from, "a load", |access| access != Access::Write)
        }
        Inst::Store(store) => {
            check.aligned(store.to, store.ty.bytes() * store.values.len() as u32)?;
            check.may(store.to, "a store", |access| access != Access::Read)
        }
        Inst::Atomic(atomic) => {
            check.aligned(atomic.at, atomic.ty.bytes())?;
            check.may(atomic.at, "an atomic", |access| access == Access::ReadWrite)
        }
        Inst::CopyAsync(copy) => {
            check.aligned(copy.to, copy.bytes)?;
            check.aligned(copy.from, copy.bytes)?;
            check.may(copy.from, "a copy", |access| access != Access::Write)
        }
        Inst::LoadMatrix(load) => check.aligned(load.from, 16),
        _ => Ok(()),
    }
}

struct Check<'a> {
    kernel: &'a Kernel,
    facts: &'a Facts,
}

impl Check<'_> {
    fn aligned(&self, address: Address, needed: u32) -> Checked {
        let (needed, known) = (u64::from(needed), self.facts.address_multiple_of(address, self.kernel));
        if known < needed { Err(ValidErrorKind::Misaligned { needed, known }) } else { Ok(()) }
    }

    /// Addresses of unknown or several origins are not held to anything.
    fn may(&self, address: Address, what: &'static str, allowed: impl Fn(Access) -> bool) -> Checked {
        if address.space == Space::Global
            && let Base::Reg(reg) = address.base
            && let Origin::Param(param) = self.facts.origin(reg)
            && let Some(param) = self.kernel.params.get(param.0 as usize)
            && let ParamKind::Pointer { access, .. } = param.kind
            && !allowed(access)
        {
            return Err(ValidErrorKind::Forbidden { what, param: param.name.clone(), access });
        }
        Ok(())
    }
}
