//! Reports for people: aligned text and Markdown.
//!
//! A column or value marked `*` is derived; everything else is measured. A value marked `!` cannot be true as it stands, and
//! a footnote says why.
//!
//! | module | content |
//! | --- | --- |
//! | `table` | cells, columns, and how they are drawn |
//! | `format` | numbers and names as text |
//! | `profile` | a [`crate::Profile`] as tables and lines |
//! | `stamps` | [`crate::profile::DeviceStamps`] |
//! | `diff`, `score` | [`crate::diff`], [`crate::score`] |
//! | `machine` | a [`crate::Machine`] |
//! | `gate` | a [`crate::gate::Report`] |

mod diff;
pub mod format;
mod gate;
mod machine;
mod profile;
mod score;
mod stamps;
pub(crate) mod table;

#[cfg(test)]
mod tests;

pub(crate) use format::{clean, number};
pub use profile::ReportOptions;

/// How text is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Box drawing, µ and ×; plain ASCII otherwise.
    pub unicode: bool,
    /// ANSI colours. Off, no escape sequence is ever written.
    pub color: bool,
}

impl Style {
    /// Unicode without colours.
    pub const PLAIN: Self = Self { unicode: true, color: false };
    /// ASCII without colours.
    pub const ASCII: Self = Self { unicode: false, color: false };
    /// Unicode with colours.
    pub const COLOR: Self = Self { unicode: true, color: true };

    /// Text as this style can show it.
    pub(crate) fn plain(self, text: &str) -> String {
        if self.unicode { text.to_owned() } else { format::ascii(text) }
    }
}

impl Default for Style {
    fn default() -> Self {
        Self::PLAIN
    }
}
