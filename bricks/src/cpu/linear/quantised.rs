//! Quantised weights times Q8 activations, generic over format and instruction set.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::format::{Chunk, Format, Sink};
use super::lanes::{Owned, RowLanes, RowsAt};
use super::{Job, Q8Acts};
use crate::cpu::simd::{Kernel, Simd};
use crate::quant::q8::BLOCK;

/// Chunks of a panel: 512 inputs, a multiple of every block. 12 KiB for 16 rows: unpacked weights stay in the first-level cache.
const PANEL: usize = 16;

/// Tokens of a full tile: unpacked codes are loaded once for all of them, and their accumulators fit in registers.
const TILE: usize = 4;

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
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let job = &self.job;
        let (lanes, all) = (<S as RowLanes>::ROWS, job.matrix_rows);
        let mut row = job.rows.start;
        while row < job.rows.end {
            // A group is `lanes` whole rows of the matrix. At the end of the matrix it begins earlier, and with ranges that
            // are no multiple it overlaps others: such lanes are computed and not stored. Fewer rows than lanes: one by one.
            let start = if all < lanes { row } else { row.min(all - lanes) };
            let end = if all < lanes { row + 1 } else { job.rows.end.min(start + lanes) };
            let group = Group {
                rows: RowsAt {
                    // SAFETY: `start < matrix_rows`, so the row begins within the matrix.
                    base: unsafe { job.weight.as_ptr().add(start * job.row_bytes) },
                    stride: if all < lanes { 0 } else { job.row_bytes },
                },
                start,
                owned: Owned { first: row - start, end: end - start },
            };
            debug_assert!(group.owned.first < group.owned.end && group.owned.end <= lanes);
            debug_assert!(start + if all < lanes { 1 } else { lanes } <= all);
            // SAFETY: the group's rows are within the matrix, and its owned rows within the job's.
            unsafe { if job.tokens == 1 { one_token::<S, F>(s, job, group) } else { panels::<S, F>(s, job, group) } }
            row = end;
        }
    }
}

/// Neighbouring rows, one per lane.
#[derive(Clone, Copy)]
struct Group {
    rows: RowsAt,
    /// Row of lane 0.
    start: usize,
    owned: Owned,
}

/// Planes of one token's activations, at its first block.
#[derive(Clone, Copy)]
struct Token {
    codes: *const i8,
    scales: *const f32,
    sums: *const [i16; 2],
}

impl Token {
    /// # Safety
    /// `t` is below the number of rows of `acts`.
    #[inline(always)]
    unsafe fn new(acts: &Q8Acts<'_>, t: usize) -> Self {
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

/// Adds chunk `index` of the row to the accumulators of `N` tokens: the one place where results are rounded.
///
/// # Safety
/// `index` is below the number of blocks of the tokens.
#[inline(always)]
unsafe fn accumulate<L: RowLanes, F: Format, const N: usize>(
    l: L,
    chunk: &Chunk<L>,
    tokens: &[Token; N],
    index: usize,
    acc: &mut [L::R; N],
) {
    for (token, acc) in tokens.iter().zip(acc) {
        // SAFETY: the caller promises that the token has this block.
        let (dots, sums, scale) = unsafe {
            let sums = *token.sums.add(index);
            (l.dot::<F>(&chunk.codes, token.codes.add(BLOCK * index), sums), sums, *token.scales.add(index))
        };
        let first = l.to_r(dots[0]);
        let mut v = if F::MINIMUM {
            let second = i16::from(F::SUBS == 1);
            l.fma_r(chunk.scale[0], first, l.mul_r(chunk.minimum[0], l.to_r(l.weigh_sums(sums, 1, second))))
        } else {
            l.mul_r(chunk.scale[0], first)
        };
        if F::SUBS == 2 {
            if F::MINIMUM {
                v = l.fma_r(chunk.minimum[1], l.to_r(l.weigh_sums(sums, 0, 1)), v);
            }
            v = l.fma_r(chunk.scale[1], l.to_r(dots[1]), v);
        }
        *acc = l.fma_r(l.splat_r(scale), v, *acc);
    }
}

/// Asks for a share of the next group's rows while chunk `index` of this one is used.
///
/// A group reads as many streams as it has lanes, each too short for the processor to foresee; together they are one
/// contiguous run of memory, which is what this asks for, a few lines at a time.
#[inline(always)]
fn prefetch<L: RowLanes, F: Format>(l: L, group: Group, index: usize) {
    const LINE: usize = 64;
    let share = L::ROWS * F::BYTES / F::CHUNKS;
    let next = group.rows.base.wrapping_add(L::ROWS * group.rows.stride + index * share);
    for line in 0..share.div_ceil(LINE) {
        l.prefetch(next.wrapping_add(line * LINE));
    }
}

/// Uses chunks at once, for one token.
struct Use<L: RowLanes, F> {
    token: [Token; 1],
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    acc: [L::R; 1],
    group: Group,
    format: PhantomData<F>,
}

impl<L: RowLanes, F: Format> Sink<L> for Use<L, F> {
    #[inline(always)]
    fn put(&mut self, l: L, index: usize, chunk: Chunk<L>) {
        prefetch::<L, F>(l, self.group, self.first + index);
        // SAFETY: `one_token` unpacks as many blocks as the token has.
        unsafe { accumulate::<L, F, 1>(l, &chunk, &self.token, self.first + index, &mut self.acc) }
    }
}

/// # Safety
/// The job has one token; the group is within the job's matrix and its owned rows within the job's.
#[inline(always)]
unsafe fn one_token<L: RowLanes, F: Format>(l: L, job: &Job<'_, Q8Acts<'_>>, group: Group) {
    // SAFETY: there is a token 0; each block of the rows is readable; the outputs are the job's.
    unsafe {
        let mut sink = Use::<L, F> {
            token: [Token::new(&job.acts, 0)],
            first: 0,
            acc: [l.splat_r(0.0)],
            group,
            format: PhantomData,
        };
        for block in 0..job.row_bytes / F::BYTES {
            sink.first = block * F::CHUNKS;
            F::unpack(l, group.rows.skip(block * F::BYTES), &mut sink);
        }
        finish(l, job, group, 0, sink.acc[0]);
    }
}

/// Keeps chunks for several tokens.
struct Keep<'a, L: RowLanes, F> {
    panel: &'a mut [MaybeUninit<Chunk<L>>; PANEL],
    /// Chunk 0 of the block that is being unpacked.
    first: usize,
    /// Chunk 0 of the panel.
    base: usize,
    group: Group,
    format: PhantomData<F>,
}

impl<L: RowLanes, F: Format> Sink<L> for Keep<'_, L, F> {
    #[inline(always)]
    fn put(&mut self, l: L, index: usize, chunk: Chunk<L>) {
        prefetch::<L, F>(l, self.group, self.base + self.first + index);
        self.panel[self.first + index].write(chunk);
    }
}

/// # Safety
/// The group is within the job's matrix and its owned rows within the job's.
#[inline(always)]
unsafe fn panels<L: RowLanes, F: Format>(l: L, job: &Job<'_, Q8Acts<'_>>, group: Group) {
    let chunks = job.cols / BLOCK;
    let mut panel = [const { MaybeUninit::<Chunk<L>>::uninit() }; PANEL];
    let mut first = 0;
    while first < chunks {
        let len = (chunks - first).min(PANEL);
        let mut sink = Keep::<L, F> { panel: &mut panel, first: 0, base: first, group, format: PhantomData };
        while sink.first < len {
            let block = (first + sink.first) / F::CHUNKS;
            // SAFETY: `block` is a block of the rows, as panels are whole blocks.
            unsafe { F::unpack(l, group.rows.skip(block * F::BYTES), &mut sink) };
            sink.first += F::CHUNKS;
        }
        // SAFETY: `unpack` has written chunks `0..len`.
        let unpacked = unsafe { std::slice::from_raw_parts(panel.as_ptr().cast::<Chunk<L>>(), len) };
        let mut t = 0;
        while t < job.tokens {
            let n = (job.tokens - t).min(TILE);
            // SAFETY: tokens `t..t + n` are the job's; the panel's chunks are blocks of them.
            unsafe {
                match n {
                    1 => tile::<L, F, 1>(l, job, group, unpacked, first, t),
                    2 => tile::<L, F, 2>(l, job, group, unpacked, first, t),
                    3 => tile::<L, F, 3>(l, job, group, unpacked, first, t),
                    _ => tile::<L, F, TILE>(l, job, group, unpacked, first, t),
                }
            }
            t += n;
        }
        first += len;
    }
}

/// Tokens `t..t + N` times a panel; between panels the accumulators rest in the output, where f32 keeps their bits.
///
/// # Safety
/// The job has these tokens and blocks `first..first + panel.len()`; the group's owned rows are the job's.
#[inline(always)]
unsafe fn tile<L: RowLanes, F: Format, const N: usize>(
    l: L,
    job: &Job<'_, Q8Acts<'_>>,
    group: Group,
    panel: &[Chunk<L>],
    first: usize,
    t: usize,
) {
    debug_assert!(t + N <= job.tokens && first + panel.len() <= job.cols / BLOCK);
    // SAFETY: as the caller promises.
    unsafe {
        let mut acc = [l.splat_r(0.0); N];
        let mut tokens = [Token::new(&job.acts, t); N];
        for (i, token) in tokens.iter_mut().enumerate() {
            *token = Token::new(&job.acts, t + i);
        }
        if first > 0 {
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = l.load_r(output(job, group, t + i), group.owned);
            }
        }
        for (i, chunk) in panel.iter().enumerate() {
            accumulate::<L, F, N>(l, chunk, &tokens, first + i, &mut acc);
        }
        let last = first + panel.len() == job.cols / BLOCK;
        for (i, acc) in acc.into_iter().enumerate() {
            if last {
                finish(l, job, group, t + i, acc);
            } else {
                l.store_r(acc, output(job, group, t + i), group.owned);
            }
        }
    }
}

/// Adds the bias and stores.
///
/// # Safety
/// `t` is a token of the job and the group's owned rows are the job's.
#[inline(always)]
unsafe fn finish<L: RowLanes>(l: L, job: &Job<'_, Q8Acts<'_>>, group: Group, t: usize, mut acc: L::R) {
    // SAFETY: the bias has a value for every row of the matrix; the outputs are the job's.
    unsafe {
        if let Some(bias) = job.bias {
            acc = l.add_r(acc, l.load_r(bias.as_ptr().wrapping_add(group.start), group.owned));
        }
        l.store_r(acc, output(job, group, t), group.owned);
    }
}

/// Where the outputs of a group begin; lanes that are not owned may lie outside of the buffer.
#[inline(always)]
fn output(job: &Job<'_, Q8Acts<'_>>, group: Group, t: usize) -> *mut f32 {
    job.out.ptr.wrapping_add(t * job.out.stride + group.start)
}
