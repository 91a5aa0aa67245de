//! Every brick type keeps the contract (F001-F005, F014).
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use bricks::catalog::{self, BudgetTable, TransformerLayerBrick};
use bricks::{BrickAssertion, ComputeBrick, Cost, Extent, Observation, Verdict};

/// F001: the registry's macro asks each type for the whole contract; here, that none of them is missing from it.
#[test]
fn the_registry_lists_every_brick_type() {
    let expected = [
        "EmbedBrick",
        "RmsNormBrick",
        "QkvBrick",
        "RopeBrick",
        "AttentionBrick",
        "OProjBrick",
        "GateUpBrick",
        "ActivationBrick",
        "DownBrick",
        "FfnBrick",
        "LmHeadBrick",
        "ResidualBrick",
        "ActivationQuantBrick",
        "TransformerLayerBrick",
    ];
    assert_eq!(catalog::TYPE_NAMES, expected);
    assert_eq!(catalog::registry().len(), expected.len());
}

/// F002.
#[test]
fn every_brick_asserts_something_and_that_its_output_is_finite() {
    for brick in catalog::registry() {
        assert!(!brick.assertions().is_empty(), "{}", brick.name());
        let finite = brick.assertions().iter().any(|a| matches!(a, BrickAssertion::Finite));
        assert!(finite, "{} lets NaN pass", brick.name());
    }
}

/// F003, on the real bricks: an execution that breaks everything gives one failure per assertion.
#[test]
fn every_assertion_of_every_brick_is_evaluated() {
    let seen =
        Observation { output: &[f32::NAN], shape: &[7], reference: Some(&[1.0]), actual_us: Some(f64::INFINITY) };
    for brick in catalog::registry() {
        let v = brick.verify(&seen);
        assert_eq!(v.brick, brick.name());
        assert_eq!(v.outcomes.len(), brick.assertions().len(), "{v}");
        assert!(v.outcomes.iter().all(|o| o.verdict == Verdict::Fail), "{v}");
        let names: Vec<&str> = v.outcomes.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names, brick.assertions().iter().map(BrickAssertion::name).collect::<Vec<_>>());
    }
}

/// F004.
#[test]
fn every_budget_is_positive_and_finite() {
    for brick in catalog::registry() {
        let b = brick.budget();
        assert!(b.us_per_token() > 0.0 && b.us_per_token().is_finite(), "{}", brick.name());
        assert!(b.tokens_per_sec() > 0.0 && b.tokens_per_sec().is_finite(), "{}", brick.name());
    }
}

/// F005.
#[test]
fn names_are_unique() {
    let bricks = catalog::registry();
    let names: BTreeSet<&str> = bricks.iter().map(|b| b.name()).collect();
    assert_eq!(names.len(), bricks.len(), "{names:?}");
}

/// F014: asked of the type that everything else is made of, and of one concrete type.
#[test]
fn bricks_cross_threads() {
    fn crosses_threads<T: Send + Sync + ?Sized>() {}
    crosses_threads::<dyn ComputeBrick>();
    crosses_threads::<TransformerLayerBrick>();
}

/// Cost is known before anything runs, and grows with the batch.
#[test]
fn every_brick_has_a_cost_that_grows_with_tokens() {
    let (one, four) = (Extent::one_sequence(1, 64, 1), Extent::one_sequence(4, 64, 4));
    for brick in catalog::registry() {
        let (a, b) = (brick.cost(&one), brick.cost(&four));
        assert!(a.bytes() > 0 && a.ops() > 0, "{}: {a:?}", brick.name());
        assert!(b.write_bytes == 4 * a.write_bytes && b.ops() > 3 * a.ops(), "{}: {a:?} {b:?}", brick.name());
    }
}

/// The cost of a composition is that of its parts.
#[test]
fn the_layer_costs_what_its_parts_cost() {
    let e = Extent::one_sequence(3, 10, 1);
    let cost = |name: &str| catalog::registry().iter().find(|b| b.name() == name).unwrap().cost(&e);
    let once: Cost = ["qkv_proj", "rope", "attention", "o_proj", "gate_up_proj", "gated_activation", "down_proj"]
        .into_iter()
        .map(cost)
        .sum();
    let twice: Cost = ["rms_norm", "residual_add", "rms_norm", "residual_add"].into_iter().map(cost).sum();
    assert_eq!(cost("transformer_layer"), once + twice);
    assert_eq!(cost("ffn"), cost("gate_up_proj") + cost("gated_activation") + cost("down_proj"));
}

/// The published table: 36.7 µs per layer.
#[test]
fn the_target_table_adds_up() {
    use bricks::BrickKind as K;
    let parts = [
        K::RmsNorm,
        K::Qkv,
        K::Rope,
        K::Attention,
        K::OProj,
        K::Residual,
        K::RmsNorm,
        K::GateUp,
        K::Activation,
        K::Down,
        K::Residual,
    ];
    let sum = BudgetTable::TARGET_1_5B_RTX_4090.sum(&parts).us_per_token();
    assert!((sum - 36.7).abs() < 1e-9, "{sum}");
}
