//! Points for bricks: one number per kind of brick and one per model, with the reasons behind it.
//!
//! Two scores, both of 0 to 100 (see ADR 18 for what was contradictory about them):
//!
//! * the **category score**: performance 40, efficiency 25, correctness 20, stability 15;
//! * the **core score**: 0.30 of the compute peak, 0.25 of the bandwidth, 0.25 budget ÷ actual, 0.20 stability.
//!
//! Every score is derived. What a figure is missing for (no budget, no machine) is not guessed: the part is absent, and the score with it.

use bricks::BrickKind;
use serde::Serialize;

use crate::budget::Roofline;
use crate::profile::{Flag, PhaseProfile, Profile, RowDerived, RowMeasured};
use crate::step::Phase;

/// Spread up to which a time counts as steady.
const STEADY_CV: f64 = 0.05;
/// Spread from which on a time counts as not steady at all.
const UNSTEADY_CV: f64 = 0.15;

/// What a number of points is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Grade {
    /// Below 60: do not merge.
    F,
    /// 60 to 69: unstable.
    D,
    /// 70 to 79: works, slowly.
    C,
    /// 80 to 89: wants work.
    B,
    /// 90 and more: ready.
    A,
}

impl Grade {
    /// The grade of a score.
    pub const fn of(score: u32) -> Self {
        match score {
            90.. => Self::A,
            80.. => Self::B,
            70.. => Self::C,
            60.. => Self::D,
            _ => Self::F,
        }
    }

    /// The letter.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::C => "C",
            Self::D => "D",
            Self::F => "F",
        }
    }

    /// What it says.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::A => "ready for production",
            Self::B => "wants work",
            Self::C => "works, slowly",
            Self::D => "unstable",
            Self::F => "do not merge",
        }
    }
}

/// Parts of the category score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Parts {
    /// Of 40: budget ÷ median, at most 1.
    pub performance: f64,
    /// Of 25: fraction of the roofline, at most 1.
    pub efficiency: f64,
    /// Of 20: it ran, and no figure is above what the machine can do.
    pub correctness: f64,
    /// Of 15: all below a CV of 5 %, none from 15 % on, a straight line between.
    pub stability: f64,
}

impl Parts {
    /// The sum, cut off: 89.9 is not 90.
    pub fn points(&self) -> u32 {
        cut(self.performance + self.efficiency + self.correctness + self.stability)
    }
}

/// Inputs of the core score, each a fraction from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Core {
    /// Operations per second ÷ the peak of their kind.
    pub compute: f64,
    /// Bytes per second ÷ the bandwidth of where they come from.
    pub bandwidth: f64,
    /// Budget ÷ actual, at most 1.
    pub latency: f64,
    /// 1 − CV, at least 0.
    pub stability: f64,
}

impl Core {
    /// The weighted sum in points, cut off.
    pub fn points(&self) -> u32 {
        let part = |x: f64| x.clamp(0.0, 1.0);
        let sum = 0.30 * part(self.compute)
            + 0.25 * part(self.bandwidth)
            + 0.25 * part(self.latency)
            + 0.20 * part(self.stability);
        cut(100.0 * sum)
    }
}

/// Points without their fraction. Sums of parts that are exact in decimal must not lose a point to binary rounding.
fn cut(points: f64) -> u32 {
    (points + 1e-9).floor().clamp(0.0, 100.0) as u32
}

/// Points for how far a budget was missed: 100 at or below it, 0 from twice the budget on.
pub fn gap_score(gap_factor: f64) -> u32 {
    cut(100.0 * (2.0 - gap_factor).clamp(0.0, 1.0))
}

/// Mean of scores, cut off; `None` for none.
pub fn mean(scores: &[u32]) -> Option<u32> {
    let sum: u64 = scores.iter().map(|&s| u64::from(s)).sum();
    (!scores.is_empty()).then(|| (sum / scores.len() as u64) as u32)
}

/// A kind of brick and its points. Derived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrickScore {
    /// Which.
    pub kind: BrickKind,
    /// Fraction of the phase's time.
    pub share: f64,
    /// Points of the category score; `None` when a part is missing.
    pub score: Option<u32>,
    /// Its grade.
    pub grade: Option<Grade>,
    /// Its parts.
    pub parts: Option<Parts>,
    /// Points of the core score.
    pub core_score: Option<u32>,
    /// Its inputs.
    pub core: Option<Core>,
    /// Points for the distance to the budget.
    pub gap_score: Option<u32>,
    /// Why there is no score.
    pub missing: Option<&'static str>,
}

/// A model and its points in one phase. Derived.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelScore {
    /// Version of this structure.
    pub schema_version: u32,
    /// Name of the model.
    pub model: String,
    /// The phase.
    pub phase: Phase,
    /// Mean of the kinds' category scores; `None` when no kind has one.
    pub score: Option<u32>,
    /// Its grade.
    pub grade: Option<Grade>,
    /// Mean of the kinds' core scores.
    pub core_score: Option<u32>,
    /// Kinds that ran, in the order of [`BrickKind`].
    pub bricks: Vec<BrickScore>,
}

impl ModelScore {
    /// Version of the JSON.
    pub const SCHEMA_VERSION: u32 = 1;

    /// Scores a phase of a profile; `None` if it was not recorded.
    pub fn of(profile: &Profile, phase: Phase) -> Option<Self> {
        let p = profile.phase(phase)?;
        let bricks: Vec<BrickScore> =
            p.kinds.iter().map(|row| brick(profile, p, row.kind, &row.measured, &row.derived)).collect();
        let score = mean(&bricks.iter().filter_map(|b| b.score).collect::<Vec<_>>());
        Some(Self {
            schema_version: Self::SCHEMA_VERSION,
            model: profile.model.name.clone(),
            phase,
            score,
            grade: score.map(Grade::of),
            core_score: mean(&bricks.iter().filter_map(|b| b.core_score).collect::<Vec<_>>()),
            bricks,
        })
    }
}

fn brick(profile: &Profile, phase: &PhaseProfile, kind: BrickKind, m: &RowMeasured, d: &RowDerived) -> BrickScore {
    let gap = d.budget.map(|b| b.gap_factor);
    let cv = m.us_per_token.map(|s| s.cv);
    let impossible = d.flags.iter().any(|f| *f != Flag::NearClockResolution);
    // Median ÷ budget below 1 is a budget kept: no points beyond it.
    let latency = gap.map(|g| if g > 0.0 { (1.0 / g).min(1.0) } else { 1.0 });
    let parts = match (latency, d.bound, cv) {
        (Some(latency), Some(bound), Some(cv)) => Some(Parts {
            performance: 40.0 * latency,
            efficiency: 25.0 * bound.fraction.clamp(0.0, 1.0),
            correctness: if m.calls > 0 && !impossible { 20.0 } else { 0.0 },
            stability: 15.0 * ((UNSTEADY_CV - cv) / (UNSTEADY_CV - STEADY_CV)).clamp(0.0, 1.0),
        }),
        _ => None,
    };
    let core = core(profile, phase, d, latency, cv);
    let score = parts.map(|p| p.points());
    BrickScore {
        kind,
        share: d.share,
        score,
        grade: score.map(Grade::of),
        parts,
        core_score: core.map(|c| c.points()),
        core,
        gap_score: gap.map(gap_score),
        missing: match (gap, d.bound, cv) {
            (Some(_), Some(_), Some(_)) => None,
            (None, ..) => Some("no budget"),
            (_, None, _) => Some("no limits of the machine"),
            (_, _, None) => Some("no samples"),
        },
    }
}

fn core(
    profile: &Profile,
    phase: &PhaseProfile,
    d: &RowDerived,
    latency: Option<f64>,
    cv: Option<f64>,
) -> Option<Core> {
    let machine = profile.machine.as_ref()?;
    let (threads, all) = (profile.run.threads, machine.measured.threads);
    let of = |rate: Option<f64>, peak: f64| rate.map_or(0.0, |r| r / peak);
    let int8 = of(d.work.int_gop_per_s, Roofline::int8_peak(machine, threads));
    let f32 = of(d.work.gflop_per_s, machine.measured.f32_gflop_s.at(threads, all));
    // All weights pass by in every call: they come from the level that holds them together.
    let streamed = phase.derived.work.weight_bytes_per_token * phase.derived.mean_extent.tokens as f64;
    let stream = machine.level_for(streamed as u64)?;
    Some(Core {
        // A brick with both kinds of operations uses both units, one after the other.
        compute: (int8 + f32).min(1.0),
        bandwidth: of(d.work.gb_per_s, stream.gb_s.at(threads, all)).min(1.0),
        latency: latency?,
        stability: (1.0 - cv?).max(0.0),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::profile;

    #[test]
    fn grades_change_at_their_limits() {
        let grades: Vec<_> = [0, 59, 60, 69, 70, 79, 80, 89, 90, 100].map(|s| Grade::of(s).name()).to_vec();
        assert_eq!(grades, ["F", "F", "D", "D", "C", "C", "B", "B", "A", "A"]);
    }

    #[test]
    fn the_core_score_is_the_weighted_sum() {
        let core = |compute, bandwidth, latency, stability| Core { compute, bandwidth, latency, stability }.points();
        assert_eq!([core(1.0, 0.0, 0.0, 0.0), core(0.0, 1.0, 0.0, 0.0)], [30, 25]);
        assert_eq!([core(0.0, 0.0, 1.0, 0.0), core(0.0, 0.0, 0.0, 1.0)], [25, 20]);
        assert_eq!(core(1.0, 1.0, 1.0, 1.0), 100);
        assert_eq!(core(9.0, 9.0, 9.0, 9.0), 100, "no part counts more than once");
        assert_eq!(core(-1.0, -1.0, -1.0, -3.0), 0);
        assert_eq!(core(0.5, 0.5, 0.5, 0.999), 59, "cut off, not rounded");
    }

    #[test]
    fn gaps_and_means_are_those_of_the_specification() {
        assert_eq!([1.433, 1.714, 1.842, 7.628, 1.0, 0.5].map(gap_score), [56, 28, 15, 0, 100, 100]);
        assert_eq!(mean(&[95, 88, 98, 85, 87, 82]), Some(89));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn a_profile_is_scored_kind_by_kind() {
        let score = ModelScore::of(&profile(), Phase::Decode).unwrap();
        assert_eq!(score.bricks.len(), profile().phase(Phase::Decode).unwrap().kinds.len());
        for b in &score.bricks {
            let points = b.parts.map(|p| p.points());
            assert_eq!((b.score, b.grade), (points, points.map(Grade::of)));
            assert_eq!(b.score.is_none(), b.missing.is_some(), "{b:?}");
        }
        let scored: Vec<u32> = score.bricks.iter().filter_map(|b| b.score).collect();
        assert!(scored.len() > 5);
        assert_eq!(score.score, mean(&scored));
        // Sampling is host work: nothing says how fast it could be.
        let sample = score.bricks.iter().find(|b| b.kind == BrickKind::Sample).unwrap();
        assert_eq!((sample.score, sample.missing), (None, Some("no budget")));
        assert_eq!(ModelScore::of(&profile(), Phase::Mixed), None);
    }

    #[test]
    fn an_impossible_figure_costs_correctness() {
        let mut p = profile();
        let row = p.phases.iter_mut().find(|p| p.phase == Phase::Decode).unwrap().kinds.first_mut().unwrap();
        let kind = row.kind;
        row.derived.flags = vec![Flag::NearClockResolution];
        let points = |p: &Profile| {
            let score = ModelScore::of(p, Phase::Decode).unwrap();
            score.bricks.into_iter().find(|b| b.kind == kind).unwrap().parts.unwrap().correctness
        };
        assert_eq!(points(&p), 20.0);
        let row = p.phases.iter_mut().find(|p| p.phase == Phase::Decode).unwrap().kinds.first_mut().unwrap();
        row.derived.flags = vec![Flag::AboveMeasuredBandwidth];
        assert_eq!(points(&p), 0.0);
    }
}
