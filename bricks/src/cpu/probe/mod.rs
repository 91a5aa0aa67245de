//! Micro-kernels that run at the processor's limits, for measuring those limits.
//!
//! Each does a known amount of work with nothing in its way: no memory traffic in the arithmetic probes, no arithmetic in
//! the reading probe. They return what they did; the caller owns the clock. What a probe reaches *is* the peak that kernels
//! of the same level are held against, so each uses the instruction its level's kernels live on.

#[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
mod amx;
mod buffer;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::hint::black_box;

pub use buffer::{Buffer, Pages};

use super::level::SimdLevel;

/// Multiplies and adds 8-bit integers in registers for `iters` rounds; returns the operations done (multiply + add = 2).
pub fn int8_ops(level: SimdLevel, iters: u64) -> u64 {
    match level.usable() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `usable` has seen every feature of the level on this processor.
        SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::int8_avx512(iters) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::AvxVnni => unsafe { x86::int8_avx_vnni(iters) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx2 => unsafe { x86::int8_avx2(iters) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        SimdLevel::NeonI8mm => unsafe { neon::int8_i8mm(iters) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        SimdLevel::NeonDotprod => unsafe { neon::int8_dotprod(iters) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        SimdLevel::Neon => unsafe { neon::int8_neon(iters) },
        _ => {
            let (mut acc, codes, acts) = ([0i32; 64], black_box([3u8; 64]), black_box([-5i8; 64]));
            for _ in 0..iters {
                for ((acc, &c), &a) in acc.iter_mut().zip(&codes).zip(&acts) {
                    *acc = acc.wrapping_add(i32::from(c) * i32::from(a));
                }
                acc = black_box(acc);
            }
            iters * 128
        }
    }
}

/// Fused multiply-adds of f32 in registers for `iters` rounds; returns the operations done (multiply + add = 2).
pub fn f32_flops(level: SimdLevel, iters: u64) -> u64 {
    match level.usable() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `usable` has seen every feature of the level on this processor.
        SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::f32_avx512(iters) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86::f32_avx2(iters) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        SimdLevel::Neon | SimdLevel::NeonDotprod | SimdLevel::NeonI8mm => unsafe { neon::f32_neon(iters) },
        _ => {
            let (mut acc, x, y) = ([0f32; 32], black_box([0.5f32; 32]), black_box([1.5f32; 32]));
            for _ in 0..iters {
                for ((acc, &x), &y) in acc.iter_mut().zip(&x).zip(&y) {
                    *acc += x * y;
                }
                acc = black_box(acc);
            }
            iters * 64
        }
    }
}

/// Multiplies pairs of bf16 into f32 sums in registers for `iters` rounds; returns the operations done (multiply + add = 2),
/// or `None` where the level or the processor has no such instruction.
pub fn bf16_flops(level: SimdLevel, iters: u64) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if level.usable() >= SimdLevel::Avx512Vnni && is_x86_feature_detected!("avx512bf16") {
        // SAFETY: `usable` has seen AVX-512 F and the line above BF16 on this processor.
        return Some(unsafe { x86::bf16_avx512(iters) });
    }
    let _ = (level, iters);
    None
}

/// What the matrix unit multiplies (Intel AMX: tiles of 16 rows of 64 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TileType {
    /// Unsigned times signed 8-bit integers, 32-bit sums.
    Int8,
    /// bf16, f32 sums.
    Bf16,
}

/// Multiplies tiles for `iters` rounds of four products; returns the operations done (multiply + add = 2), or `None` where
/// there are no such tiles at this level.
pub fn tile_ops(level: SimdLevel, tiles: TileType, iters: u64) -> Option<u64> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux", not(miri)))]
    if level.usable() == SimdLevel::Amx && amx::has(tiles) {
        // SAFETY: the processor has the instructions and, as the level says, the kernel has granted tile registers.
        return Some(unsafe { amx::products(tiles, iters) });
    }
    let _ = (level, tiles, iters);
    None
}

/// Reads every byte of `data` once, front to back, and returns a checksum: the exclusive-or of its little-endian 64-bit
/// words, the last one padded with zeros. The same at every level.
pub fn read_bytes(level: SimdLevel, data: &[u8]) -> u64 {
    // Vector loads across cache lines run at half speed: start at a line where that leaves whole words before it.
    let to_line = data.as_ptr().align_offset(64);
    let (head, data) = data.split_at(if to_line.is_multiple_of(8) { to_line.min(data.len()) } else { 0 });
    xor_words(head)
        ^ match level.usable() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `usable` has seen every feature of the level on this processor.
            SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::read_avx512(data) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            SimdLevel::Avx2 | SimdLevel::AvxVnni => unsafe { x86::read_avx2(data) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            SimdLevel::Neon | SimdLevel::NeonDotprod | SimdLevel::NeonI8mm => unsafe { neon::read_neon(data) },
            _ => xor_words(data),
        }
}

fn xor_words(data: &[u8]) -> u64 {
    let (words, tail) = data.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    words.iter().fold(u64::from_le_bytes(last), |sum, &w| sum ^ u64::from_le_bytes(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_at_every_level_and_length() {
        let data: Vec<u8> = (0..1500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in [0, 1, 7, 8, 63, 64, 127, 128, 255, 256, 257, 777, 1499] {
            let expected = xor_words(&data[1..=len]);
            for level in SimdLevel::available() {
                assert_eq!(read_bytes(level, &data[1..=len]), expected, "{level}, {len} bytes");
            }
        }
        let mut changed = data.clone();
        changed[1400] ^= 4;
        for level in SimdLevel::available() {
            assert_ne!(read_bytes(level, &data), read_bytes(level, &changed), "{level}");
        }
    }

    #[test]
    fn work_grows_with_the_rounds_and_none_is_none() {
        for level in SimdLevel::available() {
            assert_eq!((int8_ops(level, 0), f32_flops(level, 0)), (0, 0), "{level}");
            assert_eq!(int8_ops(level, 30), 3 * int8_ops(level, 10), "{level}");
            assert_eq!(f32_flops(level, 30), 3 * f32_flops(level, 10), "{level}");
            let all = |iters| {
                let tiles = [TileType::Int8, TileType::Bf16].map(|t| tile_ops(level, t, iters));
                [bf16_flops(level, iters), tiles[0], tiles[1]]
            };
            for (n, (ten, thirty)) in all(10).into_iter().zip(all(30)).enumerate() {
                assert_eq!(ten.map(|ops| 3 * ops), thirty, "{level}, probe {n}");
                assert_eq!(all(0)[n], ten.map(|_| 0), "{level}, probe {n}");
                let needs = if n == 0 { SimdLevel::Avx512Vnni } else { SimdLevel::Amx };
                assert!(ten.is_none() || level >= needs, "a lowered level has no such instructions");
            }
        }
    }
}
