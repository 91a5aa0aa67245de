//! The limits of a machine as text.

use std::fmt::Write;

use super::Style;
use super::format::{ascii, bytes, clean, count, number};
use super::table::{Cell, Table, Tone, paint};
use crate::machine::{Machine, PerThreads};

impl Machine {
    /// Cores, caches and measured limits as aligned text.
    pub fn to_text(&self, style: Style) -> String {
        let plain = |s: &str| if style.unicode { s.to_owned() } else { ascii(s) };
        let (r, m) = (&self.reported, &self.measured);
        let mut out = String::new();
        let mut fact = |key: &str, value: &str| {
            let _ = writeln!(out, "{} {}", paint(&format!("{key:<11}"), Tone::Bold, style), plain(value));
        };
        fact("processor", &clean(&r.model));
        fact(
            "cores",
            &format!(
                "{}, {}{}",
                count(r.physical_cores as u64, "core"),
                count(r.logical_cores as u64, "hardware thread"),
                r.quota_millicores.map_or_else(String::new, |q| format!(", quota {:.2} cores", q as f64 / 1e3)),
            ),
        );
        fact("SIMD", &clean(&self.fingerprint.simd));
        let caches = r.caches.iter().map(|c| format!("L{} {} × {}", c.level, c.instances, bytes(c.bytes)));
        let caches: Vec<_> = caches.collect();
        fact("caches", if caches.is_empty() { "not reported".into() } else { caches.join(" · ") }.as_str());
        fact("huge pages", &r.huge_pages.as_ref().map_or_else(|| "not reported".into(), |h| clean(h)));
        fact("clock", &format!("resolution {} ns, {:.1} ns per read", m.clock.resolution_ns, m.clock.read_ns));
        fact("barrier", &format!("{:.0} ns for {}", m.barrier_ns, count(m.threads as u64, "thread")));

        let pair = |p: &PerThreads| -> [Cell; 2] { [number(p.one).into(), number(p.all).into()] };
        let mut rows: Vec<Vec<Cell>> = Vec::new();
        for b in &m.read {
            let name = format!("read {} ({}), GB/s", b.level, bytes(b.working_set_bytes));
            rows.push([vec![name.into()], pair(&b.gb_s).to_vec()].concat());
        }
        for (name, value) in [("int8, GOP/s", &m.int8_gop_s), ("f32, GFLOP/s", &m.f32_gflop_s)] {
            rows.push([vec![name.into()], pair(value).to_vec()].concat());
        }
        let table = Table {
            header: vec!["measured limit".into(), "1 thread".into(), count(m.threads as u64, "thread")],
            left: 1,
            rows,
            totals: vec![],
        };
        out.push_str(&table.to_text(style));
        let _ = writeln!(out, "best of several repeats; brick {}", clean(&self.fingerprint.brick_version));
        out
    }
}
