#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::assertion::{Assertions, Verdict};
use crate::brick::{ComputeBrick, Observe};
use crate::budget::{BudgetOrigin, TokenResult};
use crate::cost::{Cost, Extent};
use crate::kind::BrickKind;

fn budget(us: f64) -> TokenBudget {
    TokenBudget::from_latency(us, BudgetOrigin::Explicit).unwrap()
}

/// A brick that takes as long as it is told, gives what it is told, and counts its runs.
struct Scripted {
    name: &'static str,
    budget_us: f64,
    takes_ns: u64,
    gives: Result<f32, ()>,
    assertions: Assertions,
    runs: AtomicUsize,
}

impl Scripted {
    fn new(name: &'static str, budget_us: f64, takes_ns: u64) -> Self {
        let assertions = Assertions::of(BrickAssertion::budget_met()).and(BrickAssertion::finite());
        Self { name, budget_us, takes_ns, gives: Ok(1.0), assertions, runs: AtomicUsize::new(0) }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }
}

struct Out(Vec<f32>);

impl Observe for Out {
    fn values(&self) -> &[f32] {
        &self.0
    }
    fn shape(&self) -> Vec<usize> {
        vec![self.0.len()]
    }
}

impl ComputeBrick for Scripted {
    fn name(&self) -> &'static str {
        self.name
    }
    fn kind(&self) -> BrickKind {
        BrickKind::Custom
    }
    fn budget(&self) -> TokenBudget {
        budget(self.budget_us)
    }
    fn assertions(&self) -> &Assertions {
        &self.assertions
    }
    fn cost(&self, _: &Extent) -> Cost {
        Cost::default()
    }
}

impl RunBrick for Scripted {
    type Input<'a> = ();
    type Output = Out;
    fn run(&self, (): ()) -> Result<TokenResult<Out>, BrickError> {
        self.runs.fetch_add(1, Ordering::Relaxed);
        let x = self.gives.map_err(|()| BrickError::shape(self.name, "input", "something", "nothing"))?;
        Ok(TokenResult::new(Out(vec![x]), self.takes_ns, 1, &self.budget()))
    }
}

fn run_all(line: &mut BrickLine, bricks: &[Scripted]) -> Vec<Result<(), BrickError>> {
    bricks.iter().map(|b| line.step(b, ()).map(|_| ())).collect()
}

/// Three bricks, the second over its budget of 2 µs.
fn over_in_the_middle() -> [Scripted; 3] {
    [Scripted::new("a", 2.0, 1_000), Scripted::new("b", 2.0, 2_500), Scripted::new("c", 2.0, 1_000)]
}

/// F011, F022.
#[test]
fn strict_stops_at_the_first_violation_and_runs_nothing_after_it() {
    let bricks = over_in_the_middle();
    let mut line = BrickLine::new(BudgetPolicy::Strict);
    let results = run_all(&mut line, &bricks);
    assert_eq!(results[0], Ok(()));
    assert_eq!(results[1], Err(BrickError::BudgetExceeded { brick: "b".into(), limit_us: 2.0, actual_us: 2.5 }));
    assert_eq!(results[2], Err(BrickError::LineStopped { brick: "c".into(), by: "b".into() }));
    assert_eq!(bricks.each_ref().map(Scripted::runs), [1, 1, 0]);
    let report = line.finish();
    assert_eq!(report.stopped_by.as_deref(), Some("b"));
    assert_eq!(report.entries.len(), 2, "the violation is on the record");
}

#[test]
fn report_runs_everything_and_lists_violations_off_does_not_look() {
    for (policy, expected) in [(BudgetPolicy::Report, vec!["b"]), (BudgetPolicy::Off, vec![])] {
        let bricks = over_in_the_middle();
        let mut line = BrickLine::new(policy);
        assert!(run_all(&mut line, &bricks).iter().all(Result::is_ok));
        assert_eq!(bricks.each_ref().map(Scripted::runs), [1, 1, 1]);
        let report = line.finish();
        assert_eq!(report.violations().map(|e| e.brick.as_str()).collect::<Vec<_>>(), expected);
        assert!((report.total_us() - 4.5).abs() < 1e-12);
        assert_eq!(report.stopped_by, None);
    }
}

/// Limits are inclusive and not rounded to whole microseconds.
#[test]
fn a_budget_is_kept_up_to_and_including_its_limit() {
    let mut line = BrickLine::new(BudgetPolicy::Strict);
    assert!(line.step(&Scripted::new("exact", 0.25, 250), ()).is_ok());
    let error = line.step(&Scripted::new("over", 0.25, 251), ()).err();
    assert_eq!(error, Some(BrickError::BudgetExceeded { brick: "over".into(), limit_us: 0.25, actual_us: 0.251 }));
}

#[test]
fn an_error_stops_the_line_under_every_policy() {
    for policy in [BudgetPolicy::Off, BudgetPolicy::Report, BudgetPolicy::Strict] {
        let broken = Scripted { gives: Err(()), ..Scripted::new("broken", 1.0, 1) };
        let next = Scripted::new("next", 1.0, 1);
        let mut line = BrickLine::new(policy);
        assert!(matches!(line.step(&broken, ()), Err(BrickError::Shape { .. })));
        assert!(matches!(line.step(&next, ()), Err(BrickError::LineStopped { .. })));
        assert!(matches!(line.record_timed("x", budget(1.0), 0.5), Err(BrickError::LineStopped { .. })));
        assert_eq!(next.runs(), 0);
    }
}

/// F049: outputs are scanned after each brick.
#[test]
fn a_checking_line_stops_at_a_bad_output_and_leaves_time_to_the_policy() {
    let slow = Scripted::new("slow", 1.0, 9_000);
    let nan = Scripted { gives: Ok(f32::NAN), ..Scripted::new("nan", 1.0, 1) };
    let mut line = BrickLine::new(BudgetPolicy::Report).checking_outputs();
    assert!(line.step(&slow, ()).is_ok());
    let Err(error) = line.step(&nan, ()) else { panic!("NaN passed") };
    assert_eq!(
        error.to_string(),
        "nan: assertion finite: expected finite values, found NaN at index 0 (1 of 1 values)"
    );
    let report = line.finish();
    assert_eq!(report.stopped_by.as_deref(), Some("nan"));
    let slow = report.entries[0].verification.as_ref().unwrap();
    assert_eq!(slow.outcomes[0].verdict, Verdict::Fail, "the exceeded budget is in the report");
    // Without checking, values are not looked at.
    assert!(BrickLine::new(BudgetPolicy::Strict).step(&nan, ()).is_ok());
}

fn bottleneck(times: &[f64]) -> Option<BottleneckReport> {
    let mut line = BrickLine::new(BudgetPolicy::Report).in_layer(7);
    for (i, &us) in times.iter().enumerate() {
        line.record_timed(&format!("brick{i}"), budget(2.0), us).unwrap();
    }
    line.finish().bottleneck()
}

/// F010.
#[test]
fn the_bottleneck_is_the_slowest_brick() {
    let b = bottleneck(&[1.0, 5.0, 3.0]).unwrap();
    assert_eq!((b.layer, b.brick_name.as_str()), (Some(7), "brick1"));
    assert_eq!((b.actual_us, b.budget_us, b.gap_factor), (5.0, 2.0, 2.5));
    assert_eq!(bottleneck(&[0.5]).unwrap().brick_name, "brick0", "also when it keeps its budget");
    assert_eq!(bottleneck(&[1.0, 4.0, 4.0]).unwrap().brick_name, "brick1", "of equals, the first");
    assert_eq!(bottleneck(&[f64::NAN, 1.0]).unwrap().brick_name, "brick1");
    assert_eq!(bottleneck(&[]), None);
}

proptest::proptest! {
    #[test]
    fn no_brick_is_slower_than_the_bottleneck(times in proptest::collection::vec(0.0..1e6f64, 1..40)) {
        let b = bottleneck(&times).unwrap();
        let slowest = times.iter().copied().fold(0.0, f64::max);
        proptest::prop_assert_eq!(b.actual_us, slowest);
        let first = times.iter().position(|&t| t == slowest).unwrap();
        proptest::prop_assert_eq!(b.brick_name, format!("brick{first}"));
    }
}
