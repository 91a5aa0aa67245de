//! Asynchronous copies from global to shared memory: the target has no value until the copy is waited for.

use super::memory::{Touch, addresses};
use super::regs::{Regs, lanes};
use super::warp::Context;
use crate::interp::counts::Kind;
use crate::interp::fault::{Broken, FaultKind, Outcome, Verb};
use crate::interp::op::{Addr, Order, R, Space};
use crate::interp::race::{Actor, Use};

/// The copies of a warp that are under way. Groups are counted per lane, as the instructions act per thread.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    under_way: Vec<Copy>,
    /// Groups each lane has committed.
    committed: [u32; 32],
}

#[derive(Debug)]
struct Copy {
    lane: u32,
    /// The group it was committed with, if it was.
    group: Option<u32>,
    to: u64,
    bytes: u32,
    value: u128,
}

/// The operands of `cp.async`.
#[derive(Clone, Copy)]
pub(super) struct CopyOp {
    pub(super) to: Addr,
    pub(super) from: Addr,
    pub(super) bytes: u32,
    pub(super) source_bytes: Option<R>,
}

impl Copies {
    pub(super) fn start(
        &mut self,
        regs: &Regs,
        actor: &mut Actor,
        mask: u32,
        op: CopyOp,
        cx: &mut Context<'_>,
    ) -> Outcome {
        let (to, from) = (addresses(regs, op.to), addresses(regs, op.from));
        let source = op.source_bytes.map_or([op.bytes; 32], |r| *regs.get(r));
        let reading = lanes(mask).filter(|&lane| source[lane] > 0).fold(0, |bits, lane| bits | 1 << lane);
        cx.tally.request(Space::Shared, Kind::Store, &to, mask, op.bytes);
        if reading != 0 {
            cx.tally.request(Space::Global, Kind::Load, &from, reading, op.bytes);
        }
        for lane in lanes(mask) {
            let lanes = 1 << lane;
            if source[lane] > op.bytes {
                let kind = FaultKind::CopySize { bytes: op.bytes, source_bytes: source[lane] };
                return Err(Broken::at(lane as u32, kind));
            }
            let order = Order::default();
            let read = Touch { space: Space::Global, address: from[lane], bytes: op.bytes, lanes, order };
            let value = read_source(read, source[lane], actor, cx)?;
            let touch = Touch { space: Space::Shared, address: to[lane], bytes: op.bytes, lanes, order };
            let (cells, at) = cx.check(touch, Verb::Copy, actor)?;
            cells.set_pending(at, op.bytes, true);
            self.under_way.push(Copy { lane: lane as u32, group: None, to: to[lane], bytes: op.bytes, value });
        }
        Ok(())
    }

    pub(super) fn commit(&mut self, mask: u32) {
        for copy in self.under_way.iter_mut().filter(|copy| mask >> copy.lane & 1 == 1) {
            copy.group.get_or_insert(self.committed[copy.lane as usize]);
        }
        for lane in lanes(mask) {
            self.committed[lane] += 1;
        }
    }

    /// Completes the copies of the lanes in `mask`: all, or all but those of the last `pending` groups.
    pub(super) fn wait(&mut self, actor: &Actor, mask: u32, pending: Option<u32>, cx: &mut Context<'_>) -> Outcome {
        let committed = self.committed;
        let done = |copy: &Copy| {
            let finished = match (pending, copy.group) {
                (None, _) => true,
                (Some(_), None) => false,
                (Some(pending), Some(group)) => group < committed[copy.lane as usize].saturating_sub(pending),
            };
            mask >> copy.lane & 1 == 1 && finished
        };
        let mut left = Vec::with_capacity(self.under_way.len());
        for copy in std::mem::take(&mut self.under_way) {
            if !done(&copy) {
                left.push(copy);
                continue;
            }
            let (lanes, order) = (1 << copy.lane, Order::default());
            let touch = Touch { space: Space::Shared, address: copy.to, bytes: copy.bytes, lanes, order };
            let (cells, at) = cx.resolve(touch, Verb::Copy)?;
            cells.set_pending(at, copy.bytes, false);
            cells.store(at, copy.bytes, copy.value);
            if let Some(shadow) = &mut cells.shadow {
                shadow.stamp(at as u64, copy.bytes, Use { verb: Verb::Copy, lanes, order }, actor);
            }
        }
        self.under_way = left;
        Ok(())
    }
}

/// The first `bytes` of the source; the rest of the copy is zeros.
fn read_source(touch: Touch, bytes: u32, actor: &mut Actor, cx: &mut Context<'_>) -> Outcome<u128> {
    if bytes == touch.bytes {
        return cx.read(touch, false, actor);
    }
    if !touch.address.is_multiple_of(touch.bytes.into()) {
        let place = cx.place(touch.space, touch.address);
        return Err(Broken::at(touch.lane(), FaultKind::Misaligned { verb: Verb::Read, bytes: touch.bytes, place }));
    }
    let mut value = 0;
    for i in 0..bytes {
        let byte = Touch { address: touch.address.wrapping_add(i.into()), bytes: 1, ..touch };
        value |= cx.read(byte, false, actor)? << (8 * i);
    }
    Ok(value)
}
