//! Who arrives last finishes the work: how CTAs combine what each of them computed, without a second launch.
//!
//! Every CTA writes its part and counts itself in. The last one finds all parts written and combines them in the order
//! of their places, not of their arrival, so the result does not depend on the schedule.

use crate::build::{KernelBuilder, LoadOptions, Pred, Ptr, Reg, SharedSpace, U32};
use crate::ir::{FenceKind, Order, Scope};

/// Counts the CTA in at `arrivals`, after all its threads have written their part, and says in all threads whether it
/// is the last of `expected`. The counter has to be zero before the first, and is zero again after the last.
pub(super) fn arrive(
    k: &KernelBuilder,
    arrivals: Ptr<U32>,
    expected: Reg<U32>,
    flag: Ptr<U32, SharedSpace>,
) -> Reg<Pred> {
    let last = k.sub(expected, 1);
    k.fence(FenceKind::AcquireRelease, Scope::Gpu);
    k.barrier();
    k.if_(k.eq(k.tid(), 0), || {
        k.st(flag, k.atom_inc(arrivals, last, Order::AcquireRelease(Scope::Gpu)));
    });
    k.barrier();
    k.eq(k.ld_with(flag, LoadOptions::default().uniform()), last)
}

/// Loads what another CTA wrote before it arrived.
pub(super) fn written() -> LoadOptions {
    LoadOptions::default().order(Order::Relaxed(Scope::Gpu))
}
