//! What ships of this family, with workloads.

use super::super::entries::{workload, workload_rows};
use super::super::pair::FORMATS;
use super::pair::GemvStreamPair;
use super::{GemvStream, Source, TOKENS};
use crate::ir::Target;
use crate::kernels::format::Format;
use crate::kernels::gemv::Epilogue;
use crate::kernels::launch::ShapeError;
use crate::kernels::workload::{Arg, Noise, Workload, bytes_of_f32};
use crate::kernels::{Entry, known};

/// What is added to the mean of squares.
const EPS: f32 = 1e-6;

/// What ships.
pub(in crate::kernels) fn entries() -> Vec<Entry> {
    let mut streams = Vec::new();
    for epilogue in [Epilogue::Store, Epilogue::SwiGlu, Epilogue::ArgMax] {
        for source in Source::ALL {
            for format in Format::QUANTISED {
                let of = |tokens| GemvStream::new(format, tokens as usize, epilogue, source);
                streams.extend(TOKENS.into_iter().filter_map(of));
            }
        }
    }
    for source in Source::ALL {
        streams.extend(Format::QUANTISED.iter().filter_map(|&f| GemvStream::new(f, 1, Epilogue::SwiGluQ8, source)));
    }
    let pairs = Source::ALL.into_iter().flat_map(|source| FORMATS.map(|formats| (formats, source)));
    let pairs = pairs.flat_map(|(formats, source)| {
        let of = move |tokens| GemvStreamPair::new(formats, tokens as usize, source);
        TOKENS.into_iter().filter_map(of)
    });
    streams.into_iter().map(entry).chain(pairs.map(pair_entry)).collect()
}

fn pair_entry(pair: GemvStreamPair) -> Entry {
    Entry {
        name: pair.name(),
        about: match pair.source() {
            Source::Plain => "two matrices of different formats times vectors of f32, with bias if there is one",
            Source::Norm => "two matrices of different formats times normed vectors, with bias if there is one",
        },
        oldest: Target::Sm80,
        build: Box::new(move |target| pair.kernel(target)),
        workload: known(pair.workload([24, 8], 4096, 1)),
    }
}

fn entry(stream: GemvStream) -> Entry {
    Entry {
        name: stream.name(),
        about: match (stream.epilogue(), stream.source) {
            (Epilogue::SwiGlu, Source::Plain) => "gate and up matrices times vectors of f32, and the gated activation",
            (Epilogue::SwiGlu, Source::Norm) => "gate and up matrices times normed vectors, and the gated activation",
            (Epilogue::SwiGluQ8, Source::Plain) => {
                "gate and up matrices times vectors of f32, and the gated activation, also in 8-bit codes"
            }
            (Epilogue::SwiGluQ8, Source::Norm) => {
                "gate and up matrices times normed vectors, and the gated activation, also in 8-bit codes"
            }
            (Epilogue::ArgMax, Source::Plain) => "matrix times vectors of f32, and the row of the largest value",
            (Epilogue::ArgMax, Source::Norm) => "matrix times normed vectors, and the row of the largest value",
            (_, Source::Plain) => "matrix times vectors of f32, with bias and residual if there are such",
            (_, Source::Norm) => "matrix times normed vectors, with bias and residual if there are such",
        },
        oldest: Target::Sm80,
        build: Box::new(move |target| stream.kernel(target)),
        workload: known(stream.workload(workload_rows(stream.epilogue()), 4096, 1)),
    }
}

/// Activations that follow from a seed: of `tokens` rows, with a gain of a norm.
pub(super) fn activations(source: Source, tokens: usize, columns: usize, noise: &mut Noise) -> Vec<Arg> {
    let mut args = vec![Arg::read("x", bytes_of_f32(&noise.floats(tokens * columns)))];
    if source == Source::Norm {
        args.push(Arg::read("gain", bytes_of_f32(&noise.floats(columns))));
    }
    args
}

/// What is added to the mean of squares, if anything is.
pub(super) fn eps(source: Source) -> Option<Arg> {
    (source == Source::Norm).then_some(Arg::F32(EPS))
}

impl GemvStream {
    /// A launch with weights and activations that follow from a seed, for a grid of one multiprocessor.
    ///
    /// # Errors
    /// As [`dims`](Self::dims).
    pub fn workload(&self, rows: usize, columns: usize, seed: u64) -> Result<Workload, ShapeError> {
        let dims = self.dims(rows, columns, 1)?;
        let x = |noise: &mut Noise| activations(self.source, self.tokens(), columns, noise);
        Ok(workload(self.gemv, dims, [rows, columns], seed, x, eps(self.source)))
    }
}
