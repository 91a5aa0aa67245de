//! Micro-kernels that run at the processor's limits, for measuring those limits.
//!
//! Each does a known amount of work with nothing in its way: no memory traffic in the arithmetic probes, no arithmetic in
//! the reading probe. They return what they did; the caller owns the clock. What a probe reaches *is* the peak that kernels
//! of the same level are held against, so each uses the instruction its level's kernels live on.

use std::hint::black_box;

use super::level::SimdLevel;

/// Multiplies and adds 8-bit integers in registers for `iters` rounds; returns the operations done (multiply + add = 2).
pub fn int8_ops(level: SimdLevel, iters: u64) -> u64 {
    match level.min(SimdLevel::supported()) {
        // SAFETY: `supported` has seen every feature of the level on this processor.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::int8_avx512(iters) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { x86::int8_avx2(iters) },
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
    match level.min(SimdLevel::supported()) {
        // SAFETY: `supported` has seen every feature of the level on this processor.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::f32_avx512(iters) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        SimdLevel::Avx2 => unsafe { x86::f32_avx2(iters) },
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

/// Reads every byte of `data` once, front to back, and returns a checksum: the exclusive-or of its little-endian 64-bit
/// words, the last one padded with zeros. The same at every level.
pub fn read_bytes(level: SimdLevel, data: &[u8]) -> u64 {
    // Vector loads across cache lines run at half speed: start at a line where that leaves whole words before it.
    let to_line = data.as_ptr().align_offset(64);
    let (head, data) = data.split_at(if to_line.is_multiple_of(8) { to_line.min(data.len()) } else { 0 });
    xor_words(head)
        ^ match level.min(SimdLevel::supported()) {
            // SAFETY: `supported` has seen every feature of the level on this processor.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512Vnni | SimdLevel::Amx => unsafe { x86::read_avx512(data) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { x86::read_avx2(data) },
            _ => xor_words(data),
        }
}

fn xor_words(data: &[u8]) -> u64 {
    let (words, tail) = data.as_chunks::<8>();
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    words.iter().fold(u64::from_le_bytes(last), |sum, &w| sum ^ u64::from_le_bytes(w))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    #[allow(clippy::wildcard_imports)] // intrinsics
    use std::arch::x86_64::*;
    use std::hint::black_box;

    use super::xor_words;

    // Latency 4-5 cycles on two ports: ten independent chains keep both busy, and AVX2 has 16 registers.
    const CHAINS: usize = 10;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) unsafe fn int8_avx512(iters: u64) -> u64 {
        let (codes, acts) = (black_box(_mm512_set1_epi8(3)), black_box(_mm512_set1_epi8(-5)));
        let mut acc = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..iters {
            for a in &mut acc {
                *a = _mm512_dpbusd_epi32(*a, codes, acts);
            }
        }
        black_box(acc);
        iters * CHAINS as u64 * 128
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn int8_avx2(iters: u64) -> u64 {
        let (codes, acts) = (black_box(_mm256_set1_epi8(3)), black_box(_mm256_set1_epi8(-5)));
        // As the kernels for 4-bit codes do: eight products are summed in 16 bits, then widened.
        let (ones, mut acc) = (_mm256_set1_epi16(1), [_mm256_setzero_si256(); CHAINS / 2]);
        for _ in 0..iters {
            for a in &mut acc {
                let mut sum = _mm256_setzero_si256();
                for _ in 0..8 {
                    sum = _mm256_add_epi16(sum, black_box_product(codes, acts));
                }
                *a = _mm256_add_epi32(*a, _mm256_madd_epi16(sum, ones));
            }
        }
        black_box(acc);
        iters * (CHAINS as u64 / 2) * 8 * 64
    }

    /// One `vpmaddubsw` the optimiser cannot hoist or merge with its equals.
    #[target_feature(enable = "avx2")]
    fn black_box_product(codes: __m256i, acts: __m256i) -> __m256i {
        let product: __m256i;
        // SAFETY: pure register arithmetic; AVX2 is enabled for this function.
        unsafe {
            std::arch::asm!("vpmaddubsw {p}, {c}, {a}", p = lateout(ymm_reg) product, c = in(ymm_reg) codes,
                a = in(ymm_reg) acts, options(nomem, nostack, preserves_flags));
        }
        product
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn f32_avx512(iters: u64) -> u64 {
        let (x, y) = (black_box(_mm512_set1_ps(0.5)), black_box(_mm512_set1_ps(1.5)));
        let mut acc = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..iters {
            for a in &mut acc {
                *a = _mm512_fmadd_ps(*a, x, y);
            }
        }
        black_box(acc);
        iters * CHAINS as u64 * 32
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn f32_avx2(iters: u64) -> u64 {
        let (x, y) = (black_box(_mm256_set1_ps(0.5)), black_box(_mm256_set1_ps(1.5)));
        let mut acc = [_mm256_setzero_ps(); CHAINS];
        for _ in 0..iters {
            for a in &mut acc {
                *a = _mm256_fmadd_ps(*a, x, y);
            }
        }
        black_box(acc);
        iters * CHAINS as u64 * 16
    }

    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn read_avx512(data: &[u8]) -> u64 {
        let (lines, tail) = data.as_chunks::<256>();
        let mut acc = [_mm512_setzero_si512(); 4];
        for line in lines {
            for (i, a) in acc.iter_mut().enumerate() {
                // SAFETY: `line` has 256 bytes and `i < 4`; the load needs no alignment.
                let v = unsafe { _mm512_loadu_si512(line.as_ptr().add(64 * i).cast()) };
                *a = _mm512_xor_si512(*a, v);
            }
        }
        let all = _mm512_xor_si512(_mm512_xor_si512(acc[0], acc[1]), _mm512_xor_si512(acc[2], acc[3]));
        let mut words = [0u64; 8];
        // SAFETY: eight words are 64 bytes; the store needs no alignment.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), all) };
        words.iter().fold(xor_words(tail), |sum, &w| sum ^ u64::from_le(w))
    }

    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn read_avx2(data: &[u8]) -> u64 {
        let (lines, tail) = data.as_chunks::<128>();
        let mut acc = [_mm256_setzero_si256(); 4];
        for line in lines {
            for (i, a) in acc.iter_mut().enumerate() {
                // SAFETY: `line` has 128 bytes and `i < 4`; the load needs no alignment.
                let v = unsafe { _mm256_loadu_si256(line.as_ptr().add(32 * i).cast()) };
                *a = _mm256_xor_si256(*a, v);
            }
        }
        let all = _mm256_xor_si256(_mm256_xor_si256(acc[0], acc[1]), _mm256_xor_si256(acc[2], acc[3]));
        let mut words = [0u64; 4];
        // SAFETY: four words are 32 bytes; the store needs no alignment.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), all) };
        words.iter().fold(xor_words(tail), |sum, &w| sum ^ u64::from_le(w))
    }
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
        }
    }
}
