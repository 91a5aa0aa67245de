//! The hook the scheduler is generic over.

use bricks::{BrickKind, Extent};

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

    /// A forward call of this size starts now. Replaces a forward that was begun and never ended (one that failed).
    fn begin_forward(&mut self, extent: &Extent, phase: Phase);

    /// Step `step` has just finished on all threads. Its time is what passed since the previous call of this trait.
    fn step_done(&mut self, step: usize);

    /// The forward call is over.
    fn end_forward(&mut self);

    /// Host work that is not a step of the plan, done between forwards (sampling, for instance) and timed by the caller. It
    /// is charged to the forward that ended last.
    #[inline(always)]
    fn record_external(&mut self, kind: BrickKind, ns: u64) {
        let _ = (kind, ns);
    }
}

/// Records nothing and compiles to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoRecord;

impl Recorder for NoRecord {
    const ENABLED: bool = false;

    #[inline(always)]
    fn begin_forward(&mut self, _: &Extent, _: Phase) {}

    #[inline(always)]
    fn step_done(&mut self, _: usize) {}

    #[inline(always)]
    fn end_forward(&mut self) {}
}

impl<R: Recorder> Recorder for &mut R {
    const ENABLED: bool = R::ENABLED;

    #[inline(always)]
    fn begin_forward(&mut self, extent: &Extent, phase: Phase) {
        R::begin_forward(self, extent, phase);
    }

    #[inline(always)]
    fn step_done(&mut self, step: usize) {
        R::step_done(self, step);
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
