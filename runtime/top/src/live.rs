//! The recorder that is looked at while it records.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use brick_profiler::budget::{BudgetTable, Roofline};
use brick_profiler::profile::{BuildInfo, Counters, ModelInfo, RunInfo};
use brick_profiler::{
    BrickProfiler, Clock, ClockPrecision, Machine, Phase, Profile, ProfileInputs, Recorder, StepInfo, TimeSource,
};
use bricks::{BrickKind, BudgetPolicy, Extent};

use crate::snapshot::{Facts, NoData, RECENT, Snapshot};

/// Least time between two frames.
const PERIOD_NS: u64 = 100_000_000;
/// A frame that took this long is followed by this many times as long without one: looking costs 1 % at most.
const REST: u64 = 99;

/// What a recording says besides what was recorded.
#[derive(Debug, Clone)]
pub struct About {
    /// The model that runs.
    pub model: ModelInfo,
    /// The program that runs it.
    pub build: BuildInfo,
    /// How it is run.
    pub run: RunInfo,
    /// The machine's limits, if they are known.
    pub machine: Option<Machine>,
    /// Budgets, unless there are none.
    pub budgets: Option<BudgetTable>,
}

/// What a frame is made of: a profile, and what it does not know.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The recording so far.
    pub profile: Profile,
    /// What it does not know.
    pub facts: Facts,
}

impl Sample {
    /// The frame.
    ///
    /// # Errors
    /// As [`Snapshot::of`].
    pub fn snapshot(&self) -> Result<Snapshot, NoData> {
        Snapshot::of(&self.profile, &self.facts)
    }
}

/// The end of a channel that the recorder writes samples to. It holds one sample: while that has not been taken, further ones are
/// dropped, and the run goes on.
#[derive(Debug)]
pub struct Tap {
    samples: SyncSender<Sample>,
    viewers: Arc<AtomicUsize>,
}

/// The other end.
#[derive(Debug)]
pub struct Samples {
    pub(crate) samples: Receiver<Sample>,
    pub(crate) viewers: Arc<AtomicUsize>,
}

/// A channel for samples with `viewers` viewers; with none, no sample is made.
pub fn channel(viewers: usize) -> (Tap, Samples) {
    let (sender, receiver) = sync_channel(1);
    let viewers = Arc::new(AtomicUsize::new(viewers));
    (Tap { samples: sender, viewers: Arc::clone(&viewers) }, Samples { samples: receiver, viewers })
}

impl Samples {
    /// The next sample, if one comes within `wait`.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn next_within(&self, wait: Duration) -> Result<Option<Sample>, Gone> {
        match self.samples.recv_timeout(wait) {
            Ok(sample) => Ok(Some(sample)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }
}

/// The recorder is gone: there will be no more samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the recorder is gone")]
pub struct Gone;

/// A [`BrickProfiler`] that gives samples of itself while it records: after a forward call, if somebody looks and it is time.
///
/// While nobody looks, a forward call costs one load more than with the profiler alone. A sample is made on the thread of the run,
/// between two calls, so no step's time contains it; it is made at most every 100 ms and takes at most 1 % of the time.
#[derive(Debug)]
pub struct Live {
    recorder: BrickProfiler,
    about: About,
    precision: ClockPrecision,
    tap: Tap,
    facts: Facts,
    /// No sample before this.
    next_ns: u64,
    /// When the first forward call of a prompt began whose first token has not been sampled yet.
    prompt_ns: Option<u64>,
    /// Forward calls whose times are kept.
    kept: usize,
}

impl Live {
    /// Forward calls whose times a live view keeps: percentiles and the current speed come from them.
    pub const KEPT: usize = 128;

    /// A recorder for a plan that keeps the times of the last `kept` forward calls of each phase.
    pub fn new(steps: &[StepInfo], kept: usize, about: About, tap: Tap) -> Self {
        let threads = about.run.threads;
        let stream = about.machine.as_ref().and_then(|m| Roofline::new(m, steps, threads).stream());
        let facts = Facts {
            pid: std::process::id(),
            weights_from: stream.map(|(level, _)| level.name().to_owned()),
            ..Facts::default()
        };
        Self {
            recorder: BrickProfiler::new(steps, kept).with_threads(threads),
            about,
            precision: Clock::precision(),
            tap,
            facts,
            next_ns: 0,
            prompt_ns: None,
            kept,
        }
    }

    /// Switches recording on or off between forward calls.
    pub fn set_enabled(&mut self, enabled: bool) {
        self.recorder.set_enabled(enabled);
        self.prompt_ns = None;
    }

    /// What is known about the run, to be kept up to date by whoever runs it.
    pub fn run_mut(&mut self) -> &mut RunInfo {
        &mut self.about.run
    }

    /// A sample now, whether somebody looks or not, for viewers that come later: call it when a generation is over. Waits until the
    /// sample before this one is taken; does nothing when nobody can take one any more.
    pub fn flush(&mut self) {
        let sample = self.sample(false);
        // An error says that the other end is gone; then nobody misses the sample.
        let _ = self.tap.samples.send(sample);
    }

    /// The whole recording, with the intervals that frames leave out.
    pub fn into_sample(mut self, counters: Option<Counters>) -> Sample {
        let mut sample = self.sample(true);
        sample.profile.recorder.measured.counters = counters;
        sample
    }

    fn sample(&mut self, intervals: bool) -> Sample {
        let inputs = ProfileInputs {
            model: self.about.model.clone(),
            build: self.about.build.clone(),
            run: self.about.run.clone(),
            clock: self.precision,
            machine: self.about.machine.as_ref(),
            budgets: self.about.budgets.as_ref(),
            policy: BudgetPolicy::Report,
            counters: None,
            timeline: if intervals { self.kept } else { RECENT },
            intervals,
        };
        Sample { profile: Profile::new(&mut self.recorder, inputs), facts: self.facts.clone() }
    }

    fn now_ns(&self) -> u64 {
        self.recorder.clock().now_ns()
    }

    /// Gives a sample, if somebody looks and it is time.
    fn offer(&mut self) {
        if self.tap.viewers.load(Ordering::Relaxed) == 0 || !self.recorder.is_enabled() {
            return;
        }
        let begin_ns = self.now_ns();
        if begin_ns < self.next_ns {
            return;
        }
        let sample = self.sample(false);
        let end_ns = self.now_ns();
        let cost_ns = end_ns.saturating_sub(begin_ns);
        self.next_ns = end_ns.saturating_add(cost_ns.saturating_mul(REST).max(PERIOD_NS));
        self.facts.frame_us = Some(cost_ns as f64 / 1e3);
        if let Err(TrySendError::Full(_)) = self.tap.samples.try_send(sample) {
            self.facts.frames_dropped += 1;
        }
    }
}

impl Recorder for Live {
    const ENABLED: bool = true;
    type Arrivals = <BrickProfiler as Recorder>::Arrivals;

    fn arrivals(&self) -> Self::Arrivals {
        self.recorder.arrivals()
    }

    fn begin_forward(&mut self, extent: &Extent, phase: Phase) {
        if phase == Phase::Prefill && self.prompt_ns.is_none() {
            self.prompt_ns = Some(self.now_ns());
        }
        self.recorder.begin_forward(extent, phase);
    }

    #[inline]
    fn step_done(&mut self, step: usize) {
        self.recorder.step_done(step);
    }

    fn end_forward(&mut self) {
        self.recorder.end_forward();
        self.offer();
    }

    fn record_external(&mut self, kind: BrickKind, ns: u64) {
        self.recorder.record_external(kind, ns);
        if kind == BrickKind::Sample
            && let Some(begin_ns) = self.prompt_ns.take()
        {
            self.facts.ttft_ms = Some(self.now_ns().saturating_sub(begin_ns) as f64 / 1e6);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    fn live(viewers: usize) -> (Live, Samples) {
        let profile = testing::profile();
        let about = About {
            model: profile.model,
            build: profile.build,
            run: profile.run,
            machine: Some(testing::machine()),
            budgets: None,
        };
        let (tap, samples) = channel(viewers);
        (Live::new(&testing::plan(), 8, about, tap), samples)
    }

    fn forward(live: &mut Live, tokens: u64, phase: Phase) {
        live.begin_forward(&Extent::one_sequence(tokens, tokens, 1), phase);
        for step in 0..testing::plan().len() {
            live.step_done(step);
        }
        live.end_forward();
        live.record_external(BrickKind::Sample, 10);
    }

    #[test]
    fn nobody_looks_and_no_sample_is_made() {
        let (mut live, samples) = live(0);
        forward(&mut live, 4, Phase::Prefill);
        forward(&mut live, 1, Phase::Decode);
        assert!(samples.next_within(Duration::ZERO).unwrap().is_none());
        assert_eq!(live.facts.frame_us, None);
        samples.viewers.store(1, Ordering::Relaxed);
        forward(&mut live, 1, Phase::Decode);
        let snapshot = samples.next_within(Duration::ZERO).unwrap().unwrap().snapshot().unwrap();
        assert_eq!(
            (snapshot.phase, snapshot.measured.forwards),
            (Phase::Decode, 2),
            "what was recorded before is there"
        );
        drop(live);
        assert_eq!(samples.next_within(Duration::ZERO).map(|s| s.is_some()), Err(Gone));
    }

    #[test]
    fn samples_come_seldom_and_those_that_nobody_takes_are_dropped() {
        let (mut live, samples) = live(1);
        forward(&mut live, 1, Phase::Decode);
        let next_ns = live.next_ns;
        assert!(next_ns >= PERIOD_NS);
        live.next_ns = u64::MAX;
        forward(&mut live, 1, Phase::Decode);
        assert_eq!(live.next_ns, u64::MAX, "not before its time");
        live.next_ns = 0;
        forward(&mut live, 1, Phase::Decode);
        assert_eq!(live.facts.frames_dropped, 1, "the first is still there");
        assert_eq!(samples.next_within(Duration::ZERO).unwrap().unwrap().profile.phases[0].measured.forwards, 1);
        live.flush();
        let flushed = samples.next_within(Duration::ZERO).unwrap().unwrap();
        assert_eq!((flushed.profile.phases[0].measured.forwards, flushed.facts.frames_dropped), (3, 1));
        drop(samples);
        live.flush(); // nobody can take it: no error, no wait
    }

    #[test]
    fn the_time_to_the_first_token_is_that_of_the_last_prompt() {
        let (mut live, _samples) = live(0);
        forward(&mut live, 1, Phase::Decode);
        assert_eq!(live.facts.ttft_ms, None, "no prompt was computed");
        live.begin_forward(&Extent::one_sequence(4, 4, 1), Phase::Prefill);
        live.end_forward();
        assert_eq!(live.facts.ttft_ms, None, "no token was sampled");
        forward(&mut live, 4, Phase::Prefill);
        let first = live.facts.ttft_ms.unwrap();
        assert!(first > 0.0);
        forward(&mut live, 1, Phase::Decode);
        assert_eq!(live.facts.ttft_ms, Some(first), "tokens after it do not count");
        let sample = live.into_sample(None);
        assert_eq!((sample.profile.phases.len(), sample.facts.ttft_ms), (2, Some(first)));
    }
}
