//! Single instructions against Rust, on random and on awkward inputs. One warp, one input word per lane and operand.

#![allow(clippy::unwrap_used)]

#[path = "interp/common.rs"]
mod common;

use brick_ptx::interp::{Access, Arg, Gpu, Launch, Limits, Module};
use half::{bf16, f16};

/// Inputs `%a`, `%b`, `%c` (32 bits), `%wa`, `%wb`, `%wc` (64 bits: the word and its neighbour's), outputs `%d` and
/// `%wd`; `%p` is true where `%c` is odd. `%fa` … are views of the same bits as floats.
const FRAME: &str = "
.version 8.0
.target sm_90
.address_size 64
.visible .entry one(.param .u64 in, .param .u64 out)
{
    .reg .pred %p, %q, %z;
    .reg .b16 %h<8>;
    .reg .b32 %a, %b, %c, %d, %e, %t<16>;
    .reg .f32 %fa, %fb, %fc, %fd;
    .reg .f64 %ga, %gb, %gc, %gd;
    .reg .b64 %i, %o, %wa, %wb, %wc, %wd, %off;
    ld.param.u64 %i, [in];
    ld.param.u64 %o, [out];
    mov.u32 %t0, %tid.x;
    mul.wide.u32 %off, %t0, 24;
    add.u64 %i, %i, %off;
    ld.global.v2.u32 {%a, %t1}, [%i];
    ld.global.v2.u32 {%b, %t2}, [%i+8];
    ld.global.v2.u32 {%c, %t3}, [%i+16];
    mov.b64 %wa, {%a, %t1};
    mov.b64 %wb, {%b, %t2};
    mov.b64 %wc, {%c, %t3};
    mov.b32 %fa, %a;
    mov.b32 %fb, %b;
    mov.b32 %fc, %c;
    mov.b64 %ga, %wa;
    mov.b64 %gb, %wb;
    mov.b64 %gc, %wc;
    mov.b32 {%h0, %h1}, %a;
    mov.b32 {%h2, %h3}, %b;
    mov.b32 {%h4, %h5}, %c;
    and.b32 %t4, %c, 1;
    setp.eq.u32 %p, %t4, 1;
    mov.u32 %d, 0;
    mov.u64 %wd, 0;
    mov.f32 %fd, 0f00000000;
    mov.f64 %gd, 0d0000000000000000;
    mov.b16 %h6, 0;
    BODY
    mul.wide.u32 %off, %t0, 16;
    add.u64 %o, %o, %off;
    st.global.u64 [%o], %wd;
    st.global.u32 [%o+8], %d;
    st.global.u32 [%o+12], %d;
    ret;
}
";

/// Inputs that find the corners of integer and of float instructions.
fn inputs() -> Vec<[u64; 3]> {
    let corners: [u32; 24] = [
        0,
        1,
        2,
        5,
        31,
        32,
        33,
        64,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0001,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0x7fc0_0000,
        0x0000_0003,
        0x42c8_3c00,
    ];
    let mut out = Vec::new();
    for (i, &a) in corners.iter().enumerate() {
        for (j, &b) in corners.iter().enumerate() {
            let c = corners[(5 * i + 3 * j) % corners.len()];
            let high = |k: usize| u64::from(corners[k % corners.len()]) << 32;
            out.push([high(i + j) | u64::from(a), high(2 * i + j) | u64::from(b), high(i + 2 * j) | u64::from(c)]);
        }
    }
    let noise = common::noise(9, 6 * 448);
    out.extend(noise.chunks_exact(6).map(|w| [0, 2, 4].map(|i| u64::from(w[i]) << 32 | u64::from(w[i + 1]))));
    assert_eq!(out.len() % 1024, 0, "whole blocks");
    out
}

/// Runs a body over all inputs; the results are `%d` and `%wd`.
fn run(body: &str) -> Vec<(u32, u64)> {
    let inputs = inputs();
    let module = Module::parse(&FRAME.replace("BODY", body)).unwrap_or_else(|error| panic!("{body}: {error}"));
    let mut gpu = Gpu::new(Limits::default());
    let bytes: Vec<u8> = inputs.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    let x = gpu.buffer("in", &bytes, Access::Read).unwrap();
    let out = gpu.output("out", 16 * inputs.len()).unwrap();
    for block in 0..inputs.len() / 1024 {
        let part = |buffer, bytes: usize, access| Arg::Slice { buffer, offset: (bytes * 1024 * block) as u64, access };
        let args = [part(x, 24, Access::Read), part(out, 16, Access::Write)];
        gpu.launch(&module, "one", Launch::linear(1, 1024), &args).unwrap_or_else(|error| panic!("{body}: {error}"));
    }
    let words = common::result(&gpu, out);
    words.chunks_exact(4).map(|w| (w[2], u64::from(w[1]) << 32 | u64::from(w[0]))).collect()
}

/// A body whose `%d` must be a function of the three words.
fn check(body: &str, expected: impl Fn(u32, u32, u32) -> u32) {
    for ([a, b, c], (found, _)) in inputs().into_iter().zip(run(body)) {
        let expected = expected(a as u32, b as u32, c as u32);
        assert_eq!(
            found, expected,
            "{body} of {:#x} {:#x} {:#x}: {found:#x}, not {expected:#x}",
            a as u32, b as u32, c as u32
        );
    }
}

/// A body whose `%wd` must be a function of the three double words.
fn check64(body: &str, expected: impl Fn(u64, u64, u64) -> u64) {
    for ([a, b, c], (_, found)) in inputs().into_iter().zip(run(body)) {
        let expected = expected(a, b, c);
        assert_eq!(found, expected, "{body} of {a:#x} {b:#x} {c:#x}: {found:#x}, not {expected:#x}");
    }
}

/// A float body: any NaN equals any other.
fn check_float(body: &str, expected: impl Fn(f32, f32, f32) -> f32) {
    for ([a, b, c], (found, _)) in inputs().into_iter().zip(run(&format!("{body} mov.b32 %d, %fd;"))) {
        let [a, b, c] = [a, b, c].map(|v| f32::from_bits(v as u32));
        let (found, expected) = (f32::from_bits(found), expected(a, b, c));
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{body} of {a:e} {b:e} {c:e}: {found:e}, not {expected:e}");
    }
}

#[test]
fn integer_arithmetic() {
    check("add.u32 %d, %a, %b;", |a, b, _| a.wrapping_add(b));
    check("add.sat.s32 %d, %a, %b;", |a, b, _| (a as i32).saturating_add(b as i32) as u32);
    check("sub.s32 %d, %a, %b;", |a, b, _| a.wrapping_sub(b));
    check("mul.lo.s32 %d, %a, %b;", |a, b, _| a.wrapping_mul(b));
    check("mul.hi.u32 %d, %a, %b;", |a, b, _| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    check("mul.hi.s32 %d, %a, %b;", |a, b, _| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32);
    check("mad.lo.s32 %d, %a, %b, %c;", |a, b, c| a.wrapping_mul(b).wrapping_add(c));
    check("mad.lo.u32 %d, %a, 3, -5;", |a, _, _| a.wrapping_mul(3).wrapping_sub(5));
    check64("mul.wide.u32 %wd, %a, %b;", |a, b, _| u64::from(a as u32) * u64::from(b as u32));
    check64("mul.wide.s32 %wd, %a, %b;", |a, b, _| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    check64("mad.wide.u32 %wd, %a, %b, %wc;", |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c));
    check64("mul.lo.u64 %wd, %wa, %wb;", |a, b, _| a.wrapping_mul(b));
    check64("mul.hi.s64 %wd, %wa, %wb;", |a, b, _| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64);
    check64("add.s64 %wd, %wa, %wb;", |a, b, _| a.wrapping_add(b));
    check("or.b32 %t5, %b, 1; div.u32 %d, %a, %t5;", |a, b, _| a / (b | 1));
    check("or.b32 %t5, %b, 1; div.s32 %d, %a, %t5;", |a, b, _| (a as i32).wrapping_div((b | 1) as i32) as u32);
    check("or.b32 %t5, %b, 1; rem.s32 %d, %a, %t5;", |a, b, _| (a as i32).wrapping_rem((b | 1) as i32) as u32);
    check("min.s32 %d, %a, %b;", |a, b, _| (a as i32).min(b as i32) as u32);
    check("max.u32 %d, %a, %b;", |a, b, _| a.max(b));
    check("abs.s32 %d, %a;", |a, _, _| (a as i32).wrapping_abs() as u32);
    check("neg.s32 %d, %a;", |a, _, _| a.wrapping_neg());
    check64("min.s64 %wd, %wa, %wb;", |a, b, _| (a as i64).min(b as i64) as u64);
}

#[test]
fn sixteen_bit_integers_stay_in_their_width() {
    let signed = |v: u32| i32::from(v as i16);
    check("add.u16 %h6, %h0, %h2; cvt.u32.u16 %d, %h6;", |a, b, _| a.wrapping_add(b) & 0xffff);
    check("mul.lo.s16 %h6, %h0, %h2; cvt.s32.s16 %d, %h6;", |a, b, _| signed(a.wrapping_mul(b)) as u32);
    check("mul.wide.s16 %d, %h0, %h2;", move |a, b, _| (signed(a) * signed(b)) as u32);
    check("mul.hi.u16 %h6, %h0, %h2; cvt.u32.u16 %d, %h6;", |a, b, _| ((a & 0xffff) * (b & 0xffff)) >> 16);
    check("mad.lo.u16 %h6, %h0, %h2, %h4; cvt.u32.u16 %d, %h6;", |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff);
    check("shr.s16 %h6, %h0, 3; cvt.s32.s16 %d, %h6;", move |a, _, _| (signed(a) >> 3) as u32);
    check("min.s16 %h6, %h0, %h2; cvt.s32.s16 %d, %h6;", move |a, b, _| signed(a).min(signed(b)) as u32);
    check("setp.lt.s16 %q, %h0, %h2; selp.u32 %d, 1, 0, %q;", move |a, b, _| u32::from(signed(a) < signed(b)));
    check("neg.s16 %h6, %h0; cvt.u32.u16 %d, %h6;", |a, _, _| a.wrapping_neg() & 0xffff);
}

#[test]
fn bits() {
    check("and.b32 %d, %a, %b;", |a, b, _| a & b);
    check("xor.b32 %d, %a, 0x0f0f0f0f;", |a, _, _| a ^ 0x0f0f_0f0f);
    check("not.b32 %d, %a;", |a, _, _| !a);
    check("shl.b32 %d, %a, %b;", |a, b, _| a.checked_shl(b).unwrap_or(0));
    check("shr.u32 %d, %a, %b;", |a, b, _| a.checked_shr(b).unwrap_or(0));
    check("shr.s32 %d, %a, %b;", |a, b, _| (a as i32 >> b.min(31)) as u32);
    check64("shr.u64 %wd, %wa, %b;", |a, b, _| a.checked_shr(b as u32).unwrap_or(0));
    check64("shl.b64 %wd, %wa, 7;", |a, _, _| a << 7);
    check("popc.b32 %d, %a;", |a, _, _| a.count_ones());
    check("clz.b32 %d, %a;", |a, _, _| a.leading_zeros());
    for ([a, ..], (found, _)) in inputs().into_iter().zip(run("clz.b64 %d, %wa;")) {
        assert_eq!(found, a.leading_zeros());
    }
    check("brev.b32 %d, %a;", |a, _, _| a.reverse_bits());
    check("lop3.b32 %d, %a, %b, %c, 0xca;", |a, b, c| a & b | !a & c);
    check("shf.l.wrap.b32 %d, %a, %b, %c;", |a, b, c| ((u64::from(b) << 32 | u64::from(a)) << (c & 31) >> 32) as u32);
    check("prmt.b32 %d, %a, %b, 0x6240;", |a, b, _| {
        let byte = |v: u32, i: u32| v >> (8 * i) & 0xff;
        byte(a, 0) | byte(b, 0) << 8 | byte(a, 2) << 16 | byte(b, 2) << 24
    });
    check("and.b32 %t5, %b, 31; bfe.u32 %d, %a, %t5, 9;", |a, b, _| a >> (b & 31) & 0x1ff);
    check("bfi.b32 %d, %a, %b, 4, 12;", |a, b, _| b & !0xfff0 | a << 4 & 0xfff0);
}

#[test]
fn dot_products_of_bytes() {
    fn byte(v: u32, i: u32, signed: bool) -> i64 {
        let b = (v >> (8 * i)) as u8;
        if signed { i64::from(b as i8) } else { i64::from(b) }
    }
    for (a_ty, a_signed) in [("s32", true), ("u32", false)] {
        for (b_ty, b_signed) in [("s32", true), ("u32", false)] {
            check(&format!("dp4a.{a_ty}.{b_ty} %d, %a, %b, %c;"), move |a, b, c| {
                (0..4).map(|i| byte(a, i, a_signed) * byte(b, i, b_signed)).sum::<i64>().wrapping_add(c.into()) as u32
            });
        }
    }
}

#[test]
fn float_arithmetic() {
    check_float("add.f32 %fd, %fa, %fb;", |a, b, _| a + b);
    check_float("sub.rn.f32 %fd, %fa, %fb;", |a, b, _| a - b);
    check_float("mul.f32 %fd, %fa, %fb;", |a, b, _| a * b);
    check_float("fma.rn.f32 %fd, %fa, %fb, %fc;", f32::mul_add);
    check_float("div.rn.f32 %fd, %fa, %fb;", |a, b, _| a / b);
    check_float("rcp.approx.f32 %fd, %fa;", |a, _, _| 1.0 / a);
    check_float("sqrt.rn.f32 %fd, %fa;", |a, _, _| a.sqrt());
    check_float("neg.f32 %fd, %fa;", |a, _, _| -a);
    check_float("abs.f32 %fd, %fa;", |a, _, _| a.abs());
    check_float("add.sat.f32 %fd, %fa, %fb;", |a, b, _| if a + b > 0.0 { (a + b).min(1.0) } else { 0.0 });
    check_float("max.f32 %fd, %fa, 0f00000000;", |a, _, _| if a > 0.0 { a } else { 0.0 });
    let flush = |v: f32| if v.is_subnormal() { 0.0_f32.copysign(v) } else { v };
    check_float("mul.ftz.f32 %fd, %fa, %fb;", move |a, b, _| flush(flush(a) * flush(b)));
    check_float("ex2.approx.ftz.f32 %fd, %fa;", move |a, _, _| flush(f64::from(flush(a)).exp2() as f32));
    check_float("lg2.approx.f32 %fd, %fa;", |a, _, _| f64::from(a).log2() as f32);
    check_float("tanh.approx.f32 %fd, %fa;", |a, _, _| f64::from(a).tanh() as f32);
    check64(
        "fma.rn.f64 %gd, %ga, %gb, %gc; mov.b64 %wd, %gd; abs.f64 %gd, %gd; setp.nan.f64 %q, %gd, %gd; @%q mov.u64 %wd, 1;",
        |a, b, c| {
            let value = f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c));
            if value.is_nan() { 1 } else { value.to_bits() }
        },
    );
}

/// How a half format is read and written.
type Format = (fn(u16) -> f64, fn(f64) -> u16);

/// A half instruction on the low halves of the three words, against the same in f64 rounded once.
fn check_half(body: &str, (decode, encode): Format, expected: impl Fn(f64, f64, f64) -> f64) {
    check(&format!("{body} cvt.u32.u16 %d, %h6;"), |a, b, c| {
        let value = expected(decode(a as u16), decode(b as u16), decode(c as u16));
        if value.is_nan() { 0x7fff } else { encode(value).into() }
    });
}

#[test]
fn half_arithmetic() {
    let f: Format = (|v| f16::from_bits(v).to_f64(), |v| f16::from_f64(v).to_bits());
    let b: Format = (|v| bf16::from_bits(v).to_f64(), |v| bf16::from_f64(v).to_bits());
    check_half("add.f16 %h6, %h0, %h2;", f, |a, b, _| a + b);
    check_half("mul.f16 %h6, %h0, %h2;", f, |a, b, _| a * b);
    check_half("sub.bf16 %h6, %h0, %h2;", b, |a, b, _| if a.abs() > 1e30 * b.abs() { a } else { a - b });
    check_half("mul.bf16 %h6, %h0, %h2;", b, |a, b, _| a * b);
    check("fma.rn.f16x2 %d, %a, %b, %c;", |a, b, c| {
        let one = |shift: u32| {
            let [a, b, c] = [a, b, c].map(|v| f16::from_bits((v >> shift) as u16).to_f64());
            // 22 bits of product and 11 of addend: where they overlap in 53 bits, f64 rounds nothing.
            let value = a.mul_add(b, c);
            if value.is_nan() { 0x7fff } else { u32::from(f16::from_f64(value).to_bits()) }
        };
        one(0) | one(16) << 16
    });
    check("add.bf16x2 %d, %a, %b;", |a, b, _| {
        let one = |shift: u32| {
            let [a, b] = [a, b].map(|v| bf16::from_bits((v >> shift) as u16).to_f32());
            let value = a + b;
            if value.is_nan() { 0x7fff } else { u32::from(bf16::from_f32(value).to_bits()) }
        };
        one(0) | one(16) << 16
    });
    check("neg.f16 %h6, %h0; cvt.u32.u16 %d, %h6;", |a, _, _| a & 0xffff ^ 0x8000);
}

#[test]
fn conversions() {
    check("cvt.u32.u8 %d, %a;", |a, _, _| a & 0xff);
    check("cvt.s32.s8 %d, %a;", |a, _, _| i32::from(a as i8) as u32);
    check("cvt.sat.s8.s32 %d, %a;", |a, _, _| (a as i32).clamp(-128, 127) as u32);
    check64("cvt.s64.s32 %wd, %a;", |a, _, _| i64::from(a as i32) as u64);
    check64("cvt.u64.u32 %wd, %a;", |a, _, _| u64::from(a as u32));
    check("cvt.u32.u64 %d, %wb;", |_, b, _| b);
    check("cvt.u16.u32 %h6, %a; cvt.u32.u16 %d, %h6;", |a, _, _| a & 0xffff);
    check_float("cvt.rn.f32.s32 %fd, %a;", |a, _, _| a.to_bits() as i32 as f32);
    check_float("cvt.rn.f32.u32 %fd, %a;", |a, _, _| a.to_bits() as f32);
    check("cvt.rzi.s32.f32 %d, %fa;", |a, _, _| f32::from_bits(a) as i32 as u32);
    check("cvt.rni.s32.f32 %d, %fa;", |a, _, _| f32::from_bits(a).round_ties_even() as i32 as u32);
    check("cvt.rmi.u32.f32 %d, %fa;", |a, _, _| f32::from_bits(a).floor() as u32);
    check("cvt.rni.sat.s8.f32 %d, %fa;", |a, _, _| {
        f32::from_bits(a).round_ties_even().clamp(-128.0, 127.0) as i8 as u32
    });
    check_float("cvt.rpi.f32.f32 %fd, %fa;", |a, _, _| a.ceil());
    check_float("cvt.f32.f16 %fd, %h0;", |a, _, _| f16::from_bits(a.to_bits() as u16).to_f32());
    check_float("cvt.f32.bf16 %fd, %h0;", |a, _, _| f32::from_bits(a.to_bits() << 16));
    check("cvt.rn.f16.f32 %h6, %fa; cvt.u32.u16 %d, %h6;", |a, _, _| {
        let value = f32::from_bits(a);
        if value.is_nan() { 0x7fff } else { f16::from_f32(value).to_bits().into() }
    });
    check("cvt.rn.bf16x2.f32 %d, %fa, %fb;", |a, b, _| {
        let one = |v| {
            if f32::from_bits(v).is_nan() { 0x7fff } else { u32::from(bf16::from_f32(f32::from_bits(v)).to_bits()) }
        };
        one(a) << 16 | one(b)
    });
    check("cvt.rz.f16x2.f32 %d, %fa, %fb; and.b32 %d, %d, 0x7fff7fff;", |a, b, _| {
        let one = |v: u32| {
            let value = f32::from_bits(v).abs();
            let rounded = f16::from_f32(value);
            match value {
                v if v.is_nan() => 0x7fff,
                v if v.is_infinite() => 0x7c00,
                v if v > 65504.0 => 0x7bff,
                v => u32::from(rounded.to_bits()) - u32::from(rounded.to_f32() > v),
            }
        };
        one(a) << 16 | one(b)
    });
    check64("cvt.f64.f32 %gd, %fc; mov.b64 %wd, %gd; setp.nan.f64 %q, %gd, %gd; @%q mov.u64 %wd, 1;", |_, _, c| {
        let value = f64::from(f32::from_bits(c as u32));
        if value.is_nan() { 1 } else { value.to_bits() }
    });
    for ([a, ..], (found, _)) in inputs().into_iter().zip(run("cvt.rn.f32.f64 %fd, %ga; mov.b32 %d, %fd;")) {
        let expected = f64::from_bits(a) as f32;
        assert!(found == expected.to_bits() || expected.is_nan() && f32::from_bits(found).is_nan(), "{a:#x}");
    }
}

#[test]
fn comparisons_and_selection() {
    let with = |comparison: &str| format!("setp.{comparison} %q, %a, %b; selp.u32 %d, 1, 0, %q;");
    check(&with("lt.s32"), |a, b, _| u32::from((a as i32) < b as i32));
    check(&with("hs.u32"), |a, b, _| u32::from(a >= b));
    check(&with("ne.b32"), |a, b, _| u32::from(a != b));
    let float = |comparison: &str| format!("setp.{comparison}.f32 %q, %fa, %fb; selp.u32 %d, 1, 0, %q;");
    let f = f32::from_bits;
    check(&float("lt"), move |a, b, _| u32::from(f(a) < f(b)));
    check(&float("ne"), move |a, b, _| u32::from(f(a) < f(b) || f(a) > f(b)));
    check(&float("neu"), move |a, b, _| u32::from(f(a) != f(b)));
    check(&float("geu"), move |a, b, _| u32::from(f(a) >= f(b) || f(a).is_nan() || f(b).is_nan()));
    check(&float("num"), move |a, b, _| u32::from(!f(a).is_nan() && !f(b).is_nan()));
    check("setp.gt.and.u32 %q|%z, %a, %b, %p; selp.u32 %d, 1, 0, %q; @%z or.b32 %d, %d, 2;", |a, b, c| {
        let p = c & 1 == 1;
        u32::from(a > b && p) | u32::from(a <= b && p) << 1
    });
    check("setp.eq.or.u32 %q, %a, %b, !%p; selp.u32 %d, 7, 9, %q;", |a, b, c| if a == b || c & 1 == 0 { 7 } else { 9 });
    check("slct.u32.s32 %d, %a, %b, %c;", |a, b, c| if c as i32 >= 0 { a } else { b });
    check("xor.pred %q, %p, %p; not.pred %z, %q; selp.u32 %d, 1, 0, %z;", |_, _, _| 1);
    check("@!%p mov.u32 %d, 5; @%p mov.u32 %d, 6;", |_, _, c| 5 + (c & 1));
    check64("mov.b64 {%h0, %h1, %h2, %h3}, %wa; mov.b64 %wd, {%h3, %h2, %h1, %h0};", |a, _, _| {
        (0..4).fold(0, |out, i| out | (a >> (16 * i) & 0xffff) << (48 - 16 * i))
    });
}

#[test]
fn warps() {
    let lanes: Vec<[u32; 3]> = inputs().into_iter().map(|v| v.map(|v| v as u32)).collect();
    let check_warp = |body: &str, expected: &dyn Fn(&[[u32; 3]], usize) -> u32| {
        for (i, (found, _)) in run(body).into_iter().enumerate() {
            let start = i / 32 * 32;
            assert_eq!(found, expected(&lanes[start..start + 32], i % 32), "{body}, lane {}", i % 32);
        }
    };
    let full = "0xffffffff";
    check_warp(&format!("shfl.sync.up.b32 %d|%q, %a, 3, 0, {full}; @!%q mov.u32 %d, 77;"), &|w, l| {
        if l >= 3 { w[l - 3][0] } else { 77 }
    });
    check_warp(&format!("shfl.sync.down.b32 %d, %a, 1, 0x1c1f, {full};"), &|w, l| {
        w[if l % 4 == 3 { l } else { l + 1 }][0]
    });
    check_warp(&format!("shfl.sync.bfly.b32 %d, %a, 16, 0x1f, {full};"), &|w, l| w[l ^ 16][0]);
    check_warp(&format!("shfl.sync.idx.b32 %d, %a, %t0, 0x181f, {full};"), &|w, l| w[l][0]);
    check_warp(&format!("shfl.sync.idx.b32 %d, %a, 2, 0x181f, {full};"), &|w, l| w[l / 8 * 8 + 2][0]);
    let ballot = |w: &[[u32; 3]]| w.iter().enumerate().fold(0, |bits, (l, v)| bits | (v[2] & 1) << l);
    check_warp(&format!("vote.sync.ballot.b32 %d, %p, {full};"), &|w, _| ballot(w));
    check_warp(&format!("vote.sync.any.pred %q, %p, {full}; selp.u32 %d, 1, 0, %q;"), &|w, _| {
        u32::from(ballot(w) != 0)
    });
    check_warp(&format!("vote.sync.all.pred %q, !%p, {full}; selp.u32 %d, 1, 0, %q;"), &|w, _| {
        u32::from(ballot(w) == 0)
    });
    check_warp(&format!("and.b32 %t5, %a, 3; match.any.sync.b32 %d, %t5, {full};"), &|w, l| {
        w.iter().enumerate().fold(0, |bits, (i, v)| bits | u32::from(v[0] & 3 == w[l][0] & 3) << i)
    });
    check_warp(&format!("redux.sync.min.s32 %d, %a, {full};"), &|w, _| {
        w.iter().map(|v| v[0] as i32).min().unwrap() as u32
    });
    check_warp(&format!("redux.sync.xor.b32 %d, %a, {full};"), &|w, _| w.iter().fold(0, |x, v| x ^ v[0]));
    check_warp("@%p activemask.b32 %d;", &|w, l| if w[l][2] & 1 == 1 { ballot(w) } else { 0 });
    // Two halves of the warp, each with a mask of its own, in one instruction.
    let halves = "setp.lt.u32 %q, %t6, 16; selp.b32 %t5, 0x0000ffff, 0xffff0000, %q; redux.sync.add.u32 %d, %a, %t5;";
    check_warp(&format!("and.b32 %t6, %t0, 31; {halves}"), &|w, l| {
        w[l / 16 * 16..][..16].iter().fold(0, |sum, v| sum.wrapping_add(v[0]))
    });
    check_warp("mov.u32 %d, %lanemask_lt;", &|_, l| (1 << l) - 1);
    check_warp("mov.u32 %d, %lanemask_ge;", &|_, l| u32::MAX << l);
}
