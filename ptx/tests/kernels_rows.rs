//! Kernels that work on rows of a batch, each against the scalar reference of what it means.

#![allow(clippy::unwrap_used)]

mod launches;

use brick_ptx::ir::Target;
use brick_ptx::kernels::elementwise::{self, Activation};
use brick_ptx::kernels::kv::{self, BLOCK, Batch, INACTIVE, KvType};
use brick_ptx::kernels::pack::Packed;
use brick_ptx::kernels::rope_kv::{RopeStyle, Shape, Spec};
use brick_ptx::kernels::{
    Format, activation, advance_angles, angles, argmax, embed, heads, norm, rope_kv, sample, step, workload,
};
use bricks::op::ActKind;
use bricks::quant::q8::Q8Rows;
use bricks::reference;
use bricks::rope::{RopeScaling, RopeSpec};
use launches::{assert_close, contents, floats, replace, run_all};

#[test]
fn rms_norm_is_that_of_the_reference() {
    for (rows, columns) in [(1, 4), (3, 36), (2, 1024), (1, 1540), (2, 3584)] {
        let eps = 1e-5;
        let load = norm::workload(norm::Output::F32, rows, columns, eps, columns as u64).unwrap();
        let (_, y) = run_all(norm::rms_norm(norm::Output::F32, Target::Sm80), &load, |run| run.f32s("y").unwrap());
        let expected = reference::rms_norm(&floats(&load, "x"), &floats(&load, "gain"), eps).unwrap();
        assert_close(&y, &expected, 2e-6, &format!("{rows} rows of {columns}"));
    }
}

/// Codes, scales and sums of the CPU backend, in the tiles of the kernels.
fn tiles(rows: &Q8Rows) -> Vec<u8> {
    let tokens = rows.rows();
    let mut tiles = vec![0; activation::bytes(rows.width(), tokens)];
    for token in 0..tokens {
        let row = rows.row(token).unwrap();
        for (column, &code) in row.codes().iter().enumerate() {
            tiles[activation::code_at(tokens, token, column)] = code as u8;
        }
        for (block, (scale, sums)) in row.scales().iter().zip(row.sums()).enumerate() {
            let whole = i32::from(sums[0]) + i32::from(sums[1]);
            // The NaN of PTX, which arithmetic gives whatever NaN it was given.
            let scaled = if scale.is_nan() { f32::from_bits(0x7fff_ffff) } else { scale * whole as f32 };
            let [a, b] = sums.map(i16::to_le_bytes);
            let parts = [scale.to_le_bytes(), scaled.to_le_bytes(), [a[0], a[1], b[0], b[1]], whole.to_le_bytes()];
            tiles[activation::scale_at(tokens, token, 32 * block)..][..16].copy_from_slice(parts.as_flattened());
        }
    }
    tiles
}

#[test]
fn rms_norm_to_codes_rounds_what_rms_norm_gives_as_the_cpu_does() {
    for (rows, columns) in [(1, 32), (3, 96), (2, 1024), (2, 1568)] {
        let mut load = norm::workload(norm::Output::Q8, rows, columns, 1e-6, columns as u64).unwrap();
        let mut plain = norm::workload(norm::Output::F32, rows, columns, 1e-6, columns as u64).unwrap();
        let mut x = floats(&load, "x");
        // A block of zeros; in the last row, an infinity, which makes the row 0 or NaN.
        x[..32].fill(0.0);
        if rows > 1 {
            x[(rows - 1) * columns + 5] = f32::INFINITY;
        }
        for load in [&mut load, &mut plain] {
            replace(load, "x", workload::bytes_of_f32(&x));
        }
        let (_, y) =
            run_all(norm::rms_norm(norm::Output::F32, Target::Sm80), &plain, |run| bits(run.f32s("y").unwrap()));
        let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
        let expected = tiles(&Q8Rows::from_values(columns, &y).unwrap());
        let (_, found) =
            run_all(norm::rms_norm(norm::Output::Q8, Target::Sm80), &load, |run| run.bytes("y").unwrap().to_vec());
        assert!(found == expected, "{rows} rows of {columns}");
    }
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn rows_that_norms_cannot_do_are_refused() {
    assert_eq!(
        norm::dims(norm::Output::Q8, 1, 48, 1).unwrap_err().to_string(),
        "kernel `rms_norm_q8` takes columns that is a multiple of 32, at most 268435456, found 48"
    );
    assert!(norm::dims(norm::Output::F32, 1, 6, 1).is_err());
    assert!(norm::dims(norm::Output::F32, 0, 8, 1).is_err());
    assert!(norm::dims(norm::Output::F32, 1, 8, 65536).is_err());
}

#[test]
fn angles_are_those_of_the_cpu() {
    let plain = RopeSpec {
        style: bricks::rope::RopeStyle::SplitHalves,
        base: 1e6,
        dims: 128,
        scaling: RopeScaling::None,
        freq_factors: None,
    };
    let yarn =
        RopeScaling::Yarn { factor: 4.0, original_context: 32_768, attn_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0 };
    for spec in [plain.clone(), RopeSpec { base: 1e4, dims: 6, ..plain.clone() }, RopeSpec { scaling: yarn, ..plain }] {
        let frequencies = spec.inv_freq();
        let positions = [0, 1, 2, 3, 5, 8, 100, 4095, 32_768, 131_071, 1_000_003, u32::MAX];
        let load = angles::workload(&positions, &frequencies.inv_freq, frequencies.magnitude).unwrap();
        let (_, found) = run_all(angles::rope_angles(Target::Sm80), &load, |run| run.f32s("angles").unwrap());
        let pairs = spec.dims / 2;
        for (found, &position) in found.chunks_exact(2 * pairs).zip(&positions) {
            let (mut cos, mut sin) = (vec![0.0; pairs], vec![0.0; pairs]);
            frequencies.cos_sin(position, &mut cos, &mut sin);
            for (i, found) in found.chunks_exact(2).enumerate() {
                let ulps = |a: f32, b: f32| (a.to_bits() as i32 - b.to_bits() as i32).abs();
                assert!(
                    ulps(found[0], cos[i]) <= 1 && ulps(found[1], sin[i]) <= 1,
                    "pair {i} at {position}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn rope_kv_rotates_and_writes_to_the_blocks_of_the_sequence() {
    let batch = Batch {
        positions: vec![40, 0, INACTIVE, 31, 95],
        sequences: vec![1, 0, 0, 2, 1],
        block_table: vec![5, 9, 9, 2, 0, 6, 4, 9, 9],
        table_width: 3,
        blocks: 10,
    };
    for (head_dim, heads, kv_heads, pairs) in [(64, 3, 1, 32), (128, 4, 2, 20), (256, 2, 1, 128)] {
        for style in [RopeStyle::Interleaved, RopeStyle::SplitHalves] {
            for (bias, kv) in [(false, KvType::F16), (true, KvType::Bf16)] {
                let spec = Spec { head_dim, style, bias, kv };
                let shape = Shape { rows: 5, heads, kv_heads, pairs };
                check_rope_kv(spec, shape, &batch);
            }
        }
    }
}

fn check_rope_kv(spec: Spec, shape: Shape, batch: &Batch) {
    let name = spec.kernel();
    let mut load = rope_kv::workload(spec, shape, batch, 3).unwrap();
    let d = spec.head_dim as usize;
    let rope = RopeSpec {
        style: match spec.style {
            RopeStyle::Interleaved => bricks::rope::RopeStyle::Interleaved,
            RopeStyle::SplitHalves => bricks::rope::RopeStyle::SplitHalves,
        },
        base: 1e4,
        dims: 2 * shape.pairs,
        scaling: RopeScaling::None,
        freq_factors: None,
    };
    let mut table = Vec::new();
    for &position in &batch.positions {
        let (mut cos, mut sin) = (vec![0.0; shape.pairs], vec![0.0; shape.pairs]);
        rope.cos_sin(position, &mut cos, &mut sin);
        table.extend(cos.iter().zip(&sin).flat_map(|(&c, &s)| [c, s]));
    }
    replace(&mut load, "angles", workload::bytes_of_f32(&table));
    let (_, (q, cache)) = run_all(rope_kv::rope_kv(spec, Target::Sm80), &load, |run| {
        (run.f32s("q").unwrap(), run.bytes("kv").unwrap().to_vec())
    });

    let mut x = floats(&load, "qkv");
    let (h, g) = (shape.heads, shape.kv_heads);
    if spec.bias {
        let bias = floats(&load, "bias");
        x.iter_mut().zip(bias.iter().cycle()).for_each(|(x, b)| *x += b);
    }
    let (mut expected_q, mut expected_kv) = (vec![0.0; q.len()], vec![0_u16; cache.len() / 2]);
    for (t, row) in x.chunks_exact((h + 2 * g) * d).enumerate() {
        let position = batch.positions[t];
        if position == INACTIVE {
            continue;
        }
        let rotated = reference::rope(&rope, h + g, d, &row[..(h + g) * d], &[position]).unwrap();
        expected_q[t * h * d..][..h * d].copy_from_slice(&rotated[..h * d]);
        let block = batch.block_table[(batch.sequences[t] * batch.table_width + position / BLOCK) as usize];
        for head in 0..g {
            let page = (head * batch.blocks as usize + block as usize) * kv::page_bytes(spec.head_dim) as usize / 2;
            let slot = page + (position % BLOCK) as usize * d;
            for i in 0..d {
                expected_kv[slot + i] = spec.kv.bits(rotated[(h + head) * d + i]);
                expected_kv[slot + BLOCK as usize * d + i] = spec.kv.bits(row[(h + g + head) * d + i]);
            }
        }
    }
    assert_close(&q, &expected_q, 1e-6, &name);
    // A rotated key may round to the neighbour of what the reference rounds to.
    for (i, (found, &expected)) in cache.chunks_exact(2).zip(&expected_kv).enumerate() {
        let (found, expected) = (spec.kv.value(u16::from_le_bytes([found[0], found[1]])), spec.kv.value(expected));
        assert!((found - expected).abs() <= expected.abs() / 128.0, "{name}: {found} at {i}, expected {expected}");
    }
}

/// Heads of 48 in heads of 64: 24 pairs are rotated as those of 48 would be, and the padding is written as it came, as zeros.
#[test]
fn rope_kv_keeps_the_padding_of_heads() {
    let (d, size, shape) = (64, 48, Shape { rows: 2, heads: 2, kv_heads: 1, pairs: 24 });
    let batch = Batch::new(&[3, 37]);
    for style in [RopeStyle::Interleaved, RopeStyle::SplitHalves] {
        let spec = Spec { head_dim: 64, style, bias: false, kv: KvType::F16 };
        let mut load = rope_kv::workload(spec, shape, &batch, 5).unwrap();
        let mut x = floats(&load, "qkv");
        x.chunks_exact_mut(d).for_each(|head| head[size..].fill(0.0));
        let angles = floats(&load, "angles");
        replace(&mut load, "qkv", workload::bytes_of_f32(&x));
        // Whatever was not written would stay.
        let (q_len, kv_len) = (contents(&load, "q").len(), contents(&load, "kv").len());
        replace(&mut load, "q", vec![0xff; q_len]);
        replace(&mut load, "kv", vec![0xff; kv_len]);
        let (_, (q, cache)) = run_all(rope_kv::rope_kv(spec, Target::Sm80), &load, |run| {
            (bits(run.f32s("q").unwrap()), run.bytes("kv").unwrap().to_vec())
        });
        let rotated = |row: usize, head: &[f32]| {
            let mut y = head.to_vec();
            for i in 0..shape.pairs {
                let (a, b) = match style {
                    RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                    RopeStyle::SplitHalves => (i, i + shape.pairs),
                };
                let [cos, sin] = [0, 1].map(|part| angles[2 * (shape.pairs * row + i) + part]);
                y[a] = head[a] * cos - head[b] * sin;
                y[b] = head[a] * sin + head[b] * cos;
            }
            y
        };
        for (row, x) in x.chunks_exact(4 * d).enumerate() {
            let q: Vec<f32> = q[row * 2 * d..][..2 * d].iter().map(|&bits| f32::from_bits(bits)).collect();
            for (q, x) in q.chunks_exact(d).zip(x.chunks_exact(d)) {
                assert_close(q, &rotated(row, x), 1e-6, "queries");
                assert_eq!(bits(q[size..].to_vec()), [0; 16], "padding of queries");
            }
            let key = batch.key_at(64, 0, row as u32, batch.positions[row]);
            let halves = |at: usize| -> Vec<f32> {
                let words = cache[2 * at..][..2 * d].chunks_exact(2);
                words.map(|b| spec.kv.value(u16::from_le_bytes([b[0], b[1]]))).collect()
            };
            for (found, expected) in
                [(halves(key), rotated(row, &x[2 * d..3 * d])), (halves(key + 32 * d), x[3 * d..].to_vec())]
            {
                assert_close(&found, &expected, 1e-3, "the cache");
                assert_eq!(bits(found[size..].to_vec()), [0; 16], "padding of the cache");
            }
        }
    }
}

#[test]
fn heads_lose_their_padding() {
    for (rows, heads, from, to) in [(1, 1, 1, 1), (3, 5, 64, 48), (2, 9, 128, 80), (1, 3, 8, 8), (2, 7, 5, 3)] {
        let load = heads::compact_heads_workload(rows, heads, (from, to), 6).unwrap();
        let (_, y) = run_all(heads::compact_heads(Target::Sm80), &load, |run| run.f32s("y").unwrap());
        let expected: Vec<f32> =
            floats(&load, "x").chunks_exact(from).flat_map(|head| head[..to].iter().copied()).collect();
        assert_eq!(y, expected, "{rows} rows of {heads} heads, {from} to {to}");
    }
    assert!(heads::compact_heads_workload(1, 1, (8, 9), 6).is_err());
    assert!(heads::compact_heads_dims(65536, 1, 8).is_err());
}

#[test]
fn rows_are_gathered() {
    for columns in [4, 36, 1028] {
        let index = [3, heads::NO_ROW, 0, 3];
        let load = heads::gather_rows_workload(4, &index, columns, 7).unwrap();
        let (_, y) = run_all(heads::gather_rows(Target::Sm80), &load, |run| run.f32s("y").unwrap());
        let x = floats(&load, "x");
        for (&row, y) in index.iter().zip(y.chunks_exact(columns)) {
            let expected = x.chunks_exact(columns).nth(row as usize).map_or(vec![0.0; columns], <[f32]>::to_vec);
            assert_eq!(y, expected, "row {row} of {columns} columns");
        }
    }
    assert!(heads::gather_rows_dims(1, 6).is_err());
}

#[test]
fn shapes_that_rope_kv_cannot_do_are_refused() {
    let spec = Spec { head_dim: 64, style: RopeStyle::SplitHalves, bias: false, kv: KvType::F16 };
    let shape = Shape { rows: 1, heads: 2, kv_heads: 1, pairs: 32 };
    rope_kv::dims(spec, shape).unwrap();
    assert!(rope_kv::dims(spec, Shape { pairs: 33, ..shape }).is_err());
    assert!(rope_kv::dims(spec, Shape { rows: 65536, ..shape }).is_err());
    assert_eq!(
        rope_kv::dims(Spec { head_dim: 80, ..spec }, shape).unwrap_err().to_string(),
        "kernel `rope_kv_neox_f16_d80` takes a head size that is one of [64, 128, 256], found 80"
    );
}

#[test]
fn argmax_is_that_of_the_reference() {
    for (vocab, rows) in [(1, 3), (7, 2), (257, 1), (8192, 2), (8193, 2), (20_011, 2)] {
        let mut logits = workload::Noise::new(vocab as u64).floats(rows * vocab);
        // Ties, zeros of both signs, NaN, infinities.
        for (i, x) in logits.iter_mut().enumerate() {
            *x = (*x * 64.0).round() / 64.0;
            match i % 97 {
                13 => *x = f32::NAN,
                29 => *x = f32::NEG_INFINITY,
                _ => {}
            }
        }
        check_argmax(&logits, vocab);
    }
    check_argmax(&[-0.0, 0.0, -1.0, f32::NAN, -2.0, -2.0, f32::NAN, f32::NAN, f32::NAN], 3);
    check_argmax(&[f32::NEG_INFINITY, f32::NEG_INFINITY, 1.0, f32::INFINITY], 2);
}

fn check_argmax(logits: &[f32], vocab: usize) {
    let load = argmax::workload(logits, vocab).unwrap();
    let (run, tokens) = run_all(argmax::argmax(Target::Sm80), &load, |run| run.u32s("tokens").unwrap());
    let expected: Vec<u32> =
        logits.chunks_exact(vocab).map(|row| reference::argmax(row).map_or(argmax::NO_TOKEN, |i| i as u32)).collect();
    assert_eq!(tokens, expected, "{vocab} logits");
    assert!(run.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "counters go back to zero");
}

#[test]
fn advance_moves_rows_on_and_ends_them() {
    let rows = step::Rows {
        sampled: vec![17, 2, 40, 5, argmax::NO_TOKEN, 8],
        stop_tokens: vec![99, 2],
        positions: vec![12, 30, INACTIVE, 63, 7, 0],
        produced: vec![3, 8, 1, 0, 2, 5],
        limits: vec![64; 6],
        ring: 4,
    };
    let load = step::workload(&rows).unwrap();
    let (run, positions) = run_all(step::advance(Target::Sm80), &load, |run| run.u32s("positions").unwrap());
    assert_eq!(positions, [13, INACTIVE, INACTIVE, INACTIVE, INACTIVE, 1]);
    assert_eq!(run.u32s("tokens").unwrap(), [17, 2, 0, 5, argmax::NO_TOKEN, 8]);
    assert_eq!(run.u32s("produced").unwrap(), [4, 9, 1, 1, 3, 6]);
    let ring = run.u32s("ring").unwrap();
    let places: Vec<_> = ring.iter().enumerate().filter(|&(_, &token)| token != 0).collect();
    assert_eq!(places, [(3, &17), (4, &2), (12, &5), (18, &argmax::NO_TOKEN), (21, &8)]);
    assert_eq!(contents(&load, "stop_tokens").len(), 8);

    let arrays = step::Step::new(6);
    assert_eq!(
        [arrays.tokens(), arrays.positions(), arrays.sequences(), arrays.produced(), arrays.limits(), arrays.bytes()],
        [0, 32, 64, 96, 128, 160]
    );
}

/// Of the position behind the row's: what `advance` and `rope_angles` leave, one after the other, but for rows that end.
#[test]
fn advance_and_angles_in_one_launch() {
    let rows = step::Rows {
        sampled: vec![17, 2, 40, 5, argmax::NO_TOKEN, 8, 1007, 9],
        stop_tokens: [99, 2].into_iter().chain(970..1008).collect(),
        positions: vec![12, 30, INACTIVE, 63, 7, 0, 3, 131_070],
        produced: vec![3, 8, 1, 0, 2, 5, 6, 1],
        limits: vec![64, 64, 64, 64, 64, 64, 64, 1 << 20],
        ring: 4,
    };
    let advanced = step::workload(&rows).unwrap();
    let (advanced, positions) = run_all(step::advance(Target::Sm80), &advanced, |run| run.u32s("positions").unwrap());
    assert_eq!(positions, [13, INACTIVE, INACTIVE, INACTIVE, INACTIVE, 1, INACTIVE, 131_071]);
    for pairs in [3, 32, 64, 150] {
        let inv_freq: Vec<f32> = (0..pairs).map(|i| 1e6_f32.powf(-(i as f32) / pairs as f32)).collect();
        let expected = angles::workload(&positions, &inv_freq, 1.25).unwrap();
        let (_, expected) =
            run_all(angles::rope_angles(Target::Sm80), &expected, |run| bits(run.f32s("angles").unwrap()));
        let mut load = advance_angles::workload(&rows, &inv_freq, 1.25).unwrap();
        let before = vec![0x5a; contents(&load, "angles").len()];
        replace(&mut load, "angles", before);
        for (target, schedule) in Target::ALL.into_iter().flat_map(|target| launches::SCHEDULES.map(|s| (target, s))) {
            let module = launches::module(advance_angles::advance_angles(target), target);
            let run = launches::run(&load, &module, "advance_angles", schedule);
            let angles = bits(run.f32s("angles").unwrap());
            for name in ["tokens", "positions", "produced", "ring"] {
                assert_eq!(run.bytes(name).unwrap(), advanced.bytes(name).unwrap(), "{name}");
            }
            let lines = angles.chunks_exact(2 * pairs).zip(expected.chunks_exact(2 * pairs));
            for ((found, expected), &position) in lines.zip(&positions) {
                match position {
                    INACTIVE => assert!(found.iter().all(|&bits| bits == 0x5a5a_5a5a)),
                    _ => assert_eq!(found, expected, "{pairs} pairs at {position}"),
                }
            }
        }
    }
    assert_eq!(advance_angles::dims(8, 4, 64).unwrap().grid, [8, 1, 1]);
    assert!(advance_angles::dims(8, 4, 0).is_err());
    assert!(advance_angles::dims(8, 0, 64).is_err());
    assert!(advance_angles::dims(0, 4, 64).is_err());
}

#[test]
fn embeddings_are_those_of_the_file() {
    for format in Format::ALL {
        let (rows, columns) = (5, if format.is_float() { 776 } else { 768 });
        let file = workload::random_rows(format, rows, columns, &mut workload::Noise::new(21));
        let table = Packed::matrix(format, columns, &file).unwrap();
        let dtype = bricks::DType::ALL.iter().find(|d| d.name().eq_ignore_ascii_case(format.name())).unwrap();
        for scale in [1.0, 59.25] {
            let tokens = [4, 0, 3, 5, u32::MAX];
            let load = embed::workload(&table, &tokens, scale).unwrap();
            let (_, y) = run_all(embed::embed(format, Target::Sm80), &load, |run| bits(run.f32s("y").unwrap()));
            for (y, &token) in y.chunks_exact(columns).zip(&tokens) {
                let mut expected = vec![f32::NAN; columns];
                if let Some(row) = file.chunks_exact(format.row_bytes(columns)).nth(token as usize) {
                    bricks::quant::decode_row(*dtype, row, &mut expected).unwrap();
                }
                let same = y.iter().zip(&expected).all(|(&y, &x)| {
                    let (y, x) = (f32::from_bits(y), x * scale);
                    y.to_bits() == x.to_bits() || (y.is_nan() && x.is_nan())
                });
                assert!(same, "{format:?}, token {token}");
            }
        }
    }
    assert!(embed::dims(Format::Q4_K, 288, 1).is_err());
}

#[test]
fn sums_and_gates_are_those_of_the_reference() {
    for n in [1, 2, 3, 4, 7, 1023, 1026] {
        let load = elementwise::add_workload(n, 22).unwrap();
        let (_, y) = run_all(elementwise::add(Target::Sm80), &load, |run| run.f32s("y").unwrap());
        assert_eq!(y, reference::add(&floats(&load, "a"), &floats(&load, "b")).unwrap(), "{n} elements");
    }
    let mut gate: Vec<f32> = workload::Noise::new(23).floats(3 * 1028).iter().map(|x| x * 12.0).collect();
    gate[..6].copy_from_slice(&[0.0, -0.0, 300.0, -300.0, f32::INFINITY, -1e-30]);
    let up = workload::Noise::new(24).floats(3 * 1028);
    for (activation, act) in [(Activation::Silu, ActKind::Silu), (Activation::GeluTanh, ActKind::GeluTanh)] {
        let load = elementwise::gate_workload(activation, 1028, &gate, &up).unwrap();
        let (_, y) = run_all(elementwise::gate(activation, Target::Sm80), &load, |run| run.f32s("y").unwrap());
        let expected = reference::gated_activation(act, &gate, &up).unwrap();
        assert_close(&y, &expected, 2e-6, activation.kernel());
    }
    assert!(elementwise::gate_dims(Activation::Silu, 1, 8, 4).is_err());
    assert!(elementwise::gate_dims(Activation::Silu, 1, 6, 8).is_err());
}

#[test]
fn top_k_is_a_sort() {
    for (vocab, rows, count) in [(1, 2, 1), (5, 1, 64), (2048, 1, 64), (2049, 2, 3), (9001, 2, 40)] {
        let mut logits = workload::Noise::new(vocab as u64).floats(rows * vocab);
        for (i, x) in logits.iter_mut().enumerate() {
            *x = if i % 41 == 3 { f32::NAN } else { (*x * 100.0).round() / 8.0 };
        }
        let load = sample::top_k_workload(&logits, vocab, count).unwrap();
        let (run, tokens) = run_all(sample::top_k(Target::Sm80), &load, |run| run.u32s("top_tokens").unwrap());
        let values = run.f32s("top_logits").unwrap();
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            let mut order: Vec<u32> = (0..vocab as u32).filter(|&i| !logits[i as usize].is_nan()).collect();
            order.sort_by(|&a, &b| (logits[b as usize] + 0.0).total_cmp(&(logits[a as usize] + 0.0)).then(a.cmp(&b)));
            order.resize(order.len().max(count), argmax::NO_TOKEN);
            assert_eq!(&tokens[row * count..][..count], &order[..count], "{vocab} logits");
            for (token, &value) in order.iter().zip(&values[row * count..][..count]) {
                assert_eq!(value, logits.get(*token as usize).copied().unwrap_or(f32::NEG_INFINITY));
            }
        }
        assert!(run.bytes("arrivals").unwrap().iter().all(|&b| b == 0), "counters go back to zero");
    }
    assert!(sample::top_k_dims(1, 100, 65).is_err());
    assert!(sample::top_k_dims(1, 524_289, 5).is_err());
}

#[test]
fn softmax_is_that_of_the_reference() {
    for columns in [1, 3, 64, 1001] {
        let mut x: Vec<f32> = workload::Noise::new(25).floats(5 * columns).iter().map(|x| x * 20.0).collect();
        let temperatures = [1.0, 0.3, 2.5, 1.0, 1.0];
        x[0] = f32::NEG_INFINITY;
        x[3 * columns] = f32::NAN;
        x[4 * columns] = f32::INFINITY;
        let load = sample::softmax_workload(&x, &temperatures).unwrap();
        let (_, y) = run_all(sample::softmax(Target::Sm80), &load, |run| bits(run.f32s("y").unwrap()));
        let expected = x.chunks_exact(columns).zip(temperatures).flat_map(|(x, t)| {
            let mut scores: Vec<f64> = x.iter().map(|&x| f64::from(x) / f64::from(t)).collect();
            reference::softmax(&mut scores);
            scores.into_iter().map(|p| p as f32)
        });
        let y: Vec<f32> = y.into_iter().map(f32::from_bits).collect();
        assert_close(&y, &expected.collect::<Vec<_>>(), 2e-6, &format!("{columns} columns"));
    }
}
