//! Traps of things this build does not have, and the gate's own.

use crate::board::Board;
use crate::claim::{Claim, Family, Outcome, Refusal, Verdict, require, require_eq};
use crate::context::Context;

pub(super) fn cuda(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs the CUDA backend, which this build does not have"))
}

pub(super) fn safetensors(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs a reader of SafeTensors, which this build does not have"))
}

pub(super) fn other_engine(_: &Context) -> Outcome {
    Err(Refusal::not_testable("needs another engine beside this one; the benchmarks that run one record its device"))
}

pub(super) fn gate(context: &Context) -> Outcome {
    fn claim(check: fn(&Context) -> Outcome) -> Claim {
        Claim { id: "X", statement: "a claim", family: Family::Trap, threshold: "none", check }
    }
    fn panics(_: &Context) -> Outcome {
        let index = std::hint::black_box(7);
        require([1, 2, 3][index] == 0, "never reached", String::new)?;
        Ok(String::new())
    }
    fn errs(_: &Context) -> Outcome {
        Ok("x".parse::<u8>()?.to_string())
    }
    let hook = std::panic::take_hook();
    // The panic is part of the experiment: its message would only alarm.
    std::panic::set_hook(Box::new(|_| ()));
    let verdict = claim(panics).judge(context);
    std::panic::set_hook(hook);
    require(verdict.is_falsified(), "a panic to falsify", || verdict.word().into())?;
    let verdict = claim(errs).judge(context);
    require(verdict.is_falsified(), "an error to falsify", || verdict.word().into())?;
    let skip = claim(cuda);
    let skipped = Board::of(&[skip, skip], context);
    let score = (skipped.score.corroborated, skipped.score.not_testable);
    require_eq("(corroborated, not testable) of two skips", &score, &(0, 2))?;
    require(!matches!(skipped.claims[0].verdict, Verdict::Corroborated { .. }), "a skip to stay one", || {
        "a pass".into()
    })?;
    let board = Board::of(&[claim(|_| Ok("fine".into())), claim(errs)], context);
    require(!board.stands(), "one falsified claim to fell the board", || "a board that stands".into())?;
    Ok("a panic, an error and a falsified claim each fail; two skips count as two skips".into())
}
