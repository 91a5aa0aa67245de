//! The measured limits of this computer.
//!
//! | module | content |
//! | --- | --- |
//! | `topology` | what the operating system says: cores, caches, quotas |
//! | `team` | threads that start together |
//! | `measure` | what the processor reaches |
//! | `cache` | the measurement on disk, and when it is stale |

mod cache;
mod measure;
mod team;
mod topology;

use serde::{Deserialize, Serialize};

pub use cache::CacheError;
pub use measure::{MeasureError, MeasureOptions};
pub use topology::{Cache, CpuTopology};

use crate::clock::ClockPrecision;

/// A computer: what its operating system reports and what was measured on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Version of this structure, [`Machine::VERSION`].
    pub version: u32,
    /// What the measurement depends on; another fingerprint makes it stale.
    pub fingerprint: Fingerprint,
    /// As the operating system reports it.
    pub reported: CpuTopology,
    /// As measured.
    pub measured: Limits,
}

/// What a measurement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Processor model.
    pub cpu_model: String,
    /// Physical cores this process may use.
    pub physical_cores: usize,
    /// Hardware threads this process may use.
    pub logical_cores: usize,
    /// CPU time quota of the control group in thousandths of a core.
    pub quota_millicores: Option<u64>,
    /// Instruction set of the kernels.
    pub simd: String,
    /// Version of this crate, whose probes were used.
    pub brick_version: String,
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} · {} cores, {} threads", self.cpu_model, self.physical_cores, self.logical_cores)?;
        if let Some(m) = self.quota_millicores {
            write!(f, ", quota {:.1}", m as f64 / 1e3)?;
        }
        write!(f, " · {} · brick {}", self.simd, self.brick_version)
    }
}

/// Best values of several repeats. A shared machine may reach less at any moment, never more for long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Threads behind every `all` value: one per physical core within the quota.
    pub threads: usize,
    /// Reading, fastest level first; the last one is main memory.
    pub read: Vec<Bandwidth>,
    /// int8 multiply-adds with 32-bit sums, in 10⁹ operations per second (a multiply-add is two).
    pub int8_gop_s: PerThreads,
    /// bf16 multiply-adds with f32 sums (AVX512-BF16), likewise; `None` where the kernels' level has none.
    pub bf16_gflop_s: Option<PerThreads>,
    /// int8 multiply-adds of the matrix unit (AMX), likewise; `None` where there is none or the system grants none.
    pub tile_int8_gop_s: Option<PerThreads>,
    /// bf16 multiply-adds of the matrix unit (AMX), likewise.
    pub tile_bf16_gflop_s: Option<PerThreads>,
    /// f32 multiply-adds, in 10⁹ operations per second (a multiply-add is two).
    pub f32_gflop_s: PerThreads,
    /// One barrier of a gang of `threads` threads, in nanoseconds.
    pub barrier_ns: f64,
    /// The clock used.
    pub clock: ClockPrecision,
}

/// A value for one thread and for [`Limits::threads`] threads together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerThreads {
    /// One thread.
    pub one: f64,
    /// All threads together.
    pub all: f64,
}

impl PerThreads {
    /// The value for `threads` of `all_threads`: straight line between the two measured ends.
    pub fn at(&self, threads: usize, all_threads: usize) -> f64 {
        if threads <= 1 {
            return self.one;
        }
        if threads >= all_threads {
            return self.all;
        }
        self.one + (self.all - self.one) * (threads - 1) as f64 / (all_threads - 1) as f64
    }
}

/// Level of the memory hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryLevel {
    /// First-level data cache.
    L1,
    /// Second-level cache.
    L2,
    /// Third-level cache.
    L3,
    /// Main memory.
    Dram,
}

impl MemoryLevel {
    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::Dram => "DRAM",
        }
    }
}

impl std::fmt::Display for MemoryLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Read bandwidth of one level.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bandwidth {
    /// The level.
    pub level: MemoryLevel,
    /// Bytes the level holds for all threads together; `None` for main memory.
    pub capacity_bytes: Option<u64>,
    /// Bytes that were read over and over by all threads together.
    pub working_set_bytes: u64,
    /// 10⁹ bytes per second, from huge pages where the system has them.
    pub gb_s: PerThreads,
    /// The same from the smallest pages (4 KiB on x86-64).
    pub small_pages_gb_s: PerThreads,
}

impl Machine {
    /// Version of the structure in the cache file; other versions are measured again.
    pub const VERSION: u32 = 2;

    /// A cache is taken to serve working sets up to this fraction of its size; the rest goes to everything else.
    const USABLE_CACHE: f64 = 0.75;

    /// The level that serves a working set which is used again and again by all threads together.
    pub fn level_for(&self, working_set_bytes: u64) -> Option<&Bandwidth> {
        let fits = |b: &&Bandwidth| {
            b.capacity_bytes.is_none_or(|size| working_set_bytes as f64 <= size as f64 * Self::USABLE_CACHE)
        };
        self.measured.read.iter().find(fits).or(self.measured.read.last())
    }

    /// The highest read bandwidth of any level with this many threads, in 10⁹ bytes per second.
    pub fn peak_gb_s(&self, threads: usize) -> f64 {
        self.measured.read.iter().map(|b| b.gb_s.at(threads, self.measured.threads)).fold(0.0, f64::max)
    }

    /// Whether every figure is one that could have been measured. A file from outside has to pass this before use.
    fn is_sane(&self) -> bool {
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let both = |p: &PerThreads| positive(p.one) && positive(p.all);
        let m = &self.measured;
        m.threads > 0
            && !m.read.is_empty()
            && m.read.iter().all(|b| both(&b.gb_s) && both(&b.small_pages_gb_s))
            && [&m.bf16_gflop_s, &m.tile_int8_gop_s, &m.tile_bf16_gflop_s].into_iter().flatten().all(both)
            && both(&m.int8_gop_s)
            && both(&m.f32_gflop_s)
            && m.barrier_ns.is_finite()
            && m.barrier_ns >= 0.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A round-numbered machine: one thread reads 200/100/50/20 GB/s from L1/L2/L3/DRAM, two threads reach twice that
    /// from caches and 30 GB/s from memory; 400/800 int8 GOP/s, 100/200 f32 GFLOP/s; a barrier takes 200 ns.
    pub(crate) fn machine() -> Machine {
        let level = |level, capacity_bytes: Option<u64>, one, all| Bandwidth {
            level,
            capacity_bytes,
            working_set_bytes: capacity_bytes.map_or(512 << 20, |c| c / 2),
            gb_s: PerThreads { one, all },
            small_pages_gb_s: PerThreads { one: one * 0.75, all: all * 0.75 },
        };
        let caches = [(1, 32 << 10, 2), (2, 1 << 20, 2), (3, 32 << 20, 1)];
        Machine {
            version: Machine::VERSION,
            fingerprint: Fingerprint {
                cpu_model: "Example CPU 9000".into(),
                physical_cores: 2,
                logical_cores: 4,
                quota_millicores: None,
                simd: "avx512-vnni".into(),
                brick_version: "0.1.0".into(),
            },
            reported: CpuTopology {
                model: "Example CPU 9000".into(),
                logical_cores: 4,
                physical_cores: 2,
                cores: vec![vec![0, 2], vec![1, 3]],
                quota_millicores: None,
                caches: caches.map(|(level, bytes, instances)| Cache { level, bytes, instances }).to_vec(),
                memory_available_bytes: Some(8 << 30),
                huge_pages: Some("madvise".into()),
            },
            measured: Limits {
                threads: 2,
                read: vec![
                    level(MemoryLevel::L1, Some(64 << 10), 200.0, 400.0),
                    level(MemoryLevel::L2, Some(2 << 20), 100.0, 200.0),
                    level(MemoryLevel::L3, Some(32 << 20), 50.0, 100.0),
                    level(MemoryLevel::Dram, None, 20.0, 30.0),
                ],
                int8_gop_s: PerThreads { one: 400.0, all: 800.0 },
                bf16_gflop_s: Some(PerThreads { one: 200.0, all: 400.0 }),
                tile_int8_gop_s: None,
                tile_bf16_gflop_s: None,
                f32_gflop_s: PerThreads { one: 100.0, all: 200.0 },
                barrier_ns: 200.0,
                clock: ClockPrecision { resolution_ns: 20, read_ns: 22.5 },
            },
        }
    }

    #[test]
    fn a_working_set_is_served_by_the_first_level_it_fits_in() {
        let m = machine();
        let level = |bytes| m.level_for(bytes).map(|b| b.level);
        assert_eq!(level(0), Some(MemoryLevel::L1));
        assert_eq!(level(48 << 10), Some(MemoryLevel::L1));
        assert_eq!(level((48 << 10) + 1), Some(MemoryLevel::L2));
        assert_eq!(level(20 << 20), Some(MemoryLevel::L3));
        assert_eq!(level(31 << 20), Some(MemoryLevel::Dram));
        assert_eq!(level(u64::MAX), Some(MemoryLevel::Dram));
        assert_eq!(m.peak_gb_s(1), 200.0);
    }

    #[test]
    fn values_between_one_thread_and_all_lie_on_a_line() {
        let p = PerThreads { one: 10.0, all: 40.0 };
        assert_eq!([0, 1, 2, 4, 99].map(|n| p.at(n, 4)), [10.0, 10.0, 20.0, 40.0, 40.0]);
        assert_eq!(p.at(1, 1), 10.0);
        assert_eq!(p.at(2, 1), 40.0);
    }

    #[test]
    fn impossible_figures_are_recognised() {
        assert!(machine().is_sane());
        let broken: [fn(&mut Machine); 7] = [
            |m| m.measured.read.clear(),
            |m| m.measured.read[0].gb_s.all = 0.0,
            |m| m.measured.int8_gop_s.one = f64::NAN,
            |m| m.measured.barrier_ns = -1.0,
            |m| m.measured.threads = 0,
            |m| m.measured.read[1].small_pages_gb_s.one = f64::INFINITY,
            |m| m.measured.tile_int8_gop_s = Some(PerThreads { one: 1.0, all: 0.0 }),
        ];
        for f in broken {
            let mut m = machine();
            f(&mut m);
            assert!(!m.is_sane());
        }
    }
}
