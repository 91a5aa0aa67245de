//! The roofline plot: operations per byte against operations per second, with what the machine allows.
//!
//! | module | how it is drawn |
//! | --- | --- |
//! | `svg` | for documents and browsers |
//! | `ascii` | for terminals |

mod ascii;
mod svg;

use bricks::BrickKind;

use crate::profile::{KindRow, PhaseProfile, Profile};

/// A plot before it is drawn. Both axes are decimal logarithms.
struct Plot {
    /// Bandwidths in 10⁹ bytes per second, fastest level first.
    memory: Vec<(&'static str, f64)>,
    /// Peaks in 10⁹ operations per second.
    compute: Vec<(&'static str, f64)>,
    /// Kinds that have bytes, operations and time; those that take most time first.
    points: Vec<Point>,
    /// Kinds that lack one of these.
    left_out: Vec<BrickKind>,
    /// Ends of the axes: powers of ten.
    x: (i32, i32),
    y: (i32, i32),
}

struct Point {
    kind: BrickKind,
    /// Operations per byte. Derived.
    intensity: f64,
    /// 10⁹ operations per second of measured time.
    rate: f64,
    share: f64,
    bound: Option<PointBound>,
}

/// What physics allows a kind.
struct PointBound {
    /// 10⁹ operations per second.
    rate: f64,
    resource: &'static str,
    /// Bound ÷ measured mean.
    fraction: f64,
}

impl Plot {
    /// `None` where kinds were not timed.
    fn new(profile: &Profile, phase: &PhaseProfile) -> Option<Self> {
        if phase.kinds.is_empty() {
            return None;
        }
        let (mut memory, mut compute) = (vec![], vec![]);
        if let Some(machine) = &profile.machine {
            let (m, threads) = (&machine.measured, profile.run.threads);
            memory.extend(m.read.iter().map(|b| (b.level.name(), b.gb_s.at(threads, m.threads))));
            let peaks = [
                ("int8 tiles", m.tile_int8_gop_s.as_ref()),
                ("int8", Some(&m.int8_gop_s)),
                ("f32", Some(&m.f32_gflop_s)),
            ];
            compute.extend(peaks.into_iter().filter_map(|(name, p)| Some((name, p?.at(threads, m.threads)))));
        }
        // A profile from a file may say anything.
        let plottable = |(_, x): &(&str, f64)| x.is_finite() && *x > 0.0;
        memory.retain(plottable);
        compute.retain(plottable);
        let mut points = Vec::new();
        let mut left_out = Vec::new();
        for row in &phase.kinds {
            match point(row) {
                Some(p) => points.push(p),
                None => left_out.push(row.kind),
            }
        }
        points.sort_by(|a, b| b.share.total_cmp(&a.share));
        let xs = points.iter().map(|p| p.intensity);
        // The corner where the slowest memory meets the highest peak belongs to the plot, unless it is far away.
        let slowest = memory.iter().map(|m| m.1).fold(f64::INFINITY, f64::min);
        let corner = compute.iter().map(|c| c.1 / slowest).fold(f64::NEG_INFINITY, f64::max);
        let x = decades(xs.chain((corner > 0.0).then_some(corner.min(1e4))));
        let rates = points.iter().flat_map(|p| [Some(p.rate), p.bound.as_ref().map(|b| b.rate)]).flatten();
        let y = decades(rates.chain(compute.iter().map(|c| c.1)));
        let plot = Self { memory, compute, points, left_out, x, y };
        Some(plot.without_what_is_outside())
    }

    fn without_what_is_outside(mut self) -> Self {
        let inside = |at: f64| (0.0..=1.0).contains(&at);
        let (points, outside) = std::mem::take(&mut self.points)
            .into_iter()
            .partition::<Vec<_>, _>(|p| inside(self.at_x(p.intensity)) && inside(self.at_y(p.rate)));
        self.left_out.extend(outside.iter().map(|p| p.kind));
        Self { points, ..self }
    }

    /// The highest rate at an intensity, if memory is all that limits it.
    fn roof(&self, gb_s: f64) -> (f64, f64) {
        let top = self.compute.iter().map(|c| c.1).fold(f64::NEG_INFINITY, f64::max);
        let top = if top > 0.0 { top } else { 10f64.powi(self.y.1) };
        (top / gb_s, top)
    }

    /// Position of an intensity on its axis, 0 to 1 within the plot.
    fn at_x(&self, intensity: f64) -> f64 {
        (intensity.log10() - f64::from(self.x.0)) / f64::from(self.x.1 - self.x.0)
    }

    /// Position of a rate on its axis, 0 at the bottom.
    fn at_y(&self, rate: f64) -> f64 {
        (rate.log10() - f64::from(self.y.0)) / f64::from(self.y.1 - self.y.0)
    }
}

fn point(row: &KindRow) -> Option<Point> {
    let w = &row.derived.work;
    let positive = |x: f64| (x.is_finite() && x > 0.0).then_some(x);
    let operations = positive(w.int_ops_per_token + w.flops_per_token)?;
    let bytes = positive(w.bytes_per_token)?;
    let rate = positive(w.int_gop_per_s.unwrap_or(0.0) + w.gflop_per_s.unwrap_or(0.0))?;
    let bound = row.derived.bound.as_ref().and_then(|b| {
        let us = positive(b.us_per_token)?;
        Some(PointBound { rate: operations / us / 1e3, resource: b.resource.name(), fraction: b.fraction })
    });
    Some(Point { kind: row.kind, intensity: operations / bytes, rate, share: row.derived.share, bound })
}

/// The decades around values: at least one, and the highest dozen of more, which only nonsense has.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (low, high) = values
        .filter(|v| v.is_finite() && *v > 0.0)
        .map(f64::log10)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if low > high {
        return (0, 1);
    }
    let (low, high) = ((low - 0.1).floor() as i32, (high + 0.1).ceil() as i32);
    (low.max(high - 12), high.max(low + 1))
}
