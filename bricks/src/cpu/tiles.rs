//! The configuration of AMX tile registers, for the kernels and for the probe that measures their peak.

use std::arch::asm;

/// Eight tiles, in the layout that `ldtilecfg` reads (palette 1).
///
/// Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18 (Programming with Intel AMX).
#[repr(C, align(64))]
pub(super) struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// Tile `i` has `tiles[i]`: rows (at most 16) and bytes per row (at most 64).
    pub(super) const fn new(tiles: [(usize, usize); 8]) -> Self {
        let (mut row_bytes, mut rows, mut i) = ([0; 16], [0; 16], 0);
        while i < tiles.len() {
            let (n, bytes) = tiles[i];
            assert!(n <= 16 && bytes <= 64);
            rows[i] = n as u8;
            row_bytes[i] = bytes as u16;
            i += 1;
        }
        Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
    }

    /// Gives this thread's tile registers these shapes, and zeros as content.
    ///
    /// # Safety
    /// The processor has AMX, the system has granted it, every tile that is used has at least one row and byte, and no
    /// other code of this thread uses tiles.
    #[inline(always)]
    pub(super) unsafe fn load(&self) {
        // SAFETY: 64 valid bytes, as `new` has checked; tile registers are nobody else's.
        unsafe { asm!("ldtilecfg [{}]", in(reg) self, options(nostack, readonly)) };
    }
}
