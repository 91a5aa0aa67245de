//! What a lane holds of a block of quantised weights, and its product with a block of activations.
//!
//! A block is 32 columns of a row. For every format it becomes eight words of four codes, and scales. The product is an integer, exact,
//! times scales; what a format adds to its codes (a minimum, or -8 and -32) is paid for with the sums of the activations' codes.

use crate::build::{
    B32, Elem, F16, F16x2, F32, KernelBuilder, LoadOptions, Pred, Ptr, PtrVar, Reg, S8, S32, SpaceOf, U32, Var,
};
use crate::ir::Access;
use crate::kernels::activation;
use crate::kernels::format::Format;

/// The six bits of a minimum are above those of its scale. They are used where they are, 64 times too large, and the activations'
/// sums are made 64 times smaller: powers of two change no bit of the product, and a shift per row is saved.
pub(super) const MIN_UNIT: f32 = 64.0;

/// The planes of a matrix, as parameters or at a row of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes {
    format: Format,
    codes: Ptr<B32>,
    /// Second half of a row of codes: Q8_0.
    second: Ptr<B32>,
    high: Option<Ptr<B32>>,
    scales: Ptr<B32>,
    supers: Option<Ptr<F16>>,
}

/// Pointers that a loop moves on.
#[derive(Debug, Default)]
pub(super) struct Moving(Vec<(PtrVar<B32>, u64)>);

impl Moving {
    /// A pointer that starts at `ptr` and goes on by `bytes` a chunk.
    pub(super) fn ptr<T: Elem>(&mut self, k: &KernelBuilder, ptr: Ptr<T>, bytes: u64) -> Ptr<T> {
        let moving = k.ptr_var(ptr.cast::<B32>());
        self.0.push((moving, bytes));
        moving.ptr().cast()
    }

    /// Moves all of them on.
    pub(super) fn step(&self, k: &KernelBuilder, chunks: u32) {
        for &(moving, bytes) in &self.0 {
            k.step(moving, bytes * u64::from(chunks));
        }
    }
}

/// A block as it was loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Raw {
    /// Of all formats but Q8_0, both halves are one load.
    pub(super) codes: [[Reg<B32>; 4]; 2],
    pub(super) high: [Option<Reg<B32>>; 2],
    pub(super) scales: RawScales,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum RawScales {
    One(Reg<F16>),
    Pair(Reg<F16x2>),
    Fields([Reg<B32>; 4]),
    Halves(Reg<F16>, [Reg<S32>; 2]),
}

/// A block ready to be multiplied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Block {
    halves: [[Reg<B32>; 4]; 2],
    /// The codes of the second half are still 16 times too large.
    second_is_shifted: bool,
    scales: Scales,
}

#[derive(Debug, Clone, Copy)]
enum Scales {
    /// `scale · Σ codes`.
    One(Reg<F32>),
    /// `scale · Σ codes + min · Σ x`.
    Min(Reg<F32>, Reg<F32>),
    /// `d · (scale0 · Σ codes + scale1 · Σ codes)`.
    Halves(Reg<F32>, [Reg<S32>; 2]),
}

/// A block of activations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Activation {
    codes: [[Reg<S32>; 4]; 2],
    scale: Reg<F32>,
    sums: Sums,
}

/// What the sums of the codes are needed for.
#[derive(Debug, Clone, Copy)]
enum Sums {
    Unused,
    /// Where the sum of products of the whole block starts.
    Offset(Reg<S32>),
    /// The same for each half.
    Offsets([Reg<S32>; 2]),
    /// `scale · Σ x`.
    Scaled(Reg<F32>),
}

/// Constants of a lane, made once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lane {
    /// Which of three words the fields of the lane's block of a super-block begin in: first, second, else third.
    field: Option<(Reg<Pred>, Reg<Pred>, Reg<U32>)>,
}

impl Lane {
    /// Of the lane that takes blocks `lane`, `lane + 32`, …
    pub(super) fn new(k: &KernelBuilder, format: Format) -> Self {
        let field = matches!(format, Format::Q4_K | Format::Q5_K).then(|| {
            let bit = k.mul(k.and(k.laneid(), 7), 12);
            (k.lt(bit, 32), k.lt(bit, 64), k.and(bit, 31))
        });
        Self { field }
    }

    /// Scale of the block, and [`MIN_UNIT`] times its minimum, as integers.
    fn fields(self, k: &KernelBuilder, words: [Reg<B32>; 3]) -> Option<[Reg<U32>; 2]> {
        let (first, second, shift) = self.field?;
        let [a, b, c] = words;
        let (low, high) = (k.select(first, a, k.select(second, b, c)), k.select(first, b, c));
        let both = k.shf_right(low, high, shift).as_ty::<U32>();
        Some([k.and(both, 63), k.and(both, 0xfc0)])
    }
}

impl Planes {
    /// Declares the parameters of a format; `prefix` tells matrices apart.
    pub(super) fn params(k: &KernelBuilder, format: Format, prefix: &str) -> Self {
        let plane = |name: &str| k.param_ptr::<B32>(&format!("{prefix}{name}"), Access::Read, 16);
        let codes = plane("codes");
        let high = matches!(format, Format::Q5_K | Format::Q6_K).then(|| plane("high"));
        let scales = plane("scales");
        let supers = (format == Format::Q6_K).then(|| plane("supers").cast());
        Self { format, codes, second: codes, high, scales, supers }
    }

    /// The plane of codes, and the bytes of a row in it.
    pub(super) fn codes(&self, k: &KernelBuilder, columns: Reg<U32>) -> (Ptr<B32>, Reg<U32>) {
        (self.codes, if self.format == Format::Q8_0 { columns } else { k.shr(columns, 1) })
    }

    /// At a row of `blocks` blocks.
    pub(super) fn row(&self, k: &KernelBuilder, row: Reg<U32>, blocks: Reg<U32>) -> Self {
        let at = |ptr: Ptr<B32>, bytes: u32| k.row(ptr, row, k.mul(blocks, bytes));
        let codes = at(self.codes, if self.format == Format::Q8_0 { 32 } else { 16 });
        // Two bytes per block in all other formats: 16 per super-block are two per block.
        let scales = at(self.scales, if self.format == Format::Q4_1 { 4 } else { 2 });
        Self {
            format: self.format,
            codes,
            second: if self.format == Format::Q8_0 { k.index_by(codes, blocks, 16) } else { codes },
            high: self.high.map(|high| at(high, if self.format == Format::Q6_K { 8 } else { 4 })),
            scales,
            supers: self.supers.map(|supers| k.row(supers, row, k.shr(blocks, 2))),
        }
    }

    /// At a block of the row.
    pub(super) fn at(&self, k: &KernelBuilder, block: Reg<U32>) -> Self {
        let eighth = || k.shr(block, 3);
        let scales = match self.format {
            Format::Q4_1 => k.index_by(self.scales, block, 4),
            Format::Q4_K | Format::Q5_K => k.index_by(self.scales, eighth(), 16),
            _ => k.index_by(self.scales, block, 2),
        };
        Self {
            format: self.format,
            codes: k.index_by(self.codes, block, 16),
            second: if self.format == Format::Q8_0 { k.index_by(self.second, block, 16) } else { self.codes },
            high: self.high.map(|high| k.index_by(high, block, if self.format == Format::Q6_K { 8 } else { 4 })),
            scales,
            supers: self.supers.map(|supers| k.index(supers, eighth())),
        }
    }

    /// The same pointers, moved on by 32 blocks a chunk whenever [`Moving::step`] is called.
    pub(super) fn moving(&self, k: &KernelBuilder, moving: &mut Moving) -> Self {
        let scales = match self.format {
            Format::Q4_1 => 128,
            _ => 64,
        };
        Self {
            format: self.format,
            codes: moving.ptr(k, self.codes, 512),
            second: if self.format == Format::Q8_0 { moving.ptr(k, self.second, 512) } else { self.codes },
            high: self.high.map(|high| moving.ptr(k, high, if self.format == Format::Q6_K { 256 } else { 128 })),
            scales: moving.ptr(k, self.scales, scales),
            supers: self.supers.map(|supers| moving.ptr(k, supers, 8)),
        }
    }

    /// Loads the block that is `chunk` times 32 blocks further.
    pub(super) fn load(&self, k: &KernelBuilder, chunk: i32) -> Raw {
        let stream = LoadOptions::STREAM;
        let words = |ptr: Ptr<B32>| k.ld_vec::<_, _, 4>(ptr.offset(512 * chunk), stream);
        let first = words(self.codes);
        let codes = [first, if self.format == Format::Q8_0 { words(self.second) } else { first }];
        let high = match (self.format, self.high) {
            (Format::Q6_K, Some(high)) => k.ld_vec::<_, _, 2>(high.offset(256 * chunk), stream).map(Some),
            (_, Some(high)) => [Some(k.ld_with(high.offset(128 * chunk), stream)), None],
            (_, None) => [None, None],
        };
        let scales = self.scales.offset(64 * chunk);
        let scales = match (self.format, self.supers) {
            (Format::Q4_1, _) => RawScales::Pair(k.ld_with(self.scales.offset(128 * chunk).cast::<F16x2>(), stream)),
            (Format::Q4_K | Format::Q5_K, _) => RawScales::Fields(k.ld_vec(scales, stream)),
            (_, Some(supers)) => {
                let d = k.ld_with(supers.at(4 * chunk), stream);
                RawScales::Halves(d, k.ld_vec(scales.cast::<S8>(), stream))
            }
            (_, None) => RawScales::One(k.ld_with(scales.cast::<F16>(), stream)),
        };
        Raw { codes, high, scales }
    }

    /// Takes a loaded block apart. With `shifted`, four shifts are left to [`Block::dot`], which is cheaper for one token.
    pub(super) fn block(&self, k: &KernelBuilder, lane: Lane, raw: Raw, shifted: bool) -> Block {
        let nibbles = |half: usize, t: usize| {
            let word = raw.codes[0][t];
            if half == 0 { k.and(word, 0x0f0f_0f0f) } else { k.and(k.shr(word, 4), 0x0f0f_0f0f) }
        };
        // Bits from `from` up to bit `to` of each byte, wherever `mask` is set.
        let moved = |word: Reg<B32>, from: usize, to: usize, mask: u32| {
            let word = match from.cmp(&to) {
                std::cmp::Ordering::Less => k.shl(word, (to - from) as u32),
                std::cmp::Ordering::Equal => word,
                std::cmp::Ordering::Greater => k.shr(word, (from - to) as u32),
            };
            k.and(word, mask)
        };
        let each = |word: &dyn Fn(usize, usize) -> Reg<B32>| -> [[Reg<B32>; 4]; 2] {
            std::array::from_fn(|half| std::array::from_fn(|t| word(half, t)))
        };
        let shifted = shifted && matches!(self.format, Format::Q4_0 | Format::Q4_1 | Format::Q4_K);
        let halves = match (self.format, raw.high) {
            (Format::Q8_0, _) => raw.codes,
            (Format::Q5_K, [Some(high), _]) => {
                each(&|half, t| k.or(nibbles(half, t), moved(high, 4 * half + t, 4, 0x1010_1010)))
            }
            (_, [Some(first), Some(second)]) => {
                each(&|half, t| k.or(nibbles(half, t), moved([first, second][half], 2 * t, 4, 0x3030_3030)))
            }
            _ if shifted => {
                let masked = |mask: u32| raw.codes[0].map(|word| k.and(word, mask));
                [masked(0x0f0f_0f0f), masked(0xf0f0_f0f0)]
            }
            _ => each(&nibbles),
        };
        let scales = match raw.scales {
            RawScales::One(d) => Scales::One(k.f16_to_f32(d)),
            RawScales::Pair(pair) => {
                let [d, m] = k.f16x2_to_f32(pair);
                Scales::Min(d, m)
            }
            RawScales::Fields([d, a, b, c]) => {
                let [d, dmin] = k.f16x2_to_f32(d.as_ty());
                let [scale, min] =
                    lane.fields(k, [a, b, c]).expect("invariant: lanes of formats with fields know where theirs are");
                Scales::Min(k.mul(d, k.to_f32(scale)), k.neg(k.mul(dmin, k.to_f32(min))))
            }
            RawScales::Halves(d, scales) => Scales::Halves(k.f16_to_f32(d), scales),
        };
        Block { halves, second_is_shifted: shifted, scales }
    }
}

impl Activation {
    /// Loads a block from its place in a tile.
    pub(super) fn load(k: &KernelBuilder, format: Format, at: Ptr<B32>) -> Self {
        Self::load_parts(k, format, at, [512, activation::SCALES as i32], LoadOptions::READ_ONLY)
    }

    /// Loads a block whose second half and scales are `parts` bytes behind its first half.
    pub(super) fn load_parts<S: SpaceOf>(
        k: &KernelBuilder,
        format: Format,
        at: Ptr<B32, S>,
        [second, scales]: [i32; 2],
        options: LoadOptions,
    ) -> Self {
        let codes = [0, second].map(|half| k.ld_vec::<B32, _, 4>(at.offset(half), options).map(Reg::as_ty));
        let [scale, scaled, halves, whole] = k.ld_vec::<B32, _, 4>(at.offset(scales), options);
        let (scale, scaled) = (k.bitcast::<B32, F32>(scale), || k.bitcast::<B32, F32>(scaled));
        let sums = match format {
            Format::Q4_0 => Sums::Offset(k.mul(whole.as_ty::<S32>(), -8)),
            Format::Q6_K => {
                let halves = halves.as_ty::<S32>();
                Sums::Offsets([k.bfe(halves, 0, 16), k.shr(halves, 16)].map(|sum| k.mul(sum, -32)))
            }
            Format::Q4_K | Format::Q5_K => Sums::Scaled(k.mul(scaled(), 1.0 / MIN_UNIT)),
            Format::Q4_1 => Sums::Scaled(scaled()),
            _ => Sums::Unused,
        };
        Self { codes, scale, sums }
    }
}

impl Block {
    /// Adds the product with a block of activations to `acc`, where `inside` is true.
    pub(super) fn dot(
        &self,
        k: &KernelBuilder,
        format: Format,
        x: &Activation,
        acc: Var<F32>,
        inside: Option<Reg<Pred>>,
    ) {
        let half = |half: usize, start: Reg<S32>| {
            (0..4).fold(start, |sum, t| {
                let (w, x) = (self.halves[half][t], x.codes[half][t]);
                if format == Format::Q8_0 {
                    k.dp4a(w.as_ty::<S32>(), x, sum)
                } else {
                    k.dp4a_us(w.as_ty::<U32>(), x, sum)
                }
            })
        };
        let zero = || k.value(0);
        let sum = match (self.scales, x.sums) {
            (Scales::Halves(_, scales), Sums::Offsets(offsets)) => {
                let [first, second] = [half(0, offsets[0]), half(1, offsets[1])];
                k.mad(scales[1], second, k.mul(scales[0], first))
            }
            (_, sums) => {
                let start = if let Sums::Offset(offset) = sums { offset } else { zero() };
                // Two chains of four: one of eight would be serial.
                let (first, second) = (half(0, start), half(1, zero()));
                k.add(first, if self.second_is_shifted { k.shr(second, 4) } else { second })
            }
        };
        let sum = k.to_f32(sum);
        let (Scales::One(scale) | Scales::Min(scale, _) | Scales::Halves(scale, _)) = self.scales;
        let total = k.fma(sum, k.mul(scale, x.scale), acc);
        let total = match (self.scales, x.sums) {
            (Scales::Min(_, min), Sums::Scaled(scaled)) => k.fma(min, scaled, total),
            _ => total,
        };
        match inside {
            None => k.set(acc, total),
            Some(inside) => k.set(acc, k.select(inside, total, acc)),
        }
    }
}
