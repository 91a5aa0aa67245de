//! Loads, stores, atomics, fences, asynchronous copies and `ldmatrix`.

use super::cursor::{Cursor, Decoded};
use crate::interp::op::{Access, Any, Atom, AtomFn, Op, Order, R, Scope, Space};
use crate::interp::ty::Ty;

const SPACES: [(&str, Space); 3] =
    [("global", Space::Global), ("shared", Space::Shared), ("shared::cta", Space::Shared)];

const SCOPES: [(&str, Scope); 4] =
    [("cta", Scope::Cta), ("cluster", Scope::Gpu), ("gpu", Scope::Gpu), ("sys", Scope::Gpu)];

/// Cache operators and eviction hints: they change speed, not results. Says whether a cache policy is an operand.
fn hints(c: &mut Cursor<'_, '_>) -> bool {
    c.choose(&[("ca", ()), ("cg", ()), ("cs", ()), ("lu", ()), ("cv", ()), ("wb", ()), ("wt", ())]);
    let policy = c.has("L2::cache_hint");
    c.ignore_prefixed("L1::");
    c.ignore_prefixed("L2::");
    policy
}

/// Takes the operand of `.L2::cache_hint`, the last of the instruction.
fn policy_operand(c: &mut Cursor<'_, '_>, policy: bool, others: usize) -> Decoded<()> {
    c.count(others + usize::from(policy))?;
    if policy {
        c.src64(others, Ty::B64)?;
    }
    Ok(())
}

fn order(c: &mut Cursor<'_, '_>) -> Order {
    let volatile = c.has("volatile");
    let relaxed = c.has("relaxed");
    let both = c.has("acq_rel");
    let acquire = c.has("acquire") || both;
    let release = c.has("release") || both;
    c.has("weak");
    let scope = c.choose(&SCOPES).unwrap_or_default();
    Order { strong: volatile || relaxed || acquire || release, acquire, release, scope }
}

pub(super) fn access(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let store = c.name() == "st";
    if !store && c.has("param") {
        return param(c);
    }
    let order = order(c);
    let Some(space) = c.choose(&SPACES) else {
        return c.missing("a state space: `.global`, `.shared` or, for loads, `.param`");
    };
    if store && order.acquire || !store && order.release {
        return c.missing("`.acquire` on loads, `.release` on stores");
    }
    let constant = c.has("nc") || c.name() == "ldu";
    if constant && (store || space == Space::Shared || order.strong) {
        return c.missing("`.nc` only on weak loads of global memory");
    }
    let policy = hints(c);
    let count = c.choose(&[("v2", 2_u8), ("v4", 4)]).unwrap_or(1);
    let ty = c.ty()?;
    let bytes = ty.bytes();
    if bytes == 0 || matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) || bytes * u32::from(count) > 16 {
        return c.bad_type(ty);
    }
    policy_operand(c, policy, 2)?;
    let (value, address) = if store { (1, 0) } else { (0, 1) };
    let regs = if store {
        match count {
            1 => [c.src_wide(value, ty)?; 4],
            2 => spread(c.src_parts::<2>(value, ty, true)?),
            _ => c.src_parts::<4>(value, ty, true)?,
        }
    } else {
        destinations(c, value, ty, count)?
    };
    let addr = c.address(address, space == Space::Shared)?;
    let access = Access { space, regs, count, bytes: bytes as u8, signed: ty.is_signed(), constant, order, addr };
    Ok(if store { Op::St(access) } else { Op::Ld(access) })
}

fn spread(parts: [Any; 2]) -> [Any; 4] {
    [parts[0], parts[1], parts[0], parts[0]]
}

fn destinations(c: &mut Cursor<'_, '_>, i: usize, ty: Ty, count: u8) -> Decoded<[Any; 4]> {
    Ok(match count {
        1 => [c.dst_wide(i, ty)?; 4],
        2 => spread(c.dst_parts::<2>(i, ty, true)?),
        _ => c.dst_parts::<4>(i, ty, true)?,
    })
}

fn param(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let count = c.choose(&[("v2", 2_u8), ("v4", 4)]).unwrap_or(1);
    let ty = c.ty()?;
    let bytes = ty.bytes();
    if bytes == 0 || matches!(ty, Ty::F16 | Ty::F16x2 | Ty::Bf16 | Ty::Bf16x2) || bytes * u32::from(count) > 16 {
        return c.bad_type(ty);
    }
    c.count(2)?;
    let regs = destinations(c, 0, ty, count)?;
    let offset = c.param_address(1)?;
    let size = u64::from(bytes) * u64::from(count);
    // Whether the bytes are inside the block of parameters is known here, so it is an error here.
    if offset % size != 0 {
        return c.bad_operand(1, format!("an offset that is a multiple of {size}"));
    }
    let limit = c.param_bytes();
    let offset = match u32::try_from(offset) {
        Ok(offset) if u64::from(offset) + size <= limit => offset,
        _ => return c.bad_operand(1, format!("an address inside the {limit} bytes of parameters")),
    };
    Ok(Op::LdParam { offset, bytes: bytes as u8, signed: ty.is_signed(), count, regs })
}

const ATOMICS: [(&str, AtomFn); 10] = [
    ("add", AtomFn::AddInt),
    ("min", AtomFn::MinU),
    ("max", AtomFn::MaxU),
    ("and", AtomFn::And),
    ("or", AtomFn::Or),
    ("xor", AtomFn::Xor),
    ("exch", AtomFn::Exch),
    ("cas", AtomFn::Cas),
    ("inc", AtomFn::Inc),
    ("dec", AtomFn::Dec),
];

pub(super) fn atom(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    let returns = c.name() == "atom";
    let mut order = order(c);
    order.strong = true;
    let Some(space) = c.choose(&SPACES) else { return c.missing("a state space: `.global` or `.shared`") };
    let Some(f) = c.choose(&ATOMICS) else { return c.missing("an operation such as `.add`") };
    let policy = hints(c);
    let ty = c.ty()?;
    let f = match (f, ty) {
        (AtomFn::AddInt, Ty::F32) => AtomFn::AddF32,
        (AtomFn::AddInt, Ty::F64) => AtomFn::AddF64,
        (AtomFn::MinU, Ty::S32 | Ty::S64) => AtomFn::MinS,
        (AtomFn::MaxU, Ty::S32 | Ty::S64) => AtomFn::MaxS,
        (AtomFn::AddInt, Ty::U32 | Ty::S32 | Ty::U64)
        | (AtomFn::MinU | AtomFn::MaxU, Ty::U32 | Ty::U64)
        | (AtomFn::And | AtomFn::Or | AtomFn::Xor | AtomFn::Exch | AtomFn::Cas, Ty::B32 | Ty::B64)
        | (AtomFn::Inc | AtomFn::Dec, Ty::U32) => f,
        _ => return c.bad_type(ty),
    };
    if !returns && matches!(f, AtomFn::Exch | AtomFn::Cas) {
        return c.missing("an operation other than `.exch` and `.cas`, whose result is needed");
    }
    let first = usize::from(returns);
    let others = first + 2 + usize::from(f == AtomFn::Cas);
    policy_operand(c, policy, others)?;
    let d = if returns { Some(c.dst(0, ty)?) } else { None };
    let addr = c.address(first, space == Space::Shared)?;
    let b = c.src(first + 1, ty)?;
    let c_value = if f == AtomFn::Cas { c.src(first + 2, ty)? } else { b };
    Ok(Op::Atom(Atom { f, space, wide: ty.bytes() == 8, order, d, addr, b, c: c_value }))
}

pub(super) fn fence(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    c.count(0)?;
    let scope = if c.name() == "membar" {
        c.choose(&[("cta", Scope::Cta), ("gl", Scope::Gpu), ("sys", Scope::Gpu)])
    } else {
        c.choose(&[("acq_rel", ()), ("sc", ())]);
        c.choose(&SCOPES)
    };
    match scope {
        Some(scope) => Ok(Op::Fence { scope }),
        None => c.missing("a scope"),
    }
}

/// Prefetches move data between caches: nothing to compute, nothing to check but the operand.
pub(super) fn prefetch(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    if !c.has("global") {
        return c.missing("`.global`");
    }
    if c.choose(&[("L1", ()), ("L2", ()), ("L2::evict_last", ()), ("L2::evict_normal", ())]).is_none() {
        return c.missing("a cache level");
    }
    c.count(1)?;
    c.address(0, false)?;
    Ok(Op::Nop)
}

/// `createpolicy.fractional`: the policy is opaque, and only cache hints read it.
pub(super) fn create_policy(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    if !c.has("fractional") {
        return c.missing("`.fractional`");
    }
    c.ignore_prefixed("L2::");
    match c.ty()? {
        Ty::B64 => {}
        ty => return c.bad_type(ty),
    }
    if c.operands() == 2 {
        c.src32(1, Ty::F32)?;
    } else {
        c.count(1)?;
    }
    Ok(Op::Mov64 { d: c.dst64(0, Ty::B64)?, a: c.constant64(0)? })
}

pub(super) fn cp_async(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    if !c.has("async") {
        return c.missing("`.async`");
    }
    if c.has("commit_group") {
        c.count(0)?;
        return Ok(Op::CpCommit);
    }
    if c.has("wait_all") {
        c.count(0)?;
        return Ok(Op::CpWait { pending: None });
    }
    if c.has("wait_group") {
        c.count(1)?;
        return Ok(Op::CpWait { pending: Some(c.literal(0, u32::MAX.into())? as u32) });
    }
    let Some(through_l1) = c.choose(&[("ca", true), ("cg", false)]) else { return c.missing("`.ca` or `.cg`") };
    if !(c.has("shared") || c.has("shared::cta")) || !c.has("global") {
        return c.missing("`.shared.global`");
    }
    let policy = hints(c);
    let bytes = c.literal(2, 16)? as u8;
    if !(matches!(bytes, 4 | 8) && through_l1 || bytes == 16) {
        return c.bad_operand(2, if through_l1 { "4, 8 or 16 bytes" } else { "16 bytes" });
    }
    let with_size = c.operands() == 4 + usize::from(policy);
    policy_operand(c, policy, 3 + usize::from(with_size))?;
    let source_bytes: Option<R> = if with_size { Some(c.src32(3, Ty::U32)?) } else { None };
    Ok(Op::CpAsync { to: c.address(0, true)?, from: c.address(1, false)?, bytes, source_bytes })
}

pub(super) fn ldmatrix(c: &mut Cursor<'_, '_>) -> Decoded<Op> {
    for needed in ["sync", "aligned", "m8n8"] {
        if !c.has(needed) {
            return c.missing("`.sync.aligned.m8n8`");
        }
    }
    let Some(count) = c.choose(&[("x1", 1_u8), ("x2", 2), ("x4", 4)]) else {
        return c.missing("`.x1`, `.x2` or `.x4`");
    };
    let transposed = c.has("trans");
    if !(c.has("shared") || c.has("shared::cta")) {
        return c.missing("`.shared`");
    }
    match c.ty()? {
        Ty::B16 => {}
        ty => return c.bad_type(ty),
    }
    c.count(2)?;
    let regs = match count {
        1 => spread([c.dst_parts::<1>(0, Ty::B32, false)?[0]; 2]),
        2 => spread(c.dst_parts::<2>(0, Ty::B32, false)?),
        _ => c.dst_parts::<4>(0, Ty::B32, false)?,
    };
    let d = regs.map(|reg| match reg {
        Any::R8(r) | Any::R16(r) | Any::R32(r) => r,
        Any::R64(d) => R(d.0),
    });
    Ok(Op::LdMatrix { d, count, transposed, addr: c.address(1, true)? })
}
