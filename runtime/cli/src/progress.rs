//! A progress bar for pulls, and Ctrl-C as a flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use brick_models::registry::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Set by Ctrl-C (or SIGTERM); looked at between tokens and between blocks of a download.
///
/// The first signal asks to stop; a second one, when the first has not been answered, ends the process at once.
pub(crate) fn interrupted() -> Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    Arc::clone(FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&flag);
        let handler = move || {
            if seen.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(crate::exit::INTERRUPTED));
            }
        };
        if let Err(e) = ctrlc::set_handler(handler) {
            tracing::warn!("cannot handle Ctrl-C: {e}");
        }
        flag
    }))
}

/// A bar over `n` steps on standard error, with a message before it; nothing where no person looks.
pub(crate) fn steps(n: u64) -> ProgressBar {
    let target =
        if crate::output::stderr_is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(n), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len}  {eta}  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Shows how much of a model's weights is on a GPU: a bar while it is on its way, where a person looks.
pub(crate) fn uploaded(done: u64, total: u64) {
    static BAR: OnceLock<ProgressBar> = OnceLock::new();
    let bar = BAR.get_or_init(|| {
        let bar = steps(total);
        if let Ok(style) =
            ProgressStyle::with_template("{bar:40} {decimal_bytes}/{decimal_total_bytes}  weights to the GPU")
        {
            bar.set_style(style);
        }
        bar
    });
    if bar.is_finished() {
        return;
    }
    bar.set_position(done);
    if done >= total {
        bar.finish_and_clear();
    }
}

/// Shows a pull on standard error: a bar on a terminal, lines elsewhere, nothing when quiet.
pub(crate) struct PullProgress {
    bar: ProgressBar,
    lines: bool,
    stop: Arc<AtomicBool>,
}

impl PullProgress {
    pub(crate) fn new(quiet: bool) -> Self {
        let terminal = crate::output::stderr_is_terminal();
        let target = if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { bar: ProgressBar::with_draw_target(None, target), lines: !terminal && !quiet, stop: interrupted() }
    }
}

impl Drop for PullProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Progress for PullProgress {
    fn set_total(&self, total: Option<u64>) {
        let template = match total {
            Some(n) => {
                self.bar.set_length(n);
                "{msg}\n{bar:40} {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}"
            }
            None => "{msg}\n{spinner} {decimal_bytes}  {decimal_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_position(0);
        self.bar.reset_eta();
    }

    fn inc(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    fn message(&self, text: &str) {
        self.bar.set_message(text.to_owned());
        if self.lines {
            crate::output::note(text);
        }
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
