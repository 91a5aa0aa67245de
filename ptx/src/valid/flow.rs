//! Instructions in which threads wait for each other must not be where some of them do not come.
//!
//! `bar.sync` waits for the whole block; with a number of threads, for whole warps. `.aligned` instructions and warp
//! operations that name all lanes need the whole warp. A warp operation with another mask makes a promise of its own, and
//! is taken at its word.

use super::walk::{self, Pass};
use super::{Facts, Uniformity, ValidError, ValidErrorKind, located};
use crate::ir::{Base, FULL_MASK, Inst, Kernel, Operand, RegId, Stmt, Threads};

pub(super) fn check(kernel: &Kernel, facts: &Facts) -> Result<(), ValidError> {
    walk::follow(kernel, &mut Flow { kernel, facts, loop_returns: facts.loop_returns().to_vec() })
}

struct Flow<'a> {
    kernel: &'a Kernel,
    facts: &'a Facts,
    loop_returns: Vec<Option<Uniformity>>,
}

/// Which threads an instruction needs.
enum Together {
    Block,
    Warp,
    AllLanes,
}

fn together(inst: &Inst) -> Option<Together> {
    let full = |mask: Operand| (mask.as_int() == Some(FULL_MASK.into())).then_some(Together::AllLanes);
    match *inst {
        Inst::Barrier { threads: None, .. } => Some(Together::Block),
        Inst::Barrier { threads: Some(_), .. } | Inst::Arrive { .. } => Some(Together::Warp),
        Inst::Mma(_) | Inst::LoadMatrix(_) => Some(Together::AllLanes),
        Inst::Shuffle(shuffle) => full(shuffle.mask),
        Inst::Vote { mask, .. } | Inst::Match { mask, .. } | Inst::Reduce { mask, .. } | Inst::WarpBarrier { mask } => {
            full(mask)
        }
        _ => None,
    }
}

impl Pass<ValidError> for Flow<'_> {
    fn uniformity(&self, reg: RegId) -> Uniformity {
        self.facts.uniformity(reg)
    }

    fn loop_return(&mut self, index: usize) -> &mut Option<Uniformity> {
        if index >= self.loop_returns.len() {
            self.loop_returns.resize(index + 1, None);
        }
        &mut self.loop_returns[index]
    }

    fn inst(&mut self, stmt: &Stmt, inst: &Inst, flow: Uniformity) -> Result<(), ValidError> {
        let error = |kind| Err(located(self.kernel, stmt, inst, kind));
        if let Inst::Load(load) = inst
            && load.uniform
            && let Base::Reg(reg) = load.from.base
            && self.facts.uniformity(reg) == Uniformity::Thread
        {
            return error(ValidErrorKind::NotUniform { is: Uniformity::Thread });
        }
        let (most, of) = match together(inst) {
            None => return Ok(()),
            Some(Together::Block) => (Uniformity::Block, "block"),
            Some(Together::Warp | Together::AllLanes) => (Uniformity::Warp, "warp"),
        };
        if flow > most {
            return error(ValidErrorKind::Divergent { is: flow, of });
        }
        if let (Some(Together::AllLanes), Threads::Exactly([x, y, z])) = (together(inst), self.kernel.threads) {
            let threads = x.saturating_mul(y).saturating_mul(z);
            if threads % 32 != 0 {
                return error(ValidErrorKind::PartialWarp { threads });
            }
        }
        Ok(())
    }
}
