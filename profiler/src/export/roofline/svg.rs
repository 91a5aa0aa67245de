//! The roofline as SVG: no script, colours for light and dark, a tooltip per point.

use std::fmt::Write;

use bricks::BrickCategory;

use super::{Plot, Point};
use crate::profile::Profile;
use crate::report::{clean, number};
use crate::step::Phase;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 560.0;
/// Left, right, top and bottom of the plot within the picture.
const AREA: [f64; 4] = [70.0, 876.0, 54.0, 500.0];
/// Mean width of a character of a label.
const CHAR: f64 = 6.9;

const STYLE: &str = "
svg { background: #fff; color-scheme: light dark; font: 12px system-ui, sans-serif; }
text { fill: #5d6570; } .strong { fill: #1d2127; font-weight: 600; } .title { fill: #1d2127; font-size: 16px; font-weight: 650; }
.grid { stroke: #efede8; } .axis { stroke: #d8d4cd; } .memory { stroke: #2f6db3; } .compute { stroke: #8a4fb0; }
text.memory { fill: #2f6db3; stroke: none; } text.compute { fill: #8a4fb0; stroke: none; }
.norm { --c: #7c8b9c; } .attention { --c: #2f6db3; } .ffn { --c: #c0472c; } .other { --c: #2b7d6c; }
.point circle { fill: var(--c); stroke: #fff; } .point line { stroke: var(--c); } .point .allowed { fill: #fff; stroke: var(--c); }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 3px; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
svg { background: #1a1d22; } text { fill: #a5abb4; } .strong, .title { fill: #e7e5e1; } .grid { stroke: #24282e; } .axis { stroke: #3a4048; }
.memory { stroke: #79aeea; } .compute { stroke: #c795ea; } text.memory { fill: #79aeea; } text.compute { fill: #c795ea; }
.norm { --c: #93a2b3; } .attention { --c: #5c9be0; } .ffn { --c: #e5714f; } .other { --c: #47ab97; }
.point circle, .halo { stroke: #1a1d22; } .point .allowed { fill: #1a1d22; stroke: var(--c); }
}
";

impl Profile {
    /// The roofline of a phase as SVG: limits of the machine as lines, a point per kind (its size is its share of the
    /// time), a ring where its bound is. `None` if no forward of the phase was recorded or kinds were not timed.
    pub fn to_roofline_svg(&self, phase: Phase) -> Option<String> {
        let plot = Plot::new(self, self.phase(phase)?)?;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             role=\"img\">\n<title>Roofline</title>\n<style>{STYLE}</style>\n<clipPath id=\"area\"><rect x=\"{}\" y=\"{}\" \
             width=\"{}\" height=\"{}\"/></clipPath>\n",
            AREA[0],
            AREA[2],
            AREA[1] - AREA[0],
            AREA[3] - AREA[2],
        );
        let title = format!("{} · {phase}", clean(&self.model.name));
        let machine = self
            .machine
            .as_ref()
            .map_or_else(|| "limits of the machine not measured".to_owned(), |m| clean(&m.fingerprint.to_string()));
        text(&mut out, (AREA[0], 24.0), "title", "start", &title);
        text(&mut out, (AREA[0], 42.0), "", "start", &machine);
        let mut picture = Picture { plot: &plot, placed: vec![], out };
        picture.axes();
        picture.ceilings();
        picture.points();
        let mut out = picture.out;
        text(&mut out, (f64::midpoint(AREA[0], AREA[1]), 534.0), "", "middle", "operations per byte*");
        out.push_str("<g transform=\"translate(18 277) rotate(-90)\">");
        text(&mut out, (0.0, 0.0), "", "middle", "10⁹ operations per second*");
        out.push_str("</g>\n");
        let note = if plot.points.is_empty() {
            "no kind has bytes, operations and time"
        } else {
            "* derived; a dot is what was measured, the ring above it what its bound allows; size is share of the time"
        };
        text(&mut out, (AREA[0], 552.0), "", "start", note);
        out.push_str("</svg>\n");
        Some(out)
    }
}

/// What is drawn so far, and the boxes that labels must not cover: left, top, width, height.
struct Picture<'a> {
    plot: &'a Plot,
    placed: Vec<[f64; 4]>,
    out: String,
}

impl Picture<'_> {
    fn x(&self, intensity: f64) -> f64 {
        AREA[0] + self.plot.at_x(intensity) * (AREA[1] - AREA[0])
    }

    fn y(&self, rate: f64) -> f64 {
        AREA[3] - self.plot.at_y(rate) * (AREA[3] - AREA[2])
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), rest: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.out,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" clip-path=\"url(#area)\" {rest}/>"
        );
    }

    fn is_free(&self, [x, y, w, h]: [f64; 4]) -> bool {
        self.placed.iter().all(|q| x >= q[0] + q[2] || q[0] >= x + w || y >= q[1] + q[3] || q[1] >= y + h)
    }

    fn axes(&mut self) {
        let (xs, ys) = (self.plot.x, self.plot.y);
        for d in xs.0..=xs.1 {
            let at = self.x(10f64.powi(d));
            self.line((at, AREA[2]), (at, AREA[3]), "class=\"axis\"");
            text(&mut self.out, (at, AREA[3] + 16.0), "", "middle", &power(d));
        }
        for d in ys.0..=ys.1 {
            let at = self.y(10f64.powi(d));
            self.line((AREA[0], at), (AREA[1], at), "class=\"axis\"");
            text(&mut self.out, (AREA[0] - 8.0, at + 4.0), "", "end", &power(d));
        }
    }

    fn ceilings(&mut self) {
        let left = 10f64.powi(self.plot.x.0);
        let per_decade = |low: f64, high: f64, decades: (i32, i32)| (high - low) / f64::from(decades.1 - decades.0);
        let rise = per_decade(AREA[2], AREA[3], self.plot.y) / per_decade(AREA[0], AREA[1], self.plot.x);
        for &(name, gb_s) in &self.plot.memory {
            let (corner, top) = self.plot.roof(gb_s);
            self.line(
                (self.x(left), self.y(left * gb_s)),
                (self.x(corner), self.y(top)),
                "class=\"memory\" stroke-width=\"1.6\"",
            );
            self.label_on_slope(name, gb_s, rise);
        }
        let fastest = self.plot.memory.iter().map(|m| m.1).fold(f64::NEG_INFINITY, f64::max);
        for &(name, gop_s) in &self.plot.compute {
            let from = if fastest > 0.0 { (gop_s / fastest).max(left) } else { left };
            let y = self.y(gop_s);
            self.line((self.x(from), y), (AREA[1], y), "class=\"compute\" stroke-width=\"1.6\"");
            let label = format!("{name} {} GOP/s", number(gop_s));
            let width = label.chars().count() as f64 * CHAR;
            let mut at = [AREA[1] - width - 4.0, y - 16.0, width, 13.0];
            while !self.is_free(at) && at[1] > AREA[2] {
                at[1] -= 13.0;
            }
            self.placed.push(at);
            text(&mut self.out, (AREA[1] - 4.0, at[1] + 11.0), "compute", "end", &label);
        }
    }

    /// The name of a level of memory on its line, as near to where the line enters the plot as there is room.
    fn label_on_slope(&mut self, name: &str, gb_s: f64, rise: f64) {
        let label = format!("{name} {} GB/s", number(gb_s));
        let (width, run) = (label.chars().count() as f64 * CHAR, 1.0 / rise.hypot(1.0));
        let start = 10f64.powi(self.plot.x.0).max(10f64.powi(self.plot.y.0) / gb_s);
        let (x0, y0) = (self.x(start), self.y(start * gb_s));
        let at = |x: f64| {
            let high = width * rise * run;
            [x, y0 - (x - x0) * rise - 18.0 - high, width * run, high + 14.0]
        };
        let end = self.x(self.plot.roof(gb_s).0);
        let fits = |&x: &f64| x + width * run < end && at(x)[1] > AREA[2] && self.is_free(at(x));
        let Some(x) = (0..6).map(|k| x0 + 12.0 + f64::from(k) * 70.0).find(fits) else { return };
        self.placed.push(at(x));
        let (y, angle) = (y0 - (x - x0) * rise - 7.0, -rise.atan().to_degrees());
        let _ = write!(self.out, "<g transform=\"translate({x:.1} {y:.1}) rotate({angle:.1})\">");
        text(&mut self.out, (0.0, 0.0), "memory", "start", &label);
        self.out.push_str("</g>\n");
    }

    fn points(&mut self) {
        let plot = self.plot;
        let most = plot.points.iter().map(|p| p.share).fold(f64::MIN_POSITIVE, f64::max);
        for p in &plot.points {
            let (x, y) = (self.x(p.intensity), self.y(p.rate));
            let r = radius(p, most);
            self.placed.push([x - r, y - r, 2.0 * r, 2.0 * r]);
        }
        for p in &plot.points {
            let (x, y) = (self.x(p.intensity), self.y(p.rate));
            let radius = radius(p, most);
            let class = match p.kind.category() {
                BrickCategory::Norm => "norm",
                BrickCategory::Attention => "attention",
                BrickCategory::Ffn => "ffn",
                BrickCategory::Other => "other",
            };
            let _ = write!(self.out, "<g class=\"point {class}\"><title>{}</title>", escape(&about(p)));
            if let Some(b) = &p.bound {
                let top = self.y(b.rate);
                self.line((x, y), (x, top), "stroke-width=\"1.4\" stroke-dasharray=\"2 2\"");
                let _ = write!(
                    self.out,
                    "<circle class=\"allowed\" cx=\"{x:.1}\" cy=\"{top:.1}\" r=\"4\" stroke-dasharray=\"2 1.5\"/>"
                );
            }
            let _ = writeln!(self.out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/></g>");
        }
        for p in &plot.points {
            self.label(p);
        }
    }

    /// The name of a kind where it covers nothing; where there is no such place the tooltip has to do.
    fn label(&mut self, p: &Point) {
        let (x, y, r) = (self.x(p.intensity), self.y(p.rate), 10.5);
        let name = p.kind.name();
        let w = name.len() as f64 * (CHAR + 0.7);
        let places = [
            (r + 4.0, 4.0),
            (-w - r - 4.0, 4.0),
            (-w / 2.0, r + 13.0),
            (-w / 2.0, -r - 5.0),
            (r, r + 12.0),
            (-w - r, r + 12.0),
            (r, -r - 4.0),
            (-w - r, -r - 4.0),
        ];
        let fits = |&(dx, dy): &(f64, f64)| {
            let at = [x + dx, y + dy - 10.0, w, 12.0];
            at[0] > AREA[0] && at[0] + w < AREA[1] && at[1] > AREA[2] && at[1] + 12.0 < AREA[3] && self.is_free(at)
        };
        if let Some((dx, dy)) = places.into_iter().find(fits) {
            self.placed.push([x + dx, y + dy - 10.0, w, 12.0]);
            text(&mut self.out, (x + dx, y + dy), "strong halo", "start", name);
        }
    }
}

/// Area grows with the share of the time.
fn radius(p: &Point, most: f64) -> f64 {
    4.5 + 6.0 * (p.share / most).clamp(0.0, 1.0).sqrt()
}

/// The tooltip of a point.
fn about(p: &Point) -> String {
    let mut out = format!(
        "{}\n{} operations/byte*\n{} GOP/s*\n{:.1}% of the time*",
        p.kind.name(),
        number(p.intensity),
        number(p.rate),
        p.share * 100.0
    );
    if let Some(b) = &p.bound {
        let _ = write!(out, "\n{:.1}% of {} GOP/s*, which {} allows", b.fraction * 100.0, number(b.rate), b.resource);
    }
    out
}

fn text(out: &mut String, (x, y): (f64, f64), class: &str, anchor: &str, content: &str) {
    let content = escape(content);
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{content}</text>");
}

/// Text between tags. Control characters, which XML cannot hold, are gone already.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn power(d: i32) -> String {
    match d {
        -3..=4 => format!("{}", 10f64.powi(d)),
        d => format!("1e{d}"),
    }
}
