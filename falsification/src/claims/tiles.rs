//! F371–F378: time by level of the memory hierarchy.

use std::time::Instant;

use brick_profiler::tiles::{TileLevel, TileProfiler, TileReport, TileStats};
use brick_profiler::{Machine, ManualClock, Phase};

use crate::claim::{Claim, Family, Outcome, require, require_eq, require_some};
use crate::context::Context;
use crate::runs;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Tile, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F371", "10⁹ operations in a second read as 1 GFLOP/s", "exact", f371),
    claim!("F372", "400 operations over 200 bytes read as 2 operations per byte", "exact", f372),
    claim!("F373", "Levels are counted apart", "4 micro, 1 midi", f373),
    claim!("F374", "One start and stop of a tile is cheap", "< 500 ns", f374),
    claim!("F375", "Switched off, no tile is counted and no clock is read", "0", f375),
    claim!("F376", "The summary lists every level with its GFLOP/s", "3 lines", f376),
    claim!("F377", "The JSON of tiles is read back as it was written", "equal", f377),
    claim!("F378", "The intensity of a real 4-bit model's decoding is realistic", "0.5 < ops per byte < 10", f378),
];

fn stats(total_ns: u64, total_elements: u64, total_flops: u64) -> TileStats {
    TileStats { count: 1, total_ns, total_elements, total_flops }
}

fn f371(_: &Context) -> Outcome {
    require_eq("GFLOP/s", &stats(1_000_000_000, 1, 1_000_000_000).gflops(), &1.0)?;
    require_eq("GFLOP/s of no time", &stats(0, 1, 5).gflops(), &0.0)?;
    Ok("1 GFLOP/s; 0 where no time passed".into())
}

fn f372(_: &Context) -> Outcome {
    require_eq("operations per byte", &stats(1, 50, 400).arithmetic_intensity(), &2.0)?;
    Ok("2.0 operations per byte".into())
}

/// Four micro tiles and one midi tile.
fn five_tiles(clock: &ManualClock) -> TileProfiler<&ManualClock> {
    let mut tiles = TileProfiler::with_clock(clock);
    tiles.enable(true);
    for level in [TileLevel::Micro, TileLevel::Micro, TileLevel::Midi, TileLevel::Micro, TileLevel::Micro] {
        let timer = tiles.start(level, 0, 0);
        clock.advance(10);
        tiles.stop(timer, 64, 128);
    }
    tiles
}

fn f373(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let tiles = five_tiles(&clock);
    let counts = TileLevel::ALL.map(|l| tiles.stats(l).count);
    require_eq("macro, midi, micro", &counts, &[0, 1, 4])?;
    Ok("0 macro, 1 midi, 4 micro".into())
}

fn f374(_: &Context) -> Outcome {
    let mut tiles: TileProfiler = TileProfiler::default();
    tiles.enable(true);
    // The best of several rounds: the claim is about the cost, not about what else the machine does.
    let round = |tiles: &mut TileProfiler| {
        let start = Instant::now();
        for i in 0..1000 {
            let timer = tiles.start(TileLevel::Micro, i, 0);
            tiles.stop(timer, 1, 1);
        }
        start.elapsed().as_nanos() as f64 / 1000.0
    };
    let best = (0..50).map(|_| round(&mut tiles)).fold(f64::INFINITY, f64::min);
    require(best < 500.0, "less than 500 ns", || format!("{best:.0} ns"))?;
    Ok(format!("{best:.0} ns, the best of 50 rounds of 1000"))
}

fn f375(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let mut tiles = TileProfiler::with_clock(&clock);
    let timer = tiles.start(TileLevel::Macro, 0, 0);
    tiles.stop(timer, 1, 1);
    let count: u64 = TileLevel::ALL.map(|l| tiles.stats(l).count).iter().sum();
    require_eq("(tiles, clock reads)", &(count, clock.reads()), &(0, 0))?;
    Ok("0 tiles, 0 clock reads".into())
}

fn f376(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let summary = five_tiles(&clock).summary();
    for level in TileLevel::ALL {
        let line = require_some(summary.lines().find(|l| l.starts_with(level.name())), level.name())?;
        require(line.contains("GFLOP/s"), "GFLOP/s in each line", || line.into())?;
    }
    Ok("macro, midi, micro, each with GFLOP/s".into())
}

fn f377(_: &Context) -> Outcome {
    let clock = ManualClock::new();
    let report = five_tiles(&clock).report();
    let json = serde_json::to_string(&report)?;
    let back: TileReport = serde_json::from_str(&json)?;
    require_eq("what was read", &back, &report)?;
    let value: serde_json::Value = serde_json::from_str(&json)?;
    for key in
        ["level", "count", "total_ns", "avg_us", "gflops", "arithmetic_intensity", "total_elements", "total_flops"]
    {
        require(value["tiles"][0].get(key).is_some(), key, || json.clone())?;
    }
    Ok("8 fields per level, equal after reading".into())
}

fn f378(context: &Context) -> Outcome {
    let machine = Machine::load_or_measure()?;
    let profile = runs::profile(context.real()?, &machine)?;
    let report = require_some(profile.tiles(Phase::Decode), "tiles of decoding")?;
    let tile = require_some(report.tiles.first().copied(), "macro tiles")?;
    let intensity = tile.arithmetic_intensity;
    require(intensity > 0.5 && intensity < 10.0, "between 0.5 and 10", || format!("{intensity:.2}"))?;
    Ok(format!("{intensity:.2} operations per byte over {} steps", tile.count))
}
