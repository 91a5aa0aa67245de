//! The tensor directory.

use bricks::dtype::ggml_type_name;
use bricks::{DType, WeightShape};

use super::cursor::Cursor;
use super::error::FormatError;
use super::metadata::read_name;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name, e.g. `blk.0.attn_q.weight`.
    pub name: String,
    /// One to four sizes in the order of the file: `dims[0]` is the length of a row.
    pub dims: Vec<u64>,
    /// Storage type, if it is one that can be decoded.
    pub dtype: Option<DType>,
    /// Storage type as `ggml_type` id.
    pub type_id: u32,
    /// First byte of the data, from the start of the file.
    pub offset: u64,
    /// Bytes of data, if the storage type's block size is known.
    pub n_bytes: Option<u64>,
}

impl TensorInfo {
    /// Name of the storage type, also of types that cannot be decoded.
    pub fn type_name(&self) -> &'static str {
        ggml_type_name(self.type_id)
    }

    /// Number of values.
    pub fn n_values(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Whether there is one row only: norm gains, biases.
    pub fn is_vector(&self) -> bool {
        self.dims.iter().skip(1).all(|&d| d == 1)
    }

    /// Type, rows and columns as operations see them: `[out, in]`; leading axes beyond the second count as rows.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedType`] if the storage type cannot be decoded.
    pub fn shape(&self) -> Result<WeightShape, FormatError> {
        let dtype = self.dtype.ok_or_else(|| self.unsupported())?;
        let cols = self.dims.first().copied().unwrap_or(1);
        let rows = self.dims.iter().skip(1).product::<u64>();
        // The product of all dims was checked to fit when the file was opened.
        Ok(WeightShape { dtype, rows: rows as usize, cols: cols as usize })
    }

    pub(super) fn unsupported(&self) -> FormatError {
        FormatError::UnsupportedType { tensor: self.name.clone(), type_id: self.type_id, type_name: self.type_name() }
    }

    /// Reads one entry of the directory; `offset` is still relative to the data section.
    fn read(c: &mut Cursor<'_>, index: u64) -> Result<Self, FormatError> {
        let name = read_name(c, format_args!("name of tensor {index}"))?;
        let at = c.at() as u64;
        let n_dims = c.u32(format_args!("number of dimensions of tensor `{name}`"))?;
        if !(1..=4).contains(&n_dims) {
            return Err(FormatError::Dimensions { tensor: name, at, found: n_dims });
        }
        let dims = (0..n_dims)
            .map(|_| c.u64(format_args!("dimensions of tensor `{name}`")))
            .collect::<Result<Vec<u64>, _>>()?;
        let type_id = c.u32(format_args!("storage type of tensor `{name}`"))?;
        let offset = c.u64(format_args!("offset of tensor `{name}`"))?;
        let n_bytes = n_bytes(&name, &dims, type_id)?;
        Ok(Self { name, dims, dtype: DType::from_id(type_id), type_id, offset, n_bytes })
    }
}

/// Values and bytes per block of storage types that can be measured though not decoded, so that files that contain them
/// can be listed and checked.
const MEASURABLE: &[(u32, u64, u64)] = &[
    (9, 32, 36),    // Q8_1
    (15, 256, 292), // Q8_K
    (16, 256, 66),  // IQ2_XXS
    (17, 256, 74),  // IQ2_XS
    (18, 256, 98),  // IQ3_XXS
    (19, 256, 50),  // IQ1_S
    (21, 256, 110), // IQ3_S
    (22, 256, 82),  // IQ2_S
    (24, 1, 1),     // I8
    (25, 1, 2),     // I16
    (26, 1, 4),     // I32
    (27, 1, 8),     // I64
    (28, 1, 8),     // F64
    (29, 256, 56),  // IQ1_M
    (34, 256, 54),  // TQ1_0
    (35, 256, 66),  // TQ2_0
    (39, 32, 17),   // MXFP4
];

/// Values and bytes per block of a storage type.
fn block(type_id: u32) -> Option<(u64, u64)> {
    match DType::from_id(type_id) {
        Some(t) => Some((t.block_len() as u64, t.block_bytes() as u64)),
        None => MEASURABLE.iter().find(|(id, ..)| *id == type_id).map(|&(_, len, bytes)| (len, bytes)),
    }
}

/// Size of a tensor's data; `None` if the type is unknown.
pub(super) fn n_bytes(name: &str, dims: &[u64], type_id: u32) -> Result<Option<u64>, FormatError> {
    let shape = |problem| FormatError::Shape { tensor: name.to_owned(), dims: dims.to_vec(), problem };
    if dims.contains(&0) {
        return Err(shape("not all positive"));
    }
    let overflow = || shape("too large: their product does not fit");
    // `isize::MAX` bounds what memory can hold, and makes every later product of these sizes safe.
    let fits = |n: &u64| isize::try_from(*n).is_ok();
    dims.iter().try_fold(1u64, |n, &d| n.checked_mul(d).filter(fits)).ok_or_else(overflow)?;
    let Some((block_len, block_bytes)) = block(type_id) else { return Ok(None) };
    let (row, rest) = dims.split_first().map_or((1, dims), |(row, rest)| (*row, rest));
    if !row.is_multiple_of(block_len) {
        return Err(FormatError::RowLength {
            tensor: name.to_owned(),
            type_name: ggml_type_name(type_id),
            row,
            block: block_len,
        });
    }
    let row_bytes = (row / block_len).checked_mul(block_bytes).filter(fits).ok_or_else(overflow)?;
    rest.iter().try_fold(row_bytes, |n, &d| n.checked_mul(d).filter(fits)).ok_or_else(overflow).map(Some)
}

/// Tensors in file order, found by name.
#[derive(Debug, Default)]
pub(super) struct Directory {
    tensors: Vec<TensorInfo>,
    /// Indices of `tensors`, sorted by name.
    by_name: Vec<u32>,
}

impl Directory {
    /// Fewest bytes an entry takes: name length, one byte of name, dimension count, one dimension, type, offset.
    pub(super) const MIN_ENTRY: u64 = 8 + 1 + 4 + 8 + 4 + 8;

    /// Reads `count` entries (already checked against the bytes there are) and checks names, places and sizes.
    /// Gives the directory and the offset of the data section.
    pub(super) fn read(
        c: &mut Cursor<'_>,
        count: u64,
        alignment: u64,
        file_len: u64,
    ) -> Result<(Self, u64), FormatError> {
        // Grows as entries really come, instead of trusting the count with an allocation.
        let mut tensors = Vec::new();
        for index in 0..count {
            tensors.push(TensorInfo::read(c, index)?);
        }
        let data_at = (c.at() as u64).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
        for t in &mut tensors {
            t.place(data_at, alignment, file_len)?;
        }
        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_by_key(|&i| tensors[i as usize].name.as_str());
        for pair in by_name.windows(2) {
            let tensor = &tensors[pair[0] as usize].name;
            if *tensor == tensors[pair[1] as usize].name {
                return Err(FormatError::DuplicateTensor { tensor: tensor.clone() });
            }
        }
        check_overlap(&tensors)?;
        Ok((Self { tensors, by_name }, data_at.min(file_len)))
    }

    pub(super) fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub(super) fn find(&self, name: &str) -> Option<&TensorInfo> {
        let at = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name)).ok()?;
        self.tensors.get(*self.by_name.get(at)? as usize)
    }
}

impl TensorInfo {
    /// Turns the offset in the data section into one in the file and checks that the data lies inside.
    fn place(&mut self, data_at: u64, alignment: u64, file_len: u64) -> Result<(), FormatError> {
        if !self.offset.is_multiple_of(alignment) {
            return Err(FormatError::TensorAlignment { tensor: self.name.clone(), offset: self.offset, alignment });
        }
        let at = data_at.saturating_add(self.offset);
        // Data of an unknown type takes at least a byte.
        if at.checked_add(self.n_bytes.unwrap_or(1)).is_none_or(|end| end > file_len) {
            return Err(FormatError::TensorRange { tensor: self.name.clone(), at, size: self.n_bytes, file: file_len });
        }
        self.offset = at;
        Ok(())
    }
}

fn check_overlap(tensors: &[TensorInfo]) -> Result<(), FormatError> {
    let mut order: Vec<&TensorInfo> = tensors.iter().collect();
    order.sort_by_key(|t| t.offset);
    // Neighbours suffice: data is never empty, so if all neighbours are disjoint, ends are sorted too.
    for pair in order.windows(2) {
        let end = pair[0].offset.saturating_add(pair[0].n_bytes.unwrap_or(1));
        if pair[1].offset < end {
            return Err(FormatError::Overlap {
                first: pair[0].name.clone(),
                second: pair[1].name.clone(),
                at: pair[1].offset,
            });
        }
    }
    Ok(())
}
