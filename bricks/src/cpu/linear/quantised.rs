//! Quantised weights times Q8 activations, generic over format and instruction set.
//!
//! Few tokens: blocks are unpacked in registers and used at once for all of them. Many: a panel of 768 inputs of the rows is
//! unpacked to the stack, then all tokens pass in tiles. Both do the same arithmetic in the same order for every output.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::format::{Chunk, Coding, Format, Sink};
use super::lanes::{MAGIC, Owned, RowLanes, Rows};
use super::layout::{HALF, PLANE, ROW_GROUP};
use super::{AHEAD, Job, Q8Acts};
use crate::cpu::simd::{Kernel, Simd};
use crate::quant::q8::BLOCK;

/// Most chunks of a panel: 768 inputs, whole blocks of every type. 18 KiB for 16 rows: unpacked weights stay in the first-level
/// cache. Fewer under Miri, so that small matrices take more than one.
const PANEL: usize = if cfg!(miri) { 8 } else { 24 };

/// Most tokens for which blocks are unpacked anew for every few of them, instead of once to a panel.
const FEW: usize = 8;

/// Tokens of a tile where registers are few.
const NARROW: usize = 4;

/// Tokens of a tile where there are 32 registers: eight codes and eight sums stay in them.
const WIDE: usize = 8;

/// A call with weights of format `F`.
pub(super) struct Quantised<'a, F> {
    job: Job<'a, Q8Acts<'a>>,
    format: PhantomData<F>,
}

impl<'a, F: Format> Quantised<'a, F> {
    pub(super) fn new(job: Job<'a, Q8Acts<'a>>) -> Self {
        Self { job, format: PhantomData }
    }
}

impl<F: Format> Kernel for Quantised<'_, F> {
    const DOTS: bool = true;
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = &self.job;
        let lanes = <S as RowLanes>::ROWS;
        let mut row = job.rows.start;
        while row < job.rows.end {
            let index = row / ROW_GROUP;
            let part = row % ROW_GROUP / lanes * lanes;
            let start = index * ROW_GROUP + part;
            let end = job.rows.end.min(start + lanes);
            // `Rows::at` would do, for 1 % more instructions of a token.
            let rows = Rows {
                // SAFETY: `row` is below the number of rows, so its group exists; `part` is below a group's rows.
                at: unsafe { job.weight.group(index).rows_from(part) },
                start,
                owned: Owned { first: row - start, end: end - start },
            };
            debug_assert!(rows.owned.first < rows.owned.end && rows.owned.end <= lanes);
            // SAFETY: the rows are within the matrix, and those owned within the job's.
            unsafe {
                if job.tokens == 1 {
                    direct::<S, F, 1>(s, job, rows, 0);
                } else if job.tokens <= FEW {
                    for t in (0..job.tokens).step_by(NARROW) {
                        direct::<S, F, NARROW>(s, job, rows, t);
                    }
                } else {
                    panels::<S, F>(s, job, rows);
                }
            }
            row = end;
        }
    }
}

/// Planes of one token's activations, at its first block.
#[derive(Clone, Copy)]
pub(super) struct Token {
    pub(super) codes: *const i8,
    pub(super) scales: *const f32,
    pub(super) sums: *const [i16; 2],
}

impl Token {
    /// # Safety
    /// `t` is below the number of rows of `acts`.
    #[inline(always)]
    pub(super) unsafe fn new(acts: &Q8Acts<'_>, t: usize) -> Self {
        debug_assert!(t < acts.rows());
        let blocks = acts.width / BLOCK;
        // SAFETY: the planes have `rows` rows of `width` codes and `blocks` scales and sums.
        unsafe {
            Self {
                codes: acts.codes.as_ptr().add(t * acts.width),
                scales: acts.scales.as_ptr().add(t * blocks),
                sums: acts.sums.as_ptr().add(t * blocks),
            }
        }
    }
}

/// What dot products begin with (see [`RowLanes::dots`]), from pairs of sums, one per lane.
#[inline(always)]
fn starts<L: RowLanes, C: Coding>(l: L, pairs: L::U) -> [L::U; 2] {
    // No closures here: one that is not inlined would lack the instruction set (see `simd`).
    let second = i16::from(C::SUBS == 1);
    let magic = l.splat_u(MAGIC.to_bits());
    if C::OFFSET == 0 {
        return [magic, l.splat_u(0)];
    }
    [l.weigh(magic, pairs, -C::OFFSET, -C::OFFSET * second), l.weigh(l.splat_u(0), pairs, 0, -C::OFFSET)]
}

/// `Σ activation` of a chunk, or of each half if the coding has a scale for each, from pairs of sums.
#[inline(always)]
fn sums<L: RowLanes, C: Coding>(l: L, pairs: L::U) -> [L::R; 2] {
    let second = i16::from(C::SUBS == 1);
    let zero = l.splat_u(0);
    [l.to_r(l.weigh(zero, pairs, 1, second)), l.to_r(l.weigh(zero, pairs, 0, 1))]
}

/// A token's part in a chunk. Vectors are made of it where they are used: all at once they would not fit into registers.
#[derive(Clone, Copy)]
struct Input {
    codes: *const i8,
    scale: f32,
    /// Both sums, the first in the low bits.
    sums: u32,
}

impl Input {
    /// Chunk `index` of a token.
    ///
    /// # Safety
    /// The token has that chunk.
    #[inline(always)]
    unsafe fn new(token: Token, index: usize) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            // One load, which can go to all lanes: as two, they would be put together first.
            let sums = token.sums.add(index).cast::<u32>().read_unaligned();
            Self { codes: token.codes.add(BLOCK * index), scale: *token.scales.add(index), sums }
        }
    }
}

/// Adds a chunk to the accumulators of `N` tokens: the one place where results are rounded.
///
/// # Safety
/// 32 activations are readable from the address of each input on.
#[inline(always)]
unsafe fn accumulate<L: RowLanes, C: Coding, const N: usize>(
    l: L,
    chunk: &Chunk<L>,
    inputs: [Input; N],
    acc: &mut [L::R; N],
) {
    let mut acts = [inputs[0].codes; N];
    let mut start = [starts::<L, C>(l, l.splat_u(inputs[0].sums)); N];
    for n in 1..N {
        acts[n] = inputs[n].codes;
        start[n] = starts::<L, C>(l, l.splat_u(inputs[n].sums));
    }
    // SAFETY: the caller promises the activations.
    let dots = unsafe { l.dots::<C, N>(&chunk.codes, acts, start) };
    // Exact: scales have at most 19 significant bits.
    let shift = l.mul_r(chunk.scale[0], l.splat_r(-MAGIC));
    for ((dots, input), acc) in dots.into_iter().zip(inputs).zip(acc) {
        // `scale · n`, rounded once: the sum begins with MAGIC.
        let mut v = l.fma_r(chunk.scale[0], l.as_r(dots[0]), shift);
        if C::SUBS == 2 {
            v = l.fma_r(chunk.scale[1], l.to_r(dots[1]), v);
        }
        if C::MINIMUM {
            let sum = sums::<L, C>(l, l.splat_u(input.sums));
            v = l.fma_r(chunk.minimum[0], sum[0], v);
            if C::SUBS == 2 {
                v = l.fma_r(chunk.minimum[1], sum[1], v);
            }
        }
        *acc = l.fma_r(l.splat_r(input.scale), v, *acc);
    }
}

/// Uses chunks at once, for `N` tokens.
struct Use<L: RowLanes, F, const N: usize> {
    tokens: [Token; N],
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    acc: [L::R; N],
    format: PhantomData<F>,
}

impl<L: RowLanes, F: Format, const N: usize> Sink<L> for Use<L, F, N> {
    #[inline(always)]
    fn put(&mut self, l: L, index: usize, mut chunk: Chunk<L>) {
        let index = self.first + index;
        chunk.codes = l.ready::<F::Coding>(chunk.codes);
        // SAFETY: `direct` unpacks as many blocks as the tokens have.
        unsafe {
            let mut inputs = [Input::new(self.tokens[0], index); N];
            for (input, token) in inputs.iter_mut().zip(self.tokens) {
                *input = Input::new(token, index);
            }
            accumulate::<L, F::Coding, N>(l, &chunk, inputs, &mut self.acc);
        }
    }
}

/// Tokens `t..t + N` (as far as there are so many), blocks unpacked as they are used.
///
/// # Safety
/// The job has token `t`; the rows are within its matrix, those owned within the job's.
#[inline(always)]
unsafe fn direct<L: RowLanes, F: Format, const N: usize>(l: L, job: &Job<'_, Q8Acts<'_>>, rows: Rows, t: usize) {
    // SAFETY: the tokens exist; every block of the rows is in the packed matrix; the outputs are the job's.
    unsafe {
        let mut sink =
            Use::<L, F, N> { tokens: tokens(job, t), first: 0, acc: [l.splat_r(0.0); N], format: PhantomData };
        let blocks = job.cols / F::DTYPE.block_len();
        let group = blocks * (F::LAYOUT.planes * PLANE + F::LAYOUT.halves * HALF);
        for block in 0..blocks {
            sink.first = block * F::CHUNKS;
            let at = rows.at.skip(F::LAYOUT, block);
            // Groups follow one another, each with its halves behind its planes.
            for plane in 0..F::LAYOUT.planes {
                l.prefetch(at.planes.wrapping_add(AHEAD + plane * PLANE));
            }
            for half in 0..F::LAYOUT.halves {
                l.prefetch(at.halves.wrapping_add(group + half * HALF));
            }
            F::unpack(l, at, &mut sink);
        }
        for (i, acc) in sink.acc.into_iter().enumerate().take(job.tokens - t) {
            finish(l, job, rows, t + i, acc);
        }
    }
}

/// Keeps chunks for several tokens.
struct Keep<'a, L: RowLanes, F> {
    panel: &'a mut [MaybeUninit<Chunk<L>>; PANEL],
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    format: PhantomData<F>,
}

impl<L: RowLanes, F: Format> Sink<L> for Keep<'_, L, F> {
    #[inline(always)]
    fn put(&mut self, l: L, index: usize, mut chunk: Chunk<L>) {
        chunk.codes = l.ready::<F::Coding>(chunk.codes);
        self.panel[self.first + index].write(chunk);
    }
}

/// # Safety
/// The rows are within the job's matrix, those owned within the job's.
#[inline(always)]
unsafe fn panels<L: RowLanes, F: Format>(l: L, job: &Job<'_, Q8Acts<'_>>, rows: Rows) {
    let chunks = job.cols / BLOCK;
    let mut panel = [const { MaybeUninit::<Chunk<L>>::uninit() }; PANEL];
    let mut first = 0;
    while first < chunks {
        let len = (chunks - first).min(PANEL);
        let mut sink = Keep::<L, F> { panel: &mut panel, first: 0, format: PhantomData };
        while sink.first < len {
            let block = (first + sink.first) / F::CHUNKS;
            // SAFETY: `block` is a block of the rows, as panels are whole blocks.
            unsafe { F::unpack(l, rows.at.skip(F::LAYOUT, block), &mut sink) };
            sink.first += F::CHUNKS;
        }
        // SAFETY: `unpack` has written chunks `0..len`.
        let unpacked = unsafe { std::slice::from_raw_parts(panel.as_ptr().cast::<Chunk<L>>(), len) };
        // SAFETY: the panel's chunks are blocks `first..` of the job's tokens; the rows are as the caller promises.
        unsafe { tiles::<L, F::Coding>(l, job, rows, unpacked, first) };
        first += len;
    }
}

/// All tokens times a panel.
///
/// # Safety
/// The job's tokens have blocks `first..first + panel.len()`; the owned rows are the job's.
#[inline(always)]
unsafe fn tiles<L: RowLanes, C: Coding>(l: L, job: &Job<'_, Q8Acts<'_>>, rows: Rows, panel: &[Chunk<L>], first: usize) {
    let mut t = 0;
    while t < job.tokens {
        // SAFETY: token `t` is the job's.
        unsafe {
            if L::REGISTERS >= 32 && job.tokens - t > NARROW {
                tile::<L, C, WIDE>(l, job, rows, panel, first, t);
                t += WIDE;
            } else {
                tile::<L, C, NARROW>(l, job, rows, panel, first, t);
                t += NARROW;
            }
        }
    }
}

/// Tokens `t..t + N`. Where the job has fewer, the last takes their places: a tile of a fixed size computes it again, for
/// nothing, and one kernel serves all numbers of tokens.
///
/// # Safety
/// The job has token `t`.
#[inline(always)]
unsafe fn tokens<const N: usize>(job: &Job<'_, Q8Acts<'_>>, t: usize) -> [Token; N] {
    debug_assert!(t < job.tokens);
    // SAFETY: the tokens exist.
    unsafe {
        let mut out = [Token::new(&job.acts, t); N];
        for (i, token) in out.iter_mut().enumerate() {
            *token = Token::new(&job.acts, (t + i).min(job.tokens - 1));
        }
        out
    }
}

/// Tokens `t..t + N` (as far as there are so many) times a panel; between panels the accumulators rest in the output, where
/// f32 keeps their bits.
///
/// # Safety
/// The job has token `t`, and blocks `first..first + panel.len()`; the owned rows are the job's.
#[inline(always)]
unsafe fn tile<L: RowLanes, C: Coding, const N: usize>(
    l: L,
    job: &Job<'_, Q8Acts<'_>>,
    rows: Rows,
    panel: &[Chunk<L>],
    first: usize,
    t: usize,
) {
    debug_assert!(t < job.tokens && first + panel.len() <= job.cols / BLOCK && panel.len() <= PANEL);
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [l.splat_r(0.0); N];
        if first > 0 {
            for (i, acc) in acc.iter_mut().enumerate().take(job.tokens - t) {
                *acc = l.load_r(output(job, rows, t + i), rows.owned);
            }
        }
        let tokens = tokens::<N>(job, t);
        for (i, chunk) in panel.iter().enumerate() {
            let mut inputs = [Input::new(tokens[0], first + i); N];
            for (input, token) in inputs.iter_mut().zip(tokens) {
                *input = Input::new(token, first + i);
            }
            accumulate::<L, C, N>(l, chunk, inputs, &mut acc);
        }
        let last = first + panel.len() == job.cols / BLOCK;
        for (i, acc) in acc.into_iter().enumerate().take(job.tokens - t) {
            if last {
                finish(l, job, rows, t + i, acc);
            } else {
                l.store_r(acc, output(job, rows, t + i), rows.owned);
            }
        }
    }
}

/// Adds the bias and stores.
///
/// # Safety
/// `t` is a token of the job and the owned rows are the job's.
#[inline(always)]
unsafe fn finish<L: RowLanes>(l: L, job: &Job<'_, Q8Acts<'_>>, rows: Rows, t: usize, mut acc: L::R) {
    // SAFETY: the bias has a value for every row of the matrix; the outputs are the job's.
    unsafe {
        if let Some(bias) = job.bias {
            acc = l.add_r(acc, l.load_r(bias.as_ptr().wrapping_add(rows.start), rows.owned));
        }
        l.store_r(acc, output(job, rows, t), rows.owned);
    }
}

/// Where the outputs of the rows begin; lanes that are not owned may lie outside of the buffer.
#[inline(always)]
fn output(job: &Job<'_, Q8Acts<'_>>, rows: Rows, t: usize) -> *mut f32 {
    job.out.ptr.wrapping_add(t * job.out.stride + rows.start)
}
