//! Files that are no model, or a damaged one: each command that reads a model says so once and leaves nothing behind.

use brick_models::format::gguf::GgufWriter;

use crate::shell::Shell;
use crate::tiny::{self, patch, tensor_info};

/// Every command that reads a model.
const READERS: [&str; 6] = [
    "run bad.gguf hi",
    "chat bad.gguf",
    "graph bad.gguf",
    "check bad.gguf",
    "tokenize bad.gguf hi",
    "inspect bad.gguf",
];
/// Those that need the weights.
const RUNNERS: [&str; 3] = ["run bad.gguf hi", "chat bad.gguf", "check bad.gguf"];

/// The file fails every one of the commands, with the same words.
fn refused_by(commands: &[&str], file: impl AsRef<[u8]>, parts: &[&str]) {
    let shell = Shell::new();
    shell.write("bad.gguf", file);
    for command in commands {
        shell.brick(command).fails(1, &[&["bad.gguf"], parts].concat());
    }
}

fn refused(file: impl AsRef<[u8]>, parts: &[&str]) {
    refused_by(&READERS, file, parts);
}

/// A change to the tiny model that no command that runs it accepts.
fn broken_model(change: impl FnOnce(&mut GgufWriter<'static>), parts: &[&str]) {
    let mut w = tiny::writer();
    change(&mut w);
    refused_by(&RUNNERS, w.to_bytes().unwrap(), parts);
}

#[test]
fn the_tiny_model_itself_is_good() {
    let shell = Shell::new();
    shell.write("tiny.gguf", tiny::model());
    shell.brick("run tiny.gguf hi -n 4").succeeds();
    shell.brick("check tiny.gguf").succeeds();
}

#[test]
fn a_missing_file() {
    let shell = Shell::new();
    for command in READERS {
        shell.brick(command).fails(1, &["there is no file", "bad.gguf"]);
    }
}

#[test]
fn a_directory() {
    let shell = Shell::new();
    std::fs::create_dir(shell.path("bad.gguf")).unwrap();
    for command in READERS {
        shell.brick(command).fails(1, &["bad.gguf is not a regular file"]);
    }
}

#[test]
fn an_empty_file() {
    refused("", &["0 bytes"]);
}

#[test]
fn other_formats() {
    refused("{\"weights\": []}", &["magic"]);
    refused(b"PK\x03\x04 and so on, long enough to be a file", &["magic"]);
    refused(b"FUGG\0\0\0\x03 and so on", &["magic"]);
}

#[test]
fn versions_this_program_does_not_read() {
    refused(patch(tiny::model(), 4, &1_u32.to_le_bytes()), &["version 2 or 3", "found 1"]);
    refused(patch(tiny::model(), 4, &99_u32.to_le_bytes()), &["version 2 or 3", "found 99"]);
}

#[test]
fn truncated_anywhere() {
    let file = tiny::model();
    let shell = Shell::new();
    // Dense in the header, where every field can be cut, then through the data, then the last byte.
    let header = [1, 3, 4, 7, 8, 12, 16, 20, 24, 30, 33, 40, 57];
    let spread = (1..40).map(|i| file.len() * i / 40);
    for cut in header.into_iter().chain(spread).chain([file.len() - 1]) {
        shell.write("bad.gguf", &file[..cut]);
        shell.brick("inspect bad.gguf").fails(1, &["bad.gguf"]);
        shell.brick("run bad.gguf hi").fails(1, &["bad.gguf"]);
    }
}

#[test]
fn absurd_counts() {
    let huge = (1_u64 << 60).to_le_bytes();
    refused(patch(tiny::model(), 8, &huge), &["1152921504606846976", "at most"]);
    refused(patch(tiny::model(), 16, &huge), &["1152921504606846976", "at most"]);
    refused(patch(tiny::model(), 8, &u64::MAX.to_le_bytes()), &["18446744073709551615"]);
    // The length of the first key.
    refused(patch(tiny::model(), 24, &huge), &["1152921504606846976"]);
}

#[test]
fn offsets_that_overlap_or_leave_the_file() {
    let file = tiny::model();
    let offset = |name| tensor_info(&file, name).offset;
    let of_q = u64::from_le_bytes(file[offset("blk.0.attn_q.weight")..][..8].try_into().unwrap());
    let at = offset("blk.0.attn_k.weight");
    refused(patch(file.clone(), at, &of_q.to_le_bytes()), &["blk.0.attn_q.weight", "blk.0.attn_k.weight", "overlap"]);
    for far in [1_u64 << 40, u64::MAX - 31] {
        refused(patch(file.clone(), at, &far.to_le_bytes()), &["blk.0.attn_k.weight"]);
    }
    refused(patch(file.clone(), at, &(of_q + 1).to_le_bytes()), &["blk.0.attn_k.weight", "multiple of 32"]);
}

#[test]
fn dimensions_whose_product_overflows() {
    let file = tiny::model();
    let at = tensor_info(&file, "blk.1.ffn_up.weight").dims;
    let dims = |a: u64, b: u64| patch(patch(file.clone(), at, &a.to_le_bytes()), at + 8, &b.to_le_bytes());
    refused(dims(1 << 33, 1 << 33), &["blk.1.ffn_up.weight"]);
    refused(dims(u64::MAX, u64::MAX), &["blk.1.ffn_up.weight"]);
    refused(dims(0, 64), &["blk.1.ffn_up.weight"]);
}

#[test]
fn an_unknown_tensor_type() {
    let file = tiny::model();
    let at = tensor_info(&file, "blk.1.ffn_down.weight").dtype;
    let file = patch(file, at, &250_u32.to_le_bytes());
    refused_by(&RUNNERS, file, &["blk.1.ffn_down.weight", "250"]);
}

#[test]
fn a_missing_tensor() {
    for name in ["token_embd.weight", "blk.1.attn_v.weight", "output_norm.weight"] {
        broken_model(|w| assert!(w.remove_tensor(name)), &[name, "missing"]);
    }
}

#[test]
fn a_tensor_of_another_shape() {
    let wrong = |w: &mut GgufWriter<'static>| {
        w.remove_tensor("blk.0.attn_q.weight");
        w.tensor_f32("blk.0.attn_q.weight", &[tiny::HIDDEN, 3], &[0.5; 192]);
    };
    broken_model(wrong, &["blk.0.attn_q.weight"]);
}

#[test]
fn missing_metadata() {
    for key in [
        "general.architecture",
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.head_count",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges",
    ] {
        broken_model(|w| assert!(w.remove(key)), &[key]);
    }
}

#[test]
fn absurd_metadata() {
    let set = |key: &str, value: u32, parts: &[&str]| {
        broken_model(
            |w| {
                w.set(key, value);
            },
            parts,
        );
    };
    set("llama.block_count", 0, &["block_count"]);
    set("llama.block_count", u32::MAX, &["block_count"]);
    set("llama.attention.head_count", 0, &["head_count"]);
    set("llama.attention.head_count_kv", 3, &["head_count"]);
    set("llama.embedding_length", u32::MAX, &["embedding_length"]);
    set("llama.embedding_length", 128, &["token_embd.weight"]);
    set("tokenizer.ggml.eos_token_id", 258, &["eos_token_id", "258"]);
    broken_model(
        |w| {
            w.set("llama.block_count", "two");
        },
        &["llama.block_count"],
    );
    broken_model(
        |w| {
            w.set("general.architecture", "perceptron");
        },
        &["perceptron"],
    );
    broken_model(
        |w| {
            w.set("tokenizer.ggml.pre", "nonsense");
        },
        &["nonsense"],
    );
}

#[test]
fn a_tokenizer_of_another_length() {
    let shorter = |w: &mut GgufWriter<'static>| {
        let tokens: Vec<String> = (0..200).map(|i| format!("t{i}")).collect();
        w.set("tokenizer.ggml.tokens", tokens).remove("tokenizer.ggml.token_type");
        w.remove("tokenizer.ggml.bos_token_id");
        w.remove("tokenizer.ggml.eos_token_id");
    };
    broken_model(shorter, &["tokenizer.ggml.tokens", "expected 258", "found 200"]);
    let types = |w: &mut GgufWriter<'static>| {
        w.set("tokenizer.ggml.token_type", vec![1_i32; 7]);
    };
    broken_model(types, &["token_type", "258", "found 7"]);
}

#[test]
fn weights_that_are_not_numbers() {
    let mut w = tiny::writer();
    w.remove_tensor("output_norm.weight");
    w.tensor_f32("output_norm.weight", &[tiny::HIDDEN], &[f32::NAN; tiny::HIDDEN as usize]);
    let shell = Shell::new();
    shell.write("bad.gguf", w.to_bytes().unwrap());
    shell.brick("run bad.gguf hi").fails(1, &["NaN", "brick check"]);
    shell.brick("run bad.gguf hi --temperature 1 --json").fails(1, &["NaN"]);
    let found = shell.brick("check bad.gguf").run();
    assert_eq!(found.code, Some(3), "{found}");
    assert!(found.stdout.contains("first divergence: output_norm"), "{found}");
}

#[test]
fn a_chat_template_that_cannot_be_rendered() {
    let shell = Shell::new();
    for template in ["{% for m in messages %}", "{{ raise_exception('only in pairs') }}", "{{ messages.nothing.here }}"]
    {
        let mut w = tiny::writer();
        w.set("tokenizer.chat_template", template);
        shell.write("bad.gguf", w.to_bytes().unwrap());
        shell.brick("run bad.gguf hi").fails(1, &["template"]);
    }
}
