//! F111-G–F127-G: the execution graph.

use crate::claim::{Claim, Family, Outcome, Refusal};
use crate::context::Context;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::ExecutionGraph, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[];

#[allow(dead_code)]
fn missing(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs the execution graph"))
}
