//! Synthetic models: their names, sizes, storage types and numbers.
#![allow(clippy::unwrap_used)]

use brick_models::arch::ArchSpec;
use brick_models::build::build_graph;
use brick_models::format::gguf::Gguf;
use brick_models::synthetic::{PREFIX, SHAPES, Shape, Synthetic, Types};
use brick_models::tokenizer::{EncodeOptions, Tokenizer};
use bricks::{DType, quant};
use sha2::{Digest, Sha256};

fn synthetic(name: &str) -> Synthetic {
    name.parse().unwrap()
}

#[test]
fn names() {
    for shape in SHAPES {
        for types in Types::all() {
            let model = Synthetic { shape, types };
            assert_eq!(model.to_string().parse::<Synthetic>().unwrap(), model);
            assert_eq!(model.to_string().to_uppercase()[PREFIX.len()..].parse::<Synthetic>().unwrap(), model);
        }
    }
    for (text, expected) in [
        ("tiny", "expected SHAPE:TYPE, such as qwen2.5-coder-1.5b:q4_k_m, found `tiny`"),
        ("", "found ``"),
        ("huge:q4_0", "qwen2.5-coder-32b, smollm2-135m, tiny, found `huge`"),
        ("tiny:q3_k", "expected a type of q4_0, q4_1, q4_k, q4_k_m, q5_k, q6_k, q8_0, f16, bf16, found `q3_k`"),
        ("tiny:q4_0:x", "found `q4_0:x`"),
    ] {
        let error = text.parse::<Synthetic>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

/// Published: model cards of Qwen2.5-Coder (in thousand millions) and SmolLM2.
#[test]
fn shapes_have_the_published_number_of_parameters() {
    for (name, published) in [
        ("qwen2.5-coder-0.5b", 0.49e9),
        ("qwen2.5-coder-1.5b", 1.54e9),
        ("qwen2.5-coder-3b", 3.09e9),
        ("qwen2.5-coder-7b", 7.61e9),
        ("qwen2.5-coder-32b", 32.5e9),
        ("smollm2-135m", 135e6),
    ] {
        let found = synthetic(&format!("{name}:q8_0")).parameters() as f64;
        assert!((found / published - 1.0).abs() < 0.01, "{name}: {found}");
    }
}

/// The published qwen2.5-coder-1.5b-instruct-q4_k_m.gguf: 169 tensors in Q4_K, 29 in Q6_K, 1,117,320,768 bytes.
#[test]
fn q4_k_m_is_mixed_as_in_the_published_file() {
    let gguf = synthetic("qwen2.5-coder-1.5b:q4_k_m").gguf().unwrap();
    let count = |dtype| gguf.tensors().iter().filter(|t| t.dtype == Some(dtype)).count();
    assert_eq!((count(DType::Q4_K), count(DType::Q6_K)), (169, 29));
    let ratio = gguf.file_size() as f64 / 1_117_320_768.0;
    assert!((ratio - 1.0).abs() < 0.01, "{}", gguf.file_size());
}

#[test]
fn rows_that_are_no_multiple_of_256_fall_back() {
    let types = |name: &str| {
        let gguf = synthetic(name).gguf().unwrap();
        ["token_embd", "blk.0.attn_q", "blk.0.attn_v", "blk.12.attn_v", "blk.0.ffn_down", "blk.6.ffn_down"]
            .map(|t| gguf.tensor(&format!("{t}.weight")).unwrap().type_name())
    };
    assert_eq!(types("smollm2-135m:q4_k_m"), ["Q8_0", "Q5_0", "Q8_0", "Q5_0", "Q6_K", "Q4_K"]);
    assert_eq!(types("qwen2.5-coder-0.5b:q4_k_m"), ["Q5_0", "Q5_0", "Q8_0", "Q5_0", "Q6_K", "Q4_K"]);
    assert_eq!(types("smollm2-135m:q5_k"), ["Q5_1", "Q5_1", "Q5_1", "Q5_1", "Q5_K", "Q5_K"]);
    assert_eq!(types("smollm2-135m:q6_k"), ["Q8_0", "Q8_0", "Q8_0", "Q8_0", "Q6_K", "Q6_K"]);
}

#[test]
fn every_shape_makes_a_graph_and_a_vocabulary() {
    for shape in SHAPES {
        let gguf = Synthetic { shape, types: Types::Q4KM }.gguf().unwrap();
        let spec = ArchSpec::from_gguf(&gguf).unwrap();
        assert_eq!((spec.n_layers, spec.hidden, spec.vocab), (shape.layers, shape.hidden, shape.vocab));
        assert_eq!(spec.name.as_deref(), Some(&*format!("synthetic:{}:q4_k_m", shape.name)));
        build_graph(&spec, &|name| gguf.tensor(name).and_then(|t| t.shape().ok())).unwrap();
        let tokenizer = Tokenizer::from_gguf(&gguf.metadata()).unwrap();
        assert_eq!(tokenizer.vocab_size(), shape.vocab);
        let ids =
            tokenizer.encode("Hi <|im_end|>", EncodeOptions { parse_special: true, ..Default::default() }).unwrap();
        assert_eq!(ids, [u32::from(b'H'), u32::from(b'i'), u32::from(b' '), shape.vocab as u32 - 1]);
    }
}

#[test]
fn decoded_values_have_the_wanted_mean_and_spread() {
    for types in Types::all() {
        // Of "tiny" all K types, of SmolLM2 their substitutes; `ffn_down` has the smallest values.
        for (shape, name) in
            [("tiny", "blk.1.ffn_up"), ("smollm2-135m", "blk.9.attn_k"), ("smollm2-135m", "blk.9.ffn_down")]
        {
            let model = Synthetic { shape: Shape::find(shape).unwrap(), types };
            let gguf = model.gguf().unwrap();
            let tensor = gguf.tensor(&format!("{name}.weight")).unwrap();
            let s = tensor.shape().unwrap();
            let mut row = vec![0.0; s.cols];
            let mut values = Vec::new();
            for bytes in gguf.bytes(tensor).unwrap().chunks(s.dtype.row_bytes(s.cols).unwrap()) {
                quant::decode_row(s.dtype, bytes, &mut row).unwrap();
                values.extend(row.iter().map(|v| f64::from(*v)));
            }
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let std = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            let residual = if name.ends_with("down") { 60.0_f64.sqrt() } else { 1.0 };
            let wanted = 1.0 / (s.cols as f64).sqrt() / residual;
            assert!((std / wanted - 1.0).abs() < 0.03, "{model} {name} {}: {std} {wanted}", s.dtype);
            assert!((mean / wanted).abs() < 0.02, "{model} {name} {}: {mean} {wanted}", s.dtype);
        }
    }
}

/// On every machine, with any number of threads: bytes made whole (on all processors) and in odd pieces.
#[test]
fn bytes_depend_on_nothing_but_their_place() {
    let mut all = Sha256::new();
    for types in Types::all() {
        let (whole, parts) = (Synthetic { shape: Shape::find("tiny").unwrap(), types }, synthetic("tiny:q8_0"));
        let (whole, parts) = (whole.gguf().unwrap(), Synthetic { types, ..parts }.gguf().unwrap());
        for t in whole.tensors() {
            let bytes = whole.bytes(t).unwrap();
            let mut pieces = vec![0; bytes.len()];
            // Backwards, so that nothing is carried from one to the next.
            let starts: Vec<usize> = (0..bytes.len()).step_by(1013).collect();
            for &at in starts.iter().rev() {
                let end = (at + 1013).min(bytes.len());
                parts.read(t, at, &mut pieces[at..end]).unwrap();
            }
            assert!(bytes == pieces, "{} of {}", t.name, types.name());
            all.update(bytes);
        }
    }
    let found = format!("{:x}", all.finalize());
    assert_eq!(found, HASH);
}

/// Of the tensors of `tiny` in all types.
const HASH: &str = "a21848db16d6ccf92e2c8d730a77fafbc47c5766375871cea013bb8840e04a56";

#[test]
fn a_large_tensor_is_the_same_whole_and_in_parts() {
    let gguf = synthetic("smollm2-135m:q6_k").gguf().unwrap();
    let again = synthetic("smollm2-135m:q6_k").gguf().unwrap();
    let t = gguf.tensor("token_embd.weight").unwrap();
    let bytes = gguf.bytes(t).unwrap();
    // Several pieces of different threads.
    assert!(bytes.len() > 20 << 20);
    let mut part = vec![0; 3 << 20];
    for at in [0, 12_345_678, bytes.len() - part.len()] {
        again.read(t, at, &mut part).unwrap();
        assert!(bytes[at..at + part.len()] == part, "{at}");
        gguf.read(t, at, &mut part).unwrap();
        assert!(bytes[at..at + part.len()] == part, "{at}");
    }
    assert!(gguf.read(t, bytes.len() - 1, &mut [0; 2]).is_err());
    gguf.release(t);
    gguf.release_all();
    assert!(std::ptr::eq(gguf.bytes(t).unwrap(), bytes));
}

#[test]
fn a_written_file_is_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    let model = synthetic("tiny:q4_k_m");
    model.write_file(&path).unwrap();
    let (file, made) = (Gguf::open(&path).unwrap(), model.gguf().unwrap());
    assert_eq!(file.file_size(), made.file_size());
    assert_eq!(file.tensors(), made.tensors());
    for t in made.tensors() {
        assert!(file.bytes(t).unwrap() == made.bytes(t).unwrap(), "{}", t.name);
    }
}

#[test]
fn a_large_model_costs_nothing_before_it_is_read() {
    let model = synthetic("qwen2.5-coder-32b:q4_k_m");
    assert!((19e9..21e9).contains(&(model.memory() as f64)), "{}", model.memory());
    let gguf = model.gguf().unwrap();
    assert!(gguf.file_size() > 19_000_000_000);
    // The last bytes of the last matrix, alone.
    let head = gguf.tensor("output.weight").unwrap();
    let mut end = [0; 100];
    gguf.read(head, head.n_bytes.unwrap() as usize - end.len(), &mut end).unwrap();
    assert_ne!(end, [0; 100]);
}
