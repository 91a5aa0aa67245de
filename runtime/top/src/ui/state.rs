//! Keys, views, selection.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::snapshot::{BrickRow, Snapshot};

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// Kinds of bricks against their budgets.
    #[default]
    Pipeline,
    /// The single bricks of the selected kind.
    Drill,
    /// Budget and actual time, side by side.
    Budget,
    /// How the times of the selected kind are spread.
    Histogram,
    /// The graphics processor.
    Gpu,
    /// Memory bandwidth of every kind.
    Memory,
    /// Busy and waiting threads.
    Threads,
    /// What must hold, and whether it does.
    Assertions,
    /// Layers × kinds.
    Layers,
}

impl View {
    /// Every view.
    pub const ALL: [View; 9] = [
        Self::Pipeline,
        Self::Drill,
        Self::Budget,
        Self::Histogram,
        Self::Gpu,
        Self::Memory,
        Self::Threads,
        Self::Assertions,
        Self::Layers,
    ];
}

/// What a key asks the program to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Draw again.
    Draw,
    /// End.
    Quit,
}

/// What the keys pressed so far amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(clippy::struct_excessive_bools)] // each is a switch of its own
pub struct UiState {
    /// What is looked at.
    pub view: View,
    /// Row of the selected kind.
    pub brick: usize,
    /// Row within a view that lists something else.
    pub row: usize,
    /// Frames that come are not shown.
    pub paused: bool,
    /// The keys are shown.
    pub help: bool,
    /// The tuner panel is shown.
    pub tuner: bool,
    /// The debug panel is shown.
    pub debug: bool,
}

impl UiState {
    /// Takes a key. `snapshot` is what is on the screen.
    pub fn key(&mut self, key: KeyEvent, snapshot: Option<&Snapshot>) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Draw;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if matches!(key.code, KeyCode::Char('c' | 'd')) { Action::Quit } else { Action::Draw };
        }
        match key.code {
            KeyCode::Esc if self.help => self.help = false,
            KeyCode::Esc if self.view != View::Pipeline => self.go(View::Pipeline),
            KeyCode::Esc | KeyCode::Char('q') => return Action::Quit,
            KeyCode::Enter => self.go(View::Drill),
            KeyCode::Char('b') => self.toggle(View::Budget),
            KeyCode::Char('h') => self.toggle(View::Histogram),
            KeyCode::Char('g') => self.toggle(View::Gpu),
            KeyCode::Char('m') => self.toggle(View::Memory),
            KeyCode::Char('w') => self.toggle(View::Threads),
            KeyCode::Char('a') => self.toggle(View::Assertions),
            KeyCode::Char('l') => self.toggle(View::Layers),
            KeyCode::Char('t') => (self.tuner, self.debug) = (!self.tuner, false),
            KeyCode::Char('d') => (self.debug, self.tuner) = (!self.debug, false),
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Up | KeyCode::Char('k') => self.select(snapshot, |i| i.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.select(snapshot, |i| i.saturating_add(1)),
            KeyCode::PageUp => self.select(snapshot, |i| i.saturating_sub(10)),
            KeyCode::PageDown => self.select(snapshot, |i| i.saturating_add(10)),
            KeyCode::Home => self.select(snapshot, |_| 0),
            KeyCode::End => self.select(snapshot, |_| usize::MAX),
            _ => {}
        }
        Action::Draw
    }

    /// The selected kind; the last one if there are fewer than there were.
    pub fn selected<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s BrickRow> {
        snapshot.bricks.get(self.brick).or(snapshot.bricks.last())
    }

    fn go(&mut self, view: View) {
        self.view = view;
        self.row = 0;
    }

    fn toggle(&mut self, view: View) {
        self.go(if self.view == view { View::Pipeline } else { view });
    }

    fn select(&mut self, snapshot: Option<&Snapshot>, to: impl Fn(usize) -> usize) {
        let Some(s) = snapshot else { return };
        let (row, rows) = match self.view {
            View::Drill => {
                let kind = self.selected(s).map(|b| b.kind);
                (&mut self.row, s.steps.iter().filter(|step| Some(step.kind) == kind).count())
            }
            View::Layers => (&mut self.row, s.layers.iter().filter(|l| l.layer.is_some()).count()),
            View::Assertions => (&mut self.row, crate::checks::checks(s).len()),
            _ => (&mut self.brick, s.bricks.len()),
        };
        *row = to((*row).min(rows.saturating_sub(1))).min(rows.saturating_sub(1));
    }
}
