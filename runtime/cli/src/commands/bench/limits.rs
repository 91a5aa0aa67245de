//! What a figure is held against: the machine's ceiling, and what else the machine was doing.

use std::path::Path;

use brick_profiler::Machine;
use brick_profiler::budget::Roofline;
use brick_runtime::plan::Plan;
use serde::Serialize;

use super::measure::Test;

/// Measurements of the limits scatter by a few per cent; so much is allowed.
pub(super) const TOLERANCE: f64 = 1.05;

/// Most tokens per second that physics allows a test: every brick of every forward call at the roofline, one after the other.
pub(super) fn ceiling(machine: &Machine, plan: &Plan, threads: usize, test: &Test) -> Option<f64> {
    let roofline = Roofline::new(machine, &plan.info, threads);
    let calls = test.calls(plan.max_rows);
    let us: f64 =
        calls.iter().flat_map(|e| plan.info.iter().map(move |s| (s, e))).map(|(s, e)| roofline.bound(s, e).us).sum();
    let tokens = (test.tokens * test.sequences) as f64;
    Some(tokens * 1e6 / us).filter(|x| x.is_finite() && *x > 0.0)
}

/// Counters of the system at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Load {
    /// Ticks of all processors: all, idle, taken by the host.
    ticks: (u64, u64, u64),
    /// Ticks of this process and its children that have ended.
    own: u64,
    /// Times a core was slowed down because of heat.
    throttled: Option<u64>,
}

/// What the machine did besides, between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Disturbance {
    /// Fraction of the processors' time that the host gave to other machines.
    pub(super) steal: f64,
    /// Fraction of it that other processes used.
    pub(super) others: f64,
    /// How often a core was slowed down because of heat; `None` where the system does not say.
    pub(super) throttled: Option<u64>,
}

impl Load {
    /// Now; `None` where the system does not say (it does on Linux).
    pub(super) fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let own = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut load = Self::parse(&stat, &own)?;
        load.throttled = throttled();
        Some(load)
    }

    fn parse(stat: &str, own: &str) -> Option<Self> {
        let cpu = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = cpu.split_whitespace().map_while(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is part of user time. (proc(5))
        let all = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4)?;
        let steal = *ticks.get(7)?;
        // The name of the program may hold anything: what follows the last bracket are numbers, from field 3.
        let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
        let own = fields.get(11..15)?.iter().filter_map(|n| n.parse::<u64>().ok()).sum();
        Some(Self { ticks: (all, idle, steal), own, throttled: None })
    }

    /// What happened from `earlier` until now.
    pub(super) fn since(&self, earlier: &Self) -> Option<Disturbance> {
        let d = |a: u64, b: u64| a.saturating_sub(b) as f64;
        let all = d(self.ticks.0, earlier.ticks.0);
        if all < 10.0 {
            return None; // a tenth of a second: too short to say anything
        }
        let (idle, steal) = (d(self.ticks.1, earlier.ticks.1), d(self.ticks.2, earlier.ticks.2));
        let others = (all - idle - steal - d(self.own, earlier.own)).max(0.0);
        let throttled = self.throttled.zip(earlier.throttled).map(|(now, then)| now.saturating_sub(then));
        Some(Disturbance { steal: steal / all, others: others / all, throttled })
    }
}

impl std::fmt::Display for Disturbance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "other processes used {:.1} % of the machine, its host {:.1} %",
            self.others * 100.0,
            self.steal * 100.0
        )?;
        match self.throttled {
            Some(0) => write!(f, ", no core was slowed down by heat"),
            Some(n) => write!(f, ", cores were slowed down by heat {n} times"),
            None => Ok(()),
        }
    }
}

/// Sum of all cores' throttling counters.
fn throttled() -> Option<u64> {
    let cpus = std::fs::read_dir(Path::new("/sys/devices/system/cpu")).ok()?;
    let count = |cpu: std::fs::DirEntry| -> Option<u64> {
        let text = std::fs::read_to_string(cpu.path().join("thermal_throttle/core_throttle_count")).ok()?;
        text.trim().parse().ok()
    };
    cpus.filter_map(Result::ok).filter_map(count).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::measure::Kind;
    use super::*;

    #[test]
    fn counters_are_read_as_the_manual_says() {
        let stat = "cpu  100 5 45 800 50 0 0 20 7 0\ncpu0 1 2 3\n";
        let own = "42 (a name) with) brackets) S 1 42 42 0 -1 4194560 100 0 0 0 60 10 3 2 20 0 2 0 100 0 0";
        let a = Load::parse(stat, own).unwrap();
        assert_eq!(a, Load { ticks: (1020, 850, 20), own: 75, throttled: None });
        let b = Load { ticks: (2020, 1350, 120), own: 375, throttled: Some(4) };
        let d = b.since(&Load { throttled: Some(1), ..a }).unwrap();
        assert_eq!(d, Disturbance { steal: 0.1, others: 0.1, throttled: Some(3) });
        insta::assert_snapshot!(d, @"other processes used 10.0 % of the machine, its host 10.0 %, cores were slowed down by heat 3 times");
        assert_eq!(a.since(&a), None);
        for bad in ["", "cpu", "cpu  1 2", "intr 5"] {
            assert_eq!(Load::parse(bad, own), None);
        }
        assert_eq!(Load::parse(stat, "1 (x"), None);
    }

    #[test]
    fn calls_cover_a_test() {
        let test = |kind, tokens, depth, sequences| Test { kind, tokens, depth, sequences };
        let sizes = |t: Test, rows| t.calls(rows).iter().map(|e| (e.tokens, e.context)).collect::<Vec<_>>();
        assert_eq!(sizes(test(Kind::Decode, 3, 10, 1), 512), [(1, 11), (1, 12), (1, 13)]);
        assert_eq!(sizes(test(Kind::Decode, 1, 10, 8), 512), [(8, 88)]);
        assert_eq!(sizes(test(Kind::Prefill, 1000, 0, 1), 512), [(512, 512), (488, 1000)]);
        assert_eq!(sizes(test(Kind::Prefill, 4, 5, 2), 4), [(4, 14), (4, 18)]);
    }
}
