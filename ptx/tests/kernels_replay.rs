//! A decode step as a graph would replay it: the same launches with the same arguments, over and over, while everything
//! that changes lies in device memory.
//!
//! The model has no matrices: the embedding of a token is its query, key and value, and the output of attention is
//! taken for logits. So every token depends on all before it, through the cache.

#![allow(clippy::unwrap_used)]

mod launches;

use std::collections::BTreeSet;

use brick_ptx::interp::{Access, Arg, Buffer, Gpu, Launch, Limits, Module, Schedule};
use brick_ptx::ir::{Kernel, Target};
use brick_ptx::kernels::kv::{self, BLOCK, KvType};
use brick_ptx::kernels::pack::Packed;
use brick_ptx::kernels::rope_kv::{RopeStyle, Spec};
use brick_ptx::kernels::step::Step;
use brick_ptx::kernels::workload::{Noise, bytes_of_f32, bytes_of_u32};
use brick_ptx::kernels::{Dims, Format, angles, argmax, attention, embed, rope_kv, step};
use bricks::op::AttentionSpec;
use bricks::reference;
use bricks::rope::{RopeScaling, RopeSpec};

/// Elements of the one head, and tokens of the vocabulary.
const D: usize = 64;
const ROWS: usize = 2;
const STEPS: usize = 40;
const TABLE_WIDTH: u32 = 2;
/// The second row ends in the middle.
const LIMITS: [u32; ROWS] = [64, 29];
const FIRST: [u32; ROWS] = [7, 50];

fn spec() -> RopeSpec {
    let style = bricks::rope::RopeStyle::SplitHalves;
    RopeSpec { style, base: 1e4, dims: D, scaling: RopeScaling::None, freq_factors: None }
}

/// Query, key and value of every token. A query likes its own key, and a value its token's successor, so that tokens
/// change; the rest is noise, in which the past is heard.
fn table() -> Vec<f32> {
    let mut noise = Noise::new(31);
    let mut table = Vec::new();
    for token in 0..D {
        let query: Vec<f32> = noise.floats(D).iter().map(|x| 1.5 * x).collect();
        let mut value = noise.floats(D);
        value[(29 * token + 11) % D] += 1.0;
        table.extend(query.iter().chain(&query).chain(&value));
    }
    // Halves, so that the table in memory is the table of the reference.
    table.iter().map(|&x| KvType::F16.value(KvType::F16.bits(x))).collect()
}

/// The same on the CPU, one sequence: the tokens it produces.
fn expected(table: &[f32], row: usize) -> Vec<u32> {
    let (mut token, mut tokens, mut cache) = (FIRST[row], Vec::new(), [Vec::new(), Vec::new()]);
    let attention = AttentionSpec { n_heads: 1, n_kv_heads: 1, head_dim: D, scale: 0.125, window: None, softcap: None };
    for position in 0..LIMITS[row].min(STEPS as u32) {
        let qkv = &table[token as usize * 3 * D..][..3 * D];
        let rotated = reference::rope(&spec(), 2, D, &qkv[..2 * D], &[position]).unwrap();
        let rounded = |x: &[f32]| x.iter().map(|&x| KvType::F16.value(KvType::F16.bits(x))).collect::<Vec<_>>();
        cache[0].extend(rounded(&rotated[D..]));
        cache[1].extend(rounded(&qkv[2 * D..]));
        let y = reference::attention(&attention, &rotated[..D], &cache[0], &cache[1], &[position]).unwrap();
        token = reference::argmax(&y).unwrap() as u32;
        tokens.push(token);
    }
    tokens
}

/// One launch of the step.
struct Node {
    module: Module,
    name: String,
    dims: Dims,
    args: Vec<Arg>,
}

impl Node {
    fn new(kernel: Kernel, dims: Dims, args: Vec<Arg>) -> Self {
        let name = kernel.name.clone();
        Self { module: launches::module(kernel, Target::Sm90), name, dims, args }
    }
}

/// The step, and the ring that its tokens go to.
fn capture(gpu: &mut Gpu, table: &[f32]) -> (Vec<Node>, Buffer) {
    let halves: Vec<u8> = table.iter().flat_map(|&x| KvType::F16.bits(x).to_le_bytes()).collect();
    let packed = Packed::matrix(Format::F16, 3 * D, &halves).unwrap();
    let mut read = |name: &str, bytes: Vec<u8>| Arg::Buffer(gpu.buffer(name, &bytes, Access::Read).unwrap());
    let codes = read("codes", packed.codes);
    let frequencies = spec().inv_freq();
    let inv_freq = read("inv_freq", bytes_of_f32(&frequencies.inv_freq));
    let block_table = read("block_table", bytes_of_u32(&[3, 0, 1, 2]));
    let stop_tokens = read("stop_tokens", bytes_of_u32(&[u32::MAX - 1]));

    // The whole state of the step, in one buffer.
    let arrays = Step::new(ROWS as u32);
    let mut state = vec![0; arrays.bytes() as usize];
    for (offset, values) in [
        (arrays.tokens(), FIRST),
        (arrays.positions(), [0; 2]),
        (arrays.sequences(), [0, 1]),
        (arrays.limits(), LIMITS),
    ] {
        state[offset as usize..][..4 * ROWS].copy_from_slice(&bytes_of_u32(&values));
    }
    let state = gpu.buffer("step", &state, Access::ReadWrite).unwrap();
    let read_step = |offset| Arg::Slice { buffer: state, offset, access: Access::Read };
    let move_step = |offset| Arg::Slice { buffer: state, offset, access: Access::ReadWrite };

    let mut scratch = |name: &str, bytes: usize| gpu.buffer(name, &vec![0; bytes], Access::ReadWrite).unwrap();
    let qkv = scratch("qkv", 4 * ROWS * 3 * D);
    let turns = scratch("angles", 4 * ROWS * D);
    let (q, y) = (scratch("q", 4 * ROWS * D), scratch("y", 4 * ROWS * D));
    let cache = scratch("kv", 4 * kv::page_bytes(D as u32) as usize);
    let [parts, part_sums, best] = ["parts", "part_sums", "best"].map(|name| scratch(name, 4096));
    let [arrivals, arrivals_of_best] = ["arrivals", "arrivals_of_best"].map(|name| scratch(name, 4 * ROWS));
    let (sampled, ring) = (scratch("sampled", 4 * ROWS), scratch("ring", 4 * ROWS * STEPS));
    let read = |buffer| Arg::Slice { buffer, offset: 0, access: Access::Read };

    let of_rope = Spec { head_dim: D as u32, style: RopeStyle::SplitHalves, bias: false, kv: KvType::F16 };
    let of_attention = attention::Spec { head_dim: D as u32, heads: 1, kv: KvType::F16, softcap: false, window: false };
    let shape = rope_kv::Shape { rows: ROWS, heads: 1, kv_heads: 1, pairs: D / 2 };
    let context = attention::Shape { rows: ROWS, heads: 1, kv_heads: 1, context: 64, window: 0 };
    let [one, blocks, width] = [Arg::U32(1), Arg::U32(4), Arg::U32(TABLE_WIDTH)];
    let [tokens, positions, sequences] = [arrays.tokens(), arrays.positions(), arrays.sequences()];
    let target = Target::Sm90;
    let nodes = vec![
        Node::new(
            embed::embed(Format::F16, target),
            embed::dims(Format::F16, 3 * D, ROWS).unwrap(),
            vec![codes, read_step(tokens), Arg::Buffer(qkv), Arg::U32(D as u32), Arg::U32(3 * D as u32), Arg::F32(1.0)],
        ),
        Node::new(
            angles::rope_angles(target),
            angles::dims(ROWS, D / 2).unwrap(),
            vec![
                read_step(positions),
                inv_freq,
                Arg::Buffer(turns),
                Arg::U32(D as u32 / 2),
                Arg::F32(frequencies.magnitude),
            ],
        ),
        Node::new(
            rope_kv::rope_kv(of_rope, target),
            rope_kv::dims(of_rope, shape).unwrap(),
            vec![
                read(qkv),
                read(turns),
                read_step(positions),
                read_step(sequences),
                block_table,
                Arg::Buffer(q),
                Arg::Buffer(cache),
                one,
                one,
                Arg::U32(D as u32 / 2),
                width,
                blocks,
            ],
        ),
        Node::new(
            attention::attention(of_attention, target),
            attention::dims(of_attention, context).unwrap(),
            vec![
                read(q),
                read_step(positions),
                read_step(sequences),
                block_table,
                read(cache),
                Arg::Buffer(y),
                Arg::Buffer(parts),
                Arg::Buffer(part_sums),
                Arg::Buffer(arrivals),
                one,
                one,
                width,
                blocks,
                Arg::F32(0.125),
            ],
        ),
        Node::new(
            argmax::argmax(target),
            argmax::dims(ROWS, D).unwrap(),
            vec![read(y), Arg::Buffer(best), Arg::Buffer(arrivals_of_best), Arg::Buffer(sampled), Arg::U32(D as u32)],
        ),
        Node::new(
            step::advance(target),
            step::dims(ROWS, STEPS).unwrap(),
            vec![
                read(sampled),
                stop_tokens,
                move_step(tokens),
                move_step(positions),
                move_step(arrays.produced()),
                move_step(arrays.limits()),
                Arg::Buffer(ring),
                Arg::U32(ROWS as u32),
                one,
                Arg::U32(STEPS as u32),
            ],
        ),
    ];
    (nodes, ring)
}

#[test]
fn a_step_is_replayed_without_the_host() {
    let table = table();
    let mut gpu = Gpu::new(Limits::default());
    let (nodes, ring) = capture(&mut gpu, &table);
    for replay in 0..STEPS {
        for node in &nodes {
            let Dims { grid, block, dynamic_shared } = node.dims;
            let schedule = Schedule::Seeded(replay as u64);
            let launch = Launch { grid, block, dynamic_shared, schedule, ..Launch::linear(1, 1) };
            gpu.launch(&node.module, &node.name, launch, &node.args).unwrap_or_else(|e| panic!("{}: {e}", node.name));
        }
    }
    let (words, _) = gpu.read(ring).unwrap().as_chunks::<4>();
    let tokens: Vec<u32> = words.iter().map(|w| u32::from_le_bytes(*w)).collect();
    for (row, tokens) in tokens.chunks_exact(STEPS).enumerate() {
        let mut expected = expected(&table, row);
        let distinct: BTreeSet<_> = expected.iter().collect();
        assert!(distinct.len() > 10, "a model that repeats itself tests little: {expected:?}");
        // What a row that ended did not write is still zero.
        expected.resize(STEPS, 0);
        assert_eq!(tokens, expected, "row {row}");
    }
    assert!(LIMITS[0] > BLOCK && STEPS as u32 > BLOCK, "the first row crosses into a second block");
}
