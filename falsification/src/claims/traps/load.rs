//! Traps in the reading of models.

use std::fmt::Write as _;

use brick_models::arch::{ArchSpec, WeightNames, WeightRole};
use brick_models::tokenizer::{DecodeOptions, EncodeOptions};
use brick_runtime::{Batch, EngineError, Model, Row};
use bricks::reference::attention;
use bricks::{AttentionSpec, BrickKind, DType, Op};
use sha2::{Digest, Sha256};

use crate::claim::{Outcome, Refusal, require, require_eq, require_some};
use crate::context::{Context, REAL_MODEL};
use crate::golden::GoldenFile;
use crate::runs;
use crate::synthetic::Synthetic;

pub(super) fn dtype_ids(context: &Context) -> Outcome {
    let ids = [
        (DType::F32, 0),
        (DType::F16, 1),
        (DType::Q4_0, 2),
        (DType::Q4_1, 3),
        (DType::Q5_0, 6),
        (DType::Q5_1, 7),
        (DType::Q8_0, 8),
        (DType::Q2_K, 10),
        (DType::Q3_K, 11),
        (DType::Q4_K, 12),
        (DType::Q5_K, 13),
        (DType::Q6_K, 14),
        (DType::IQ4_NL, 20),
        (DType::IQ4_XS, 23),
        (DType::BF16, 30),
    ];
    require_eq("types", &DType::ALL.len(), &ids.len())?;
    for (dtype, id) in ids {
        require_eq(dtype.name(), &(dtype as u32), &id)?;
        require_eq(dtype.name(), &DType::from_id(id), &Some(dtype))?;
    }
    // In files that another program wrote.
    let tensor = |s: &Synthetic, name: &str| s.model.gguf.tensor(name).and_then(|t| t.dtype);
    let (qwen, spm) = (context.synthetic("qwen2-tiny")?, context.synthetic("spm-tiny")?);
    for (s, name, dtype) in [
        (qwen, "blk.0.attn_q.weight", DType::Q4_K),
        (qwen, "blk.0.attn_v.weight", DType::Q6_K),
        (qwen, "blk.0.ffn_gate.weight", DType::Q2_K),
        (spm, "blk.0.ffn_down.weight", DType::IQ4_XS),
        (spm, "blk.0.attn_q.weight", DType::Q5_0),
        (spm, "token_embd.weight", DType::Q8_0),
    ] {
        require_eq(&format!("type of {name} in {}", s.name), &tensor(s, name), &Some(dtype))?;
    }
    Ok("15 ids both ways, 6 tensors of files written elsewhere".into())
}

fn logits_of(model: &Model, s: &Synthetic) -> Result<Vec<Vec<f32>>, Refusal> {
    let ids = &s.golden.prompt_ids;
    runs::logits(model, &runs::options(ids.len(), ids.len()), ids)
}

/// The changed model, which must load.
fn loaded(changed: Result<Model, String>) -> Result<Model, Refusal> {
    changed.map_err(|e| Refusal::falsified("a changed file that loads", e))
}

pub(super) fn bias_on_every_path(context: &Context) -> Outcome {
    let mut seen = 0;
    for name in ["qwen2-tiny", "qwen2-partial"] {
        let s = context.synthetic(name)?;
        require(s.model.spec.qkv_bias, "biases in the specification", || "none".into())?;
        let ids = &s.golden.prompt_ids;
        let before = [logits_of(&s.model, s)?, runs::logits_unfused(&s.model, ids)?];
        for layer in 0..s.model.spec.n_layers {
            for role in [WeightRole::AttnQBias, WeightRole::AttnKBias, WeightRole::AttnVBias] {
                let bias = WeightNames::GGUF.name(role, layer);
                let n = s.model.spec.weight_shape(role).1;
                let changed = loaded(s.changed(|w| {
                    w.remove_tensor(&bias);
                    // Not constant: adding the same to all keys of a head changes no attention.
                    let values: Vec<f32> = (0..n).map(|i| (i % 5) as f32 - 2.5).collect();
                    w.tensor_f32(&bias, &[n as u64], &values);
                })?)?;
                let after = [logits_of(&changed, s)?, runs::logits_unfused(&changed, ids)?];
                for (path, before, after) in [("fused", &before[0], &after[0]), ("unfused", &before[1], &after[1])] {
                    require(before != after, format!("an effect of {bias} on the {path} path of {name}"), || {
                        "none".into()
                    })?;
                    seen += 1;
                }
            }
        }
    }
    let without = context.synthetic("spm-tiny")?;
    require(!without.model.spec.qkv_bias, "no biases in a llama model", || "some".into())?;
    Ok(format!("{seen} changes of a bias seen in the logits, fused and unfused"))
}

pub(super) fn grouped_heads(context: &Context) -> Outcome {
    for s in context.synthetics()? {
        let spec = &s.model.spec;
        let (q, kv) = (spec.n_heads * spec.head_dim, spec.n_kv_heads * spec.head_dim);
        let fused = require_some(s.model.fused.find("blk.1.attn_qkv"), "a fused QKV brick")?;
        let Op::Linear { input, parts, .. } = &fused.op else {
            return Err(Refusal::falsified("a linear brick", fused.op.name()));
        };
        let widths: Vec<usize> = parts.iter().map(|p| p.rows).collect();
        require_eq(&format!("input and parts of {}", s.name), &(*input, widths), &(spec.hidden, vec![q, kv, kv]))?;
        require_eq("KV heads of the cache", &(spec.kv_dim(), spec.q_dim()), &(kv, q))?;
    }
    // Query head h reads KV head h · kv / heads: with values that name their head, the output says which was read.
    for (n_heads, n_kv_heads) in [(4, 2), (3, 1), (8, 2), (3, 3), (12, 4)] {
        let spec = AttentionSpec { n_heads, n_kv_heads, head_dim: 2, scale: 1.0, window: None, softcap: None };
        let values: Vec<f32> = (0..n_kv_heads).flat_map(|h| [h as f32; 2]).collect();
        let out = attention(&spec, &vec![0.3; n_heads * 2], &vec![0.1; n_kv_heads * 2], &values, &[0])?;
        let read: Vec<usize> = out.chunks(2).map(|o| o[0] as usize).collect();
        let expected: Vec<usize> = (0..n_heads).map(|h| h * n_kv_heads / n_heads).collect();
        require_eq(&format!("KV heads read by {n_heads} of {n_kv_heads}"), &read, &expected)?;
    }
    Ok("6 models: q + 2·kv, never 3·hidden; 5 groupings read the right head".into())
}

pub(super) fn epsilon(context: &Context) -> Outcome {
    let s = context.synthetic("qwen2-tiny")?;
    require_eq("eps", &s.model.spec.norm_eps, &1e-6)?;
    let changed = loaded(s.changed(|w| {
        w.set("qwen2.attention.layer_norm_rms_epsilon", 0.25f32);
    })?)?;
    require_eq("changed eps", &changed.spec.norm_eps, &0.25)?;
    require(logits_of(&changed, s)? != logits_of(&s.model, s)?, "other logits with another eps", || "the same".into())?;
    let mut norms = 0;
    for graph in [&s.model.graph, &s.model.fused] {
        for b in graph.bricks() {
            if let Op::RmsNorm { eps, .. } | Op::AddRmsNorm { eps } = b.op {
                require_eq(&b.name, &eps, &1e-6)?;
                norms += 1;
            }
        }
    }
    Ok(format!("{norms} norms of two graphs carry the file's 1e-6"))
}

pub(super) fn type_from_metadata(context: &Context) -> Outcome {
    let s = context.synthetic("spm-tiny")?;
    let name = "blk.0.attn_v.weight";
    let t = s.model.gguf.require(name)?;
    let data = s.model.gguf.bytes(t)?.to_vec();
    require_eq("type", &t.dtype, &Some(DType::Q4_0))?;
    require_eq("block sizes", &DType::Q4_0.block_bytes(), &DType::IQ4_NL.block_bytes())?;
    let dims = t.dims.clone();
    let other = loaded(s.changed(|w| {
        w.remove_tensor(name);
        w.tensor(name, &dims, DType::IQ4_NL, data);
    })?)?;
    require_eq("type of the same bytes under another name", &other.gguf.require(name)?.dtype, &Some(DType::IQ4_NL))?;
    require(logits_of(&other, s)? != logits_of(&s.model, s)?, "other values, other logits", || "the same".into())?;
    Ok("the same bytes as Q4_0 and as IQ4_NL give different logits".into())
}

pub(super) fn ffn_reads_norm(context: &Context) -> Outcome {
    let mut n = 0;
    for s in context.synthetics()? {
        for graph in [&s.model.graph, &s.model.fused] {
            for b in graph.bricks().filter(|b| matches!(b.kind, BrickKind::GateUp | BrickKind::Qkv | BrickKind::LmHead))
            {
                let input = require_some(b.inputs.first(), "an input")?;
                let producer = graph.brick(graph.value(*input).producer);
                // Of a fused residual and norm, port 1 is the norm.
                let normed = match producer.op {
                    Op::RmsNorm { .. } => true,
                    Op::AddRmsNorm { .. } => graph.value(*input).port == 1,
                    _ => false,
                };
                require(normed, format!("a norm before {} of {}", b.name, s.name), || producer.name.clone())?;
                n += 1;
            }
        }
    }
    Ok(format!("{n} projections of 6 models, fused and unfused, read a norm"))
}

pub(super) fn same_file(context: &Context) -> Outcome {
    let hash = |bytes: &[u8]| {
        Sha256::digest(bytes).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    };
    for s in context.synthetics()? {
        require_eq(&format!("hash of {}", s.name), &hash(s.file), &s.golden.provenance.file_sha256)?;
    }
    let golden = GoldenFile::load("smollm2-135m-q4_1")?;
    let model = context.real()?;
    let path = require_some(model.gguf.path(), "a path of the model")?;
    let found = hash(&std::fs::read(path)?);
    require_eq(&format!("hash of {REAL_MODEL}"), &found, &golden.provenance.model_sha256)?;
    Ok(format!("6 synthetic models and {REAL_MODEL}"))
}

pub(super) fn tokenizer(context: &Context) -> Outcome {
    let options = EncodeOptions { add_special: true, parse_special: true };
    let mut texts = 0;
    for s in context.synthetics()? {
        let tokenizer = &s.model.tokenizer;
        for t in &s.golden.tokenize {
            require_eq(&format!("ids of {:?} in {}", t.text, s.name), &tokenizer.encode(&t.text, options)?, &t.ids)?;
            texts += 1;
        }
        let vocab = s.model.spec.vocab as u32;
        require_eq("tokens", &tokenizer.vocab_size(), &(vocab as usize))?;
        let decoded = tokenizer.decode(&[vocab], DecodeOptions::default());
        require(decoded.is_err(), format!("token {vocab} refused by the tokenizer"), || format!("{decoded:?}"))?;
        let mut engine = s.model.engine(&runs::options(8, 8))?;
        let sequence = engine.new_sequence()?;
        let mut batch = Batch::with_capacity(2);
        batch.push(Row { token: vocab, position: 0, sequence, wanted: true });
        let refused = engine.forward_quiet(&batch).err();
        require(matches!(refused, Some(EngineError::Token { .. })), "token refused by the engine", || {
            format!("{refused:?}")
        })?;
    }
    let qwen = &context.synthetic("qwen2-tiny")?.model.tokenizer;
    let im_end = require_some(qwen.id_of("<|im_end|>"), "<|im_end|> in the vocabulary")?;
    require_eq("<|im_end|> as a token", &qwen.encode("<|im_end|>", options)?, &vec![im_end])?;
    let text = qwen.encode("<|im_end|>", EncodeOptions::default())?;
    require(!text.contains(&im_end), "<|im_end|> from a user to stay text", || format!("{text:?}"))?;
    let both = ["<|im_end|>", "<|endoftext|>"].map(|t| qwen.id_of(t).is_some_and(|id| qwen.is_end_of_generation(id)));
    require_eq("both stop ids end generation", &both, &[true, true])?;
    Ok(format!("{texts} texts of 6 models as an independent tokenizer has them; ids beyond the vocabulary refused"))
}

pub(super) fn tied(context: &Context) -> Outcome {
    let mut n = 0;
    for s in context.synthetics()?.into_iter().filter(|s| s.golden.provenance.spec["tied"] == true) {
        require(s.model.spec.tied_embeddings, "tied embeddings", || s.name.into())?;
        let head = require_some(s.model.fused.bricks().find(|b| b.kind == BrickKind::LmHead), "an LM head")?;
        let weight = require_some(head.weights.first(), "a weight")?;
        require_eq("weight of the LM head", &s.model.fused.weight(*weight).name.as_str(), &"token_embd.weight")?;
        let table = s.model.gguf.require("token_embd.weight")?;
        let (dims, dtype) = (table.dims.clone(), table.shape()?.dtype);
        let bytes = s.model.gguf.bytes(table)?.to_vec();
        let untied = loaded(s.changed(|w| {
            w.tensor("output.weight", &dims, dtype, bytes);
        })?)?;
        require(!untied.spec.tied_embeddings, "a head of its own", || "tied".into())?;
        require(logits_of(&untied, s)? == logits_of(&s.model, s)?, "the same logits from a copy", || "others".into())?;
        n += 1;
    }
    let untied: Option<&ArchSpec> =
        context.synthetics()?.into_iter().map(|s| &s.model.spec).find(|s| !s.tied_embeddings);
    require(n > 0 && untied.is_some(), "models of both kinds", || format!("{n} tied"))?;
    Ok(format!("{n} tied models give the bits of their untied copies"))
}
