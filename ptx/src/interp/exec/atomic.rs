//! Atomics: lanes take their turns in order, each turn indivisible.

use super::memory::{Touch, addresses};
use super::regs::{Regs, lanes};
use super::warp::Context;
use crate::interp::counts::Kind;
use crate::interp::fault::{Outcome, Verb};
use crate::interp::op::{Atom, AtomFn};
use crate::interp::race::Actor;

/// The new value of a location of 32 or 64 bits.
fn combine(f: AtomFn, wide: bool, old: u64, b: u64, c: u64) -> u64 {
    let (old32, b32) = (old as u32, b as u32);
    match (f, wide) {
        (AtomFn::AddInt, _) => old.wrapping_add(b),
        (AtomFn::AddF32, _) => {
            let sum = f32::from_bits(old32) + f32::from_bits(b32);
            if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits().into() }
        }
        (AtomFn::AddF64, _) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomFn::MinU, _) => old.min(b),
        (AtomFn::MaxU, _) => old.max(b),
        (AtomFn::MinS, false) => (old32 as i32).min(b32 as i32) as u64,
        (AtomFn::MaxS, false) => (old32 as i32).max(b32 as i32) as u64,
        (AtomFn::MinS, true) => (old as i64).min(b as i64) as u64,
        (AtomFn::MaxS, true) => (old as i64).max(b as i64) as u64,
        (AtomFn::And, _) => old & b,
        (AtomFn::Or, _) => old | b,
        (AtomFn::Xor, _) => old ^ b,
        (AtomFn::Exch, _) => b,
        (AtomFn::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomFn::Inc, _) => (if old32 >= b32 { 0 } else { old32 + 1 }).into(),
        (AtomFn::Dec, _) => (if old32 == 0 || old32 > b32 { b32 } else { old32 - 1 }).into(),
    }
}

pub(super) fn atom(regs: &mut Regs, actor: &mut Actor, mask: u32, atom: &Atom, cx: &mut Context<'_>) -> Outcome {
    let addresses = addresses(regs, atom.addr);
    let bytes = if atom.wide { 8 } else { 4 };
    cx.tally.request(atom.space, Kind::Atomic(atom.f), &addresses, mask, bytes);
    let (b, c) = (regs.get_any(atom.b), regs.get_any(atom.c));
    let mut old = [0; 32];
    for lane in lanes(mask) {
        let address = addresses[lane];
        let touch = Touch { space: atom.space, address, bytes, lanes: 1 << lane, order: atom.order };
        let (cells, at) = cx.check(touch, Verb::Atomic, actor)?;
        old[lane] = cells.load(at, bytes) as u64;
        cells.store(at, bytes, combine(atom.f, atom.wide, old[lane], b[lane], c[lane]).into());
        if cx.races {
            let locations = cx.locations(atom.space);
            locations.read(address, actor, atom.order);
            locations.write(address, actor, atom.order, true);
        }
    }
    if let Some(d) = atom.d {
        regs.set_any(d, mask, &old);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inc_and_dec_wrap_at_their_bound() {
        let inc = |old| combine(AtomFn::Inc, false, old, 3, 0);
        assert_eq!([inc(0), inc(2), inc(3), inc(9)], [1, 3, 0, 0]);
        let dec = |old| combine(AtomFn::Dec, false, old, 3, 0);
        assert_eq!([dec(0), dec(2), dec(3), dec(9)], [3, 1, 2, 3]);
    }

    #[test]
    fn signed_and_float_operations() {
        assert_eq!(combine(AtomFn::MinS, false, 5, (-3_i32) as u32 as u64, 0) as u32, (-3_i32) as u32);
        assert_eq!(combine(AtomFn::MaxU, false, 5, (-3_i32) as u32 as u64, 0) as u32, (-3_i32) as u32);
        assert_eq!(
            combine(AtomFn::AddF32, false, 1.5_f32.to_bits().into(), 2.0_f32.to_bits().into(), 0),
            3.5_f32.to_bits().into()
        );
        assert_eq!(combine(AtomFn::Cas, false, 4, 4, 9), 9);
        assert_eq!(combine(AtomFn::Cas, false, 4, 5, 9), 4);
    }
}
