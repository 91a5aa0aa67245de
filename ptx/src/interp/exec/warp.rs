//! One warp: its registers, its stack of diverged paths, and the execution of instructions that need no other warp.

use super::convert;
use super::copy::{Copies, CopyOp};
use super::matrix::{self, LdMatrix};
use super::memory::{self, ParamLoad};
use super::regs::{Regs, lanes};
use super::shuffle::{self, Groups};
use super::{atomic, float, int};
use crate::interp::counts::Tally;
use crate::interp::decode::{Kernel, Special};
use crate::interp::fault::{Broken, FaultKind, Outcome};
use crate::interp::memory::{Global, Shared};
use crate::interp::op::{NEVER, Op, Pin, PredFn, R, Space};
use crate::interp::race::{Actor, Locations};

/// What a warp shares with others while it executes.
pub(crate) struct Context<'a> {
    pub(crate) global: &'a mut Global,
    pub(crate) shared: &'a mut Shared,
    pub(crate) global_locations: &'a mut Locations,
    pub(crate) shared_locations: &'a mut Locations,
    pub(crate) tally: &'a mut Tally,
    pub(crate) params: &'a [u8],
    pub(crate) races: bool,
    /// Instructions of the launch so far: what the clocks show.
    pub(crate) now: u64,
}

impl Context<'_> {
    pub(super) fn locations(&mut self, space: Space) -> &mut Locations {
        match space {
            Space::Global => self.global_locations,
            Space::Shared => self.shared_locations,
        }
    }
}

/// Lanes on one path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    /// The path ends here, where the one below continues with its lanes.
    pub(crate) until: u32,
}

/// The shape of a launch, as special registers show it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) dynamic_shared: u32,
    pub(crate) total_shared: u32,
    /// Multiprocessors the machine claims to have.
    pub(crate) processors: u32,
}

impl Geometry {
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    /// Position of block `index` in the grid, x fastest.
    pub(crate) fn block_id(&self, index: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
    }
}

/// A warp of a resident block.
#[derive(Debug)]
pub(crate) struct Warp {
    pub(crate) index: u32,
    /// Lanes that exist and have not returned.
    pub(crate) live: u32,
    pub(crate) paths: Vec<Path>,
    pub(crate) actor: Actor,
    regs: Regs,
    copies: Copies,
    /// For every watched register, the lanes that have written it.
    written: Vec<u32>,
}

impl Warp {
    pub(crate) fn new(kernel: &Kernel, geometry: &Geometry, block: u64, index: u32) -> Self {
        let threads = geometry.threads() - 32 * index;
        let live = if threads >= 32 { u32::MAX } else { (1 << threads) - 1 };
        let mut regs = Regs {
            narrow: vec![[0; 32]; kernel.files.r32.into()],
            wide: vec![[0; 32]; kernel.files.r64.into()],
            preds: vec![0; kernel.files.pred.into()],
        };
        for &(r, value) in &kernel.presets.narrow {
            regs.set(r, u32::MAX, &[value; 32]);
        }
        for &(d, value) in &kernel.presets.wide {
            regs.set64(d, u32::MAX, &[value; 32]);
        }
        let id = geometry.block_id(block);
        for &(r, special) in &kernel.presets.special {
            let values = std::array::from_fn(|lane| special_value(special, geometry, id, block, index, lane as u32));
            regs.set(r, u32::MAX, &values);
        }
        Self {
            index,
            live,
            paths: vec![Path { pc: 0, mask: live, until: NEVER }],
            actor: Actor::new(block as u32, index, geometry.warps()),
            regs,
            copies: Copies::default(),
            written: vec![0; kernel.watch.names.len()],
        }
    }

    /// The lanes of `active` in which the guard of an instruction holds.
    pub(crate) fn guarded(&self, guard: Option<Pin>, active: u32) -> u32 {
        guard.map_or(active, |p| self.regs.pred(p) & active)
    }

    /// The value of a narrow register in the lanes of a mask, which is not empty; two values if there is more than one.
    pub(crate) fn uniform(&self, r: R, mask: u32) -> Result<u32, (u32, u32)> {
        let values = self.regs.get(r);
        let first = values[mask.trailing_zeros() as usize & 31];
        match lanes(mask).map(|lane| values[lane]).find(|&value| value != first) {
            None => Ok(first),
            Some(second) => Err((first, second)),
        }
    }

    /// Checks and marks the registers that static analysis could not prove written.
    pub(crate) fn watch(&mut self, kernel: &Kernel, pc: u32, active: u32, exec: u32) -> Outcome {
        let Some(point) = kernel.watch.point(pc) else { return Ok(()) };
        // All active lanes read the guard, only those in which it holds read the operands.
        for (reads, lanes) in [(&point.guard, active), (&point.check, exec)] {
            for &i in reads {
                let missing = lanes & !self.written[i as usize];
                if missing != 0 {
                    let register = kernel.watch.names[i as usize].clone();
                    return Err(Broken::at(missing.trailing_zeros(), FaultKind::RegisterUnset { register }));
                }
            }
        }
        for &i in &point.mark {
            self.written[i as usize] |= exec;
        }
        Ok(())
    }

    /// Executes one instruction in the lanes of `mask`, which is not empty.
    pub(crate) fn execute(&mut self, op: &Op, mask: u32, cx: &mut Context<'_>) -> Outcome {
        let regs = &mut self.regs;
        match *op {
            Op::Mov32 { d, a } => regs.map1(mask, d, a, |a| a),
            Op::Mov64 { d, a } => regs.map1_64(mask, d, a, |a| a),
            Op::MovPred { d, a } => {
                let bits = regs.preds[a.0 as usize];
                regs.set_pred(d, mask, bits);
            }
            Op::PredNot { d, a } => {
                let bits = !regs.preds[a.0 as usize];
                regs.set_pred(d, mask, bits);
            }
            Op::PredBin { f, d, a, b } => {
                let bits = combine(f, regs.pred(a), regs.pred(b));
                regs.set_pred(d, mask, bits);
            }
            Op::Pack32 { d, parts: [low, high] } => {
                regs.map2(mask, d, low, high, |low, high| low & 0xffff | high << 16);
            }
            Op::Unpack32 { parts: [low, high], a } => {
                let a = *regs.get(a);
                regs.set(low, mask, &a.map(|a| a & 0xffff));
                regs.set(high, mask, &a.map(|a| a >> 16));
            }
            Op::Pack64 { d, parts: [low, high] } => {
                let (low, high) = (*regs.get(low), *regs.get(high));
                regs.set64(d, mask, &std::array::from_fn(|l| u64::from(low[l]) | u64::from(high[l]) << 32));
            }
            Op::Unpack64 { parts: [low, high], a } => {
                let a = *regs.get64(a);
                regs.set(low, mask, &a.map(|a| a as u32));
                regs.set(high, mask, &a.map(|a| (a >> 32) as u32));
            }
            Op::Pack64x4 { d, parts } => {
                let parts = parts.map(|part| *regs.get(part));
                let join = |l: usize| (0..4).fold(0, |out, i| out | u64::from(parts[i][l] & 0xffff) << (16 * i));
                regs.set64(d, mask, &std::array::from_fn(join));
            }
            Op::Unpack64x4 { parts, a } => {
                let a = *regs.get64(a);
                for (i, part) in parts.into_iter().enumerate() {
                    regs.set(part, mask, &a.map(|a| (a >> (16 * i)) as u32 & 0xffff));
                }
            }
            Op::Clock32 { d, high } => regs.set(d, mask, &[(cx.now >> if high { 32 } else { 0 }) as u32; 32]),
            Op::Clock64 { d } => regs.set64(d, mask, &[cx.now; 32]),
            Op::Int16 { f, d, a, b } => return int::int16(regs, mask, f, [d, a, b]),
            Op::Int32 { f, d, a, b } => return int::int32(regs, mask, f, [d, a, b]),
            Op::Int64 { f, d, a, b } => return int::int64(regs, mask, f, [d, a, b]),
            Op::Shift16 { f, d, a, n } => int::shift16(regs, mask, f, [d, a, n]),
            Op::Shift32 { f, d, a, n } => int::shift32(regs, mask, f, [d, a, n]),
            Op::Shift64 { f, d, a, n } => int::shift64(regs, mask, f, d, a, n),
            Op::IntUn16 { f, d, a } => int::unary16(regs, mask, f, d, a),
            Op::IntUn32 { f, d, a } => int::unary32(regs, mask, f, d, a),
            Op::IntUn64 { f, d, a } => int::unary64(regs, mask, f, d, a),
            Op::Count64 { f, d, a } => int::count64(regs, mask, f, d, a),
            Op::Mad16 { f, d, a, b, c } => int::mad16(regs, mask, f, d, [a, b, c]),
            Op::Mad32 { f, d, a, b, c } => int::mad32(regs, mask, f, d, [a, b, c]),
            Op::Mad64 { f, d, a, b, c } => int::mad64(regs, mask, f, d, [a, b, c]),
            Op::MulWide16 { signed, d, a, b, c } => int::wide16(regs, mask, signed, [d, a, b], c),
            Op::MulWide32 { signed, d, a, b, c } => int::wide32(regs, mask, signed, d, [a, b], c),
            Op::Lop3 { lut, d, a, b, c } => regs.map3(mask, d, [a, b, c], |a, b, c| int::lop3(lut, a, b, c)),
            Op::Prmt { mode, d, a, b, c } => regs.map3(mask, d, [a, b, c], |a, b, c| int::prmt(mode, a, b, c)),
            Op::Shf { left, wrap, d, a, b, c } => {
                regs.map3(mask, d, [a, b, c], |a, b, c| int::shf(left, wrap, a, b, c));
            }
            Op::Bfe32 { signed, d, a, b, c } => {
                regs.map3(mask, d, [a, b, c], |a, b, c| int::bfe32(signed, a, b, c));
            }
            Op::Bfe64 { signed, d, a, b, c } => {
                let (a, b, c) = (*regs.get64(a), *regs.get(b), *regs.get(c));
                regs.set64(d, mask, &std::array::from_fn(|l| int::bfe64(signed, a[l], b[l], c[l])));
            }
            Op::Bfi32 { d, a, b, c, len } => {
                let len = *regs.get(len);
                let (a, b, c) = (*regs.get(a), *regs.get(b), *regs.get(c));
                regs.set(d, mask, &std::array::from_fn(|l| int::bfi32(a[l], b[l], c[l], len[l])));
            }
            Op::Bfi64 { d, a, b, c, len } => {
                let (a, b, c, len) = (*regs.get64(a), *regs.get64(b), *regs.get(c), *regs.get(len));
                regs.set64(d, mask, &std::array::from_fn(|l| int::bfi64(a[l], b[l], c[l], len[l])));
            }
            Op::Dp4a { a_signed, b_signed, d, a, b, c } => int::dp4a(regs, mask, (a_signed, b_signed), d, [a, b, c]),
            Op::Float32 { f, mode, d, a, b } => float::binary32(regs, mask, f, mode, [d, a, b]),
            Op::Float64 { f, d, a, b } => float::binary64(regs, mask, f, [d, a, b]),
            Op::FloatUn32 { f, mode, d, a } => float::unary32(regs, mask, f, mode, d, a),
            Op::FloatUn64 { f, d, a } => float::unary64(regs, mask, f, d, a),
            Op::Fma32 { mode, d, a, b, c } => float::fma32(regs, mask, mode, d, [a, b, c]),
            Op::Fma64 { d, a, b, c } => float::fma64(regs, mask, d, [a, b, c]),
            Op::Half { f, ty, packed, mode, d, a, b, c } => {
                float::half(regs, mask, (f, ty, packed, mode), d, [a, b, c]);
            }
            Op::Setp { ty, cmp, ftz, p, q, a, b, with } => {
                let (a, b) = (regs.get_any(a), regs.get_any(b));
                let holds = convert::compare(ty, cmp, ftz, &a, &b);
                let with = with.map(|(f, pin)| (f, regs.pred(pin)));
                let result = |bits: u32| with.map_or(bits, |(f, other)| combine(f, bits, other));
                if let Some(p) = p {
                    regs.set_pred(p, mask, result(holds));
                }
                if let Some(q) = q {
                    regs.set_pred(q, mask, result(!holds));
                }
            }
            Op::Selp32 { d, a, b, p } => {
                let (a, b, p) = (*regs.get(a), *regs.get(b), regs.pred(p));
                regs.set(d, mask, &std::array::from_fn(|l| if p >> l & 1 == 1 { a[l] } else { b[l] }));
            }
            Op::Selp64 { d, a, b, p } => {
                let (a, b, p) = (*regs.get64(a), *regs.get64(b), regs.pred(p));
                regs.set64(d, mask, &std::array::from_fn(|l| if p >> l & 1 == 1 { a[l] } else { b[l] }));
            }
            Op::Slct32 { float, d, a, b, c } => {
                regs.map3(mask, d, [a, b, c], |a, b, c| if not_negative(float, c) { a } else { b });
            }
            Op::Slct64 { float, d, a, b, c } => {
                let (a, b, c) = (*regs.get64(a), *regs.get64(b), *regs.get(c));
                regs.set64(d, mask, &std::array::from_fn(|l| if not_negative(float, c[l]) { a[l] } else { b[l] }));
            }
            Op::Cvt(ref how) => convert::cvt(regs, mask, how),
            Op::CvtPack { ty, round, sat, d, a, b } => {
                regs.map2(mask, d, a, b, |a, b| convert::pack(ty, round, sat, a, b));
            }
            Op::LdParam { offset, bytes, signed, count, ref regs } => {
                let load = ParamLoad { bytes, signed, regs: &regs[..count as usize] };
                memory::load_param(&mut self.regs, mask, offset, &load, cx);
            }
            Op::Ld(ref access) => return memory::load(regs, &mut self.actor, mask, access, cx),
            Op::St(ref access) => return memory::store(regs, &mut self.actor, mask, access, cx),
            Op::Atom(ref atom) => return atomic::atom(regs, &mut self.actor, mask, atom, cx),
            Op::Fence { scope } => {
                if cx.races {
                    self.actor.fence(scope);
                }
            }
            Op::CpAsync { to, from, bytes, source_bytes } => {
                let op = CopyOp { to, from, bytes: bytes.into(), source_bytes };
                return self.copies.start(regs, &mut self.actor, mask, op, cx);
            }
            Op::CpCommit => self.copies.commit(mask),
            Op::CpWait { pending } => return self.copies.wait(&self.actor, mask, pending, cx),
            Op::LdMatrix { d, count, transposed, addr } => {
                let op = LdMatrix { d, count: count.into(), transposed, addr };
                return matrix::ldmatrix(regs, &mut self.actor, mask, op, cx);
            }
            Op::Mma(ref op) => return matrix::mma(regs, mask, op),
            Op::Shfl(ref op) => return shuffle::shfl(regs, mask, op),
            Op::Vote { f, d, a, members } => return shuffle::vote(regs, mask, f, d, a, members),
            Op::Ballot { d, a, members } => return shuffle::ballot(regs, mask, d, a, members),
            Op::MatchAny { d, a, members } => return shuffle::match_any(regs, mask, d, a, members),
            Op::MatchAll { d, p, a, members } => return shuffle::match_all(regs, mask, d, p, a, members),
            Op::Redux { f, d, a, members } => return shuffle::redux(regs, mask, f, d, a, members),
            Op::ActiveMask { d } => regs.set(d, mask, &[mask; 32]),
            Op::BarWarp { members } => {
                for members in Groups::new(regs, mask, members, "bar.warp.sync")?.iter() {
                    self.actor.warp_sync(members, self.live);
                }
            }
            Op::Trap => return Err(Broken::at(mask.trailing_zeros(), FaultKind::Trap)),
            // Branches, returns and barriers are the scheduler's.
            Op::Nop | Op::Nanosleep | Op::Bar { .. } | Op::Bra { .. } | Op::Exit => {}
        }
        Ok(())
    }
}

fn combine(f: PredFn, a: u32, b: u32) -> u32 {
    match f {
        PredFn::And => a & b,
        PredFn::Or => a | b,
        PredFn::Xor => a ^ b,
    }
}

/// The condition of `slct`: NaN is not at or above zero, -0 is.
fn not_negative(float: bool, c: u32) -> bool {
    if float { f32::from_bits(c) >= 0.0 } else { c as i32 >= 0 }
}

fn special_value(special: Special, geometry: &Geometry, id: [u32; 3], block: u64, warp: u32, lane: u32) -> u32 {
    let thread = 32 * warp + lane;
    let [x, y, _] = geometry.block;
    match special {
        Special::Tid(0) => thread % x,
        Special::Tid(1) => thread / x % y,
        Special::Tid(_) => thread / x / y,
        Special::Ntid(axis) => geometry.block[axis as usize],
        Special::Ctaid(axis) => id[axis as usize],
        Special::Nctaid(axis) => geometry.grid[axis as usize],
        Special::LaneId => lane,
        Special::WarpId => warp,
        Special::NWarpId => geometry.warps(),
        Special::SmId => (block % u64::from(geometry.processors)) as u32,
        Special::NSmId => geometry.processors,
        Special::LaneMaskEq => 1 << lane,
        Special::LaneMaskLt => (1 << lane) - 1,
        Special::LaneMaskLe => u32::MAX >> (31 - lane),
        Special::LaneMaskGt => !(u32::MAX >> (31 - lane)),
        Special::LaneMaskGe => !((1 << lane) - 1),
        Special::DynamicShared => geometry.dynamic_shared,
        Special::TotalShared => geometry.total_shared,
    }
}
