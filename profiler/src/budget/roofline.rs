//! Budgets from physics: what the step has to move and compute, against what this machine reaches.

use bricks::{BudgetOrigin, Cost, Extent, Op, TokenBudget};
use serde::{Deserialize, Serialize};

use crate::machine::{Bandwidth, Machine, MemoryLevel, PerThreads};
use crate::step::StepInfo;

/// Derives budgets from the machine's measured limits:
///
/// ```text
/// budget = max(bytes / bandwidth, int8 operations / int8 peak, f32 operations / f32 peak) / efficiency + barrier
/// ```
///
/// **Which bandwidth** is the point where such estimates go wrong. Weights and the KV cache pass through once per forward,
/// so they come from the level that holds *all* of the model's weights together, not those of one brick: the model is what
/// keeps evicting itself. Activations were just written by the step before, so they come from the level they fit in.
///
/// **Efficiency** is the fraction of the limit a good kernel is expected to reach; [`Roofline::EFFICIENCY`] unless told
/// otherwise. A budget met at 0.5 says: at most twice the time physics demands.
#[derive(Debug, Clone, PartialEq)]
pub struct Roofline {
    machine: Machine,
    threads: usize,
    efficiency: f64,
    weight_bytes: u64,
    stream: Option<Bandwidth>,
}

/// Rows of a tile of the matrix unit.
const TILE_ROWS: u64 = 16;

/// What limits a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Moving bytes.
    Memory,
    /// Integer operations.
    Int8,
    /// Floating-point operations.
    F32,
}

impl Resource {
    /// The name used in every report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
}

/// Least time a call of a step can take on this machine. Derived.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// Microseconds of one call.
    pub us: f64,
    /// The resource that demands them.
    pub resource: Resource,
}

impl Roofline {
    /// Efficiency expected by default.
    pub const EFFICIENCY: f64 = 0.5;

    /// Limits for a plan run by `threads` threads on this machine.
    pub fn new(machine: &Machine, steps: &[StepInfo], threads: usize) -> Self {
        let token = Extent::one_sequence(1, 1, 1);
        let weight_bytes = steps.iter().map(|s| s.cost(&token).weight_bytes).fold(0, u64::saturating_add);
        let stream = machine.level_for(weight_bytes).copied();
        Self { machine: machine.clone(), threads: threads.max(1), efficiency: Self::EFFICIENCY, weight_bytes, stream }
    }

    /// The same with another efficiency; `None` unless in `(0, 1]`.
    pub fn with_efficiency(self, efficiency: f64) -> Option<Self> {
        (efficiency > 0.0 && efficiency <= 1.0).then_some(Self { efficiency, ..self })
    }

    /// The level that weights come from, and its bandwidth with this plan's threads in 10⁹ bytes per second.
    pub fn stream(&self) -> Option<(MemoryLevel, f64)> {
        self.stream.map(|b| (b.level, self.gb_s(&b)))
    }

    /// The machine the limits belong to.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Threads the limits are for.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn gb_s(&self, b: &Bandwidth) -> f64 {
        b.gb_s.at(self.threads, self.machine.measured.threads)
    }

    /// Integer multiply-adds in 10⁹ operations per second: of the matrix unit where the kernels use one, of the vector unit otherwise.
    pub fn int8_peak(machine: &Machine, threads: usize) -> f64 {
        let limits = &machine.measured;
        let at = |p: &PerThreads| p.at(threads, limits.threads);
        let tiles = limits.tile_int8_gop_s.as_ref().filter(|_| machine.fingerprint.simd == "amx");
        at(&limits.int8_gop_s).max(tiles.map_or(0.0, at))
    }

    /// Least time of one call, without efficiency and barrier.
    pub fn bound(&self, step: &StepInfo, extent: &Extent) -> Bound {
        let Cost { weight_bytes, read_bytes, write_bytes, int_ops, flops } = step.cost(extent);
        let (streamed, local) = match step.op {
            Op::Attention(_) => (weight_bytes.saturating_add(read_bytes), write_bytes),
            _ => (weight_bytes, read_bytes.saturating_add(write_bytes)),
        };
        let limits = &self.machine.measured;
        // 10⁹ per second = 10³ per microsecond.
        let us = |amount: u64, giga_per_s: f64| if amount == 0 { 0.0 } else { amount as f64 / (giga_per_s * 1e3) };
        let moved = |bytes, level: Option<&Bandwidth>| level.map_or(0.0, |b| us(bytes, self.gb_s(b)));
        let memory = moved(streamed, self.stream.as_ref()) + moved(local, self.machine.level_for(local));
        // Tiles are for batches: a vector has nothing to fill their rows with.
        let int8_peak = if extent.tokens >= TILE_ROWS {
            Self::int8_peak(&self.machine, self.threads)
        } else {
            limits.int8_gop_s.at(self.threads, limits.threads)
        };
        let int8 = us(int_ops, int8_peak);
        let f32 = us(flops, limits.f32_gflop_s.at(self.threads, limits.threads));
        let all = [(memory, Resource::Memory), (int8, Resource::Int8), (f32, Resource::F32)];
        let (us, resource) = all.into_iter().fold(all[0], |a, b| if b.0 > a.0 { b } else { a });
        Bound { us, resource }
    }

    /// Budget per token of a call of this size; `None` for a call without tokens.
    pub fn budget(&self, step: &StepInfo, extent: &Extent) -> Option<TokenBudget> {
        let call_us = self.bound(step, extent).us / self.efficiency + self.machine.measured.barrier_ns / 1e3;
        TokenBudget::from_latency(call_us / extent.tokens as f64, BudgetOrigin::Roofline)
    }

    /// Limits and assumptions in one line.
    pub fn describe(&self) -> String {
        let limits = &self.machine.measured;
        let stream = self.stream().map_or_else(String::new, |(level, gb_s)| {
            format!("{gb_s:.1} GB/s from {level} ({:.1} MB of weights), ", self.weight_bytes as f64 / 1e6)
        });
        format!(
            "roofline: {stream}int8 {:.0} GOP/s, f32 {:.0} GFLOP/s, {} thread{}, efficiency {}, barrier {:.2} µs",
            Self::int8_peak(&self.machine, self.threads),
            limits.f32_gflop_s.at(self.threads, limits.threads),
            self.threads,
            if self.threads == 1 { "" } else { "s" },
            self.efficiency,
            limits.barrier_ns / 1e3,
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::machine::tests::machine;
    use crate::testing;
    use bricks::{DType, LinearPart, PortType, Rows, WeightShape};

    /// `[rows, 1024]` in Q8_0: 1088 bytes per row.
    fn linear(rows: usize) -> StepInfo {
        StepInfo {
            op: Op::Linear {
                input: 1024,
                parts: vec![LinearPart { label: "y".into(), rows, bias: false }],
                rows: Rows::All,
            },
            inputs: vec![PortType::rows(Rows::All, 1024)],
            weights: vec![WeightShape { dtype: DType::Q8_0, rows, cols: 1024 }],
            ..testing::step("w", bricks::BrickKind::Down, None)
        }
    }

    const TOKEN: Extent = Extent { tokens: 1, wanted: 1, context: 1, pairs: 1 };

    #[test]
    fn one_token_is_bound_by_the_memory_that_holds_the_model() {
        let step = linear(1000);
        let bytes = 1_088_000.0;
        // Alone it fits in L2 (2 MiB): two threads read 200 GB/s; activations (8 kB) come from L1 at 400.
        let r = Roofline::new(&machine(), std::slice::from_ref(&step), 2);
        let bound = r.bound(&step, &TOKEN);
        assert_eq!(bound.resource, Resource::Memory);
        assert!((bound.us - (bytes / 200e3 + 8096.0 / 400e3)).abs() < 1e-9, "{bound:?}");
        // As one of a hundred it comes from main memory at 30 GB/s.
        let r = Roofline::new(&machine(), &vec![step.clone(); 100], 2);
        assert_eq!(r.stream(), Some((MemoryLevel::Dram, 30.0)));
        let bound = r.bound(&step, &TOKEN);
        assert!((bound.us - (bytes / 30e3 + 8096.0 / 400e3)).abs() < 1e-9, "{bound:?}");
    }

    #[test]
    fn many_tokens_are_bound_by_arithmetic() {
        let step = linear(1000);
        let r = Roofline::new(&machine(), std::slice::from_ref(&step), 2);
        let extent = Extent::one_sequence(512, 512, 1);
        let bound = r.bound(&step, &extent);
        assert_eq!(bound.resource, Resource::Int8);
        assert!((bound.us - 2.0 * 512.0 * 1000.0 * 1024.0 / 800e3).abs() < 1e-9, "{bound:?}");
    }

    #[test]
    fn efficiency_and_barrier_make_a_bound_a_budget_per_token() {
        let step = linear(1000);
        let r = Roofline::new(&machine(), std::slice::from_ref(&step), 2);
        let extent = Extent::one_sequence(8, 8, 1);
        let bound = r.bound(&step, &extent).us;
        let budget = r.budget(&step, &extent).unwrap();
        assert!((budget.us_per_token() - (2.0 * bound + 0.2) / 8.0).abs() < 1e-9);
        assert_eq!(budget.origin(), BudgetOrigin::Roofline);
        let strict = r.clone().with_efficiency(1.0).unwrap().budget(&step, &extent).unwrap();
        assert!((strict.us_per_token() - (bound + 0.2) / 8.0).abs() < 1e-9);
        for nonsense in [0.0, -1.0, 1.5, f64::NAN] {
            assert_eq!(r.clone().with_efficiency(nonsense), None);
        }
    }

    #[test]
    fn a_longer_context_costs_attention_more() {
        let steps = testing::plan(1);
        let attention = steps.iter().find(|s| matches!(s.op, Op::Attention(_))).unwrap();
        let r = Roofline::new(&machine(), &steps, 1);
        let us = |context| r.budget(attention, &Extent::one_sequence(1, context, 1)).unwrap().us_per_token();
        assert!(us(1000) > 2.0 * us(100));
    }

    #[test]
    fn fewer_threads_have_larger_budgets_and_no_tokens_have_none() {
        let step = linear(4000);
        let budget = |threads, extent: &Extent| {
            Roofline::new(&machine(), std::slice::from_ref(&step), threads).budget(&step, extent)
        };
        assert!(budget(1, &TOKEN).unwrap().us_per_token() > budget(2, &TOKEN).unwrap().us_per_token());
        assert_eq!(budget(1, &Extent::default()), None);
    }

    #[test]
    fn assumptions_are_told() {
        let r = Roofline::new(&machine(), &vec![linear(1000); 100], 2);
        assert_eq!(
            r.describe(),
            "roofline: 30.0 GB/s from DRAM (108.8 MB of weights), int8 800 GOP/s, f32 200 GFLOP/s, 2 threads, \
             efficiency 0.5, barrier 0.20 µs"
        );
    }
}
