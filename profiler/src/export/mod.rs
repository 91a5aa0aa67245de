//! A profile for other programs, and for eyes.
//!
//! | module | what it gives |
//! | --- | --- |
//! | `html` | [`Profile::to_html`]: one page with every figure, which needs nothing but itself |
//! | `trace` | [`Profile::to_chrome_trace`]: Trace Event Format, for Perfetto, `chrome://tracing`, speedscope |
//! | `folded` | [`Profile::to_folded`], [`Profile::to_flamegraph_svg`]: totals as stacks |
//! | `roofline` | [`Profile::to_roofline_svg`], [`Profile::to_roofline_ascii`]: rates against the machine's limits |
//!
//! Names come from files that anybody may have written. Each format has its own way to keep them from being read as
//! anything but text, and a test that tries.

mod folded;
mod html;
mod roofline;
mod trace;

#[cfg(test)]
mod browser;
#[cfg(test)]
mod tests;

#[cfg(doc)]
use crate::profile::Profile;

/// An export cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// There is no time to divide.
    #[error("expected a profile with recorded time, found one without: there is nothing to draw")]
    NothingRecorded,
    /// The flame graph's crate refused the stacks.
    #[error("expected stacks that can be drawn as a flame graph, found: {0}")]
    FlameGraph(#[source] std::io::Error),
}
