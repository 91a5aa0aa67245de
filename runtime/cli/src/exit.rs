//! Exit codes, documented in `brick --help`.

use std::process::ExitCode;

use brick_models::registry::RegistryError;

use crate::output;

/// A verdict went against the model, the budget or the claim: `check`, `gate check`, `profile --budget-policy strict`, `trace
/// --fail-on-anomaly`, `falsify`.
pub(crate) const VERDICT: u8 = 3;
/// The context filled up before the answer was complete.
pub(crate) const CONTEXT_FULL: u8 = 4;
/// Interrupted by Ctrl-C, as shells expect it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The table of `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
  0    success
  1    an error, said on standard error
  2    wrong usage
  3    a verdict went against it (check diverged, gate failed, strict budget broken, anomaly traced, claim
       falsified)
  4    the context was full before the answer was complete
  130  interrupted";

/// Prints an error with its causes and gives exit code 1 (0 when nobody reads the output any more).
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = error
        .chain()
        .filter_map(|e| e.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    output::error(&format_chain(error));
    let interrupted = error.chain().filter_map(|e| e.downcast_ref()).any(|e| matches!(e, RegistryError::Interrupted));
    ExitCode::from(if interrupted { INTERRUPTED } else { 1 })
}

/// The error and its causes, without repeating what a transparent wrapper already said.
fn format_chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_said_once() {
        let e = anyhow::anyhow!("disk full").context("cannot write x: disk full").context("saving");
        assert_eq!(format_chain(&e), "saving: cannot write x: disk full");
    }
}
