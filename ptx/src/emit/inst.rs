//! Text of instructions, except those of memory.

use super::memory::untyped;
use super::{EmitErrorKind, Emitted, Writer};
use crate::ir::{
    BinaryOp, Cache, FenceKind, Inst, MatchMode, MmaKind, Operand, ParamKind, RegId, ShuffleMode, Subnormals,
    TernaryOp, Type, UnaryOp, VoteMode,
};

impl Writer<'_> {
    pub(super) fn inst(&mut self, inst: &Inst) -> Emitted {
        let opcode = inst.opcode();
        match *inst {
            Inst::Mov { ty, dst, src } => self.simple(format!("mov{}", untyped(ty)), opcode, dst, &[src]),
            Inst::ReadSpecial { dst, special } => {
                let dst = self.names.register(opcode, dst)?;
                self.line(&format!("mov{} {dst}, {};", special.ty(), special.name()));
                Ok(())
            }
            Inst::LoadParam { dst, param } => {
                let index = param.0;
                let param = self.kernel.params.get(index as usize).ok_or(EmitErrorKind::Param { opcode, index })?;
                let dst = self.names.register(opcode, dst)?;
                let (ty, pointer) = match param.kind {
                    ParamKind::Pointer { .. } => (Type::U64, true),
                    ParamKind::U32 { .. } => (Type::U32, false),
                    ParamKind::U64 { .. } => (Type::U64, false),
                    ParamKind::F32 => (Type::F32, false),
                };
                self.line(&format!("ld.param{ty} {dst}, [{}];", param.name));
                if pointer {
                    self.line(&format!("cvta.to.global.u64 {dst}, {dst};"));
                }
                Ok(())
            }
            Inst::AddressOf { dst, shared } => {
                let (dst, shared) = (self.names.register(opcode, dst)?, self.shared(opcode, shared)?);
                self.line(&format!("mov.u32 {dst}, {shared};"));
                Ok(())
            }
            Inst::Pack { ty, dst, parts } => {
                let (_, parts) = self.vector(opcode, &parts.map(Operand::Reg))?;
                let dst = self.names.register(opcode, dst)?;
                self.line(&format!("mov{ty} {dst}, {parts};"));
                Ok(())
            }
            Inst::Unpack { ty, dst, src } => {
                let (_, dst) = self.vector(opcode, &dst.map(Operand::Reg))?;
                let src = self.names.register(opcode, src)?;
                self.line(&format!("mov{ty} {dst}, {src};"));
                Ok(())
            }
            Inst::Unary { op, ty, dst, a } => self.simple(unary(op, ty), opcode, dst, &[a]),
            Inst::Binary { op, ty, dst, a, b } => self.simple(binary(op, ty), opcode, dst, &[a, b]),
            Inst::Ternary { op, ty, dst, a, b, c } => self.simple(ternary(op, ty), opcode, dst, &[a, b, c]),
            Inst::Compare { cmp, ty, dst, a, b } => {
                self.simple(format!("setp.{}{ty}", cmp.name()), opcode, dst, &[a, b])
            }
            Inst::Select { ty, dst, a, b, cond } => {
                self.simple(format!("selp{}", untyped(ty)), opcode, dst, &[a, b, cond.into()])
            }
            Inst::ExtractBits { ty, dst, a, start, len } => {
                self.simple(format!("bfe{ty}"), opcode, dst, &[a, start, len])
            }
            Inst::InsertBits { ty, dst, field, base, start, len } => {
                self.simple(format!("bfi{ty}"), opcode, dst, &[field, base, start, len])
            }
            Inst::Permute { dst, a, b, selector } => self.simple("prmt.b32".into(), opcode, dst, &[a, b, selector]),
            Inst::Logic3 { dst, a, b, c, table } => {
                self.simple("lop3.b32".into(), opcode, dst, &[a, b, c, Operand::int(table.into())])
            }
            Inst::FunnelShift { left, dst, low, high, amount } => {
                let direction = if left { "l" } else { "r" };
                self.simple(format!("shf.{direction}.wrap.b32"), opcode, dst, &[low, high, amount])
            }
            Inst::Dp4a { a_sign, b_sign, dst, a, b, c } => {
                self.simple(format!("dp4a{}{}", a_sign.words(), b_sign.words()), opcode, dst, &[a, b, c])
            }
            Inst::Convert { to, from, rounding, saturate, dst, src } => {
                let rounding = rounding.map_or_else(String::new, |r| format!(".{}", r.name()));
                let saturate = if saturate { ".sat" } else { "" };
                self.simple(format!("cvt{rounding}{saturate}{to}{from}"), opcode, dst, &[src])
            }
            Inst::ConvertPair { to, dst, high, low } => {
                self.simple(format!("cvt.rn{to}.f32"), opcode, dst, &[high, low])
            }
            Inst::Load(ref load) => self.load(load),
            Inst::Store(ref store) => self.store(store),
            Inst::Atomic(ref atomic) => self.atomic(atomic),
            Inst::CopyAsync(ref copy) => self.copy_async(copy),
            Inst::WaitGroup { pending } => {
                self.line(&format!("cp.async.wait_group {pending};"));
                Ok(())
            }
            Inst::Prefetch { cache, at } => {
                let cache = match cache {
                    Cache::L1 => "L1",
                    Cache::L2 => "L2",
                };
                let at = self.address(opcode, at)?;
                self.line(&format!("prefetch.global.{cache} {at};"));
                Ok(())
            }
            Inst::CreatePolicy { dst, priority } => {
                let dst = self.names.register(opcode, dst)?;
                self.line(&format!("createpolicy.fractional.L2::{}.b64 {dst}, 1.0;", priority.name()));
                Ok(())
            }
            Inst::CommitGroup | Inst::WaitForDependencies | Inst::LaunchDependents | Inst::Trap => {
                self.line(&format!("{opcode};"));
                Ok(())
            }
            Inst::Barrier { id, threads } => {
                let threads = threads.map_or_else(String::new, |n| format!(", {n}"));
                self.line(&format!("bar.sync {id}{threads};"));
                Ok(())
            }
            Inst::Arrive { id, threads } => {
                self.line(&format!("bar.arrive {id}, {threads};"));
                Ok(())
            }
            Inst::Fence { kind, scope } => {
                let kind = match kind {
                    FenceKind::AcquireRelease => "acq_rel",
                    FenceKind::Sequential => "sc",
                };
                self.line(&format!("fence.{kind}.{};", scope.name()));
                Ok(())
            }
            Inst::Nanosleep { ns } => self.no_result("nanosleep.u32", ns),
            Inst::WarpBarrier { mask } => {
                let mask = self.mask(opcode, mask)?;
                self.line(&format!("bar.warp.sync {mask};"));
                Ok(())
            }
            Inst::AssumeMultiple { reg, of } => {
                let reg = self.names.register(opcode, reg)?;
                self.line(&format!("// {reg} is a multiple of {of}"));
                Ok(())
            }
            Inst::LoadMatrix(_)
            | Inst::Mma(_)
            | Inst::Shuffle(_)
            | Inst::Vote { .. }
            | Inst::Match { .. }
            | Inst::Reduce { .. }
            | Inst::ActiveMask { .. } => self.warp(inst),
        }
    }

    /// Instructions of a whole warp.
    fn warp(&mut self, inst: &Inst) -> Emitted {
        let opcode = inst.opcode();
        match *inst {
            Inst::LoadMatrix(ref load) => {
                let dst: Vec<Operand> = load.dst.iter().map(|&d| d.into()).collect();
                let (_, mut regs) = self.vector(opcode, &dst)?;
                if dst.len() == 1 {
                    regs = format!("{{{regs}}}");
                }
                let from = self.address(opcode, load.from)?;
                let trans = if load.transposed { ".trans" } else { "" };
                self.line(&format!("ldmatrix.sync.aligned.m8n8.x{}{trans}.shared.b16 {regs}, {from};", dst.len()));
            }
            Inst::Mma(mma) => {
                let shape = match mma.kind {
                    MmaKind::F16 => "m16n8k16.row.col.f32.f16.f16.f32".to_owned(),
                    MmaKind::Bf16 => "m16n8k16.row.col.f32.bf16.bf16.f32".to_owned(),
                    MmaKind::Int8 { a, b } => format!("m16n8k32.row.col.s32{}{}.s32", a.bytes(), b.bytes()),
                };
                let fragment = |regs: &[RegId]| {
                    let operands: Vec<Operand> = regs.iter().map(|&r| r.into()).collect();
                    self.vector(opcode, &operands).map(|(_, text)| text)
                };
                let (d, a, b, c) = (fragment(&mma.d)?, fragment(&mma.a)?, fragment(&mma.b)?, fragment(&mma.c)?);
                self.line(&format!("mma.sync.aligned.{shape} {d}, {a}, {b}, {c};"));
            }
            Inst::Shuffle(shuffle) => {
                let mut dst = self.names.register(opcode, shuffle.dst)?;
                if let Some(in_range) = shuffle.in_range {
                    dst = format!("{dst}|{}", self.names.register(opcode, in_range)?);
                }
                let (value, lane) =
                    (self.names.operand(opcode, shuffle.value)?, self.names.operand(opcode, shuffle.lane)?);
                let mask = self.mask(opcode, shuffle.mask)?;
                // Bits 8-12 keep the lane's segment, bits 0-4 are the last lane of it that may be read.
                let segment = 32_u32.saturating_sub(shuffle.width) << 8;
                let clamp = segment | if shuffle.mode == ShuffleMode::Up { 0 } else { 31 };
                self.line(&format!("shfl.sync.{}.b32 {dst}, {value}, {lane}, {clamp}, {mask};", shuffle.mode.name()));
            }
            Inst::Vote { mode, dst, pred, mask } => {
                let mode = match mode {
                    VoteMode::Ballot => "ballot.b32",
                    VoteMode::Any => "any.pred",
                    VoteMode::All => "all.pred",
                };
                let (dst, pred) = (self.names.register(opcode, dst)?, self.names.register(opcode, pred)?);
                let mask = self.mask(opcode, mask)?;
                self.line(&format!("vote.sync.{mode} {dst}, {pred}, {mask};"));
            }
            Inst::Match { mode, ty, dst, value, mask } => {
                let mode = match mode {
                    MatchMode::Any => "any",
                    MatchMode::All => "all",
                };
                let (dst, value) = (self.names.register(opcode, dst)?, self.names.operand(opcode, value)?);
                let mask = self.mask(opcode, mask)?;
                self.line(&format!("match.{mode}.sync{ty} {dst}, {value}, {mask};"));
            }
            Inst::Reduce { op, ty, dst, value, mask } => {
                let (dst, value) = (self.names.register(opcode, dst)?, self.names.operand(opcode, value)?);
                let mask = self.mask(opcode, mask)?;
                self.line(&format!("redux.sync.{}{ty} {dst}, {value}, {mask};", op.name()));
            }
            Inst::ActiveMask { dst } => {
                let dst = self.names.register(opcode, dst)?;
                self.line(&format!("activemask.b32 {dst};"));
            }
            _ => {}
        }
        Ok(())
    }

    /// `mnemonic dst, operands;`
    fn simple(&mut self, mnemonic: String, opcode: &'static str, dst: RegId, operands: &[Operand]) -> Emitted {
        let mut line = mnemonic;
        line.push(' ');
        line += &self.names.register(opcode, dst)?;
        for &operand in operands {
            line += ", ";
            line += &self.names.operand(opcode, operand)?;
        }
        line.push(';');
        self.line(&line);
        Ok(())
    }

    fn no_result(&mut self, opcode: &'static str, operand: Operand) -> Emitted {
        let operand = self.names.operand(opcode, operand)?;
        self.line(&format!("{opcode} {operand};"));
        Ok(())
    }

    /// Lane masks read best in hexadecimal.
    fn mask(&self, opcode: &'static str, mask: Operand) -> Result<String, EmitErrorKind> {
        match mask.as_int() {
            Some(bits) => Ok(format!("{bits:#x}")),
            None => self.names.operand(opcode, mask),
        }
    }
}

fn flush(subnormals: Subnormals) -> &'static str {
    match subnormals {
        Subnormals::Keep => "",
        Subnormals::Flush => ".ftz",
    }
}

fn unary(op: UnaryOp, ty: Type) -> String {
    let name = op.name();
    match op {
        UnaryOp::Ex2(s) | UnaryOp::Lg2(s) | UnaryOp::RcpApprox(s) | UnaryOp::Rsqrt(s) | UnaryOp::SqrtApprox(s) => {
            format!("{name}.approx{}{ty}", flush(s))
        }
        UnaryOp::Tanh | UnaryOp::Sin | UnaryOp::Cos => format!("{name}.approx{ty}"),
        UnaryOp::RcpRn | UnaryOp::SqrtRn => format!("{name}.rn{ty}"),
        UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Not | UnaryOp::Popc | UnaryOp::Clz | UnaryOp::Brev => {
            format!("{name}{ty}")
        }
    }
}

fn binary(op: BinaryOp, ty: Type) -> String {
    let name = op.name();
    let float = ty.is_float() || ty.is_pair();
    match op {
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul if float => format!("{name}.rn{ty}"),
        BinaryOp::Mul => format!("{name}.lo{ty}"),
        BinaryOp::MulHi => format!("{name}.hi{ty}"),
        BinaryOp::MulWide => format!("{name}.wide{ty}"),
        BinaryOp::DivApprox => format!("{name}.approx{ty}"),
        BinaryOp::DivFull => format!("{name}.full{ty}"),
        BinaryOp::DivRn => format!("{name}.rn{ty}"),
        _ => format!("{name}{ty}"),
    }
}

fn ternary(op: TernaryOp, ty: Type) -> String {
    match op {
        TernaryOp::Mad => format!("mad.lo{ty}"),
        TernaryOp::MadHi => format!("mad.hi{ty}"),
        TernaryOp::MadWide => format!("mad.wide{ty}"),
        TernaryOp::Fma => format!("fma.rn{ty}"),
    }
}
