//! F021, F022: token budgets.

use bricks::{BrickError, BrickLine, BudgetOrigin, BudgetPolicy, TokenBudget};

use crate::claim::{Claim, Family, Outcome, require, require_eq, require_some};
use crate::context::Context;
use crate::noise::Noise;

pub(super) const CLAIMS: &[Claim] = &[
    Claim {
        id: "F021",
        statement: "The latency and the throughput view of a budget agree",
        family: Family::Budget,
        threshold: "tok/s = 10⁶ / µs",
        check: f021,
    },
    Claim {
        id: "F022",
        statement: "Exceeding a budget yields BudgetExceeded with the limit and the actual time",
        family: Family::Budget,
        threshold: "exact",
        check: f022,
    },
];

fn f021(_: &Context) -> Outcome {
    let mut noise = Noise::new(21);
    let cases = 10_000;
    for _ in 0..cases {
        let x = 10f64.powf(noise.between(-9.0, 12.0));
        let from_latency =
            require_some(TokenBudget::from_latency(x, BudgetOrigin::Roofline), "a budget from a latency")?;
        require_eq("latency", &from_latency.us_per_token(), &x)?;
        require_eq("tok/s", &from_latency.tokens_per_sec(), &(1e6 / x))?;
        let from_rate =
            require_some(TokenBudget::from_throughput(x, BudgetOrigin::Baseline), "a budget from a throughput")?;
        let error = (from_rate.tokens_per_sec() / x - 1.0).abs();
        require(error < 1e-15 * 4.0, format!("{x} tok/s back"), || from_rate.tokens_per_sec().to_string())?;
        require_eq("µs", &from_rate.us_per_token(), &(1e6 / x))?;
        require_eq("origin", &from_rate.origin(), &BudgetOrigin::Baseline)?;
    }
    Ok(format!("{cases} budgets from 10⁻⁹ to 10¹², both ways"))
}

fn f022(_: &Context) -> Outcome {
    let limit = require_some(TokenBudget::from_latency(6.0, BudgetOrigin::Explicit), "a budget")?;
    let mut line = BrickLine::new(BudgetPolicy::Strict);
    line.record_timed("exactly_met", limit, 6.0)?;
    let error = line.record_timed("qkv_proj", limit, 6.000_001).err();
    let expected = BrickError::BudgetExceeded { brick: "qkv_proj".into(), limit_us: 6.0, actual_us: 6.000_001 };
    require_eq("error", &error, &Some(expected))?;
    for policy in [BudgetPolicy::Off, BudgetPolicy::Report] {
        let mut line = BrickLine::new(policy);
        line.record_timed("qkv_proj", limit, 7.0)?;
        let violations = line.finish().violations().count();
        require_eq("violations reported", &violations, &usize::from(policy == BudgetPolicy::Report))?;
    }
    Ok("6.000001 µs against 6 µs: error with both; 6 µs keep the budget; off and report do not stop".into())
}
