//! What is counted: every kernel that a forward call spends its time in, on fixed data of a fixed shape.
//!
//! Data are the same on every run (seeded), and many enough that the checks of a call do not show. Kernels do not choose their
//! path by the values they meet, with two exceptions: rounding to Q8 treats blocks that are zero or not finite apart (there are
//! none here), and the arg-max looks for its result from the front (here it is the last value).

use std::hint::black_box;

use bricks::cpu::attention::{AttentionGroup, KvLayout, KvType, PAGE, Tile};
use bricks::cpu::linear::{Acts, LinearKernel, Matrix, Packed, PackedShape, ROW_GROUP};
use bricks::cpu::{
    SimdLevel, add_row, argmax, f16_to_f32, f32_to_f16, gated_activation_in_place, quantize_row, rms_norm_row,
    rope_row, softcap_row,
};
use bricks::quant::q8::Q8Rows;
use bricks::rope::RopeStyle;
use bricks::{ActKind, DType};
use half::f16;

/// Rows of the matrix: four groups.
pub const ROWS: usize = 64;
/// Its columns: one panel of the kernels for many tokens, whole blocks of every format.
pub const COLS: usize = 768;
/// Tokens of the linear cases: decoding, and a prompt (whole tiles at every level).
pub const TOKENS: [usize; 2] = [1, 32];

/// Width of a row of activations in the cases of rows.
const WIDTH: usize = 768;
/// Rows of those cases.
const LINES: usize = 16;
/// Logits of SmolLM2.
const LOGITS: usize = 49_152;

/// A call of a kernel that can be made again and again.
pub type Call = Box<dyn FnMut()>;

type Prepare = Box<dyn Fn(SimdLevel) -> anyhow::Result<Call>>;

/// A kernel on a fixed shape.
pub struct Case {
    /// What it is, with its parameters: `linear/Q4_0/32`.
    pub name: String,
    /// What [`work`](Self::work) counts.
    pub unit: &'static str,
    /// Units of work of one call.
    pub work: u64,
    prepare: Prepare,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("work", &self.work).finish_non_exhaustive()
    }
}

impl Case {
    fn new(
        name: String,
        (work, unit): (usize, &'static str),
        prepare: impl Fn(SimdLevel) -> anyhow::Result<Call> + 'static,
    ) -> Self {
        Self { name, unit, work: work as u64, prepare: Box::new(prepare) }
    }

    /// The data and the call, for kernels of a level.
    ///
    /// # Errors
    /// A shape that the kernels do not take: a bug of this file.
    pub fn prepare(&self, level: SimdLevel) -> anyhow::Result<Call> {
        (self.prepare)(level)
    }
}

/// Every case, in the order of reports.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for &dtype in DType::ALL {
        all.extend(TOKENS.map(|tokens| linear(dtype, tokens)));
    }
    all.extend(DType::ALL.iter().map(|&dtype| pack(dtype)));
    for kind in KvType::ALL {
        all.push(attention(kind, "decode", 1));
        all.push(attention(kind, "tile", 16));
        all.push(kv_write(kind));
    }
    all.extend([norm("rms-norm", false), norm("rms-norm-quantise", true), quantise()]);
    all.extend([rope("split-halves", RopeStyle::SplitHalves), rope("interleaved", RopeStyle::Interleaved)]);
    all.extend([gated("silu", ActKind::Silu), gated("gelu-tanh", ActKind::GeluTanh)]);
    all.extend([add(), softcap(), to_f16(), from_f16(), largest()]);
    all
}

/// xorshift64*: the same numbers on every run. The seed is not 0.
fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    move || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut random = random(seed);
    (0..n).map(|_| (random() >> 40) as f32 / (1u64 << 24) as f32 - 0.5).collect()
}

/// Bytes that are blocks of any format: without bit 6, no f16 among them is infinite, NaN, or beyond 2.
fn blocks(n: usize) -> Vec<u8> {
    let mut random = random(1);
    (0..n).map(|_| (random() >> 56) as u8 & 0xbf).collect()
}

fn file(dtype: DType) -> anyhow::Result<(PackedShape, Vec<u8>)> {
    let row_bytes = dtype.row_bytes(COLS).ok_or_else(|| anyhow::anyhow!("{COLS} are not whole blocks of {dtype}"))?;
    Ok((PackedShape { dtype, rows: ROWS, cols: COLS }, blocks(ROWS * row_bytes)))
}

fn linear(dtype: DType, tokens: usize) -> Case {
    let work = (ROWS * COLS * tokens, if tokens == 1 { "weight" } else { "weight·token" });
    Case::new(format!("linear/{}/{tokens}", dtype.name()), work, move |level| {
        let (shape, file) = file(dtype)?;
        let packed = Packed::new(shape, &file)?;
        let kernel = LinearKernel::new(dtype, level);
        let x = values(tokens * COLS, 2);
        let q8 = Q8Rows::from_values(COLS, &x)?;
        let mut out = vec![0.0; tokens * ROWS];
        Ok(Box::new(move || {
            let matrix = Matrix { weight: packed.matrix(), bias: None };
            let acts = if kernel.takes_q8() { Acts::Q8((&q8).into()) } else { Acts::F32(&x) };
            kernel.apply(black_box(&matrix), black_box(acts), &mut out).expect("invariant: lengths agree");
            black_box(&mut out);
        }))
    })
}

fn pack(dtype: DType) -> Case {
    Case::new(format!("pack/{}", dtype.name()), (ROWS * COLS, "weight"), move |_| {
        let (shape, file) = file(dtype)?;
        let mut packed = vec![0u8; shape.bytes()?];
        Ok(Box::new(move || {
            shape
                .pack(black_box(&file), 0..ROWS.div_ceil(ROW_GROUP), black_box(&mut packed))
                .expect("invariant: lengths agree");
        }))
    })
}

/// Three query heads of 64 that share a KV head (SmolLM2), rows at the end of a context of 256: one whole split.
fn attention(kind: KvType, what: &str, rows: usize) -> Case {
    const HEADS: usize = 3;
    const HEAD_DIM: usize = 64;
    const CONTEXT: usize = 256;
    let tile = Tile { position: CONTEXT - rows, rows, window: None };
    let pairs: usize = (0..rows).map(|r| tile.visible(r).len()).sum();
    // Scores and weighted values.
    let work = (2 * HEADS * HEAD_DIM * pairs, "multiply-add");
    Case::new(format!("attention/{kind}/{what}"), work, move |level| {
        let layout = KvLayout::new(kind, HEAD_DIM)?;
        let spec = AttentionGroup { heads: HEADS, layout, scale: 0.125, softcap: None };
        let mut pages = vec![0; CONTEXT / PAGE * layout.page_bytes()];
        for (i, page) in pages.chunks_exact_mut(layout.page_bytes()).enumerate() {
            for slot in 0..PAGE {
                let row = values(HEAD_DIM, (100 + i * PAGE + slot) as u64);
                layout.write(level, page, slot, &row, &row)?;
            }
        }
        let mut scratch = vec![0.0; spec.scratch_len(rows)];
        let q = values(rows * HEADS * HEAD_DIM, 7);
        Ok(Box::new(move || {
            let page = |i: usize| pages.get(i * layout.page_bytes()..)?.get(..layout.page_bytes());
            let query = |row: usize| &q[row * HEADS * HEAD_DIM..(row + 1) * HEADS * HEAD_DIM];
            let out = spec.attend(level, black_box(&tile), query, page, &mut scratch);
            black_box(out.expect("invariant: lengths agree"));
        }))
    })
}

/// A page's keys and values, position by position.
fn kv_write(kind: KvType) -> Case {
    const HEAD_DIM: usize = 64;
    Case::new(format!("kv-write/{kind}"), (2 * PAGE * HEAD_DIM, "element"), move |level| {
        let layout = KvLayout::new(kind, HEAD_DIM)?;
        let mut page = vec![0; layout.page_bytes()];
        let (key, value) = (values(HEAD_DIM, 8), values(HEAD_DIM, 9));
        Ok(Box::new(move || {
            for slot in 0..PAGE {
                layout
                    .write(level, black_box(&mut page), slot, black_box(&key), black_box(&value))
                    .expect("invariant: lengths agree");
            }
        }))
    })
}

fn norm(name: &str, quantise: bool) -> Case {
    Case::new(name.to_owned(), (LINES * WIDTH, "element"), move |level| {
        let (x, gain) = (values(LINES * WIDTH, 3), values(WIDTH, 4));
        let mut out = vec![0.0; LINES * WIDTH];
        let mut q8 = Q8Rows::zeros(LINES, WIDTH)?;
        Ok(Box::new(move || {
            for (t, (x, out)) in x.chunks_exact(WIDTH).zip(out.chunks_exact_mut(WIDTH)).enumerate() {
                rms_norm_row(level, black_box(x), &gain, 1e-5, out).expect("invariant: lengths agree");
                if quantise {
                    let mut row = q8.row_mut(t).expect("invariant: a row each");
                    quantize_row(level, black_box(out), &mut row).expect("invariant: lengths agree");
                }
            }
            black_box((&mut out, &mut q8));
        }))
    })
}

fn quantise() -> Case {
    Case::new("quantise".to_owned(), (LINES * WIDTH, "element"), |level| {
        let x = values(LINES * WIDTH, 3);
        let mut q8 = Q8Rows::zeros(LINES, WIDTH)?;
        Ok(Box::new(move || {
            for (t, x) in x.chunks_exact(WIDTH).enumerate() {
                let mut row = q8.row_mut(t).expect("invariant: a row each");
                quantize_row(level, black_box(x), &mut row).expect("invariant: lengths agree");
            }
            black_box(&mut q8);
        }))
    })
}

/// Twelve heads of 64 in each row.
fn rope(name: &str, style: RopeStyle) -> Case {
    const HEAD_DIM: usize = 64;
    Case::new(format!("rope/{name}"), (LINES * WIDTH, "element"), move |level| {
        let mut x = values(LINES * WIDTH, 5);
        let (sin, cos): (Vec<f32>, Vec<f32>) = (0..HEAD_DIM / 2).map(|i| (i as f32 * 0.1).sin_cos()).unzip();
        Ok(Box::new(move || {
            for x in x.chunks_exact_mut(WIDTH) {
                rope_row(level, style, black_box(x), HEAD_DIM, &cos, &sin).expect("invariant: lengths agree");
            }
        }))
    })
}

fn gated(name: &str, act: ActKind) -> Case {
    Case::new(format!("gated/{name}"), (LINES * WIDTH, "element"), move |level| {
        let (mut gate, up) = (values(LINES * WIDTH, 10), values(LINES * WIDTH, 11));
        Ok(Box::new(move || {
            gated_activation_in_place(level, act, black_box(&mut gate), black_box(&up))
                .expect("invariant: lengths agree");
        }))
    })
}

fn add() -> Case {
    Case::new("add".to_owned(), (LINES * WIDTH, "element"), |level| {
        let (a, b) = (values(LINES * WIDTH, 12), values(LINES * WIDTH, 13));
        let mut out = vec![0.0; LINES * WIDTH];
        Ok(Box::new(move || {
            add_row(level, black_box(&a), black_box(&b), black_box(&mut out)).expect("invariant: lengths agree");
        }))
    })
}

fn softcap() -> Case {
    Case::new("softcap".to_owned(), (LINES * WIDTH, "element"), |level| {
        let mut x = values(LINES * WIDTH, 14);
        Ok(Box::new(move || softcap_row(level, 30.0, black_box(&mut x))))
    })
}

fn to_f16() -> Case {
    Case::new("f32-to-f16".to_owned(), (LINES * WIDTH, "element"), |level| {
        let src = values(LINES * WIDTH, 15);
        let mut dst = vec![f16::ZERO; LINES * WIDTH];
        Ok(Box::new(move || {
            f32_to_f16(level, black_box(&src), black_box(&mut dst)).expect("invariant: lengths agree");
        }))
    })
}

fn from_f16() -> Case {
    Case::new("f16-to-f32".to_owned(), (LINES * WIDTH, "element"), |level| {
        let src: Vec<f16> = values(LINES * WIDTH, 16).into_iter().map(f16::from_f32).collect();
        let mut dst = vec![0.0; LINES * WIDTH];
        Ok(Box::new(move || {
            f16_to_f32(level, black_box(&src), black_box(&mut dst)).expect("invariant: lengths agree");
        }))
    })
}

/// The largest is the last: both passes over all logits.
fn largest() -> Case {
    Case::new("arg-max".to_owned(), (LOGITS, "logit"), |_| {
        let mut logits = values(LOGITS, 17);
        if let Some(last) = logits.last_mut() {
            *last = 9.0;
        }
        Ok(Box::new(move || {
            black_box(argmax(black_box(&logits)));
        }))
    })
}
