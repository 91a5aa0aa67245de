//! Programs that are wrong, each in one way, and what is said of them.

#![allow(clippy::unwrap_used)]

mod samples;

use std::fmt::Write as _;

use brick_ptx::build::{B32, F32, KernelBuilder, LoadOptions, Ptr, Reg, S32, SharedSpace, StoreOptions, U8, U32};
use brick_ptx::ir::{
    Access, Arch, AtomicOp, BinaryOp, Class, Inst, Kernel, L1, MAX_DEPTH, Mma, MmaKind, Module, Operand, Order, RegId,
    Rounding, Scope, ShuffleMode, Stmt, StmtKind, Target, Threads, Type,
};
use brick_ptx::valid::{Facts, Place, Uniformity, ValidErrorKind, fits_shared, validate, validate_kernel};

/// What the tests start from: blocks of 128 threads, `out` with 16 bytes of alignment, 256 words of shared memory.
struct Base {
    k: KernelBuilder,
    out: Ptr<B32>,
    input: Ptr<B32>,
    tile: Ptr<B32, SharedSpace>,
    n: Reg<U32>,
}

fn kernel(body: impl FnOnce(&Base)) -> Kernel {
    let k = KernelBuilder::new("k");
    k.threads(Threads::Exactly([128, 1, 1]));
    let base = Base {
        out: k.param_ptr("out", Access::Write, 16),
        input: k.param_ptr("input", Access::Read, 16),
        tile: k.shared("tile", 256),
        n: k.param_u32("n"),
        k,
    };
    body(&base);
    base.k.finish()
}

/// For results that nobody needs.
fn ignore<T>(_: T) {}

fn stmt(kind: StmtKind) -> Stmt {
    Stmt { kind, source: None }
}

/// A kernel of instructions written by hand, over registers 0 to 5: one of each class.
fn by_hand(insts: &[Inst]) -> Kernel {
    Kernel {
        name: "k".into(),
        registers: Class::ALL.to_vec(),
        body: insts.iter().map(|inst| stmt(StmtKind::Inst(inst.clone()))).collect(),
        ..Kernel::default()
    }
}

fn set(class: u32, ty: Type) -> Inst {
    Inst::Mov { ty, dst: RegId(class), src: Operand::int(1) }
}

/// Every kernel is valid but for the one thing that its name says.
fn wrong() -> Vec<(&'static str, Kernel)> {
    let f32_mma = Mma { kind: MmaKind::F16, d: [RegId(4); 4], a: [RegId(4); 4], b: [RegId(2); 2], c: [RegId(4); 4] };
    let f32_zero = Inst::Mov { ty: Type::F32, dst: RegId(4), src: Operand::Imm(brick_ptx::ir::Imm::F32(0)) };
    vec![
        ("barrier where only some lanes come", kernel(|b| b.k.if_(b.k.lt(b.k.laneid(), 3), || b.k.barrier()))),
        ("barrier where only some warps come", kernel(|b| b.k.if_(b.k.lt(b.k.warp(), 3), || b.k.barrier()))),
        (
            "barrier in a loop that threads leave apart",
            kernel(|b| b.k.for_(b.k.tid(), b.n, 128, |_: Reg<U32>| b.k.barrier())),
        ),
        (
            "barrier after some threads returned",
            kernel(|b| {
                b.k.return_if(b.k.ge(b.k.tid(), b.n));
                b.k.barrier();
            }),
        ),
        (
            "barrier in a loop that some threads return from, before it in the text",
            kernel(|b| {
                b.k.for_(0, b.n, 1, |i: Reg<U32>| {
                    b.k.barrier();
                    b.k.return_if(b.k.eq(i, b.k.tid()));
                });
            }),
        ),
        (
            "barrier that depends on a value that was set where threads differ",
            kernel(|b| {
                let flag = b.k.var::<U32>(0);
                b.k.if_(b.k.eq(b.k.tid(), 0), || b.k.set(flag, 1));
                b.k.if_(b.k.eq(flag, 1), || b.k.barrier());
            }),
        ),
        (
            "barrier that depends on memory",
            kernel(|b| b.k.if_(b.k.eq(b.k.ld(b.input.cast::<U32>()), 1), || b.k.barrier())),
        ),
        (
            "named barrier where only some lanes come",
            kernel(|b| b.k.if_(b.k.lt(b.k.laneid(), 3), || b.k.barrier_of(1, 64))),
        ),
        (
            "shuffle where only some lanes come",
            kernel(|b| b.k.if_(b.k.lt(b.k.laneid(), 3), || ignore(b.k.shfl_bfly(b.n, 1)))),
        ),
        ("shuffle in a block with an incomplete warp", {
            let mut kernel = kernel(|b| ignore(b.k.shfl_bfly(b.n, 1)));
            kernel.threads = Threads::Exactly([100, 1, 1]);
            kernel
        }),
        (
            "ldmatrix where only some lanes come",
            kernel(|b| b.k.if_(b.k.lt(b.k.laneid(), 16), || ignore(b.k.ldmatrix::<_, 4>(b.tile)))),
        ),
        (
            "uniform load from an address per thread",
            kernel(|b| ignore(b.k.ld_with(b.k.index(b.input, b.k.tid()), LoadOptions::default().uniform()))),
        ),
        ("warp index in a block of unknown shape", {
            let mut kernel = kernel(|b| b.k.if_(b.k.eq(b.k.warp(), 0), || b.k.warp_barrier()));
            kernel.threads = Threads::Any;
            kernel
        }),
        ("vector at an odd element", kernel(|b| ignore(b.k.ld4(b.input.at(1))))),
        ("vector at an index of single elements", kernel(|b| ignore(b.k.ld4(b.k.index(b.input, b.n))))),
        ("word at a byte", kernel(|b| b.k.st(b.out.offset(2), 1))),
        (
            "vector of a pointer that moves by words",
            kernel(|b| {
                let p = b.k.ptr_var(b.input);
                b.k.for_(0, b.n, 1, |_: Reg<U32>| {
                    b.k.ld4(p.ptr());
                    b.k.step(p, 4);
                });
            }),
        ),
        ("shared vector at an odd element", kernel(|b| b.k.st2(b.tile.at(1), [1, 2]))),
        ("ldmatrix of a row that is not aligned", kernel(|b| ignore(b.k.ldmatrix::<_, 1>(b.k.index(b.tile, b.n))))),
        ("asynchronous copy of unaligned bytes", kernel(|b| b.k.cp_async_bypass(b.tile, b.input.at(1)))),
        ("access behind shared memory", kernel(|b| b.k.st(b.tile.at(256), 1))),
        ("access before shared memory", kernel(|b| ignore(b.k.ld(b.tile.at(-1))))),
        ("store to what is read", kernel(|b| b.k.st(b.k.index(b.input, b.k.tid()), 1))),
        ("load from what is written", kernel(|b| ignore(b.k.ld(b.out)))),
        ("read-only load of what is written", kernel(|b| ignore(b.k.ld_with(b.out, LoadOptions::STREAM)))),
        ("atomic on what is only written", kernel(|b| b.k.red(AtomicOp::Or, b.out, 1, Order::Relaxed(Scope::Gpu)))),
        ("value of one branch", {
            kernel(|b| {
                let one = std::cell::Cell::new(None);
                b.k.if_(b.k.lt(b.n, 3), || one.set(Some(b.k.add(b.n, 1))));
                b.k.st(b.out, one.get().unwrap().as_ty::<B32>());
            })
        }),
        ("value of a loop that may not run", {
            kernel(|b| {
                let one = std::cell::Cell::new(None);
                b.k.for_(0, b.n, 1, |i: Reg<U32>| one.set(Some(b.k.add(i, 1))));
                b.k.st(b.out, one.get().unwrap().as_ty::<B32>());
            })
        }),
        ("dependent launch on sm_80", kernel(|b| b.k.wait_for_dependencies())),
        ("bf16 sums on sm_80", kernel(|b| ignore(b.k.add(b.k.to_bf16(1.0), b.k.to_bf16(2.0))))),
        ("vector of three", { kernel(|b| ignore(b.k.ld_vec::<_, _, 3>(b.input, LoadOptions::default()))) }),
        ("vector of 32 bytes", kernel(|b| ignore(b.k.ld4(b.input.cast::<brick_ptx::build::F64>())))),
        ("barrier 16", kernel(|b| b.k.barrier_of(16, 32))),
        ("barrier of half a warp", kernel(|b| b.k.barrier_of(1, 48))),
        ("shuffle among 12", kernel(|b| ignore(b.k.shuffle(ShuffleMode::Idx, b.n, 0, 12, u32::MAX)))),
        ("shuffle from lane 32", kernel(|b| ignore(b.k.shfl_idx(b.n, 32)))),
        ("bit field past every width", kernel(|b| ignore(b.k.bfe(b.n, 256, 1)))),
        ("sleep of a second", kernel(|b| b.k.nanosleep(1_000_000_000))),
        ("three matrices", kernel(|b| ignore(b.k.ldmatrix::<_, 3>(b.tile)))),
        (
            "hints for shared memory",
            kernel(|b| {
                b.k.st_with(b.tile, 1, StoreOptions::default().l1(L1::NoAllocate));
            }),
        ),
        (
            "load that releases",
            kernel(|b| {
                ignore(b.k.ld_with(b.input, LoadOptions::default().order(Order::Release(Scope::Gpu))));
            }),
        ),
        ("atomic without order", kernel(|b| b.k.red(AtomicOp::Or, b.tile, 1, Order::Weak))),
        ("cp.async of 12 bytes", kernel(|b| b.k.cp_async(b.tile, b.input, 12))),
        ("float to integer, rounded to a float", kernel(|b| ignore(b.k.to_int::<S32>(1.5, Rounding::Rn)))),
        (
            "integer of a float register",
            by_hand(&[
                f32_zero.clone(),
                Inst::Binary {
                    op: BinaryOp::Add,
                    ty: Type::U32,
                    dst: RegId(2),
                    a: RegId(4).into(),
                    b: RegId(4).into(),
                },
            ]),
        ),
        ("fragment in float registers", by_hand(&[f32_zero, set(2, Type::B32), Inst::Mma(f32_mma)])),
        ("register that does not exist", by_hand(&[set(6, Type::B32)])),
        ("register that nothing set", by_hand(&[Inst::Mov { ty: Type::B32, dst: RegId(2), src: RegId(2).into() }])),
        (
            "parameter that does not exist",
            by_hand(&[Inst::LoadParam { dst: RegId(3), param: brick_ptx::ir::ParamId(0) }]),
        ),
        (
            "number that does not fit",
            by_hand(&[Inst::Mov { ty: Type::S32, dst: RegId(2), src: Operand::int(1 << 31) }]),
        ),
        ("number for a predicate", by_hand(&[set(0, Type::Pred)])),
        (
            "sum of bits",
            by_hand(&[Inst::Binary {
                op: BinaryOp::Add,
                ty: Type::B32,
                dst: RegId(2),
                a: Operand::int(1),
                b: Operand::int(1),
            }]),
        ),
        ("a divisor that is no power of two", kernel(|b| ignore(b.k.assume_multiple(b.n, 12)))),
        ("two of one name", kernel(|b| ignore(b.k.param_u32("tile")))),
        ("a name with a space", kernel(|b| ignore(b.k.param_u32("a b")))),
        ("alignment of 24", kernel(|b| ignore(b.k.param_ptr::<F32>("x", Access::Read, 24)))),
        ("49 KiB of static shared memory", kernel(|b| ignore(b.k.shared::<U8>("more", 48 << 10)))),
        ("164 KiB of shared memory", kernel(|b| ignore(b.k.dynamic_shared::<U8>("more", 163 << 10)))),
        (
            "two dynamic allocations",
            kernel(|b| {
                b.k.dynamic_shared::<U8>("one", 1);
                b.k.dynamic_shared::<U8>("two", 1);
            }),
        ),
        ("2048 threads", kernel(|b| b.k.threads(Threads::Exactly([64, 32, 1])))),
        ("more parameters than fit", kernel(|b| (0..600).for_each(|i| ignore(b.k.param_u64(&format!("p{i}"), 1))))),
        ("nested too deep", {
            let mut kernel = by_hand(&[]);
            for _ in 0..10_000 {
                let then = std::mem::take(&mut kernel.body);
                kernel.body = vec![stmt(StmtKind::If { cond: RegId(0), then, otherwise: Vec::new() })];
            }
            kernel
        }),
    ]
}

#[test]
fn every_wrong_program_is_refused_for_what_is_wrong() {
    let mut said = String::new();
    for (what, kernel) in wrong() {
        let error = validate_kernel(&kernel, Target::Sm80).expect_err(what);
        let opcode = match error.place {
            Place::Kernel => "",
            Place::Statement { opcode, .. } => opcode,
        };
        writeln!(said, "{what}\n    {opcode}: {}", error.kind).unwrap();
    }
    insta::assert_snapshot!(said);
}

/// What looks like the wrong programs but is not.
#[test]
fn right_programs_are_not_refused() {
    let right = [
        kernel(|b| b.k.if_(b.k.lt(b.k.ctaid(), 3), || b.k.barrier())),
        kernel(|b| b.k.for_(0, b.n, 1, |_: Reg<U32>| b.k.barrier())),
        kernel(|b| b.k.if_(b.k.lt(b.k.warp(), 2), || b.k.barrier_of(1, 64))),
        kernel(|b| b.k.if_(b.k.lt(b.k.warp(), 2), || ignore(b.k.ldmatrix::<_, 4>(b.tile)))),
        kernel(|b| b.k.if_(b.k.lt(b.k.laneid(), 3), || b.k.warp_barrier_of(7))),
        kernel(|b| {
            b.k.return_if(b.k.ge(b.k.ctaid(), b.n));
            b.k.barrier();
        }),
        // A value that all threads read, and a vote, may decide.
        kernel(|b| {
            let flag = b.k.ld_with(b.input.cast::<U32>(), LoadOptions::READ_ONLY.uniform());
            b.k.if_(b.k.eq(flag, 1), || b.k.barrier());
        }),
        kernel(|b| b.k.if_(b.k.any(b.k.lt(b.k.laneid(), 3)), || ignore(b.k.shfl_bfly(b.n, 1)))),
        // The other branch returns, so the value is always set.
        kernel(|b| {
            let value = b.k.ptr_var(b.out);
            b.k.if_else(b.k.lt(b.n, 1), || b.k.ret(), || b.k.step(value, 16));
            b.k.st4(value.ptr(), [0, 1, 2, 3]);
        }),
        kernel(|b| b.k.st4(b.k.index_by(b.out, b.n, 16).at(4), [0, 1, 2, 3])),
        kernel(|b| b.k.st4(b.k.index(b.out, b.k.and(b.n, !3)), [0, 1, 2, 3])),
        kernel(|b| b.k.st4(b.k.index(b.out, b.k.assume_multiple(b.k.add(b.n, 0), 4)), [0, 1, 2, 3])),
    ];
    for (i, kernel) in right.iter().enumerate() {
        validate_kernel(kernel, Target::Sm80).unwrap_or_else(|e| panic!("{i}: {e}"));
    }
}

#[test]
fn errors_name_the_line_of_rust() {
    let line = line!() + 1;
    let kernel = kernel(|b| ignore(b.k.ld4(b.input.at(1))));
    let error = validate_kernel(&kernel, Target::Sm80).unwrap_err();
    assert!(error.to_string().contains(&format!("valid.rs:{line}")), "{error}");
}

#[test]
fn kernels_of_a_module_have_different_names() {
    let module = Module { kernels: vec![kernel(|_| ()), kernel(|_| ())] };
    let error = validate(&module, Target::Sm80).unwrap_err();
    assert!(matches!(error.kind, ValidErrorKind::Duplicate { .. }), "{error}");
}

#[test]
fn targets_and_architectures_have_limits_of_their_own() {
    let kernel = kernel(|b| {
        b.k.dynamic_shared::<U8>("ring", 150 << 10);
        b.k.wait_for_dependencies();
    });
    validate_kernel(&kernel, Target::Sm90).unwrap();
    assert!(validate_kernel(&kernel, Target::Sm80).is_err());
    let fits = Arch::ALL.map(|arch| fits_shared(&kernel, arch).is_ok());
    assert_eq!(fits, [true, false, false, true, true, false]);
}

#[test]
fn facts() {
    let mut regs: Vec<(RegId, Uniformity, u64)> = Vec::new();
    let kernel = kernel(|b| {
        let warp = b.k.warp();
        let select = b.k.select::<U32>(b.k.lt(warp, 1), 8, 12);
        regs.push((b.n.id(), Uniformity::Block, 1));
        regs.push((b.k.mul(b.n, 24).id(), Uniformity::Block, 8));
        regs.push((warp.id(), Uniformity::Warp, 1));
        regs.push((select.id(), Uniformity::Warp, 4));
        regs.push((b.k.shl(b.k.tid(), 4).id(), Uniformity::Thread, 16));
        regs.push((b.k.shfl_idx(b.k.tid(), 0).id(), Uniformity::Warp, 1));
        regs.push((b.k.ballot(b.k.lt(b.k.tid(), 3)).id(), Uniformity::Warp, 1));
    });
    let facts = Facts::of(&kernel).unwrap();
    for (reg, uniformity, multiple) in regs {
        assert_eq!((facts.uniformity(reg), facts.multiple_of(reg)), (uniformity, multiple), "{reg:?}");
    }
}

#[test]
fn nesting_up_to_the_limit_is_fine() {
    let mut kernel = by_hand(&[]);
    kernel.body.push(stmt(StmtKind::Inst(Inst::Trap)));
    for _ in 1..MAX_DEPTH {
        let then = std::mem::take(&mut kernel.body);
        let compare = Inst::Compare {
            cmp: brick_ptx::ir::Cmp::Eq,
            ty: Type::U32,
            dst: RegId(0),
            a: Operand::int(1),
            b: Operand::int(1),
        };
        let branch = StmtKind::If { cond: RegId(0), then, otherwise: Vec::new() };
        kernel.body = vec![stmt(StmtKind::Inst(compare)), stmt(branch)];
    }
    let module = Module { kernels: vec![kernel] };
    let text = brick_ptx::compile(&module, Target::Sm80).unwrap();
    assert_eq!(text.matches("$endif").count(), 2 * (MAX_DEPTH - 1));
}
