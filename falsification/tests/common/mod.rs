//! Experiments as tests: what cannot be tested is reported as ignored, with the reason.

use brick_falsification::Verdict;
use libtest_mimic::{Completion, Failed};

/// A verdict as the outcome of a test.
pub(crate) fn completion(verdict: Verdict) -> Result<Completion, Failed> {
    match verdict {
        Verdict::Corroborated { .. } => Ok(Completion::Completed),
        Verdict::NotTestable { reason } => Ok(Completion::ignored_with(format!("not testable: {reason}"))),
        Verdict::Falsified { expected, found } => Err(Failed::from(format!("expected {expected}\nfound    {found}"))),
    }
}
