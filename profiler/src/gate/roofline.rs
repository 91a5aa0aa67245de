//! T3: how much of what the machine can do a call reaches.
//!
//! Limits are measured at another moment than the call, so on a shared machine the fraction is off by a quarter either way. It is
//! said, and judged only where somebody declared the machine quiet.

use bricks::{BrickKind, Extent};

use super::check::{Check, Measured, Tier, Verdict};
use super::paired::Sample;
use crate::budget::Roofline;
use crate::paired::median;
use crate::step::StepInfo;

/// The whole call, judged if the machine is quiet, then every kind, said. Times are medians of `samples`.
pub fn check(
    roofline: &Roofline,
    steps: &[StepInfo],
    (call, extent): (&str, &Extent),
    samples: &[Sample],
    floor: f64,
    quiet: bool,
) -> Vec<Check> {
    let bound = |of: &dyn Fn(&StepInfo) -> bool| -> f64 {
        steps.iter().filter(|s| of(s)).map(|s| roofline.bound(s, extent).us).sum()
    };
    let middle = |f: &dyn Fn(&Sample) -> f64| median(&mut samples.iter().map(f).collect::<Vec<_>>()) / 1e3;
    let mut checks = Vec::new();
    let mut push = |name: String, bound_us: f64, us: f64, judged: bool| {
        if !(us > 0.0 && bound_us > 0.0) {
            return;
        }
        let fraction = bound_us / us;
        let verdict = match (judged, fraction < floor) {
            (false, _) => Verdict::Advisory,
            (true, false) => Verdict::Pass,
            (true, true) => Verdict::Fail,
        };
        let why = format!("{us:.1} µs, at least {bound_us:.1} µs by the limits of this machine");
        let limit = (!name.starts_with("all ")).then_some(floor);
        let pairs = Some(samples.len());
        let measured = Measured { value: fraction, interval: None, limit, control: None, pairs };
        checks.push(Check::new(Tier::Roofline, name, verdict, why).with(measured));
    };
    push(call.to_owned(), bound(&|_| true), middle(&|s| s.wall_ns), quiet);
    for kind in BrickKind::ALL {
        let of = |s: &StepInfo| s.kind == kind;
        let at: Vec<usize> = (0..steps.len()).filter(|i| of(&steps[*i])).collect();
        let us = middle(&|s| at.iter().map(|i| s.steps_ns[*i]).sum());
        push(format!("all {kind}, {call}"), bound(&of), us, false);
    }
    checks
}

/// Whether reading memory bounds a step: by the roofline, and from a level that several cores or programs share.
pub fn streams(roofline: &Roofline, step: &StepInfo, extent: &Extent) -> bool {
    use crate::budget::Resource;
    use crate::machine::MemoryLevel;
    let shared = matches!(roofline.stream(), Some((MemoryLevel::L3 | MemoryLevel::Dram, _)));
    // A step without weights or cache to read takes what was just written, from a near cache.
    let cost = step.cost(extent);
    let far = cost.weight_bytes > 0 || matches!(step.op, bricks::Op::Attention(_));
    shared && far && roofline.bound(step, extent).resource == Resource::Memory
}
