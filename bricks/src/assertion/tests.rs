#![allow(clippy::unwrap_used)]

use super::*;
use crate::budget::BudgetOrigin;

fn judge(a: &BrickAssertion, seen: &Observation<'_>) -> Verdict {
    a.evaluate(seen, &TokenBudget::from_latency(10.0, BudgetOrigin::Explicit).unwrap()).verdict
}

fn values(output: &[f32]) -> Observation<'_> {
    Observation { output, ..Observation::default() }
}

fn shaped<'a>(output: &'a [f32], shape: &'a [usize]) -> Observation<'a> {
    Observation { output, shape, ..Observation::default() }
}

#[test]
fn shape_compares_fixed_axes_and_binds_symbols() {
    let a = BrickAssertion::shape([Dim::Tokens, Dim::Fixed(2)]);
    assert_eq!(judge(&a, &shaped(&[0.0; 6], &[3, 2])), Verdict::Pass);
    assert_eq!(judge(&a, &shaped(&[], &[0, 2])), Verdict::Pass);
    for (n, shape) in [(6, &[2, 3][..]), (6, &[6]), (6, &[3, 2, 1]), (5, &[3, 2]), (0, &[usize::MAX, 2])] {
        assert_eq!(judge(&a, &shaped(&vec![0.0; n], shape)), Verdict::Fail, "{shape:?}");
    }
    let square = BrickAssertion::shape([Dim::Tokens, Dim::Tokens]);
    assert_eq!(judge(&square, &shaped(&[0.0; 4], &[2, 2])), Verdict::Pass);
    assert_eq!(judge(&square, &shaped(&[0.0; 2], &[1, 2])), Verdict::Fail, "one symbol, two sizes");
    let free = BrickAssertion::shape([Dim::Tokens, Dim::Context]);
    assert_eq!(judge(&free, &shaped(&[0.0; 2], &[1, 2])), Verdict::Pass);
}

#[test]
fn finite_and_no_nan_differ_about_infinities() {
    for (x, finite, no_nan) in [
        (f32::NAN, Verdict::Fail, Verdict::Fail),
        (f32::NEG_INFINITY, Verdict::Fail, Verdict::Pass),
        (f32::INFINITY, Verdict::Fail, Verdict::Pass),
        (f32::MAX, Verdict::Pass, Verdict::Pass),
        (f32::from_bits(1), Verdict::Pass, Verdict::Pass),
    ] {
        assert_eq!(judge(&BrickAssertion::finite(), &values(&[0.0, x])), finite, "{x}");
        assert_eq!(judge(&BrickAssertion::no_nan(), &values(&[0.0, x])), no_nan, "{x}");
    }
}

#[test]
fn range_includes_its_ends_and_excludes_nan() {
    let a = BrickAssertion::range(-1.0, 1.0);
    assert_eq!(judge(&a, &values(&[-1.0, 0.0, 1.0])), Verdict::Pass);
    for x in [1.000_001, -1.000_001, f32::NAN, f32::INFINITY] {
        assert_eq!(judge(&a, &values(&[0.0, x])), Verdict::Fail, "{x}");
    }
    assert_eq!(judge(&BrickAssertion::range(f32::NAN, 1.0), &values(&[0.0])), Verdict::Fail);
}

#[test]
fn equivalence_needs_a_reference_of_the_same_length() {
    let a = BrickAssertion::equiv_scalar(1e-3);
    let with = |output: &'static [f32], reference: &'static [f32]| {
        judge(&a, &Observation { output, reference: Some(reference), ..Observation::default() })
    };
    assert_eq!(with(&[1.0, 2.0], &[1.001, 2.0]), Verdict::Pass);
    assert_eq!(with(&[1.0, 2.0], &[1.01, 2.0]), Verdict::Fail);
    assert_eq!(with(&[1.0], &[1.0, 2.0]), Verdict::Fail);
    assert_eq!(with(&[f32::NAN], &[f32::NAN]), Verdict::Fail, "nothing is equivalent to NaN");
    assert!(matches!(with(&[], &[]), Verdict::NotEvaluated(_)));
    assert!(matches!(judge(&a, &values(&[1.0])), Verdict::NotEvaluated(_)), "no reference is no pass");
    let nonsense = BrickAssertion::equiv_scalar(f64::NAN);
    let seen = Observation { output: &[1.0], reference: Some(&[1.0]), ..Observation::default() };
    assert_eq!(judge(&nonsense, &seen), Verdict::Fail);
}

#[test]
fn budget_needs_a_sane_time() {
    let timed = |us: f64| judge(&BrickAssertion::budget_met(), &Observation { actual_us: Some(us), ..values(&[]) });
    assert_eq!(timed(10.0), Verdict::Pass);
    assert_eq!(timed(0.000_5), Verdict::Pass);
    for us in [10.000_001, f64::NAN, f64::INFINITY, -1.0] {
        assert_eq!(timed(us), Verdict::Fail, "{us}");
    }
    assert!(matches!(judge(&BrickAssertion::budget_met(), &values(&[1.0])), Verdict::NotEvaluated(_)));
}

#[test]
fn an_empty_output_is_not_judged() {
    for a in [BrickAssertion::finite(), BrickAssertion::no_nan(), BrickAssertion::range(0.0, 1.0)] {
        assert!(matches!(judge(&a, &values(&[])), Verdict::NotEvaluated(_)), "{}", a.name());
    }
}

#[test]
fn custom_assertions_see_everything_and_say_what_they_found() {
    let a = BrickAssertion::new("sorted").description("values in ascending order").check(|seen| {
        match seen.output.windows(2).position(|w| w[0] > w[1]) {
            None => Ok(()),
            Some(i) => Err(format!("a descent after index {i}")),
        }
    });
    let budget = TokenBudget::from_latency(1.0, BudgetOrigin::Explicit).unwrap();
    assert_eq!(a.evaluate(&values(&[1.0, 2.0]), &budget).verdict, Verdict::Pass);
    let bad = a.evaluate(&values(&[1.0, 3.0, 2.0]), &budget);
    assert_eq!(bad.to_string(), "FAIL sorted: expected values in ascending order, found a descent after index 1");
}

#[test]
fn a_list_has_at_least_the_one_it_began_with() {
    let list = Assertions::of(BrickAssertion::finite()).and(BrickAssertion::budget_met());
    let names: Vec<&str> = list.iter().map(BrickAssertion::name).collect();
    assert_eq!(names, ["finite", "budget_met"]);
}
