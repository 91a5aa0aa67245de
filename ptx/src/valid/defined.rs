//! Every read of a register comes after a write on every path.

use super::{Place, ValidError, ValidErrorKind, located};
use crate::ir::{Block, Kernel, RegId, StmtKind};

pub(super) fn check(kernel: &Kernel) -> Result<(), ValidError> {
    let defined = Set(vec![0; kernel.registers.len().div_ceil(64)]);
    block(&kernel.body, defined, kernel).map(|_| ())
}

#[derive(Clone)]
struct Set(Vec<u64>);

impl Set {
    fn insert(&mut self, reg: RegId) {
        if let Some(word) = self.0.get_mut(reg.0 as usize / 64) {
            *word |= 1 << (reg.0 % 64);
        }
    }

    fn contains(&self, reg: RegId) -> bool {
        self.0.get(reg.0 as usize / 64).is_some_and(|word| word >> (reg.0 % 64) & 1 == 1)
    }

    fn intersect(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(a, b)| *a &= b);
    }
}

/// Returns what is set after the block; `None` if it always returns from the kernel.
fn block(statements: &Block, mut defined: Set, kernel: &Kernel) -> Result<Option<Set>, ValidError> {
    for stmt in statements {
        let read = |defined: &Set, reg, opcode| {
            if defined.contains(reg) {
                return Ok(());
            }
            let place = Place::Statement { opcode, source: stmt.source };
            Err(ValidError { kernel: kernel.name.clone(), place, kind: ValidErrorKind::Undefined { reg } })
        };
        match &stmt.kind {
            StmtKind::Comment(_) => {}
            // What follows is never reached; it is not held to anything.
            StmtKind::Return => return Ok(None),
            StmtKind::Inst(inst) => {
                let mut unset = None;
                inst.uses(kernel, |reg| {
                    if !defined.contains(reg) {
                        unset.get_or_insert(reg);
                    }
                });
                if let Some(reg) = unset {
                    return Err(located(kernel, stmt, inst, ValidErrorKind::Undefined { reg }));
                }
                inst.defs(kernel, |reg| defined.insert(reg));
            }
            StmtKind::If { cond, then, otherwise } => {
                read(&defined, *cond, "if")?;
                let a = block(then, defined.clone(), kernel)?;
                let b = block(otherwise, defined, kernel)?;
                defined = match (a, b) {
                    (None, None) => return Ok(None),
                    (Some(only), None) | (None, Some(only)) => only,
                    (Some(mut a), Some(b)) => {
                        a.intersect(&b);
                        a
                    }
                };
            }
            StmtKind::While { head, cond, body, .. } => {
                let Some(after) = block(head, defined, kernel)? else { return Ok(None) };
                read(&after, *cond, "while")?;
                // The body may run no time at all: what it sets does not count afterwards.
                block(body, after.clone(), kernel)?;
                defined = after;
            }
        }
    }
    Ok(Some(defined))
}
