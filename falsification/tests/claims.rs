//! Every claim as a test. What cannot be tested here is ignored, with the reason; it does not pass.

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use brick_falsification::{Context, registry};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let context = Arc::new(Context::from_env());
    let trials = registry()
        .into_iter()
        .map(|claim| {
            let context = Arc::clone(&context);
            let name = format!("{} {}", claim.id, claim.statement);
            Trial::ignorable_test(name, move || common::completion(claim.judge(&context)))
                .with_kind(claim.family.name())
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
