//! Loads and stores: every lane's access is resolved, checked, and counted.

use super::regs::{Lanes64, Regs, lanes};
use super::warp::Context;
use crate::interp::counts::Kind;
use crate::interp::fault::{Broken, FaultKind, Outcome, Place, Thread, Verb};
use crate::interp::memory::Cells;
use crate::interp::op::{Access, Addr, Any, Order, Space};
use crate::interp::race::{Actor, Conflict, Use};

/// The address of every lane.
pub(super) fn addresses(regs: &Regs, addr: Addr) -> Lanes64 {
    regs.get_any(addr.base).map(|base| base.wrapping_add_signed(addr.offset))
}

/// One access of one lane, or of several lanes that make it together.
#[derive(Clone, Copy)]
pub(super) struct Touch {
    pub(super) space: Space,
    pub(super) address: u64,
    pub(super) bytes: u32,
    /// Lanes that make it; the lowest is reported.
    pub(super) lanes: u32,
    pub(super) order: Order,
}

impl Touch {
    pub(super) fn lane(&self) -> u32 {
        self.lanes.trailing_zeros()
    }

    fn used(&self, verb: Verb) -> Use {
        Use { verb, lanes: self.lanes, order: self.order }
    }
}

impl Context<'_> {
    pub(super) fn place(&self, space: Space, address: u64) -> Place {
        match space {
            Space::Global => self.global.place(address),
            Space::Shared => self.shared.place(address),
        }
    }

    pub(super) fn resolve(&mut self, touch: Touch, verb: Verb) -> Outcome<(&mut Cells, usize)> {
        let Touch { space, address, bytes, .. } = touch;
        let found = match space {
            Space::Global => self.global.resolve(address, bytes, verb),
            Space::Shared => self.shared.resolve(address, bytes, verb),
        };
        found.map_err(|kind| Broken::at(touch.lane(), kind))
    }

    fn fault<T>(&self, touch: Touch, offset: u64, kind: impl FnOnce(Place) -> FaultKind) -> Outcome<T> {
        let place = self.place(touch.space, touch.address.wrapping_add(offset));
        Err(Broken::at(touch.lane(), kind(place)))
    }

    pub(super) fn race<T>(
        &self,
        touch: Touch,
        verb: Verb,
        at: usize,
        actor: &Actor,
        conflict: &Conflict,
    ) -> Outcome<T> {
        let earlier = conflict.earlier;
        // Within one warp, the lane to name is another one.
        let others = if earlier.actor == actor.id { earlier.lanes & !touch.lanes } else { earlier.lanes };
        let lanes = if others == 0 { earlier.lanes } else { others };
        let other = Thread {
            block: (earlier.actor / actor.warps()).into(),
            warp: earlier.actor % actor.warps(),
            lane: lanes.trailing_zeros(),
        };
        let offset = conflict.offset - at as u64;
        self.fault(touch, offset, |place| FaultKind::Race { verb, place, other_verb: earlier.verb, other })
    }

    /// What every access must satisfy once it is inside a buffer: no copy under way, a value to read, no race.
    pub(super) fn check(&mut self, touch: Touch, verb: Verb, actor: &Actor) -> Outcome<(&mut Cells, usize)> {
        let (cells, at) = self.resolve(touch, verb)?;
        if cells.is_pending(at, touch.bytes) {
            return self.fault(touch, 0, |place| FaultKind::CopyPending { verb, place });
        }
        if matches!(verb, Verb::Read | Verb::Atomic)
            && let Some(missing) = cells.first_unwritten(at, touch.bytes)
        {
            let bytes = touch.bytes;
            return self.fault(touch, (missing - at) as u64, |place| FaultKind::Uninitialised { bytes, place });
        }
        if let Some(shadow) = &mut cells.shadow
            && let Err(conflict) = shadow.access(at as u64, touch.bytes, touch.used(verb), actor)
        {
            return self.race(touch, verb, at, actor, &conflict);
        }
        // Resolved again: the borrow of the first time may not be returned past the early returns above.
        self.resolve(touch, verb)
    }

    pub(super) fn read(&mut self, touch: Touch, constant: bool, actor: &mut Actor) -> Outcome<u128> {
        let (cells, at) = self.check(touch, Verb::Read, actor)?;
        let value = cells.load(at, touch.bytes);
        if constant && cells.shadow.as_mut().is_some_and(|shadow| shadow.written(at as u64, touch.bytes)) {
            return self.fault(touch, 0, |place| FaultKind::NotConstant { place });
        }
        if touch.order.strong && self.races {
            self.locations(touch.space).read(touch.address, actor, touch.order);
        }
        Ok(value)
    }

    fn write(&mut self, touch: Touch, value: u128, actor: &mut Actor) -> Outcome {
        let (cells, at) = self.check(touch, Verb::Write, actor)?;
        cells.store(at, touch.bytes, value);
        if touch.order.strong && self.races {
            self.locations(touch.space).write(touch.address, actor, touch.order, false);
        }
        Ok(())
    }
}

fn extend(value: u64, bytes: u32, signed: bool) -> u64 {
    let unused = 64 - 8 * bytes;
    if signed { ((value << unused) as i64 >> unused) as u64 } else { value << unused >> unused }
}

pub(super) fn load(regs: &mut Regs, actor: &mut Actor, mask: u32, access: &Access, cx: &mut Context<'_>) -> Outcome {
    let addresses = addresses(regs, access.addr);
    let (count, each) = (access.count as usize, u32::from(access.bytes));
    let bytes = each * u32::from(access.count);
    cx.tally.request(access.space, Kind::Load, &addresses, mask, bytes);
    let mut values = [[0_u64; 32]; 4];
    for lane in lanes(mask) {
        let touch =
            Touch { space: access.space, address: addresses[lane], bytes, lanes: 1 << lane, order: access.order };
        let value = cx.read(touch, access.constant, actor)?;
        for (i, values) in values[..count].iter_mut().enumerate() {
            values[lane] = extend((value >> (8 * each as usize * i)) as u64, each, access.signed);
        }
    }
    for (reg, values) in access.regs[..count].iter().zip(&values) {
        regs.set_any(*reg, mask, values);
    }
    Ok(())
}

/// The lanes of `mask` whose address is that of `lane`.
pub(super) fn same_address(addresses: &Lanes64, mask: u32, lane: usize) -> u32 {
    lanes(mask).filter(|&other| addresses[other] == addresses[lane]).fold(0, |bits, other| bits | 1 << other)
}

pub(super) fn store(regs: &Regs, actor: &mut Actor, mask: u32, access: &Access, cx: &mut Context<'_>) -> Outcome {
    let addresses = addresses(regs, access.addr);
    let (count, each) = (access.count as usize, u32::from(access.bytes));
    let bytes = each * u32::from(access.count);
    cx.tally.request(access.space, Kind::Store, &addresses, mask, bytes);
    let mut values = [0_u128; 32];
    for (i, reg) in access.regs[..count].iter().enumerate() {
        let part = regs.get_any(*reg);
        for (value, part) in values.iter_mut().zip(part) {
            *value |= u128::from(extend(part, each, false)) << (8 * each as usize * i);
        }
    }
    // Neighbouring lanes with ascending addresses, the usual case, cannot collide.
    let mut last = None;
    let ascending = lanes(mask).all(|lane| last.replace(addresses[lane]).is_none_or(|last| last < addresses[lane]));
    let mut rest = mask;
    while rest != 0 {
        let lane = rest.trailing_zeros() as usize;
        let together = if ascending { 1 << lane } else { same_address(&addresses, rest, lane) };
        let touch =
            Touch { space: access.space, address: addresses[lane], bytes, lanes: together, order: access.order };
        if let Some(other) = lanes(together).find(|&other| values[other] != values[lane]) {
            cx.resolve(touch, Verb::Write)?;
            let (first, second) = (lane as u32, other as u32);
            return cx.fault(touch, 0, |place| FaultKind::LanesDisagree { first, second, place });
        }
        cx.write(touch, values[lane], actor)?;
        rest &= !together;
    }
    Ok(())
}

/// Loads of parameters: the same for all lanes.
pub(super) fn load_param(regs: &mut Regs, mask: u32, offset: u32, access: &ParamLoad<'_>, cx: &mut Context<'_>) {
    let each = u32::from(access.bytes);
    cx.tally.param_bytes += u64::from(each) * access.regs.len() as u64;
    for (i, reg) in access.regs.iter().enumerate() {
        let start = offset as usize + i * each as usize;
        let mut bytes = [0; 8];
        // Decoding has checked that the parameter is inside the block.
        if let Some(found) = cx.params.get(start..start + each as usize) {
            bytes[..found.len()].copy_from_slice(found);
        }
        let value = extend(u64::from_le_bytes(bytes), each, access.signed);
        regs.set_any(*reg, mask, &[value; 32]);
    }
}

/// The shape of a load of parameters.
pub(super) struct ParamLoad<'a> {
    pub(super) bytes: u8,
    pub(super) signed: bool,
    pub(super) regs: &'a [Any],
}
