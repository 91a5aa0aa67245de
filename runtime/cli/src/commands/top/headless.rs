//! The report without a terminal.

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brick_profiler::Phase;
use brick_profiler::format::count;
use brick_top::report::{Report, SourceKind, Thresholds};
use brick_top::socket::Running;
use brick_top::{NoData, Snapshot};

use super::source::{Event, Source};
use crate::args::TopArgs;
use crate::{about, exit, output, progress};

/// How long a run may say nothing: a long prompt takes a while, and a chat may be waiting for its user.
const SILENCE: Duration = Duration::from_secs(60);
/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);

/// Reports on another process: once it has decoded as many tokens as are asked for (one, if nothing is said), or is over.
pub(super) fn attached(args: &TopArgs, run: &Running) -> anyhow::Result<ExitCode> {
    let wanted = u64::from(args.tokens.unwrap_or(1));
    let source = Source::attach(run, Some(SILENCE))?;
    let stop = progress::interrupted();
    let decoded = |s: &Snapshot| if s.phase == Phase::Decode { s.measured.forwards } else { 0 };
    let mut last: Option<Snapshot> = None;
    while last.as_ref().is_none_or(|s| decoded(s) < wanted) {
        if stop.load(Ordering::Relaxed) {
            output::error("interrupted: nothing was reported");
            return Ok(ExitCode::from(exit::INTERRUPTED));
        }
        match source.next(TICK) {
            None => {}
            Some(Event::Snapshot(snapshot)) => last = Some(*snapshot),
            Some(Event::Failed(e)) => return Err(e.into()),
            Some(Event::Ended) => {
                let s = last.as_ref().ok_or(NoData)?;
                output::note(&format!("note: the run ended after {} of decode", count(decoded(s), "forward call")));
                break;
            }
        }
    }
    finish(args, &last.ok_or(NoData)?, SourceKind::Attached)
}

/// Prints the report, writes it where that is asked for, and holds it against the thresholds.
pub(super) fn finish(args: &TopArgs, snapshot: &Snapshot, kind: SourceKind) -> anyhow::Result<ExitCode> {
    let thresholds = Thresholds { min_tok_s: args.min_tok_s, max_cv_percent: args.max_cv, min_score: args.min_score };
    let report = Report::new(snapshot, kind, &thresholds, about::timestamp());
    let json = output::json(&report)?;
    if let Some(path) = &args.output {
        output::write_atomically(path, &json)?;
    }
    output::print(if args.json { json } else { report.to_text() }.as_str())?;
    let mut failed = report.failed().peekable();
    if !(args.fail_on_threshold || args.ci) || failed.peek().is_none() {
        return Ok(ExitCode::SUCCESS);
    }
    let failed: Vec<String> = failed.map(ToString::to_string).collect();
    output::error(&format!("threshold: {}", failed.join("; ")));
    Ok(ExitCode::FAILURE)
}
