//! Whole rows: picks the format's block codec and walks it along the row.

use super::block::Parts;
use super::{QuantError, float, iq4, k, simple};
use crate::dtype::DType;

/// The one table from types to unpackers: `walk(args…, unpacker)` for quantised types; floats are listed by the caller.
macro_rules! with_unpacker {
    ($dtype:expr, $walk:ident($($arg:expr),*), { $($float:pat => $result:expr,)+ }) => {
        match $dtype {
            $($float => $result,)+
            DType::Q4_0 => $walk($($arg,)* simple::unpack_q4_0),
            DType::Q4_1 => $walk($($arg,)* simple::unpack_q4_1),
            DType::Q5_0 => $walk($($arg,)* simple::unpack_q5_0),
            DType::Q5_1 => $walk($($arg,)* simple::unpack_q5_1),
            DType::Q8_0 => $walk($($arg,)* simple::unpack_q8_0),
            DType::Q2_K => $walk($($arg,)* k::unpack_q2_k),
            DType::Q3_K => $walk($($arg,)* k::unpack_q3_k),
            DType::Q4_K => $walk($($arg,)* k::unpack_q4_k),
            DType::Q5_K => $walk($($arg,)* k::unpack_q5_k),
            DType::Q6_K => $walk($($arg,)* k::unpack_q6_k),
            DType::IQ4_NL => $walk($($arg,)* iq4::unpack_iq4_nl),
            DType::IQ4_XS => $walk($($arg,)* iq4::unpack_iq4_xs),
        }
    };
}

/// Decodes one row: `src` is its bytes as a file stores them, `dst` receives its values.
///
/// # Errors
/// `dst.len()` does not fill whole blocks, or `src` is not the bytes of that many values. Nothing is written then.
pub fn decode_row(dtype: DType, src: &[u8], dst: &mut [f32]) -> Result<(), QuantError> {
    check_row(dtype, dst.len(), src.len())?;
    with_unpacker!(dtype, decode_blocks(src, dst), {
        DType::F32 => decode_floats(src, dst, float::decode_f32),
        DType::F16 => decode_floats(src, dst, float::decode_f16),
        DType::BF16 => decode_floats(src, dst, float::decode_bf16),
    });
    Ok(())
}

/// Encodes one row as ggml's reference quantisers do, byte for byte: F32, F16, BF16, Q4_0, Q4_1, Q8_0.
///
/// # Errors
/// The type has no encoder, `src.len()` does not fill whole blocks, or `dst` is not the size of that many values.
/// Nothing is written then.
pub fn encode_row(dtype: DType, src: &[f32], dst: &mut [u8]) -> Result<(), QuantError> {
    check_row(dtype, src.len(), dst.len())?;
    match dtype {
        DType::F32 => encode_floats(src, dst, float::encode_f32),
        DType::F16 => encode_floats(src, dst, float::encode_f16),
        DType::BF16 => encode_floats(src, dst, float::encode_bf16),
        DType::Q4_0 => encode_blocks(src, dst, simple::encode_q4_0),
        DType::Q4_1 => encode_blocks(src, dst, simple::encode_q4_1),
        DType::Q8_0 => encode_blocks(src, dst, simple::encode_q8_0),
        _ => return Err(QuantError::NoEncoder { dtype }),
    }
    Ok(())
}

/// Takes one row apart (see [`Parts`]): the input of kernels that repack weights.
///
/// With `b =` [`sub_block_len`]`(dtype)`, value `i` of the row is `scales[i / b] · codes[i] + mins[i / b]`.
///
/// # Errors
/// The type is a float, `codes.len()` does not fill whole blocks, `src` is not the bytes of that many values, or
/// `scales` and `mins` do not have `codes.len() / b` elements. Nothing is written then.
pub fn unpack_row(
    dtype: DType,
    src: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    mins: &mut [f32],
) -> Result<(), QuantError> {
    let sub_block = sub_block_len(dtype).ok_or(QuantError::NotQuantised { dtype })?;
    let values = codes.len();
    check_row(dtype, values, src.len())?;
    let expected = values / sub_block;
    for (what, found) in [("unpacked scales", scales.len()), ("unpacked minimums", mins.len())] {
        if found != expected {
            return Err(QuantError::PlaneLength { what, values, expected, found });
        }
    }
    with_unpacker!(dtype, unpack_blocks(src, codes, scales, mins), {
        DType::F32 | DType::F16 | DType::BF16 => return Err(QuantError::NotQuantised { dtype }),
    });
    Ok(())
}

/// Values that share a scale and a minimum: 16 or 32. `None` for floats.
pub fn sub_block_len(dtype: DType) -> Option<usize> {
    with_unpacker!(dtype, sub_block_of(), { DType::F32 | DType::F16 | DType::BF16 => None, })
}

fn check_row(dtype: DType, values: usize, bytes: usize) -> Result<(), QuantError> {
    let expected = dtype.row_bytes(values).ok_or(QuantError::RowLength {
        format: dtype.name(),
        block: dtype.block_len(),
        found: values,
    })?;
    if bytes == expected { Ok(()) } else { Err(QuantError::ByteLength { dtype, values, expected, found: bytes }) }
}

#[allow(clippy::unnecessary_wraps)] // one arm of a match whose other arms are `None`
fn sub_block_of<const B: usize, const L: usize, const S: usize>(_: fn(&[u8; B]) -> Parts<L, S>) -> Option<usize> {
    Some(Parts::<L, S>::SUB_BLOCK)
}

fn decode_blocks<const B: usize, const L: usize, const S: usize>(
    src: &[u8],
    dst: &mut [f32],
    unpack: impl Fn(&[u8; B]) -> Parts<L, S>,
) {
    for (block, out) in src.as_chunks::<B>().0.iter().zip(dst.as_chunks_mut::<L>().0) {
        unpack(block).decode(out);
    }
}

fn unpack_blocks<const B: usize, const L: usize, const S: usize>(
    src: &[u8],
    codes: &mut [i8],
    scales: &mut [f32],
    mins: &mut [f32],
    unpack: impl Fn(&[u8; B]) -> Parts<L, S>,
) {
    let planes =
        codes.as_chunks_mut::<L>().0.iter_mut().zip(scales.as_chunks_mut::<S>().0).zip(mins.as_chunks_mut::<S>().0);
    for (block, ((codes, scales), mins)) in src.as_chunks::<B>().0.iter().zip(planes) {
        Parts { codes: *codes, scales: *scales, mins: *mins } = unpack(block);
    }
}

fn encode_blocks<const B: usize, const L: usize>(
    src: &[f32],
    dst: &mut [u8],
    encode: impl Fn(&[f32; L], &mut [u8; B]),
) {
    for (values, block) in src.as_chunks::<L>().0.iter().zip(dst.as_chunks_mut::<B>().0) {
        encode(values, block);
    }
}

fn decode_floats<const B: usize>(src: &[u8], dst: &mut [f32], decode: impl Fn([u8; B]) -> f32) {
    for (&bytes, x) in src.as_chunks::<B>().0.iter().zip(dst) {
        *x = decode(bytes);
    }
}

fn encode_floats<const B: usize>(src: &[f32], dst: &mut [u8], encode: impl Fn(f32) -> [u8; B]) {
    for (&x, bytes) in src.iter().zip(dst.as_chunks_mut::<B>().0) {
        *bytes = encode(x);
    }
}
