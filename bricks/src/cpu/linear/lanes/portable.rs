//! Eight rows in plain Rust.

use half::f16;

use super::{Owned, RowLanes};
use crate::cpu::linear::format::Coding;
use crate::cpu::simd::Portable;

const ROWS: usize = 8;
type U = [u32; ROWS];
type R = [f32; ROWS];

#[inline(always)]
fn each_u(f: impl Fn(usize) -> u32) -> U {
    let mut out = [0; ROWS];
    for (i, lane) in out.iter_mut().enumerate() {
        *lane = f(i);
    }
    out
}

#[inline(always)]
fn each_r(f: impl Fn(usize) -> f32) -> R {
    let mut out = [0.0; ROWS];
    for (i, lane) in out.iter_mut().enumerate() {
        *lane = f(i);
    }
    out
}

impl RowLanes for Portable {
    const ROWS: usize = ROWS;
    const REGISTERS: usize = 16;
    type U = U;
    type R = R;

    #[inline(always)]
    unsafe fn load_u(self, src: *const u8) -> U {
        // SAFETY: the caller promises this many bytes; arrays of bytes need no alignment.
        unsafe { *src.cast::<[[u8; 4]; ROWS]>() }.map(u32::from_le_bytes)
    }

    #[inline(always)]
    unsafe fn load_f16s(self, src: *const u8) -> R {
        // SAFETY: the caller promises this many bytes; arrays of bytes need no alignment.
        unsafe { *src.cast::<[[u8; 2]; ROWS]>() }.map(|x| f16::from_le_bytes(x).to_f32())
    }

    #[inline(always)]
    unsafe fn load_u16s(self, src: *const u8) -> U {
        // SAFETY: the caller promises this many bytes; arrays of bytes need no alignment.
        unsafe { *src.cast::<[[u8; 2]; ROWS]>() }.map(|x| u32::from(u16::from_le_bytes(x)))
    }

    #[inline(always)]
    fn splat_u(self, bits: u32) -> U {
        [bits; ROWS]
    }

    #[inline(always)]
    fn and(self, a: U, b: U) -> U {
        each_u(|i| a[i] & b[i])
    }

    #[inline(always)]
    fn or(self, a: U, b: U) -> U {
        each_u(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn shl(self, a: U, bits: u32) -> U {
        each_u(|i| a[i] << bits)
    }

    #[inline(always)]
    fn shr(self, a: U, bits: u32) -> U {
        each_u(|i| a[i] >> bits)
    }

    #[inline(always)]
    fn sar(self, a: U, bits: u32) -> U {
        each_u(|i| ((a[i] as i32) >> bits) as u32)
    }

    #[inline(always)]
    fn add_i(self, a: U, x: i32) -> U {
        each_u(|i| a[i].wrapping_add(x as u32))
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn lookup(self, table: &[u8; 16], bytes: U) -> U {
        each_u(|i| u32::from_le_bytes(bytes[i].to_le_bytes().map(|b| table[usize::from(b & 15)])))
    }

    #[inline(always)]
    fn splat_r(self, x: f32) -> R {
        [x; ROWS]
    }

    #[inline(always)]
    fn as_r(self, a: U) -> R {
        a.map(f32::from_bits)
    }

    #[inline(always)]
    fn to_r(self, a: U) -> R {
        each_r(|i| a[i] as i32 as f32)
    }

    #[inline(always)]
    fn mul_r(self, a: R, b: R) -> R {
        each_r(|i| a[i] * b[i])
    }

    #[inline(always)]
    fn fma_r(self, a: R, b: R, c: R) -> R {
        each_r(|i| a[i].mul_add(b[i], c[i]))
    }

    #[inline(always)]
    fn add_r(self, a: R, b: R) -> R {
        each_r(|i| a[i] + b[i])
    }

    #[inline(always)]
    unsafe fn load_r(self, src: *const f32, owned: Owned) -> R {
        debug_assert!(owned.end <= ROWS);
        let mut out = [0.0; ROWS];
        for (i, lane) in out.iter_mut().enumerate().take(owned.end).skip(owned.first) {
            // SAFETY: `i` is in `owned`, which the caller promises to be readable. `src` itself may lie outside of the buffer.
            *lane = unsafe { *src.wrapping_add(i) };
        }
        out
    }

    #[inline(always)]
    unsafe fn store_r(self, v: R, dst: *mut f32, owned: Owned) {
        debug_assert!(owned.end <= ROWS);
        for (i, lane) in v.iter().enumerate().take(owned.end).skip(owned.first) {
            // SAFETY: `i` is in `owned`, which the caller promises to be writable and exclusive. `dst` itself may lie outside of the
            // buffer.
            unsafe { *dst.wrapping_add(i) = *lane };
        }
    }

    #[inline(always)]
    fn weigh(self, start: U, pairs: U, w0: i16, w1: i16) -> U {
        let weigh = |half: u32, w: i16| i32::from(half as u16 as i16) * i32::from(w);
        each_u(|i| start[i].wrapping_add((weigh(pairs[i], w0) + weigh(pairs[i] >> 16, w1)) as u32))
    }

    #[inline(always)]
    unsafe fn dots<C: Coding, const N: usize>(
        self,
        codes: &[U; 8],
        acts: [*const i8; N],
        start: [[U; 2]; N],
    ) -> [[U; 2]; N] {
        let mut sums = start;
        for (sums, acts) in sums.iter_mut().zip(acts) {
            // SAFETY: the caller promises this token's activations.
            *sums = unsafe { Self::dot::<C>(codes, acts, *sums) };
        }
        sums
    }
}

impl Portable {
    /// One token of [`RowLanes::dots`].
    ///
    /// # Safety
    /// 32 activations are readable from `acts` on.
    #[inline(always)]
    unsafe fn dot<C: Coding>(codes: &[U; 8], acts: *const i8, offset: [U; 2]) -> [U; 2] {
        // SAFETY: the caller promises 32 activations; arrays of bytes need no alignment.
        let (acts, _) = unsafe { &*acts.cast::<[i8; 32]>() }.as_chunks::<4>();
        let mut halves = [[0i32; ROWS]; 2];
        for (q, (codes, acts)) in codes.iter().zip(acts).enumerate() {
            for (sum, code) in halves[q / 4].iter_mut().zip(codes) {
                for (code, act) in code.to_le_bytes().iter().zip(acts) {
                    *sum += i32::from(*code) * i32::from(*act);
                }
            }
        }
        let [a, b] = halves;
        let sum = |x: [i32; ROWS], offset: U| each_u(|i| (x[i] as u32).wrapping_add(offset[i]));
        if C::SUBS == 2 {
            [sum(a, offset[0]), sum(b, offset[1])]
        } else {
            [sum(std::array::from_fn(|i| a[i] + b[i]), offset[0]), [0; ROWS]]
        }
    }
}
