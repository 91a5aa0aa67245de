//! `ldmatrix` and `mma.sync`, with the fragments of the PTX manual.
//!
//! A lane is `4 * group + t`. An input register holds four bytes of one row of A (one column of B): `t` says which four
//! along K, the register number which half of the rows and which block of K.

use half::{bf16, f16};

use super::memory::{Touch, addresses};
use super::regs::{Lanes, Regs};
use super::warp::Context;
use crate::interp::fault::{Broken, FaultKind, Outcome};
use crate::interp::op::{Addr, Mma, MmaTy, Order, R, Space};
use crate::interp::race::Actor;

const M: usize = 16;
const N: usize = 8;
const MAX_K: usize = 32;

fn all_lanes(active: u32, operation: &'static str) -> Outcome {
    if active == u32::MAX {
        return Ok(());
    }
    Err(Broken::warp(FaultKind::Divergent { operation, named: u32::MAX, active }))
}

/// The operands of `ldmatrix`.
#[derive(Clone, Copy)]
pub(super) struct LdMatrix {
    pub(super) d: [R; 4],
    pub(super) count: usize,
    pub(super) transposed: bool,
    pub(super) addr: Addr,
}

pub(super) fn ldmatrix(regs: &mut Regs, actor: &mut Actor, active: u32, op: LdMatrix, cx: &mut Context<'_>) -> Outcome {
    all_lanes(active, "ldmatrix.sync.aligned")?;
    let addresses = addresses(regs, op.addr);
    cx.tally.matrix_rows(&addresses[..8 * op.count]);
    for (i, &d) in op.d[..op.count].iter().enumerate() {
        let mut rows = [[0_u16; 8]; 8];
        for (r, row) in rows.iter_mut().enumerate() {
            let lane = 8 * i + r;
            // Lane `lane` names the row; the four lanes that receive it, or all of them, read it.
            let readers = if op.transposed { u32::MAX } else { 0xf << (4 * r) };
            let (space, order) = (Space::Shared, Order::default());
            let touch = Touch { space, address: addresses[lane], bytes: 16, lanes: readers, order };
            let value = cx.read(touch, false, actor).map_err(|broken| broken.by(lane as u32))?;
            *row = std::array::from_fn(|c| (value >> (16 * c)) as u16);
        }
        let out: Lanes = std::array::from_fn(|lane| {
            let (group, t) = (lane / 4, lane % 4);
            let at = |k: usize| u32::from(if op.transposed { rows[k][group] } else { rows[group][k] });
            at(2 * t) | at(2 * t + 1) << 16
        });
        regs.set(d, active, &out);
    }
    Ok(())
}

/// The input matrices as numbers that both formats fit exactly.
struct Inputs {
    a: [[f64; MAX_K]; M],
    b: [[f64; N]; MAX_K],
    k: usize,
}

/// Element `i` of an input register, of which it holds two halves or four bytes.
fn element(ty: MmaTy, signed: bool, register: u32, i: usize) -> f64 {
    match ty {
        MmaTy::F16 => f16::from_bits((register >> (16 * i)) as u16).to_f64(),
        MmaTy::Bf16 => bf16::from_bits((register >> (16 * i)) as u16).to_f64(),
        MmaTy::Int8(..) if signed => f64::from((register >> (8 * i)) as i8),
        MmaTy::Int8(..) => f64::from((register >> (8 * i)) as u8),
    }
}

fn inputs(regs: &Regs, op: &Mma) -> Inputs {
    let (a_signed, b_signed) = match op.ty {
        MmaTy::Int8(a, b) => (a, b),
        _ => (false, false),
    };
    let per_register = if matches!(op.ty, MmaTy::Int8(..)) { 4 } else { 2 };
    let block = 4 * per_register;
    let mut out = Inputs { a: [[0.0; MAX_K]; M], b: [[0.0; N]; MAX_K], k: block * usize::from(op.blocks) };
    for lane in 0..32 {
        let (group, t) = (lane / 4, lane % 4);
        for kb in 0..usize::from(op.blocks) {
            for i in 0..per_register {
                let k = block * kb + per_register * t + i;
                for half in 0..2 {
                    // Registers of A: rows 0..8 and 8..16 of the first block of K, then of the second.
                    let register = regs.get(op.a[2 * kb + half])[lane];
                    out.a[group + 8 * half][k] = element(op.ty, a_signed, register, i);
                }
                out.b[k][group] = element(op.ty, b_signed, regs.get(op.b[kb])[lane], i);
            }
        }
    }
    out
}

pub(super) fn mma(regs: &mut Regs, active: u32, op: &Mma) -> Outcome {
    all_lanes(active, "mma.sync.aligned")?;
    let inputs = inputs(regs, op);
    let sums = op.c.map(|c| *regs.get(c));
    let mut out = sums;
    for (register, out) in out.iter_mut().enumerate() {
        for (lane, out) in out.iter_mut().enumerate() {
            let (row, column) = (lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2);
            let products = (0..inputs.k).map(|k| inputs.a[row][k] * inputs.b[k][column]);
            // Every product, and every sum of integers, is exact in f64; a sum of halves is rounded once more.
            let dot: f64 = products.sum();
            let c = sums[register][lane];
            *out = if matches!(op.ty, MmaTy::Int8(..)) {
                let sum = dot as i64 + i64::from(c as i32);
                if op.sat { sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32 } else { sum as u32 }
            } else {
                let sum = (dot + f64::from(f32::from_bits(c))) as f32;
                if sum.is_nan() { 0x7fff_ffff } else { sum.to_bits() }
            };
        }
    }
    for (&d, values) in op.d.iter().zip(&out) {
        regs.set(d, active, values);
    }
    Ok(())
}
