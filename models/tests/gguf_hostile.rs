//! Files that are wrong, by accident or on purpose: always one clear error, never a panic, never an absurd allocation.
#![allow(clippy::unwrap_used)]

mod gguf_common;

use brick_models::format::gguf::{FormatError, Gguf};
use gguf_common::{every_type, model, touch};
use proptest::prelude::*;

/// A file put together byte by byte, so that it can be wrong.
#[derive(Default)]
struct Raw(Vec<u8>);

impl Raw {
    /// Magic, version 3, counts.
    fn new(tensors: u64, entries: u64) -> Self {
        Self(Vec::new()).bytes(b"GGUF").u32(3).u64(tensors).u64(entries)
    }

    fn bytes(mut self, b: &[u8]) -> Self {
        self.0.extend_from_slice(b);
        self
    }

    fn u32(self, v: u32) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn u64(self, v: u64) -> Self {
        self.bytes(&v.to_le_bytes())
    }

    fn string(self, s: &[u8]) -> Self {
        self.u64(s.len() as u64).bytes(s)
    }

    fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let head = self.string(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(head, |raw, d| raw.u64(*d)).u32(type_id).u64(offset)
    }

    /// Padding to the data section, then `n` bytes of data.
    fn data(mut self, n: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + n, 0x11);
        self
    }

    fn open(self) -> Result<Gguf, FormatError> {
        Gguf::from_bytes(self.0)
    }

    fn error(self) -> String {
        self.open().unwrap_err().to_string()
    }
}

#[test]
fn counts_that_cannot_be_true() {
    for huge in [1 << 60, u64::MAX, 1 << 21, 1] {
        let tensors = Raw::new(huge, 0).error();
        assert_eq!(tensors, format!("number of tensors at byte 8 is {huge}, but at most 0 are possible here"));
        let entries = Raw::new(0, huge).error();
        assert_eq!(entries, format!("number of metadata keys at byte 16 is {huge}, but at most 0 are possible here"));
    }
    // Enough bytes for such a count, but more than is read.
    let many = Raw::new(0, (1 << 20) + 1).bytes(&vec![0; 14 << 21]).error();
    assert_eq!(many, "number of metadata keys at byte 16 is 1048577, but at most 1048576 are possible here");
}

#[test]
fn strings_and_arrays_longer_than_the_file() {
    let key = Raw::new(0, 1).u64(u64::MAX).bytes(&[b'k'; 64]).error();
    assert_eq!(key, "metadata key 0 at byte 24 has a length of 18446744073709551615, expected 1..=65535");
    let key = Raw::new(0, 1).u64(65).bytes(&[b'k'; 64]).error();
    assert_eq!(
        key,
        "metadata key 0 at byte 32 needs 65 bytes, but the file ends 64 bytes later: it is truncated or corrupt"
    );
    let value = Raw::new(0, 1).string(b"k").u32(8).u64(1 << 62).bytes(b"v").error();
    assert_eq!(
        value,
        "value of metadata key `k` at byte 45 needs 4611686018427387904 bytes, but the file ends 1 bytes later: it is truncated or corrupt"
    );
    for (element, len, limit) in [(0, 9, 8), (4, 3, 2), (7, 9, 8), (8, 2, 1), (9, 1, 0), (12, u64::MAX, 1)] {
        let array = Raw::new(0, 1).string(b"k").u32(9).u32(element).u64(len).bytes(&[0; 8]).error();
        assert_eq!(
            array,
            format!("array length of metadata key `k` at byte 41 is {len}, but at most {limit} are possible here")
        );
    }
}

#[test]
fn nesting_has_a_floor() {
    let nested = |depth: usize| {
        let raw = (0..depth).fold(Raw::new(0, 1).string(b"k").u32(9), |raw, _| raw.u32(9).u64(1));
        raw.u32(0).u64(1).bytes(&[5])
    };
    assert!(nested(7).open().is_ok());
    assert_eq!(nested(8).error(), "metadata key `k`: arrays nested more than 8 deep at byte 133");
    // Deep enough to overflow a stack, if the depth were not bounded.
    assert!(nested(1_000_000).error().contains("nested more than 8 deep"));
}

#[test]
fn values_that_do_not_exist() {
    let t = Raw::new(0, 1).string(b"k").u32(13).u64(0).error();
    assert_eq!(t, "metadata key `k`: expected a value type 0..=12 at byte 33, found 13");
    let element = Raw::new(0, 1).string(b"k").u32(9).u32(99).u64(0).error();
    assert_eq!(element, "metadata key `k`: expected a value type 0..=12 at byte 37, found 99");
    let boolean = Raw::new(0, 1).string(b"k").u32(7).bytes(&[2]).error();
    assert_eq!(boolean, "metadata key `k`: expected a boolean 0 or 1 at byte 37, found 2");
    let key = Raw::new(0, 1).string(b"a\xffb").u32(0).bytes(&[2]).error();
    assert_eq!(key, "metadata key 0 at byte 32 is not valid UTF-8 (first bad byte at 33)");
    let text = Raw::new(0, 1).string(b"k").u32(8).string(b"ab\xc3").error();
    assert_eq!(text, "value of metadata key `k` at byte 45 is not valid UTF-8 (first bad byte at 47)");
    // The same bytes are welcome in a list of tokens.
    let tokens = Raw::new(0, 1).string(b"k").u32(9).u32(8).u64(1).string(b"ab\xc3").open().unwrap();
    assert_eq!(tokens.metadata().get_array_str("k").unwrap().get(0), Some(&b"ab\xc3"[..]));
    let empty = Raw::new(0, 1).string(b"").u32(0).bytes(&[2; 9]).error();
    assert_eq!(empty, "metadata key 0 at byte 24 has a length of 0, expected 1..=65535");
}

#[test]
fn the_same_name_twice() {
    let keys = Raw::new(0, 2).string(b"k").u32(0).bytes(&[1]).string(b"k").u32(0).bytes(&[2]).error();
    assert_eq!(keys, "metadata key `k` occurs twice, at bytes 33 and 47");
    let tensors = Raw::new(2, 0).tensor("t", &[8], 0, 0).tensor("t", &[8], 0, 32).data(64).error();
    assert_eq!(tensors, "tensor `t` occurs twice");
}

#[test]
fn alignment_and_split_files() {
    for bad in [0_u32, 1, 4, 12, 48] {
        let e = Raw::new(0, 1).string(b"general.alignment").u32(4).u32(bad).error();
        assert_eq!(
            e,
            format!("metadata key `general.alignment`: expected a power of two of at least 8, found u32 {bad}")
        );
    }
    let huge = Raw::new(1, 1).string(b"general.alignment").u32(4).u32(1 << 31).tensor("t", &[8], 0, 0).data(64).error();
    assert!(huge.contains("begin at byte 2147483648, but the file has only"), "{huge}");
    let split = Raw::new(0, 1).string(b"split.count").u32(2).bytes(&[3, 0]).error();
    assert_eq!(
        split,
        "this is one of 3 parts of a split model (`split.count`); join them first (`llama-gguf-split --merge`)"
    );
    assert!(Raw::new(0, 1).string(b"split.count").u32(2).bytes(&[1, 0]).open().is_ok());
}

#[test]
fn tensors_with_impossible_shapes() {
    let with = |dims: &[u64], type_id| Raw::new(1, 0).tensor("t", dims, type_id, 0).data(64).error();
    assert_eq!(with(&[], 0), "tensor `t`: expected 1 to 4 dimensions at byte 33, found 0");
    assert_eq!(with(&[1; 5], 0), "tensor `t`: expected 1 to 4 dimensions at byte 33, found 5");
    assert_eq!(with(&[4, 0], 0), "tensor `t`: dimensions [4, 0] are not all positive");
    let too_large = |dims: &[u64]| format!("tensor `t`: dimensions {dims:?} are too large: their product does not fit");
    for dims in [&[1 << 40, 1 << 40][..], &[u64::MAX], &[1 << 63], &[1 << 20; 4]] {
        assert_eq!(with(dims, 0), too_large(dims));
        assert_eq!(with(dims, 1000), too_large(dims));
    }
    // The values fit, their bytes do not; of an unknown type only the values can be counted.
    assert_eq!(with(&[1 << 61], 0), too_large(&[1 << 61]));
    assert!(Raw::new(1, 0).tensor("t", &[1 << 61], 1000, 0).data(64).open().is_ok());
    assert_eq!(with(&[31], 8), "tensor `t`: rows of 31 values do not divide into Q8_0 blocks of 32");
    assert_eq!(with(&[128], 12), "tensor `t`: rows of 128 values do not divide into Q4_K blocks of 256");
}

#[test]
fn tensors_in_impossible_places() {
    let at = |dims: &[u64], offset| Raw::new(1, 0).tensor("t", dims, 0, offset).data(64);
    assert!(at(&[16], 0).open().is_ok());
    assert!(at(&[8], 32).open().is_ok());
    assert_eq!(at(&[4], 4).error(), "tensor `t`: expected an offset that is a multiple of 32, found 4");
    let outside = "bytes of data begin at byte";
    assert_eq!(
        at(&[17], 0).error(),
        "tensor `t`: its 68 bytes of data begin at byte 64, but the file has only 128 bytes: it is truncated or corrupt"
    );
    for (dims, offset) in [(&[9][..], 32), (&[1], 64), (&[1], 1 << 60), (&[1], u64::MAX - 31), (&[1 << 50], 0)] {
        let e = at(dims, offset).error();
        assert!(e.contains(outside), "{e}");
    }
    let overlap = Raw::new(2, 0).tensor("late", &[8], 0, 32).tensor("early", &[9], 0, 0).data(64).error();
    assert_eq!(overlap, "tensors `early` and `late` overlap at byte 160");
    let same = Raw::new(2, 0).tensor("a", &[8], 1000, 0).tensor("b", &[8], 1000, 0).data(64).error();
    assert_eq!(same, "tensors `a` and `b` overlap at byte 96");
}

#[test]
fn unknown_types_are_listed_but_not_read() {
    for (type_id, name, n_bytes) in [(16, "IQ2_XXS", Some(66)), (1000, "unknown", None)] {
        let gguf = Raw::new(1, 0).tensor("t", &[256], type_id, 0).data(96).open().unwrap();
        let t = gguf.tensor("t").unwrap();
        assert_eq!((t.dtype, t.type_name(), t.n_bytes), (None, name, n_bytes));
        let expected = FormatError::UnsupportedType { tensor: "t".into(), type_id, type_name: name };
        assert_eq!(gguf.bytes(t), Err(expected.clone()));
        assert_eq!(t.shape(), Err(expected.clone()));
        assert_eq!(expected.to_string(), format!("tensor `t`: storage type {type_id} ({name}) is not supported"));
    }
}

#[test]
fn a_tensor_of_another_file_is_refused() {
    let small = Raw::new(1, 0).tensor("t", &[1], 0, 0).data(4).open().unwrap();
    let large = Raw::new(1, 0).tensor("t", &[100], 0, 0).data(400).open().unwrap();
    let e = small.bytes(large.tensor("t").unwrap()).unwrap_err();
    assert!(matches!(e, FormatError::TensorRange { size: Some(400), .. }));
}

#[test]
fn versions_and_byte_orders() {
    let version = |v: u32| Raw::default().bytes(b"GGUF").u32(v).u64(0).u64(0);
    assert_eq!(version(2).open().unwrap().version(), 2);
    assert_eq!(version(3).open().unwrap().version(), 3);
    assert_eq!(version(4).error(), "expected GGUF version 2 or 3 at byte 4, found 4");
    assert_eq!(
        version(1).error(),
        "expected GGUF version 2 or 3 at byte 4, found 1 (obsolete since 2023: convert the model again)"
    );
    let big = version(3_u32.swap_bytes()).error();
    assert!(big.contains("big-endian GGUF file (version 3"), "{big}");
}

#[test]
fn files_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let message = |path: &std::path::Path| {
        let e = Gguf::open(path).unwrap_err();
        let source = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
        (e.to_string(), source)
    };
    let (what, _) = message(dir.path());
    assert!(what.ends_with("is a directory, expected a GGUF file"), "{what}");
    let (what, why) = message(&dir.path().join("missing.gguf"));
    assert!(what.starts_with("cannot open ") && what.ends_with("missing.gguf") && !why.is_empty(), "{what}: {why}");
    for (bytes, expected) in [
        (&b""[..], "the file is empty (0 bytes)"),
        (
            b"G",
            "expected the magic bytes \"GGUF\" at byte 0, found \"G\": this looks like the beginning of a GGUF file, cut off",
        ),
        (b"GGUF\x03", "version at byte 4 needs 4 bytes, but the file ends 1 bytes later: it is truncated or corrupt"),
        (
            b"PK\x03\x04",
            "expected the magic bytes \"GGUF\" at byte 0, found \"PK\\x03\\x04\": this looks like a zip archive (PyTorch checkpoints and wheels are zip archives)",
        ),
    ] {
        let path = dir.path().join("file");
        std::fs::write(&path, bytes).unwrap();
        let (what, why) = message(&path);
        assert!(what.ends_with("file is not a usable GGUF file"), "{what}");
        assert_eq!(why, expected);
    }
}

#[cfg(unix)]
#[test]
fn a_device_is_not_a_file() {
    let e = Gguf::open("/dev/null").unwrap_err();
    assert!(e.to_string().contains("is not a regular file"), "{e}");
}

/// Cut anywhere before the last byte of the last tensor, a file is refused; nothing panics.
#[test]
fn truncation_at_every_byte() {
    for bytes in [every_type().to_bytes().unwrap(), model("qwen2").to_bytes().unwrap()] {
        let whole = Gguf::from_bytes(bytes.clone()).unwrap();
        let end = whole.tensors().iter().map(|t| t.offset + t.n_bytes.unwrap()).max().unwrap() as usize;
        let data = whole.tensors().iter().map(|t| t.offset).min().unwrap() as usize;
        // Every byte of the head, then (all the same) a sample of the data.
        for cut in (0..data).chain((data..end).step_by(997)).chain([end - 1]) {
            assert!(touch(&bytes[..cut]).is_none(), "cut at {cut} of {end} is accepted");
        }
        assert!(touch(&bytes[..end]).is_some());
    }
}

/// Every byte of the head in turn set to each of a few telling values.
#[test]
fn one_wrong_byte_anywhere() {
    let bytes = every_type().to_bytes().unwrap();
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, bytes[at].wrapping_add(1), bytes[at].wrapping_sub(1)] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            touch(&wrong);
        }
    }
}

/// Everything the fuzzer found worth keeping (`models/fuzz`).
#[test]
fn the_fuzz_corpus_never_panics() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/gguf_parse");
    let mut accepted = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        accepted += usize::from(touch(&std::fs::read(entry.unwrap().path()).unwrap()).is_some_and(|spec| spec.is_ok()));
    }
    // The seeds of both architectures are whole models.
    assert!(accepted >= 2, "{accepted}");
}

/// Changes to a file: (where, what).
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, Mutation)>> {
    let kind = prop_oneof![
        any::<u8>().prop_map(Mutation::Byte),
        prop_oneof![Just(0), Just(u64::MAX), Just(1 << 60), Just(1 << 31), 0_u64..300].prop_map(Mutation::Word),
        Just(Mutation::Cut),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Mutation::Insert),
        (1_usize..40).prop_map(Mutation::Delete),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), kind), 1..6)
}

#[derive(Debug, Clone)]
enum Mutation {
    Byte(u8),
    Word(u64),
    Cut,
    Insert(Vec<u8>),
    Delete(usize),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn damaged_files_never_panic(pick in 0_usize..3, changes in mutations()) {
        let mut bytes = match pick {
            0 => every_type().to_bytes().unwrap(),
            1 => model("llama").to_bytes().unwrap(),
            _ => model("qwen2").to_bytes().unwrap(),
        };
        // Most changes to the data change nothing: look for the head.
        let head = Gguf::from_bytes(bytes.clone()).unwrap().tensors().iter().map(|t| t.offset).min().unwrap() as usize;
        for (index, change) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len().min(head));
            match change {
                Mutation::Byte(b) => bytes[at] = b,
                Mutation::Word(w) => {
                    let end = (at + 8).min(bytes.len());
                    bytes[at..end].copy_from_slice(&w.to_le_bytes()[..end - at]);
                }
                Mutation::Cut => bytes.truncate(at),
                Mutation::Insert(new) => drop(bytes.splice(at..at, new)),
                Mutation::Delete(n) => drop(bytes.drain(at..(at + n).min(bytes.len()))),
            }
        }
        touch(&bytes);
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..400)) {
        touch(&noise);
        let mut headed = b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0".to_vec();
        headed.extend(noise);
        touch(&headed);
    }
}
