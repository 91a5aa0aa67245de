//! Memory instructions: vector widths, spaces, ordering, hints; and numbers of warp and barrier instructions.

use super::{Checked, ValidErrorKind};
use crate::ir::{Address, AtomicOp, Base, CacheHints, Inst, Kernel, L1, Order, Prefetch, SharedSize, Space, Type};

pub(super) fn check(inst: &Inst, kernel: &Kernel) -> Checked {
    match *inst {
        Inst::Load(ref load) => {
            vector(load.dst.len(), load.ty)?;
            inside(load.from, load.ty.bytes() * load.dst.len() as u32, kernel)?;
            combination(!matches!(load.order, Order::Release(_) | Order::AcquireRelease(_)), "a load cannot release")?;
            let plain = load.order == Order::Weak && load.from.space == Space::Global;
            combination(!load.read_only || plain, "a read-only load is a weak load of global memory")?;
            hints(load.hints, load.from.space, load.order)
        }
        Inst::Store(ref store) => {
            vector(store.values.len(), store.ty)?;
            inside(store.to, store.ty.bytes() * store.values.len() as u32, kernel)?;
            combination(
                !matches!(store.order, Order::Acquire(_) | Order::AcquireRelease(_)),
                "a store cannot acquire",
            )?;
            combination(store.hints.prefetch == Prefetch::None, "a store does not prefetch")?;
            hints(store.hints, store.to.space, store.order)
        }
        Inst::Atomic(atomic) => {
            inside(atomic.at, atomic.ty.bytes(), kernel)?;
            let swaps = matches!(atomic.op, AtomicOp::Exch | AtomicOp::Cas);
            combination(
                atomic.compare.is_some() == (atomic.op == AtomicOp::Cas),
                "only cas compares, and it always does",
            )?;
            combination(atomic.dst.is_some() || !swaps, "exch and cas return the old value")?;
            combination(!matches!(atomic.order, Order::Weak | Order::Volatile), "an atomic is relaxed or stronger")?;
            let one_way = matches!(atomic.order, Order::Relaxed(_) | Order::Release(_));
            combination(atomic.dst.is_some() || one_way, "an atomic that returns nothing cannot acquire")
        }
        Inst::CopyAsync(copy) => {
            space(copy.to, Space::Shared)?;
            space(copy.from, Space::Global)?;
            inside(copy.to, copy.bytes, kernel)?;
            inside(copy.from, copy.bytes, kernel)?;
            range("size of a copy", "4, 8 or 16 bytes", copy.bytes.into(), matches!(copy.bytes, 4 | 8 | 16))?;
            combination(!copy.bypass_l1 || copy.bytes == 16, "only copies of 16 bytes bypass L1")?;
            match copy.read_bytes.and_then(crate::ir::Operand::as_int) {
                Some(n) => range("bytes read by a copy", "at most its size", n, n <= copy.bytes.into()),
                None => Ok(()),
            }
        }
        Inst::Prefetch { at, .. } => space(at, Space::Global).and_then(|()| inside(at, 1, kernel)),
        Inst::LoadMatrix(ref load) => {
            space(load.from, Space::Shared)?;
            inside(load.from, 16, kernel)?;
            let count = load.dst.len();
            range("number of matrices", "1, 2 or 4", count as i128, matches!(count, 1 | 2 | 4))
        }
        Inst::Shuffle(shuffle) => {
            let good = shuffle.width.is_power_of_two() && shuffle.width <= 32;
            range("width of a shuffle", "a power of two up to 32", shuffle.width.into(), good)
        }
        Inst::Barrier { id, threads } => {
            range("number of a barrier", "0 to 15", id.into(), id < 16)?;
            threads.map_or(Ok(()), warps)
        }
        Inst::Arrive { id, threads } => {
            range("number of a barrier", "0 to 15", id.into(), id < 16)?;
            warps(threads)
        }
        _ => Ok(()),
    }
}

fn combination(good: bool, what: &'static str) -> Checked {
    if good { Ok(()) } else { Err(ValidErrorKind::Combination { what }) }
}

fn range(what: &'static str, expected: &'static str, found: i128, good: bool) -> Checked {
    if good { Ok(()) } else { Err(ValidErrorKind::Range { what, expected, found }) }
}

/// Threads that meet at a barrier: whole warps.
fn warps(threads: u32) -> Checked {
    let good = threads.is_multiple_of(32) && (32..=1024).contains(&threads);
    range("number of threads at a barrier", "a multiple of 32 up to 1024", threads.into(), good)
}

fn vector(count: usize, ty: Type) -> Checked {
    if matches!(count, 1 | 2 | 4) && count * ty.bytes() as usize <= 16 {
        return Ok(());
    }
    Err(ValidErrorKind::Vector { count, ty })
}

fn space(address: Address, expected: Space) -> Checked {
    let found = address.space;
    if found == expected { Ok(()) } else { Err(ValidErrorKind::WrongSpace { expected, found }) }
}

/// An access to a named allocation is in the shared space and stays inside.
fn inside(address: Address, bytes: u32, kernel: &Kernel) -> Checked {
    let Base::Shared(shared) = address.base else { return Ok(()) };
    space(address, Space::Shared)?;
    let Some(shared) = kernel.shared.get(shared.0 as usize) else { return Ok(()) };
    let (SharedSize::Static { bytes: size } | SharedSize::Dynamic { max_bytes: size }) = shared.size;
    let (start, end) = (i64::from(address.offset), i64::from(address.offset) + i64::from(bytes));
    if start < 0 || end > i64::from(size) {
        return Err(ValidErrorKind::Outside { name: shared.name.clone(), start, end, size });
    }
    Ok(())
}

fn hints(hints: CacheHints, space: Space, order: Order) -> Checked {
    let none = hints == CacheHints::default();
    combination(none || space == Space::Global, "cache hints are for global memory")?;
    combination(none || order != Order::Volatile, "a volatile access takes no cache hints")?;
    let first = hints.l1 == L1::Normal || matches!(order, Order::Weak);
    combination(first, "only weak accesses choose what L1 does")
}
