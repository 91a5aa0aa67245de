//! Recorded against found: exact facts, and instruction counts within a limit.

use std::collections::{BTreeMap, BTreeSet};

use super::check::{Check, Measured, Tier, Verdict};
use super::snapshot::{BrickFacts, Facts, Instructions, Moved};

/// Every recorded fact against the one found now. Another value fails; what could not be looked at is skipped, and says so.
pub fn compare(recorded: &Facts, found: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut fact = |name: &str, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
        checks.push(exact(name, &a.to_string(), &b.to_string()));
    };
    let (a, b) = (&recorded.graph, &found.graph);
    fact("graph.architecture", &a.architecture, &b.architecture);
    fact("graph.built_bricks", &a.built_bricks, &b.built_bricks);
    fact("graph.built_wires", &a.built_wires, &b.built_wires);
    fact("graph.bricks_after", &passes(&a.bricks_after), &passes(&b.bricks_after));
    fact("graph.bricks", &a.bricks, &b.bricks);
    fact("graph.wires", &a.wires, &b.wires);
    fact("graph.hash", &a.hash, &b.hash);
    let (a, b) = (&recorded.plan, &found.plan);
    fact("plan.steps", &a.steps, &b.steps);
    fact("plan.barriers_per_token", &a.barriers_per_token, &b.barriers_per_token);
    fact("plan.barriers_per_prompt", &a.barriers_per_prompt, &b.barriers_per_prompt);
    fact("plan.arena_bytes", &a.arena_bytes, &b.arena_bytes);
    fact("plan.kv_bytes_per_token", &a.kv_bytes_per_token, &b.kv_bytes_per_token);
    fact("plan.packed_weight_bytes", &a.packed_weight_bytes, &b.packed_weight_bytes);
    let name = "plan.allocations_per_token";
    match (a.allocations_per_token, b.allocations_per_token) {
        (Some(a), Some(b)) => fact(name, &a, &b),
        (None, _) => checks.push(skipped(name, "not recorded")),
        (_, None) => checks.push(skipped(name, "this program does not count allocations")),
    }
    bricks(&recorded.bricks, &found.bricks, &mut checks);
    kernels(&recorded.kernels, &found.kernels, &mut checks);
    checks
}

fn exact(name: &str, recorded: &str, found: &str) -> Check {
    if recorded == found {
        return Check::new(Tier::Facts, name, Verdict::Pass, format!("{found}, as recorded"));
    }
    Check::new(Tier::Facts, name, Verdict::Fail, format!("recorded {recorded}, found {found}"))
}

fn skipped(name: &str, why: impl Into<String>) -> Check {
    Check::new(Tier::Facts, name, Verdict::Skipped, why)
}

fn passes(after: &[(String, usize)]) -> String {
    after.iter().map(|(pass, bricks)| format!("{pass} {bricks}")).collect::<Vec<_>>().join(", ")
}

/// Groups by label; the order of the groups last, when they are the same ones.
fn bricks(recorded: &[BrickFacts], found: &[BrickFacts], checks: &mut Vec<Check>) {
    let labels = |all: &[BrickFacts]| all.iter().map(|b| b.label(all)).collect::<Vec<_>>();
    let (a, b) = (labels(recorded), labels(found));
    for (label, old) in a.iter().zip(recorded) {
        let name = format!("brick {label}");
        let Some(new) = b.iter().position(|l| l == label).map(|i| &found[i]) else {
            let why = format!("recorded ({} of them), but the plan has none", old.count);
            checks.push(Check::new(Tier::Facts, name, Verdict::Fail, why));
            continue;
        };
        let differences = differences(old, new);
        checks.push(if differences.is_empty() {
            Check::new(Tier::Facts, name, Verdict::Pass, format!("{} as recorded", new.count))
        } else {
            Check::new(Tier::Facts, name, Verdict::Fail, differences.join("; "))
        });
    }
    for (label, new) in b.iter().zip(found).filter(|(l, _)| !a.contains(l)) {
        let why = format!("the plan has {} of them, none is recorded", new.count);
        checks.push(Check::new(Tier::Facts, format!("brick {label}"), Verdict::Fail, why));
    }
    if a != b && a.iter().collect::<BTreeSet<_>>() == b.iter().collect() {
        let why = format!("recorded {}; found {}", a.join(", "), b.join(", "));
        checks.push(Check::new(Tier::Facts, "order of the bricks", Verdict::Fail, why));
    }
}

fn differences(a: &BrickFacts, b: &BrickFacts) -> Vec<String> {
    let mut all = Vec::new();
    let mut text = |what: &str, a: &str, b: &str| {
        if a != b {
            all.push(format!("{what}: recorded {a}, found {b}"));
        }
    };
    let or_none = |s: String| if s.is_empty() { "none".to_owned() } else { s };
    text("kind", &a.kind, &b.kind);
    text("count", &a.count.to_string(), &b.count.to_string());
    text("layers", &or_none(a.layers.clone()), &or_none(b.layers.clone()));
    text("fused", &or_none(a.fused.join(" + ")), &or_none(b.fused.join(" + ")));
    text("weights", &or_none(a.weights.join(" + ")), &or_none(b.weights.join(" + ")));
    for (call, a, b) in [("decode", a.decode, b.decode), ("prompt", a.prompt, b.prompt)] {
        let parts = |m: Moved| {
            [
                ("bytes of weights", m.weights),
                ("bytes read", m.read),
                ("bytes written", m.written),
                ("integer operations", m.int),
                ("float operations", m.float),
            ]
        };
        for ((what, a), (_, b)) in parts(a).into_iter().zip(parts(b)) {
            text(&format!("{call}, {what}"), &a.to_string(), &b.to_string());
        }
    }
    all
}

/// Kernels of the levels found now (one, as a rule); other recorded levels cannot be seen here.
fn kernels(
    recorded: &BTreeMap<String, BTreeMap<String, String>>,
    found: &BTreeMap<String, BTreeMap<String, String>>,
    checks: &mut Vec<Check>,
) {
    for (level, now) in found {
        let name = format!("kernels at {level}");
        let Some(then) = recorded.get(level) else {
            let why = format!("level {level} is not on record; `brick gate record --add-level` adds it");
            checks.push(skipped(&name, why));
            continue;
        };
        let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
        let text = |k: Option<&String>| k.map_or_else(|| "none".to_owned(), Clone::clone);
        let differences: Vec<String> = names
            .into_iter()
            .filter(|n| then.get(*n) != now.get(*n))
            .map(|n| format!("{n}: recorded {}, found {}", text(then.get(n)), text(now.get(n))))
            .collect();
        checks.push(if differences.is_empty() {
            Check::new(Tier::Facts, name, Verdict::Pass, format!("{} as recorded", now.len()))
        } else {
            Check::new(Tier::Facts, name, Verdict::Fail, differences.join("; "))
        });
    }
}

/// T1: instructions of a token now, against the record. Fewer beyond the limit fail as well: the record is then out of date, and
/// would let as many come back unseen.
pub fn judge_instructions(recorded: &Instructions, now: &Instructions, limit_percent: f64) -> Check {
    let name = format!("instructions of a token ({})", now.level);
    let ratio = now.per_token as f64 / recorded.per_token as f64;
    let measured =
        Measured { value: ratio, interval: None, limit: Some(1.0 + limit_percent / 100.0), control: None, pairs: None };
    let counts = format!(
        "{} instructions, recorded {}: {:+.2} %, limit {limit_percent} %",
        now.per_token,
        recorded.per_token,
        100.0 * (ratio - 1.0)
    );
    let (verdict, why) = if now.build != recorded.build {
        let why =
            format!("{counts}; the record is of another build ({}; this: {}): record again", recorded.build, now.build);
        (Verdict::Inconclusive, why)
    } else if (&now.level, now.depth) != (&recorded.level, recorded.depth) {
        let (a, b) = (format!("{} at {}", recorded.level, recorded.depth), format!("{} at {}", now.level, now.depth));
        (Verdict::Inconclusive, format!("{counts}; recorded {a}, counted {b}: record again"))
    } else if 100.0 * now.per_token.abs_diff(recorded.per_token) as f64 > limit_percent * recorded.per_token as f64 {
        (Verdict::Fail, counts)
    } else {
        (Verdict::Pass, counts)
    };
    Check::new(Tier::Instructions, name, verdict, why).with(measured)
}
