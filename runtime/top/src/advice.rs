//! What to look at next: rules over figures of a recording. No model, no guess: each remark quotes the figure that it follows from.

use brick_profiler::Phase;
use brick_profiler::budget::Resource;
use brick_profiler::format::{number, percent};

use crate::checks::UNSTEADY_CV;
use crate::snapshot::{BrickRow, Snapshot};

/// Waiting from which on threads are worth a remark.
const WAITING: f64 = 0.10;
/// Time between forward calls from which on it is worth a remark.
const BETWEEN: f64 = 0.05;
/// Fraction of the roofline from which on only fewer bytes or operations help.
const NEAR_LIMIT: f64 = 0.7;
/// Share of the time below which a kind is not worth the trouble.
const SMALL: f64 = 0.05;

/// One remark. Derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What is seen, with its figure.
    pub seen: String,
    /// What follows.
    pub then: String,
}

/// Remarks on a recording, the most general first. None where nothing stands out.
pub fn advice(s: &Snapshot) -> Vec<Advice> {
    [trust(s), between(s), waiting(s), farthest(s), near(s)].into_iter().flatten().collect()
}

/// Whether the figures can be trusted.
fn trust(s: &Snapshot) -> Option<Advice> {
    if s.build.debug_assertions {
        return Some(Advice {
            seen: "the program was built with debug assertions".into(),
            then: "build with --release before reading any time".into(),
        });
    }
    let cv = s.measured.us_per_token?.cv;
    (cv >= UNSTEADY_CV).then(|| Advice {
        seen: format!("forward calls vary by {} (CV)", percent(cv)),
        then: "something else runs on this machine: quiet it before comparing".into(),
    })
}

fn between(s: &Snapshot) -> Option<Advice> {
    let share = s.derived.between_calls.filter(|x| *x >= BETWEEN)?;
    (s.phase == Phase::Decode).then(|| Advice {
        seen: format!("{}* of the time lies between forward calls", percent(share)),
        then: "sampling or output takes it: try --temperature 0, or a faster reader".into(),
    })
}

fn waiting(s: &Snapshot) -> Option<Advice> {
    if s.threads.len() < 2 {
        return None;
    }
    let (busy, wait) = s.threads.iter().fold((0.0, 0.0), |(b, w), t| (b + t.busy_us, w + t.wait_us));
    let share = Some(wait / (busy + wait)).filter(|x| *x >= WAITING)?;
    let of = |row: &BrickRow| row.measured.threads.as_ref().map_or(0.0, |t| t.wait_us.iter().sum::<f64>());
    let most = s.bricks.iter().max_by(|a, b| of(a).total_cmp(&of(b)))?;
    Some(Advice {
        seen: format!("threads wait for the slowest {}* of their time, most in {}", percent(share), most.kind),
        then: "fewer threads (-t) may be as fast; or another process shares their cores".into(),
    })
}

/// Where most time could be saved, were it at the roofline.
fn farthest(s: &Snapshot) -> Option<Advice> {
    let saved =
        |row: &&BrickRow| row.derived.bound.map_or(0.0, |b| row.measured.mean_us_per_token * (1.0 - b.fraction));
    let row = s.bricks.iter().filter(|r| r.derived.share >= SMALL).max_by(|a, b| saved(a).total_cmp(&saved(b)))?;
    let bound = row.derived.bound.filter(|b| b.fraction < NEAR_LIMIT)?;
    Some(Advice {
        seen: format!(
            "{} takes {}* of the time, at {}* of its {} limit",
            row.kind,
            percent(row.derived.share),
            percent(bound.fraction),
            bound.resource.name()
        ),
        then: format!(
            "at the limit a token would take {} µs* less: its kernel is what to look at",
            number(saved(&row))
        ),
    })
}

/// The bottleneck, where it is as fast as the machine allows.
fn near(s: &Snapshot) -> Option<Advice> {
    let name = &s.bottleneck.as_ref()?.brick_name;
    let row = s.bricks.iter().find(|r| r.kind.name() == name)?;
    let bound = row.derived.bound.filter(|b| b.fraction >= NEAR_LIMIT)?;
    let then = match bound.resource {
        Resource::Memory => "fewer bytes help: a smaller quantisation, or several sequences at once",
        Resource::Int8 | Resource::F32 => "fewer operations help: a smaller model, or a processor with a matrix unit",
    };
    Some(Advice {
        seen: format!(
            "{name} is the bottleneck, at {}* of its {} limit",
            percent(bound.fraction),
            bound.resource.name()
        ),
        then: then.into(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    fn seen(s: &Snapshot) -> Vec<String> {
        advice(s).into_iter().map(|a| a.seen).collect()
    }

    #[test]
    fn each_remark_follows_from_its_figure_and_goes_with_it() {
        let mut s = testing::snapshot();
        insta::assert_snapshot!(seen(&s).join("\n"));
        s.build.debug_assertions = true;
        assert!(seen(&s)[0].contains("debug assertions"));
        s.build.debug_assertions = false;
        s.measured.us_per_token.as_mut().unwrap().cv = 0.01;
        s.derived.between_calls = Some(0.01);
        s.threads.clear();
        s.bricks.iter_mut().for_each(|b| b.derived.bound.iter_mut().for_each(|b| b.fraction = 0.9));
        let rest = seen(&s);
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert!(rest[0].contains("is the bottleneck, at 90.0%*"), "{rest:?}");
        s.bricks.iter_mut().for_each(|b| b.derived.bound = None);
        assert_eq!(seen(&s), Vec::<String>::new());
    }
}
