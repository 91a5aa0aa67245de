//! Activations as the integer kernels read them: 8-bit codes with a scale and two code sums per block of 32.
//!
//! Codes, scales and sums are those of the CPU backend (`bricks::quant::q8`), bit for bit; the layout differs, so that everything a
//! lane reads has constant distances. A *block* is 32 consecutive columns, a *group* 32 blocks (1024 columns), one block per lane. With
//! `T` tokens there are `[groups][T]` tiles of [`TILE`] bytes:
//!
//! | bytes of a tile | content |
//! | --- | --- |
//! | `512·h + 16·b ..` | 16 codes: half `h` of block `b` of the group |
//! | `1024 + 16·b ..` | of block `b`: f32 scale; f32 scale · sum of all codes; i16 sums of the codes of each half; i32 sum of all |
//!
//! The last group is filled up with blocks of zeros. [`quantize_q8`](super::quantize::quantize_q8)
//! and [`rms_norm`](super::norm::rms_norm) write tiles.

use super::launch::ShapeError;
use super::pack::BLOCK;

/// Blocks of a group: lanes of a warp.
pub const LANES: usize = 32;
/// Columns of a group.
pub const GROUP: usize = LANES * BLOCK;
/// Bytes of a tile: what a token has of a group.
pub const TILE: usize = GROUP + 16 * LANES;
/// Where in a tile the scales begin.
pub const SCALES: usize = GROUP;

/// Groups of a row of `columns`.
pub fn groups(columns: usize) -> usize {
    columns.div_ceil(GROUP)
}

/// Bytes of all tiles.
pub fn bytes(columns: usize, tokens: usize) -> usize {
    groups(columns) * tokens * TILE
}

/// Where the code of a column is.
pub fn code_at(tokens: usize, token: usize, column: usize) -> usize {
    let (group, block, half) = (column / GROUP, column / BLOCK % LANES, column / 16 % 2);
    (group * tokens + token) * TILE + 512 * half + 16 * block + column % 16
}

/// Where the scale of a column's block is, with its sums behind it.
pub fn scale_at(tokens: usize, token: usize, column: usize) -> usize {
    let (group, block) = (column / GROUP, column / BLOCK % LANES);
    (group * tokens + token) * TILE + SCALES + 16 * block
}

/// Quantises on the host, as [`quantize`](super::quantize) does on the device: `x` is `[tokens][columns]`, and a last row that is
/// not whole is left out.
///
/// # Errors
/// [`ShapeError`] unless `columns` is a positive multiple of 32.
pub fn encode(x: &[f32], columns: usize) -> Result<Vec<u8>, ShapeError> {
    ShapeError::check("quantize_q8", "columns", columns, BLOCK, 1 << 30)?;
    let tokens = x.len() / columns;
    let mut tiles = vec![0; bytes(columns, tokens)];
    for (token, row) in x.chunks_exact(columns).enumerate() {
        for (block, values) in row.chunks_exact(BLOCK).enumerate() {
            let magnitude = values.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
            let amax = f32::from_bits(magnitude);
            let (scale, inverse) = match magnitude {
                super::q8::NOT_FINITE.. => (super::q8::POISON, 0.0),
                _ if amax < super::q8::MIN_AMAX => (0.0, 0.0),
                _ => (amax / 127.0, 127.0 / amax),
            };
            let mut sums = [0_i16; 2];
            for (i, x) in values.iter().enumerate() {
                // A NaN becomes the code 0, as it does on the device.
                let code = (x * inverse).round_ties_even() as i8;
                sums[i / 16] += i16::from(code);
                tiles[code_at(tokens, token, BLOCK * block + i)] = code as u8;
            }
            let [first, second] = sums;
            let whole = i32::from(first) + i32::from(second);
            let [a, b] = [first, second].map(i16::to_le_bytes);
            let halves = [a[0], a[1], b[0], b[1]];
            let parts = [scale.to_le_bytes(), (scale * whole as f32).to_le_bytes(), halves, whole.to_le_bytes()];
            let at = scale_at(tokens, token, BLOCK * block);
            tiles[at..at + 16].copy_from_slice(parts.as_flattened());
        }
    }
    Ok(tiles)
}
