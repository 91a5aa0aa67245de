//! A complete llama model in 200 kB, to be taken apart by the tests.

use brick_models::format::gguf::GgufWriter;
use bricks::DType;

pub(crate) const HIDDEN: u64 = 64;
pub(crate) const LAYERS: u64 = 2;
pub(crate) const FFN: u64 = 128;
/// The 256 bytes, beginning and end of text.
pub(crate) const VOCAB: u64 = 258;

/// The model as a file.
pub(crate) fn model() -> Vec<u8> {
    writer().to_bytes().unwrap()
}

/// The sizes of a model with four heads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) hidden: u64,
    pub(crate) layers: u64,
    pub(crate) ffn: u64,
    pub(crate) context: u32,
}

/// The model, before it is written. Its text is bytes: token ids are byte values in the order of GPT-2's alphabet.
pub(crate) fn writer() -> GgufWriter<'static> {
    writer_of(Shape { hidden: HIDDEN, layers: LAYERS, ffn: FFN, context: 96 })
}

/// A model of another size.
pub(crate) fn writer_of(Shape { hidden, layers, ffn, context }: Shape) -> GgufWriter<'static> {
    // Half as many key-value heads.
    let kv = hidden / 2;
    let mut w = GgufWriter::new();
    w.set("general.architecture", "llama")
        .set("general.name", "tiny")
        .set("llama.block_count", layers as u32)
        .set("llama.context_length", context)
        .set("llama.embedding_length", hidden as u32)
        .set("llama.feed_forward_length", ffn as u32)
        .set("llama.attention.head_count", 4_u32)
        .set("llama.attention.head_count_kv", 2_u32)
        .set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .set("llama.rope.freq_base", 1e4_f32)
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "gpt-2")
        .set("tokenizer.ggml.merges", Vec::<&str>::new())
        .set("tokenizer.ggml.bos_token_id", 256_u32)
        .set("tokenizer.ggml.eos_token_id", 257_u32)
        .set("tokenizer.ggml.add_bos_token", false);
    let tokens: Vec<String> = alphabet().into_iter().chain(["<s>".into(), "</s>".into()]).collect();
    let kinds: Vec<i32> = (0..VOCAB).map(|id| if id < 256 { 1 } else { 3 }).collect();
    w.set("tokenizer.ggml.tokens", tokens).set("tokenizer.ggml.token_type", kinds);

    matrix(&mut w, "token_embd.weight", hidden, VOCAB);
    for i in 0..layers {
        ones(&mut w, &format!("blk.{i}.attn_norm.weight"), hidden);
        matrix(&mut w, &format!("blk.{i}.attn_q.weight"), hidden, hidden);
        matrix(&mut w, &format!("blk.{i}.attn_k.weight"), hidden, kv);
        matrix(&mut w, &format!("blk.{i}.attn_v.weight"), hidden, kv);
        matrix(&mut w, &format!("blk.{i}.attn_output.weight"), hidden, hidden);
        ones(&mut w, &format!("blk.{i}.ffn_norm.weight"), hidden);
        matrix(&mut w, &format!("blk.{i}.ffn_gate.weight"), hidden, ffn);
        matrix(&mut w, &format!("blk.{i}.ffn_up.weight"), hidden, ffn);
        matrix(&mut w, &format!("blk.{i}.ffn_down.weight"), ffn, hidden);
    }
    ones(&mut w, "output_norm.weight", hidden);
    w.tensor_f32("output.weight", &[hidden, VOCAB], &noise("output.weight", hidden * VOCAB));
    w
}

fn ones(w: &mut GgufWriter<'_>, name: &str, hidden: u64) {
    w.tensor_f32(name, &[hidden], &vec![1.0; hidden as usize]);
}

/// A Q8_0 matrix: blocks of an F16 scale (1/512) and 32 codes.
fn matrix(w: &mut GgufWriter<'_>, name: &str, cols: u64, rows: u64) {
    let values = noise(name, cols * rows);
    let blocks = values.chunks_exact(32).flat_map(|block| {
        let codes = block.iter().map(|v| (v * 127.0) as i8 as u8);
        0x1800_u16.to_le_bytes().into_iter().chain(codes)
    });
    w.tensor(name, &[cols, rows], DType::Q8_0, blocks.collect::<Vec<u8>>());
}

/// Values in -1..1, the same for the same name.
fn noise(name: &str, n: u64) -> Vec<f32> {
    let mut state = name.bytes().fold(0x9e37_79b9_u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as f32 / u32::MAX as f32 * 2.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// GPT-2's letters for the bytes 0 to 255: printable ones stand for themselves, the others are counted from U+0100.
fn alphabet() -> Vec<String> {
    let mut next = 0x100;
    (0..=255_u8)
        .map(|byte| {
            let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).unwrap().to_string()
        })
        .collect()
}

/// Where the description of a tensor is in a file: what a hostile file lies about.
pub(crate) struct TensorInfo {
    /// The first dimension (8 bytes); the others follow.
    pub(crate) dims: usize,
    /// The storage type (4 bytes).
    pub(crate) dtype: usize,
    /// The offset of the data (8 bytes).
    pub(crate) offset: usize,
}

/// Finds the description of a tensor.
pub(crate) fn tensor_info(file: &[u8], name: &str) -> TensorInfo {
    let mut needle = (name.len() as u64).to_le_bytes().to_vec();
    needle.extend_from_slice(name.as_bytes());
    let n_dims = file.windows(needle.len()).position(|w| w == needle).unwrap() + needle.len();
    let dims = n_dims + 4;
    let count = u32::from_le_bytes(file[n_dims..dims].try_into().unwrap()) as usize;
    let dtype = dims + 8 * count;
    TensorInfo { dims, dtype, offset: dtype + 4 }
}

/// Overwrites bytes.
pub(crate) fn patch(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}
