//! Every kernel on the smallest shapes that take all of its paths: tails of groups, tiles, panels, pages, splits and registers.
//!
//! As a test, levels must agree to the bit, and so must every way to cut the work. What these shapes are for is Miri (`.ci/run`),
//! which interprets the portable level a thousand times slower and sees every access outside of a buffer, every use of memory
//! that was not written, and every race: buffers here have exactly the size that a contract asks for.
#![allow(clippy::unwrap_used)]

use bricks::cpu::attention::{AttentionGroup, KvLayout, KvType, PAGE, SPLIT, Tile};
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, PACKED_ALIGN, Packed, PackedMatrix, PackedShape, RawOut};
use bricks::cpu::{
    SimdLevel, add_row, embed_row, f16_to_f32, f32_to_f16, gated_activation, gated_activation_in_place, quantize_row,
    rms_norm_row, rope_row, softcap_row,
};
use bricks::quant::dot_reference;
use bricks::quant::q8::Q8Rows;
use bricks::{ActKind, DType, RopeStyle};
use half::f16;

fn value(i: usize) -> f32 {
    (i * 37 % 113) as f32 / 113.0 - 0.5
}

fn values(n: usize) -> Vec<f32> {
    (0..n).map(value).collect()
}

/// Bytes that are blocks of any format, with small positive scales. Exactly as many as the matrix has: boxed, so that the
/// allocation ends with them.
fn file(dtype: DType, rows: usize, cols: usize) -> Box<[u8]> {
    let n = rows * dtype.row_bytes(cols).unwrap();
    (0..n).map(|i| if i % 2 == 1 { 40 + (i % 19) as u8 } else { (i * 37 % 251) as u8 }).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A pointer that may go to another thread.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);
// SAFETY: the threads of these tests write disjoint places.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, i: usize) -> *mut T {
        // SAFETY: callers stay within the allocation, or at its end.
        unsafe { self.0.add(i) }
    }
}

/// How the rows of a matrix are shared out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Whole,
    /// Two threads write into one buffer.
    SideBySide,
    /// Each range into a buffer that has nothing but its rows: the address of row 0 lies before it.
    Ranges,
}

fn apply(kernel: &LinearKernel, matrix: &Matrix<'_>, acts: Acts<'_>, tokens: usize, cut: Cut) -> Vec<f32> {
    let rows = matrix.weight.shape().rows;
    let edge = rows / 2 - 1;
    let mut all = vec![f32::NAN; tokens * rows];
    match cut {
        Cut::Whole => kernel.apply(matrix, acts, &mut all).unwrap(),
        Cut::SideBySide => {
            let out = Shared(all.as_mut_ptr());
            std::thread::scope(|s| {
                for part in [0..edge, edge..rows] {
                    s.spawn(move || {
                        let out = RawOut { ptr: out.at(0), stride: rows };
                        // SAFETY: the buffer has all rows of all tokens; the threads' rows are disjoint.
                        unsafe { kernel.rows(matrix, part, acts, out).unwrap() };
                    });
                }
            });
        }
        Cut::Ranges => {
            for part in [0..edge, edge..rows] {
                let mut some = vec![f32::NAN; tokens * part.len()];
                let out = RawOut { ptr: some.as_mut_ptr().wrapping_sub(part.start), stride: part.len() };
                // SAFETY: the buffer has the rows of the range.
                unsafe { kernel.rows(matrix, part.clone(), acts, out).unwrap() };
                for (all, some) in all.chunks_exact_mut(rows).zip(some.chunks_exact(part.len())) {
                    all[part.clone()].copy_from_slice(some);
                }
            }
        }
    }
    all
}

/// Every cut gives the same bits at every level, and what decoded weights give.
fn check_linear(dtype: DType, rows: usize, cols: usize, tokens: usize, cuts: &[Cut]) {
    let file = file(dtype, rows, cols);
    let packed = Packed::new(PackedShape { dtype, rows, cols }, &file).unwrap();
    let bias = values(rows);
    let matrix = Matrix { weight: packed.matrix(), bias: Some(&bias) };
    let x = values(tokens * cols);
    let q8 = Q8Rows::from_values(cols.next_multiple_of(32), if dtype.is_float() { &[] } else { &x }).unwrap();
    let acts = if dtype.is_float() { Acts::F32(&x) } else { Acts::Q8((&q8).into()) };
    let mut expected = None;
    for level in SimdLevel::available() {
        let kernel = LinearKernel::new(dtype, level);
        for &cut in cuts {
            let out = apply(&kernel, &matrix, acts, tokens, cut);
            let expected = expected.get_or_insert_with(|| bits(&out));
            assert_eq!(&bits(&out), expected, "{dtype} {level} [{rows}, {cols}] × {tokens}: {cut:?}");
            assert!(out.iter().all(|x| x.is_finite()), "{dtype} {level} [{rows}, {cols}] × {tokens}: {cut:?}");
            if !dtype.is_float() {
                let row_bytes = dtype.row_bytes(cols).unwrap();
                let last = dot_reference(dtype, &file[(rows - 1) * row_bytes..], q8.row(tokens - 1).unwrap()).unwrap();
                let y = out[tokens * rows - 1] - bias[rows - 1];
                assert!(last.accepts(y, 1e-4), "{dtype} {level}: {y}, expected {last:?}");
            }
        }
    }
}

/// All of `cuts`, or under Miri, where each costs seconds, the one at `miri`.
fn cuts(miri: usize) -> &'static [Cut] {
    const ALL: [Cut; 3] = [Cut::Whole, Cut::SideBySide, Cut::Ranges];
    if cfg!(miri) { &ALL[miri..=miri] } else { &ALL }
}

#[test]
fn linear_kernels_of_all_formats() {
    for &dtype in DType::ALL {
        // One token; a few; more than a tile of a panel. Rows: a register of eight, and a part of one.
        let cols = if dtype.is_float() { 35 } else { dtype.block_len() };
        for (i, tokens) in [1, 3, 9].into_iter().enumerate() {
            // Formats differ in how they are unpacked, which one token shows; Miri takes minutes to multiply with each so often.
            let several = [(DType::Q4_1, 3), (DType::Q5_0, 9), (DType::F32, 3), (DType::F16, 9)];
            if cfg!(miri) && tokens > 1 && !several.contains(&(dtype, tokens)) {
                continue;
            }
            check_linear(dtype, if cfg!(miri) { 6 } else { 10 }, cols, tokens, cuts(i));
        }
    }
}

#[test]
fn linear_kernels_across_panels() {
    // Panels have 768 inputs (256 under Miri), of floats 128.
    check_linear(DType::Q4_0, if cfg!(miri) { 8 } else { 18 }, if cfg!(miri) { 288 } else { 1600 }, 9, cuts(0));
    check_linear(DType::F16, 18, if cfg!(miri) { 140 } else { 600 }, 2, cuts(2));
}

#[test]
fn groups_are_packed_one_by_one_and_side_by_side() {
    for &dtype in DType::ALL {
        let (rows, cols) = (18, dtype.block_len() * if dtype.is_float() { 3 } else { 1 });
        let shape = PackedShape { dtype, rows, cols };
        let file = file(dtype, rows, cols);
        let group = shape.group_bytes().unwrap();
        assert_eq!(shape.bytes().unwrap(), 2 * group);
        // Room to begin at a cache line; what was there before does not matter.
        let mut memory = vec![0xa5u8; 2 * group + PACKED_ALIGN];
        let start = memory.as_ptr().align_offset(PACKED_ALIGN);
        let (first, second) = memory[start..start + 2 * group].split_at_mut(group);
        std::thread::scope(|s| {
            for (i, out) in [first, second].into_iter().enumerate() {
                let file = &file;
                s.spawn(move || shape.pack(file, i..i + 1, out).unwrap());
            }
        });
        let by_groups = PackedMatrix::new(shape, &memory[start..start + 2 * group]).unwrap();
        let whole = Packed::new(shape, &file).unwrap();
        assert_eq!(by_groups.bytes(), whole.matrix().bytes(), "{dtype}");
    }
}

/// A group of heads at the end of a context of which a window is seen. Nothing else of the pages has been written.
struct Seen {
    group: AttentionGroup,
    tile: Tile,
    pages: Vec<Box<[u8]>>,
    q: Vec<f32>,
}

impl Seen {
    fn new(level: SimdLevel, (kind, heads, head_dim): (KvType, usize, usize), tile: Tile) -> Self {
        let layout = KvLayout::new(kind, head_dim).unwrap();
        let group = AttentionGroup { heads, layout, scale: 0.3, softcap: None };
        let mut pages = Vec::new();
        for first in (0..tile.position + tile.rows).step_by(PAGE) {
            let mut page = vec![0xffu8; layout.page_bytes()].into_boxed_slice();
            for slot in 0..PAGE {
                if (tile.visible(0).start..tile.visible(tile.rows - 1).end).contains(&(first + slot)) {
                    let row: Vec<f32> = (0..head_dim).map(|d| value(first + slot + 7 * d)).collect();
                    layout.write(level, &mut page, slot, &row, &row).unwrap();
                }
            }
            pages.push(page);
        }
        Self { group, tile, pages, q: values(tile.rows * heads * head_dim) }
    }

    fn query(&self, row: usize) -> &[f32] {
        let size = self.group.heads * self.group.layout.head_dim();
        &self.q[row * size..(row + 1) * size]
    }

    fn page(&self, i: usize) -> Option<&[u8]> {
        self.pages.get(i).map(|page| &page[..])
    }

    fn whole(&self, level: SimdLevel) -> Vec<u32> {
        let mut scratch = vec![f32::NAN; self.group.scratch_len(self.tile.rows)];
        let out = self.group.attend(level, &self.tile, |r| self.query(r), |i| self.page(i), &mut scratch).unwrap();
        assert!(out.iter().all(|x| x.abs() <= 0.5), "an average of values in −0.5..0.5");
        bits(out)
    }

    /// Two threads, a split each, into records that lie side by side.
    fn in_parts(&self, level: SimdLevel) -> Vec<u32> {
        let Self { group, tile, .. } = self;
        let len = group.record_len(tile.rows);
        let splits = tile.splits();
        assert_eq!(splits, 0..2);
        let mut records = vec![f32::NAN; 2 * len];
        std::thread::scope(|s| {
            for (split, record) in splits.zip(records.chunks_exact_mut(len)) {
                s.spawn(move || {
                    let mut scratch = vec![f32::NAN; group.scratch_len(tile.rows)];
                    let mut record = Some(record);
                    let (query, page) = (|r| self.query(r), |i| self.page(i));
                    let place = |_| record.take().unwrap();
                    group.partial(level, tile, split..split + 1, query, page, &mut scratch, place).unwrap();
                });
            }
        });
        let mut scratch = vec![f32::NAN; group.scratch_len(tile.rows)];
        bits(group.merge(level, tile.rows, records.chunks_exact(len), &mut scratch).unwrap())
    }
}

#[test]
fn attention_across_a_split_and_in_parts() {
    let across = Tile { position: SPLIT - 1, rows: 2, window: Some(6) };
    let within = Tile { position: 33, rows: 2, window: Some(5) };
    for (what, tile) in [
        ((KvType::F16, 1, 20), across),
        ((KvType::F16, 2, 16), within),
        ((KvType::Q8_0, 1, 32), Tile { rows: 1, ..within }),
    ] {
        let expected = Seen::new(SimdLevel::Scalar, what, tile).whole(SimdLevel::Scalar);
        for level in SimdLevel::available() {
            let seen = Seen::new(level, what, tile);
            if level != SimdLevel::Scalar {
                assert_eq!(seen.whole(level), expected, "{what:?} {level}");
            }
            if tile == across {
                assert_eq!(seen.in_parts(level), expected, "{what:?} {level}: in parts");
            }
        }
    }
}

#[test]
fn slots_of_a_page_are_written_side_by_side() {
    for (kind, dim) in [(KvType::F16, 5), (KvType::F16, 16), (KvType::Q8_0, 32)] {
        let layout = KvLayout::new(kind, dim).unwrap();
        for level in SimdLevel::available() {
            let mut page = vec![0u8; layout.page_bytes()];
            let shared = Shared(page.as_mut_ptr());
            std::thread::scope(|s| {
                for slots in [[0, 2], [1, PAGE - 1]] {
                    s.spawn(move || {
                        for slot in slots {
                            let row: Vec<f32> = (0..dim).map(|d| value(slot + 3 * d)).collect();
                            // SAFETY: the page lives on; the threads write different slots, and nobody reads meanwhile.
                            unsafe { layout.write_shared(level, shared.at(0), slot, &row, &row).unwrap() };
                        }
                    });
                }
            });
            for slot in [0, 2, 1, PAGE - 1] {
                let (mut key, mut back) = (vec![0.0; dim], vec![0.0; dim]);
                layout.read(&page, slot, &mut key, &mut back).unwrap();
                assert_eq!(key, back);
                for (d, x) in key.iter().enumerate() {
                    assert!((x - value(slot + 3 * d)).abs() < 0.005, "{kind} {level} slot {slot} element {d}: {x}");
                }
            }
        }
    }
}

/// A name, and the bits of what a kernel computed.
type Named = (&'static str, Vec<u32>);

/// Kernels of rows on `n` values.
fn rows(level: SimdLevel, n: usize) -> Vec<Named> {
    let (x, gain) = (values(n), values(n + 1)[1..].to_vec());
    let mut found = Vec::new();
    let mut out = vec![f32::NAN; n];
    rms_norm_row(level, &x, &gain, 1e-5, &mut out).unwrap();
    found.push(("norm", bits(&out)));
    add_row(level, &x, &gain, &mut out).unwrap();
    found.push(("sum", bits(&out)));
    for act in [ActKind::Silu, ActKind::GeluTanh] {
        gated_activation(level, act, &x, &gain, &mut out).unwrap();
        let mut in_place = x.clone();
        gated_activation_in_place(level, act, &mut in_place, &gain).unwrap();
        assert_eq!(bits(&in_place), bits(&out));
        found.push(("gated", bits(&out)));
    }
    let mut capped = x.clone();
    softcap_row(level, 0.4, &mut capped);
    found.push(("softcap", bits(&capped)));
    let mut narrow = vec![f16::NAN; n];
    f32_to_f16(level, &x, &mut narrow).unwrap();
    f16_to_f32(level, &narrow, &mut out).unwrap();
    found.push(("f16", bits(&out)));
    for style in [RopeStyle::SplitHalves, RopeStyle::Interleaved] {
        // Two heads; in each, the last element or two are not rotated.
        let mut heads = values(2 * n);
        let pairs = (n - 1) / 2;
        rope_row(level, style, &mut heads, n, &values(pairs), &gain[..pairs]).unwrap();
        found.push(("rotation", bits(&heads)));
    }
    found
}

#[test]
fn kernels_of_rows_with_and_without_tails() {
    for &n in if cfg!(miri) { &[1, 35][..] } else { &[1, 16, 35, 64] } {
        let expected = rows(SimdLevel::Scalar, n);
        for level in SimdLevel::available() {
            assert_eq!(rows(level, n), expected, "{level}, {n} values");
        }
    }
    let x = values(64);
    let expected = Q8Rows::from_values(64, &x).unwrap();
    for level in SimdLevel::available() {
        let mut q8 = Q8Rows::zeros(1, 64).unwrap();
        quantize_row(level, &x, &mut q8.row_mut(0).unwrap()).unwrap();
        assert_eq!((q8.codes(), q8.scales(), q8.sums()), (expected.codes(), expected.scales(), expected.sums()));
    }
    for &dtype in DType::ALL {
        let cols = dtype.block_len();
        let (table, mut out) = (file(dtype, 3, cols), vec![f32::NAN; cols]);
        embed_row(dtype, &table, 2, 0.5, &mut out).unwrap();
        assert!(out.iter().all(|x| x.is_finite()), "{dtype}");
    }
}
