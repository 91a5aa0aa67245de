//! What a warp does with a group that is in shared memory.

use super::copy::scale_place;
use super::{GemvMma, ROW_SCALES, Sums, WARP_ROWS};
use crate::build::{B32, F16, F32, KernelBuilder, Ptr, Reg, S32, SharedSpace, U32, Var};
use crate::ir::Signedness;
use crate::kernels::activation;
use crate::kernels::format::Format;
use crate::kernels::gemv::{MAX_TOKENS, TILE};

/// Where a lane finds its parts of a stage. `g` is a row and a token of its fragments, `t` a word of a half of a block.
///
/// A warp takes blocks `q`, `q + 4`, …: of each super-block two, whose places differ in a bit that the swizzle may turn. So there are two
/// addresses of everything (of 16 rows, where they are `q`, `q + 8`, …, one of them is used), and super-blocks are constant distances. High bits have
/// chunks of two blocks, so there are four addresses.
pub(super) struct Warp {
    gemv: GemvMma,
    /// Words of codes and of activations, from their rows' or tokens' beginning.
    words: [Reg<U32>; 2],
    /// Codes of row `g`.
    row: Reg<U32>,
    /// Codes of token `g`.
    token: Reg<U32>,
    /// Scale and sums of tokens `2t` and `2t + 1`.
    sums: [[Reg<U32>; 2]; 2],
    /// Scales of row `g`: of the first super-block, or of block `q` where they are decoded.
    scales: Reg<U32>,
    /// Byte of block `q` in the scales of a super-block, where they are not decoded.
    scale: Reg<U32>,
    high: Option<High>,
}

/// High bits of codes.
struct High {
    /// Those of row `g`, in a stage, of the first four blocks of the warp.
    at: [Reg<U32>; 4],
    /// Bit of word `t` in each byte.
    bit: Reg<U32>,
}

/// Scales of a row.
#[derive(Clone, Copy)]
enum RowScales {
    One(Reg<F32>),
    Min(Reg<F32>, Reg<F32>),
    Halves(Reg<F32>, [Reg<S32>; 2]),
}

impl RowScales {
    fn scale(self) -> Reg<F32> {
        let (Self::One(scale) | Self::Min(scale, _) | Self::Halves(scale, _)) = self;
        scale
    }
}

/// What a block of a token has besides codes, as far as a format needs it: every word more is a pass through shared memory, which is what binds
/// many tokens.
#[derive(Clone, Copy)]
struct TokenScales {
    scale: Reg<F32>,
    /// Scale times the sum of codes: of formats with minimums.
    scaled: Reg<F32>,
    /// The sum of codes, or of the codes of each half: of formats whose codes have an offset.
    codes: Reg<S32>,
}

impl TokenScales {
    fn load(k: &KernelBuilder, format: Format, at: Ptr<B32, SharedSpace>) -> Self {
        let float = |word: Reg<B32>| k.bitcast::<B32, F32>(word);
        let (scaled, codes) = (k.value(0.0), k.value(0));
        match format {
            Format::Q4_K => {
                let [scale, scaled] = k.ld2(at).map(float);
                Self { scale, scaled, codes }
            }
            Format::Q6_K => Self { scale: float(k.ld(at)), scaled, codes: k.ld(at.offset(8)).as_ty() },
            Format::Q4_0 => Self { scale: float(k.ld(at)), scaled, codes: k.ld(at.offset(12)).as_ty() },
            _ => Self { scale: float(k.ld(at)), scaled, codes },
        }
    }
}

/// A block of weights in registers: the fragment, and the scales of rows `g` and `g + 8`.
struct Block {
    codes: [Reg<B32>; 4],
    scales: [RowScales; 2],
}

impl Warp {
    pub(super) fn new(k: &KernelBuilder, gemv: GemvMma) -> Self {
        let columns = gemv.columns_of_warps();
        let (g, t, q) = (k.shr(k.laneid(), 2), k.and(k.laneid(), 3), k.and(k.warp(), columns - 1));
        let row = k.mad(k.div(k.warp(), columns), WARP_ROWS, g);
        let blocks = [0, 4].map(|odd| k.add(q, odd));
        let scales = if gemv.decodes() {
            k.mad(q, 8 * gemv.rows(), k.mul(row, 8))
        } else {
            let first = k.mad(scale_place(k, row, k.value(0)), 16, k.mul(row, ROW_SCALES));
            k.add(first, gemv.scales_at())
        };
        let high = (gemv.row_high() > 0).then(|| {
            let of_row = k.add(k.mad(k.and(q, 1), 8, k.mul(row, gemv.row_high())), gemv.high_at());
            High {
                at: [0, 2, 4, 6].map(|chunk| k.mad(k.xor(k.add(k.shr(q, 1), chunk), g), 16, of_row)),
                bit: k.shl(t, 1),
            }
        });
        Self {
            gemv,
            words: blocks.map(|block| k.mad(k.xor(block, g), 16, k.mul(t, 4))),
            row: k.mul(row, gemv.row_codes()),
            token: k.mul(g, TILE),
            sums: blocks.map(|block| {
                [0, 1].map(|odd| {
                    let token = k.mad(t, 2, odd);
                    k.mad(token, TILE, k.mul(k.xor(block, token), 16))
                })
            }),
            scales,
            scale: k.shl(q, 1),
            high,
        }
    }

    /// Multiplies a group: `acc[..][j]` belongs to its block `4j + q`, of 16 rows `8j + q`.
    pub(super) fn multiply(
        &self,
        k: &KernelBuilder,
        stage: Ptr<B32, SharedSpace>,
        decoded: Option<Ptr<F32, SharedSpace>>,
        acc: &Sums,
    ) {
        let x = stage.offset(self.gemv.activations_at() as i32);
        let codes: [_; 2] = std::array::from_fn(|odd| k.displace(k.displace(stage, self.words[odd]), self.row));
        let tokens: [Tokens; 2] = std::array::from_fn(|odd| Tokens {
            codes: k.displace(k.displace(x, self.words[odd]), self.token),
            sums: self.sums[odd].map(|sums| k.displace(x, sums).offset(activation::SCALES as i32)),
        });
        let high = self.high.as_ref().map(|high| high.at.map(|at| k.displace(stage, at)));
        let decoded = decoded.map(|decoded| k.displace(decoded, self.scales));
        let halves = k.displace(stage, self.scales);
        for j in 0..self.gemv.blocks_of_warp() {
            let from = self.gemv.columns_of_warps() * j;
            let (super_block, odd) = (from / 8, from as usize / 4 % 2);
            let further = (128 * super_block) as i32;
            let scales = match decoded {
                Some(decoded) => [0, 8].map(|row| {
                    let [scale, second] = k.ld2(decoded.at((2 * (self.gemv.rows() * from + row)) as i32));
                    if self.high.is_none() {
                        return RowScales::Min(scale, second);
                    }
                    let halves: Reg<S32> = k.bitcast(second);
                    RowScales::Halves(scale, [0, 8].map(|bit| k.bfe(halves, bit, 8)))
                }),
                None => [0, 8].map(|row| {
                    // The place of a chunk is its number XOR a constant of the lane, and rows are aligned to four chunks.
                    let chunk = k.xor(k.address_of(halves), 16 * super_block);
                    let at = Ptr::<F16, SharedSpace>::from_address(k.add(chunk, self.scale));
                    let scale = k.ld(at.at(4 * odd as i32).offset((ROW_SCALES * row) as i32));
                    RowScales::One(k.f16_to_f32(scale))
                }),
            };
            // A high bit's chunk 8 further is 128 bytes further: no swizzle reaches that bit.
            let high = high.map(|high| high[from as usize / 4 % 4].offset(128 * (from / 16) as i32));
            let block = Block { codes: self.codes(k, codes[odd].offset(further), high), scales };
            for (chunk, acc) in (0..).zip(acc) {
                let at = tokens[odd].offset(further + (MAX_TOKENS * TILE * chunk) as i32);
                self.tokens(k, &block, &at, &acc[j as usize]);
            }
        }
    }

    /// The fragment of a block's codes.
    fn codes(
        &self,
        k: &KernelBuilder,
        at: Ptr<B32, SharedSpace>,
        high: Option<Ptr<B32, SharedSpace>>,
    ) -> [Reg<B32>; 4] {
        let rows = [0, 8].map(|row| at.offset((row * self.gemv.row_codes()) as i32));
        if self.gemv.format == Format::Q8_0 {
            let [first, second] = [0, 512].map(|half| rows.map(|row| k.ld(row.offset(half))));
            return [first[0], first[1], second[0], second[1]];
        }
        let words = rows.map(|row| k.ld(row));
        let low = [words.map(|word| k.and(word, 0x0f0f_0f0f)), words.map(|word| k.and(k.shr(word, 4), 0x0f0f_0f0f))];
        let (Some(high), Some(High { bit, .. })) = (high, &self.high) else {
            return [low[0][0], low[0][1], low[1][0], low[1][1]];
        };
        // Bits 4 and 5 of four codes are bits 2t and 2t + 1 of the bytes of a half's word.
        let high = [0, 8].map(|row: u32| k.ld2(high.offset((row * self.gemv.row_high()) as i32)));
        let code = |half: usize, row: usize| {
            let bits = k.and(k.shl(k.shr(high[row][half], *bit), 4), 0x3030_3030);
            k.or(low[half][row], bits)
        };
        [code(0, 0), code(0, 1), code(1, 0), code(1, 1)]
    }

    /// Multiplies a block with that of eight tokens.
    fn tokens(&self, k: &KernelBuilder, block: &Block, at: &Tokens, acc: &[Var<F32>; 4]) {
        let b = [0, 512].map(|half| k.ld(at.codes.offset(half)));
        let tokens = at.sums.map(|sums| TokenScales::load(k, self.gemv.format, sums));
        let a = block.codes;
        let signed = self.gemv.format == Format::Q8_0;
        let signs = (if signed { Signedness::Signed } else { Signedness::Unsigned }, Signedness::Signed);
        let start = |of_token: &dyn Fn(TokenScales) -> Reg<S32>| {
            let [even, odd] = tokens.map(of_token);
            [even, odd, even, odd]
        };
        let none: Reg<B32> = k.value(0_u32);
        let sums = if let [RowScales::Halves(_, first), RowScales::Halves(_, second)] = block.scales {
            let starts = [
                start(&|token| k.mul(k.bfe(token.codes, 0, 16), -32)),
                start(&|token| k.mul(k.shr(token.codes, 16), -32)),
            ];
            let a = [[a[0], a[1], none, none], [none, none, a[2], a[3]]];
            let sums = [0, 1].map(|half| k.mma_int8(signs, a[half], b, starts[half]));
            let scales = [first, second];
            std::array::from_fn(|i| k.mad(scales[i / 2][1], sums[1][i], k.mul(scales[i / 2][0], sums[0][i])))
        } else {
            let start = start(&|token| match self.gemv.format {
                Format::Q4_0 => k.mul(token.codes, -8),
                _ => k.value(0),
            });
            k.mma_int8(signs, a, b, start)
        };
        for (i, (sum, acc)) in sums.into_iter().zip(acc).enumerate() {
            let (token, of_row) = (tokens[i % 2], block.scales[i / 2]);
            k.fma_into(*acc, k.to_f32(sum), k.mul(of_row.scale(), token.scale));
            if let RowScales::Min(_, min) = of_row {
                k.fma_into(*acc, min, token.scaled);
            }
        }
    }
}

/// Where the parts of a block of eight tokens are.
#[derive(Clone, Copy)]
struct Tokens {
    codes: Ptr<B32, SharedSpace>,
    sums: [Ptr<B32, SharedSpace>; 2],
}

impl Tokens {
    fn offset(self, bytes: i32) -> Self {
        Self { codes: self.codes.offset(bytes), sums: self.sums.map(|sums| sums.offset(bytes)) }
    }
}
