//! Small models and files for the tests of the GGUF reader.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its part

use brick_models::arch::{ArchError, ArchSpec};
use brick_models::format::gguf::{Gguf, GgufWriter};
use bricks::DType;

/// Sizes of a model.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub layers: usize,
    pub hidden: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub ffn: u64,
    pub vocab: u64,
}

/// All different, so that any two axes swapped show.
pub const TINY: Sizes =
    Sizes { layers: LAYERS, hidden: HIDDEN, heads: HEADS, kv_heads: KV_HEADS, ffn: FFN, vocab: VOCAB };
pub const LAYERS: usize = 2;
pub const HIDDEN: u64 = 48;
pub const HEADS: u64 = 6;
pub const KV_HEADS: u64 = 2;
pub const FFN: u64 = 80;
pub const VOCAB: u64 = 20;

/// Every tensor of the tiny model: name, dims in file order.
pub fn tensors(arch: &str) -> Vec<(String, Vec<u64>)> {
    tensors_sized(arch, TINY)
}

fn tensors_sized(arch: &str, s: Sizes) -> Vec<(String, Vec<u64>)> {
    let kv = s.kv_heads * (s.hidden / s.heads);
    let mut all = vec![("token_embd.weight".to_owned(), vec![s.hidden, s.vocab])];
    for i in 0..s.layers {
        let mut layer = |name: &str, dims: &[u64]| all.push((format!("blk.{i}.{name}"), dims.to_vec()));
        layer("attn_norm.weight", &[s.hidden]);
        layer("attn_q.weight", &[s.hidden, s.hidden]);
        layer("attn_k.weight", &[s.hidden, kv]);
        layer("attn_v.weight", &[s.hidden, kv]);
        if arch == "qwen2" {
            layer("attn_q.bias", &[s.hidden]);
            layer("attn_k.bias", &[kv]);
            layer("attn_v.bias", &[kv]);
        }
        layer("attn_output.weight", &[s.hidden, s.hidden]);
        layer("ffn_norm.weight", &[s.hidden]);
        layer("ffn_gate.weight", &[s.hidden, s.ffn]);
        layer("ffn_up.weight", &[s.hidden, s.ffn]);
        layer("ffn_down.weight", &[s.ffn, s.hidden]);
    }
    all.push(("output_norm.weight".to_owned(), vec![s.hidden]));
    all.push(("output.weight".to_owned(), vec![s.hidden, s.vocab]));
    all
}

/// A complete tiny model.
pub fn model(arch: &str) -> GgufWriter<'static> {
    model_sized(arch, TINY)
}

/// A complete model of any size.
pub fn model_sized(arch: &str, s: Sizes) -> GgufWriter<'static> {
    let mut w = GgufWriter::new();
    w.set("general.architecture", arch)
        .set("general.name", "tiny")
        .set(&format!("{arch}.block_count"), s.layers as u32)
        .set(&format!("{arch}.context_length"), 128_u32)
        .set(&format!("{arch}.embedding_length"), s.hidden as u32)
        .set(&format!("{arch}.feed_forward_length"), s.ffn as u32)
        .set(&format!("{arch}.attention.head_count"), s.heads as u32)
        .set(&format!("{arch}.attention.head_count_kv"), s.kv_heads as u32)
        .set(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5_f32)
        .set(&format!("{arch}.rope.freq_base"), 1e6_f32);
    for (name, dims) in tensors_sized(arch, s) {
        f32_tensor(&mut w, &name, &dims);
    }
    w
}

/// Adds a tensor of distinct F32 values, in place of one of that name.
pub fn f32_tensor(w: &mut GgufWriter<'static>, name: &str, dims: &[u64]) {
    w.remove_tensor(name);
    let n: u64 = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| (i as f32 + 1.0) / 64.0).collect();
    w.tensor_f32(name, dims, &values);
}

/// The file such a writer makes.
pub fn file(w: &GgufWriter<'_>) -> Gguf {
    Gguf::from_bytes(w.to_bytes().unwrap()).unwrap()
}

/// A file with a value of every metadata type and a few tensors.
pub fn every_type() -> GgufWriter<'static> {
    let mut w = GgufWriter::new();
    w.set("u8", 200_u8).set("i8", -100_i8).set("u16", 60_000_u16).set("i16", -30_000_i16);
    w.set("u32", 4_000_000_000_u32).set("i32", -2_000_000_000_i32);
    w.set("u64", u64::MAX).set("i64", i64::MIN).set("f32", 0.1_f32).set("f64", 0.1_f64);
    w.set("bool", true).set("string", "Grüße").set("empty", "");
    w.set("array", vec![1_i32, -2, 3]).set("bools", vec![true, false]).set("none", Vec::<u32>::new());
    w.set("nested", vec![vec!["a", "b"], vec![], vec!["c"]]);
    w.set_byte_strings("tokens", &[&b"\xf0\x9f"[..], b"", b"tok", b"\xff"]);
    w.tensor_f32("a", &[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    w.tensor("b", &[32], DType::Q8_0, vec![7; 34]);
    w.tensor("c", &[1], DType::F16, vec![1, 2]);
    w
}

/// Uses everything a file offers; every outcome but a panic is fine.
pub fn touch(bytes: &[u8]) -> Option<Result<ArchSpec, ArchError>> {
    let gguf = Gguf::from_bytes(bytes).ok()?;
    let metadata = gguf.metadata();
    for (key, value) in metadata.iter() {
        std::hint::black_box(value.to_string());
        assert!(metadata.value(key).is_some(), "{key} is listed but not found");
        if let Ok(Some(strings)) = metadata.opt_array_str(key) {
            assert_eq!(strings.iter().count(), strings.len());
            std::hint::black_box(strings.iter().map(<[u8]>::len).sum::<usize>());
        }
        let _ =
            (metadata.get_u32(key), metadata.get_f32(key), metadata.get_array_i32(key), metadata.get_array_f32(key));
    }
    for t in gguf.tensors() {
        assert_eq!(gguf.tensor(&t.name), Some(t));
        if let Ok(data) = gguf.bytes(t) {
            assert_eq!(Some(data.len() as u64), t.n_bytes);
            std::hint::black_box(data.iter().fold(0_u8, |a, b| a ^ b));
        }
        std::hint::black_box((t.shape().ok(), t.n_values(), t.is_vector()));
    }
    Some(ArchSpec::from_gguf(&gguf))
}

/// Ends a chain of edits.
pub fn done<T>(_: T) {}
