//! The limits of a machine as text.

use std::fmt::Write;

use super::Style;
use super::format::{bytes, clean, count, number};
use super::table::{Cell, Table, Tone, paint};
use crate::machine::{Machine, MemoryLevel, PerThreads};

impl Machine {
    /// Cores, caches and measured limits as aligned text.
    pub fn to_text(&self, style: Style) -> String {
        let plain = |s: &str| style.plain(s);
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
        let bound =
            if r.pin_to(r.useful_threads()).is_empty() { "where the system puts them" } else { "one to a core" };
        fact("threads", &format!("{} by default, {bound} (derived from cores and quota)", r.useful_threads()));
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
        // Where translation matters: in the first two levels it does not.
        for b in m.read.iter().filter(|b| !matches!(b.level, MemoryLevel::L1 | MemoryLevel::L2)) {
            let name = format!("read {} ({}, small pages), GB/s", b.level, bytes(b.working_set_bytes));
            rows.push([vec![name.into()], pair(&b.small_pages_gb_s).to_vec()].concat());
        }
        let peaks = [
            ("int8, GOP/s", Some(&m.int8_gop_s)),
            ("int8 tiles, GOP/s", m.tile_int8_gop_s.as_ref()),
            ("bf16, GFLOP/s", m.bf16_gflop_s.as_ref()),
            ("bf16 tiles, GFLOP/s", m.tile_bf16_gflop_s.as_ref()),
            ("f32, GFLOP/s", Some(&m.f32_gflop_s)),
        ];
        for (name, value) in peaks.into_iter().filter_map(|(name, value)| Some((name, value?))) {
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
