//! The packed layout of a matrix, and how a file's blocks are brought into it.
//!
//! Rows are taken in *groups* of sixteen. Within a group, the blocks of the sixteen rows are interleaved so that one vector
//! load gives the same four inputs (a *quad*) of neighbouring rows, one row per lane:
//!
//! ```text
//! group g: │ block 0: plane 0, plane 1, … │ block 1: … │ … │ block 0: half 0, … │ block 1: … │ …
//!            └── planes: 16 × u32 = 64 bytes each ──────┘   └── halves: 16 × u16 = 32 bytes each ─┘
//! ```
//!
//! A *plane* has four bytes of each row: the codes of a quad, a pair of BF16, or packed scales. A *half* has an f16 of each
//! row: scales and minimums. A block of any format is some planes and at most two halves, so the packed matrix has the size
//! of the file's (up to the padding of the last group to sixteen rows, and of each group to 64 bytes). Every plane is
//! aligned to a cache line.
//!
//! Rows beyond the end of the matrix are zero blocks; kernels compute them and store nothing.

use std::ops::Range;

use crate::DType;
use crate::cpu::error::{KernelError, at_most, same};

/// Rows of a group.
pub const ROW_GROUP: usize = 16;

/// Alignment of groups, and of the memory a packed matrix must lie in.
pub const PACKED_ALIGN: usize = 64;

/// Bytes of a plane.
pub(super) const PLANE: usize = 4 * ROW_GROUP;
/// Bytes of a half.
pub(super) const HALF: usize = 2 * ROW_GROUP;

/// How blocks of a type are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Inputs per packed block.
    pub(super) inputs: usize,
    /// Planes per block.
    pub(super) planes: usize,
    /// Halves per block.
    pub(super) halves: usize,
}

impl Layout {
    pub(super) const fn of(dtype: DType) -> Self {
        let (inputs, planes, halves) = match dtype {
            DType::F32 => (1, 1, 0),
            DType::F16 => (1, 0, 1),
            DType::BF16 => (2, 1, 0),
            DType::Q4_0 | DType::IQ4_NL => (32, 4, 1),
            DType::Q4_1 => (32, 4, 2),
            DType::Q5_0 => (32, 5, 1),
            DType::Q5_1 => (32, 5, 2),
            DType::Q8_0 => (32, 8, 1),
            DType::Q2_K => (256, 20, 2),
            DType::Q3_K => (256, 27, 1),
            DType::Q4_K => (256, 35, 2),
            DType::Q5_K => (256, 43, 2),
            DType::Q6_K => (256, 52, 1),
            DType::IQ4_XS => (256, 33, 2),
        };
        Self { inputs, planes, halves }
    }

    /// Bytes of all planes of a group.
    const fn planes_bytes(self, blocks: usize) -> Option<usize> {
        blocks.checked_mul(self.planes * PLANE)
    }

    /// Bytes of a group of `blocks` blocks per row.
    pub(super) const fn group_bytes(self, blocks: usize) -> Option<usize> {
        let (Some(planes), Some(halves)) = (self.planes_bytes(blocks), blocks.checked_mul(self.halves * HALF)) else {
            return None;
        };
        match planes.checked_add(halves) {
            Some(n) => n.checked_next_multiple_of(PACKED_ALIGN),
            None => None,
        }
    }
}

/// Shape of a matrix: what its packed bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedShape {
    /// Storage type of the weights.
    pub dtype: DType,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

impl PackedShape {
    /// Packed blocks per row: whole ones once a shape has been checked, but for a last pair of floats.
    pub(super) const fn blocks(self) -> usize {
        self.cols.div_ceil(Layout::of(self.dtype).inputs)
    }

    /// Bytes of one group of sixteen rows.
    ///
    /// # Errors
    /// The columns are not a positive multiple of the type's block, or the size overflows.
    pub fn group_bytes(self) -> Result<usize, KernelError> {
        let columns = KernelError::Columns { dtype: self.dtype, cols: self.cols };
        self.dtype.row_bytes(self.cols).filter(|&n| n > 0).ok_or(columns.clone())?;
        Layout::of(self.dtype).group_bytes(self.blocks()).ok_or(columns)
    }

    /// Bytes of the packed matrix.
    ///
    /// # Errors
    /// As [`group_bytes`](Self::group_bytes).
    pub fn bytes(self) -> Result<usize, KernelError> {
        let columns = KernelError::Columns { dtype: self.dtype, cols: self.cols };
        self.group_bytes()?.checked_mul(self.rows.div_ceil(ROW_GROUP)).ok_or(columns)
    }

    /// Packs groups `groups` of a matrix: `file` has all rows as [`crate::quant`] lays them out, at any alignment; `packed` is
    /// the memory of these groups, all of which is written.
    ///
    /// # Errors
    /// The lengths contradict the shape; nothing is written then.
    pub fn pack(self, file: &[u8], groups: Range<usize>, packed: &mut [u8]) -> Result<(), KernelError> {
        let group_bytes = self.group_bytes()?;
        let row_bytes = self.dtype.row_bytes(self.cols).unwrap_or(0);
        same("bytes of the matrix", self.rows.saturating_mul(row_bytes), file.len())?;
        at_most("last group of the range", self.rows.div_ceil(ROW_GROUP), groups.end)?;
        same("bytes of the packed groups", groups.len().saturating_mul(group_bytes), packed.len())?;
        for (group, out) in groups.zip(packed.chunks_exact_mut(group_bytes)) {
            let first = group * ROW_GROUP;
            let rows = &file[first * row_bytes..(first + ROW_GROUP).min(self.rows) * row_bytes];
            match self.dtype {
                DType::F32 => pack_f32(rows, self.cols, out),
                DType::F16 => pack_halves(rows, self.cols, out),
                DType::BF16 => pack_pairs(rows, self.cols, out),
                DType::Q4_0 | DType::IQ4_NL => pack_group::<18, 4, 1>(rows, out, |b, p, h| {
                    h[0] = u16_at(b, 0);
                    dwords(b, 2, p);
                }),
                DType::Q4_1 => pack_group::<20, 4, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 0), u16_at(b, 2)];
                    dwords(b, 4, p);
                }),
                DType::Q5_0 => pack_group::<22, 5, 1>(rows, out, |b, p, h| {
                    h[0] = u16_at(b, 0);
                    dwords(b, 6, &mut p[..4]);
                    p[4] = bits_by_quad(u32_at(b, 2));
                }),
                DType::Q5_1 => pack_group::<24, 5, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 0), u16_at(b, 2)];
                    dwords(b, 8, &mut p[..4]);
                    p[4] = bits_by_quad(u32_at(b, 4));
                }),
                DType::Q8_0 => pack_group::<34, 8, 1>(rows, out, |b, p, h| {
                    h[0] = u16_at(b, 0);
                    dwords(b, 2, p);
                    for p in p {
                        *p ^= 0x8080_8080;
                    }
                }),
                DType::Q2_K => pack_group::<84, 20, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 80), u16_at(b, 82)];
                    dwords(b, 0, p);
                }),
                DType::Q3_K => pack_group::<110, 27, 1>(rows, out, |b, p, h| {
                    h[0] = u16_at(b, 108);
                    dwords(b, 0, p);
                }),
                DType::Q4_K => pack_group::<144, 35, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 0), u16_at(b, 2)];
                    dwords(b, 4, p);
                }),
                DType::Q5_K => pack_group::<176, 43, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 0), u16_at(b, 2)];
                    dwords(b, 4, p);
                }),
                DType::Q6_K => pack_group::<210, 52, 1>(rows, out, |b, p, h| {
                    h[0] = u16_at(b, 208);
                    dwords(b, 0, p);
                }),
                DType::IQ4_XS => pack_group::<136, 33, 2>(rows, out, |b, p, h| {
                    *h = [u16_at(b, 0), u16_at(b, 2)];
                    dwords(b, 4, p);
                }),
            }
        }
        Ok(())
    }
}

fn u16_at<const B: usize>(block: &[u8; B], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn u32_at<const B: usize>(block: &[u8; B], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// Consecutive little-endian dwords from byte `at` on.
#[inline(always)]
fn dwords<const B: usize>(block: &[u8; B], at: usize, out: &mut [u32]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = u32_at(block, at + 4 * j);
    }
}

/// Bit `4 q + i` of a block's fifth bits becomes bit `q` of byte `i`: then one shift brings the bits of a quad in place.
#[inline(always)]
fn bits_by_quad(bits: u32) -> u32 {
    let mut bytes = [0u8; 4];
    for (i, byte) in bytes.iter_mut().enumerate() {
        // Every fourth bit, then closed up.
        let mut x = (bits >> i) & 0x1111_1111;
        x = (x | x >> 3) & 0x0303_0303;
        x = (x | x >> 6) & 0x000f_000f;
        x = (x | x >> 12) & 0xff;
        *byte = x as u8;
    }
    u32::from_le_bytes(bytes)
}

/// Packs one group of blocks of `B` bytes; `fields` takes one block apart.
#[inline(always)]
fn pack_group<const B: usize, const P: usize, const H: usize>(
    rows: &[u8],
    out: &mut [u8],
    fields: impl Fn(&[u8; B], &mut [u32; P], &mut [u16; H]),
) {
    let blocks = (out.len() / (P * PLANE + H * HALF)).max(1);
    let (planes, halves) = out.split_at_mut(blocks * P * PLANE);
    let row_bytes = blocks * B;
    let n = rows.len() / row_bytes;
    // Bytes that no row fills: rows beyond the matrix, and the padding behind the halves.
    if n < ROW_GROUP {
        planes.fill(0);
    }
    let used = blocks * H * HALF;
    if n < ROW_GROUP {
        halves.fill(0);
    } else {
        halves[used..].fill(0);
    }
    let (planes, _) = planes.as_chunks_mut::<PLANE>();
    let (halves, _) = halves.as_chunks_mut::<HALF>();
    for block in 0..blocks {
        let planes = &mut planes[block * P..][..P];
        let halves = &mut halves[block * H..][..H];
        for r in 0..n {
            let Some(bytes) = rows[r * row_bytes + block * B..].first_chunk::<B>() else { continue };
            let (mut p, mut h) = ([0u32; P], [0u16; H]);
            fields(bytes, &mut p, &mut h);
            for (plane, p) in planes.iter_mut().zip(p) {
                plane[4 * r..4 * r + 4].copy_from_slice(&p.to_le_bytes());
            }
            for (half, h) in halves.iter_mut().zip(h) {
                half[2 * r..2 * r + 2].copy_from_slice(&h.to_le_bytes());
            }
        }
    }
}

/// `[input][row]` f32.
fn pack_f32(rows: &[u8], cols: usize, out: &mut [u8]) {
    out.fill(0);
    for (r, row) in rows.chunks_exact(4 * cols).enumerate() {
        for (plane, x) in out.chunks_exact_mut(PLANE).zip(row.chunks_exact(4)) {
            plane[4 * r..4 * r + 4].copy_from_slice(x);
        }
    }
}

/// `[input][row]` of 16 bits.
fn pack_halves(rows: &[u8], cols: usize, out: &mut [u8]) {
    out.fill(0);
    // Input by input through a few rows' lines: the output is written in order.
    for (i, half) in out.chunks_exact_mut(HALF).take(cols).enumerate() {
        for (r, row) in rows.chunks_exact(2 * cols).enumerate() {
            half[2 * r..2 * r + 2].copy_from_slice(&row[2 * i..2 * i + 2]);
        }
    }
}

/// `[pair of inputs][row]` of two BF16; zeros behind an odd number of inputs. Numbers with an exponent of zero become zeros, as the
/// kernels take them (see [`bf16`](super::bf16)).
fn pack_pairs(rows: &[u8], cols: usize, out: &mut [u8]) {
    out.fill(0);
    for (i, plane) in out.chunks_exact_mut(PLANE).take(cols.div_ceil(2)).enumerate() {
        for (row, lane) in rows.chunks_exact(2 * cols).zip(plane.chunks_exact_mut(4)) {
            let pair = match row[4 * i..] {
                [a, b, c, d, ..] => [a, b, c, d],
                [a, b, ..] => [a, b, 0, 0],
                _ => [0; 4],
            };
            lane.copy_from_slice(&without_tiny(u32::from_le_bytes(pair)).to_le_bytes());
        }
    }
}

/// A pair of BF16, each with an exponent of zero replaced by a zero of its sign.
fn without_tiny(pair: u32) -> u32 {
    let keep = |number: u32| if pair & number & 0x7f80_7f80 == 0 { number & 0x8000_8000 } else { number };
    pair & (keep(0x0000_ffff) | keep(0xffff_0000))
}

/// A cache line: memory for packed matrices that is aligned as they must be.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Line {
    _bytes: [u8; PACKED_ALIGN],
}

/// A packed matrix in memory of its own.
#[derive(Debug, Clone)]
pub struct Packed {
    shape: PackedShape,
    lines: Vec<Line>,
}

impl Packed {
    /// Packs all of a matrix that `file` stores as [`crate::quant`] lays rows out.
    ///
    /// # Errors
    /// As [`PackedShape::pack`].
    pub fn new(shape: PackedShape, file: &[u8]) -> Result<Self, KernelError> {
        let bytes = shape.bytes()?;
        // Checked before memory is taken for a shape that the bytes do not have.
        same(
            "bytes of the matrix",
            shape.rows.saturating_mul(shape.dtype.row_bytes(shape.cols).unwrap_or(0)),
            file.len(),
        )?;
        let mut packed = Self { shape, lines: vec![Line { _bytes: [0; PACKED_ALIGN] }; bytes / PACKED_ALIGN] };
        let (_, memory, _) = {
            // SAFETY: a line is an array of bytes, without padding.
            unsafe { packed.lines.align_to_mut::<u8>() }
        };
        shape.pack(file, 0..shape.rows.div_ceil(ROW_GROUP), memory)?;
        Ok(packed)
    }

    /// The matrix.
    pub fn matrix(&self) -> PackedMatrix<'_> {
        // SAFETY: a line is an array of bytes, without padding.
        let (_, bytes, _) = unsafe { self.lines.align_to::<u8>() };
        PackedMatrix { shape: self.shape, bytes }
    }
}

/// A checked packed matrix.
#[derive(Debug, Clone, Copy)]
pub struct PackedMatrix<'a> {
    shape: PackedShape,
    bytes: &'a [u8],
}

impl<'a> PackedMatrix<'a> {
    /// A matrix over bytes that [`PackedShape::pack`] has written.
    ///
    /// # Errors
    /// The bytes do not have the shape's length, or are not aligned to [`PACKED_ALIGN`].
    pub fn new(shape: PackedShape, bytes: &'a [u8]) -> Result<Self, KernelError> {
        same("bytes of the packed matrix", shape.bytes()?, bytes.len())?;
        same("alignment of the packed matrix", 0, bytes.as_ptr().align_offset(PACKED_ALIGN))?;
        Ok(Self { shape, bytes })
    }

    /// Its shape.
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Planes and halves of a group.
    ///
    /// # Safety
    /// `group` is below the number of groups.
    #[inline(always)]
    pub(super) unsafe fn group(&self, group: usize) -> PackedAt {
        let layout = Layout::of(self.shape.dtype);
        let blocks = self.shape.blocks();
        // The checked shape's sizes do not overflow.
        let planes = blocks * layout.planes * PLANE;
        let bytes = (planes + blocks * layout.halves * HALF).next_multiple_of(PACKED_ALIGN);
        debug_assert!((group + 1) * bytes <= self.bytes.len());
        // SAFETY: the group lies within the bytes, as the caller promises and `new` has checked.
        unsafe {
            let base = self.bytes.as_ptr().add(group * bytes);
            PackedAt { planes: base, halves: base.add(planes) }
        }
    }
}

/// Where a block of a group begins, or the part of it that some of its rows are.
#[derive(Debug, Clone, Copy)]
pub(in crate::cpu) struct PackedAt {
    pub(super) planes: *const u8,
    pub(super) halves: *const u8,
}

impl PackedAt {
    /// `blocks` blocks further on.
    ///
    /// # Safety
    /// The group has that many more blocks, or ends there.
    #[inline(always)]
    pub(super) unsafe fn skip(self, layout: Layout, blocks: usize) -> Self {
        // SAFETY: stays within the group, as the caller promises.
        unsafe {
            Self {
                planes: self.planes.add(blocks * layout.planes * PLANE),
                halves: self.halves.add(blocks * layout.halves * HALF),
            }
        }
    }

    /// Rows from `row` on, which is below [`ROW_GROUP`].
    ///
    /// Wrapping: a type without halves has nothing there, and behind the last group the memory ends.
    #[inline(always)]
    pub(super) fn rows_from(self, row: usize) -> Self {
        debug_assert!(row < ROW_GROUP);
        Self { planes: self.planes.wrapping_add(4 * row), halves: self.halves.wrapping_add(2 * row) }
    }
}
