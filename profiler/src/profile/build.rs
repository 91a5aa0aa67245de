//! From recorder to profile.

use bricks::{BrickCategory, BrickKind, BudgetPolicy, Cost, Extent, TokenBudget};

use super::verdict::{bottleneck, share_of_budget};
use super::{
    BatchRow, BoundShare, BudgetInfo, BuildInfo, CategoryRow, Counters, Flag, ForwardRow, KindRow, LayerRow, ModelInfo,
    PhaseDerived, PhaseMeasured, PhaseProfile, Profile, RecorderDerived, RecorderInfo, RecorderMeasured, RowDerived,
    RowMeasured, RunInfo, StepRow, ThreadRow, ThreadsMeasured, TimeDerived, TimeMeasured, WorkRates,
};
use crate::budget::{BudgetTable, Resource, Roofline, StepBudgets};
use crate::clock::{ClockPrecision, TimeSource};
use crate::machine::Machine;
use crate::record::{BrickProfiler, PhaseTotals};
use crate::stats::{Summary, Totals};
use crate::step::Phase;

/// What a profile says besides what was recorded.
#[derive(Debug, Clone)]
pub struct ProfileInputs<'a> {
    /// The model that ran.
    pub model: ModelInfo,
    /// The program that ran it, usually [`BuildInfo::current`].
    pub build: BuildInfo,
    /// How it was run.
    pub run: RunInfo,
    /// The clock, usually [`crate::Clock::precision`].
    pub clock: ClockPrecision,
    /// The machine's limits; without them nothing is flagged as impossible.
    pub machine: Option<&'a Machine>,
    /// Budgets, unless there are none.
    pub budgets: Option<&'a BudgetTable>,
    /// What happens when one is exceeded. With [`BudgetPolicy::Off`] budgets are not looked at.
    pub policy: BudgetPolicy,
    /// What the processor counted while forward calls were recorded, if it was asked.
    pub counters: Option<Counters>,
    /// How many forward calls of each phase the timeline has at most, usually [`Profile::TIMELINE`].
    pub timeline: usize,
    /// Whether medians get a confidence interval. Without, a profile is made in a millisecond or two, between two tokens.
    pub intervals: bool,
}

impl Profile {
    /// Finishes a recording and says what it contains.
    pub fn new<T: TimeSource>(recording: &mut BrickProfiler<T>, inputs: ProfileInputs<'_>) -> Self {
        recording.finish();
        let recording = &*recording;
        let budgets = inputs.budgets.filter(|_| inputs.policy != BudgetPolicy::Off);
        let limits = inputs.machine.map(|m| Roofline::new(m, recording.steps(), inputs.run.threads));
        let kept = Phase::ALL.into_iter().flat_map(|p| recording.samples(p));
        let begin_ns = kept.map(|s| s.begin_ns()).min().unwrap_or(0);
        let shared = Shared {
            recording,
            budgets,
            limits,
            clock: inputs.clock,
            timeline: inputs.timeline,
            intervals: inputs.intervals,
            begin_ns,
        };
        let phases: Vec<_> = Phase::ALL.into_iter().filter_map(|p| shared.phase(p)).collect();
        let wall_us: f64 = phases.iter().map(|p| p.measured.wall_us).sum();
        let clock_us = recording.clock_reads() as f64 * inputs.clock.read_ns / 1e3;
        Self {
            schema_version: Self::SCHEMA_VERSION,
            model: inputs.model,
            build: inputs.build,
            run: inputs.run,
            machine: inputs.machine.cloned(),
            budget: budgets.map(|b| BudgetInfo { origin: b.origin(), source: b.describe(), policy: inputs.policy }),
            recorder: RecorderInfo {
                sync_mode: recording.mode(),
                measured: RecorderMeasured {
                    clock: inputs.clock,
                    clock_reads: recording.clock_reads(),
                    aborted_forwards: recording.aborted_forwards(),
                    ignored_calls: recording.ignored_calls(),
                    counters: inputs.counters,
                },
                derived: RecorderDerived { clock_overhead: ratio(clock_us, wall_us) },
            },
            phases,
            launches: Vec::new(),
            stamps: None,
        }
    }
}

/// `a / b`, unless that says nothing.
fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then_some(a / b).filter(|x| x.is_finite())
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// What every row of every phase needs.
struct Shared<'a, T: TimeSource> {
    recording: &'a BrickProfiler<T>,
    budgets: Option<&'a BudgetTable>,
    limits: Option<Roofline>,
    clock: ClockPrecision,
    /// Most forward calls in a timeline.
    timeline: usize,
    /// Whether medians get an interval.
    intervals: bool,
    /// When the first call that is kept began.
    begin_ns: u64,
}

/// What every row of one phase needs.
struct InPhase {
    phase: Phase,
    tokens: u64,
    /// Time that shares are fractions of.
    total_ns: u64,
    /// Mean size of a forward call.
    extent: Extent,
    budgets: Option<StepBudgets>,
}

impl<T: TimeSource> Shared<'_, T> {
    fn phase(&self, phase: Phase) -> Option<PhaseProfile> {
        let totals = self.recording.phase_totals(phase);
        if totals.forwards == 0 {
            return None;
        }
        let extent = mean_extent(&totals);
        let here = InPhase {
            phase,
            tokens: totals.extent.tokens,
            total_ns: totals.steps_ns.saturating_add(totals.external_ns),
            extent,
            budgets: self.budgets.map(|b| StepBudgets::new(b, self.recording.steps(), phase, &extent)),
        };
        let wall = self.samples(phase, |s| Some(s.wall_ns()));
        let (kinds, steps) =
            if self.recording.mode().times_steps() { (self.kinds(&here), self.steps(&here)) } else { (vec![], vec![]) };
        Some(PhaseProfile {
            phase,
            measured: PhaseMeasured {
                forwards: totals.forwards,
                tokens: totals.extent.tokens,
                wall_us: us(totals.wall.sum_ns),
                steps_us: us(totals.steps_ns),
                external_us: us(totals.external_ns),
                gap_us: us(totals.gap_ns),
                us_per_token: wall,
            },
            derived: self.phase_derived(&here, &totals, wall.as_ref()),
            slowest_kind: bottleneck(kinds.iter().map(|r| (r.kind.name(), None, &r.measured, &r.derived))),
            slowest_step: bottleneck(steps.iter().map(|r| (r.name.as_str(), r.layer, &r.measured, &r.derived))),
            categories: self.categories(&here),
            layers: self.layers(&here),
            kinds,
            steps,
            threads: self.threads(phase),
            batches: self.batches(phase),
            timeline: self.timeline(phase),
        })
    }

    fn phase_derived(&self, here: &InPhase, totals: &PhaseTotals, us_per_token: Option<&Summary>) -> PhaseDerived {
        let cost = self.cost(here, |_| true);
        let calls: u64 = (0..self.recording.steps().len()).map(|i| self.calls(here, i)).sum();
        let (wall, tokens) = (totals.wall.sum_ns as f64, totals.extent.tokens as f64);
        let work = work_rates(&cost, here.tokens, totals.steps_ns);
        let (budget, verdict) = share_of_budget(here.budgets.as_ref().and_then(StepBudgets::total), us_per_token);
        let bound = self.bound(here, |i| self.calls(here, i) > 0, totals.steps_ns);
        PhaseDerived {
            mean_extent: here.extent,
            tokens_per_s: ratio(tokens * 1e9, wall),
            tokens_per_s_with_gaps: ratio(tokens * 1e9, wall + totals.gap_ns as f64),
            coverage: ratio(totals.steps_ns as f64, wall),
            bricks_per_s: ratio(calls as f64 * 1e9, wall),
            flags: self.rate_flags(&work),
            work,
            bound,
            budget,
            verdict,
        }
    }

    fn calls(&self, here: &InPhase, step: usize) -> u64 {
        self.recording.step_work(here.phase, step).map_or(0, |w| w.calls)
    }

    /// Cost of all calls of the chosen steps.
    fn cost(&self, here: &InPhase, chosen: impl Fn(usize) -> bool) -> Cost {
        let steps = self.recording.steps().iter().enumerate().filter(|(i, _)| chosen(*i));
        steps.filter_map(|(i, s)| Some(self.recording.step_work(here.phase, i)?.cost(s))).sum()
    }

    /// µs per token of the last forwards; `ns` gives the time of a forward, if it has one.
    fn samples(&self, phase: Phase, ns: impl Fn(&crate::record::ForwardSample<'_>) -> Option<u64>) -> Option<Summary> {
        let per_token = |s: crate::record::ForwardSample<'_>| Some(us(ns(&s)?) / s.extent().tokens.max(1) as f64);
        let mut samples: Vec<f64> = self.recording.samples(phase).filter_map(per_token).collect();
        if self.intervals { Summary::of(&mut samples) } else { Summary::without_interval(&mut samples) }
    }

    fn kinds(&self, here: &InPhase) -> Vec<KindRow> {
        let steps = self.recording.steps();
        let mut rows = Vec::new();
        for kind in BrickKind::ALL {
            let totals = self.recording.kind_totals(here.phase, kind);
            if totals.count == 0 {
                continue;
            }
            let members: Vec<usize> = (0..steps.len()).filter(|&i| steps[i].kind == kind).collect();
            let has_external = self.recording.external_totals(here.phase, kind).count > 0;
            let samples = self.samples(here.phase, |s| {
                let ran: Vec<u64> = members.iter().filter_map(|&i| s.slot_ns(i)).collect();
                let external = s.external_ns(kind);
                (!ran.is_empty() || external > 0).then(|| ran.iter().sum::<u64>() + external)
            });
            // A budget of steps says nothing about host work of the same kind, and the other way round.
            let of_steps = || here.budgets.as_ref()?.of_kind(steps, kind);
            let budget = match (members.is_empty(), has_external) {
                (false, false) => of_steps(),
                (true, _) => self.budgets.and_then(|b| b.external(kind, here.phase)),
                (false, true) => None,
            };
            let member = |i: usize| steps[i].kind == kind;
            let (mut measured, mut derived) = self.row(here, &totals, samples, &self.cost(here, member), budget);
            measured.histogram = self.recording.kind_histogram(here.phase, kind);
            measured.threads = self.threads_of(here.phase, members.iter().copied());
            derived.bound = if has_external { None } else { self.bound(here, member, totals.sum_ns) };
            rows.push(KindRow { kind, measured, derived });
        }
        rows
    }

    fn steps(&self, here: &InPhase) -> Vec<StepRow> {
        let steps = self.recording.steps().iter().enumerate();
        let row = |(i, step): (usize, &crate::step::StepInfo)| {
            let totals = self.recording.step_totals(here.phase, i).filter(|t| t.count > 0)?;
            let samples = self.samples(here.phase, |s| s.slot_ns(i));
            let cost = self.cost(here, |j| i == j);
            let budget = here.budgets.as_ref().and_then(|b| b.get(i));
            let (mut measured, mut derived) = self.row(here, &totals, samples, &cost, budget);
            measured.threads = self.threads_of(here.phase, std::iter::once(i));
            derived.bound = self.bound(here, |j| i == j, totals.sum_ns);
            Some(StepRow {
                name: step.name.clone(),
                kind: step.kind,
                layer: step.layer,
                kernel: step.kernel.clone(),
                bricks: step.bricks.clone(),
                measured,
                derived,
            })
        };
        steps.filter_map(row).collect()
    }

    fn row(
        &self,
        here: &InPhase,
        totals: &Totals,
        samples: Option<Summary>,
        cost: &Cost,
        budget: Option<TokenBudget>,
    ) -> (RowMeasured, RowDerived) {
        let work = work_rates(cost, here.tokens, totals.sum_ns);
        let mut flags = self.rate_flags(&work);
        let resolution = self.clock.resolution_ns.saturating_mul(10) as f64;
        if totals.mean_ns().is_some_and(|mean| mean < resolution) {
            flags.push(Flag::NearClockResolution);
        }
        let (budget, verdict) = share_of_budget(budget, samples.as_ref());
        let share = ratio(totals.sum_ns as f64, here.total_ns as f64).unwrap_or(0.0);
        let measured = RowMeasured {
            calls: totals.count,
            total_us: us(totals.sum_ns),
            min_us: us(totals.min_ns),
            max_us: us(totals.max_ns),
            mean_us_per_token: us(totals.sum_ns) / here.tokens.max(1) as f64,
            us_per_token: samples,
            histogram: None,
            threads: None,
        };
        (measured, RowDerived { share, work, bound: None, budget, verdict, flags })
    }

    /// Least time of the chosen steps in a mean forward call, and `ns`, the time all their calls took, against it.
    fn bound(&self, here: &InPhase, chosen: impl Fn(usize) -> bool, ns: u64) -> Option<BoundShare> {
        let limits = self.limits.as_ref()?;
        let mut by_resource: Vec<(Resource, f64)> = Vec::new();
        for (i, step) in self.recording.steps().iter().enumerate().filter(|(i, _)| chosen(*i)) {
            let bound = limits.bound(step, &here.extent);
            // Not every step runs in every call (an LM head without wanted rows).
            let us = bound.us * self.calls(here, i) as f64;
            match by_resource.iter_mut().find(|(r, _)| *r == bound.resource) {
                Some((_, sum)) => *sum += us,
                None => by_resource.push((bound.resource, us)),
            }
        }
        let all: f64 = by_resource.iter().map(|(_, us)| us).sum();
        let (resource, _) = by_resource.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a })?;
        let fraction = ratio(all, us(ns))?;
        Some(BoundShare { us_per_token: all / here.tokens.max(1) as f64, resource, fraction })
    }

    fn threads(&self, phase: Phase) -> Vec<ThreadRow> {
        let all = self.threads_of(phase, 0..self.recording.steps().len());
        let rows = all.into_iter().flat_map(|t| t.busy_us.into_iter().zip(t.wait_us)).enumerate();
        rows.map(|(thread, (busy_us, wait_us))| ThreadRow { thread, busy_us, wait_us }).collect()
    }

    /// Times of the threads in these steps together.
    fn threads_of(&self, phase: Phase, steps: impl Iterator<Item = usize>) -> Option<ThreadsMeasured> {
        let n = self.recording.threads();
        let (mut busy, mut wait) = (vec![0u64; n], vec![0u64; n]);
        for time in steps.map(|i| self.recording.step_threads(phase, i)) {
            for (thread, t) in time.iter().enumerate() {
                busy[thread] = busy[thread].saturating_add(t.busy_ns);
                wait[thread] = wait[thread].saturating_add(t.wait_ns);
            }
        }
        let in_us = |ns: Vec<u64>| ns.into_iter().map(us).collect();
        (n > 0).then(|| ThreadsMeasured { busy_us: in_us(busy), wait_us: in_us(wait) })
    }

    fn batches(&self, phase: Phase) -> Vec<BatchRow> {
        let mut sizes: Vec<u64> = self.recording.samples(phase).map(|s| s.extent().tokens).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let row = |tokens: u64| {
            let us_per_token = self.samples(phase, |s| (s.extent().tokens == tokens).then(|| s.wall_ns()))?;
            Some(BatchRow { tokens, forwards: us_per_token.samples, us_per_token })
        };
        sizes.into_iter().filter_map(row).collect()
    }

    fn timeline(&self, phase: Phase) -> Vec<ForwardRow> {
        // The slots that have a row.
        let ran: Vec<usize> = if self.recording.mode().times_steps() {
            let calls = |i: &usize| self.recording.step_totals(phase, *i).is_some_and(|t| t.count > 0);
            (0..self.recording.slots()).filter(calls).collect()
        } else {
            let segments = self.recording.segment_totals(phase).enumerate();
            segments.filter(|(_, (_, t))| t.count > 0).map(|(i, _)| i).collect()
        };
        let kept = self.recording.samples(phase).count();
        let last = self.recording.samples(phase).skip(kept.saturating_sub(self.timeline));
        last.map(|s| ForwardRow {
            begin_us: us(s.begin_ns().saturating_sub(self.begin_ns)),
            wall_us: us(s.wall_ns()),
            gap_us: us(s.gap_ns()),
            tokens: s.extent().tokens,
            context: s.extent().context,
            steps_us: ran.iter().map(|&i| s.slot_ns(i).map(us)).collect(),
        })
        .collect()
    }

    fn categories(&self, here: &InPhase) -> Vec<CategoryRow> {
        let row = |category| {
            let totals = self.recording.category_totals(here.phase, category);
            let (measured, derived) = time(here, &totals);
            CategoryRow { category, measured, derived }
        };
        BrickCategory::ALL.into_iter().map(row).filter(|r| r.measured.calls > 0).collect()
    }

    fn layers(&self, here: &InPhase) -> Vec<LayerRow> {
        let rows = self.recording.segment_totals(here.phase).filter(|(_, t)| t.count > 0);
        rows.map(|(layer, totals)| {
            let (measured, derived) = time(here, totals);
            LayerRow { layer, measured, derived }
        })
        .collect()
    }

    /// Rates above what the machine was measured to reach. Measurements scatter by a few per cent; so much is allowed.
    fn rate_flags(&self, work: &WorkRates) -> Vec<Flag> {
        const TOLERANCE: f64 = 1.05;
        let Some(limits) = &self.limits else { return vec![] };
        let (machine, threads) = (&limits.machine().measured, limits.threads());
        // What is mostly weights has to come from where the weights are; anything else may come from the nearest cache.
        let bandwidth = match limits.stream() {
            Some((_, gb_s)) if 2.0 * work.weight_bytes_per_token > work.bytes_per_token => gb_s,
            _ => limits.machine().peak_gb_s(threads),
        };
        let int8 = Roofline::int8_peak(limits.machine(), threads);
        let f32 = machine.f32_gflop_s.at(threads, machine.threads);
        let above = |rate: Option<f64>, limit: f64| rate.is_some_and(|r| r > limit * TOLERANCE);
        let mut flags = Vec::new();
        if above(work.gb_per_s, bandwidth) {
            flags.push(Flag::AboveMeasuredBandwidth);
        }
        if above(work.int_gop_per_s, int8) {
            flags.push(Flag::AboveMeasuredInt8Peak);
        }
        if above(work.gflop_per_s, f32) {
            flags.push(Flag::AboveMeasuredF32Peak);
        }
        flags
    }
}

fn time(here: &InPhase, totals: &Totals) -> (TimeMeasured, TimeDerived) {
    let total_us = us(totals.sum_ns);
    let mean_us_per_token = total_us / here.tokens.max(1) as f64;
    let share = ratio(totals.sum_ns as f64, here.total_ns as f64).unwrap_or(0.0);
    (TimeMeasured { calls: totals.count, total_us, mean_us_per_token }, TimeDerived { share })
}

fn work_rates(cost: &Cost, tokens: u64, ns: u64) -> WorkRates {
    let per_token = |amount: u64| amount as f64 / tokens.max(1) as f64;
    // A step without integer operations has no rate of them, rather than a rate of 0. Per ns = 10⁹ per second.
    let rate = |amount: u64| if amount == 0 { None } else { ratio(amount as f64, ns as f64) };
    WorkRates {
        weight_bytes_per_token: per_token(cost.weight_bytes),
        bytes_per_token: per_token(cost.bytes()),
        int_ops_per_token: per_token(cost.int_ops),
        flops_per_token: per_token(cost.flops),
        gb_per_s: rate(cost.bytes()),
        int_gop_per_s: rate(cost.int_ops),
        gflop_per_s: rate(cost.flops),
    }
}

/// Mean size of a forward, rounded to whole tokens; at least one token where there was any.
fn mean_extent(totals: &PhaseTotals) -> Extent {
    let mean = |sum: u64| ((sum as f64 / totals.forwards.max(1) as f64).round() as u64).max(u64::from(sum > 0));
    let e = totals.extent;
    Extent { tokens: mean(e.tokens), wanted: mean(e.wanted), context: mean(e.context), pairs: mean(e.pairs) }
}
