//! The screen: keys in, frames out.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use brick_top::Snapshot;
use brick_top::socket::Running;
use brick_top::ui::{self, Action, Link, Screen, Theme, Timing, UiState};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event as Input};

use super::source::{Event, Source};
use crate::{exit, output, progress};

/// How long a key may wait for its answer, and a snapshot for its frame.
const TICK: Duration = Duration::from_millis(30);
/// How often a frame is drawn when nothing happens: the age of the data is on it.
const IDLE: Duration = Duration::from_millis(250);

/// Watches another process until the user has seen enough.
pub(super) fn attached(run: &Running) -> anyhow::Result<ExitCode> {
    let source = Source::attach(run, None)?;
    let stop = progress::interrupted();
    Ok(match show(&source, &stop)? {
        End::Quit | End::Source => ExitCode::SUCCESS,
        End::Interrupted => ExitCode::from(exit::INTERRUPTED),
    })
}

/// Why a view ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The user said so.
    Quit,
    /// A signal came.
    Interrupted,
    /// The thread that this process drives is done.
    Source,
}

/// The terminal in raw mode with a screen of its own, given back however this ends: return, error, panic (a hook restores it before
/// the message is printed) and signals, which are a flag here.
struct Terminal(DefaultTerminal);

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        Ok(Self(ratatui::try_init().context("cannot use this terminal")?))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows a source until `stop` is set or the user quits.
pub(super) fn show(source: &Source, stop: &AtomicBool) -> anyhow::Result<End> {
    let mut view = View {
        snapshot: None,
        came: Instant::now(),
        snapshots: 0,
        link: source.link(),
        state: UiState::default(),
        theme: Theme { color: output::style().color },
        frame: Duration::ZERO,
    };
    let mut terminal = Terminal::open()?;
    let mut drawn = None;
    loop {
        let mut changed = view.take(source);
        if view.link == Link::Ended && matches!(source, Source::Driven(_)) {
            return Ok(End::Source);
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        while event::poll(Duration::ZERO).context("cannot read keys")? {
            changed = true;
            if let Input::Key(key) = event::read().context("cannot read keys")?
                && view.state.key(key, view.snapshot.as_ref()) == Action::Quit
            {
                return Ok(End::Quit);
            }
        }
        if changed || drawn.is_none_or(|at: Instant| at.elapsed() >= IDLE) {
            view.draw(&mut terminal.0)?;
            drawn = Some(Instant::now());
        }
        event::poll(TICK).context("cannot read keys")?;
    }
}

struct View {
    snapshot: Option<Snapshot>,
    came: Instant,
    snapshots: u64,
    link: Link,
    state: UiState,
    theme: Theme,
    frame: Duration,
}

impl View {
    /// Takes what has come; whether there was anything. While paused, what comes is counted and not shown.
    fn take(&mut self, source: &Source) -> bool {
        let mut changed = false;
        while !matches!(self.link, Link::Ended | Link::Lost(_)) {
            match source.next(Duration::ZERO) {
                None => break,
                Some(Event::Snapshot(snapshot)) => {
                    self.snapshots += 1;
                    if !self.state.paused || self.snapshot.is_none() {
                        (self.snapshot, self.came) = (Some(*snapshot), Instant::now());
                    }
                }
                Some(Event::Ended) => self.link = Link::Ended,
                Some(Event::Failed(e)) => self.link = Link::Lost(e.to_string()),
            }
            changed = true;
        }
        changed
    }

    fn draw(&mut self, terminal: &mut DefaultTerminal) -> anyhow::Result<()> {
        let begin = Instant::now();
        let screen = Screen {
            snapshot: self.snapshot.as_ref(),
            link: &self.link,
            timing: Timing { frame: self.frame, age: self.came.elapsed(), snapshots: self.snapshots },
            state: &self.state,
            theme: self.theme,
        };
        terminal.draw(|frame| ui::draw(frame, &screen)).context("cannot draw")?;
        self.frame = begin.elapsed();
        Ok(())
    }
}
