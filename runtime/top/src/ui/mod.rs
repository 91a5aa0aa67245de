//! Views as pure functions of a snapshot, the keys pressed so far, and an area: what is drawn depends on nothing else.
//!
//! | module | content |
//! | --- | --- |
//! | `state` | keys, views, selection |
//! | `theme` | styles with and without colours, bars |
//! | `pipeline` | kinds of bricks against their budgets, the bottleneck, totals |
//! | `drill` | the single bricks of a kind; histogram of its times |
//! | `budget`, `memory`, `threads`, `layers` | one question each |
//! | `panels` | assertions, GPU, help, tuner, debug |

mod budget;
mod drill;
mod layers;
mod memory;
mod panels;
mod pipeline;
mod state;
mod theme;
mod threads;

#[cfg(test)]
mod tests;

use std::time::Duration;

use brick_profiler::format::clean;
use ratatui::backend::TestBackend;
use ratatui::buffer::Cell;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph};
use ratatui::{Frame, Terminal};

pub use state::{Action, UiState, View};
pub use theme::Theme;

use crate::snapshot::Snapshot;

/// Smallest area in which views are drawn; below it, a screen says that it is too small.
pub const SMALLEST: (u16, u16) = (40, 10);
/// Age from which on data counts as stale.
pub const STALE: Duration = Duration::from_secs(2);

/// How the viewer and the run are connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// This process runs the model.
    Driving,
    /// Another process runs it.
    Attached {
        /// That process, where it is known.
        pid: Option<u32>,
    },
    /// The run is over; the last frame stays.
    Ended,
    /// The connection broke.
    Lost(String),
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timing {
    /// Drawing of the frame before.
    pub frame: Duration,
    /// Since the snapshot came.
    pub age: Duration,
    /// Snapshots that came.
    pub snapshots: u64,
}

/// Everything a frame is drawn from.
#[derive(Debug, Clone, Copy)]
pub struct Screen<'a> {
    /// What is known; `None` before the first snapshot.
    pub snapshot: Option<&'a Snapshot>,
    /// How it comes here.
    pub link: &'a Link,
    /// How long things took.
    pub timing: Timing,
    /// Keys pressed so far.
    pub state: &'a UiState,
    /// Colours or none.
    pub theme: Theme,
}

/// Lines of a view, before they are cut to an area.
struct Body {
    title: String,
    lines: Vec<Line<'static>>,
    /// Line that has to be visible.
    selected: Option<usize>,
}

impl Body {
    fn new(title: impl Into<String>, lines: Vec<Line<'static>>) -> Self {
        Self { title: title.into(), lines, selected: None }
    }
}

/// Draws a frame. Never panics, whatever the area and whatever the snapshot says.
pub fn draw(frame: &mut Frame<'_>, screen: &Screen<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("too small: {}×{} needed", SMALLEST.0, SMALLEST.1);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let panel = panel(screen, area);
    let height = panel.as_ref().map_or(0, |p| (p.lines.len() as u16 + 2).min(area.height / 2));
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(height),
        Constraint::Length(1),
    ])
    .split(area);
    frame.render_widget(Paragraph::new(header(screen, area.width)), parts[0]);
    show(frame, parts[1], body(screen, parts[1]));
    if let Some(panel) = panel {
        show(frame, parts[2], panel);
    }
    frame.render_widget(Paragraph::new(footer(screen, area.width)), parts[3]);
    if screen.state.help {
        help(frame, area);
    }
}

/// A screen as text, without styles: what a terminal of this size shows, where there is none.
pub fn to_text(screen: &Screen<'_>, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(_) = terminal.draw(|frame| draw(frame, screen));
    let rows = terminal.backend().buffer().content().chunks(usize::from(width).max(1));
    rows.map(|row| row.iter().map(Cell::symbol).collect::<String>().trim_end().to_owned() + "\n").collect()
}

fn body(screen: &Screen<'_>, area: Rect) -> Body {
    let width = usize::from(area.width.saturating_sub(2));
    let Some(s) = screen.snapshot else { return waiting(screen, width) };
    let (state, theme) = (screen.state, screen.theme);
    match state.view {
        View::Pipeline => pipeline::view(s, state, theme, width),
        View::Drill => drill::view(s, state, theme, width),
        View::Histogram => drill::histogram(s, state, theme, width),
        View::Budget => budget::view(s, state, theme, width),
        View::Memory => memory::view(s, state, theme, width),
        View::Threads => threads::view(s, theme, width),
        View::Layers => layers::view(s, state, theme, width),
        View::Assertions => panels::assertions(s, state, theme),
        View::Gpu => panels::gpu(s),
    }
}

/// Before the first snapshot: why there is none.
fn waiting(screen: &Screen<'_>, width: usize) -> Body {
    let text = match screen.link {
        Link::Driving => "loading, and computing the first prompt …".to_owned(),
        Link::Attached { .. } => "attached; waiting for the run's next forward call …".to_owned(),
        Link::Ended => "the run ended before it computed anything: there is no profile data".to_owned(),
        Link::Lost(why) => clean(why),
    };
    Body::new("no data yet", theme::wrap(&text, width).into_iter().map(Line::from).collect())
}

fn panel(screen: &Screen<'_>, area: Rect) -> Option<Body> {
    let s = screen.snapshot?;
    if area.height < SMALLEST.1 + 4 {
        return None;
    }
    match (screen.state.debug, screen.state.tuner) {
        (true, _) => Some(panels::debug(s, screen.timing)),
        (_, true) => Some(panels::tuner(s, usize::from(area.width.saturating_sub(2)))),
        _ => None,
    }
}

fn header(screen: &Screen<'_>, width: u16) -> Line<'static> {
    let theme = screen.theme;
    let mut left = " brick top".to_owned();
    if let Some(s) = screen.snapshot {
        let quantization = s.model.quantization.as_deref().unwrap_or("").to_owned();
        for part in [clean(&s.model.name), clean(&quantization), clean(&s.run.backend)] {
            if !part.is_empty() {
                left.push_str(" · ");
                left.push_str(&part);
            }
        }
    }
    let (word, style) = match screen.link {
        _ if screen.state.paused => ("PAUSED".to_owned(), Theme::bold()),
        Link::Driving => ("RUNNING".to_owned(), theme.good()),
        Link::Attached { pid: Some(pid) } => (format!("ATTACHED {pid}"), theme.good()),
        Link::Attached { pid: None } => ("ATTACHED".to_owned(), theme.good()),
        Link::Ended => ("ENDED".to_owned(), Theme::bold()),
        Link::Lost(_) => ("LOST".to_owned(), theme.bad()),
    };
    let phase = screen.snapshot.map_or("", |s| s.phase.name());
    let right = format!("{phase} ");
    let room = usize::from(width).saturating_sub(right.chars().count() + word.chars().count() + 2);
    let left = theme::fit(&left, room);
    Line::from(vec![Span::styled(left, Theme::bold()), " ".into(), right.into(), Span::styled(word, style)])
}

/// The keys, and how old and how costly what one sees is.
fn footer(screen: &Screen<'_>, width: u16) -> Line<'static> {
    let t = screen.timing;
    let age = match screen.snapshot {
        None => String::new(),
        Some(_) if matches!(screen.link, Link::Ended | Link::Lost(_)) => "last frame ".into(),
        Some(_) if t.age >= STALE => format!("data {:.0} s old ", t.age.as_secs_f64()),
        Some(_) => format!("data {} ms old ", t.age.as_millis()),
    };
    let lost = match screen.link {
        Link::Lost(why) if screen.snapshot.is_some() => Some(clean(why)),
        _ => None,
    };
    let keys = lost.unwrap_or_else(|| {
        let keys = "? keys  ↑↓ select  Enter open  b h m w a l g views  t tuner  p pause  q quit";
        keys.to_owned()
    });
    let room = usize::from(width).saturating_sub(age.chars().count() + 2);
    Line::from(vec![" ".into(), theme::fit(&keys, room).into(), " ".into(), Span::styled(age, Theme::dim())])
}

fn show(frame: &mut Frame<'_>, area: Rect, body: Body) {
    let block = Block::bordered().title(format!(" {} ", body.title)).border_style(Theme::dim());
    let height = usize::from(area.height.saturating_sub(2));
    // Scrolled so far that the selected line is the last one, no further.
    let top = body.selected.map_or(0, |line| (line + 1).saturating_sub(height));
    let lines: Vec<Line<'static>> = body.lines.into_iter().skip(top).take(height).collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let body = panels::help();
    let width = body.lines.iter().map(Line::width).max().unwrap_or(0) as u16 + 2;
    let (width, height) = (width.min(area.width), (body.lines.len() as u16 + 2).min(area.height));
    let box_area = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, box_area);
    show(frame, box_area, body);
}
