//! Cells, columns, and how they are drawn.

use std::fmt::Write;

use super::Style;

/// Colour of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Bold,
    Good,
    Bad,
    Dim,
}

impl Tone {
    /// SGR parameters.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Dim => "2",
        }
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) tone: Tone,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// Nothing to say.
    pub(crate) fn none() -> Self {
        Self::new("–", Tone::Dim)
    }
}

impl<S: Into<String>> From<S> for Cell {
    fn from(text: S) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// A table: the first `left` columns are names and stand left, the others are figures and stand right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) header: Vec<String>,
    pub(crate) left: usize,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Rows under a rule of their own at the end.
    pub(crate) totals: Vec<Vec<Cell>>,
}

impl Table {
    /// Aligned text with a line around it.
    pub(crate) fn to_text(&self, style: Style) -> String {
        let plain = |s: &str| style.plain(s);
        let columns = self.header.len();
        let mut widths: Vec<usize> = self.header.iter().map(|h| h.chars().count()).collect();
        for row in self.rows.iter().chain(&self.totals) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let (h, v, joints) = if style.unicode {
            ('─', '│', [['┌', '┬', '┐'], ['├', '┼', '┤'], ['└', '┴', '┘']])
        } else {
            ('-', '|', [['+'; 3]; 3])
        };
        let rule = |out: &mut String, [first, middle, last]: [char; 3]| {
            for (i, width) in widths.iter().enumerate() {
                out.push(if i == 0 { first } else { middle });
                out.extend(std::iter::repeat_n(h, width + 2));
            }
            out.push(last);
            out.push('\n');
        };
        let line = |out: &mut String, cells: &mut dyn Iterator<Item = (&str, Tone)>| {
            for (i, (text, tone)) in cells.enumerate().take(columns) {
                let pad = widths[i] - text.chars().count();
                let (before, after) = if i < self.left { (0, pad) } else { (pad, 0) };
                let text = paint(&plain(text), tone, style);
                let _ = write!(out, "{v} {:before$}{text}{:after$} ", "", "");
            }
            out.push(v);
            out.push('\n');
        };
        let mut out = String::new();
        rule(&mut out, joints[0]);
        line(&mut out, &mut self.header.iter().map(|h| (h.as_str(), Tone::Bold)));
        rule(&mut out, joints[1]);
        for row in &self.rows {
            line(&mut out, &mut row.iter().map(|c| (c.text.as_str(), c.tone)));
        }
        if !self.totals.is_empty() {
            rule(&mut out, joints[1]);
            for row in &self.totals {
                line(&mut out, &mut row.iter().map(|c| (c.text.as_str(), c.tone)));
            }
        }
        rule(&mut out, joints[2]);
        out
    }

    /// A Markdown table.
    pub(crate) fn to_markdown(&self) -> String {
        let mut out = String::new();
        let header: Vec<_> = self.header.iter().map(|h| escape(h)).collect();
        let _ = writeln!(out, "| {} |", header.join(" | "));
        let align = (0..self.header.len()).map(|i| if i < self.left { " --- |" } else { " ---: |" });
        let _ = writeln!(out, "|{}", align.collect::<String>());
        for (row, bold) in self.rows.iter().map(|r| (r, false)).chain(self.totals.iter().map(|r| (r, true))) {
            let cell = |c: &Cell| {
                let text = escape(&c.text);
                if bold || matches!(c.tone, Tone::Bad | Tone::Bold) { format!("**{text}**") } else { text }
            };
            let _ = writeln!(out, "| {} |", row.iter().map(cell).collect::<Vec<_>>().join(" | "));
        }
        out
    }
}

/// Text in a colour, if the style has any.
pub(crate) fn paint(text: &str, tone: Tone, style: Style) -> String {
    if style.color && tone != Tone::Plain { format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

/// Text that Markdown leaves alone.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '|' | '*' | '_' | '`' | '<' | '[' | ']' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            header: vec!["name".into(), "µs".into()],
            left: 1,
            rows: vec![vec!["a|b".into(), Cell::new("1.5", Tone::Bad)], vec!["c".into(), Cell::none()]],
            totals: vec![vec!["all".into(), "12.25".into()]],
        }
    }

    #[test]
    fn columns_line_up() {
        let text = table().to_text(Style::PLAIN);
        assert_eq!(
            text,
            "┌──────┬───────┐\n│ name │    µs │\n├──────┼───────┤\n│ a|b  │   1.5 │\n│ c    │     – │\n\
             ├──────┼───────┤\n│ all  │ 12.25 │\n└──────┴───────┘\n"
        );
        let ascii = table().to_text(Style::ASCII);
        assert!(ascii.is_ascii() && ascii.starts_with("+------+-------+\n| name |    us |\n"), "{ascii}");
    }

    #[test]
    fn colours_do_not_move_columns_and_are_absent_when_off() {
        let colored = table().to_text(Style::COLOR);
        assert!(colored.contains("\u{1b}[31m1.5\u{1b}[0m"));
        let mut stripped = colored;
        for code in ["\u{1b}[0m", "\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, table().to_text(Style::PLAIN));
        assert!(!stripped.contains('\u{1b}'));
    }

    #[test]
    fn markdown_survives_names_with_bars() {
        assert_eq!(
            table().to_markdown(),
            "| name | µs |\n| --- | ---: |\n| a\\|b | **1.5** |\n| c | – |\n| **all** | **12.25** |\n"
        );
    }
}
