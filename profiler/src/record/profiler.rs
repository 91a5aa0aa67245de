//! The recorder that records.

use bricks::{BrickCategory, BrickKind, Extent};

use super::layout::{Layout, SyncMode};
use super::recorder::Recorder;
use super::ring::{ForwardSample, Head, NOT_RUN, Ring};
use super::spread::Spread;
use super::threads::{Stamps, ThreadTime, Threads};
use super::work::{PlanWork, Work};
use crate::clock::{Clock, TimeSource};
use crate::stats::Totals;
use crate::step::{Phase, StepInfo};

/// Records when each step of each forward call ended.
///
/// Everything is allocated by [`new`](Self::new). Recording a step is one clock read and one store; totals are brought up to
/// date after the forward, outside any step. Two things are kept: exact [`Totals`] of everything since the beginning, and
/// the times of the last forwards of each phase, from which percentiles are computed.
///
/// ```
/// use bricks::Extent;
/// use brick_profiler::{BrickProfiler, Phase, Recorder};
///
/// let mut profiler = BrickProfiler::new(&[], 64); // the steps of a plan; times of the last 64 forwards are kept
/// profiler.begin_forward(&Extent::one_sequence(1, 1, 1), Phase::Decode);
/// profiler.end_forward();
/// assert_eq!(profiler.phase_totals(Phase::Decode).forwards, 1);
/// ```
#[derive(Debug)]
pub struct BrickProfiler<T: TimeSource = Clock> {
    clock: T,
    mode: SyncMode,
    enabled: bool,
    steps: Vec<StepInfo>,
    layout: Layout,
    phases: [PhaseState; Phase::COUNT],
    threads: Threads,
    /// The forward that is running.
    open: Option<Open>,
    /// The forward that ended last: its phase and row, and when it ended.
    last: Option<(Phase, usize, u64)>,
    clock_reads: u64,
    aborted: u64,
    ignored: u64,
}

#[derive(Debug)]
struct Open {
    phase: Phase,
    row: usize,
    begin_ns: u64,
    extent: Extent,
    next_step: usize,
}

#[derive(Debug)]
struct PhaseState {
    totals: PhaseTotals,
    slots: Vec<Totals>,
    segments: Vec<Totals>,
    work: PlanWork,
    external: [Totals; BrickKind::COUNT],
    spread: Spread,
    ring: Ring,
}

/// Exact totals of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PhaseTotals {
    /// Forward calls.
    pub forwards: u64,
    /// Sum of their sizes.
    pub extent: Extent,
    /// Wall time of the forward calls, from begin to end.
    pub wall: Totals,
    /// Sum of everything the steps (or segments) were charged with.
    pub steps_ns: u64,
    /// Host work recorded between forwards.
    pub external_ns: u64,
    /// Time between the end of a forward of this phase and the next forward of any phase. Contains `external_ns`.
    pub gap_ns: u64,
}

impl BrickProfiler<Clock> {
    /// A profiler with one clock read per step that keeps the times of the last `capacity_forwards` calls of each phase (at
    /// least one; fewer when a phase would take more than 32 MiB).
    pub fn new(steps: &[StepInfo], capacity_forwards: usize) -> Self {
        Self::with_mode(steps, capacity_forwards, SyncMode::Immediate)
    }

    /// The same with a choice of how finely time is taken.
    pub fn with_mode(steps: &[StepInfo], capacity_forwards: usize, mode: SyncMode) -> Self {
        Self::with_clock(steps, capacity_forwards, mode, Clock::new())
    }
}

impl<T: TimeSource> BrickProfiler<T> {
    /// A profiler with a clock of the caller's choice.
    pub fn with_clock(steps: &[StepInfo], capacity_forwards: usize, mode: SyncMode, clock: T) -> Self {
        let layout = Layout::new(steps, mode);
        let rows = if mode == SyncMode::None { 1 } else { capacity_forwards };
        let phase = || PhaseState {
            totals: PhaseTotals::default(),
            slots: vec![Totals::default(); layout.slots()],
            segments: vec![Totals::default(); layout.segment_layers.len()],
            work: PlanWork::new(steps),
            external: [Totals::default(); BrickKind::COUNT],
            spread: if mode.times_steps() { Spread::new(steps) } else { Spread::none() },
            ring: Ring::new(layout.slots(), rows),
        };
        Self {
            clock,
            mode,
            enabled: mode != SyncMode::None,
            steps: steps.to_vec(),
            phases: [phase(), phase(), phase()],
            threads: Threads::none(),
            layout,
            open: None,
            last: None,
            clock_reads: 0,
            aborted: 0,
            ignored: 0,
        }
    }

    /// The same, with the times at which each of `threads` threads reached the barriers: who waited for whom, per step. One more
    /// clock read per step on every thread. Does nothing where steps have no times of their own, or where the clock cannot be
    /// read by several threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        if let Some(clock) = self.clock.shared().filter(|_| self.mode.times_steps()) {
            self.threads = Threads::new(threads, self.steps.len(), Phase::COUNT, clock);
        }
        self
    }

    /// Switches recording on or off between forwards; a running forward is dropped. Stays off in [`SyncMode::None`].
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled && self.mode != SyncMode::None;
        self.aborted += u64::from(self.open.take().is_some());
        self.last = None;
    }

    /// Whether forwards are being recorded.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Forgets everything recorded so far, keeping the memory. Call it after warm-up.
    pub fn reset(&mut self) {
        for p in &mut self.phases {
            p.totals = PhaseTotals::default();
            p.slots.fill(Totals::default());
            p.segments.fill(Totals::default());
            p.work.clear();
            p.external = [Totals::default(); BrickKind::COUNT];
            p.spread.clear();
            p.ring.clear();
        }
        self.threads.clear();
        (self.open, self.last) = (None, None);
        (self.clock_reads, self.aborted, self.ignored) = (0, 0, 0);
    }

    /// Accounts what is still raw ([`SyncMode::Deferred`]) and drops a forward that never ended. May be called repeatedly.
    pub fn finish(&mut self) {
        self.aborted += u64::from(self.open.take().is_some());
        for phase in Phase::ALL {
            for row in self.phases[phase.index()].ring.rows() {
                self.resolve(phase, row);
            }
        }
    }

    /// Turns the clock readings of a row into durations and adds them to the totals, once.
    fn resolve(&mut self, phase: Phase, row: usize) {
        let p = &mut self.phases[phase.index()];
        let head = p.ring.head_mut(row);
        if std::mem::replace(&mut head.resolved, true) {
            return;
        }
        let (extent, wall) = (head.extent, head.end_ns.saturating_sub(head.begin_ns));
        let mut last = head.begin_ns;
        let (times, _) = p.ring.row_mut(row);
        let (mut sum, mut ran) = (0, 0);
        // Of kinds, where a slot is a step.
        let mut kinds: [Option<u64>; BrickKind::COUNT] = [None; BrickKind::COUNT];
        let mut segment: Option<(u32, u64)> = None;
        for (slot, time) in times.iter_mut().enumerate() {
            if *time == NOT_RUN {
                continue;
            }
            let ns = time.saturating_sub(last);
            last = *time;
            *time = ns;
            sum += ns;
            ran += 1;
            p.slots[slot].record(ns);
            if let Some(&kind) = self.layout.kind_of_slot.get(slot) {
                *kinds[usize::from(kind)].get_or_insert(0) += ns;
            }
            let id = self.layout.segment_of_slot[slot];
            match &mut segment {
                Some((open, total)) if *open == id => *total += ns,
                other => {
                    if let Some((done, total)) = other.replace((id, ns)) {
                        p.segments[done as usize].record(total);
                    }
                }
            }
        }
        if let Some((done, total)) = segment {
            p.segments[done as usize].record(total);
        }
        for (kind, ns) in kinds.into_iter().enumerate() {
            if let Some(ns) = ns {
                p.spread.record(kind, ns);
            }
        }
        if ran == times.len() {
            p.work.add_whole(&extent);
        } else {
            let targets = &self.layout.targets;
            p.work.add_partial(&extent, |step| times[targets[step].slot as usize] != NOT_RUN);
        }
        let t = &mut p.totals;
        t.forwards += 1;
        t.extent.tokens = t.extent.tokens.saturating_add(extent.tokens);
        t.extent.wanted = t.extent.wanted.saturating_add(extent.wanted);
        t.extent.context = t.extent.context.saturating_add(extent.context);
        t.extent.pairs = t.extent.pairs.saturating_add(extent.pairs);
        t.wall.record(wall);
        t.steps_ns = t.steps_ns.saturating_add(sum);
    }

    #[inline(always)]
    fn now(&mut self) -> u64 {
        self.clock_reads += 1;
        self.clock.now_ns()
    }
}

impl<T: TimeSource> BrickProfiler<T> {
    /// Notes the end of a step: `ns` after the forward began if it is `TOLD`, else now.
    #[inline]
    fn step_at<const TOLD: bool>(&mut self, step: usize, ns: u64) {
        let Some(open) = &mut self.open else {
            self.ignored += u64::from(self.enabled);
            return;
        };
        let target = match self.layout.targets.get(step) {
            Some(target) if step >= open.next_step => *target,
            _ => {
                self.ignored += 1;
                return;
            }
        };
        open.next_step = step + 1;
        if target.closes {
            let (phase, row, begin_ns) = (open.phase, open.row, open.begin_ns);
            let now = if TOLD { begin_ns + ns } else { self.now() };
            self.phases[phase.index()].ring.row_mut(row).0[target.slot as usize] = now;
        }
    }
}

impl<T: TimeSource> Recorder for BrickProfiler<T> {
    const ENABLED: bool = true;
    type Arrivals = Stamps;

    fn arrivals(&self) -> Stamps {
        self.threads.stamps()
    }

    fn begin_forward(&mut self, extent: &Extent, phase: Phase) {
        if !self.enabled {
            return;
        }
        self.aborted += u64::from(self.open.take().is_some());
        if let Some(row) = self.phases[phase.index()].ring.oldest_to_go() {
            self.resolve(phase, row);
        }
        // The gap belongs to the forward before it, whose row may be the one that is about to be reused.
        let before = self.last.take();
        let reused =
            before.is_some_and(|(p, row, _)| p == phase && self.phases[phase.index()].ring.oldest_to_go() == Some(row));
        let row = self.phases[phase.index()].ring.start();
        let begin_ns = self.now();
        if let Some((last_phase, last_row, end_ns)) = before {
            let gap_ns = begin_ns.saturating_sub(end_ns);
            let p = &mut self.phases[last_phase.index()];
            p.totals.gap_ns = p.totals.gap_ns.saturating_add(gap_ns);
            if !reused {
                p.ring.head_mut(last_row).gap_ns = gap_ns;
            }
        }
        self.open = Some(Open { phase, row, begin_ns, extent: *extent, next_step: 0 });
    }

    #[inline]
    fn step_done(&mut self, step: usize) {
        self.step_at::<false>(step, 0);
    }

    fn sync(&self) -> SyncMode {
        self.mode
    }

    fn step_ended(&mut self, step: usize, ns: u64) {
        self.step_at::<true>(step, ns);
    }

    fn end_forward(&mut self) {
        let Some(open) = self.open.take() else {
            self.ignored += u64::from(self.enabled);
            return;
        };
        let end_ns = self.now();
        let head = Head { extent: open.extent, begin_ns: open.begin_ns, end_ns, gap_ns: 0, resolved: false };
        let ring = &mut self.phases[open.phase.index()].ring;
        ring.commit(head);
        // Now, in every mode: the threads' table is written again by the next call.
        self.clock_reads += self.threads.add(open.phase.index(), open.begin_ns, ring.row_mut(open.row).0);
        if self.mode != SyncMode::Deferred {
            self.resolve(open.phase, open.row);
        }
        self.last = Some((open.phase, open.row, end_ns));
    }

    fn record_external(&mut self, kind: BrickKind, ns: u64) {
        if !self.enabled {
            return;
        }
        let Some((phase, row, _)) = self.last else {
            self.ignored += 1;
            return;
        };
        let p = &mut self.phases[phase.index()];
        p.external[kind.index()].record(ns);
        p.spread.record(kind.index(), ns);
        p.totals.external_ns = p.totals.external_ns.saturating_add(ns);
        let cell = &mut p.ring.row_mut(row).1[kind.index()];
        *cell = cell.saturating_add(ns);
    }
}

/// What was recorded. In [`SyncMode::Deferred`], forwards appear when [`BrickProfiler::finish`] is called or when they have
/// to leave the buffer.
impl<T: TimeSource> BrickProfiler<T> {
    /// How finely time is taken.
    pub fn mode(&self) -> SyncMode {
        self.mode
    }

    /// The clock.
    pub fn clock(&self) -> &T {
        &self.clock
    }

    /// The steps of the plan.
    pub fn steps(&self) -> &[StepInfo] {
        &self.steps
    }

    /// What gets a time in each forward call: steps, or segments of one layer in [`SyncMode::PerLayer`].
    pub fn slots(&self) -> usize {
        self.layout.slots()
    }

    /// Clock reads of the leader so far: what recording costs, in units of [`crate::ClockPrecision::read_ns`].
    pub fn clock_reads(&self) -> u64 {
        self.clock_reads
    }

    /// Forwards that were begun and never ended (they failed). They are in no statistic.
    pub fn aborted_forwards(&self) -> u64 {
        self.aborted
    }

    /// Calls that made no sense and were ignored: an unknown step, steps out of order, an end without a beginning, external
    /// work before the first forward. 0 unless the caller has a bug.
    pub fn ignored_calls(&self) -> u64 {
        self.ignored
    }

    /// Forwards whose times are kept, per phase.
    pub fn capacity(&self) -> usize {
        self.phases[0].ring.capacity()
    }

    /// Exact totals of a phase.
    pub fn phase_totals(&self, phase: Phase) -> PhaseTotals {
        self.phases[phase.index()].totals
    }

    /// Exact totals of a step; `None` if there is no such step or steps are not timed ([`SyncMode::PerLayer`]).
    pub fn step_totals(&self, phase: Phase, step: usize) -> Option<Totals> {
        if self.mode.times_steps() { self.phases[phase.index()].slots.get(step).copied() } else { None }
    }

    /// Work asked of a step, for its static cost.
    pub fn step_work(&self, phase: Phase, step: usize) -> Option<Work> {
        self.phases[phase.index()].work.step(step)
    }

    /// Threads whose arrivals are recorded; 0 without [`with_threads`](Self::with_threads).
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// Busy and waiting time of every thread in a step, summed over the forward calls of a phase. Empty where they are not recorded.
    pub fn step_threads(&self, phase: Phase, step: usize) -> &[ThreadTime] {
        self.threads.step(phase.index(), step)
    }

    /// Times of a kind in every forward call of a phase: `(upper end of the bucket in ns, calls)`, ascending; `None` where there are
    /// none. Host work counts for itself.
    pub fn kind_histogram(&self, phase: Phase, kind: BrickKind) -> Option<Vec<(u64, u64)>> {
        let histogram = self.phases[phase.index()].spread.of(kind)?;
        let buckets = histogram.iter_recorded();
        Some(buckets.map(|b| (b.value_iterated_to(), u64::from(b.count_at_value()))).collect())
    }

    /// Exact totals of host work of a kind.
    pub fn external_totals(&self, phase: Phase, kind: BrickKind) -> Totals {
        self.phases[phase.index()].external[kind.index()]
    }

    /// Exact totals of a kind: its steps and its external work.
    pub fn kind_totals(&self, phase: Phase, kind: BrickKind) -> Totals {
        let mut all = self.external_totals(phase, kind);
        if self.mode.times_steps() {
            let p = &self.phases[phase.index()];
            for (_, totals) in self.steps.iter().zip(&p.slots).filter(|(s, _)| s.kind == kind) {
                all.merge(totals);
            }
        }
        all
    }

    /// Totals by name: that of a kind (`QKV`) or of a step (`blk.3.attn_qkv`; several steps of one name are added).
    pub fn totals_by_name(&self, phase: Phase, name: &str) -> Option<Totals> {
        if let Some(kind) = BrickKind::ALL.into_iter().find(|k| k.name() == name) {
            return Some(self.kind_totals(phase, kind));
        }
        let mut found: Option<Totals> = None;
        for (i, _) in self.steps.iter().enumerate().filter(|(_, s)| s.name == name) {
            found.get_or_insert_default().merge(&self.step_totals(phase, i)?);
        }
        found
    }

    /// Totals of a category: the sum of its kinds.
    pub fn category_totals(&self, phase: Phase, category: BrickCategory) -> Totals {
        let mut all = Totals::default();
        for kind in BrickKind::ALL.into_iter().filter(|k| k.category() == category) {
            all.merge(&self.kind_totals(phase, kind));
        }
        all
    }

    /// Totals of each run of steps of one layer (`None`: of no layer), in the order of the plan. Available in every mode.
    pub fn segment_totals(&self, phase: Phase) -> impl Iterator<Item = (Option<u32>, &Totals)> {
        self.layout.segment_layers.iter().copied().zip(&self.phases[phase.index()].segments)
    }

    /// The last forwards of a phase, oldest first.
    pub fn samples(&self, phase: Phase) -> impl Iterator<Item = ForwardSample<'_>> {
        let ring = &self.phases[phase.index()].ring;
        ring.rows().filter_map(|row| ring.sample(row))
    }
}
