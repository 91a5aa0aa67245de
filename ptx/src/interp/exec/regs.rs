//! The registers of a warp, and the loops over its lanes.
//!
//! The loops are over arrays of 32 and have no branch inside, so the compiler turns them into vector code. Results of
//! lanes that do not execute are computed and dropped.

use crate::interp::op::{Any, D, P, Pin, R};

/// One 32-bit value per lane.
pub(super) type Lanes = [u32; 32];
/// One 64-bit value per lane.
pub(super) type Lanes64 = [u64; 32];

/// The register files of a warp.
#[derive(Debug)]
pub(crate) struct Regs {
    pub(super) narrow: Vec<Lanes>,
    pub(super) wide: Vec<Lanes64>,
    /// One bit per lane.
    pub(super) preds: Vec<u32>,
}

/// The lanes of a mask, ascending.
pub(super) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let lane = rest.trailing_zeros();
        rest &= rest.wrapping_sub(1);
        (lane < 32).then_some(lane as usize)
    })
}

impl Regs {
    #[inline(always)]
    pub(super) fn get(&self, r: R) -> &Lanes {
        &self.narrow[r.0 as usize]
    }

    #[inline(always)]
    pub(super) fn get64(&self, d: D) -> &Lanes64 {
        &self.wide[d.0 as usize]
    }

    #[inline(always)]
    pub(super) fn set(&mut self, r: R, mask: u32, values: &Lanes) {
        let to = &mut self.narrow[r.0 as usize];
        if mask == u32::MAX {
            *to = *values;
        } else {
            *to = std::array::from_fn(|l| if mask >> l & 1 == 1 { values[l] } else { to[l] });
        }
    }

    #[inline(always)]
    pub(super) fn set64(&mut self, d: D, mask: u32, values: &Lanes64) {
        let to = &mut self.wide[d.0 as usize];
        if mask == u32::MAX {
            *to = *values;
        } else {
            *to = std::array::from_fn(|l| if mask >> l & 1 == 1 { values[l] } else { to[l] });
        }
    }

    /// The lanes in which a predicate holds.
    #[inline(always)]
    pub(super) fn pred(&self, p: Pin) -> u32 {
        let bits = self.preds[p.p.0 as usize];
        if p.negated { !bits } else { bits }
    }

    #[inline(always)]
    pub(super) fn set_pred(&mut self, p: P, mask: u32, bits: u32) {
        let to = &mut self.preds[p.0 as usize];
        *to = *to & !mask | bits & mask;
    }

    /// A register of any width, zero-extended.
    #[inline(always)]
    pub(super) fn get_any(&self, any: Any) -> Lanes64 {
        match any {
            Any::R8(r) | Any::R16(r) | Any::R32(r) => self.get(r).map(u64::from),
            Any::R64(d) => *self.get64(d),
        }
    }

    /// Writes a register of any width; the value is cut to it.
    #[inline(always)]
    pub(super) fn set_any(&mut self, any: Any, mask: u32, values: &Lanes64) {
        match any {
            Any::R8(r) => self.set(r, mask, &values.map(|v| v as u32 & 0xff)),
            Any::R16(r) => self.set(r, mask, &values.map(|v| v as u32 & 0xffff)),
            Any::R32(r) => self.set(r, mask, &values.map(|v| v as u32)),
            Any::R64(d) => self.set64(d, mask, values),
        }
    }

    #[inline(always)]
    pub(super) fn map1(&mut self, mask: u32, d: R, a: R, f: impl Fn(u32) -> u32) {
        let a = *self.get(a);
        self.set(d, mask, &a.map(f));
    }

    #[inline(always)]
    pub(super) fn map2(&mut self, mask: u32, d: R, a: R, b: R, f: impl Fn(u32, u32) -> u32) {
        let (a, b) = (*self.get(a), *self.get(b));
        self.set(d, mask, &std::array::from_fn(|l| f(a[l], b[l])));
    }

    #[inline(always)]
    pub(super) fn map3(&mut self, mask: u32, d: R, [a, b, c]: [R; 3], f: impl Fn(u32, u32, u32) -> u32) {
        let (a, b, c) = (*self.get(a), *self.get(b), *self.get(c));
        self.set(d, mask, &std::array::from_fn(|l| f(a[l], b[l], c[l])));
    }

    #[inline(always)]
    pub(super) fn map1_64(&mut self, mask: u32, d: D, a: D, f: impl Fn(u64) -> u64) {
        let a = *self.get64(a);
        self.set64(d, mask, &a.map(f));
    }

    #[inline(always)]
    pub(super) fn map2_64(&mut self, mask: u32, d: D, a: D, b: D, f: impl Fn(u64, u64) -> u64) {
        let (a, b) = (*self.get64(a), *self.get64(b));
        self.set64(d, mask, &std::array::from_fn(|l| f(a[l], b[l])));
    }

    #[inline(always)]
    pub(super) fn map3_64(&mut self, mask: u32, d: D, [a, b, c]: [D; 3], f: impl Fn(u64, u64, u64) -> u64) {
        let (a, b, c) = (*self.get64(a), *self.get64(b), *self.get64(c));
        self.set64(d, mask, &std::array::from_fn(|l| f(a[l], b[l], c[l])));
    }
}
