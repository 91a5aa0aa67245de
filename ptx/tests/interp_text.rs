//! Texts: what is refused, where and why; and that no text makes the interpreter panic or run for ever.

#![allow(clippy::unwrap_used)]

#[path = "interp/common.rs"]
mod common;
#[path = "interp/touch.rs"]
mod touch;

use brick_ptx::interp::{Access, Arg, Gpu, GpuError, Launch, Limits, Module, ParseErrorKind};
use proptest::prelude::*;
use touch::touch;

/// A kernel of one statement, on line 6.
fn kernel(statement: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 x, .param .u32 n) {{\n\
         .reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .f32 %f<4>; .reg .pred %p<4>; .shared .align 4 .b8 s[16];\n\
         {statement}\n}}\n"
    )
}

/// The error of a statement: line, column and message.
fn error(statement: &str) -> String {
    Module::parse(&kernel(statement)).expect_err(statement).to_string()
}

#[test]
fn errors_say_what_and_where() {
    let cases = [
        ("add.u32 %r1, %r2;", "line 6, column 1: `add` takes 3 operands, found 2"),
        ("  frob.u32 %r1;", "line 6, column 3: instruction `frob` is not part of the subset"),
        ("add.u32 %r1, %r2, %r9;", "line 6, column 1: register `%r9` is not declared"),
        ("add.u32 %r1, %r2, %r01;", "line 6, column 1: register `%r01` is not declared"),
        ("add.wide.u32 %r1, %r2, %r3;", "line 6, column 1: `add` has no modifier `.wide`"),
        (
            ".reg .u32 %u; add.f32 %f1, %f2, %u;",
            "line 6, column 15: operand 3 of `add`: expected a register of .f32, found one of .u32",
        ),
        ("mul.u32 %r1, %r2, %r3;", "line 6, column 1: `mul` needs `.lo`, `.hi` or `.wide`"),
        (
            "add.u64 %rd1, %rd2, %r1;",
            "line 6, column 1: operand 3 of `add`: expected a register of .u64, found one of .b32",
        ),
        ("bra NOWHERE;", "line 6, column 1: label `NOWHERE` is not declared"),
        (
            "ld.u32 %r1, [%rd1];",
            "line 6, column 1: `ld` needs a state space: `.global`, `.shared` or, for loads, `.param`",
        ),
        (
            "ld.global.u32 %r1, [%r1];",
            "line 6, column 1: operand 2 of `ld`: expected a register of 64 bits, found one of .b32",
        ),
        (
            "ld.param.u32 %r1, [n+4];",
            "line 6, column 1: operand 2 of `ld`: expected an address inside the 12 bytes of parameters, found an address",
        ),
        (
            "mov.u32 %r1, 0x1ffffffff;",
            "line 6, column 1: operand 2 of `mov`: expected a register or an immediate of .u32, found the integer 8589934591",
        ),
        ("A: A: ret;", "line 6, column 4: label `A` is declared twice"),
        ("mov.u32 %r1, 5", "line 7, column 1: expected `;`, found `}`"),
        ("mov.f32 %f1, 0f12;", "line 6, column 14: `0f12` is not a number of PTX"),
        ("mov.u32 %r1, 5; #", "line 6, column 17: unexpected character '#'"),
        ("/* never", "line 6, column 1: comment without an end"),
        (".local .b8 l[4];", "line 6, column 1: directive `.local` is not part of the subset"),
        ("cvt.f32.s32 %f1, %r1;", "line 6, column 1: `cvt` needs a rounding"),
        (
            "cp.async.cg.shared.global [s], [%rd1], 8;",
            "line 6, column 1: operand 3 of `cp`: expected 16 bytes, found the integer 8",
        ),
    ];
    for (statement, expected) in cases {
        assert_eq!(error(statement), expected, "{statement}");
    }
}

#[test]
fn modules_need_a_version_and_a_target() {
    let found = Module::parse(".address_size 64").unwrap_err();
    assert!(matches!(found.kind, ParseErrorKind::Expected { .. }), "{found}");
    let module = common::parse(&kernel("ret;"));
    assert_eq!((module.version(), module.target()), ((8, 0), "sm_80"));
    assert_eq!(module.kernels().collect::<Vec<_>>(), ["k"]);
    assert_eq!(module.parameters("k").unwrap().collect::<Vec<_>>(), [("x", 8), ("n", 4)]);
}

#[test]
fn debug_directives_scopes_and_notations_are_read() {
    let text = kernel(
        ".loc 1 2 3\n.pragma \"nounroll\";\n{ .reg .b32 %r1; mov.b32 %r1, 0b101; { .reg .f64 %r1; mov.f64 %r1, -1.5; } }\n\
         mov.u32 %r1, 017; mov.u32 %r1, 0xFFU; mov.s32 %r1, -1; mov.f32 %f1, 0F3F800000; mov.u32 %r1, WARP_SZ;\n\
         ld.param.u64 %rd1, [x]; ld.shared.v2.u8 {%r1, _}, [s+2]; END:",
    );
    common::parse(&text);
}

#[test]
fn launches_that_do_not_fit_are_refused() {
    let module = common::parse(&kernel("ret;"));
    let mut gpu = Gpu::new(Limits { bytes: 1 << 20, ..Limits::default() });
    let x = gpu.buffer("x", &[0; 64], Access::Read).unwrap();
    let args = [Arg::Buffer(x), Arg::U32(1)];
    let one = Launch::linear(1, 32);
    assert!(matches!(gpu.launch(&module, "other", one, &args), Err(GpuError::NoKernel(_))));
    assert!(matches!(
        gpu.launch(&module, "k", one, &args[..1]),
        Err(GpuError::ArgumentCount { expected: 2, found: 1, .. })
    ));
    let swapped = [args[1], args[0]];
    assert!(matches!(
        gpu.launch(&module, "k", one, &swapped),
        Err(GpuError::ArgumentSize { expected: 8, found: 4, .. })
    ));
    assert!(matches!(gpu.launch(&module, "k", Launch::linear(1, 1025), &args), Err(GpuError::BlockShape { .. })));
    assert!(matches!(gpu.launch(&module, "k", Launch::linear(0, 32), &args), Err(GpuError::GridShape(_))));
    let much = Launch { dynamic_shared: 1 << 20, ..one };
    assert!(matches!(gpu.launch(&module, "k", much, &args), Err(GpuError::Memory { .. })));
    assert!(matches!(gpu.output("y", 1 << 20), Err(GpuError::Memory { .. })));
    let required = common::parse(include_str!("interp/gemv_q4.ptx"));
    let message = gpu.launch(&required, "gemv_q4", one, &[args[0]; 6]).unwrap_err().to_string();
    assert!(message.contains("`blocks_per_row`"), "{message}");
    let out = gpu.output("out", 8).unwrap();
    assert!(matches!(gpu.read(out), Err(GpuError::Unwritten { offset: 0, .. })));
    gpu.write(out, 4, &[1; 4]).unwrap();
    assert!(matches!(gpu.write(out, 5, &[1; 4]), Err(GpuError::Range { start: 5, end: 9, size: 8, .. })));
    assert_eq!(gpu.peek(out).unwrap(), [0xff, 0xff, 0xff, 0xff, 1, 1, 1, 1]);
    let stranger = Gpu::new(Limits::default());
    assert!(matches!(stranger.read(out), Err(GpuError::ForeignBuffer)));
}

/// Good texts to damage.
const SEEDS: [&str; 10] = [
    include_str!("interp/block_reduce.ptx"),
    include_str!("interp/faults.ptx"),
    include_str!("interp/gemv_q4.ptx"),
    include_str!("interp/handover.ptx"),
    include_str!("interp/histogram.ptx"),
    include_str!("interp/last_arriver.ptx"),
    include_str!("interp/matrix.ptx"),
    include_str!("interp/pipeline.ptx"),
    include_str!("interp/transpose.ptx"),
    include_str!("interp/warp_exchange.ptx"),
];

#[test]
fn whole_texts_run_within_tight_limits() {
    for text in SEEDS {
        touch(text, 0);
    }
}

/// The words and marks of a text, so that damage keeps some of its grammar.
fn tokens(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '%';
        let end = if word(first) { rest.find(|c| !word(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (token, tail) = rest.split_at(end);
        out.push(token);
        rest = tail;
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_characters_end_in_a_result(text in "\\PC{0,200}") {
        touch(&text, 0);
        touch(&kernel(&text), 0);
    }

    #[test]
    fn damaged_texts_end_in_a_result(
        seed in 0..SEEDS.len(),
        damage in prop::collection::vec((0..4_u8, any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..5),
        schedule in any::<u64>(),
    ) {
        let mut tokens = tokens(SEEDS[seed]);
        for (kind, from, to) in damage {
            let (from, to) = (from.index(tokens.len()), to.index(tokens.len()));
            match kind {
                0 => tokens[to] = tokens[from],
                1 => { tokens.remove(from); }
                2 => tokens.insert(to, tokens[from]),
                _ => tokens.swap(from, to),
            }
        }
        touch(&tokens.concat(), schedule);
    }

    #[test]
    fn any_numbers_as_operands_end_in_a_result(
        address in any::<u64>(), offset in any::<i32>(), a in any::<u32>(), b in any::<u32>(), f in 0..12_usize,
    ) {
        let body = [
            format!("ld.global.v4.u32 {{%r1, %r2, %r3, %r0}}, [{address}];"),
            format!("mov.u64 %rd1, {address}; ld.global.u8 %r1, [%rd1+{offset}];"),
            format!("mov.u32 %r1, {a}; st.shared.u32 [%r1+{offset}], {b};"),
            format!("mov.u32 %r1, {a}; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r2}}, [%r1];"),
            format!("cp.async.ca.shared.global [s], [{address}], 4, {b}; cp.async.wait_all;"),
            format!("mov.u64 %rd1, {address}; atom.global.cas.b64 %rd2, [%rd1+{offset}], {b}, {a};"),
            format!("bar.sync {a}, {b};"),
            format!("shfl.sync.up.b32 %r1, {a}, {b}, {a}, {b};"),
            format!("bfe.s32 %r1, {a}, {b}, {a}; bfi.b32 %r1, {a}, {b}, {b}, {a}; shf.l.clamp.b32 %r1, {a}, {b}, {b};"),
            format!("div.s32 %r1, {a}, {b}; rem.u32 %r2, {b}, {a}; mul.hi.s32 %r3, {a}, {b};"),
            format!("match.any.sync.b32 %r1, {a}, {b}; redux.sync.add.s32 %r2, {a}, {b}; bar.warp.sync {a};"),
            format!("mov.b32 %f1, {a}; cvt.rzi.s32.f32 %r1, %f1; cvt.rm.f32.u32 %f2, {b}; prmt.b32 %r2, {a}, {b}, {a};"),
        ];
        let text = kernel(&body[f]);
        prop_assert!(Module::parse(&text).is_ok(), "{}", Module::parse(&text).unwrap_err());
        touch(&text, address);
    }
}
