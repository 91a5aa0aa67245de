//! The real model against an independent engine. What is compared with was recorded by `reference/record.py`.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use brick_falsification::golden::{Agreement, GoldenFile};
use brick_falsification::{Claim, Context, Family, Outcome, Refusal};
use brick_runtime::Model;
use brick_runtime::engine::default_threads;
use bricks::DType;
use libtest_mimic::{Arguments, Trial};

/// The same tokens for every prompt, and the same text for every continuation.
fn tokens(context: &Context) -> Outcome {
    let golden = GoldenFile::load("smollm2-135m-q4_1")?;
    Ok(format!("{} ids", golden.same_tokens(context.real()?)?))
}

fn agreement(golden: &str, model: &Model) -> Result<Agreement, Refusal> {
    let agreement = GoldenFile::load(golden)?.agreement(model, default_threads())?;
    println!("{golden}: {agreement}");
    Ok(agreement)
}

fn q4_1(context: &Context) -> Outcome {
    let found = agreement("smollm2-135m-q4_1", context.real()?)?;
    found.require_with_q8()?;
    Ok(found.to_string())
}

fn q8_0(context: &Context) -> Outcome {
    // The golden file first: making a copy of the model takes a while.
    GoldenFile::load("smollm2-135m-q8_0")?;
    let found = agreement("smollm2-135m-q8_0", context.real_as(DType::Q8_0)?)?;
    found.require_with_q8()?;
    Ok(found.to_string())
}

fn f16(context: &Context) -> Outcome {
    GoldenFile::load("smollm2-135m-f16")?;
    let found = agreement("smollm2-135m-f16", context.real_as(DType::F16)?)?;
    found.require_with_floats()?;
    Ok(found.to_string())
}

/// The same text for 32 tokens per prompt with F16 weights.
fn f16_text(context: &Context) -> Outcome {
    let golden = GoldenFile::load("smollm2-135m-f16")?;
    let n = golden.same_greedy(context.real_as(DType::F16)?, 32, default_threads())?;
    Ok(format!("{n} prompts"))
}

fn main() -> ExitCode {
    let context = Arc::new(Context::from_env());
    let tests: [(&'static str, fn(&Context) -> Outcome); 5] = [
        ("same_tokens", tokens),
        ("q4_1_agrees", q4_1),
        ("q8_0_agrees", q8_0),
        ("f16_agrees", f16),
        ("f16_same_greedy_text", f16_text),
    ];
    let trials = tests.map(|(name, check)| {
        let context = Arc::clone(&context);
        let claim = Claim { id: name, statement: name, family: Family::Backend, threshold: "", check };
        Trial::ignorable_test(name, move || common::completion(claim.judge(&context)))
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}
