//! What lanes tell each other: shuffles, votes, matches, reductions.

use super::regs::{Regs, lanes};
use crate::interp::fault::{Broken, FaultKind, Outcome};
use crate::interp::op::{Any, P, Pin, R, ReduxFn, Shfl, ShflMode, VoteFn};

/// The groups of lanes that take part together: those that named the same mask.
pub(super) struct Groups {
    masks: [u32; 32],
    count: usize,
}

impl Groups {
    /// Checks the masks the `active` lanes give: each names exactly lanes that execute and name the same mask.
    pub(super) fn new(regs: &Regs, active: u32, members: R, operation: &'static str) -> Outcome<Self> {
        let given = regs.get(members);
        let mut groups = Self { masks: [0; 32], count: 0 };
        let mut rest = active;
        while rest != 0 {
            let first = rest.trailing_zeros();
            let named = given[first as usize];
            if named & !active != 0 {
                return Err(Broken::at(first, FaultKind::Divergent { operation, named, active }));
            }
            if named >> first & 1 == 0 {
                return Err(Broken::at(first, FaultKind::NotMember { operation, named }));
            }
            if let Some(other) = lanes(named).find(|&other| given[other] != named) {
                let kind = FaultKind::OperandDiffers { operation, first: named, second: given[other] };
                return Err(Broken::at(other as u32, kind));
            }
            groups.masks[groups.count] = named;
            groups.count += 1;
            rest &= !named;
        }
        Ok(groups)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.masks[..self.count].iter().copied()
    }
}

/// Where a lane reads from, and whether that is inside its segment; `c` packs the clamp and the segment mask.
fn source(mode: ShflMode, lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (offset, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let low = lane & segment;
    let limit = low | clamp & !segment;
    match mode {
        ShflMode::Up => {
            let from = lane as i32 - offset as i32;
            (from as u32 & 31, from >= limit as i32)
        }
        ShflMode::Down => ((lane + offset) & 31, lane + offset <= limit),
        ShflMode::Bfly => (lane ^ offset, lane ^ offset <= limit),
        ShflMode::Idx => {
            let from = low | offset & !segment;
            (from, from <= limit)
        }
    }
}

pub(super) fn shfl(regs: &mut Regs, active: u32, op: &Shfl) -> Outcome {
    let groups = Groups::new(regs, active, op.members, "shfl.sync")?;
    let (a, b, c) = (*regs.get(op.a), *regs.get(op.b), *regs.get(op.c));
    let mut out = a;
    let mut inside = 0;
    for members in groups.iter() {
        for lane in lanes(members) {
            let (from, valid) = source(op.mode, lane as u32, b[lane], c[lane]);
            if valid {
                inside |= 1 << lane;
                if members >> from & 1 == 0 {
                    return Err(Broken::at(lane as u32, FaultKind::ShuffleSource { source_lane: from, members }));
                }
                out[lane] = a[from as usize];
            }
        }
    }
    regs.set(op.d, active, &out);
    if let Some(p) = op.p {
        regs.set_pred(p, active, inside);
    }
    Ok(())
}

pub(super) fn vote(regs: &mut Regs, active: u32, f: VoteFn, d: P, a: Pin, members: R) -> Outcome {
    let groups = Groups::new(regs, active, members, "vote.sync")?;
    let votes = regs.pred(a);
    let mut out = 0;
    for members in groups.iter() {
        let holds = match f {
            VoteFn::All => votes & members == members,
            VoteFn::Any => votes & members != 0,
            VoteFn::Uni => votes & members == members || votes & members == 0,
        };
        out |= if holds { members } else { 0 };
    }
    regs.set_pred(d, active, out);
    Ok(())
}

pub(super) fn ballot(regs: &mut Regs, active: u32, d: R, a: Pin, members: R) -> Outcome {
    let groups = Groups::new(regs, active, members, "vote.sync.ballot")?;
    let votes = regs.pred(a);
    let mut out = [0; 32];
    for members in groups.iter() {
        lanes(members).for_each(|lane| out[lane] = votes & members);
    }
    regs.set(d, active, &out);
    Ok(())
}

pub(super) fn match_any(regs: &mut Regs, active: u32, d: R, a: Any, members: R) -> Outcome {
    let groups = Groups::new(regs, active, members, "match.any.sync")?;
    let a = regs.get_any(a);
    let mut out = [0; 32];
    for members in groups.iter() {
        for lane in lanes(members) {
            out[lane] = lanes(members).filter(|&other| a[other] == a[lane]).fold(0, |bits, other| bits | 1 << other);
        }
    }
    regs.set(d, active, &out);
    Ok(())
}

pub(super) fn match_all(regs: &mut Regs, active: u32, d: R, p: Option<P>, a: Any, members: R) -> Outcome {
    let groups = Groups::new(regs, active, members, "match.all.sync")?;
    let a = regs.get_any(a);
    let (mut out, mut same) = ([0; 32], 0);
    for members in groups.iter() {
        let first = members.trailing_zeros() as usize;
        if lanes(members).all(|lane| a[lane] == a[first]) {
            same |= members;
            lanes(members).for_each(|lane| out[lane] = members);
        }
    }
    regs.set(d, active, &out);
    if let Some(p) = p {
        regs.set_pred(p, active, same);
    }
    Ok(())
}

pub(super) fn redux(regs: &mut Regs, active: u32, f: ReduxFn, d: R, a: R, members: R) -> Outcome {
    let groups = Groups::new(regs, active, members, "redux.sync")?;
    let op: fn(u32, u32) -> u32 = match f {
        ReduxFn::Add => u32::wrapping_add,
        ReduxFn::MinU => Ord::min,
        ReduxFn::MinS => |a, b| (a as i32).min(b as i32) as u32,
        ReduxFn::MaxU => Ord::max,
        ReduxFn::MaxS => |a, b| (a as i32).max(b as i32) as u32,
        ReduxFn::And => |a, b| a & b,
        ReduxFn::Or => |a, b| a | b,
        ReduxFn::Xor => |a, b| a ^ b,
    };
    let a = *regs.get(a);
    let mut out = [0; 32];
    for members in groups.iter() {
        let value = lanes(members).map(|lane| a[lane]).reduce(op).unwrap_or(0);
        lanes(members).for_each(|lane| out[lane] = value);
    }
    regs.set(d, active, &out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffles_stay_in_their_segment() {
        // Segments of 8 lanes: mask 0x18 in bits 8 to 12, clamp 0x1f, or 0 for up.
        let c = 0x181f;
        assert_eq!(source(ShflMode::Down, 6, 1, c), (7, true));
        assert!(!source(ShflMode::Down, 7, 1, c).1);
        assert_eq!(source(ShflMode::Bfly, 9, 4, c), (13, true));
        assert_eq!(source(ShflMode::Idx, 19, 2, c), (18, true));
        assert_eq!(source(ShflMode::Up, 9, 1, 0x1800), (8, true));
        assert!(!source(ShflMode::Up, 8, 1, 0x1800).1);
        assert!(!source(ShflMode::Down, 31, 1, 0x1f).1);
    }
}
