//! The hook the scheduler is generic over.

use bricks::{BrickKind, Extent};

use super::layout::SyncMode;
use crate::step::Phase;

/// Receives what the scheduler's leader thread does, in order:
/// `begin_forward`, then `step_done` once per executed step in ascending order, then `end_forward`.
///
/// The scheduler is generic over this trait, so that [`NoRecord`] leaves no trace in the compiled loop. Every method is O(1)
/// or O(steps) without allocation, lock or system call.
///
/// ```
/// use bricks::Extent;
/// use brick_profiler::{NoRecord, Phase, Recorder};
///
/// fn forward<R: Recorder>(steps: &[fn()], recorder: &mut R) {
///     recorder.begin_forward(&Extent::one_sequence(1, 1, 1), Phase::Decode);
///     for (i, step) in steps.iter().enumerate() {
///         step(); // … and the barrier behind it
///         recorder.step_done(i);
///     }
///     recorder.end_forward();
/// }
/// forward(&[|| (), || ()], &mut NoRecord);
/// ```
pub trait Recorder {
    /// Whether anything is recorded at all; lets the scheduler skip work that only serves recording.
    const ENABLED: bool;

    /// Where threads note that their share of a step is done. `()` compiles to nothing.
    type Arrivals: Arrivals;

    /// What the threads of the forward call that is about to begin are given.
    fn arrivals(&self) -> Self::Arrivals;

    /// A forward call of this size starts now. Replaces a forward that was begun and never ended (one that failed).
    fn begin_forward(&mut self, extent: &Extent, phase: Phase);

    /// Step `step` has just finished on all threads. Its time is what passed since the previous call of this trait.
    fn step_done(&mut self, step: usize);

    /// How finely time is wanted, for schedulers that have a choice: a GPU's host can wait for every step, for every layer, or read the
    /// device's clocks at the end.
    #[inline(always)]
    fn sync(&self) -> SyncMode {
        SyncMode::Immediate
    }

    /// Step `step` has finished, `ns` nanoseconds after the forward began, as another clock says: that of a device.
    #[inline(always)]
    fn step_ended(&mut self, step: usize, ns: u64) {
        let _ = ns;
        self.step_done(step);
    }

    /// The forward call is over.
    fn end_forward(&mut self);

    /// Host work that is not a step of the plan, done between forwards (sampling, for instance) and timed by the caller. It
    /// is charged to the forward that ended last.
    #[inline(always)]
    fn record_external(&mut self, kind: BrickKind, ns: u64) {
        let _ = (kind, ns);
    }
}

/// Receives, from every thread of the gang, when it reached the barrier that ends a step: who waited for whom.
///
/// ```
/// use brick_profiler::{Arrivals, NoRecord, Recorder};
///
/// let arrivals = NoRecord.arrivals(); // nothing
/// arrivals.arrive(1, 0); // thread 1 has done its share of step 0, and now waits
/// ```
pub trait Arrivals: Sync {
    /// Thread `thread` has done its share of step `step`. Wait-free, without allocation or system call.
    fn arrive(&self, thread: usize, step: usize);
}

impl Arrivals for () {
    #[inline(always)]
    fn arrive(&self, _: usize, _: usize) {}
}

/// Records nothing and compiles to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoRecord;

impl Recorder for NoRecord {
    const ENABLED: bool = false;
    type Arrivals = ();

    #[inline(always)]
    fn arrivals(&self) {}

    #[inline(always)]
    fn begin_forward(&mut self, _: &Extent, _: Phase) {}

    #[inline(always)]
    fn step_done(&mut self, _: usize) {}

    #[inline(always)]
    fn end_forward(&mut self) {}
}

impl<R: Recorder> Recorder for &mut R {
    const ENABLED: bool = R::ENABLED;
    type Arrivals = R::Arrivals;

    #[inline(always)]
    fn arrivals(&self) -> R::Arrivals {
        R::arrivals(self)
    }

    #[inline(always)]
    fn begin_forward(&mut self, extent: &Extent, phase: Phase) {
        R::begin_forward(self, extent, phase);
    }

    #[inline(always)]
    fn step_done(&mut self, step: usize) {
        R::step_done(self, step);
    }

    #[inline(always)]
    fn sync(&self) -> SyncMode {
        R::sync(self)
    }

    #[inline(always)]
    fn step_ended(&mut self, step: usize, ns: u64) {
        R::step_ended(self, step, ns);
    }

    #[inline(always)]
    fn end_forward(&mut self) {
        R::end_forward(self);
    }

    #[inline(always)]
    fn record_external(&mut self, kind: BrickKind, ns: u64) {
        R::record_external(self, kind, ns);
    }
}
