//! The same model in other storage types.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use bricks::{DType, WeightShape, quant};

use super::writer::{GgufWriter, WriteError};
use super::{FormatError, Gguf, TensorInfo};

/// Values decoded at a time, at least one row: bounds memory and keeps writes large.
const CHUNK_VALUES: usize = 1 << 18;

/// A file could not be requantised.
#[derive(Debug, thiserror::Error)]
pub enum RequantizeError {
    /// A tensor of the source cannot be decoded.
    #[error("cannot read the source")]
    Source(#[from] FormatError),
    /// A tensor cannot be stored as the type that was chosen for it.
    #[error("tensor `{tensor}` cannot be stored as {dtype}")]
    Target {
        /// The tensor.
        tensor: String,
        /// The type.
        dtype: DType,
        /// The reason.
        source: quant::QuantError,
    },
    /// The result could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Writes a copy of a model with other storage types to `path`, complete or not at all; `path` may be the source's own.
///
/// `choose` gives the type of each matrix: any type with an encoder (F32, F16, BF16, Q4_0, Q4_1, Q8_0), or the type the
/// matrix has, which copies its bytes. Vectors (norms, biases) become F32 whatever they were. Metadata is kept, but
/// `general.file_type` is set to the type that holds most values. Rows are converted a few at a time, so memory does not grow
/// with the model. The same input gives the same bytes.
///
/// # Errors
/// [`RequantizeError`] names the tensor that cannot be decoded or stored, or says what could not be written.
pub fn requantize(
    src: &Gguf,
    path: impl AsRef<Path>,
    choose: impl Fn(&TensorInfo) -> DType,
) -> Result<(), RequantizeError> {
    plan(src, choose)?.write_file(path)?;
    Ok(())
}

/// The writer of the copy; conversions run when it writes.
fn plan(src: &Gguf, choose: impl Fn(&TensorInfo) -> DType) -> Result<GgufWriter<'_>, RequantizeError> {
    let mut w = GgufWriter::new();
    for (key, value) in src.metadata().iter() {
        w.set(key, value);
    }
    // The writer reads the alignment as the format defines it.
    if src.metadata().value("general.alignment").is_some() {
        w.set("general.alignment", src.alignment() as u32);
    }
    let mut values_of = BTreeMap::<DType, u64>::new();
    for t in src.tensors() {
        let shape = t.shape()?;
        let data = src.bytes(t)?;
        let target = if t.is_vector() { DType::F32 } else { choose(t) };
        *values_of.entry(target).or_default() += t.n_values();
        if target == shape.dtype {
            w.tensor(&t.name, &t.dims, target, data);
            continue;
        }
        let target_error = |source| RequantizeError::Target { tensor: t.name.clone(), dtype: target, source };
        // An empty row asks only whether there is an encoder; a row of zeros also whether it divides into blocks.
        let row_bytes = target.row_bytes(shape.cols).unwrap_or(0);
        quant::encode_row(target, &vec![0.0; shape.cols], &mut vec![0; row_bytes]).map_err(target_error)?;
        w.tensor_with(&t.name, &t.dims, target, move |out| convert(data, shape, target, out));
    }
    let most = values_of.iter().max_by_key(|(_, n)| **n).map(|(t, _)| *t);
    if let Some(file_type) = most.and_then(file_type) {
        w.set("general.file_type", file_type);
    }
    if values_of.keys().any(|t| !t.is_float()) && src.metadata().value("general.quantization_version").is_none() {
        w.set("general.quantization_version", 2_u32);
    }
    Ok(w)
}

/// Decodes and encodes all rows of a matrix.
fn convert(data: &[u8], shape: WeightShape, target: DType, out: &mut dyn Write) -> io::Result<()> {
    let overflow = || io::Error::other("a row exceeds the address space");
    let from = shape.dtype.row_bytes(shape.cols).filter(|n| *n > 0).ok_or_else(overflow)?;
    let to = target.row_bytes(shape.cols).filter(|n| *n > 0).ok_or_else(overflow)?;
    let rows = (CHUNK_VALUES / shape.cols).max(1).min(shape.rows);
    let mut values = vec![0.0; shape.cols];
    let mut encoded = vec![0; rows * to];
    for chunk in data.chunks(rows * from) {
        let mut written = 0;
        for (src, dst) in chunk.chunks_exact(from).zip(encoded.chunks_exact_mut(to)) {
            quant::decode_row(shape.dtype, src, &mut values).map_err(io::Error::other)?;
            quant::encode_row(target, &values, dst).map_err(io::Error::other)?;
            written += to;
        }
        out.write_all(&encoded[..written])?;
    }
    Ok(())
}

/// `general.file_type` of files whose matrices are mostly of one type (`enum llama_ftype`).
const fn file_type(dtype: DType) -> Option<u32> {
    match dtype {
        DType::F32 => Some(0),
        DType::F16 => Some(1),
        DType::Q4_0 => Some(2),
        DType::Q4_1 => Some(3),
        DType::Q8_0 => Some(7),
        DType::Q5_0 => Some(8),
        DType::Q5_1 => Some(9),
        DType::Q2_K => Some(10),
        DType::Q6_K => Some(18),
        DType::IQ4_NL => Some(25),
        DType::IQ4_XS => Some(30),
        DType::BF16 => Some(32),
        // Several file types share these (`_S`, `_M`, …): what the source says stays.
        DType::Q3_K | DType::Q4_K | DType::Q5_K => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const ROWS: usize = 5;
    const COLS: usize = 64;

    fn values() -> Vec<f32> {
        (0..ROWS * COLS).map(|i| ((i * 37 % 101) as f32 - 50.0) / 16.0).collect()
    }

    fn encoded(dtype: DType, values: &[f32]) -> Vec<u8> {
        let row_bytes = dtype.row_bytes(COLS).unwrap();
        let mut out = vec![0; values.len() / COLS * row_bytes];
        for (src, dst) in values.chunks(COLS).zip(out.chunks_mut(row_bytes)) {
            quant::encode_row(dtype, src, dst).unwrap();
        }
        out
    }

    fn source(dtype: DType) -> Gguf {
        let mut w = GgufWriter::new();
        w.set("general.architecture", "llama").set("general.file_type", 99_u32).set_byte_strings("tokens", &[b"\xff"]);
        w.tensor("matrix", &[COLS as u64, ROWS as u64], dtype, encoded(dtype, &values()));
        w.tensor("gain", &[COLS as u64], DType::F16, encoded(DType::F16, &values()[..COLS]));
        Gguf::from_bytes(w.to_bytes().unwrap()).unwrap()
    }

    fn requantized(src: &Gguf, target: DType) -> Gguf {
        let bytes = plan(src, |_| target).unwrap().to_bytes().unwrap();
        assert_eq!(bytes, plan(src, |_| target).unwrap().to_bytes().unwrap(), "not deterministic");
        Gguf::from_bytes(bytes).unwrap()
    }

    #[test]
    fn every_encoder_gets_what_the_decoder_gives() {
        for from in [DType::F32, DType::F16, DType::Q8_0, DType::Q4_1] {
            let src = source(from);
            let mut decoded = vec![0.0; ROWS * COLS];
            let data = src.bytes(src.tensor("matrix").unwrap()).unwrap();
            for (s, d) in data.chunks(data.len() / ROWS).zip(decoded.chunks_mut(COLS)) {
                quant::decode_row(from, s, d).unwrap();
            }
            for to in [DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q8_0] {
                let dst = requantized(&src, to);
                let matrix = dst.tensor("matrix").unwrap();
                assert_eq!(matrix.dtype, Some(to));
                let expected = if from == to { data.to_vec() } else { encoded(to, &decoded) };
                assert_eq!(dst.bytes(matrix).unwrap(), expected, "{from} to {to}");
                assert_eq!(dst.tensor("gain").unwrap().dtype, Some(DType::F32));
                assert_eq!(dst.metadata().get_u32("general.file_type").ok(), file_type(to));
                assert_eq!(dst.metadata().get_array_str("tokens").unwrap().get(0), Some(&b"\xff"[..]));
                assert_eq!(dst.metadata().value("general.quantization_version").is_some(), !to.is_float());
            }
        }
    }

    #[test]
    fn impossible_targets_name_the_tensor() {
        let e = plan(&source(DType::F32), |_| DType::Q6_K).unwrap_err();
        assert_eq!(e.to_string(), "tensor `matrix` cannot be stored as Q6_K");
        let mut odd = GgufWriter::new();
        odd.tensor_f32("odd", &[33, 2], &[0.5; 66]);
        let odd = Gguf::from_bytes(odd.to_bytes().unwrap()).unwrap();
        let e = plan(&odd, |_| DType::Q8_0).unwrap_err();
        assert_eq!(e.to_string(), "tensor `odd` cannot be stored as Q8_0");
    }

    #[test]
    fn a_file_can_replace_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let mut w = GgufWriter::new();
        w.tensor_f32("matrix", &[COLS as u64, ROWS as u64], &values());
        w.write_file(&path).unwrap();
        requantize(&Gguf::open(&path).unwrap(), &path, |_| DType::Q8_0).unwrap();
        let dst = Gguf::open(&path).unwrap();
        assert_eq!(dst.bytes(dst.tensor("matrix").unwrap()).unwrap(), encoded(DType::Q8_0, &values()));
    }
}
