//! What the processor reaches. Every figure is the best of several repeats: what disturbs a measurement makes it slower,
//! never faster.

use std::hint::black_box;
use std::time::Duration;

use bricks::cpu::SimdLevel;
use bricks::cpu::gang::GangPanic;
use bricks::cpu::probe::{self, Buffer, Pages, TileType};

use super::team::{self, Member, TeamError};
use super::topology::{Cache, CpuTopology};
use super::{Bandwidth, Fingerprint, Limits, Machine, MemoryLevel, PerThreads};
use crate::clock::Clock;

/// How long to measure. The defaults take a few seconds on common machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeasureOptions {
    /// Threads behind the `all` values; `None`: one per physical core within the quota.
    pub threads: Option<usize>,
    /// Repeats of each measurement, of which the best counts.
    pub repeats: u32,
    /// Bytes read per thread and repeat where the working set is smaller.
    pub bytes: usize,
    /// Most bytes to use for main memory, all threads together.
    pub max_working_set: u64,
    /// Rounds of the arithmetic probes per repeat.
    pub rounds: u64,
    /// Barriers per repeat.
    pub barriers: u32,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            threads: None,
            repeats: 12,
            bytes: 64 << 20,
            max_working_set: 512 << 20,
            rounds: 400_000,
            barriers: 2000,
        }
    }
}

/// The machine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The system refuses threads.
    #[error("cannot start {threads} threads to measure this machine")]
    Threads {
        /// How many were wanted.
        threads: usize,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There is no memory to read.
    #[error("cannot allocate {bytes} bytes to measure this machine")]
    Memory {
        /// How many were wanted, per thread.
        bytes: usize,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A probe panicked: a bug.
    #[error("cannot measure this machine: {0}")]
    Panic(#[from] GangPanic),
    /// A measurement took no time at all: the clock stands still.
    #[error("measuring {what} on {threads} threads took no measurable time")]
    NoTime {
        /// What was being measured.
        what: &'static str,
        /// On how many threads.
        threads: usize,
    },
}

impl Machine {
    /// Measures this machine.
    ///
    /// # Errors
    /// [`MeasureError`].
    pub fn measure(options: &MeasureOptions) -> Result<Self, MeasureError> {
        let reported = CpuTopology::detect();
        let fingerprint = Fingerprint::of(&reported);
        let threads = options.threads.unwrap_or(reported.useful_threads()).max(1);
        let levels = levels(&reported, threads, options.max_working_set);
        let one = Pass::run(1, &[], &levels, options)?;
        let all =
            if threads == 1 { one.clone() } else { Pass::run(threads, &reported.pin_to(threads), &levels, options)? };
        let read = levels.iter().enumerate().map(|(i, l)| Bandwidth {
            level: l.level,
            capacity_bytes: l.capacity_bytes,
            working_set_bytes: l.bytes_per_thread(threads) as u64 * threads as u64,
            gb_s: at_least_one_thread(one.read[i], all.read[i]),
            small_pages_gb_s: at_least_one_thread(one.read_small[i], all.read_small[i]),
        });
        let peak = |p: Peak| match (one.peaks[p as usize], all.peaks[p as usize]) {
            (Some(one), Some(all)) => Some(at_least_one_thread(one, all)),
            _ => None,
        };
        let always = "invariant: every level has int8 and f32 probes";
        let measured = Limits {
            threads,
            read: read.collect(),
            int8_gop_s: peak(Peak::Int8).expect(always),
            bf16_gflop_s: peak(Peak::Bf16),
            tile_int8_gop_s: peak(Peak::TileInt8),
            tile_bf16_gflop_s: peak(Peak::TileBf16),
            f32_gflop_s: peak(Peak::F32).expect(always),
            barrier_ns: all.barrier_ns,
            clock: Clock::precision(),
        };
        Ok(Self { version: Self::VERSION, fingerprint, reported, measured })
    }
}

/// What one thread reaches, all of them reach by letting the others wait; a lower figure was disturbed.
fn at_least_one_thread(one: f64, all: f64) -> PerThreads {
    PerThreads { one, all: all.max(one) }
}

impl Fingerprint {
    /// What a measurement on this processor depends on.
    pub fn of(cpu: &CpuTopology) -> Self {
        Self {
            cpu_model: cpu.model.clone(),
            physical_cores: cpu.physical_cores,
            logical_cores: cpu.logical_cores,
            quota_millicores: cpu.quota_millicores,
            simd: SimdLevel::detect().name().to_owned(),
            brick_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// A level of the hierarchy and what to read to measure it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReadPlan {
    level: MemoryLevel,
    capacity_bytes: Option<u64>,
    /// Bytes to read from each instance.
    working_set: u64,
    instances: usize,
}

impl ReadPlan {
    /// Each thread's share: whole cache lines, at least one page.
    fn bytes_per_thread(&self, threads: usize) -> usize {
        let sharing = threads.div_ceil(self.instances).max(1) as u64;
        (self.working_set / sharing).max(4096) as usize / 64 * 64
    }
}

/// Sizes where the system reports none: small enough to be right on anything of the last decade.
const DEFAULT_CACHES: [Cache; 3] = [
    Cache { level: 1, bytes: 32 << 10, instances: 1 },
    Cache { level: 2, bytes: 256 << 10, instances: 1 },
    Cache { level: 3, bytes: 8 << 20, instances: 1 },
];

/// Half of each cache, and for main memory four times the last cache within `max_bytes` and a quarter of what is free.
fn levels(cpu: &CpuTopology, threads: usize, max_bytes: u64) -> Vec<ReadPlan> {
    let caches = if cpu.caches.is_empty() { &DEFAULT_CACHES[..] } else { &cpu.caches };
    let max_bytes = cpu.memory_available_bytes.map_or(max_bytes, |free| max_bytes.min(free / 4));
    let mut all = Vec::new();
    let mut last_level = 0;
    for cache in caches {
        let level = match cache.level {
            1 => MemoryLevel::L1,
            2 => MemoryLevel::L2,
            3 => MemoryLevel::L3,
            _ => continue,
        };
        let instances = cache.instances.clamp(1, threads);
        let capacity = cache.bytes.saturating_mul(instances as u64);
        last_level = capacity;
        // A hypervisor may report the whole host's cache: never read more than the cap for main memory.
        let working_set = (cache.bytes / 2).min(max_bytes / 2 / instances as u64);
        all.push(ReadPlan { level, capacity_bytes: Some(capacity), working_set, instances });
    }
    let working_set = last_level.saturating_mul(4).max(64 << 20).min(max_bytes);
    all.push(ReadPlan { level: MemoryLevel::Dram, capacity_bytes: None, working_set, instances: 1 });
    all
}

/// An arithmetic probe.
#[derive(Debug, Clone, Copy)]
enum Peak {
    Int8,
    F32,
    Bf16,
    TileInt8,
    TileBf16,
}

impl Peak {
    const ALL: [Self; 5] = [Self::Int8, Self::F32, Self::Bf16, Self::TileInt8, Self::TileBf16];

    /// Rounds for about the time of `rounds` rounds of the vector probes: ten products of some tenths of a cycle against
    /// four of 16 cycles.
    fn rounds(self, rounds: u64) -> u64 {
        match self {
            Self::Int8 | Self::F32 | Self::Bf16 => rounds,
            Self::TileInt8 | Self::TileBf16 => (rounds / 16).max(1),
        }
    }

    /// Runs the probe; the operations done, or `None` where it cannot run.
    fn run(self, simd: SimdLevel, iters: u64) -> Option<u64> {
        match self {
            Self::Int8 => Some(probe::int8_ops(simd, iters)),
            Self::F32 => Some(probe::f32_flops(simd, iters)),
            Self::Bf16 => probe::bf16_flops(simd, iters),
            Self::TileInt8 => probe::tile_ops(simd, TileType::Int8, iters),
            Self::TileBf16 => probe::tile_ops(simd, TileType::Bf16, iters),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8 arithmetic",
            Self::F32 => "f32 arithmetic",
            Self::Bf16 => "bf16 arithmetic",
            Self::TileInt8 => "int8 tile products",
            Self::TileBf16 => "bf16 tile products",
        }
    }
}

/// Everything measured with one number of threads.
#[derive(Debug, Clone)]
struct Pass {
    read: Vec<f64>,
    read_small: Vec<f64>,
    /// In the order of [`Peak::ALL`]; `None` for probes that cannot run.
    peaks: [Option<f64>; Peak::ALL.len()],
    barrier_ns: f64,
}

impl Pass {
    fn run(threads: usize, cpus: &[usize], levels: &[ReadPlan], o: &MeasureOptions) -> Result<Self, MeasureError> {
        let simd = SimdLevel::detect();
        let largest = levels.iter().map(|l| l.bytes_per_thread(threads)).max().unwrap_or(4096);
        let job = |member: &Member<'_>| {
            let mut spans = Vec::with_capacity(Peak::ALL.len() + 1 + 2 * levels.len());
            let mut failed = None;
            for peak in Peak::ALL {
                spans.push(member.time(o.repeats, || {
                    black_box(peak.run(simd, black_box(peak.rounds(o.rounds))));
                }));
            }
            spans.push(member.time(o.repeats, || (0..o.barriers).for_each(|_| member.wait())));
            for pages in [Pages::Huge, Pages::Small] {
                // Made by the thread that reads it, so that its pages are near. One kind at a time, for the memory. Without
                // memory there is nothing to read, but the others wait at the same barriers.
                let buffer = Buffer::new(largest, pages);
                for level in levels {
                    let data =
                        buffer.as_ref().map_or(&[][..], |b| &b.bytes()[..level.bytes_per_thread(member.threads)]);
                    let passes = passes(level.bytes_per_thread(member.threads), o.bytes);
                    spans.push(member.time(o.repeats, || {
                        for _ in 0..passes {
                            black_box(probe::read_bytes(simd, black_box(data)));
                        }
                    }));
                }
                failed = failed.or(buffer.err());
            }
            failed.map_or(Ok(spans), Err)
        };
        let members = team::run(threads, cpus, job).map_err(|e| match e {
            TeamError::Spawn(source) => MeasureError::Threads { threads, source },
            TeamError::Panic(panic) => panic.into(),
        })?;
        let members: Vec<_> = members
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|source| MeasureError::Memory { bytes: largest, source })?;
        let best = |i: usize, what: &'static str| {
            let spans: Vec<_> = members.iter().map(|m: &Vec<_>| m[i].as_slice()).collect();
            team::best(&spans).filter(|d| *d > Duration::ZERO).ok_or(MeasureError::NoTime { what, threads })
        };
        // 10⁹ per second = per nanosecond.
        let rate = |amount: u64, t: Duration| amount as f64 * threads as f64 / t.as_nanos() as f64;
        let mut peaks = [None; Peak::ALL.len()];
        for (i, peak) in Peak::ALL.into_iter().enumerate() {
            if let Some(per_round) = peak.run(simd, 1) {
                peaks[i] = Some(rate(per_round.saturating_mul(peak.rounds(o.rounds)), best(i, peak.name())?));
            }
        }
        let barriers = Peak::ALL.len();
        let read = |first: usize| -> Result<Vec<f64>, MeasureError> {
            let rate_of = |(i, level): (usize, &ReadPlan)| {
                let bytes = level.bytes_per_thread(threads);
                Ok(rate((bytes * passes(bytes, o.bytes)) as u64, best(first + i, level.level.name())?))
            };
            levels.iter().enumerate().map(rate_of).collect()
        };
        Ok(Self {
            peaks,
            barrier_ns: best(barriers, "barriers")?.as_nanos() as f64 / f64::from(o.barriers.max(1)),
            read: read(barriers + 1)?,
            read_small: read(barriers + 1 + levels.len())?,
        })
    }
}

fn passes(working_set: usize, bytes: usize) -> usize {
    (bytes / working_set.max(1)).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Milliseconds instead of seconds.
    pub(crate) const QUICK: MeasureOptions = MeasureOptions {
        threads: Some(2),
        repeats: 2,
        bytes: 1 << 16,
        max_working_set: 1 << 20,
        rounds: 100,
        barriers: 10,
    };

    fn cpu(caches: &[(u8, u64, usize)], free: Option<u64>) -> CpuTopology {
        let mut cpu = super::super::tests::machine().reported;
        cpu.caches = caches.iter().map(|&(level, bytes, instances)| Cache { level, bytes, instances }).collect();
        cpu.memory_available_bytes = free;
        cpu
    }

    #[test]
    fn every_figure_is_measured() {
        let m = Machine::measure(&QUICK).unwrap();
        assert!(m.is_sane(), "{m:?}");
        let simd = SimdLevel::detect();
        assert_eq!(m.measured.bf16_gflop_s.is_some(), probe::bf16_flops(simd, 1).is_some());
        assert_eq!(m.measured.tile_int8_gop_s.is_some(), probe::tile_ops(simd, TileType::Int8, 1).is_some());
        assert_eq!(m.measured.tile_bf16_gflop_s.is_some(), probe::tile_ops(simd, TileType::Bf16, 1).is_some());
        assert_eq!(m.measured.threads, 2);
        assert_eq!(m.measured.read.last().map(|b| b.level), Some(MemoryLevel::Dram));
        assert_eq!(m.version, Machine::VERSION);
    }

    #[test]
    fn one_thread_is_measured_once() {
        let m = Machine::measure(&MeasureOptions { threads: Some(1), ..QUICK }).unwrap();
        assert_eq!(m.measured.int8_gop_s.one, m.measured.int8_gop_s.all);
    }

    #[test]
    fn too_little_memory_is_an_error_on_all_threads() {
        let level = ReadPlan { level: MemoryLevel::Dram, capacity_bytes: None, working_set: 1 << 62, instances: 2 };
        let error = Pass::run(2, &[], &[level], &QUICK).unwrap_err();
        assert!(error.to_string().starts_with("cannot allocate 46116860184"), "{error}");
    }

    #[test]
    fn private_caches_count_once_per_thread_and_shared_ones_are_shared() {
        let l = levels(&cpu(&[(1, 48 << 10, 8), (3, 32 << 20, 1)], None), 4, 512 << 20);
        assert_eq!(
            (l[0].capacity_bytes, l[0].bytes_per_thread(1), l[0].bytes_per_thread(4)),
            (Some(192 << 10), 24 << 10, 24 << 10)
        );
        assert_eq!(
            (l[1].capacity_bytes, l[1].bytes_per_thread(1), l[1].bytes_per_thread(4)),
            (Some(32 << 20), 16 << 20, 4 << 20)
        );
        assert_eq!((l[2].level, l[2].bytes_per_thread(4)), (MemoryLevel::Dram, 32 << 20));
    }

    #[test]
    fn working_sets_are_bounded_by_free_memory() {
        let free = 64 << 20;
        for level in levels(&cpu(&[(3, 300 << 20, 1)], Some(free)), 2, 512 << 20) {
            assert!(level.working_set <= free / 4, "{level:?}");
        }
    }

    #[test]
    fn caches_have_defaults_and_unknown_levels_are_left_out() {
        let names = |l: Vec<ReadPlan>| l.iter().map(|l| l.level.name()).collect::<Vec<_>>();
        assert_eq!(names(levels(&cpu(&[], None), 2, 1 << 30)), ["L1", "L2", "L3", "DRAM"]);
        assert_eq!(names(levels(&cpu(&[(1, 1 << 15, 2), (4, 1 << 30, 1)], None), 2, 1 << 30)), ["L1", "DRAM"]);
    }
}
