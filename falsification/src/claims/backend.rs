//! F041–F051: what kernels and models compute.

use brick_runtime::check::{BrickCheck, CheckReport, check};
use brick_runtime::{Batch, EngineOptions, Row};
use bricks::catalog::{Activations, Attend, AttentionBrick, KvCache};
use bricks::reference::{self, softmax};
use bricks::{ActKind, AttentionSpec, BrickKind, DType, RopeStyle, RunBrick};

use super::fixtures::rope_spec;
use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq, require_some};
use crate::context::Context;
use crate::golden::GoldenFile;
use crate::noise::Noise;
use crate::runs;
use crate::synthetic::Synthetic;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Backend, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F041", "CUDA output equals the scalar baseline on the CPU", "1e-4 (QKV), 1e-3 (Q4_K)", f041),
    claim!("F042", "Q4_K decodes as the reference implementation in C does", "≤ 1e-4; found exact", f042),
    claim!("F043", "Rotary embedding equals the reference", "split halves, base 10⁶; kernels ≤ 1e-5", f043),
    claim!("F044", "Softmax does not overflow", "finite, sums to 1", f044),
    claim!("F045", "The causal mask is right", "bits of earlier logits do not depend on later tokens", f045),
    claim!("F046", "Keys and values land at the right positions", "exact", f046),
    claim!("F047", "SwiGLU equals silu(gate) · up", "relative 1e-6", f047),
    claim!("F048", "The epsilon of RMSNorm is inside the root", "1e-6 and 1e-5 differ as they should", f048),
    claim!("F049", "No brick's output holds NaN or infinity", "0", f049),
    claim!(
        "F050",
        "The top-1 token equals that of llama.cpp",
        "≥ 99 % of positions with F16 weights; with Q4_1, ties below 0.25 nats aside",
        f050
    ),
    claim!("F051", "Greedy text equals that of llama.cpp", "32 tokens per prompt, F16 weights", f051),
];

fn f041(context: &Context) -> Outcome {
    super::cuda::f041(context)
}

/// Q4_K as the format's description has it, value by value: f16 scale and minimum, twelve bytes of 6-bit sub-scales, 128 bytes
/// of codes in which sub-blocks 2j and 2j + 1 share 32 bytes, low nibbles first.
fn naive_q4_k(block: &[u8]) -> Vec<f32> {
    let f16 = |at: usize| {
        let bits = u32::from(block[at]) | u32::from(block[at + 1]) << 8;
        let (exponent, fraction) = ((bits >> 10) & 31, bits & 0x3ff);
        let magnitude = match exponent {
            0 => f64::from(fraction) * 2f64.powi(-24),
            31 if fraction == 0 => f64::INFINITY,
            31 => f64::NAN,
            e => f64::from(0x400 | fraction) * 2f64.powi(e as i32 - 25),
        };
        if bits >> 15 == 1 { -magnitude } else { magnitude }
    };
    let (d, min) = (f16(0), f16(2));
    let packed = &block[4..16];
    (0..256usize)
        .map(|i| {
            let (sub, at) = (i / 32, i % 32);
            let (scale, minimum) = if sub < 4 {
                (packed[sub] & 63, packed[sub + 4] & 63)
            } else {
                ((packed[sub + 4] & 15) | (packed[sub - 4] >> 6) << 4, (packed[sub + 4] >> 4) | (packed[sub] >> 6) << 4)
            };
            let byte = block[16 + sub / 2 * 32 + at];
            let code = if sub % 2 == 0 { byte & 15 } else { byte >> 4 };
            (d * f64::from(scale) * f64::from(code) - min * f64::from(minimum)) as f32
        })
        .collect()
}

fn f042(_: &Context) -> Outcome {
    // Blocks, then their values as the reference implementation decodes them; see provenance.json beside the file.
    const STORED: &[u8] = include_bytes!("../../../bricks/tests/data/quant/q4_k.decode.bin");
    const BLOCK: usize = 144;
    let close = |found: &[f32], expected: &[f32], what: &str| {
        let same = |f: f32, e: f32| f == e || f.is_nan() && e.is_nan();
        let bad =
            found.iter().zip(expected).position(|(f, e)| !(same(*f, *e) || (f - e).abs() <= 1e-4 * e.abs().max(1.0)));
        require(bad.is_none() && found.len() == expected.len(), format!("{what} within 1e-4"), || {
            bad.map_or("another length".into(), |i| format!("{} for {} at {i}", found[i], expected[i]))
        })?;
        Ok::<_, Refusal>(found.iter().zip(expected).all(|(f, e)| same(*f, *e)))
    };
    let decode = |blocks: &[u8]| {
        let mut out = vec![0.0; blocks.len() / BLOCK * 256];
        bricks::quant::decode_row(DType::Q4_K, blocks, &mut out).map(|()| out)
    };
    let count = STORED.len() / (BLOCK + 4 * 256);
    require(count > 0 && STORED.len() == count * (BLOCK + 4 * 256), "whole blocks in the stored vectors", || {
        STORED.len().to_string()
    })?;
    let (blocks, values) = STORED.split_at(count * BLOCK);
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    let exact = close(&decode(blocks)?, &values, "stored vectors")?;

    let mut noise = Noise::new(42);
    let random = 200;
    let mut bytes: Vec<u8> = (0..random * BLOCK).map(|_| noise.bits() as u8).collect();
    // Scales of moderate size: the exponents' top bit cleared.
    for block in bytes.chunks_mut(BLOCK) {
        block[1] &= 0xbf;
        block[3] &= 0xbf;
    }
    let naive: Vec<f32> = bytes.chunks(BLOCK).flat_map(naive_q4_k).collect();
    close(&decode(&bytes)?, &naive, "random blocks against a naive decoder")?;
    let how = if exact { "bit by bit" } else { "within 1e-4" };
    Ok(format!("{count} stored blocks equal {how}; {random} random blocks agree with a naive decoder"))
}

/// Checks of all bricks of a kind in the running kernels of a synthetic model, against the scalar reference.
fn kernels(report: &CheckReport, wanted: impl Fn(&BrickCheck) -> bool, limit: f64) -> Result<(usize, f64), Refusal> {
    let (mut n, mut worst) = (0, 0.0f64);
    for b in report.bricks.iter().filter(|b| wanted(b)) {
        require(b.finite && b.relative_error <= limit, format!("{} ({}) within {limit:e}", b.brick, b.kernel), || {
            format!("{:e}", b.relative_error)
        })?;
        n += 1;
        worst = worst.max(b.relative_error);
    }
    require(n > 0, "at least one such brick in the plan", || "none".into())?;
    Ok((n, worst))
}

/// Rotation and the writing of keys and values, fused or not; what is compared is the cache, in f16.
fn writes_cache(b: &BrickCheck) -> bool {
    matches!(b.kind, BrickKind::Rope | BrickKind::KvWrite)
}

fn check_synthetic(s: &Synthetic) -> Result<CheckReport, Refusal> {
    let options = EngineOptions { threads: 2, ..EngineOptions::default() };
    Ok(check(&s.model.fused, s.model.weights(), &options, &s.golden.ids(), None)?)
}

fn f043(context: &Context) -> Outcome {
    let (heads, dim, base) = (3, 16, 1e6f32);
    let mut noise = Noise::new(43);
    for (style, dims) in [(RopeStyle::SplitHalves, 16), (RopeStyle::Interleaved, 16), (RopeStyle::SplitHalves, 8)] {
        let spec = rope_spec(style, dims, base);
        for position in [0u32, 1, 2, 17, 1000, 32_767] {
            let x = noise.values(heads * dim, 1.0);
            let y = reference::rope(&spec, heads, dim, &x, &[position])?;
            for (h, (x, y)) in x.chunks(dim).zip(y.chunks(dim)).enumerate() {
                let mut expected: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
                for i in 0..dims / 2 {
                    let angle = f64::from(position) * f64::from(base).powf(-2.0 * i as f64 / dims as f64);
                    let (a, b) = if style == RopeStyle::Interleaved { (2 * i, 2 * i + 1) } else { (i, i + dims / 2) };
                    let (p, q) = (f64::from(x[a]), f64::from(x[b]));
                    expected[a] = p * angle.cos() - q * angle.sin();
                    expected[b] = p * angle.sin() + q * angle.cos();
                }
                let off = y.iter().zip(&expected).map(|(y, e)| (f64::from(*y) - e).abs()).fold(0.0, f64::max);
                // Frequencies are f32: half a unit in the last place, times the position.
                require(off < 1e-6 + 1.5e-7 * f64::from(position), "the formula's value", || {
                    format!("off by {off:e} in head {h} at position {position}")
                })?;
                if position == 0 {
                    require_eq("identity at position 0", &y, &x)?;
                }
                let norm = |v: &[f32]| v.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
                require((norm(y) / norm(x) - 1.0).abs() < 1e-6, "norms kept", || {
                    format!("{} for {}", norm(y), norm(x))
                })?;
            }
        }
        // A score depends on the distance alone.
        let (q, k) = (noise.values(dim, 1.0), noise.values(dim, 1.0));
        let score = |p: u32, j: u32| -> Result<f64, Refusal> {
            let (q, k) = (reference::rope(&spec, 1, dim, &q, &[p])?, reference::rope(&spec, 1, dim, &k, &[j])?);
            Ok(q.iter().zip(&k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
        };
        for shift in [1, 10, 500] {
            let (a, b) = (score(9, 4)?, score(9 + shift, 4 + shift)?);
            require((a - b).abs() < 1e-5, "the same score at the same distance", || format!("{a} and {b}"))?;
        }
        require((score(9, 4)? - score(9, 5)?).abs() > 1e-3, "another score at another distance", || "the same".into())?;
    }
    let spec = &context.synthetic("qwen2-tiny")?.model.spec;
    require_eq("(pairing, base) of qwen2", &(spec.rope.style, spec.rope.base), &(RopeStyle::SplitHalves, 1e6))?;
    let mut kernels_seen = 0;
    for s in context.synthetics()? {
        kernels_seen += kernels(&check_synthetic(s)?, writes_cache, 1e-3)?.0;
    }
    Ok(format!(
        "formula, identity, norms, distances for 3 rotations; {kernels_seen} rotating kernels of 6 models agree"
    ))
}

fn f044(_: &Context) -> Outcome {
    let mut noise = Noise::new(44);
    let mut cases: Vec<Vec<f64>> =
        vec![vec![0.0], vec![-1e4], vec![1e4; 3], vec![f64::NEG_INFINITY, -1e4, f64::NEG_INFINITY]];
    cases.extend((0..2000).map(|_| (0..=noise.below(300)).map(|_| noise.between(-1e4, 1e4)).collect()));
    for scores in &mut cases {
        let before = scores.clone();
        softmax(scores);
        let sum: f64 = scores.iter().sum();
        let fine = scores.iter().all(|p| (0.0..=1.0).contains(p)) && (sum - 1.0).abs() < 1e-12;
        require(fine, "probabilities that sum to 1", || format!("a sum of {sum} for {} scores", before.len()))?;
    }
    // Inside attention: scores of ±10⁴ and more.
    let brick = AttentionBrick::new(AttentionSpec {
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 4,
        scale: 0.5,
        window: None,
        softcap: None,
    })?;
    for _ in 0..50 {
        let rows = 5;
        let qkv = Activations::new(16, noise.values(rows * 16, 200.0))?;
        let positions: Vec<u32> = (0..rows as u32).collect();
        let mut cache = KvCache::new(1, 4, rows)?;
        let out = brick.run(Attend { qkv: &qkv, positions: &positions, cache: &mut cache })?.output;
        let fine = out.values().iter().all(|x| x.is_finite() && x.abs() <= 200.0);
        require(fine, "averages of the values", || "a value outside of their range".into())?;
    }
    Ok(format!("{} lists of scores up to ±10⁴, masked and single ones; 50 attention calls", cases.len()))
}

fn f045(context: &Context) -> Outcome {
    let mut compared = 0;
    for name in ["qwen2-tiny", "spm-yarn"] {
        let s = context.synthetic(name)?;
        let ids = s.golden.ids();
        let bits =
            |rows: &[Vec<f32>]| rows.iter().map(|r| r.iter().map(|x| x.to_bits()).collect()).collect::<Vec<Vec<u32>>>();
        for chunk in [ids.len(), 1, 7] {
            let options = runs::options(ids.len(), chunk);
            let before = bits(&runs::logits(&s.model, &options, &ids)?);
            for cut in [1, 8, 31, ids.len() - 1] {
                let mut changed = ids.clone();
                changed[cut..].iter_mut().for_each(|t| *t = (*t + 5) % s.model.spec.vocab as u32);
                let after = bits(&runs::logits(&s.model, &options, &changed)?);
                let first = (0..ids.len()).find(|&p| before[p] != after[p]);
                require_eq(&format!("{name}: first position that changes with token {cut}"), &first, &Some(cut))?;
                compared += cut;
            }
        }
    }
    Ok(format!("{compared} earlier positions unchanged in every bit; prompts of 44 tokens, in calls of 1, 7 and 44"))
}

fn f046(context: &Context) -> Outcome {
    let mut written = 0;
    for s in context.synthetics()? {
        written += kernels(&check_synthetic(s)?, writes_cache, 1e-3)?.0;
    }
    // Two sequences whose rows are shuffled into each other: both caches hold what each holds alone.
    let s = context.synthetic("qwen2-tiny")?;
    let (a, b) = (&s.golden.prompt_ids, &s.golden.greedy_ids);
    let (a, b) = (&a[..20], &b[..17]);
    let alone = |ids: &[u32]| {
        let mut engine = s.model.engine(&runs::options(64, 64))?;
        let id = engine.new_sequence()?;
        let mut batch = Batch::with_capacity(64);
        batch.push_tokens(id, 0, ids);
        engine.forward_quiet(&batch)?;
        let gather = |l| Ok::<_, Refusal>(engine.kv().gather(id, l, ids.len())?);
        (0..s.model.spec.n_layers).map(gather).collect::<Result<Vec<_>, _>>()
    };
    let mut engine = s.model.engine(&EngineOptions { sequences: 3, ..runs::options(64, 64) })?;
    let (first, unused, second) = (engine.new_sequence()?, engine.new_sequence()?, engine.new_sequence()?);
    let mut batch = Batch::with_capacity(64);
    let row = |ids: &[u32], position: usize, sequence| Row { token: ids[position], position, sequence, wanted: false };
    for i in 0..a.len() {
        batch.push(row(a, i, first));
        if i < b.len() {
            batch.push(row(b, i, second));
        }
    }
    engine.forward_quiet(&batch)?;
    require_eq("positions in the unused slot", &engine.kv().len(unused)?, &0)?;
    for (id, ids) in [(first, a), (second, b)] {
        for (layer, expected) in alone(ids)?.iter().enumerate() {
            let found = engine.kv().gather(id, layer, ids.len())?;
            require(found == *expected, format!("keys and values of layer {layer} as alone"), || "others".into())?;
        }
    }
    Ok(format!(
        "{written} writing kernels of 6 models agree with the reference; 2 interleaved sequences hold what each holds alone"
    ))
}

fn f047(context: &Context) -> Outcome {
    let mut noise = Noise::new(47);
    let n = 4096;
    let mut gate = noise.values(n, 12.0);
    gate[..6].copy_from_slice(&[0.0, -0.0, 90.0, -90.0, 1e-20, -104.0]);
    let up = noise.values(n, 3.0);
    let found = reference::gated_activation(ActKind::Silu, &gate, &up)?;
    let mut worst = 0.0f64;
    for ((f, g), u) in found.iter().zip(&gate).zip(&up) {
        let (g, u) = (f64::from(*g), f64::from(*u));
        // Written with tanh, unlike the reference.
        let expected = g * 0.5 * (1.0 + (g / 2.0).tanh()) * u;
        let scale = expected.abs().max(1e-7);
        if g > -30.0 {
            worst = worst.max((f64::from(*f) - expected).abs() / scale);
        }
        require(f.is_finite(), "a finite value", || format!("{f} for gate {g}"))?;
    }
    require(worst <= 1e-6, "relative error up to 1e-6", || format!("{worst:e}"))?;
    let (mut n_kernels, mut worst_kernel) = (0, 0.0f64);
    for s in context.synthetics()? {
        // In the fused graph the activation is part of the projections' brick, whose tolerance is that of matrices.
        let options = EngineOptions { threads: 2, ..EngineOptions::default() };
        let report = check(&s.model.graph, s.model.weights(), &options, &s.golden.ids(), None)?;
        let (n, worst) = kernels(&report, |b| b.kind == BrickKind::Activation, 1e-6)?;
        n_kernels += n;
        worst_kernel = worst_kernel.max(worst);
    }
    Ok(format!("{n} pairs within {worst:.1e}; {n_kernels} kernels of 6 models within {worst_kernel:.1e}"))
}

fn f048(context: &Context) -> Outcome {
    let gain = [1.0f32, 2.0, -0.5, 4.0];
    let zero = reference::rms_norm(&[0.0; 4], &gain, 1e-6)?;
    require_eq("norm of the zero vector", &zero, &vec![0.0; 4])?;
    // mean(x²) = 10⁻⁶: the root is √(2·10⁻⁶) with eps 10⁻⁶. Outside of the root it would be 10⁻³ + 10⁻⁶.
    let tiny = [1e-3f32, -1e-3, 1e-3, 1e-3];
    let expected = |eps: f64| 1e-3 / (1e-6 + eps).sqrt();
    for eps in [1e-6f32, 1e-5] {
        let y = reference::rms_norm(&tiny, &gain, eps)?;
        let e = expected(f64::from(eps));
        require((f64::from(y[0]) / e - 1.0).abs() < 1e-5, format!("{e} with eps {eps:e}"), || y[0].to_string())?;
    }
    let (mut n_kernels, mut worst) = (0, 0.0f64);
    for s in context.synthetics()? {
        let eps = if s.model.spec.architecture == "qwen2" { 1e-6 } else { 1e-5 };
        require_eq(&format!("eps of {} from its metadata", s.name), &s.model.spec.norm_eps, &eps)?;
        let is_norm = |b: &BrickCheck| matches!(b.kind, BrickKind::RmsNorm | BrickKind::FinalNorm);
        let (n, w) = kernels(&check_synthetic(s)?, is_norm, 1e-5)?;
        n_kernels += n;
        worst = worst.max(w);
    }
    Ok(format!("eps 1e-6 and 1e-5 inside the root; {n_kernels} norm kernels of 6 models within {worst:.1e}"))
}

fn f049(context: &Context) -> Outcome {
    let mut n = 0;
    for s in context.synthetics()? {
        let report = check_synthetic(s)?;
        if let Some(bad) = report.bricks.iter().find(|b| !b.finite) {
            return Err(Refusal::falsified("finite outputs", format!("{} of {} in {}", bad.found, bad.brick, s.name)));
        }
        n += report.bricks.len();
    }
    // The detector works: a NaN among the weights is found.
    let s = context.synthetic("spm-tiny")?;
    let poisoned = s.changed(|w| {
        w.remove_tensor("blk.1.ffn_norm.weight");
        let mut gain = vec![1.0f32; s.model.spec.hidden];
        gain[7] = f32::NAN;
        w.tensor_f32("blk.1.ffn_norm.weight", &[gain.len() as u64], &gain);
    })?;
    let found = match poisoned {
        Err(message) => format!("refused at loading: {message}"),
        Ok(model) => {
            let report = check(&model.fused, model.weights(), &EngineOptions::default(), &s.golden.prompt_ids, None)?;
            let first = require_some(report.bricks.iter().find(|b| !b.finite), "a NaN weight to show in some output")?;
            format!("a NaN weight shows first in {}", first.brick)
        }
    };
    Ok(format!("{n} bricks of 6 models, 44 tokens each; {found}"))
}

fn f050(context: &Context) -> Outcome {
    let (golden, golden_f16) = (GoldenFile::load("smollm2-135m-q4_1")?, GoldenFile::load("smollm2-135m-f16")?);
    let threads = brick_runtime::engine::default_threads();
    let agreement = golden.agreement(context.real()?, threads)?;
    agreement.require_with_q8()?;
    let agreement_f16 = golden_f16.agreement(context.real_as(DType::F16)?, threads)?;
    agreement_f16.require_with_floats()?;
    Ok(format!("F16: {agreement_f16}\nQ4_1: {agreement}\n(recorded from {})", golden.provenance.engine))
}

fn f051(context: &Context) -> Outcome {
    // The golden file first: making an F16 copy of the model takes a while.
    let golden = GoldenFile::load("smollm2-135m-f16")?;
    let model = context.real_as(DType::F16)?;
    let n = golden.same_greedy(model, 32, brick_runtime::engine::default_threads())?;
    Ok(format!("{n} prompts, 32 tokens each or to the end of the text"))
}
