//! Activations for integer dot products: 8-bit codes, one f32 scale and two code sums per block of 32.
//!
//! This is our own in-memory format, not a file format. Weights of any quantised type meet activations in this form.
//!
//! # Layout
//! A row of `width` values (a multiple of 32) is three separate planes, each contiguous, blocks in order:
//!
//! | plane | element | elements per row | content of block `b` |
//! | --- | --- | --- | --- |
//! | codes | `i8` | `width` | `codes[32·b ..][..32]`, in the order of the values, in `-127..=127` (never `-128`) |
//! | scales | `f32` | `width / 32` | `scales[b]`: value ≈ `scales[b] · code` |
//! | sums | `[i16; 2]` | `width / 32` | `sums[b][h]` = sum of the codes `32·b + 16·h ..][..16]`, in `-2032..=2032` |
//!
//! The sums pay for weights with a minimum or an offset: `Σ (s·q + m)·(d·c) = d·(s·Σ q·c + m·Σ c)`. They are split per
//! 16 because Q2_K, Q3_K and Q6_K have a scale per 16; formats with a scale per 32 add the two. A matrix ([`Q8Rows`])
//! stores its rows one after the other in each plane, without padding: row `t` starts at `t · width`, its blocks
//! at `t · width / 32`.
//!
//! # Arithmetic
//! Every encoder (this one and each SIMD level) gives the same bits. Per block, in f32, round to nearest even:
//!
//! 1. `a` = the largest `bits(x) & 0x7fff_ffff`, compared as *unsigned integers*: for finite numbers that is the order
//!    of `|x|`, infinities and NaNs come out above all of them.
//! 2. `a >= 0x7f80_0000` (an infinity or a NaN is among the values): scale = NaN (`0x7fc0_0000`), codes and sums 0.
//!    The block is *poisoned*: any dot product with it is NaN, so a broken activation stays visible.
//! 3. `amax = f32::from_bits(a) <` [`MIN_AMAX`]: scale, codes and sums 0. Below it the scale would be subnormal, and
//!    `127 / amax` could overflow; such blocks are noise, and this rule keeps results independent of flush-to-zero
//!    modes.
//! 4. Otherwise `scale = amax / 127`, `inv = 127 / amax`, `code = round_ties_even(x · inv)`: two true divisions per
//!    block, one multiplication per value, and the conversion that `cvtps2dq` and `fcvtns` do. No clamp is
//!    needed: `|x · inv|` is at most `127·(1 + 2⁻²³)`.

use super::QuantError;

/// Values per block.
pub const BLOCK: usize = 32;
/// Values per code sum.
pub const SUB_BLOCK: usize = 16;
/// Largest magnitude below which a block is stored as zeros: `127 · 2⁻¹²⁶`, so that no scale is subnormal.
pub const MIN_AMAX: f32 = 127.0 * f32::MIN_POSITIVE;
/// The scale of a block that contains an infinity or a NaN.
pub const POISON: f32 = f32::from_bits(0x7fc0_0000);

const FORMAT: &str = "Q8 activation";

/// Scale and code sums of one block; its codes are in the code plane.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Q8Block {
    /// Multiplies the codes. [`POISON`] if the values were not all finite.
    pub scale: f32,
    /// Sums of the first and of the last 16 codes.
    pub sums: [i16; 2],
}

/// Encodes one block. The steps are those of the [module's documentation](self).
pub fn encode_block(values: &[f32; BLOCK], codes: &mut [i8; BLOCK]) -> Q8Block {
    const NOT_FINITE: u32 = 0x7f80_0000;
    let magnitude = values.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let amax = f32::from_bits(magnitude);
    if magnitude >= NOT_FINITE || amax < MIN_AMAX {
        codes.fill(0);
        return Q8Block { scale: if magnitude >= NOT_FINITE { POISON } else { 0.0 }, sums: [0; 2] };
    }
    let inv = 127.0 / amax;
    for (code, x) in codes.iter_mut().zip(values) {
        *code = (x * inv).round_ties_even() as i8;
    }
    Q8Block { scale: amax / 127.0, sums: code_sums(codes) }
}

/// Sums of the first and of the last 16 codes of a block.
pub fn code_sums(codes: &[i8; BLOCK]) -> [i16; 2] {
    let (low, high) = codes.split_at(SUB_BLOCK);
    [low, high].map(|half| half.iter().map(|&c| i16::from(c)).sum())
}

/// Planes of one row, read-only. Lengths are checked once, by [`new`](Self::new), and hold from then on.
#[derive(Debug, Clone, Copy)]
pub struct Q8Row<'a> {
    codes: &'a [i8],
    scales: &'a [f32],
    sums: &'a [[i16; 2]],
}

impl<'a> Q8Row<'a> {
    /// A row over three planes.
    ///
    /// # Errors
    /// The number of codes is not a multiple of 32, or the other planes do not have one element per 32 codes.
    pub fn new(codes: &'a [i8], scales: &'a [f32], sums: &'a [[i16; 2]]) -> Result<Self, QuantError> {
        check_planes(codes.len(), scales.len(), sums.len())?;
        Ok(Self { codes, scales, sums })
    }

    /// Number of values; a multiple of 32.
    pub fn width(&self) -> usize {
        self.codes.len()
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.scales.len()
    }

    /// The codes, [`width`](Self::width) of them.
    pub fn codes(&self) -> &'a [i8] {
        self.codes
    }

    /// One scale per block.
    pub fn scales(&self) -> &'a [f32] {
        self.scales
    }

    /// Two code sums per block.
    pub fn sums(&self) -> &'a [[i16; 2]] {
        self.sums
    }

    /// `dst[i] = scale · code`; all values of a poisoned block become NaN.
    ///
    /// # Errors
    /// `dst` does not have [`width`](Self::width) elements.
    pub fn decode(&self, dst: &mut [f32]) -> Result<(), QuantError> {
        check_values("decoded values", self.width(), dst.len())?;
        for ((out, codes), scale) in
            dst.chunks_exact_mut(BLOCK).zip(self.codes.chunks_exact(BLOCK)).zip(self.scales.iter().copied())
        {
            for (y, &code) in out.iter_mut().zip(codes) {
                *y = scale * f32::from(code);
            }
        }
        Ok(())
    }
}

/// Planes of one row, to be written. Lengths are checked once, by [`new`](Self::new), and hold from then on.
#[derive(Debug)]
pub struct Q8RowMut<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [[i16; 2]],
}

impl<'a> Q8RowMut<'a> {
    /// A row over three planes.
    ///
    /// # Errors
    /// As [`Q8Row::new`].
    pub fn new(codes: &'a mut [i8], scales: &'a mut [f32], sums: &'a mut [[i16; 2]]) -> Result<Self, QuantError> {
        check_planes(codes.len(), scales.len(), sums.len())?;
        Ok(Self { codes, scales, sums })
    }

    /// Number of values; a multiple of 32.
    pub fn width(&self) -> usize {
        self.codes.len()
    }

    /// The same row, read-only.
    pub fn as_row(&self) -> Q8Row<'_> {
        Q8Row { codes: self.codes, scales: self.scales, sums: self.sums }
    }

    /// Codes, scales and sums, for encoders other than the scalar one.
    pub fn planes_mut(&mut self) -> (&mut [i8], &mut [f32], &mut [[i16; 2]]) {
        (self.codes, self.scales, self.sums)
    }

    /// Encodes `values`; the scalar reference of every SIMD encoder, which must give the same bits.
    ///
    /// # Errors
    /// `values` does not have [`width`](Self::width) elements.
    pub fn encode(&mut self, values: &[f32]) -> Result<(), QuantError> {
        check_values("values to encode", self.width(), values.len())?;
        let (values, _) = values.as_chunks::<BLOCK>();
        let (codes, _) = self.codes.as_chunks_mut::<BLOCK>();
        for (((values, codes), scale), sums) in
            values.iter().zip(codes).zip(self.scales.iter_mut()).zip(self.sums.iter_mut())
        {
            Q8Block { scale: *scale, sums: *sums } = encode_block(values, codes);
        }
        Ok(())
    }
}

/// A matrix of activations that owns its planes: rows of equal width, row after row in each plane.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Q8Rows {
    rows: usize,
    width: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<[i16; 2]>,
}

impl Q8Rows {
    /// `rows` rows of zeros.
    ///
    /// # Errors
    /// `width` is not a multiple of 32, or the matrix exceeds the address space.
    pub fn zeros(rows: usize, width: usize) -> Result<Self, QuantError> {
        check_width(width)?;
        let size = rows.checked_mul(width).filter(|&n| isize::try_from(n).is_ok()).ok_or(QuantError::TooLarge {
            format: FORMAT,
            rows,
            width,
        })?;
        let blocks = size / BLOCK;
        Ok(Self { rows, width, codes: vec![0; size], scales: vec![0.0; blocks], sums: vec![[0; 2]; blocks] })
    }

    /// Encodes a matrix `[rows, width]`, where `rows = values.len() / width`.
    ///
    /// # Errors
    /// `width` is not a positive multiple of 32, or the values do not fill whole rows.
    pub fn from_values(width: usize, values: &[f32]) -> Result<Self, QuantError> {
        check_width(width)?;
        let rows = values.len().checked_div(width).unwrap_or(0);
        check_values("matrix values", rows * width, values.len())?;
        let mut m = Self::zeros(rows, width)?;
        // Blocks do not know rows: the whole matrix is encoded as one long row.
        Q8RowMut { codes: &mut m.codes, scales: &mut m.scales, sums: &mut m.sums }.encode(values)?;
        Ok(m)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row; a multiple of 32.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Row `t`, if there is one.
    pub fn row(&self, t: usize) -> Option<Q8Row<'_>> {
        let (values, blocks) = self.ranges(t)?;
        Some(Q8Row {
            codes: self.codes.get(values)?,
            scales: self.scales.get(blocks.clone())?,
            sums: self.sums.get(blocks)?,
        })
    }

    /// Row `t`, if there is one, to be written.
    pub fn row_mut(&mut self, t: usize) -> Option<Q8RowMut<'_>> {
        let (values, blocks) = self.ranges(t)?;
        Some(Q8RowMut {
            codes: self.codes.get_mut(values)?,
            scales: self.scales.get_mut(blocks.clone())?,
            sums: self.sums.get_mut(blocks)?,
        })
    }

    /// The code plane, `rows · width` codes.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// The scale plane, `rows · width / 32` scales.
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The plane of code sums, `rows · width / 32` pairs.
    pub fn sums(&self) -> &[[i16; 2]] {
        &self.sums
    }

    fn ranges(&self, t: usize) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
        let blocks = self.width / BLOCK;
        // `rows · width` did not overflow when the matrix was made.
        (t < self.rows).then(|| (t * self.width..(t + 1) * self.width, t * blocks..(t + 1) * blocks))
    }
}

fn check_width(width: usize) -> Result<(), QuantError> {
    if width.is_multiple_of(BLOCK) {
        Ok(())
    } else {
        Err(QuantError::RowLength { format: FORMAT, block: BLOCK, found: width })
    }
}

fn check_values(what: &'static str, expected: usize, found: usize) -> Result<(), QuantError> {
    if expected == found { Ok(()) } else { Err(QuantError::PlaneLength { what, values: expected, expected, found }) }
}

fn check_planes(codes: usize, scales: usize, sums: usize) -> Result<(), QuantError> {
    check_width(codes)?;
    let expected = codes / BLOCK;
    for (what, found) in [("Q8 scale plane", scales), ("Q8 sum plane", sums)] {
        if found != expected {
            return Err(QuantError::PlaneLength { what, values: codes, expected, found });
        }
    }
    Ok(())
}
