//! Matrix instructions against a dense product. The fragments are laid out here by the formulas of the PTX manual
//! ("Matrix Fragments for mma.m16n8k16", "…k32"), written out element by element.

#![allow(clippy::unwrap_used)]

#[path = "interp/common.rs"]
mod common;

use brick_ptx::interp::{Access, Arg, Gpu, Launch, Limits, Module};
use half::{bf16, f16};

/// An element type of A and B: how its values look in memory and in arithmetic.
#[derive(Clone, Copy, PartialEq)]
enum Element {
    F16,
    Bf16,
    S8,
    U8,
}

impl Element {
    fn bytes(self) -> usize {
        if matches!(self, Self::F16 | Self::Bf16) { 2 } else { 1 }
    }

    /// A value for each pseudo-random word, and its bits.
    fn value(self, noise: u32) -> (f64, u32) {
        let small = f64::from(noise % 4001) / 1000.0 - 2.0;
        match self {
            Self::F16 => (f16::from_f64(small).to_f64(), f16::from_f64(small).to_bits().into()),
            Self::Bf16 => (bf16::from_f64(small).to_f64(), bf16::from_f64(small).to_bits().into()),
            Self::S8 => (f64::from(noise as i8), noise & 0xff),
            Self::U8 => (f64::from(noise as u8), noise & 0xff),
        }
    }
}

/// Row and column of element `i` of A that a lane holds; `K` columns in all.
fn a_place(bytes: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, t) = (lane >> 2, lane % 4);
    if bytes == 2 {
        let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
        let column = t * 2 + (i & 1) + if i >= 4 { 8 } else { 0 };
        (row, column)
    } else {
        let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
        let column = t * 4 + (i & 3) + if i >= 8 { 16 } else { 0 };
        (row, column)
    }
}

/// The same for B.
fn b_place(bytes: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, t) = (lane >> 2, lane % 4);
    let row = if bytes == 2 {
        t * 2 + (i & 1) + if i >= 2 { 8 } else { 0 }
    } else {
        t * 4 + (i & 3) + if i >= 4 { 16 } else { 0 }
    };
    (row, group)
}

/// The same for C and D.
fn c_place(lane: usize, i: usize) -> (usize, usize) {
    let row = (lane >> 2) + if i >= 2 { 8 } else { 0 };
    (row, (lane % 4) * 2 + (i & 1))
}

/// Registers per lane for a matrix of `rows * columns` values by lane and element.
fn fragments(element: Element, count: usize, bits: impl Fn(usize, usize) -> u32) -> Vec<u32> {
    let per_register = 4 / element.bytes();
    let mut out = Vec::new();
    for lane in 0..32 {
        for register in 0..count / 32 / per_register {
            let parts = (0..per_register).map(|i| bits(lane, register * per_register + i) << (8 * element.bytes() * i));
            out.push(parts.fold(0, |all, part| all | part));
        }
    }
    out
}

fn launch(module: &Module, kernel: &str, inputs: &[&[u32]], out_words: usize) -> Vec<u32> {
    let mut gpu = Gpu::new(Limits::default());
    let mut args = Vec::new();
    for words in inputs {
        args.push(Arg::Buffer(gpu.buffer("input", &common::bytes_of(words), Access::Read).unwrap()));
    }
    let out = gpu.output("out", 4 * out_words).unwrap();
    args.push(Arg::Buffer(out));
    gpu.launch(module, kernel, Launch::linear(1, 32), &args).unwrap();
    common::result(&gpu, out)
}

fn check_mma(kernel: &str, k: usize, a_ty: Element, b_ty: Element, c_scale: i32) {
    let module = common::parse(include_str!("interp/matrix.ptx"));
    for seed in 0..8 {
        let noise = common::noise(seed, 16 * k + k * 8 + 16 * 8);
        let a: Vec<(f64, u32)> = noise[..16 * k].iter().map(|&n| a_ty.value(n)).collect();
        let b: Vec<(f64, u32)> = noise[16 * k..24 * k].iter().map(|&n| b_ty.value(n)).collect();
        let integers = a_ty.bytes() == 1;
        let c: Vec<u32> = noise[24 * k..]
            .iter()
            .map(|&n| if integers { (n as i32 % 1000 * c_scale) as u32 } else { (f64::from(n % 100) as f32).to_bits() })
            .collect();
        let a_words = fragments(a_ty, 16 * k, |lane, i| {
            let (row, column) = a_place(a_ty.bytes(), lane, i);
            a[row * k + column].1
        });
        let b_words = fragments(b_ty, k * 8, |lane, i| {
            let (row, column) = b_place(b_ty.bytes(), lane, i);
            b[row * 8 + column].1
        });
        let c_words: Vec<u32> = (0..128)
            .map(|j| {
                let (row, column) = c_place(j / 4, j % 4);
                c[row * 8 + column]
            })
            .collect();
        let d = launch(&module, kernel, &[&a_words, &b_words, &c_words], 128);
        for (j, &found) in d.iter().enumerate() {
            let (row, column) = c_place(j / 4, j % 4);
            let dot: f64 = (0..k).map(|i| a[row * k + i].0 * b[i * 8 + column].0).sum();
            let c = c[row * 8 + column];
            let expected = if integers {
                let sum = dot as i64 + i64::from(c as i32);
                if kernel.contains("saturating") {
                    sum.clamp(i32::MIN.into(), i32::MAX.into()) as u32
                } else {
                    sum as u32
                }
            } else {
                ((dot + f64::from(f32::from_bits(c))) as f32).to_bits()
            };
            assert_eq!(found, expected, "{kernel}, row {row}, column {column}");
        }
    }
}

#[test]
fn products_of_halves() {
    check_mma("f16_k16", 16, Element::F16, Element::F16, 1);
    check_mma("f16_k8", 8, Element::F16, Element::F16, 1);
    check_mma("bf16_k16", 16, Element::Bf16, Element::Bf16, 1);
}

#[test]
fn products_of_bytes() {
    check_mma("s8_k32", 32, Element::S8, Element::S8, 1);
    check_mma("u8_s8_k32", 32, Element::U8, Element::S8, 1);
    check_mma("s8_u8_k16", 16, Element::S8, Element::U8, 1);
    check_mma("s8_k32_saturating", 32, Element::S8, Element::S8, 2_147_483);
    check_mma("s8_k32", 32, Element::S8, Element::S8, 2_147_483);
}

#[test]
fn ldmatrix_distributes_rows_and_columns() {
    let module = common::parse(include_str!("interp/matrix.ptx"));
    // Half number h of the tile is h itself: row h / 8, column h % 8.
    let tile: Vec<u32> = (0..128).map(|w| (2 * w) | (2 * w + 1) << 16).collect();
    for (kernel, count, transposed) in
        [("rows_x4", 4, false), ("rows_x2", 2, false), ("columns_x4", 4, true), ("columns_x1", 1, true)]
    {
        let out = launch(&module, kernel, &[&tile], 32 * count);
        for (i, &word) in out.iter().enumerate() {
            let (lane, matrix) = (i / count, i % count);
            for half in 0..2 {
                let (row, column) = (lane / 4, 2 * (lane % 4) + half);
                let (row, column) = if transposed { (column, row) } else { (row, column) };
                let expected = 64 * matrix + 8 * row + column;
                assert_eq!((word >> (16 * half) & 0xffff) as usize, expected, "{kernel}, lane {lane}, matrix {matrix}");
            }
        }
    }
}

#[test]
fn a_tile_product_through_ldmatrix() {
    let module = common::parse(include_str!("interp/matrix.ptx"));
    let value = |n: u32| Element::Bf16.value(n);
    let noise = common::noise(5, 16 * 16 + 16 * 8);
    let pack = |noise: &[u32]| noise.chunks(2).map(|p| value(p[0]).1 | value(p[1]).1 << 16).collect::<Vec<u32>>();
    let (a, b) = noise.split_at(256);
    let d = launch(&module, "tile_product", &[&pack(a), &pack(b)], 128);
    for (i, &found) in d.iter().enumerate() {
        let (row, column) = (i / 8, i % 8);
        let dot: f64 = (0..16).map(|k| value(a[16 * row + k]).0 * value(b[8 * k + column]).0).sum();
        assert_eq!(f32::from_bits(found), dot as f32, "row {row}, column {column}");
    }
}
