//! The probes in NEON intrinsics, and in inline assembly where intrinsics are unstable.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

use super::xor_words;

// Latency 3-4 cycles on up to four pipes: sixteen independent chains keep them busy.
const CHAINS: usize = 16;

/// One instruction on three vectors that the optimiser cannot hoist or merge with its equals.
macro_rules! step {
    ($instruction:literal, $acc:expr, $codes:expr, $acts:expr) => {
        asm!($instruction, acc = inout(vreg) $acc, codes = in(vreg) $codes, acts = in(vreg) $acts,
            options(pure, nomem, nostack, preserves_flags))
    };
}

/// Probes that repeat one dot instruction on independent chains: features, instruction, operations of an instruction.
macro_rules! probes {
    ($($name:ident: $features:literal, $instruction:literal, $ops:literal;)*) => {$(
        #[target_feature(enable = $features)]
        pub(super) unsafe fn $name(iters: u64) -> u64 {
            let (codes, acts) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(-5)));
            let mut chains = [vdupq_n_s32(0); CHAINS];
            for _ in 0..iters {
                for chain in &mut chains {
                    // SAFETY: arithmetic on registers; the function has the features.
                    unsafe { step!($instruction, *chain, codes, acts) };
                }
            }
            black_box(chains);
            iters * CHAINS as u64 * $ops
        }
    )*};
}

probes! {
    int8_dotprod: "neon,dotprod", "sdot {acc:v}.4s, {codes:v}.16b, {acts:v}.4b[0]", 32;
    int8_i8mm: "neon,dotprod,i8mm", "smmla {acc:v}.4s, {codes:v}.16b, {acts:v}.16b", 64;
}

#[target_feature(enable = "neon")]
pub(super) fn int8_neon(iters: u64) -> u64 {
    let (codes, acts) = (black_box(vdupq_n_s8(3)), black_box(vdupq_n_s8(-5)));
    // As the kernels for 4-bit codes do: eight products are summed in 16 bits, then widened.
    let mut acc = [vdupq_n_s32(0); CHAINS / 2];
    for _ in 0..iters {
        for a in &mut acc {
            let mut sum = vdupq_n_s16(0);
            for _ in 0..8 {
                // SAFETY: arithmetic on registers.
                unsafe { step!("smlal {acc:v}.8h, {codes:v}.8b, {acts:v}.8b", sum, codes, acts) };
            }
            *a = vpadalq_s16(*a, sum);
        }
    }
    black_box(acc);
    iters * (CHAINS as u64 / 2) * 8 * 16
}

#[target_feature(enable = "neon")]
pub(super) fn f32_neon(iters: u64) -> u64 {
    let (x, y) = (black_box(vdupq_n_f32(0.5)), black_box(vdupq_n_f32(1.5)));
    let mut chains = [vdupq_n_f32(0.0); CHAINS];
    for _ in 0..iters {
        for chain in &mut chains {
            *chain = vfmaq_f32(y, *chain, x);
        }
    }
    black_box(chains);
    iters * CHAINS as u64 * 8
}

#[target_feature(enable = "neon")]
pub(super) fn read_neon(data: &[u8]) -> u64 {
    let (lines, tail) = data.as_chunks::<64>();
    let mut acc = [vdupq_n_u8(0); 4];
    for line in lines {
        for (i, a) in acc.iter_mut().enumerate() {
            // SAFETY: `line` has 64 bytes and `i < 4`.
            let v = unsafe { vld1q_u8(line.as_ptr().add(16 * i)) };
            *a = veorq_u8(*a, v);
        }
    }
    let all = vreinterpretq_u64_u8(veorq_u8(veorq_u8(acc[0], acc[1]), veorq_u8(acc[2], acc[3])));
    xor_words(tail) ^ vgetq_lane_u64::<0>(all) ^ vgetq_lane_u64::<1>(all)
}
