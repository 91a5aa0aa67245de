//! Budgets and results agree with themselves (F008, F021, F022).
#![allow(clippy::unwrap_used)]

use bricks::catalog::{Activations, RmsNormBrick, Stream};
use bricks::reference::Weight;
use bricks::{BrickError, BudgetOrigin, BudgetPolicy, ComputeBrick as _, RunBrick, TokenBudget, TokenResult};
use proptest::prelude::*;

fn origin() -> impl Strategy<Value = BudgetOrigin> {
    prop_oneof![Just(BudgetOrigin::Explicit), Just(BudgetOrigin::Roofline), Just(BudgetOrigin::Baseline)]
}

/// From a picosecond to eleven days, every order of magnitude alike.
fn microseconds() -> impl Strategy<Value = f64> {
    (-6.0..12.0f64).prop_map(|e| 10f64.powf(e))
}

proptest! {
    /// F021, both directions.
    #[test]
    fn latency_and_throughput_are_inverse(us in microseconds(), origin in origin()) {
        let a = TokenBudget::from_latency(us, origin).unwrap();
        prop_assert!((a.us_per_token() * a.tokens_per_sec() / 1e6 - 1.0).abs() < 1e-12);
        let b = TokenBudget::from_throughput(a.tokens_per_sec(), origin).unwrap();
        prop_assert!((b.us_per_token() / us - 1.0).abs() < 1e-12);
        prop_assert_eq!(b.origin(), origin);
    }

    #[test]
    fn budgets_survive_being_written_down(us in microseconds(), origin in origin()) {
        let budget = TokenBudget::from_latency(us, origin).unwrap();
        let text = serde_json::to_string(&budget).unwrap();
        let read: TokenBudget = serde_json::from_str(&text).unwrap();
        // The JSON reader may be off by one unit in the last place.
        prop_assert!((read.us_per_token() / us - 1.0).abs() <= f64::EPSILON);
        prop_assert_eq!(read.origin(), origin);
    }

    /// F008, down to clocks that did not move.
    #[test]
    fn results_agree_with_themselves(ns in prop_oneof![0u64..2000, any::<u64>()], tokens in 0usize..5000, us in microseconds()) {
        let budget = TokenBudget::from_latency(us, BudgetOrigin::Explicit).unwrap();
        let r = TokenResult::new((), ns, tokens, &budget);
        prop_assert!(r.us_per_token > 0.0 && r.us_per_token.is_finite());
        prop_assert!((r.us_per_token * r.tokens_per_sec / 1e6 - 1.0).abs() < 1e-12);
        prop_assert_eq!(r.budget_met, r.us_per_token <= us);
        if ns > 0 {
            let total_us = r.us_per_token * tokens.max(1) as f64;
            prop_assert!((total_us * 1e3 / ns as f64 - 1.0).abs() < 1e-12, "nanoseconds are kept");
        }
    }
}

#[test]
fn what_is_no_budget_is_refused() {
    for x in [0.0, -0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::from_bits(1)] {
        assert_eq!(TokenBudget::from_latency(x, BudgetOrigin::Explicit), None, "{x}");
        assert_eq!(TokenBudget::from_throughput(x, BudgetOrigin::Explicit), None, "{x}");
    }
    for us in ["0", "-1", "-1e-300", "1e999", "null"] {
        let text = format!(r#"{{"us_per_token": {us}, "origin": "explicit"}}"#);
        assert!(serde_json::from_str::<TokenBudget>(&text).is_err(), "{us}");
    }
}

/// F022: the error has the limit and the actual time.
#[test]
fn exceeding_a_budget_is_an_error_under_the_strict_policy_only() {
    let limit = 1e-6; // A picosecond: no machine is that fast.
    let gain = Weight::from_f32(1, 4, &[1.0; 4]).unwrap();
    let brick = RmsNormBrick::new(&gain, 1e-6)
        .unwrap()
        .with_budget(TokenBudget::from_latency(limit, BudgetOrigin::Explicit).unwrap());
    let x = Activations::<Stream>::new(4, vec![1.0; 4]).unwrap();
    for policy in [BudgetPolicy::Off, BudgetPolicy::Report] {
        let r = brick.run_under(policy, &x).unwrap();
        assert!(!r.budget_met);
    }
    match brick.run_under(BudgetPolicy::Strict, &x) {
        Err(BrickError::BudgetExceeded { brick, limit_us, actual_us }) => {
            assert_eq!((brick.as_str(), limit_us), ("rms_norm", limit));
            assert!(actual_us > limit);
        }
        other => panic!("expected an exceeded budget, found {other:?}"),
    }
    assert_eq!(brick.budget().us_per_token(), limit);
}
