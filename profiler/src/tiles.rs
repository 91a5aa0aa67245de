//! Time by level of the memory hierarchy: macro, midi and micro tiles.
//!
//! A kernel works on a matrix in tiles: a **macro** tile is what the whole gang takes from memory (a step of a plan), a **midi** tile what
//! one thread takes at a time (its second-level cache), a **micro** tile what a thread holds in registers. [`TileProfiler`] times tiles of
//! any level for kernels under development; [`Profile::tiles`] says what a recording knows: steps, and the threads' shares of them. Nothing
//! times the micro tiles of a running model: a clock read costs more than one of them.
//!
//! ```
//! use brick_profiler::tiles::{TileLevel, TileProfiler};
//!
//! let mut tiles: TileProfiler = TileProfiler::default();
//! tiles.enable(true);
//! let timer = tiles.start(TileLevel::Midi, 0, 3);
//! // … work on a tile of 64 × 576 weights …
//! tiles.stop(timer, 64 * 576, 2 * 64 * 576);
//! assert_eq!(tiles.stats(TileLevel::Midi).count, 1);
//! ```

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, TimeSource};
use crate::profile::{PhaseProfile, Profile};
use crate::step::Phase;

/// Level of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TileLevel {
    /// What all threads together take from memory.
    Macro,
    /// What one thread takes at a time.
    Midi,
    /// What a thread holds in registers.
    Micro,
}

impl TileLevel {
    /// Every level, largest first.
    pub const ALL: [Self; 3] = [Self::Macro, Self::Midi, Self::Micro];

    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Macro => "macro",
            Self::Midi => "midi",
            Self::Micro => "micro",
        }
    }
}

/// What a kernel is limited by, judged by its intensity alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boundness {
    /// Fewer than one operation per byte.
    Memory,
    /// Between one and four.
    Mixed,
    /// More than four.
    Compute,
}

/// Totals of one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TileStats {
    /// Tiles.
    pub count: u64,
    /// Their time together.
    pub total_ns: u64,
    /// Elements (of four bytes) they read.
    pub total_elements: u64,
    /// Operations they did; a multiply-add is two.
    pub total_flops: u64,
}

impl TileStats {
    /// Adds a tile.
    pub fn add(&mut self, ns: u64, elements: u64, flops: u64) {
        self.count += 1;
        self.total_ns = self.total_ns.saturating_add(ns);
        self.total_elements = self.total_elements.saturating_add(elements);
        self.total_flops = self.total_flops.saturating_add(flops);
    }

    /// 10⁹ operations per second; 0 without time.
    pub fn gflops(&self) -> f64 {
        // Per ns = 10⁹ per second.
        if self.total_ns == 0 { 0.0 } else { self.total_flops as f64 / self.total_ns as f64 }
    }

    /// Operations per byte, an element having four; 0 without elements.
    pub fn arithmetic_intensity(&self) -> f64 {
        if self.total_elements == 0 { 0.0 } else { self.total_flops as f64 / (self.total_elements as f64 * 4.0) }
    }

    /// Elements per second.
    pub fn throughput(&self) -> f64 {
        if self.total_ns == 0 { 0.0 } else { self.total_elements as f64 / (self.total_ns as f64 / 1e9) }
    }

    /// Fraction of a peak in 10⁹ operations per second; 0 for a peak that is none.
    pub fn cache_efficiency(&self, peak_gflops: f64) -> f64 {
        if peak_gflops > 0.0 { self.gflops() / peak_gflops } else { 0.0 }
    }

    /// Mean time of a tile in µs; 0 without tiles.
    pub fn avg_us(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.total_ns as f64 / self.count as f64 / 1000.0 }
    }

    /// What limits it, by its intensity.
    pub fn boundness(&self) -> Boundness {
        match self.arithmetic_intensity() {
            x if x < 1.0 => Boundness::Memory,
            x if x > 4.0 => Boundness::Compute,
            _ => Boundness::Mixed,
        }
    }
}

/// A tile whose time is running.
#[derive(Debug, Clone, Copy)]
#[must_use = "a tile that is not stopped is not counted"]
pub struct TileTimer {
    level: TileLevel,
    /// `None` while profiling is off: the clock was not read.
    begin_ns: Option<u64>,
    /// Place of the tile in its matrix, in tiles.
    pub row: u32,
    /// Likewise.
    pub col: u32,
}

/// Times tiles, level by level.
#[derive(Debug, Default)]
pub struct TileProfiler<T: TimeSource = Clock> {
    clock: T,
    enabled: bool,
    levels: [TileStats; 3],
}

impl<T: TimeSource> TileProfiler<T> {
    /// A profiler that is off, on a clock of the caller's choice.
    pub fn with_clock(clock: T) -> Self {
        Self { clock, enabled: false, levels: [TileStats::default(); 3] }
    }

    /// Switches profiling on or off. While it is off, no clock is read and nothing is counted.
    pub fn enable(&mut self, on: bool) {
        self.enabled = on;
    }

    /// Whether tiles are timed.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The time of a tile begins.
    #[inline]
    pub fn start(&self, level: TileLevel, row: u32, col: u32) -> TileTimer {
        TileTimer { level, begin_ns: self.enabled.then(|| self.clock.now_ns()), row, col }
    }

    /// The tile is done: it read so many elements and did so many operations.
    #[inline]
    pub fn stop(&mut self, timer: TileTimer, elements: u64, flops: u64) {
        if let Some(begin) = timer.begin_ns.filter(|_| self.enabled) {
            let ns = self.clock.now_ns().saturating_sub(begin);
            self.levels[timer.level as usize].add(ns, elements, flops);
        }
    }

    /// Totals of a level.
    pub fn stats(&self, level: TileLevel) -> TileStats {
        self.levels[level as usize]
    }

    /// A line per level.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        for level in TileLevel::ALL {
            let s = self.stats(level);
            let _ = writeln!(
                out,
                "{:<5}  {:>8} tiles  {:>10.2} µs each  {:>8.2} GFLOP/s  {:>6.2} FLOP/byte",
                level.name(),
                s.count,
                s.avg_us(),
                s.gflops(),
                s.arithmetic_intensity()
            );
        }
        out
    }

    /// Levels that have tiles, as data.
    pub fn report(&self) -> TileReport {
        let used = TileLevel::ALL.into_iter().filter(|l| self.stats(*l).count > 0);
        TileReport {
            tile_profiling_enabled: self.enabled,
            tiles: used.map(|level| TileEntry::new(level, &self.stats(level))).collect(),
        }
    }
}

/// The JSON of tile statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileReport {
    /// Whether tiles were timed.
    pub tile_profiling_enabled: bool,
    /// One per level.
    pub tiles: Vec<TileEntry>,
}

/// One level in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TileEntry {
    /// The level.
    pub level: TileLevel,
    /// Tiles.
    pub count: u64,
    /// Their time together. Measured.
    pub total_ns: u64,
    /// Mean time of one. Derived.
    pub avg_us: f64,
    /// 10⁹ operations per second. Derived.
    pub gflops: f64,
    /// Operations per byte. Derived.
    pub arithmetic_intensity: f64,
    /// Elements of four bytes. Derived.
    pub total_elements: u64,
    /// Operations. Derived.
    pub total_flops: u64,
}

impl TileEntry {
    fn new(level: TileLevel, s: &TileStats) -> Self {
        Self {
            level,
            count: s.count,
            total_ns: s.total_ns,
            avg_us: s.avg_us(),
            gflops: s.gflops(),
            arithmetic_intensity: s.arithmetic_intensity(),
            total_elements: s.total_elements,
            total_flops: s.total_flops,
        }
    }
}

impl Profile {
    /// What a recording says about tiles of a phase: steps as macro tiles, and each thread's share of a step (its busy time) as a midi tile.
    /// Elements are bytes ÷ 4, so that the intensity is that of the quantised data that moved. Levels that were not timed are left out;
    /// `None` if the phase or its steps were not recorded.
    pub fn tiles(&self, phase: Phase) -> Option<TileReport> {
        let p = self.phase(phase).filter(|p| !p.steps.is_empty())?;
        let mut tiles = vec![TileEntry::new(TileLevel::Macro, &macro_tiles(p))];
        tiles.extend(midi_tiles(p).map(|s| TileEntry::new(TileLevel::Midi, &s)));
        Some(TileReport { tile_profiling_enabled: true, tiles })
    }
}

fn macro_tiles(p: &PhaseProfile) -> TileStats {
    let tokens = p.measured.tokens as f64;
    let work = &p.derived.work;
    TileStats {
        count: p.steps.iter().map(|s| s.measured.calls).sum(),
        total_ns: (p.measured.steps_us * 1e3) as u64,
        total_elements: (work.bytes_per_token * tokens / 4.0) as u64,
        total_flops: ((work.int_ops_per_token + work.flops_per_token) * tokens) as u64,
    }
}

/// The same work, by the time that threads were busy with it.
fn midi_tiles(p: &PhaseProfile) -> Option<TileStats> {
    let whole = macro_tiles(p);
    let busy: f64 = p.threads.iter().map(|t| t.busy_us).sum();
    (busy > 0.0).then(|| TileStats {
        count: whole.count.saturating_mul(p.threads.len() as u64),
        total_ns: (busy * 1e3) as u64,
        ..whole
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn stats(count: u64, total_ns: u64, total_elements: u64, total_flops: u64) -> TileStats {
        TileStats { count, total_ns, total_elements, total_flops }
    }

    #[test]
    fn rates_are_those_of_their_definitions() {
        assert_eq!(stats(1, 1_000_000_000, 1, 1_000_000_000).gflops(), 1.0);
        assert_eq!(stats(1, 1, 50, 400).arithmetic_intensity(), 2.0);
        let checked = stats(10, 52_800_000, 10_485_760, 20_971_520);
        assert_eq!(checked.avg_us(), 5280.0);
        assert_eq!((checked.gflops() * 100.0).round(), 40.0);
        assert_eq!(checked.arithmetic_intensity(), 0.5);
        assert_eq!(stats(1, 2_000_000_000, 10, 0).throughput(), 5.0);
        assert_eq!(stats(1, 10, 1, 40).cache_efficiency(8.0), 0.5);
        assert_eq!(stats(1, 10, 1, 40).cache_efficiency(0.0), 0.0);
        let nothing = TileStats::default();
        assert_eq!(
            (nothing.gflops(), nothing.avg_us(), nothing.throughput(), nothing.arithmetic_intensity()),
            (0.0, 0.0, 0.0, 0.0)
        );
        let bound = |flops| stats(1, 1, 1, flops).boundness();
        assert_eq!([bound(3), bound(4), bound(16), bound(17)].map(|b| b as u8), [0, 1, 1, 2]);
    }

    #[test]
    fn levels_are_kept_apart_and_nothing_is_counted_while_off() {
        let clock = ManualClock::new();
        let mut tiles = TileProfiler::with_clock(&clock);
        let off = tiles.start(TileLevel::Micro, 0, 0);
        clock.advance(5);
        tiles.stop(off, 1, 1);
        assert_eq!((tiles.stats(TileLevel::Micro).count, clock.reads()), (0, 0));
        tiles.enable(true);
        for i in 0..4 {
            let timer = tiles.start(TileLevel::Micro, i, 0);
            clock.advance(10);
            tiles.stop(timer, 8, 16);
        }
        let timer = tiles.start(TileLevel::Midi, 0, 1);
        assert_eq!((timer.row, timer.col), (0, 1));
        clock.advance(100);
        tiles.stop(timer, 64, 128);
        assert_eq!(tiles.stats(TileLevel::Micro), stats(4, 40, 32, 64));
        assert_eq!(tiles.stats(TileLevel::Midi), stats(1, 100, 64, 128));
        assert_eq!(tiles.stats(TileLevel::Macro), TileStats::default());
        let json = serde_json::to_value(tiles.report()).unwrap();
        assert_eq!((json["tiles"][0]["level"].as_str(), json["tiles"][1]["count"].as_u64()), (Some("midi"), Some(4)));
        assert_eq!(serde_json::from_value::<TileReport>(json).unwrap(), tiles.report());
        insta::assert_snapshot!(tiles.summary());
    }

    #[test]
    fn a_recording_has_steps_as_macro_tiles() {
        let p = crate::testing::profile();
        let report = p.tiles(Phase::Decode).unwrap();
        let [tile] = report.tiles.as_slice() else { panic!("no threads, no midi tiles: {report:?}") };
        let decode = p.phase(Phase::Decode).unwrap();
        assert_eq!((tile.level, tile.count), (TileLevel::Macro, 5 * decode.steps.len() as u64));
        // Q4_K: 3.6 operations per byte at most, and some bytes that are not weights.
        assert!(tile.arithmetic_intensity > 1.0 && tile.arithmetic_intensity < 10.0, "{tile:?}");
        assert_eq!(p.tiles(Phase::Mixed), None);
    }
}
