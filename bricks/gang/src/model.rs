//! The gang under the model checker: loom runs the interleavings (and the values a weak memory could show) of a small
//! program, most of them up to a bound of forced switches. `RUSTFLAGS="--cfg loom" cargo test -p brick-gang --release --lib`.
//!
//! A lost wake-up shows as a deadlock, a missing happens-before as a race on a `loom` cell. There is no spinning here
//! (`wait::spins_per_us` is 0): every wait that is not over at once goes through parking, the part that can go wrong.

#![allow(clippy::unwrap_used)]

use loom::cell::UnsafeCell;

use super::*;

/// Explores `f`; where every interleaving would take too long, those with at most `preemptions` forced switches.
fn explore(preemptions: Option<usize>, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(f);
}

/// A cell per member, written by its member in one step and read by all in the next.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: for the model checker to find out.
unsafe impl Sync for Cells {}

impl Cells {
    fn new(n: usize) -> Self {
        Self((0..n).map(|_| UnsafeCell::new(0)).collect())
    }

    fn set(&self, i: usize, value: usize) {
        // SAFETY: loom fails the test when another thread accesses the cell at the same time.
        self.0[i].with_mut(|cell| unsafe { *cell = value });
    }

    fn all(&self, value: usize) -> bool {
        // SAFETY: as above.
        self.0.iter().all(|cell| cell.with(|cell| unsafe { *cell }) == value)
    }
}

/// Every member writes its cell, and after the barrier reads all of them.
fn exchange(m: &Member<'_>, cells: &Cells, steps: std::ops::RangeInclusive<usize>) {
    for step in steps {
        cells.set(m.index(), step);
        m.barrier();
        assert!(cells.all(step), "step {step}");
        m.barrier();
    }
}

#[test]
fn two_members_exchange_through_the_barrier() {
    explore(Some(3), || {
        let mut gang = Gang::new(2).unwrap();
        let cells = Cells::new(2);
        gang.run(|m| exchange(m, &cells, 1..=1), |m| exchange(m, &cells, 1..=1)).unwrap();
    });
}

#[test]
fn three_members_exchange_through_two_rounds() {
    explore(Some(1), || {
        let mut gang = Gang::new(3).unwrap();
        let cells = Cells::new(3);
        gang.run(|m| exchange(m, &cells, 1..=1), |m| exchange(m, &cells, 1..=1)).unwrap();
    });
}

#[test]
fn calls_start_and_end_and_the_leader_sees_the_results() {
    explore(Some(3), || {
        let mut gang = Gang::new(2).unwrap();
        let cells = Cells::new(2);
        for call in 1..=2 {
            gang.run(|m| cells.set(m.index(), call), |m| cells.set(m.index(), call)).unwrap();
            assert!(cells.all(call));
        }
    });
}

#[test]
fn a_gang_that_never_worked_ends() {
    explore(None, || drop(Gang::new(2).unwrap()));
}

#[test]
fn work_is_handed_out_once_in_neighbouring_steps() {
    explore(Some(2), || {
        let mut gang = Gang::new(2).unwrap();
        // Own pieces, stolen ones, and the counters of the step before, which are reset.
        let steps = [Cells::new(5), Cells::new(5)];
        let work = |m: &Member<'_>| {
            for cells in &steps {
                while let Some(range) = m.take(5, 1) {
                    range.for_each(|i| cells.set(i, 1));
                }
                m.barrier();
            }
        };
        gang.run(work, work).unwrap();
        assert!(steps.iter().all(|cells| cells.all(1)));
    });
}

#[test]
fn a_panic_frees_whoever_waits() {
    // The panic is planted as its payload: a real one would print for every interleaving.
    explore(Some(2), || {
        let mut gang = Gang::new(2).unwrap();
        let error = gang.run(|m| m.barrier(), |_| std::panic::resume_unwind(Box::new("planted")));
        assert_eq!(error.unwrap_err().message, "planted");
        gang.run(|m| m.barrier(), |m| m.barrier()).unwrap();
    });
}
