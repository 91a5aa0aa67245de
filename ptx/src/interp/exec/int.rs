//! Integers and bits: exact, wrapping, as PTX defines them.

use super::regs::{Regs, lanes};
use crate::interp::fault::{Broken, FaultKind, Outcome};
use crate::interp::op::{D, IntBin, IntUn, PrmtMode, R, Shift};

/// The two-operand operations at one width.
macro_rules! binary {
    ($name:ident, $u:ty, $s:ty, $wide_u:ty, $wide_s:ty) => {
        fn $name(f: IntBin) -> fn($u, $u) -> $u {
            match f {
                IntBin::Add => <$u>::wrapping_add,
                IntBin::Sub => <$u>::wrapping_sub,
                IntBin::MulLo => <$u>::wrapping_mul,
                IntBin::MulHiU => |a, b| ((a as $wide_u * b as $wide_u) >> <$u>::BITS) as $u,
                IntBin::MulHiS => |a, b| ((a as $s as $wide_s * b as $s as $wide_s) >> <$u>::BITS) as $u,
                // Division by zero has been refused; the overflow of MIN / -1 wraps.
                IntBin::DivU => |a, b| a.checked_div(b).unwrap_or(<$u>::MAX),
                IntBin::DivS => |a, b| if b == 0 { <$u>::MAX } else { (a as $s).wrapping_div(b as $s) as $u },
                IntBin::RemU => |a, b| a.checked_rem(b).unwrap_or(a),
                IntBin::RemS => |a, b| if b == 0 { a } else { (a as $s).wrapping_rem(b as $s) as $u },
                IntBin::MinU => Ord::min,
                IntBin::MinS => |a, b| (a as $s).min(b as $s) as $u,
                IntBin::MaxU => Ord::max,
                IntBin::MaxS => |a, b| (a as $s).max(b as $s) as $u,
                IntBin::AddSatS => |a, b| (a as $s).saturating_add(b as $s) as $u,
                IntBin::SubSatS => |a, b| (a as $s).saturating_sub(b as $s) as $u,
                IntBin::And => |a, b| a & b,
                IntBin::Or => |a, b| a | b,
                IntBin::Xor => |a, b| a ^ b,
            }
        }
    };
}

binary!(binary16, u16, i16, u32, i32);
binary!(binary32, u32, i32, u64, i64);
binary!(binary64, u64, i64, u128, i128);

fn divides(f: IntBin) -> bool {
    matches!(f, IntBin::DivU | IntBin::DivS | IntBin::RemU | IntBin::RemS)
}

fn no_zero(mask: u32, zero: impl Fn(usize) -> bool) -> Outcome {
    match lanes(mask).find(|&lane| zero(lane)) {
        Some(lane) => Err(Broken::at(lane as u32, FaultKind::DivisionByZero)),
        None => Ok(()),
    }
}

pub(super) fn int16(regs: &mut Regs, mask: u32, f: IntBin, [d, a, b]: [R; 3]) -> Outcome {
    if divides(f) {
        no_zero(mask, |lane| regs.get(b)[lane] == 0)?;
    }
    let op = binary16(f);
    regs.map2(mask, d, a, b, |a, b| op(a as u16, b as u16).into());
    Ok(())
}

pub(super) fn int32(regs: &mut Regs, mask: u32, f: IntBin, [d, a, b]: [R; 3]) -> Outcome {
    // The operations of every inner loop get loops of their own, which the compiler vectorises.
    match f {
        IntBin::Add => regs.map2(mask, d, a, b, u32::wrapping_add),
        IntBin::Sub => regs.map2(mask, d, a, b, u32::wrapping_sub),
        IntBin::MulLo => regs.map2(mask, d, a, b, u32::wrapping_mul),
        IntBin::And => regs.map2(mask, d, a, b, |a, b| a & b),
        IntBin::Or => regs.map2(mask, d, a, b, |a, b| a | b),
        IntBin::Xor => regs.map2(mask, d, a, b, |a, b| a ^ b),
        _ => {
            if divides(f) {
                no_zero(mask, |lane| regs.get(b)[lane] == 0)?;
            }
            regs.map2(mask, d, a, b, binary32(f));
        }
    }
    Ok(())
}

pub(super) fn int64(regs: &mut Regs, mask: u32, f: IntBin, [d, a, b]: [D; 3]) -> Outcome {
    if f == IntBin::Add {
        regs.map2_64(mask, d, a, b, u64::wrapping_add);
        return Ok(());
    }
    if divides(f) {
        no_zero(mask, |lane| regs.get64(b)[lane] == 0)?;
    }
    regs.map2_64(mask, d, a, b, binary64(f));
    Ok(())
}

pub(super) fn mad16(regs: &mut Regs, mask: u32, f: IntBin, d: R, abc: [R; 3]) {
    let op = binary16(f);
    regs.map3(mask, d, abc, |a, b, c| op(a as u16, b as u16).wrapping_add(c as u16).into());
}

pub(super) fn mad32(regs: &mut Regs, mask: u32, f: IntBin, d: R, abc: [R; 3]) {
    if f == IntBin::MulLo {
        regs.map3(mask, d, abc, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        return;
    }
    let op = binary32(f);
    regs.map3(mask, d, abc, |a, b, c| op(a, b).wrapping_add(c));
}

pub(super) fn mad64(regs: &mut Regs, mask: u32, f: IntBin, d: D, abc: [D; 3]) {
    let op = binary64(f);
    regs.map3_64(mask, d, abc, |a, b, c| op(a, b).wrapping_add(c));
}

pub(super) fn wide16(regs: &mut Regs, mask: u32, signed: bool, [d, a, b]: [R; 3], c: Option<R>) {
    let zero = [0; 32];
    let (a, b, c) = (*regs.get(a), *regs.get(b), c.map_or(zero, |c| *regs.get(c)));
    let out = std::array::from_fn(|l| {
        let product = if signed {
            (i32::from(a[l] as i16) * i32::from(b[l] as i16)) as u32
        } else {
            (a[l] & 0xffff) * (b[l] & 0xffff)
        };
        product.wrapping_add(c[l])
    });
    regs.set(d, mask, &out);
}

pub(super) fn wide32(regs: &mut Regs, mask: u32, signed: bool, d: D, [a, b]: [R; 2], c: Option<D>) {
    let zero = [0; 32];
    let (a, b, c) = (*regs.get(a), *regs.get(b), c.map_or(zero, |c| *regs.get64(c)));
    let out = std::array::from_fn(|l| {
        let product = if signed {
            (i64::from(a[l] as i32) * i64::from(b[l] as i32)) as u64
        } else {
            u64::from(a[l]) * u64::from(b[l])
        };
        product.wrapping_add(c[l])
    });
    regs.set64(d, mask, &out);
}

/// Shifts at one width; amounts beyond it are clamped, as in PTX and unlike in most languages.
macro_rules! shift {
    ($name:ident, $u:ty, $s:ty) => {
        fn $name(f: Shift, a: $u, n: u32) -> $u {
            match f {
                Shift::Left => a.checked_shl(n).unwrap_or(0),
                Shift::RightU => a.checked_shr(n).unwrap_or(0),
                Shift::RightS => ((a as $s) >> n.min(<$u>::BITS - 1)) as $u,
            }
        }
    };
}

shift!(shift_16, u16, i16);
shift!(shift_32, u32, i32);
shift!(shift_64, u64, i64);

pub(super) fn shift16(regs: &mut Regs, mask: u32, f: Shift, [d, a, n]: [R; 3]) {
    regs.map2(mask, d, a, n, |a, n| shift_16(f, a as u16, n).into());
}

pub(super) fn shift32(regs: &mut Regs, mask: u32, f: Shift, [d, a, n]: [R; 3]) {
    match f {
        Shift::Left => regs.map2(mask, d, a, n, |a, n| shift_32(Shift::Left, a, n)),
        Shift::RightU => regs.map2(mask, d, a, n, |a, n| shift_32(Shift::RightU, a, n)),
        Shift::RightS => regs.map2(mask, d, a, n, |a, n| shift_32(Shift::RightS, a, n)),
    }
}

pub(super) fn shift64(regs: &mut Regs, mask: u32, f: Shift, d: D, a: D, n: R) {
    let (a, n) = (*regs.get64(a), *regs.get(n));
    regs.set64(d, mask, &std::array::from_fn(|l| shift_64(f, a[l], n[l])));
}

pub(super) fn unary16(regs: &mut Regs, mask: u32, f: IntUn, d: R, a: R) {
    regs.map1(mask, d, a, |a| {
        let a = a as u16;
        u32::from(match f {
            IntUn::Neg => a.wrapping_neg(),
            IntUn::Abs => (a as i16).wrapping_abs() as u16,
            _ => !a,
        })
    });
}

pub(super) fn unary32(regs: &mut Regs, mask: u32, f: IntUn, d: R, a: R) {
    let op: fn(u32) -> u32 = match f {
        IntUn::Neg => u32::wrapping_neg,
        IntUn::Abs => |a| (a as i32).wrapping_abs() as u32,
        IntUn::Not => |a| !a,
        IntUn::Brev => u32::reverse_bits,
        IntUn::Popc => u32::count_ones,
        IntUn::Clz => u32::leading_zeros,
    };
    regs.map1(mask, d, a, op);
}

pub(super) fn unary64(regs: &mut Regs, mask: u32, f: IntUn, d: D, a: D) {
    let op: fn(u64) -> u64 = match f {
        IntUn::Neg => u64::wrapping_neg,
        IntUn::Abs => |a| (a as i64).wrapping_abs() as u64,
        IntUn::Brev => u64::reverse_bits,
        _ => |a| !a,
    };
    regs.map1_64(mask, d, a, op);
}

pub(super) fn count64(regs: &mut Regs, mask: u32, f: IntUn, d: R, a: D) {
    let op: fn(u64) -> u32 = if f == IntUn::Popc { u64::count_ones } else { u64::leading_zeros };
    let out = regs.get64(a).map(op);
    regs.set(d, mask, &out);
}

/// Any function of three bits, on all bits at once: `lut` has the result for each of the eight cases.
pub(super) fn lop3(lut: u8, a: u32, b: u32, c: u32) -> u32 {
    let mut out = 0;
    for case in 0..8 {
        if lut >> case & 1 == 1 {
            let pick = |value: u32, bit: u32| if case >> bit & 1 == 1 { value } else { !value };
            out |= pick(a, 2) & pick(b, 1) & pick(c, 0);
        }
    }
    out
}

pub(super) fn prmt(mode: PrmtMode, a: u32, b: u32, c: u32) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let s = (c & 3) as usize;
    let pick = |select: [usize; 4]| u32::from_le_bytes(select.map(|i| bytes[i & 7]));
    match mode {
        PrmtMode::Index => u32::from_le_bytes(std::array::from_fn(|i| {
            let select = c >> (4 * i) & 0xf;
            let byte = bytes[(select & 7) as usize];
            // The top bit of the selector replicates the sign instead.
            if select & 8 == 0 { byte } else { ((byte as i8) >> 7) as u8 }
        })),
        PrmtMode::F4e => pick([s, s + 1, s + 2, s + 3]),
        PrmtMode::B4e => pick([s, s + 7, s + 6, s + 5]),
        PrmtMode::Rc8 => pick([s; 4]),
        PrmtMode::Ecl => pick([0, 1, 2, 3].map(|i| i.max(s))),
        PrmtMode::Ecr => pick([0, 1, 2, 3].map(|i| i.min(s))),
        PrmtMode::Rc16 => pick(if s & 1 == 0 { [0, 1, 0, 1] } else { [2, 3, 2, 3] }),
    }
}

/// The funnel shift of `{b, a}`.
pub(super) fn shf(left: bool, wrap: bool, a: u32, b: u32, c: u32) -> u32 {
    let n = if wrap { c & 31 } else { c.min(32) };
    let both = u64::from(b) << 32 | u64::from(a);
    if left { (both << n >> 32) as u32 } else { (both >> n) as u32 }
}

/// A bit field of `width` bits total, from `pos`, `len` long; the sign bit is the top bit of the field, or of the value
/// where the field runs beyond it.
fn field(value: u64, pos: u32, len: u32, width: u32, signed: bool) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 {
        return 0;
    }
    let top = (pos + len - 1).min(width - 1);
    let sign = signed && value >> top & 1 == 1;
    let have = width.saturating_sub(pos).min(len);
    let low = if have == 0 { 0 } else { value >> pos & (u64::MAX >> (64 - have)) };
    let filled = if have >= width { 0 } else { u64::MAX << have };
    if sign { low | filled } else { low }
}

pub(super) fn bfe32(signed: bool, a: u32, b: u32, c: u32) -> u32 {
    field(a.into(), b, c, 32, signed) as u32
}

pub(super) fn bfe64(signed: bool, a: u64, b: u32, c: u32) -> u64 {
    field(a, b, c, 64, signed)
}

pub(super) fn bfi64(a: u64, b: u64, pos: u32, len: u32) -> u64 {
    let (pos, len) = (pos & 0xff, len & 0xff);
    if len == 0 || pos > 63 {
        return b;
    }
    let mask = (u64::MAX >> (64 - len.min(64))) << pos;
    b & !mask | a << pos & mask
}

pub(super) fn bfi32(a: u32, b: u32, pos: u32, len: u32) -> u32 {
    if pos & 0xff > 31 {
        return b;
    }
    bfi64(a.into(), b.into(), pos, len) as u32
}

/// Four products of bytes, summed onto `c`.
pub(super) fn dp4a(regs: &mut Regs, mask: u32, (a_signed, b_signed): (bool, bool), d: R, abc: [R; 3]) {
    #[inline(always)]
    fn byte(value: u32, i: u32, signed: bool) -> i32 {
        if signed { i32::from((value >> (8 * i)) as i8) } else { i32::from((value >> (8 * i)) as u8) }
    }
    #[inline(always)]
    fn dot(a: u32, b: u32, c: u32, a_signed: bool, b_signed: bool) -> u32 {
        let mut sum = c;
        for i in 0..4 {
            sum = sum.wrapping_add((byte(a, i, a_signed) * byte(b, i, b_signed)) as u32);
        }
        sum
    }
    match (a_signed, b_signed) {
        (true, true) => regs.map3(mask, d, abc, |a, b, c| dot(a, b, c, true, true)),
        (true, false) => regs.map3(mask, d, abc, |a, b, c| dot(a, b, c, true, false)),
        (false, true) => regs.map3(mask, d, abc, |a, b, c| dot(a, b, c, false, true)),
        (false, false) => regs.map3(mask, d, abc, |a, b, c| dot(a, b, c, false, false)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lop3_tables_are_those_of_their_formulas() {
        let (a, b, c) = (0xdead_beef, 0x1234_5678, 0x0f0f_00ff);
        assert_eq!(lop3(0xf0 & 0xcc, a, b, c), a & b);
        assert_eq!(lop3(0xf0 & 0xcc | 0xaa, a, b, c), a & b | c);
        assert_eq!(lop3(0xf0 ^ 0xcc ^ 0xaa, a, b, c), a ^ b ^ c);
        assert_eq!(lop3(!0xf0, a, b, c), !a);
    }

    #[test]
    fn prmt_selects_and_extends() {
        let (a, b) = (0x8372_6150, 0xc7b6_a594);
        assert_eq!(prmt(PrmtMode::Index, a, b, 0x3210), a);
        assert_eq!(prmt(PrmtMode::Index, a, b, 0x7654), b);
        assert_eq!(prmt(PrmtMode::Index, a, b, 0x0b40), 0x50ff_9450, "0xb is byte 3 with its sign replicated");
        assert_eq!(prmt(PrmtMode::F4e, a, b, 1), 0x9483_7261);
        assert_eq!(prmt(PrmtMode::Rc8, a, b, 2), 0x7272_7272);
        assert_eq!(prmt(PrmtMode::Rc16, a, b, 1), 0x8372_8372);
    }

    #[test]
    fn fields_end_where_the_value_ends() {
        assert_eq!(bfe32(false, 0xdead_beef, 8, 8), 0xbe);
        assert_eq!(bfe32(true, 0xdead_beef, 8, 8), 0xffff_ffbe);
        assert_eq!(bfe32(false, 0xdead_beef, 28, 8), 0xd);
        assert_eq!(bfe32(true, 0xdead_beef, 28, 8), 0xffff_fffd);
        assert_eq!(bfe32(true, 0xdead_beef, 40, 8), u32::MAX, "beyond the value only its sign is left");
        assert_eq!(bfe32(false, 0xdead_beef, 0, 32), 0xdead_beef);
        assert_eq!(bfe32(true, 0xdead_beef, 4, 0), 0);
        assert_eq!(bfe64(false, u64::MAX, 60, 9), 0xf);
        assert_eq!(bfi32(0xab, 0xdead_beef, 8, 8), 0xdead_abef);
        assert_eq!(bfi32(0xab, 0xdead_beef, 28, 8), 0xbead_beef);
        assert_eq!(bfi32(0xab, 0xdead_beef, 32, 8), 0xdead_beef);
        assert_eq!(bfi64(1, 0, 63, 200), 1 << 63);
    }

    #[test]
    fn shifts_clamp() {
        assert_eq!(shift_32(Shift::Left, 1, 32), 0);
        assert_eq!(shift_32(Shift::RightS, 0x8000_0000, 77), u32::MAX);
        assert_eq!(shf(true, true, 0x8000_0000, 1, 33), 3);
        assert_eq!(shf(true, false, 5, 1, 40), 5);
        assert_eq!(shf(false, false, 5, 1, 40), 1);
    }
}
