//! SF-1–SF-6: structure of loaded models.

use brick_models::arch::{WeightNames, WeightRole};
use brick_runtime::check::check;
use brick_runtime::engine::{Observer, StepView};
use brick_runtime::plan::StepKind;
use brick_runtime::{EngineOptions, Model};
use bricks::reference::{argmax, softmax};
use bricks::{RopeScaling, RopeStyle, quant};

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq};
use crate::context::Context;
use crate::golden::GoldenFile;
use crate::runs;
use crate::synthetic::{self, Synthetic};

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Structure, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!(
        "SF-1",
        "What layer 0 adds to the stream after its feed-forward network equals an independent forward pass",
        "cosine > 0.99",
        sf1
    ),
    claim!("SF-2", "Loaded metadata are those the file states; wrong ones are reported", "equal", sf2),
    claim!(
        "SF-3",
        "Where the architecture needs biases they are loaded and not all zero",
        "mean ≠ 0; load fails without",
        sf3
    ),
    claim!("SF-4", "As many layers are loaded as are configured", "equal; load fails otherwise", sf4),
    claim!(
        "SF-5",
        "No collapse to token 0, and attention is not on one position",
        "token 0 on top ≤ 99 %; entropy > 0.1",
        sf5
    ),
    claim!("SF-6", "A transposed matrix is noticed", "every matrix; square ones by their effect", sf6),
];

/// Keeps the output of one step.
struct Tap {
    brick: &'static str,
    rows: Vec<Vec<f32>>,
}

impl Observer for Tap {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        let plan = view.plan();
        if plan.info[step].name == self.brick
            && let StepKind::Linear { matrices, .. } = &plan.steps[step].kind
        {
            self.rows = (0..view.rows().len()).map(|t| view.row(matrices[0].dst, t).to_vec()).collect();
        }
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn sf1(context: &Context) -> Outcome {
    let (mut lowest, mut lowest_wide) = (f64::INFINITY, f64::INFINITY);
    for s in context.synthetics()? {
        let wide = s.widened()?;
        for (model, lowest) in [(&s.model, &mut lowest), (&wide, &mut lowest_wide)] {
            let mut tap = Tap { brick: "blk.0.ffn_down", rows: vec![] };
            runs::observe(model, &s.golden.prompt_ids, &mut tap)?;
            require(tap.rows.len() >= s.golden.ffn_out_0.len(), "output rows of blk.0.ffn_down", || {
                tap.rows.len().to_string()
            })?;
            for (found, expected) in tap.rows.iter().zip(&s.golden.ffn_out_0) {
                require_eq("width", &found.len(), &expected.len())?;
                *lowest = lowest.min(cosine(found, expected));
            }
        }
    }
    let found = format!("cosine at least {lowest:.5} as stored, {lowest_wide:.9} in F32");
    require(lowest > 0.99 && lowest_wide > 0.999_999, "cosine > 0.99 as stored, > 0.999999 in F32", || found.clone())?;
    Ok(format!("6 models: {found}"))
}

fn sf2(context: &Context) -> Outcome {
    for s in context.synthetics()? {
        let stated = &s.golden.provenance.spec;
        let spec = &s.model.spec;
        let number = |key: &str| stated[key].as_f64().unwrap_or(f64::NAN);
        for (key, found) in [
            ("layers", spec.n_layers as f64),
            ("hidden", spec.hidden as f64),
            ("heads", spec.n_heads as f64),
            ("kv_heads", spec.n_kv_heads as f64),
            ("head_dim", spec.head_dim as f64),
            ("ffn", spec.ffn as f64),
            ("vocab", spec.vocab as f64),
            ("context", spec.context_length as f64),
            ("base", f64::from(spec.rope.base)),
            ("dims", spec.rope.dims as f64),
        ] {
            require_eq(&format!("{key} of {}", s.name), &found, &number(key))?;
        }
        require_eq("eps", &spec.norm_eps, &(number("eps") as f32))?;
        require_eq("architecture", &Some(spec.architecture.as_str()), &stated["arch"].as_str())?;
        let style = if stated["interleaved"] == true { RopeStyle::Interleaved } else { RopeStyle::SplitHalves };
        require_eq("pairing", &spec.rope.style, &style)?;
        require_eq("tied", &Some(spec.tied_embeddings), &stated["tied"].as_bool())?;
        require_eq("biases", &spec.qkv_bias, &(stated["bias"] == true))?;
        let scaling = match stated["scaling"].as_str() {
            None => spec.rope.scaling == RopeScaling::None,
            Some("linear") => spec.rope.scaling == RopeScaling::Linear { factor: 2.0 },
            Some(_) => matches!(
                spec.rope.scaling,
                RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, .. }
                    if (factor, original_context, beta_fast, beta_slow) == (4.0, 512, 8.0, 1.0)
            ),
        };
        require(scaling, format!("scaling {} of {}", stated["scaling"], s.name), || {
            format!("{:?}", spec.rope.scaling)
        })?;
        require_eq("frequency factors", &spec.rope.freq_factors.is_some(), &stated["freq_factors"].is_array())?;
    }
    let qwen = context.synthetic("qwen2-tiny")?;
    for wrong in [0.0f32, -1e6, f32::NAN, f32::INFINITY] {
        qwen.refuses(&format!("a rotary base of {wrong}"), &["rope.freq_base"], |w| {
            w.set("qwen2.rope.freq_base", wrong);
        })?;
    }
    qwen.refuses("17 query heads", &["head_count"], |w| {
        w.set("qwen2.attention.head_count", 17u32);
    })?;
    qwen.refuses("no epsilon", &["layer_norm_rms_epsilon"], |w| {
        w.remove("qwen2.attention.layer_norm_rms_epsilon");
    })?;
    // A base that is possible but wrong is taken as stated, and shows in the result.
    let other = qwen.changed(|w| {
        w.set("qwen2.rope.freq_base", 1e4f32);
    })?;
    let other = other.map_err(|e| Refusal::falsified("a model that loads", e))?;
    require_eq("base", &other.spec.rope.base, &1e4)?;
    Ok("15 facts of 6 models as the files state them; 6 impossible ones refused by name".into())
}

fn biases(s: &Synthetic) -> impl Iterator<Item = String> {
    let layers = s.model.spec.n_layers;
    let roles = [WeightRole::AttnQBias, WeightRole::AttnKBias, WeightRole::AttnVBias];
    (0..layers).flat_map(move |l| roles.map(|r| WeightNames::GGUF.name(r, l)))
}

fn sf3(context: &Context) -> Outcome {
    let (mut loaded, mut smallest) = (0, f64::INFINITY);
    for name in ["qwen2-tiny", "qwen2-partial"] {
        let s = context.synthetic(name)?;
        for bias in biases(s) {
            for graph in [&s.model.graph, &s.model.fused] {
                let in_graph = graph.weights().iter().any(|w| w.name == bias);
                require(in_graph, format!("{bias} in the graph"), || "no such weight".into())?;
            }
            let t = s.model.gguf.require(&bias)?;
            let values: Vec<f32> =
                s.model.gguf.bytes(t)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let size = values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64;
            smallest = smallest.min(size);
            s.refuses(&format!("{name} without {bias}"), &[&bias], |w| {
                w.remove_tensor(&bias);
            })?;
            s.refuses(&format!("{name} with {bias} of zeros"), &[&bias, "zero"], |w| {
                w.remove_tensor(&bias);
                w.tensor_f32(&bias, &[values.len() as u64], &vec![0.0; values.len()]);
            })?;
            loaded += 1;
        }
    }
    require(smallest > 1e-3, "biases with values", || format!("a mean size of {smallest}"))?;
    Ok(format!("{loaded} biases in both graphs, mean size at least {smallest:.2}; each refused when missing or zero"))
}

fn sf4(context: &Context) -> Outcome {
    let mut n = 0;
    for s in context.synthetics()? {
        let announced = s.golden.provenance.spec["layers"].as_u64().unwrap_or(0) as usize;
        for graph in [&s.model.graph, &s.model.fused] {
            let highest = graph.bricks().filter_map(|b| b.layer).max().map_or(0, |l| l as usize + 1);
            require_eq(&format!("layers of {}", s.name), &highest, &announced)?;
        }
        let key = format!("{}.block_count", s.model.spec.architecture);
        for wrong in [1u32, 3, 28] {
            s.refuses(&format!("{wrong} layers announced for {}", s.name), &["block_count"], |w| {
                w.set(&key, wrong);
            })?;
            n += 1;
        }
    }
    Ok(format!("6 models of 2 layers; {n} wrong counts refused"))
}

/// Mean entropy of attention over layers, heads and positions, in nats, and how many there were.
#[derive(Default)]
struct Attention {
    entropy: f64,
    n: usize,
}

impl Observer for Attention {
    const ENABLED: bool = true;

    fn after_step(&mut self, step: usize, view: &StepView<'_>) {
        let StepKind::Attention { layer, q, spec, .. } = &view.plan().steps[step].kind else { return };
        let rows = view.rows();
        let Some(sequence) = rows.first().map(|r| r.sequence) else { return };
        let Ok((keys, _)) = view.kv().gather(sequence, *layer, rows.len()) else { return };
        let (dim, kv_dim) = (spec.head_dim, spec.n_kv_heads * spec.head_dim);
        // The first positions have little choice.
        for (t, _) in rows.iter().enumerate().skip(7) {
            let q = view.row(*q, t);
            for (h, q) in q.chunks_exact(dim).enumerate() {
                let at = h * spec.n_kv_heads / spec.n_heads * dim;
                let dot = |j: usize| {
                    let k = &keys[j * kv_dim + at..][..dim];
                    q.iter().zip(k).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() * f64::from(spec.scale)
                };
                let mut p: Vec<f64> = (0..=t).map(dot).collect();
                softmax(&mut p);
                self.entropy -= p.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum::<f64>();
                self.n += 1;
            }
        }
    }
}

/// Share of positions at which token 0 is on top, and mean entropy of attention.
fn collapse(model: &Model, ids: &[u32]) -> Result<(f64, f64), Refusal> {
    let mut zeros = 0usize;
    runs::each_logits(
        model,
        &runs::options(ids.len(), ids.len()),
        ids,
        |_| true,
        |_, row| {
            zeros += usize::from(argmax(row) == Some(0));
        },
    )?;
    let mut attention = Attention::default();
    runs::observe(model, ids, &mut attention)?;
    require(attention.n > 0, "attention steps", || "none".into())?;
    Ok((zeros as f64 / ids.len() as f64, attention.entropy / attention.n as f64))
}

fn sf5(context: &Context) -> Outcome {
    // The detector detects: a head of zeros collapses to token 0, huge queries look at one position.
    let s = context.synthetic("qwen2-tiny")?;
    let broken = s.changed(|w| {
        w.remove_tensor("output.weight");
        let (vocab, hidden) = (s.model.spec.vocab, s.model.spec.hidden);
        w.tensor_f32("output.weight", &[hidden as u64, vocab as u64], &vec![0.0; vocab * hidden]);
        w.remove_tensor("blk.0.attn_q.bias");
        w.tensor_f32("blk.0.attn_q.bias", &[s.model.spec.q_dim() as u64], &vec![3e4; s.model.spec.q_dim()]);
        w.remove_tensor("blk.1.attn_q.bias");
        w.tensor_f32("blk.1.attn_q.bias", &[s.model.spec.q_dim() as u64], &vec![3e4; s.model.spec.q_dim()]);
    })?;
    let broken = broken.map_err(|e| Refusal::falsified("a model that loads", e))?;
    let (share, entropy) = collapse(&broken, &s.golden.ids())?;
    require(share > 0.99 && entropy < 0.1, "a broken model to be seen as one", || format!("{share:.2}, {entropy:.3}"))?;

    let model = context.real()?;
    let golden = GoldenFile::load("smollm2-135m-q4_1")?;
    let (mut share, mut entropy) = (0.0f64, f64::INFINITY);
    for id in ["science", "code_rust", "multilingual"] {
        let r = golden.record(id)?;
        let (s, e) = collapse(model, &[r.prompt_ids.as_slice(), &r.greedy_ids].concat())?;
        share = share.max(s);
        entropy = entropy.min(e);
    }
    let found =
        format!("token 0 on top at {:.1} % of positions, mean entropy of attention {entropy:.2} nats", 100.0 * share);
    require(share <= 0.99 && entropy > 0.1, "token 0 at ≤ 99 %, entropy > 0.1", || found.clone())?;
    Ok(format!("{found} (worst of 3 texts); a model broken on purpose is detected"))
}

fn sf6(context: &Context) -> Outcome {
    let (mut refused, mut noticed) = (0, 0);
    for s in context.synthetics()? {
        let gguf = s.gguf()?;
        let wide = s.widened()?;
        for t in gguf.tensors().iter().filter(|t| !t.is_vector()) {
            let shape = t.shape()?;
            let data = gguf.bytes(t)?;
            let mut values = vec![0.0; shape.rows * shape.cols];
            for (src, dst) in data.chunks(data.len() / shape.rows).zip(values.chunks_mut(shape.cols)) {
                quant::decode_row(shape.dtype, src, dst)?;
            }
            let transposed: Vec<f32> = (0..shape.cols)
                .flat_map(|c| (0..shape.rows).map(move |r| (r, c)))
                .map(|(r, c)| values[r * shape.cols + c])
                .collect();
            if shape.rows != shape.cols {
                s.refuses(&format!("{} transposed", t.name), &[&t.name], |w| {
                    w.remove_tensor(&t.name);
                    w.tensor_f32(&t.name, &[shape.rows as u64, shape.cols as u64], &transposed);
                })?;
                refused += 1;
                continue;
            }
            // A square matrix has the right shape either way: the result must give it away.
            let source = wide.gguf.as_ref();
            let mut w = synthetic::copy(source, |x| x.name != t.name)?;
            w.tensor_f32(&t.name, &t.dims, &transposed);
            let ids = s.golden.ids();
            let error = s.golden.compare(&runs::logits(&synthetic::load(&w)?, &runs::options(64, 64), &ids)?)?;
            require(error.mean > 0.01, format!("a visible effect of {} transposed in {}", t.name, s.name), || {
                error.to_string()
            })?;
            noticed += 1;
        }
    }
    // And on the way from the file to the kernels nothing is turned around: every kernel against the reference.
    let s = context.synthetic("qwen2-tiny")?;
    let report = check(&s.model.fused, s.model.weights(), &EngineOptions::default(), &s.golden.prompt_ids, None)?;
    require(report.first().is_none(), "all bricks to agree with the reference", || format!("{:?}", report.first()))?;
    require(noticed > 0, "square matrices among the models", || "none".into())?;
    Ok(format!("{refused} transposed matrices refused by shape, {noticed} square ones noticed in the logits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_of_known_angles() {
        assert!((cosine(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert!((cosine(&[1.0, 2.0], &[-2.0, -4.0]) + 1.0).abs() < 1e-12);
        assert!(cosine(&[0.0], &[1.0]).is_nan());
    }
}
