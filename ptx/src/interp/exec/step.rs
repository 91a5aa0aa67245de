//! One instruction of one warp: guards, divergence and reconvergence.

use super::schedule::Ready;
use super::warp::{Context, Path, Warp};
use crate::interp::decode::Kernel;
use crate::interp::fault::{Broken, FaultKind, Outcome};
use crate::interp::op::{Instr, NEVER, Op};

/// What an instruction asks of the scheduler.
pub(super) enum Flow {
    /// Go on.
    Continue,
    /// Let others run.
    Yield,
    /// The warp arrives at a barrier with all its lanes.
    Barrier { id: u32, threads: Option<u32>, arrive: bool },
    /// No lane is left.
    Done,
}

/// Where a warp is: the instruction and the active lanes. Ends paths that have come to their meeting place.
pub(super) fn position(warp: &mut Warp) -> Option<(u32, u32)> {
    while let Some(path) = warp.paths.last() {
        if path.mask != 0 && path.pc != path.until {
            return Some((path.pc, path.mask));
        }
        warp.paths.pop();
    }
    None
}

/// Executes the instruction at `pc` in the lanes `exec` of the `active` ones.
pub(super) fn step(
    warp: &mut Warp,
    kernel: &Kernel,
    (pc, active, exec): (u32, u32, u32),
    cx: &mut Context<'_>,
    ready: &mut Ready,
) -> Outcome<Flow> {
    let instr = &kernel.code[pc as usize];
    warp.watch(kernel, pc, active, exec)?;
    match instr.op {
        Op::Bra { target, uniform } => {
            cx.tally.branches += 1;
            if uniform && exec != 0 && exec != active {
                return Err(Broken::warp(FaultKind::NotUniform { active, taken: exec }));
            }
            branch(warp, kernel, instr, (pc, target), (active, exec), cx, ready);
        }
        Op::Exit => {
            leave(warp, exec);
            advance(warp, pc + 1);
        }
        Op::Bar { id, threads, arrive } if exec != 0 => {
            if exec != warp.live {
                let kind = FaultKind::Divergent { operation: "bar.sync", named: warp.live, active: exec };
                return Err(Broken::warp(kind));
            }
            let uniform = |r| {
                warp.uniform(r, exec).map_err(|(first, second)| {
                    Broken::warp(FaultKind::OperandDiffers { operation: "bar.sync", first, second })
                })
            };
            let (id, threads) = (uniform(id)?, threads.map(uniform).transpose()?);
            advance(warp, pc + 1);
            return Ok(Flow::Barrier { id, threads, arrive });
        }
        Op::Nanosleep => {
            advance(warp, pc + 1);
            return Ok(Flow::Yield);
        }
        ref op => {
            if exec != 0 {
                warp.execute(op, exec, cx)?;
            }
            advance(warp, pc + 1);
        }
    }
    Ok(if warp.live == 0 { Flow::Done } else { Flow::Continue })
}

/// Moves the current path, if lanes are left on it.
fn advance(warp: &mut Warp, pc: u32) {
    if let Some(path) = warp.paths.last_mut() {
        path.pc = pc;
    }
}

/// Takes lanes that return out of all paths.
fn leave(warp: &mut Warp, lanes: u32) {
    warp.live &= !lanes;
    for path in &mut warp.paths {
        path.mask &= !lanes;
    }
}

fn branch(
    warp: &mut Warp,
    kernel: &Kernel,
    instr: &Instr,
    (pc, target): (u32, u32),
    (active, mut taken): (u32, u32),
    cx: &mut Context<'_>,
    ready: &mut Ready,
) {
    let mut stay = active & !taken;
    if taken != 0 && stay != 0 {
        cx.tally.divergent += 1;
        // A side that returns at once does so now: else its lanes would look as if they still waited to join the others.
        let returns = |at: u32| {
            let instr = &kernel.code[at as usize];
            instr.guard.is_none() && matches!(instr.op, Op::Exit)
        };
        if returns(target) {
            leave(warp, taken);
            taken = 0;
        } else if returns(pc + 1) {
            leave(warp, stay);
            stay = 0;
        }
    }
    if taken == 0 || stay == 0 {
        return advance(warp, if taken == 0 { pc + 1 } else { target });
    }
    let Some(path) = warp.paths.last_mut() else { return };
    let until = if instr.reconverge == NEVER {
        // The sides meet nowhere, so they replace this path.
        path.mask = 0;
        path.until
    } else {
        path.pc = instr.reconverge;
        instr.reconverge
    };
    let mut sides = [Path { pc: pc + 1, mask: stay, until }, Path { pc: target, mask: taken, until }];
    if !ready.taken_first() {
        sides.swap(0, 1);
    }
    warp.paths.extend(sides.into_iter().filter(|side| side.pc != until));
}
