//! Totals as stacks: one line per brick, read by every flame graph program.

use std::fmt::Write;

use inferno::flamegraph::{self, Options};

use super::ExportError;
use crate::profile::{PhaseProfile, Profile};
use crate::report::clean;

impl Profile {
    /// Folded stacks with total nanoseconds, in the order of the plan:
    ///
    /// ```text
    /// smollm2;decode;layer 3;blk.3.ffn_down;linear_q4_1_avx512-vnni 4711000
    /// ```
    ///
    /// Host work between forward calls is `model;phase;Sample`, wall time that no brick is charged with
    /// `model;phase;(not charged to bricks)`; so the lines of a phase add up to its wall time and its host work. Without
    /// times of bricks, layers are the last frames.
    pub fn to_folded(&self) -> String {
        let mut out = String::new();
        let model = frame(&self.model.name);
        for phase in &self.phases {
            let mut line = |frames: &[&str], us: f64| {
                let ns = (us * 1e3).round();
                if ns >= 1.0 {
                    let _ = writeln!(out, "{model};{};{} {ns:.0}", phase.phase, frames.join(";"));
                }
            };
            let layer = |l: Option<u32>| l.map_or_else(|| "no layer".to_owned(), |l| format!("layer {l}"));
            for s in &phase.steps {
                line(&[&layer(s.layer), &frame(&s.name), &frame(&s.kernel)], s.measured.total_us);
            }
            if phase.steps.is_empty() {
                for l in &phase.layers {
                    line(&[&layer(l.layer)], l.measured.total_us);
                }
            }
            for (name, us) in host_work(phase) {
                line(&[name], us);
            }
            line(&["(not charged to bricks)"], phase.measured.wall_us - phase.measured.steps_us);
        }
        out
    }

    /// The stacks of [`to_folded`](Self::to_folded) as a flame graph: an SVG that zooms and searches by itself.
    ///
    /// # Errors
    /// [`ExportError::NothingRecorded`] for a profile without time.
    pub fn to_flamegraph_svg(&self) -> Result<String, ExportError> {
        let folded = self.to_folded();
        if folded.is_empty() {
            return Err(ExportError::NothingRecorded);
        }
        let mut options = Options::default();
        options.title = format!("{} – where the time goes", clean(&self.model.name));
        options.subtitle = self.machine.as_ref().map(|m| clean(&m.fingerprint.to_string()));
        // Counts are nanoseconds; people read microseconds.
        "µs".clone_into(&mut options.count_name);
        options.factor = 1e-3;
        "Scope:".clone_into(&mut options.name_type);
        // The plan has an order, and layer 10 does not come before layer 2. This mode keeps the order of the lines; it reads
        // them from the last to the first.
        options.flame_chart = true;
        options.deterministic = true;
        options.hash = true;
        let mut svg = Vec::new();
        flamegraph::from_lines(&mut options, folded.lines().rev(), &mut svg).map_err(ExportError::FlameGraph)?;
        String::from_utf8(svg).map_err(|e| ExportError::FlameGraph(std::io::Error::other(e)))
    }
}

/// Work of kinds that is not in steps, in the order of kinds; all of it in one piece where kinds were not timed.
fn host_work(phase: &PhaseProfile) -> Vec<(&'static str, f64)> {
    if phase.kinds.is_empty() {
        return vec![("(host work)", phase.measured.external_us)];
    }
    let in_steps = |kind| phase.steps.iter().filter(|s| s.kind == kind).map(|s| s.measured.total_us).sum::<f64>();
    phase.kinds.iter().map(|k| (k.kind.name(), k.measured.total_us - in_steps(k.kind))).collect()
}

/// A name as a frame: on one line, and without what separates frames. Readers take the last field of a line as its count,
/// so blanks inside are fine.
fn frame(name: &str) -> String {
    let name = clean(name).replace(';', ",");
    let name = name.trim();
    if name.is_empty() { "(no name)".to_owned() } else { name.to_owned() }
}
