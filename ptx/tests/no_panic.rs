//! The promise of the validator: neither it nor emission panics, whatever the IR; and what it accepts has a text.

#![allow(clippy::unwrap_used)]

mod nonsense;
mod samples;

use brick_ptx::emit::emit;
use brick_ptx::ir::{Inst, Kernel, Module, RegId, Stmt, StmtKind, Target};
use brick_ptx::valid::{Facts, validate};
use nonsense::Nonsense;
use proptest::prelude::*;

/// Whether it was accepted.
fn holds(module: &Module) -> bool {
    let mut accepted = false;
    for target in Target::ALL {
        let valid = validate(module, target);
        let text = emit(module, target);
        if valid.is_ok() {
            accepted = true;
            text.as_ref().unwrap();
        }
        if let Err(e) = valid {
            let _ = e.to_string();
        }
    }
    for kernel in &module.kernels {
        let _ = Facts::of(kernel);
    }
    accepted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn of_arbitrary_ir(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        holds(&Nonsense::new(&bytes).module());
    }

    /// Nearly right programs reach the checks that come last.
    #[test]
    fn of_samples_with_a_mistake(sample in 0_usize..64, at in any::<prop::sample::Index>(), change: u8, to: u32) {
        let mut kernels: Vec<Kernel> = samples::all().into_iter().map(|(kernel, _)| kernel).collect();
        kernels.extend(samples::every_instruction::kernels());
        let index = sample % kernels.len();
        let mut kernel = kernels.swap_remove(index);
        let mut insts = Vec::new();
        collect(&mut kernel.body, &mut insts);
        let index = at.index(insts.len());
        mutate(insts.swap_remove(index), change, to, kernel.registers.len() as u32);
        holds(&Module { kernels: vec![kernel] });
    }
}

fn collect<'a>(block: &'a mut [Stmt], into: &mut Vec<&'a mut Inst>) {
    for stmt in block {
        match &mut stmt.kind {
            StmtKind::Inst(inst) => into.push(inst),
            StmtKind::If { then: a, otherwise: b, .. } | StmtKind::While { head: a, body: b, .. } => {
                collect(a, into);
                collect(b, into);
            }
            StmtKind::Comment(_) | StmtKind::Return => {}
        }
    }
}

fn mutate(inst: &mut Inst, change: u8, to: u32, registers: u32) {
    let reg = RegId(if change & 1 == 0 { to % registers.max(1) } else { to });
    match inst {
        Inst::Mov { dst, .. }
        | Inst::ReadSpecial { dst, .. }
        | Inst::Unary { dst, .. }
        | Inst::Ternary { dst, .. }
        | Inst::Compare { dst, .. } => *dst = reg,
        Inst::Binary { a, b, .. } => std::mem::swap(a, b),
        Inst::Load(load) => {
            load.from.offset = to as i32;
            load.dst.truncate(usize::from(change) % 5);
        }
        Inst::Store(store) => {
            store.to.offset = to as i32;
            store.values.truncate(usize::from(change) % 5);
        }
        Inst::LoadMatrix(load) => load.dst.truncate(usize::from(change) % 5),
        Inst::Mma(mma) => mma.a[0] = reg,
        other => *other = Inst::Barrier { id: to % 20, threads: (change & 1 == 0).then_some(to) },
    }
}

/// Bytes of zeros make a kernel, too; and a property that nothing satisfies would be none.
#[test]
fn some_nonsense_is_valid() {
    let accepted = (0..20_000_u64)
        .filter(|seed| {
            let bytes: Vec<u8> =
                (0..40).map(|i| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i * 7) >> 8) as u8).collect();
            holds(&Nonsense::new(&bytes).module())
        })
        .count();
    assert!(accepted > 0);
}
