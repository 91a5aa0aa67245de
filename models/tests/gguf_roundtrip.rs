//! What the writer writes, the reader reads.
#![allow(clippy::unwrap_used)]

mod gguf_common;

use brick_models::format::gguf::writer::WriteError;
use brick_models::format::gguf::{FormatError, Gguf, GgufWriter, MetadataError, Value, ValueType};
use bricks::DType;
use gguf_common::{done, every_type, file};
use proptest::prelude::*;

#[test]
fn every_metadata_type_comes_back() {
    let gguf = file(&every_type());
    let m = gguf.metadata();
    assert_eq!(m.value("u8"), Some(Value::U8(200)));
    assert_eq!(m.value("i8"), Some(Value::I8(-100)));
    assert_eq!(m.value("u16"), Some(Value::U16(60_000)));
    assert_eq!(m.value("i16"), Some(Value::I16(-30_000)));
    assert_eq!(m.value("u32"), Some(Value::U32(4_000_000_000)));
    assert_eq!(m.value("i32"), Some(Value::I32(-2_000_000_000)));
    assert_eq!(m.value("u64"), Some(Value::U64(u64::MAX)));
    assert_eq!(m.value("i64"), Some(Value::I64(i64::MIN)));
    assert_eq!(m.value("f32"), Some(Value::F32(0.1)));
    assert_eq!(m.value("f64"), Some(Value::F64(0.1)));
    assert_eq!(m.value("bool"), Some(Value::Bool(true)));
    assert_eq!(m.get_str("string"), Ok("Grüße"));
    assert_eq!(m.get_str("empty"), Ok(""));
    assert_eq!(m.get_array_i32("array"), Ok(vec![1, -2, 3]));
    assert_eq!(m.get::<Vec<u32>>("none"), Ok(vec![]));
    let tokens = m.get_array_str("tokens").unwrap();
    assert_eq!(tokens.iter().collect::<Vec<_>>(), [&b"\xf0\x9f"[..], b"", b"tok", b"\xff"]);
    assert_eq!(
        (tokens.get(2), tokens.get_str(2), tokens.get_str(3), tokens.get(4)),
        (Some(&b"tok"[..]), Some("tok"), None, None)
    );
    let Some(Value::Array(nested)) = m.value("nested") else { panic!("not an array") };
    assert_eq!((nested.element_type(), nested.len()), (ValueType::Array, 3));
    assert_eq!(m.value("nested").unwrap().to_string(), r#"[["a", "b"], [], ["c"]]"#);
    assert_eq!(m.len(), 18);
}

#[test]
fn tensors_come_back_aligned() {
    let mut w = every_type();
    w.set("general.alignment", 64_u32);
    let gguf = file(&w);
    assert_eq!((gguf.version(), gguf.alignment()), (3, 64));
    let a = gguf.tensor("a").unwrap();
    assert_eq!((a.dims.as_slice(), a.dtype, a.n_bytes), (&[3, 2][..], Some(DType::F32), Some(24)));
    let shape = a.shape().unwrap();
    assert_eq!((shape.rows, shape.cols), (2, 3));
    assert_eq!(gguf.bytes(a).unwrap()[4..8], 1.0_f32.to_le_bytes());
    assert_eq!(gguf.bytes(gguf.tensor("b").unwrap()).unwrap(), [7; 34]);
    assert!(gguf.tensors().iter().all(|t| t.offset % 64 == 0));
    assert_eq!(gguf.tensor("d"), None);
    assert_eq!(gguf.require("d"), Err(FormatError::MissingTensor { tensor: "d".into() }));
}

#[test]
fn typed_getters_widen_integers_and_explain_refusals() {
    let gguf = file(&every_type());
    let m = gguf.metadata();
    assert_eq!(
        (m.get_u32("u8"), m.get_u32("u16"), m.get_u64("u32"), m.get::<i64>("i8")),
        (Ok(200), Ok(60_000), Ok(4_000_000_000), Ok(-100))
    );
    assert_eq!(m.get_f32("f64"), Ok(0.1));
    assert_eq!(m.opt::<u32>("absent"), Ok(None));
    assert_eq!(
        m.get_u32("absent"),
        Err(MetadataError::Missing { key: "absent".into(), expected: "an integer 0..=4294967295" })
    );
    for (found, expected) in [
        (m.get_u32("i32").map(drop), "metadata key `i32`: expected an integer 0..=4294967295, found i32 -2000000000"),
        (m.get_bool("u8").map(drop), "metadata key `u8`: expected a boolean, found u8 200"),
        (m.get_f32("u8").map(drop), "metadata key `u8`: expected a float, found u8 200"),
        (
            m.get_str("array").map(drop),
            "metadata key `array`: expected a string, found an array of 3 values of type i32",
        ),
        (
            m.get_u32("string").map(drop),
            "metadata key `string`: expected an integer 0..=4294967295, found string \"Grüße\"",
        ),
        (
            m.get_array_str("array").map(drop),
            "metadata key `array`: expected an array of strings, found an array of 3 values of type i32",
        ),
        (
            m.get_array_f32("array").map(drop),
            "metadata key `array`: expected an array of floats, found an array of 3 values of type i32",
        ),
    ] {
        assert_eq!(found.unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let refused = |edit: &dyn Fn(&mut GgufWriter<'static>)| {
        let mut w = every_type();
        edit(&mut w);
        w.to_bytes().unwrap_err()
    };
    let too_short = refused(&|w| done(w.tensor("d", &[4], DType::F32, vec![0; 15])));
    assert!(matches!(too_short, WriteError::DataLength { expected: 16, found: 15, .. }), "{too_short}");
    let produced =
        |n: usize| refused(&move |w| done(w.tensor_with("d", &[4], DType::F32, move |out| out.write_all(&vec![1; n]))));
    assert!(matches!(produced(15), WriteError::DataLength { expected: 16, found: 15, .. }));
    assert!(matches!(produced(17), WriteError::DataLength { expected: 16, found: 17, .. }));
    let invalid = |e: WriteError| match e {
        WriteError::Invalid(e) => e,
        other => panic!("{other}"),
    };
    let duplicate = invalid(refused(&|w| done(w.tensor("a", &[1], DType::F32, vec![0; 4]))));
    assert_eq!(duplicate, FormatError::DuplicateTensor { tensor: "a".into() });
    let row = invalid(refused(&|w| done(w.tensor("d", &[31], DType::Q8_0, vec![0; 34]))));
    assert!(matches!(row, FormatError::RowLength { row: 31, block: 32, .. }));
    let dims = invalid(refused(&|w| done(w.tensor("d", &[1; 5], DType::F32, vec![0; 4]))));
    assert!(matches!(dims, FormatError::Dimensions { found: 5, .. }));
    let key = invalid(refused(&|w| done(w.set("", 1_u8))));
    assert!(matches!(key, FormatError::NameLength { len: 0, .. }));
    let alignment = invalid(refused(&|w| done(w.set("general.alignment", 48_u32))));
    assert_eq!(alignment, FormatError::Alignment { found: "u32 48".into() });
}

#[test]
fn files_appear_complete_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let names = || std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();

    let mut broken = every_type();
    broken.tensor_with("d", &[4], DType::F32, |_| Err(std::io::Error::other("disk on fire")));
    assert!(broken.write_file(&path).unwrap_err().to_string().contains("cannot write"));
    assert!(names().is_empty(), "{:?}", names());

    every_type().write_file(&path).unwrap();
    assert_eq!(names(), ["model.gguf"]);
    let mapped = Gguf::open(&path).unwrap();
    assert_eq!(mapped.path(), Some(path.as_path()));
    assert_eq!(mapped.file_size(), every_type().to_bytes().unwrap().len() as u64);

    // Replacing the file leaves the open map what it was.
    let before = mapped.bytes(mapped.tensor("b").unwrap()).unwrap().to_vec();
    let mut other = GgufWriter::new();
    other.set("other", 1_u8);
    other.write_file(&path).unwrap();
    mapped.prefetch();
    assert_eq!(mapped.bytes(mapped.tensor("b").unwrap()).unwrap(), before);
    assert_eq!(Gguf::open(&path).unwrap().metadata().get_u32("other"), Ok(1));

    let nowhere = dir.path().join("missing").join("model.gguf");
    assert!(every_type().write_file(&nowhere).unwrap_err().to_string().contains("model.gguf"));
}

/// A metadata value with its expected view.
#[derive(Debug, Clone)]
enum Meta {
    Int(i64),
    Float(f32),
    Bool(bool),
    Text(String),
    Ints(Vec<i32>),
    Floats(Vec<f64>),
    Tokens(Vec<Vec<u8>>),
    Nested(Vec<Vec<String>>),
}

fn meta() -> impl Strategy<Value = Meta> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..12);
    prop_oneof![
        any::<i64>().prop_map(Meta::Int),
        any::<f32>().prop_map(Meta::Float),
        any::<bool>().prop_map(Meta::Bool),
        ".{0,20}".prop_map(Meta::Text),
        prop::collection::vec(any::<i32>(), 0..20).prop_map(Meta::Ints),
        prop::collection::vec(any::<f64>(), 0..20).prop_map(Meta::Floats),
        prop::collection::vec(bytes(), 0..20).prop_map(Meta::Tokens),
        prop::collection::vec(prop::collection::vec("[a-zé]{0,5}", 0..4), 0..4).prop_map(Meta::Nested),
    ]
}

proptest! {
    #[test]
    fn round_trip(
        entries in prop::collection::btree_map("[a-z][a-z.]{0,15}", meta(), 0..10),
        tensors in prop::collection::btree_map("[a-z_]{1,20}", (prop::sample::select(DType::ALL), 1_u64..4, prop::collection::vec(1_u64..4, 0..4), any::<u8>()), 0..8),
        alignment in prop::option::of(prop::sample::select(&[8_u32, 32, 64, 4096][..])),
    ) {
        let mut w = GgufWriter::new();
        if let Some(a) = alignment {
            w.set("general.alignment", a);
        }
        for (key, value) in &entries {
            match value {
                Meta::Int(v) => w.set(key, *v),
                Meta::Float(v) => w.set(key, *v),
                Meta::Bool(v) => w.set(key, *v),
                Meta::Text(v) => w.set(key, v.as_str()),
                Meta::Ints(v) => w.set(key, v.as_slice()),
                Meta::Floats(v) => w.set(key, v.as_slice()),
                Meta::Tokens(v) => w.set_byte_strings(key, v),
                Meta::Nested(v) => w.set(key, v.as_slice()),
            };
        }
        let mut data = Vec::new();
        for (name, (dtype, blocks, rest, fill)) in &tensors {
            let mut dims = vec![blocks * dtype.block_len() as u64];
            dims.extend(rest.iter().take(3));
            let rows: u64 = dims[1..].iter().product();
            let bytes = vec![*fill; (blocks * rows) as usize * dtype.block_bytes()];
            w.tensor(name, &dims, *dtype, bytes.clone());
            data.push((name, dims, *dtype, bytes));
        }
        let written = w.to_bytes().unwrap();
        prop_assert_eq!(&written, &w.to_bytes().unwrap());

        let gguf = Gguf::from_bytes(written.clone()).unwrap();
        let m = gguf.metadata();
        prop_assert_eq!(m.len(), entries.len() + usize::from(alignment.is_some()));
        for (key, value) in &entries {
            match value {
                Meta::Int(v) => prop_assert_eq!(m.get::<i64>(key), Ok(*v)),
                Meta::Float(v) => prop_assert_eq!(m.get_f32(key).unwrap().to_bits(), v.to_bits()),
                Meta::Bool(v) => prop_assert_eq!(m.get_bool(key), Ok(*v)),
                Meta::Text(v) => prop_assert_eq!(m.get_str(key), Ok(v.as_str())),
                Meta::Ints(v) => prop_assert_eq!(&m.get_array_i32(key).unwrap(), v),
                Meta::Floats(v) => prop_assert_eq!(m.get_array_f32(key).unwrap().len(), v.len()),
                Meta::Tokens(v) => prop_assert!(m.get_array_str(key).unwrap().iter().eq(v.iter().map(Vec::as_slice))),
                Meta::Nested(v) => {
                    let Some(Value::Array(outer)) = m.value(key) else { panic!("not an array") };
                    prop_assert_eq!(outer.len(), v.len());
                    for (found, expected) in outer.iter().zip(v) {
                        let Value::Array(inner) = found else { panic!("not nested") };
                        prop_assert!(inner.iter().map(|s| s.as_str().unwrap()).eq(expected.iter().map(String::as_str)));
                    }
                }
            }
        }
        prop_assert_eq!(gguf.tensors().len(), data.len());
        for (name, dims, dtype, bytes) in &data {
            let t = gguf.tensor(name).unwrap();
            prop_assert_eq!((&t.dims, t.dtype), (dims, Some(*dtype)));
            prop_assert_eq!(t.offset % gguf.alignment(), 0);
            prop_assert_eq!(gguf.bytes(t).unwrap(), bytes.as_slice());
        }

        // A copy made through the reader is the same file.
        let mut copy = GgufWriter::new();
        for (key, value) in m.iter() {
            copy.set(key, value);
        }
        for t in gguf.tensors() {
            copy.tensor(&t.name, &t.dims, t.dtype.unwrap(), gguf.bytes(t).unwrap());
        }
        prop_assert_eq!(copy.to_bytes().unwrap(), written);
    }
}

#[test]
fn data_is_copied_as_it_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, every_type().to_bytes().unwrap()).unwrap();
    for gguf in [Gguf::open(&path).unwrap(), file(&every_type())] {
        let a = gguf.tensor("a").unwrap();
        let mut out = [0; 12];
        gguf.read(a, 8, &mut out).unwrap();
        assert_eq!(out, gguf.bytes(a).unwrap()[8..20]);
        for at in [13, 24, usize::MAX] {
            assert!(gguf.read(a, at, &mut out).is_err(), "{at}");
        }
        gguf.release(a);
        gguf.release_metadata();
        gguf.release_all();
        assert_eq!(out, gguf.bytes(a).unwrap()[8..20], "pages come back");
        assert_eq!(gguf.metadata().get_str("string"), Ok("Grüße"));
    }
}

#[cfg(unix)]
#[test]
fn copying_from_a_file_that_was_shortened_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, every_type().to_bytes().unwrap()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let a = gguf.tensor("a").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(a.offset + 8).unwrap();
    assert!(gguf.read(a, 0, &mut [0; 8]).is_ok());
    assert_eq!(gguf.read(a, 0, &mut [0; 9]).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}
