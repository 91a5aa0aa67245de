//! Weights as the kernels read them: the bits of the file, in planes.
//!
//! A block of a GGUF file mixes codes and scales, and is 18, 34, 144 or 210 bytes long: no two of them are aligned alike. Here
//! each kind of bits has a plane of its own, in which a lane of a warp finds what it needs in one aligned load. The planes of
//! a matrix take exactly the bytes of the file.
//!
//! Every plane is row-major, `[rows][elements of a row]`, without padding. A *block* is 32 consecutive columns, `B` the blocks
//! of a row, `S = B / 8` its super-blocks, and `w(i)` the code of column `i` of a block, as an unsigned number (signed for Q8_0):
//!
//! | plane | formats | per row | content |
//! | --- | --- | --- | --- |
//! | `codes` | Q4_0, Q4_1, Q4_K, Q5_K, Q6_K | `B` × 16 B | byte `j`: low four bits of `w(j)` below those of `w(j + 16)` |
//! | | Q8_0 | 2 × `B` × 16 B | first all `w(0..16)`, block after block, then all `w(16..32)` |
//! | | F16, BF16 | columns × 2 B | the values, as in the file |
//! | `high` | Q5_K | `B` × 4 B | byte `j`, bit `4h + t`: bit 4 of `w(16h + 4t + j)` |
//! | | Q6_K | `B` × 8 B | byte `4h + j`, bits `2t` and `2t + 1`: bits 4 and 5 of `w(16h + 4t + j)` |
//! | `scales` | Q4_0, Q8_0 | `B` × f16 | the scale |
//! | | Q4_1 | `B` × 2 f16 | scale, minimum |
//! | | Q4_K, Q5_K | `S` × 16 B | f16 `d`, f16 `dmin`, then 12 bits per block from bit 0: six of the scale, six of the minimum |
//! | | Q6_K | `B` × 2 i8 | scale of the first and of the last 16 columns |
//! | `supers` | Q6_K | `S` × f16 | `d` |
//!
//! With `h` = half of a block, `t` = word of a half, `j` = byte of a word, four codes that meet in one `dp4a` or in one register of
//! an `mma` fragment come out of a word by masks and one shift.

use super::format::Format;

/// Columns of a block.
pub const BLOCK: usize = 32;
/// Columns of a super-block.
pub const SUPER: usize = 256;

/// A matrix of weights in planes. Planes that a format does not have are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Format.
    pub format: Format,
    /// Rows: outputs.
    pub rows: usize,
    /// Columns: inputs.
    pub columns: usize,
    /// Codes, or the low four bits of each.
    pub codes: Vec<u8>,
    /// High bits of codes.
    pub high: Vec<u8>,
    /// Scales and minimums.
    pub scales: Vec<u8>,
    /// Scales of super-blocks.
    pub supers: Vec<u8>,
}

/// Bytes that a row of `columns` takes in each plane: codes, high bits, scales, scales of super-blocks. 0 for planes that a format
/// does not have.
pub fn plane_row_bytes(format: Format, columns: usize) -> [usize; 4] {
    let (blocks, supers) = (columns / BLOCK, columns / SUPER);
    match format {
        Format::F16 | Format::BF16 => [2 * columns, 0, 0, 0],
        Format::Q4_0 => [16 * blocks, 0, 2 * blocks, 0],
        Format::Q4_1 => [16 * blocks, 0, 4 * blocks, 0],
        Format::Q8_0 => [32 * blocks, 0, 2 * blocks, 0],
        Format::Q4_K => [16 * blocks, 0, 16 * supers, 0],
        Format::Q5_K => [16 * blocks, 4 * blocks, 16 * supers, 0],
        Format::Q6_K => [16 * blocks, 8 * blocks, 2 * blocks, 2 * supers],
    }
}

/// Why a matrix is not packed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Columns that are not whole blocks, or not whole loads of a lane.
    #[error("a matrix of {} has to have columns in multiples of {multiple_of}, found {columns}", format.name())]
    Columns {
        /// Format.
        format: Format,
        /// What the columns have to be a multiple of.
        multiple_of: usize,
        /// The columns.
        columns: usize,
    },
    /// A row of a wrong size.
    #[error("row {row} of {} with {columns} columns has {expected} bytes, found {found}", format.name())]
    Row {
        /// Format.
        format: Format,
        /// Index of the row.
        row: usize,
        /// Columns.
        columns: usize,
        /// Its size.
        expected: usize,
        /// Size that was found.
        found: usize,
    },
}

impl Packed {
    /// Packs rows as a file stores them.
    ///
    /// # Errors
    /// [`PackError::Columns`] if `columns` is 0 or not whole blocks; [`PackError::Row`] if a row does not have its size.
    pub fn new<'a>(
        format: Format,
        columns: usize,
        rows: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Self, PackError> {
        let multiple_of = format.column_multiple();
        if columns == 0 || !columns.is_multiple_of(multiple_of) {
            return Err(PackError::Columns { format, multiple_of, columns });
        }
        let mut packed = Self {
            format,
            rows: 0,
            columns,
            codes: Vec::new(),
            high: Vec::new(),
            scales: Vec::new(),
            supers: Vec::new(),
        };
        let expected = format.row_bytes(columns);
        for bytes in rows {
            if bytes.len() != expected {
                return Err(PackError::Row { format, row: packed.rows, columns, expected, found: bytes.len() });
            }
            packed.push(bytes);
            packed.rows += 1;
        }
        Ok(packed)
    }

    /// Packs the rows of two matrices in turn: row `2i` is row `i` of `gate`, row `2i + 1` that of `up`. What the kernels with a
    /// gated activation take.
    ///
    /// # Errors
    /// As [`new`](Self::new); a matrix that is longer than the other has rows of a wrong size.
    pub fn gated(format: Format, columns: usize, gate: &[u8], up: &[u8]) -> Result<Self, PackError> {
        let row = format.row_bytes(columns).max(1);
        let rows = gate.len().max(up.len()).div_ceil(row);
        let nth = |matrix: &'_ [u8], i: usize| -> std::ops::Range<usize> {
            (i * row).min(matrix.len())..((i + 1) * row).min(matrix.len())
        };
        Self::new(format, columns, (0..rows).flat_map(|i| [&gate[nth(gate, i)], &up[nth(up, i)]]))
    }

    /// Packs a whole matrix as a file stores it.
    ///
    /// # Errors
    /// As [`new`](Self::new); bytes that are not whole rows leave a row of a wrong size.
    pub fn matrix(format: Format, columns: usize, bytes: &[u8]) -> Result<Self, PackError> {
        Self::new(format, columns, bytes.chunks(format.row_bytes(columns).max(1)))
    }

    /// The planes: codes, high bits, scales, scales of super-blocks.
    pub fn planes(&self) -> [&[u8]; 4] {
        [&self.codes, &self.high, &self.scales, &self.supers]
    }

    /// Bytes of all planes.
    pub fn bytes(&self) -> usize {
        self.codes.len() + self.high.len() + self.scales.len() + self.supers.len()
    }

    fn push(&mut self, row: &[u8]) {
        match self.format {
            Format::F16 | Format::BF16 => self.codes.extend(row),
            Format::Q4_0 => {
                for block in row.chunks_exact(18) {
                    self.scales.extend(&block[..2]);
                    // ggml's nibbles of 32 values are already ours.
                    self.codes.extend(&block[2..]);
                }
            }
            Format::Q4_1 => {
                for block in row.chunks_exact(20) {
                    self.scales.extend(&block[..4]);
                    self.codes.extend(&block[4..]);
                }
            }
            Format::Q8_0 => {
                for block in row.chunks_exact(34) {
                    self.scales.extend(&block[..2]);
                }
                for half in [2..18, 18..34] {
                    for block in row.chunks_exact(34) {
                        self.codes.extend(&block[half.clone()]);
                    }
                }
            }
            Format::Q4_K => {
                for block in row.chunks_exact(144) {
                    self.scales.extend(scales_k4(block));
                    self.codes(|i| nibble(block[16 + 32 * (i / 64) + i % 32], i / 32 % 2));
                }
            }
            Format::Q5_K => {
                for block in row.chunks_exact(176) {
                    self.scales.extend(scales_k4(block));
                    self.codes(|i| nibble(block[48 + 32 * (i / 64) + i % 32], i / 32 % 2));
                    for b in 0..SUPER / BLOCK {
                        let bit = |i: usize| (block[16 + i] >> b) & 1;
                        let byte = |j: usize| (0..8).fold(0, |byte, ht| byte | bit(4 * ht + j) << ht);
                        self.high.extend((0..4).map(byte));
                    }
                }
            }
            Format::Q6_K => {
                for block in row.chunks_exact(210) {
                    self.supers.extend(&block[208..]);
                    self.scales.extend(&block[192..208]);
                    self.codes(|i| nibble(block[64 * (i / 128) + i % 64], i / 64 % 2));
                    for b in 0..SUPER / BLOCK {
                        let bits = |i: usize| {
                            let i = BLOCK * b + i;
                            (block[128 + 32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4))) & 3
                        };
                        let byte = |n: usize| {
                            let (h, j) = (n / 4, n % 4);
                            (0..4).fold(0, |byte, t| byte | bits(16 * h + 4 * t + j) << (2 * t))
                        };
                        self.high.extend((0..8).map(byte));
                    }
                }
            }
        }
    }

    /// The low four bits of a super-block, given by column.
    fn codes(&mut self, low: impl Fn(usize) -> u8) {
        for b in 0..SUPER / BLOCK {
            self.codes.extend((0..16).map(|j| low(BLOCK * b + j) | low(BLOCK * b + j + 16) << 4));
        }
    }
}

/// Low (0) or high (1) half of a byte.
fn nibble(byte: u8, half: usize) -> u8 {
    (byte >> (4 * half)) & 15
}

/// `d`, `dmin` and the fields of a Q4_K or Q5_K super-block, regrouped.
///
/// The file has sub-blocks 0 to 3 in the low six bits of bytes 4 to 7 (scales) and 8 to 11 (minimums). Of sub-blocks 4 to 7, bytes
/// 12 to 15 have the low four bits (scales in the low, minimums in the high nibble), and the top bits of the former the rest.
fn scales_k4(block: &[u8]) -> [u8; 16] {
    let packed = &block[4..16];
    let field = |first: usize, half: usize, s: usize| match s {
        0..4 => packed[first + s] & 0x3f,
        _ => nibble(packed[4 + s], half) | packed[first + s - 4] >> 6 << 4,
    };
    let fields = (0..8).fold(0_u128, |bits, s| {
        let pair = u128::from(field(0, 0, s)) | u128::from(field(4, 1, s)) << 6;
        bits | pair << (12 * s)
    });
    let d = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    (u128::from(d) | fields << 32).to_le_bytes()
}
