//! `brick pull`, `brick list`, `brick rm`.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use brick_models::registry::{CachedModel, Registry};
use serde_json::json;

use crate::args::{ListArgs, PullArgs, RmArgs};
use crate::output;
use crate::progress::PullProgress;

pub(super) fn pull(args: &PullArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::open_default()?;
    let reference = registry.parse(&args.model)?;
    let progress = PullProgress::new(args.quiet);
    let pulled = registry.pull(&reference, &progress);
    drop(progress);
    let pulled = pulled?;
    if args.json {
        let mut doc = as_json(&pulled.model);
        doc["was_cached"] = pulled.was_cached.into();
        output::print_json(&doc)?;
    } else {
        let m = &pulled.model;
        let what = if pulled.was_cached { "already there" } else { "pulled" };
        output::print(&format!("{}: {what}, {}, {}", m.reference, output::bytes(m.bytes), m.path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::open_default()?;
    let models = registry.list()?;
    let known = registry.known().models();
    if args.json {
        let mut doc = json!({
            "schema": "brick.list/1",
            "home": registry.home(),
            "models": models.iter().map(as_json).collect::<Vec<_>>(),
        });
        if args.known {
            doc["known"] = known
                .iter()
                .map(|k| json!({"name": k.id(), "bytes": k.bytes, "sha256": k.sha256, "description": k.description, "license": k.license}))
                .collect();
        }
        output::print_json(&doc)?;
        return Ok(ExitCode::SUCCESS);
    }
    let now = SystemTime::now();
    let width = models.iter().map(|m| m.repository.chars().count()).max().unwrap_or(0).max(10);
    let tag_width = models.iter().map(|m| m.tag.chars().count()).max().unwrap_or(0).max(3);
    let mut text = format!("{:<width$}  {:<tag_width$}  {:>9}  MODIFIED\n", "REPOSITORY", "TAG", "SIZE");
    for m in &models {
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<width$}  {:<tag_width$}  {:>9}  {}",
            m.repository,
            m.tag,
            output::bytes(m.bytes),
            ago(now, m.modified)
        );
    }
    if args.known {
        text.push_str("\nCan be pulled:\n");
        for k in known {
            let _ = writeln!(text, "  {:<22} {:>9}  {} ({})", k.id(), output::bytes(k.bytes), k.description, k.license);
        }
    }
    output::print(&text)?;
    if models.is_empty() && !args.known {
        output::note("no models yet; `brick list --known` shows what can be pulled by name");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn rm(args: &RmArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::open_default()?;
    let reference = registry.parse(&args.model)?;
    let removed = registry.rm(&reference).with_context(|| format!("cannot remove {}", args.model))?;
    if args.json {
        output::print_json(&json!({
            "schema": "brick.rm/1",
            "reference": reference.to_string(),
            "bytes": removed.bytes,
            "path": removed.path,
        }))?;
    } else {
        output::print(&format!("{reference}: removed, {} freed", output::bytes(removed.bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(m: &CachedModel) -> serde_json::Value {
    let modified = m.modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    json!({
        "reference": m.reference,
        "repository": m.repository,
        "tag": m.tag,
        "bytes": m.bytes,
        "modified_unix": modified,
        "path": m.path,
        "sha256": m.sha256,
        "source": m.source,
    })
}

/// `3 days ago`.
fn ago(now: SystemTime, then: SystemTime) -> String {
    let seconds = now.duration_since(then).map_or(0, |d| d.as_secs());
    let (n, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..2_592_000 => (seconds / 86_400, "day"),
        2_592_000..31_536_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{n} {unit}{} ago", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_read_naturally() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (seconds, text) in [(5, "just now"), (61, "1 minute ago"), (7200, "2 hours ago"), (172_800, "2 days ago")] {
            assert_eq!(ago(now, now - Duration::from_secs(seconds)), text);
        }
        assert_eq!(ago(now, now + Duration::from_secs(99)), "just now", "clocks disagree");
    }
}
