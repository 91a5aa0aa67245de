//! The real model against an independent engine. What is compared with was recorded by `reference/record.py`.
//!
//! The slow suite is ignored unless asked for, as with any test: `cargo test -p brick-falsification --test golden -- --ignored`.

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

fn agreement(golden: &GoldenFile, model: &Model) -> Result<Agreement, Refusal> {
    let agreement = golden.agreement(model, default_threads())?;
    println!("{agreement}");
    Ok(agreement)
}

fn q4_1(context: &Context) -> Outcome {
    let found = agreement(&GoldenFile::load("smollm2-135m-q4_1")?, context.real()?)?;
    found.require_with_q8()?;
    Ok(found.to_string())
}

fn q8_0(context: &Context) -> Outcome {
    // The golden file first: making a copy of the model takes a while.
    let golden = GoldenFile::load("smollm2-135m-q8_0")?;
    let found = agreement(&golden, context.real_as(DType::Q8_0)?)?;
    found.require_with_q8()?;
    Ok(found.to_string())
}

fn f16(context: &Context) -> Outcome {
    let golden = GoldenFile::load("smollm2-135m-f16")?;
    let found = agreement(&golden, context.real_as(DType::F16)?)?;
    found.require_with_floats()?;
    Ok(found.to_string())
}

/// The same text for 32 tokens per prompt with F16 weights.
fn f16_text(context: &Context) -> Outcome {
    let golden = GoldenFile::load("smollm2-135m-f16")?;
    let n = golden.same_greedy(context.real_as(DType::F16)?, 32, default_threads())?;
    Ok(format!("{n} prompts"))
}

/// K-quants, QKV biases, split-halves rotation in a real model of 1.1 GB.
fn qwen(context: &Context) -> Outcome {
    let golden = GoldenFile::load("qwen2.5-coder-1.5b-q4_k_m")?;
    let model = context.named("qwen2.5-coder:1.5b")?;
    golden.same_tokens(&model)?;
    let found = agreement(&golden.without_first_positions(), &model)?;
    found.require_with_q8()?;
    Ok(found.to_string())
}

/// The slow suite: a model of 1.1 GB.
const SLOW: &str = "slow_qwen_q4_k_m_agrees";

type Experiment = fn(&Context) -> Outcome;

fn main() -> ExitCode {
    let context = Arc::new(Context::from_env());
    let tests: [(&'static str, Experiment); 6] = [
        ("same_tokens", tokens),
        ("q4_1_agrees", q4_1),
        ("q8_0_agrees", q8_0),
        ("f16_agrees", f16),
        ("f16_same_greedy_text", f16_text),
        (SLOW, qwen),
    ];
    let trials = tests.map(|(name, check)| {
        let context = Arc::clone(&context);
        let claim = Claim { id: name, statement: name, family: Family::Backend, threshold: "", check };
        Trial::ignorable_test(name, move || common::completion(claim.judge(&context))).with_ignored_flag(name == SLOW)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}
