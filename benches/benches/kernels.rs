//! Kernels on data that stay in the cache, at the level this processor is detected to have.
//!
//! ```text
//! cargo bench -p brick-benches                       all
//! cargo bench -p brick-benches -- linear/Q4_1        one format
//! BRICK_SIMD=avx2 cargo bench -p brick-benches       a lower level
//! ```
//!
//! Throughput is in operations (a multiply-add counts two) for matrices and attention, in elements for rows. Compare runs
//! only with runs of the same machine, and within a minute; what lasts is the ratio between two entries.

#![allow(missing_docs)] // what `criterion_group!` generates

use std::hint::black_box;
use std::time::Duration;

use bricks::cpu::attention::{AttentionGroup, KvLayout, KvType, PAGE, Tile};
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedShape};
use bricks::cpu::{SimdLevel, gated_activation, quantize_row, rms_norm_row};
use bricks::quant::q8::Q8Rows;
use bricks::{ActKind, DType};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Formats with a kernel of their own.
const FORMATS: [DType; 7] = [DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q8_0, DType::Q4_K, DType::Q6_K, DType::F16];
/// Decoding, a small batch (or a draft to verify), a prompt.
const TOKENS: [usize; 3] = [1, 8, 64];
/// SmolLM2-135M's first feed-forward matrix.
const K: usize = 576;
const N: usize = 1536;

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.5).collect()
}

/// Bytes that are blocks of any format: without bit 6, no f16 among them is infinite, NaN, or beyond 2. No kernel's time depends
/// on the codes.
fn blocks(n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut bytes);
    for b in &mut bytes {
        *b &= 0xbf;
    }
    bytes
}

fn linear(c: &mut Criterion) {
    let level = SimdLevel::detect();
    for dtype in FORMATS {
        // Super-blocks of 256 do not divide 576: the next width that has whole ones.
        let k = K.next_multiple_of(dtype.block_len());
        let row_bytes = dtype.row_bytes(k).expect("invariant: whole blocks");
        let weight = blocks(N * row_bytes);
        let packed = Packed::new(PackedShape { dtype, rows: N, cols: k }, &weight).expect("invariant: whole blocks");
        let matrix = Matrix { weight: packed.matrix(), bias: None };
        let kernel = LinearKernel::new(dtype, level);
        let mut group = c.benchmark_group(format!("linear/{}/{level}", dtype.name()));
        for tokens in TOKENS {
            let x = values(tokens * k, 2);
            let q8 = Q8Rows::from_values(k, &x).expect("invariant: whole blocks");
            let mut out = vec![0.0; tokens * N];
            group.throughput(Throughput::Elements((2 * tokens * k * N) as u64));
            group.bench_function(BenchmarkId::new(format!("{k}x{N}"), tokens), |b| {
                b.iter(|| {
                    let acts = if kernel.takes_q8() { Acts::Q8((&q8).into()) } else { Acts::F32(&x) };
                    kernel.apply(black_box(&matrix), black_box(acts), &mut out).expect("invariant: lengths agree");
                    black_box(&mut out);
                });
            });
        }
        group.finish();
    }
}

fn rows(c: &mut Criterion) {
    let level = SimdLevel::detect();
    let mut group = c.benchmark_group(format!("rows/{level}"));
    let (x, gain) = (values(K, 3), values(K, 4));
    let mut out = vec![0.0; K];
    group.throughput(Throughput::Elements(K as u64));
    bench(&mut group, &format!("rms_norm/{K}"), || {
        rms_norm_row(level, black_box(&x), black_box(&gain), 1e-5, &mut out).expect("invariant: lengths agree");
        black_box(&mut out);
    });
    let mut q8 = Q8Rows::zeros(1, K).expect("invariant: whole blocks");
    bench(&mut group, &format!("quantize/{K}"), || {
        let mut row = q8.row_mut(0).expect("invariant: one row");
        quantize_row(level, black_box(&x), &mut row).expect("invariant: lengths agree");
        black_box(&mut q8);
    });
    let (gate, up) = (values(N, 5), values(N, 6));
    let mut out = vec![0.0; N];
    group.throughput(Throughput::Elements(N as u64));
    for (name, act) in [("silu", ActKind::Silu), ("gelu_tanh", ActKind::GeluTanh)] {
        bench(&mut group, &format!("gated_{name}/{N}"), || {
            gated_activation(level, act, black_box(&gate), black_box(&up), &mut out).expect("invariant: lengths agree");
            black_box(&mut out);
        });
    }
    group.finish();
}

/// One group of query heads (3 of 64: SmolLM2, 6 of 128: Qwen2.5-1.5B): one row at the end of a context, and a prompt in tiles.
fn attention(c: &mut Criterion) {
    let level = SimdLevel::detect();
    let mut group = c.benchmark_group(format!("attention/{level}"));
    for (heads, head_dim) in [(3, 64), (6, 128)] {
        for kind in KvType::ALL {
            let layout = KvLayout::new(kind, head_dim).expect("invariant: a multiple of 32");
            let spec = AttentionGroup { heads, layout, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None };
            let positions = 4096;
            let mut pages = vec![0; positions / PAGE * layout.page_bytes()];
            for (i, page) in pages.chunks_exact_mut(layout.page_bytes()).enumerate() {
                for slot in 0..PAGE {
                    let row = values(head_dim, (i * PAGE + slot) as u64);
                    layout.write(level, page, slot, &row, &row).expect("invariant: lengths agree");
                }
            }
            let page = |i: usize| pages.get(i * layout.page_bytes()..)?.get(..layout.page_bytes());
            let rows = spec.tile_rows();
            let mut scratch = vec![0.0; spec.scratch_len(rows)];
            let q = values(rows * heads * head_dim, 7);
            let query = |row: usize| &q[row * heads * head_dim..(row + 1) * heads * head_dim];
            let name = format!("{heads}x{head_dim}/{kind}");
            for (what, context, rows, tiles) in [
                ("decode", 128, 1, 1),
                ("decode", 4096, 1, 1),
                ("prompt", 512, rows, 512 / rows),
                ("tile", 4096, rows, 1),
            ] {
                let tiles: Vec<Tile> =
                    (0..tiles).map(|i| Tile { position: context - (i + 1) * rows, rows, window: None }).collect();
                let pairs: usize = tiles.iter().flat_map(|t| (0..t.rows).map(|r| t.visible(r).len())).sum();
                // Scores and weighted values: two multiply-adds per element of a position and head.
                group.throughput(Throughput::Elements((4 * heads * head_dim * pairs) as u64));
                bench(&mut group, &format!("{name}/{what}/{context}"), || {
                    for tile in &tiles {
                        black_box(
                            spec.attend(level, black_box(tile), query, page, &mut scratch)
                                .expect("invariant: lengths agree"),
                        );
                    }
                });
            }
        }
    }
    group.finish();
}

fn bench(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut f: impl FnMut()) {
    group.bench_function(name, |b| b.iter(&mut f));
}

criterion_group! {
    name = kernels;
    // Kernels of microseconds: a second each gives thousands of calls.
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    targets = linear, rows, attention
}
criterion_main!(kernels);
