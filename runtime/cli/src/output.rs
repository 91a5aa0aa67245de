//! Colours, logs, JSON: everything about how results are shown.

use std::io::{IsTerminal, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::args::ColorChoice;

/// Applies `--color` to both streams.
pub(crate) fn set_color(choice: ColorChoice) {
    match choice {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Starts logging to standard error if a filter was given (`--log` or `BRICK_LOG`); libraries are silent otherwise.
pub(crate) fn init_logging(filter: Option<&str>) -> anyhow::Result<()> {
    let Some(filter) = filter else { return Ok(()) };
    let filter = tracing_subscriber::EnvFilter::try_new(filter).with_context(|| {
        format!("--log {filter:?}: expected a level (error, warn, info, debug, trace) or target=level")
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// Prints an error line.
pub(crate) fn error(text: &str) {
    // Nothing helps when standard error is gone.
    let _ = writeln!(anstream::stderr(), "\x1b[1;31merror:\x1b[0m {text}");
}

/// Prints a remark that is not part of the result.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "\x1b[2m{text}\x1b[0m");
}

/// Prints a result exactly as it is: text of a model may hold any character, also ones that steer a terminal.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    print_to(std::io::stdout().lock(), text)
}

/// Prints a table in the colours of [`style`], which are translated or left out where the output needs it.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print_styled(text: &str) -> anyhow::Result<()> {
    print_to(anstream::stdout().lock(), text)
}

fn print_to(mut out: impl Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Prints a result as indented JSON: one document, nothing else on standard output.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) fn print_json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    print(&json(value)?)
}

/// A result as indented JSON.
///
/// # Errors
/// When it holds a figure that JSON cannot.
pub(crate) fn json<T: Serialize>(value: &T) -> anyhow::Result<String> {
    serde_json::to_string_pretty(value).context("cannot write the report as JSON")
}

/// Writes a file so that it is never seen half-written.
///
/// # Errors
/// When its folder does not exist or cannot be written, or the disk is full.
pub(crate) fn write_atomically(path: &Path, text: &str) -> anyhow::Result<()> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new();
        #[cfg(unix)]
        {
            // Temporary files are private by default; a report gets the permissions any new file would.
            use std::os::unix::fs::PermissionsExt;
            temporary.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = temporary.tempfile_in(dir)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// How tables on standard output are drawn.
pub(crate) fn style() -> brick_profiler::Style {
    let color = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    brick_profiler::Style { unicode: true, color }
}

/// Whether a person sees standard error.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// `1.5 GB`, `98.4 MB`, `12 B`; decimal, as disks and bandwidths are.
pub(crate) fn bytes(n: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut x = n as f64;
    let mut unit = 0;
    while x >= 1000.0 && unit + 1 < units.len() {
        x /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{n} B") } else { format!("{x:.1} {}", units[unit]) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Others may read a report that is written where others may read.
    #[cfg(unix)]
    #[test]
    fn a_written_file_has_the_permissions_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let (ours, plain) = (dir.path().join("ours"), dir.path().join("plain"));
        write_atomically(&ours, "text").unwrap();
        std::fs::write(&plain, "text").unwrap();
        assert_eq!(mode(&ours), mode(&plain));
    }
}
