//! Walks over the statements of a kernel. Callers have asked [`Kernel::is_too_deep`] before.

use crate::ir::{Block, Inst, Kernel, RegId, Stmt, StmtKind};
use crate::valid::Uniformity;

/// Calls `visit` for every instruction in the order of the text. The conditions of statements are visited as if a `mov`
/// read them, so that they are checked like operands.
pub(super) fn instructions<E>(kernel: &Kernel, visit: &mut impl FnMut(&Stmt, &Inst) -> Result<(), E>) -> Result<(), E> {
    block(&kernel.body, visit)
}

fn block<E>(statements: &Block, visit: &mut impl FnMut(&Stmt, &Inst) -> Result<(), E>) -> Result<(), E> {
    for stmt in statements {
        match &stmt.kind {
            StmtKind::Inst(inst) => visit(stmt, inst)?,
            StmtKind::If { cond, then, otherwise } => {
                visit(stmt, &condition(*cond))?;
                block(then, visit)?;
                block(otherwise, visit)?;
            }
            StmtKind::While { head, cond, body, .. } => {
                block(head, visit)?;
                visit(stmt, &condition(*cond))?;
                block(body, visit)?;
            }
            StmtKind::Comment(_) | StmtKind::Return => {}
        }
    }
    Ok(())
}

/// An instruction that reads `cond` as a branch does.
fn condition(cond: RegId) -> Inst {
    Inst::Mov { ty: crate::ir::Type::Pred, dst: cond, src: cond.into() }
}

/// Something that follows control flow and knows which conditions differ between threads.
pub(super) trait Pass<E> {
    /// In how many threads a register has one value.
    fn uniformity(&self, reg: RegId) -> Uniformity;

    /// Highest uniformity of control flow at which loop number `index` is known to return from the kernel.
    fn loop_return(&mut self, index: usize) -> &mut Option<Uniformity>;

    /// Looks at an instruction that runs under `flow`.
    fn inst(&mut self, stmt: &Stmt, inst: &Inst, flow: Uniformity) -> Result<(), E>;
}

/// Follows the control flow of a kernel once.
pub(super) fn follow<E, P: Pass<E>>(kernel: &Kernel, pass: &mut P) -> Result<(), E> {
    let mut loops = 0;
    follow_block(&kernel.body, Uniformity::Block, &mut loops, pass).map(|_| ())
}

/// Returns how divergent control flow is where the block returns from the kernel, if it does.
fn follow_block<E, P: Pass<E>>(
    statements: &Block,
    mut flow: Uniformity,
    loops: &mut usize,
    pass: &mut P,
) -> Result<Option<Uniformity>, E> {
    let mut returned = None;
    for stmt in statements {
        let inner = match &stmt.kind {
            StmtKind::Inst(inst) => {
                pass.inst(stmt, inst, flow)?;
                None
            }
            StmtKind::Comment(_) => None,
            StmtKind::Return => Some(flow),
            StmtKind::If { cond, then, otherwise } => {
                let inside = flow.max(pass.uniformity(*cond));
                let a = follow_block(then, inside, loops, pass)?;
                a.max(follow_block(otherwise, inside, loops, pass)?)
            }
            StmtKind::While { head, cond, body, .. } => {
                let index = *loops;
                *loops += 1;
                // Threads that left the loop by returning are missing in its next round.
                let round = pass.loop_return(index).map_or(flow, |r| r.max(flow));
                // And those that left by the condition are missing in everything that follows in this loop: the head too.
                let inside = round.max(pass.uniformity(*cond));
                let a = follow_block(head, inside, loops, pass)?;
                let returned = a.max(follow_block(body, inside, loops, pass)?);
                let known = pass.loop_return(index);
                *known = (*known).max(returned);
                returned
            }
        };
        returned = returned.max(inner);
        // Where only some threads returned, the rest runs without them.
        flow = inner.map_or(flow, |r| r.max(flow));
    }
    Ok(returned)
}
