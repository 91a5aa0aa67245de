//! What must be true of a recording while it is made, and whether it is.
//!
//! Values of activations are not looked at here: that is `brick check` and `brick trace`, which compute every brick a second time.

use brick_profiler::format::{clean, number, percent};
use brick_profiler::profile::{Flag, Verdict};

use crate::snapshot::Snapshot;

/// Spread of the times of forward calls from which on they say little.
pub const UNSTEADY_CV: f64 = 0.15;
/// Fraction of the wall time that has to be charged to bricks.
const COVERAGE: f64 = 0.95;

/// Whether an assertion holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    Holds,
    /// It does not.
    Fails,
    /// There is nothing to judge by. Not a pass.
    NotEvaluated,
}

impl Status {
    /// A sign that does not need a colour.
    pub const fn mark(self) -> &'static str {
        match self {
            Self::Holds => "✓",
            Self::Fails => "✗",
            Self::NotEvaluated => "–",
        }
    }

    fn of(holds: Option<bool>) -> Self {
        match holds {
            Some(true) => Self::Holds,
            Some(false) => Self::Fails,
            None => Self::NotEvaluated,
        }
    }
}

/// An assertion and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asserted, e.g. `QKV keeps its budget`.
    pub name: String,
    /// Whether it holds.
    pub status: Status,
    /// What was found.
    pub found: String,
}

/// All assertions: those of the recording, then one or two for every kind of brick that has a budget.
pub fn checks(s: &Snapshot) -> Vec<Check> {
    let (m, d) = (&s.measured, &s.derived);
    let check = |name: &str, holds: Option<bool>, found: String| Check {
        name: name.to_owned(),
        status: Status::of(holds),
        found,
    };
    let cv = m.us_per_token.map(|u| u.cv);
    let unknown = || "not known".to_owned();
    let mut all = vec![
        check(
            "95 % of the time is charged to bricks",
            d.coverage.map(|c| c >= COVERAGE),
            d.coverage.map_or_else(unknown, |c| format!("{}*", percent(c))),
        ),
        check(
            "forward calls take steady time: CV below 15 %",
            cv.map(|cv| cv < UNSTEADY_CV),
            cv.map_or_else(unknown, percent),
        ),
        check("every forward call ended", Some(m.aborted_forwards == 0), format!("{} did not", m.aborted_forwards)),
        check(
            "every call of the recorder made sense",
            Some(m.ignored_calls == 0),
            format!("{} did not", m.ignored_calls),
        ),
        check(
            "the program is a release build",
            Some(!s.build.debug_assertions),
            if s.build.debug_assertions { "debug assertions are on" } else { "no debug assertions" }.to_owned(),
        ),
    ];
    for row in &s.bricks {
        let name = row.kind.name();
        if let Some(budget) = row.derived.budget {
            let holds = match row.derived.verdict {
                Verdict::Within => Some(true),
                Verdict::Over => Some(false),
                Verdict::NoBudget | Verdict::NotMeasured => None,
            };
            let found = format!("{} of {} µs*", number(row.actual_us()), number(budget.us_per_token));
            all.push(check(&format!("{name} keeps its budget"), holds, found));
        }
        let doubts = row.derived.flags.iter().filter(|f| **f != Flag::NearClockResolution);
        all.extend(
            doubts.map(|f| check(&format!("{name} is no faster than the machine"), Some(false), clean(f.meaning()))),
        );
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn what_holds_and_what_does_not() {
        let s = testing::snapshot();
        let all = checks(&s);
        let status = |name: &str| all.iter().find(|c| c.name == name).map(|c| c.status);
        assert_eq!(status("every forward call ended"), Some(Status::Holds));
        assert_eq!(status("forward calls take steady time: CV below 15 %"), Some(Status::Fails));
        assert_eq!(status("95 % of the time is charged to bricks"), Some(Status::Holds));
        let budgets = all.iter().filter(|c| c.name.ends_with("keeps its budget"));
        assert_eq!(budgets.clone().count(), s.bricks.iter().filter(|b| b.derived.budget.is_some()).count());
        assert!(
            budgets.clone().any(|c| c.status == Status::Holds) && budgets.clone().any(|c| c.status == Status::Fails)
        );
    }

    #[test]
    fn nothing_to_judge_by_is_no_pass() {
        let mut s = testing::snapshot();
        s.derived.coverage = None;
        s.measured.us_per_token = None;
        s.measured.aborted_forwards = 2;
        let all = checks(&s);
        assert_eq!(
            (all[0].status, all[1].status, all[2].status),
            (Status::NotEvaluated, Status::NotEvaluated, Status::Fails)
        );
        assert_eq!(all[2].found, "2 did not");
    }
}
