//! Styles and bars. Colours only repeat what signs and words say already.

use ratatui::style::{Color, Modifier, Style};

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Theme {
    /// Colours besides bold, dim and reversed text.
    pub color: bool,
}

impl Theme {
    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }

    pub(super) fn good(self) -> Style {
        self.colored(Color::Green)
    }

    pub(super) fn bad(self) -> Style {
        self.colored(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn dim() -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    pub(super) fn bold() -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    pub(super) fn selected() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Green at 0, yellow, red from 1 on.
    pub(super) fn heat(self, x: f64) -> Style {
        self.colored(match x {
            x if x < 0.25 => Color::Green,
            x if x < 0.6 => Color::Yellow,
            x if x < 1.0 => Color::LightRed,
            _ => Color::Red,
        })
    }
}

/// A bar of `width` characters, filled to a fraction; one that is more than full ends in `▶`.
pub(super) fn bar(fraction: f64, width: usize) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    if width == 0 {
        return String::new();
    }
    // A NaN is an empty bar: it is 0 as an integer.
    let eighths = (fraction.clamp(0.0, 2.0) * width as f64 * 8.0) as usize;
    if eighths > width * 8 {
        return "█".repeat(width - 1) + "▶";
    }
    let mut out = "█".repeat(eighths / 8);
    if eighths / 8 < width {
        out.push(EIGHTHS[eighths % 8]);
    }
    out.extend(std::iter::repeat_n(' ', width.saturating_sub(eighths / 8 + 1)));
    out
}

/// A bar with a mark at the fraction `at`: what is beyond the mark is drawn in another shade.
pub(super) fn bar_with_mark(fraction: f64, at: f64, width: usize) -> String {
    let mark = (at * width as f64) as usize;
    let full = bar(fraction, width);
    full.chars().enumerate().map(|(i, c)| if i == mark { '│' } else { c }).collect()
}

/// Text of exactly `width` characters: cut with `…`, or filled up.
pub(super) fn fit(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return format!("{text}{}", " ".repeat(width - n));
    }
    let mut out: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        out.push('…');
    }
    out
}

/// Text in lines of at most `width` characters, broken between words; a longer word is cut.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ if word.chars().count() <= width => lines.push(word.to_owned()),
            _ => lines.push(fit(word, width)),
        }
    }
    lines
}

/// The last values as a row of bars, the largest at full height.
pub(super) fn sparkline(values: &[f64], width: usize) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &values[values.len().saturating_sub(width)..];
    let largest = last.iter().copied().filter(|x| x.is_finite()).fold(0.0, f64::max);
    let level = |x: &f64| {
        if largest > 0.0 { LEVELS[((x / largest * 7.0).round().max(0.0) as usize).min(7)] } else { LEVELS[0] }
    };
    last.iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_wide_as_they_should_be() {
        for fraction in [0.0, 0.01, 0.5, 0.999, 1.0, 1.7, 1e300, -3.0, f64::NAN, f64::INFINITY] {
            for width in 0..9 {
                assert_eq!(bar(fraction, width).chars().count(), width, "{fraction} {width}");
                assert_eq!(bar_with_mark(fraction, 0.66, width).chars().count(), width);
            }
        }
        assert_eq!(bar(0.5, 4), "██  ");
        assert_eq!(bar(0.55, 4), "██▏ ");
        assert_eq!(bar(1.0, 4), "████");
        assert_eq!(bar(1.2, 4), "███▶");
        assert_eq!(bar_with_mark(0.5, 0.75, 4), "██ │");
    }

    #[test]
    fn text_and_rows_of_bars_keep_to_their_width() {
        assert_eq!((fit("abc", 5), fit("abcdef", 4), fit("abc", 0)), ("abc  ".into(), "abc…".into(), String::new()));
        assert_eq!(wrap("a bc  defghij k", 4), ["a bc", "def…", "k"]);
        assert_eq!((wrap("", 4).len(), wrap("ab c", 0)), (0, vec![String::new(), String::new()]));
        assert_eq!(sparkline(&[9.0, 1.0, 4.0, 8.0], 3), "▂▅█");
        assert_eq!(sparkline(&[f64::NAN, 0.0], 3), "▁▁");
    }
}
