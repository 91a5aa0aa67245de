#![allow(clippy::unwrap_used)]

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::testing::{draw_everything, drawn, snapshot};

const SIZE: (u16, u16) = (100, 30);
const PLAIN: Theme = Theme { color: false };

fn text(buffer: &Buffer) -> String {
    let rows = buffer.content().chunks(usize::from(buffer.area.width).max(1));
    let line = |row: &[ratatui::buffer::Cell]| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    rows.map(|row| line(row).trim_end().to_owned() + "\n").collect()
}

fn of(state: &UiState) -> String {
    text(&drawn(Some(&snapshot()), &Link::Driving, state, PLAIN, SIZE))
}

fn press(state: &mut UiState, keys: &str) -> Action {
    let s = snapshot();
    let code = |c| match c {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '↓' => KeyCode::Down,
        '↑' => KeyCode::Up,
        c => KeyCode::Char(c),
    };
    keys.chars().fold(Action::Draw, |_, c| state.key(KeyEvent::new(code(c), KeyModifiers::NONE), Some(&s)))
}

fn after(keys: &str) -> UiState {
    let mut state = UiState::default();
    press(&mut state, keys);
    state
}

#[test]
fn every_view() {
    insta::assert_snapshot!("pipeline", of(&after("")));
    for (name, keys) in [
        ("drill", "↓↓↓\n"),
        ("histogram", "jjjh"),
        ("budget", "b"),
        ("gpu", "g"),
        ("memory", "m"),
        ("threads", "w"),
        ("assertions", "a"),
        ("layers", "l↓↓↓"),
        ("tuner", "t"),
        ("debug", "d"),
        ("help", "?"),
    ] {
        insta::assert_snapshot!(name, of(&after(keys)));
    }
}

#[test]
fn the_pipeline_has_every_brick_and_names_the_bottleneck() {
    let s = snapshot();
    let text = of(&after(""));
    for row in &s.bricks {
        assert!(text.contains(row.kind.name()), "{}: {text}", row.kind);
    }
    let name = &s.bottleneck.as_ref().unwrap().brick_name;
    assert!(text.contains(&format!("bottleneck: {name}")), "{text}");
}

#[test]
fn what_is_seen_before_and_after() {
    let screen = |s: Option<&Snapshot>, link: &Link| text(&drawn(s, link, &UiState::default(), PLAIN, (60, 12)));
    let state = UiState::default();
    let same =
        Screen { snapshot: None, link: &Link::Ended, timing: crate::testing::TIMING, state: &state, theme: PLAIN };
    assert_eq!(to_text(&same, 60, 12), screen(None, &Link::Ended));
    insta::assert_snapshot!("waiting", screen(None, &Link::Attached { pid: Some(7) }));
    assert!(screen(None, &Link::Ended).replace(['│', '\n', ' '], "").contains("thereisnoprofiledata"));
    assert!(
        screen(None, &Link::Lost("what listens there\u{1b}[2J is no brick".into())).contains("there�[2J is no brick")
    );
    let s = snapshot();
    assert!(screen(Some(&s), &Link::Ended).contains("ENDED") && screen(Some(&s), &Link::Ended).contains("last frame"));
    assert!(screen(Some(&s), &Link::Lost("the connection broke".into())).contains("the connection broke"));
    let paused = UiState { paused: true, ..UiState::default() };
    assert!(text(&drawn(Some(&s), &Link::Driving, &paused, PLAIN, SIZE)).contains("PAUSED"));
    let timing = Timing { age: Duration::from_secs(9), ..Timing::default() };
    let mut terminal = ratatui::Terminal::new(ratatui::backend::TestBackend::new(90, 20)).unwrap();
    let (link, state) = (Link::Driving, UiState::default());
    let screen = Screen { snapshot: Some(&s), link: &link, timing, state: &state, theme: PLAIN };
    terminal.draw(|f| draw(f, &screen)).unwrap();
    assert!(text(terminal.backend().buffer()).contains("data 9 s old"));
}

#[test]
fn any_size_of_terminal() {
    let s = snapshot();
    for width in [0, 1, 2, 5, 20, 39, 40, 41, 57, 80, 81, 132, 300] {
        for height in [0, 1, 2, 5, 9, 10, 11, 24, 60] {
            for view in View::ALL {
                let state = UiState { view, help: true, tuner: true, ..UiState::default() };
                drawn(Some(&s), &Link::Driving, &state, PLAIN, (width, height));
                drawn(None, &Link::Ended, &state, PLAIN, (width, height));
            }
        }
    }
    let small = text(&drawn(Some(&s), &Link::Driving, &UiState::default(), PLAIN, (20, 5)));
    assert_eq!(small.lines().next(), Some("too small: 40×10 nee"));
}

#[test]
fn a_snapshot_that_says_nonsense() {
    let mut s = snapshot();
    s.model.name = "a\u{1b}[31mb\n".repeat(50);
    s.steps.iter_mut().for_each(|c| c.name = "\u{202e}x".repeat(90));
    s.measured.recent_us_per_token = vec![f64::MAX, -1.0, 0.0];
    s.measured.context = u64::MAX;
    for row in &mut s.bricks {
        row.measured.histogram = Some(vec![(u64::MAX, u64::MAX), (0, u64::MAX)]);
        row.measured.mean_us_per_token = -1e308;
        row.derived.share = 1e308;
        row.derived.budget.iter_mut().for_each(|b| (b.us_per_token, b.gap_factor) = (0.0, 1e308));
        row.derived.bound.iter_mut().for_each(|b| b.fraction = 1e308);
    }
    draw_everything(&s);
    assert!(!text(&drawn(Some(&s), &Link::Driving, &UiState::default(), PLAIN, SIZE)).contains('\u{1b}'));
    let empty = Snapshot { bricks: vec![], steps: vec![], layers: vec![], threads: vec![], ..s };
    draw_everything(&empty);
}

#[test]
fn keys() {
    let mut state = UiState::default();
    assert_eq!(press(&mut state, "↑"), Action::Draw);
    assert_eq!(state.brick, 0);
    let last = snapshot().bricks.len() - 1;
    press(&mut state, &"↓".repeat(50));
    assert_eq!(state.brick, last);
    press(&mut state, "h");
    assert_eq!(state.view, View::Histogram);
    press(&mut state, "hp");
    assert_eq!((state.view, state.paused), (View::Pipeline, true));
    press(&mut state, "p?");
    assert_eq!((state.paused, state.help), (false, true));
    assert_eq!(press(&mut state, "\u{1b}"), Action::Draw);
    assert!(!state.help);
    press(&mut state, "k\n");
    let kind = state.selected(&snapshot()).unwrap().kind;
    press(&mut state, &"j".repeat(50));
    assert_eq!((state.view, state.row), (View::Drill, snapshot().steps_of(kind).count() - 1));
    assert_eq!(press(&mut state, "\u{1b}"), Action::Draw);
    assert_eq!((state.view, state.brick), (View::Pipeline, last - 1), "the kind stays selected");
    assert_eq!(press(&mut state, "\u{1b}"), Action::Quit);
    assert_eq!(press(&mut state, "q"), Action::Quit);
    let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(state.key(ctrl_c, None), Action::Quit);
    let released = KeyEvent { kind: KeyEventKind::Release, ..KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE) };
    assert_eq!(state.key(released, None), Action::Draw);
    press(&mut state, "td");
    assert!(state.debug && !state.tuner, "one panel at a time");
}

#[test]
fn colours_are_left_out_and_nothing_is_lost_with_them() {
    let s = snapshot();
    for view in View::ALL {
        let state = UiState { view, ..UiState::default() };
        let draw = |color| drawn(Some(&s), &Link::Driving, &state, Theme { color }, SIZE);
        let (plain, colored) = (draw(false), draw(true));
        assert_eq!(text(&plain), text(&colored), "{view:?}");
        assert!(plain.content().iter().all(|c| c.fg == Color::Reset && c.bg == Color::Reset), "{view:?}");
        assert!(colored.content().iter().any(|c| c.fg != Color::Reset), "{view:?}: RUNNING is green at least");
    }
    let reversed = |b: &Buffer| b.content().iter().any(|c| c.modifier.contains(Modifier::REVERSED));
    assert!(
        reversed(&drawn(Some(&s), &Link::Driving, &UiState::default(), PLAIN, SIZE)),
        "the selection is seen without colours"
    );
}
