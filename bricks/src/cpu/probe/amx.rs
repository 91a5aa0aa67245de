//! Tile products (Intel AMX) in inline assembly: the intrinsics are unstable.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

use super::{SimdLevel, TileType};
use crate::cpu::tiles::TileConfig;

static CONFIG: TileConfig = TileConfig::new([(16, 64); 8]);

/// Multiply-adds of one product, times two: 16 × 16 outputs of 64 bytes of inputs each.
const INT8_OPS: u64 = 2 * 16 * 16 * 64;
const BF16_OPS: u64 = INT8_OPS / 2;
/// Products per round: accumulators 0 to 3 of tiles 4, 5 and 6, 7, as a kernel with 32 × 32 outputs has them.
const PRODUCTS: u64 = 4;

/// Whether a processor of [`SimdLevel::Amx`](crate::cpu::SimdLevel::Amx), which has int8 products, has these.
pub(super) fn has(tiles: TileType) -> bool {
    const BF16: u32 = 1 << 22;
    tiles == TileType::Int8 || __cpuid_count(7, 0).edx & BF16 != 0
}

/// Runs `iters` rounds and returns the operations done.
///
/// # Safety
/// This processor supports [`SimdLevel::Amx`](crate::cpu::SimdLevel::Amx), and [`has`] has said yes to these tiles.
pub(super) unsafe fn products(tiles: TileType, iters: u64) -> u64 {
    debug_assert!(SimdLevel::supported() == SimdLevel::Amx && has(tiles));
    macro_rules! rounds {
        ($product:literal) => {
            // SAFETY: the caller guarantees the instructions and the kernel's grant; CONFIG is 64 valid bytes; every tile is
            // configured before use, declared as changed, and released at the end. Nothing else in memory is touched.
            unsafe {
                asm!(
                    "ldtilecfg [{config}]",
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                    "2:",
                    concat!($product, " tmm0, tmm4, tmm6"),
                    concat!($product, " tmm1, tmm4, tmm7"),
                    concat!($product, " tmm2, tmm5, tmm6"),
                    concat!($product, " tmm3, tmm5, tmm7"),
                    "dec {n}",
                    "jnz 2b",
                    "tilerelease",
                    config = in(reg) &raw const CONFIG,
                    n = inout(reg) iters => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly)
                );
            }
        };
    }
    if iters == 0 {
        return 0;
    }
    match tiles {
        TileType::Int8 => {
            rounds!("tdpbusd");
            iters * PRODUCTS * INT8_OPS
        }
        TileType::Bf16 => {
            rounds!("tdpbf16ps");
            iters * PRODUCTS * BF16_OPS
        }
    }
}
