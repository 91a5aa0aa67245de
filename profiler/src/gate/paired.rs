//! T2: the time of the candidate ÷ that of a base program, brick by brick.
//!
//! Three processes take turns, in balanced order: the base, the base once more (the control), the candidate. A round gives one
//! sample of each; ratios are taken within rounds ([`crate::paired`]). From the rounds of one **repeat**, every brick gets an
//! [`Outcome`]:
//!
//! * the control reaches further from 1 than half of what the limit allows: [`Outcome::Unsteady`], nothing can be said;
//! * the whole interval of the candidate lies at or below the limit: [`Outcome::Within`];
//! * the whole interval lies above it: [`Outcome::Above`];
//! * else [`Outcome::Undecided`].
//!
//! Many bricks are judged at once, and with an interval of 95 % one of twenty would be off by chance. So the intervals are
//! widened until all of a series hold **together** with 95 % (Bonferroni: each may miss in 5 % ÷ how many are judged).
//!
//! A brick **fails** only if it is above the limit in three repeats and within it in none. Repeats are made of new processes:
//! where the system puts a program's memory is drawn anew then, and may make one of two equal processes faster for all of its life.
//! At most [`Trial::MAX_REPEATS`] are made; a program that is above nowhere passes after one.
//!
//! Bricks whose time is that of reading memory are not judged: their times move by more than any limit on a shared machine.
//! What they read is an exact fact (T0); what they took is said.

use serde::Serialize;

use super::check::{Check, Measured, Tier, Verdict};
use super::snapshot::fold_name;
use crate::paired::{Bootstrap, Pair, Ratio, StatsError, median};

/// A step as the processes announce it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRef {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Its layer.
    pub layer: Option<u32>,
    /// Whether reading memory bounds it.
    pub streams: bool,
}

/// What one process measured in one round.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The call from outside, in ns.
    pub wall_ns: f64,
    /// Each step, in ns.
    pub steps_ns: Vec<f64>,
}

/// One sample of each arm, taken in turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// The base.
    pub base: Sample,
    /// The base once more.
    pub control: Sample,
    /// The candidate.
    pub candidate: Sample,
}

/// The rounds of one repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What was called, e.g. `decode at 64`.
    pub call: String,
    /// Steps of base and control.
    pub base_steps: Vec<StepRef>,
    /// Steps of the candidate.
    pub candidate_steps: Vec<StepRef>,
    /// In the order in which they were measured.
    pub rounds: Vec<Round>,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Class {
    /// One step.
    Step,
    /// The same step of all layers.
    Group,
    /// All steps of a kind.
    Kind,
    /// The whole call.
    Call,
}

/// What one repeat says about one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The interval is at or below the limit.
    Within,
    /// The interval is above the limit.
    Above,
    /// The interval contains the limit.
    Undecided,
    /// The control is too unsteady.
    Unsteady,
}

/// One subject in one repeat.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What was compared.
    pub class: Class,
    /// Name of the step, of the group with `*`, of the kind, or of the call.
    pub name: String,
    /// Whether reading memory bounds it: said, not judged.
    pub streams: bool,
    /// Candidate ÷ base, interval as wide as all subjects together demand.
    pub ratio: Ratio,
    /// Control ÷ base, interval of 95 %.
    pub control: Ratio,
    /// What follows.
    pub outcome: Outcome,
}

/// How ratios are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Judge {
    /// Largest ratio.
    pub limit: f64,
    /// How intervals are computed.
    pub bootstrap: Bootstrap,
}

/// Sums below this are not compared by themselves: a barrier and the clock are a part of them that counts.
pub const SHORTEST_NS: f64 = 20_000.0;

/// Part of its time in steps that stream from memory, from which on a sum is not judged either.
const MOSTLY: f64 = 0.2;

/// Probability that any interval of a series misses.
const ALPHA: f64 = 0.05;

struct Subject {
    class: Class,
    name: String,
    base: Vec<usize>,
    candidate: Vec<usize>,
}

impl Judge {
    /// Judges with this limit.
    pub fn new(limit: f64) -> Self {
        Self { limit, bootstrap: Bootstrap::default() }
    }

    /// How far a control may reach from 1.
    pub fn control_limit(&self) -> f64 {
        (self.limit - 1.0) / 2.0
    }

    /// Every step, group of steps, kind, and the whole call, as far as both programs have them and they take long enough; most
    /// special first.
    ///
    /// # Errors
    /// Too few rounds, or times that are none.
    pub fn judge(&self, series: &Series) -> Result<Vec<Finding>, StatsError> {
        let mut subjects: Vec<(Subject, Vec<[f64; 3]>, bool)> = Vec::new();
        for subject in subjects_of(series) {
            let sums = sums(series, &subject);
            let mut base: Vec<f64> = sums.iter().map(|s| s[0]).collect();
            let whole = median(&mut base);
            if subject.class != Class::Call && (whole.is_nan() || whole < SHORTEST_NS) {
                continue;
            }
            let of_memory: Vec<usize> = match subject.class {
                Class::Call => (0..series.base_steps.len()).collect(),
                _ => subject.base.clone(),
            };
            let of_memory: Vec<usize> = of_memory.into_iter().filter(|i| series.base_steps[*i].streams).collect();
            let mut streaming: Vec<f64> = series.rounds.iter().map(|r| sum(&r.base, &of_memory)).collect();
            let streams = median(&mut streaming) > MOSTLY * whole;
            subjects.push((subject, sums, streams));
        }
        let judged = subjects.iter().filter(|(.., streams)| !streams).count();
        let alpha = ALPHA / judged.max(1) as f64;
        let mut findings = Vec::with_capacity(subjects.len());
        for (subject, sums, streams) in subjects {
            let pairs = |arm: usize| sums.iter().map(|s| Pair { base: s[0], candidate: s[arm] }).collect::<Vec<_>>();
            let control = self.bootstrap.ratio(&pairs(1))?;
            let ratio = self.bootstrap.ratio_at(&pairs(2), alpha)?;
            let outcome = if control.reach() > self.control_limit() {
                Outcome::Unsteady
            } else if ratio.high <= self.limit {
                Outcome::Within
            } else if ratio.low > self.limit {
                Outcome::Above
            } else {
                Outcome::Undecided
            };
            findings.push(Finding { class: subject.class, name: subject.name, streams, ratio, control, outcome });
        }
        findings.sort_by_key(|f| f.class);
        Ok(findings)
    }
}

fn sum(sample: &Sample, steps: &[usize]) -> f64 {
    steps.iter().map(|i| sample.steps_ns[*i]).sum()
}

/// Base, control and candidate in every round.
fn sums(series: &Series, subject: &Subject) -> Vec<[f64; 3]> {
    let of = |r: &Round| match subject.class {
        Class::Call => [r.base.wall_ns, r.control.wall_ns, r.candidate.wall_ns],
        _ => [sum(&r.base, &subject.base), sum(&r.control, &subject.base), sum(&r.candidate, &subject.candidate)],
    };
    series.rounds.iter().map(of).collect()
}

/// What both programs have. A group or kind whose number of steps differs is a change that T0 names; only the call is compared.
fn subjects_of(series: &Series) -> Vec<Subject> {
    let by = |class: Class, key: &dyn Fn(&StepRef) -> String| {
        let mut found: Vec<Subject> = Vec::new();
        for (steps, is_base) in [(&series.base_steps, true), (&series.candidate_steps, false)] {
            for (i, step) in steps.iter().enumerate() {
                let name = key(step);
                let at = found.iter().position(|s| s.name == name).unwrap_or_else(|| {
                    found.push(Subject { class, name, base: Vec::new(), candidate: Vec::new() });
                    found.len() - 1
                });
                if is_base { found[at].base.push(i) } else { found[at].candidate.push(i) }
            }
        }
        found.retain(|s| s.base.len() == s.candidate.len());
        found
    };
    let steps = by(Class::Step, &|s| s.name.clone());
    let groups = by(Class::Group, &|s| fold_name(&s.name, s.layer));
    let kinds = by(Class::Kind, &|s| s.kind.clone());
    let mut all =
        vec![Subject { class: Class::Call, name: series.call.clone(), base: Vec::new(), candidate: Vec::new() }];
    // A sum of one step is that step.
    all.extend(kinds.into_iter().filter(|k| k.base.len() > 1));
    all.extend(groups.into_iter().filter(|g| g.base.len() > 1));
    all.extend(steps);
    all
}

/// The repeats of one call, and what they come to.
#[derive(Debug, Clone)]
pub struct Trial {
    call: String,
    limit: f64,
    repeats: Vec<Vec<Finding>>,
}

/// What all repeats say about a subject.
struct Tally<'a> {
    last: &'a Finding,
    above: usize,
    /// Repeats whose interval is within the limit, or whose best guess is.
    cleared: usize,
}

impl Trial {
    /// Repeats that have to be above the limit.
    pub const NEEDED: usize = 3;
    /// Repeats at most: those that say nothing are made again.
    pub const MAX_REPEATS: usize = 6;

    /// A trial of `call` without repeats.
    pub fn new(call: impl Into<String>, limit: f64) -> Self {
        Self { call: call.into(), limit, repeats: Vec::new() }
    }

    /// Adds a repeat.
    pub fn add(&mut self, findings: Vec<Finding>) {
        self.repeats.push(findings);
    }

    /// Repeats so far.
    pub fn repeats(&self) -> usize {
        self.repeats.len()
    }

    /// Whether another repeat could make something fail.
    pub fn wants_more(&self) -> bool {
        if self.repeats.is_empty() {
            return true;
        }
        let open = |t: &Tally<'_>| {
            let suspect = t.above > 0 || t.last.ratio.estimate > self.limit;
            !t.last.streams && t.cleared == 0 && t.above < Self::NEEDED && suspect
        };
        self.repeats.len() < Self::MAX_REPEATS && self.tallies().iter().any(open)
    }

    fn tallies(&self) -> Vec<Tally<'_>> {
        let Some(last) = self.repeats.last() else { return Vec::new() };
        let tally = |last: &'_ Finding| {
            let all = || self.repeats.iter().flatten().filter(|f| f.class == last.class && f.name == last.name);
            let above = all().filter(|f| f.outcome == Outcome::Above).count();
            let clears = |f: &&Finding| match f.outcome {
                Outcome::Within => true,
                Outcome::Above => false,
                Outcome::Undecided | Outcome::Unsteady => f.ratio.estimate <= self.limit,
            };
            (above, all().filter(clears).count())
        };
        last.iter()
            .map(|last| {
                let (above, cleared) = tally(last);
                Tally { last, above, cleared }
            })
            .collect()
    }

    /// A check for every subject. Single steps that pass are one check together.
    pub fn checks(&self) -> Vec<Check> {
        let (mut checks, mut steps) = (Vec::new(), Vec::new());
        let n = self.repeats.len();
        for Tally { last, above, cleared } in self.tallies() {
            let (verdict, why) = if last.streams {
                (
                    Verdict::Advisory,
                    "its time is that of reading memory, which is not judged; its bytes are (T0)".to_owned(),
                )
            } else if above >= Self::NEEDED && cleared == 0 {
                (Verdict::Fail, format!("above the limit in {above} of {n} repeats, within it in none"))
            } else if above > 0 {
                (Verdict::Inconclusive, format!("above the limit in {above} of {n} repeats only"))
            } else {
                match last.outcome {
                    Outcome::Within | Outcome::Above => (Verdict::Pass, "within the limit".to_owned()),
                    Outcome::Undecided => (Verdict::Inconclusive, "the interval contains the limit".to_owned()),
                    Outcome::Unsteady => {
                        let reach = 100.0 * last.control.reach();
                        let why = format!("the control, the same program, is off by up to {reach:.1} %: too unsteady");
                        (Verdict::Inconclusive, why)
                    }
                }
            };
            if last.class == Class::Step && verdict == Verdict::Pass {
                steps.push(last);
                continue;
            }
            let name = match last.class {
                Class::Step | Class::Group => format!("{}, {}", last.name, self.call),
                Class::Kind => format!("all {}, {}", last.name, self.call),
                Class::Call => self.call.clone(),
            };
            checks.push(Check::new(Tier::Ratio, name, verdict, why).with(self.measured(last)));
        }
        if let Some(slowest) = steps.iter().max_by(|a, b| a.ratio.estimate.total_cmp(&b.ratio.estimate)) {
            let why = format!("{} steps within the limit; the highest ratio is that of {}", steps.len(), slowest.name);
            let name = format!("single steps, {}", self.call);
            checks.push(Check::new(Tier::Ratio, name, Verdict::Pass, why).with(self.measured(slowest)));
        }
        checks
    }

    fn measured(&self, f: &Finding) -> Measured {
        Measured {
            value: f.ratio.estimate,
            interval: Some([f.ratio.low, f.ratio.high]),
            limit: Some(self.limit),
            control: Some(f.control.reach()),
            pairs: Some(f.ratio.pairs),
        }
    }
}
