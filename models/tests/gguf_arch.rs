//! From a file to an `ArchSpec`: what is read, what is defaulted, and what is refused with which words.
#![allow(clippy::unwrap_used)]

mod gguf_common;

use brick_models::arch::{ArchError, ArchSpec, WeightNames, WeightRole};
use brick_models::format::gguf::GgufWriter;
use bricks::{ActKind, DType, RopeScaling, RopeStyle};
use gguf_common::{FFN, HEADS, HIDDEN, KV_HEADS, LAYERS, VOCAB, done, f32_tensor, file, model, tensors};

fn spec_of(w: &GgufWriter<'_>) -> Result<ArchSpec, ArchError> {
    ArchSpec::from_gguf(&file(w))
}

/// The specification of a model of that architecture after an edit.
fn edited(arch: &str, edit: impl FnOnce(&mut GgufWriter<'static>)) -> Result<ArchSpec, ArchError> {
    let mut w = model(arch);
    edit(&mut w);
    spec_of(&w)
}

fn refused(arch: &str, edit: impl FnOnce(&mut GgufWriter<'static>)) -> String {
    edited(arch, edit).expect_err("accepted").to_string()
}

#[test]
fn llama() {
    let spec = spec_of(&model("llama")).unwrap();
    assert_eq!((spec.architecture.as_str(), spec.name.as_deref()), ("llama", Some("tiny")));
    assert_eq!((spec.n_layers, spec.hidden as u64, spec.ffn as u64, spec.vocab as u64), (LAYERS, HIDDEN, FFN, VOCAB));
    assert_eq!((spec.n_heads as u64, spec.n_kv_heads as u64, spec.head_dim as u64), (HEADS, KV_HEADS, HIDDEN / HEADS));
    assert_eq!((spec.context_length, spec.norm_eps, spec.embedding_scale), (128, 1e-5, 1.0));
    assert_eq!((spec.rope.style, spec.rope.base, spec.rope.dims), (RopeStyle::Interleaved, 1e6, 8));
    assert_eq!((spec.rope.scaling, &spec.rope.freq_factors), (RopeScaling::None, &None));
    assert_eq!((spec.qkv_bias, spec.tied_embeddings, spec.sliding_window), (false, false, None));
    assert_eq!(spec.activation, ActKind::Silu);
    let values: u64 = tensors("llama").iter().map(|(_, dims)| dims.iter().product::<u64>()).sum();
    assert_eq!(spec.n_parameters(), values);
}

#[test]
fn qwen2_has_biases_and_split_halves() {
    let spec = spec_of(&model("qwen2")).unwrap();
    assert_eq!((spec.qkv_bias, spec.rope.style), (true, RopeStyle::SplitHalves));
    let names: Vec<String> = spec.weights().map(|(role, layer)| WeightNames::GGUF.name(role, layer)).collect();
    let mut expected: Vec<String> = tensors("qwen2").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), expected.len());
    assert!(
        names.first().is_some_and(|n| n == "token_embd.weight") && names.last().is_some_and(|n| n == "output.weight")
    );
    let mut names = names;
    names.sort();
    expected.sort();
    assert_eq!(names, expected);
}

#[test]
fn defaults() {
    let spec = edited("llama", |w| {
        w.remove("llama.rope.freq_base");
        w.remove("general.name");
        w.remove("llama.attention.head_count_kv");
        for layer in 0..LAYERS {
            f32_tensor(w, &format!("blk.{layer}.attn_k.weight"), &[HIDDEN, HIDDEN]);
            f32_tensor(w, &format!("blk.{layer}.attn_v.weight"), &[HIDDEN, HIDDEN]);
        }
        w.remove_tensor("output.weight");
    })
    .unwrap();
    assert_eq!((spec.rope.base, spec.name, spec.n_kv_heads), (10_000.0, None, spec.n_heads));
    assert!(spec.tied_embeddings);
    assert!(!ArchSpec { tied_embeddings: true, ..spec_of(&model("llama")).unwrap() }.has(WeightRole::Output));
}

#[test]
fn llama_may_have_biases() {
    let biases = |w: &mut GgufWriter<'static>| {
        for layer in 0..LAYERS {
            f32_tensor(w, &format!("blk.{layer}.attn_q.bias"), &[HIDDEN]);
            f32_tensor(w, &format!("blk.{layer}.attn_k.bias"), &[KV_HEADS * HIDDEN / HEADS]);
            f32_tensor(w, &format!("blk.{layer}.attn_v.bias"), &[KV_HEADS * HIDDEN / HEADS]);
        }
    };
    assert!(edited("llama", biases).unwrap().qkv_bias);
    let partly = refused("llama", |w| {
        biases(w);
        w.remove_tensor("blk.1.attn_k.bias");
    });
    assert_eq!(partly, "tensor `blk.1.attn_k.bias` is missing");
    let only_k = refused("llama", |w| f32_tensor(w, "blk.0.attn_k.bias", &[16]));
    assert_eq!(
        only_k,
        "tensor `blk.0.attn_k.bias` has no place in architecture `llama`; the model differs from what is implemented"
    );
}

#[test]
fn per_layer_numbers_must_agree() {
    let spec = edited("llama", |w| done(w.set("llama.attention.head_count_kv", vec![2_i32, 2]))).unwrap();
    assert_eq!(spec.n_kv_heads, 2);
    let differ = refused("llama", |w| done(w.set("llama.attention.head_count_kv", vec![2_i32, 3])));
    assert_eq!(
        differ,
        "`llama.attention.head_count_kv` = [2, 3] asks for layers of different sizes, which is not supported"
    );
    let short = refused("llama", |w| done(w.set("llama.feed_forward_length", vec![80_u32])));
    assert_eq!(short, "`llama.feed_forward_length`: expected a number or 2 of them, found 1 of them");
}

#[test]
fn head_dim_of_its_own() {
    let spec = edited("llama", |w| {
        w.set("llama.attention.key_length", 10_u32).set("llama.attention.value_length", 10_u32);
        for layer in 0..LAYERS {
            f32_tensor(w, &format!("blk.{layer}.attn_q.weight"), &[HIDDEN, 60]);
            f32_tensor(w, &format!("blk.{layer}.attn_k.weight"), &[HIDDEN, 20]);
            f32_tensor(w, &format!("blk.{layer}.attn_v.weight"), &[HIDDEN, 20]);
            f32_tensor(w, &format!("blk.{layer}.attn_output.weight"), &[60, HIDDEN]);
        }
    })
    .unwrap();
    assert_eq!((spec.head_dim, spec.rope.dims, spec.q_dim(), spec.kv_dim()), (10, 10, 60, 20));
    let values = refused("llama", |w| done(w.set("llama.attention.value_length", 4_u32)));
    assert!(values.contains("values of another length than keys"), "{values}");
}

#[test]
fn rope_scaling() {
    let scaling = |edit: &dyn Fn(&mut GgufWriter<'static>)| edited("llama", edit).map(|s| s.rope.scaling);
    let linear = Ok(RopeScaling::Linear { factor: 4.0 });
    assert_eq!(
        scaling(&|w| done(w.set("llama.rope.scaling.type", "linear").set("llama.rope.scaling.factor", 4.0_f32))),
        linear
    );
    assert_eq!(scaling(&|w| done(w.set("llama.rope.scaling.factor", 4.0_f32))), linear);
    assert_eq!(scaling(&|w| done(w.set("llama.rope.scale_linear", 4.0_f32))), linear);
    assert_eq!(
        scaling(&|w| done(w.set("llama.rope.scaling.factor", 0.0_f32).set("llama.rope.scale_linear", 4.0_f32))),
        linear
    );
    assert_eq!(scaling(&|w| done(w.set("llama.rope.scaling.factor", 1.0_f32))), Ok(RopeScaling::None));
    assert_eq!(
        scaling(&|w| done(w.set("llama.rope.scaling.type", "none").set("llama.rope.scaling.factor", 4.0_f32))),
        Ok(RopeScaling::None)
    );
    let yarn = |w: &mut GgufWriter<'static>| {
        done(w.set("llama.rope.scaling.type", "yarn").set("llama.rope.scaling.factor", 4.0_f32));
    };
    assert_eq!(
        scaling(&|w| yarn(w)),
        Ok(RopeScaling::Yarn { factor: 4.0, original_context: 128, attn_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0 })
    );
    assert_eq!(
        scaling(&|w| {
            yarn(w);
            w.set("llama.rope.scaling.original_context_length", 32_u32).set("llama.rope.scaling.attn_factor", 0.5_f32);
            w.set("llama.rope.scaling.yarn_beta_fast", 16.0_f32).set("llama.rope.scaling.yarn_beta_slow", 2.0_f32);
        }),
        Ok(RopeScaling::Yarn { factor: 4.0, original_context: 32, attn_factor: 0.5, beta_fast: 16.0, beta_slow: 2.0 })
    );
    for (edit, expected) in [
        (
            &(|w: &mut GgufWriter<'static>| done(w.set("llama.rope.scaling.type", "longrope")))
                as &dyn Fn(&mut GgufWriter<'static>),
            "`llama.rope.scaling.type` = longrope asks for a rotary scaling other than none, linear and yarn, which is not supported",
        ),
        (
            &|w| done(w.set("llama.rope.scaling.type", "yarn")),
            "metadata key `llama.rope.scaling.factor` is missing (expected the factor of yarn scaling)",
        ),
        (
            &|w| done(w.set("llama.rope.scaling.factor", f32::NAN)),
            "`llama.rope.scaling.factor`: expected a positive number, found NaN",
        ),
        (
            &|w: &mut GgufWriter<'static>| {
                yarn(w);
                w.set("llama.rope.scaling.yarn_ext_factor", 0.5_f32);
            },
            "`llama.rope.scaling.yarn_ext_factor` = 0.5 asks for partial yarn extrapolation, which is not supported",
        ),
    ] {
        assert_eq!(scaling(edit).unwrap_err().to_string(), expected);
    }
}

#[test]
fn frequency_factors() {
    let with = |values: &[f32]| {
        let mut w = model("llama");
        w.tensor_f32("rope_freqs.weight", &[values.len() as u64], values);
        spec_of(&w)
    };
    assert_eq!(with(&[1.0, 2.0, 4.0, 8.0]).unwrap().rope.freq_factors, Some(vec![1.0, 2.0, 4.0, 8.0]));
    let short = with(&[1.0; 3]).unwrap_err().to_string();
    assert_eq!(short, "tensor `rope_freqs.weight` (rotary frequency divisors): expected shape [4], found [3]");
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let e = with(&[1.0, bad, 1.0, 1.0]).unwrap_err().to_string();
        assert_eq!(e, format!("`rope_freqs.weight`: expected positive numbers, found {bad}"));
    }
    let half = refused("llama", |w| done(w.tensor("rope_freqs.weight", &[4], DType::F16, vec![1; 8])));
    assert_eq!(half, "`rope_freqs.weight`: expected storage type F32, found F16");
}

#[test]
fn sliding_window() {
    let window = |arch: &str, n: u32| {
        edited(arch, |w| done(w.set(&format!("{arch}.attention.sliding_window"), n))).unwrap().sliding_window
    };
    assert_eq!((window("llama", 32), window("llama", 0), window("llama", 128)), (Some(32), None, None));
    assert_eq!(window("qwen2", 32), None);
}

#[test]
fn other_architectures_are_refused_by_name() {
    let e = refused("llama", |w| done(w.set("general.architecture", "mamba")));
    assert_eq!(e, "architecture `mamba` is not supported; supported: llama, qwen2");
    let e = refused("llama", |w| done(w.remove("general.architecture")));
    assert_eq!(e, "metadata key `general.architecture` is missing (expected a string)");
    let e = refused("llama", |w| done(w.set("llama.expert_count", 8_u32)));
    assert_eq!(e, "`llama.expert_count` = 8 asks for a mixture of experts, which is not supported");
    assert!(edited("llama", |w| done(w.set("llama.expert_count", 0_u32).set("llama.logit_scale", 1.0_f32))).is_ok());
    let e = refused("llama", |w| done(w.set("llama.attention.causal", false)));
    assert!(e.contains("attention that sees the future"), "{e}");
}

#[test]
fn every_required_key_is_required() {
    for arch in ["llama", "qwen2"] {
        for key in [
            "block_count",
            "context_length",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "attention.layer_norm_rms_epsilon",
        ] {
            let key = format!("{arch}.{key}");
            let e = refused(arch, |w| assert!(w.remove(&key)));
            assert!(e.starts_with(&format!("metadata key `{key}` is missing")), "{e}");
            let e = refused(arch, |w| done(w.set(&key, "x")));
            assert!(
                e.starts_with(&format!("metadata key `{key}`: expected ")) && e.ends_with("found string \"x\""),
                "{e}"
            );
        }
    }
}

#[test]
fn absurd_numbers() {
    for (key, value, expected) in [
        ("attention.head_count", 0, "`llama.attention.head_count`: expected 1..=1073741824, found 0"),
        (
            "attention.head_count",
            7,
            "`llama.attention.head_count`: expected a divisor of llama.embedding_length = 48, found 7",
        ),
        ("attention.head_count_kv", 0, "`llama.attention.head_count_kv`: expected 1..=1073741824, found 0"),
        ("attention.head_count_kv", 4, "`llama.attention.head_count_kv`: expected a divisor of 6 query heads, found 4"),
        ("context_length", 0, "`llama.context_length`: expected 1..=1073741824, found 0"),
        ("embedding_length", u32::MAX, "`llama.embedding_length`: expected 1..=1073741824, found 4294967295"),
        ("block_count", 0, "`llama.block_count`: expected 1..=1073741824, found 0"),
        ("block_count", 1 << 30, "`llama.block_count` announces 1073741824 layers, but the tensors are those of 2"),
        ("block_count", 1, "`llama.block_count` announces 1 layers, but the tensors are those of 2"),
        ("rope.dimension_count", 0, "`llama.rope.dimension_count`: expected 1..=1073741824, found 0"),
        (
            "rope.dimension_count",
            7,
            "`llama.rope.dimension_count`: expected an even number up to the head's length 8, found 7",
        ),
        (
            "rope.dimension_count",
            10,
            "`llama.rope.dimension_count`: expected an even number up to the head's length 8, found 10",
        ),
    ] {
        assert_eq!(refused("llama", |w| done(w.set(&format!("llama.{key}"), value))), expected);
    }
    for eps in [0.0, -1e-5, 1.0, f32::NAN, f32::INFINITY] {
        let e = refused("llama", |w| done(w.set("llama.attention.layer_norm_rms_epsilon", eps)));
        assert_eq!(
            e,
            format!("`llama.attention.layer_norm_rms_epsilon`: expected a number between 0 and 1, found {eps}")
        );
    }
    for base in [0.0, -1e4, f32::NAN, f32::INFINITY] {
        let e = refused("llama", |w| done(w.set("llama.rope.freq_base", base)));
        assert_eq!(e, format!("`llama.rope.freq_base`: expected a number above 1, found {base}"));
    }
}

/// SF-6: swapping the axes of any tensor, or changing any axis, is found and named.
#[test]
fn every_shape_is_checked() {
    for (name, dims) in tensors("qwen2") {
        let rows_first: Vec<u64> = dims.iter().rev().copied().collect();
        let mut wrong: Vec<Vec<u64>> = (0..dims.len())
            .map(|axis| {
                let mut d = dims.clone();
                d[axis] += 2;
                d
            })
            .collect();
        wrong.push([&dims[..], &[2]].concat());
        if rows_first != dims {
            wrong.push(rows_first);
        }
        for wrong in wrong {
            let e = edited("qwen2", |w| f32_tensor(w, &name, &wrong)).expect_err(&name);
            let found: Vec<u64> = wrong.iter().rev().copied().collect();
            match e {
                ArchError::Shape { tensor, expected, found: f, .. } => {
                    // A wrong number of rows in the embedding is a wrong vocabulary for the LM head.
                    if name == "token_embd.weight" && tensor == "output.weight" {
                        continue;
                    }
                    assert_eq!((tensor.as_str(), f), (name.as_str(), found));
                    if name != "token_embd.weight" {
                        assert_eq!(expected, dims.iter().rev().copied().collect::<Vec<_>>());
                    }
                }
                other => panic!("{name}: {other}"),
            }
        }
    }
    let e = refused("llama", |w| f32_tensor(w, "blk.1.attn_k.weight", &[16, 48]));
    assert_eq!(e, "tensor `blk.1.attn_k.weight` (key projection): expected shape [16, 48], found [48, 16]");
}

#[test]
fn every_tensor_is_required_and_no_other_allowed() {
    for (name, _) in tensors("qwen2") {
        if name != "output.weight" {
            assert_eq!(refused("qwen2", |w| assert!(w.remove_tensor(&name))), format!("tensor `{name}` is missing"));
        }
    }
    for extra in ["blk.0.ffn_gate_inp.weight", "blk.0.attn_output.bias", "blk.01.attn_q.weight", "cls.weight"] {
        let e = refused("llama", |w| f32_tensor(w, extra, &[48]));
        assert!(e.starts_with(&format!("tensor `{extra}` has no place in architecture `llama`")), "{e}");
    }
    assert!(edited("llama", |w| f32_tensor(w, "blk.0.attn_rot_embd.weight", &[4])).is_ok());
}

/// SF-4: the layers in the file are those the metadata announce.
#[test]
fn layers_are_counted() {
    let e = refused("llama", |w| done(w.set("llama.block_count", 3_u32)));
    assert_eq!(e, "`llama.block_count` announces 3 layers, but the tensors are those of 2");
    let e = refused("llama", |w| f32_tensor(w, &format!("blk.{}.attn_norm.weight", usize::MAX), &[48]));
    assert!(e.contains("announces 2 layers"), "{e}");
}

/// SF-3: biases that qwen2 needs are there and not all zero.
#[test]
fn biases_must_not_be_lost() {
    for zero in [0.0, -0.0] {
        let e = refused("qwen2", |w| {
            w.remove_tensor("blk.1.attn_v.bias");
            w.tensor_f32("blk.1.attn_v.bias", &[16], &[zero; 16]);
        });
        assert_eq!(e, "tensor `blk.1.attn_v.bias` (value bias) holds only zeros, but architecture `qwen2` needs it");
    }
    let one = edited("qwen2", |w| {
        w.remove_tensor("blk.1.attn_v.bias");
        let mut values = [0.0; 16];
        values[15] = f32::from_bits(1);
        w.tensor_f32("blk.1.attn_v.bias", &[16], &values);
    });
    assert!(one.is_ok());
}

#[test]
fn undecodable_types_name_tensor_and_type() {
    // The type id of the first tensor (token_embd.weight) follows its name and two dimensions.
    let mut bytes = model("llama").to_bytes().unwrap();
    let name = bytes.windows(17).position(|w| w == b"token_embd.weight").unwrap();
    bytes[name + 17 + 4 + 16] = 16;
    let gguf = brick_models::format::gguf::Gguf::from_bytes(bytes);
    // 48 values are no IQ2_XXS block.
    assert!(gguf.unwrap_err().to_string().contains("IQ2_XXS blocks of 256"));
    let mut bytes = model("llama").to_bytes().unwrap();
    bytes[name + 17 + 4 + 16] = 26;
    let gguf = brick_models::format::gguf::Gguf::from_bytes(bytes).unwrap();
    let e = ArchSpec::from_gguf(&gguf).unwrap_err().to_string();
    assert_eq!(e, "tensor `token_embd.weight`: storage type 26 (I32) is not supported");
}

#[test]
fn the_vocabulary_has_as_many_tokens_as_rows() {
    let tokens = |n: usize| (0..n).map(|i| format!("t{i}")).collect::<Vec<_>>();
    assert!(edited("llama", |w| done(w.set("tokenizer.ggml.tokens", tokens(20)))).is_ok());
    for n in [0, 19, 21] {
        let e = refused("llama", |w| done(w.set("tokenizer.ggml.tokens", tokens(n))));
        assert_eq!(
            e,
            format!("`tokenizer.ggml.tokens`: expected 20 tokens, one per row of the token embedding, found {n}")
        );
    }
}

#[test]
fn specifications_serialize() {
    let spec = spec_of(&model("qwen2")).unwrap();
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<ArchSpec>(&json).unwrap(), spec);
}
