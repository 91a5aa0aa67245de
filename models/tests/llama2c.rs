//! Checkpoints of llama2.c: what becomes of one made up on the spot, and what is refused.
#![allow(clippy::unwrap_used)]

use brick_models::arch::ArchSpec;
use brick_models::format::gguf::Gguf;
use brick_models::format::llama2c::{Checkpoint, Llama2cError, Vocabulary, to_gguf};
use brick_models::tokenizer::{EncodeOptions, Tokenizer};
use bricks::{DType, RopeStyle, quant};

const DIM: usize = 64;
const HIDDEN: usize = 96;
const LAYERS: usize = 2;
const HEADS: usize = 4;
const KV_HEADS: usize = 2;
const VOCAB: usize = 3 + 256 + 3;
const CONTEXT: usize = 16;

fn header(vocab: i32) -> [i32; 7] {
    [DIM as i32, HIDDEN as i32, LAYERS as i32, HEADS as i32, KV_HEADS as i32, vocab, CONTEXT as i32]
}

/// Weights that say where they are: number `i` of the file.
fn weight(i: usize) -> f32 {
    ((i * 7919 % 2003) as f32 - 1001.0) / 1024.0
}

fn floats(shared: bool) -> usize {
    let kv = DIM / HEADS * KV_HEADS;
    let layer = 2 * DIM + 2 * DIM * DIM + 2 * DIM * kv + 3 * DIM * HIDDEN;
    VOCAB * DIM * if shared { 1 } else { 2 } + LAYERS * layer + DIM + CONTEXT * DIM / HEADS
}

fn checkpoint(header: [i32; 7], floats: usize) -> Vec<u8> {
    let header = header.into_iter().flat_map(i32::to_le_bytes);
    header.chain((0..floats).flat_map(|i| weight(i).to_le_bytes())).collect()
}

fn tokenizer() -> Vec<u8> {
    tokenizer_of(|byte| format!("<0x{byte:02X}>"))
}

fn tokenizer_of(byte: impl Fn(u8) -> String) -> Vec<u8> {
    let mut tokens: Vec<(f32, String)> = ["<unk>", "\n<s>\n", "\n</s>\n"].map(|t| (0.0, t.to_owned())).into();
    tokens.extend((0..=255).map(|b| (0.0, byte(b))));
    tokens.extend([(-1.0, " a".to_owned()), (-2.0, " ".to_owned()), (-3.0, "a".to_owned())]);
    let mut out = 7_i32.to_le_bytes().to_vec();
    for (score, text) in tokens {
        out.extend(score.to_le_bytes());
        out.extend((text.len() as i32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    out
}

fn convert(checkpoint: &[u8], tokenizer: &[u8]) -> Result<Gguf, Llama2cError> {
    let (checkpoint, rest) = Checkpoint::read(checkpoint)?;
    assert_eq!(rest, b"");
    let vocabulary = Vocabulary::read(tokenizer, checkpoint.config().vocab_size)?;
    let writer = to_gguf("made-up", &checkpoint, &vocabulary)?;
    Ok(Gguf::from_bytes(writer.to_bytes().unwrap()).unwrap())
}

#[test]
fn every_tensor_holds_its_part_of_the_checkpoint() {
    for shared in [true, false] {
        let vocab = if shared { VOCAB as i32 } else { -(VOCAB as i32) };
        let gguf = convert(&checkpoint(header(vocab), floats(shared)), &tokenizer()).unwrap();
        let spec = ArchSpec::from_gguf(&gguf).unwrap();
        assert_eq!((spec.tied_embeddings, spec.rope.style), (shared, RopeStyle::Interleaved));
        assert_eq!((spec.head_dim, spec.n_kv_heads, spec.context_length), (DIM / HEADS, KV_HEADS, CONTEXT));
        assert_eq!((spec.rope.base, spec.norm_eps), (1e4, 1e-5));

        // Kind by kind, layer by layer, as llama2.c's run.c maps its file.
        let kv = DIM / HEADS * KV_HEADS;
        let per_layer =
            |name: &'static str, rows, cols| (0..LAYERS).map(move |l| (format!("blk.{l}.{name}.weight"), rows, cols));
        let mut order: Vec<(String, usize, usize)> = vec![("token_embd.weight".into(), VOCAB, DIM)];
        order.extend(per_layer("attn_norm", 1, DIM));
        order.extend(per_layer("attn_q", DIM, DIM));
        order.extend(per_layer("attn_k", kv, DIM));
        order.extend(per_layer("attn_v", kv, DIM));
        order.extend(per_layer("attn_output", DIM, DIM));
        order.extend(per_layer("ffn_norm", 1, DIM));
        order.extend(per_layer("ffn_gate", HIDDEN, DIM));
        order.extend(per_layer("ffn_down", DIM, HIDDEN));
        order.extend(per_layer("ffn_up", HIDDEN, DIM));
        order.push(("output_norm.weight".into(), 1, DIM));
        let mut at = 0;
        let mut holds = |name: &str, rows: usize, cols: usize| {
            let tensor = gguf.tensor(name).unwrap();
            let shape = tensor.shape().unwrap();
            let dtype = if rows == 1 { DType::F32 } else { DType::Q8_0 };
            assert_eq!((shape.dtype, shape.rows, shape.cols), (dtype, rows, cols), "{name}");
            let values: Vec<f32> = (at..at + rows * cols).map(weight).collect();
            let mut expected = vec![0; dtype.row_bytes(values.len()).unwrap()];
            quant::encode_row(dtype, &values, &mut expected).unwrap();
            assert!(gguf.bytes(tensor).unwrap() == expected, "{name}");
            at += rows * cols;
        };
        for (name, rows, cols) in &order {
            holds(name, *rows, *cols);
        }
        if !shared {
            // Behind the rotary tables.
            let at = floats(false) - VOCAB * DIM;
            let first: Vec<f32> = (at..at + DIM).map(weight).collect();
            let mut expected = vec![0; DType::Q8_0.row_bytes(DIM).unwrap()];
            quant::encode_row(DType::Q8_0, &first, &mut expected).unwrap();
            assert_eq!(gguf.bytes(gguf.tensor("output.weight").unwrap()).unwrap()[..expected.len()], expected);
        }
    }
}

#[test]
fn rows_without_whole_blocks_stay_f32() {
    let mut odd = header(VOCAB as i32);
    odd[1] = 100;
    let floats = floats(true) + LAYERS * 3 * DIM * (100 - HIDDEN);
    let gguf = convert(&checkpoint(odd, floats), &tokenizer()).unwrap();
    let dtype = |name: &str| gguf.tensor(name).unwrap().dtype;
    assert_eq!(dtype("blk.1.ffn_down.weight"), Some(DType::F32));
    assert_eq!(dtype("blk.1.ffn_up.weight"), Some(DType::Q8_0));
}

#[test]
fn the_tokenizer_is_that_of_sentencepiece() {
    let gguf = convert(&checkpoint(header(VOCAB as i32), floats(true)), &tokenizer()).unwrap();
    let tokenizer = Tokenizer::from_gguf(&gguf.metadata()).unwrap();
    let encode =
        |text: &str| tokenizer.encode(text, EncodeOptions { add_special: true, ..Default::default() }).unwrap();
    // Beginning, " a" and its letters, a byte without a token.
    assert_eq!(encode("a aa"), [1, 259, 259, 261]);
    assert_eq!(encode("b"), [1, 260, 3 + u32::from(b'b')]);
    let special = tokenizer.special();
    assert_eq!((special.bos, special.eos, special.unknown), (Some(1), Some(2), Some(0)));
}

#[test]
fn byte_tokens_may_be_spelled_as_characters() {
    let old = tokenizer_of(|byte| char::from(byte).to_string());
    assert_eq!(Vocabulary::read(&old, VOCAB).unwrap(), Vocabulary::read(&tokenizer(), VOCAB).unwrap());
}

#[test]
fn damaged_checkpoints_are_refused() {
    let good = checkpoint(header(VOCAB as i32), floats(true));
    let refused = |bytes: &[u8], part: &str| {
        let error = Checkpoint::read(bytes).map(drop).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    refused(&[], "header: expected 28 bytes, found 0");
    refused(&good[..27], "header: expected 28 bytes, found 27");
    for cut in [28, 1000, good.len() / 2, good.len() - 1] {
        refused(&good[..cut], &format!("checkpoint: expected {} bytes, found {cut}", good.len()));
    }
    for (i, value, part) in [
        (0, 0, "`dim`: expected 1 to 1048576, found 0"),
        (0, -64, "`dim`: expected 1 to 1048576, found -64"),
        (1, i32::MAX, "`hidden_dim`: expected 1 to 1048576, found 2147483647"),
        (2, 1 << 20, "checkpoint: expected "),
        (3, 5, "`n_heads`: expected a divisor of dim, 64, found 5"),
        (3, 64, "`n_heads`: expected heads of even length in dim, 64, found 64"),
        (4, 3, "`n_kv_heads`: expected a divisor of n_heads, 4, found 3"),
        (4, 8, "`n_kv_heads`: expected a divisor of n_heads, 4, found 8"),
        (5, 0, "`vocab_size`: expected 1 to 1048576, found 0"),
        (5, i32::MIN, "`vocab_size`: expected 1 to 1048576, found -2147483648"),
        (6, i32::MAX, "`seq_len`: expected 1 to 1048576, found 2147483647"),
    ] {
        let mut numbers = header(VOCAB as i32);
        numbers[i] = value;
        // Everything as large as it may be: nothing overflows, nothing is allocated.
        let absurd = numbers.into_iter().flat_map(i32::to_le_bytes).collect::<Vec<u8>>();
        refused(&absurd, part);
    }
    let largest: Vec<u8> = [1 << 20, 1 << 20, 1 << 20, 1 << 18, 1 << 18, -(1 << 20), 1 << 20_i32]
        .into_iter()
        .flat_map(i32::to_le_bytes)
        .collect();
    refused(&largest, "found 28");
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    for (float, name) in [(5, "token_embd.weight"), (VOCAB * DIM + DIM + 3, "blk.1.attn_norm.weight")] {
        let mut bytes = checkpoint(header(VOCAB as i32), floats(true));
        bytes[28 + 4 * float..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let error = convert(&bytes, &tokenizer()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("tensor `{name}`: expected finite numbers, found NaN at ")), "{error}");
    }
}

#[test]
fn damaged_tokenizers_are_refused() {
    let good = tokenizer();
    let refused = |bytes: &[u8], part: &str| {
        let error = Vocabulary::read(bytes, VOCAB).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    };
    for cut in [0, 3, 4, 9, 13, good.len() / 2, good.len() - 1] {
        refused(&good[..cut], "tokenizer: expected ");
    }
    refused(&[&good[..], b"x"].concat(), &format!("expected {} bytes, found {}", good.len(), good.len() + 1));
    let patched = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(&patched(8, &(-1_i32).to_le_bytes()), "token 0: expected a length of 1 to 4096 bytes, found -1");
    refused(&patched(8, &i32::MAX.to_le_bytes()), "token 0: expected a length of 1 to 4096 bytes, found 2147483647");
    refused(&patched(4, &f32::INFINITY.to_le_bytes()), "token 0: expected a finite score, found inf");
    let byte = good.windows(6).position(|w| w == b"<0x07>").unwrap();
    refused(
        &patched(byte, b"<0x08>"),
        "token 10: expected the token of a byte: <0x0A>, or the character U+000A, found \"<0x08>\"",
    );
}
