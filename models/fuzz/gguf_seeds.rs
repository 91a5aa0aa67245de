//! Writes the seeds of `gguf_parse`: small valid files that reach every part of the reader.

#[path = "../tests/gguf_common/mod.rs"]
mod gguf_common;

use std::error::Error;
use std::path::Path;

use gguf_common::{Sizes, every_type, f32_tensor, model_sized};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/gguf_parse");
    std::fs::create_dir_all(&dir)?;
    let smallest = Sizes { layers: 1, hidden: 4, heads: 2, kv_heads: 1, ffn: 6, vocab: 3 };

    every_type().write_file(dir.join("seed-every-type"))?;
    let mut aligned = every_type();
    aligned.set("general.alignment", 8_u32).set("split.count", 1_u16);
    aligned.write_file(dir.join("seed-aligned"))?;

    let mut llama = model_sized("llama", smallest);
    llama.remove_tensor("output.weight");
    llama
        .set("llama.attention.key_length", 2_u32)
        .set("llama.attention.sliding_window", 64_u32)
        .set("llama.attention.head_count_kv", vec![1_i32])
        .set("llama.rope.dimension_count", 2_u32)
        .set("llama.rope.scaling.type", "linear")
        .set("llama.rope.scaling.factor", 2.0_f32)
        .set("llama.expert_count", 0_u32)
        .set_byte_strings("tokenizer.ggml.tokens", &[&b"\xf0"[..], b"b", b"c"])
        .set("tokenizer.ggml.scores", vec![0.0_f32, -1.0, -2.0]);
    f32_tensor(&mut llama, "rope_freqs.weight", &[1]);
    llama.write_file(dir.join("seed-llama"))?;

    let mut qwen2 = model_sized("qwen2", smallest);
    qwen2
        .set("qwen2.rope.scaling.type", "yarn")
        .set("qwen2.rope.scaling.factor", 4.0_f32)
        .set("qwen2.rope.scaling.original_context_length", 32_u32);
    qwen2.write_file(dir.join("seed-qwen2"))?;
    Ok(())
}
