//! Where a plan finds its weights: the file's bytes, and the matrices packed from them.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use brick_graphs::{Graph, WeightId};
use bricks::WeightShape;
use bricks::cpu::gang::{Gang, GangPanic, Member};
use bricks::cpu::linear::{PackedMatrix, PackedShape, ROW_GROUP};

use crate::arena::{Arena, ArenaError};

/// The bytes of a graph's weights, in storage layout (see [`bricks::DType`]). A memory map, as a rule.
pub trait Weights: Send + Sync {
    /// All bytes of a weight. Must return the same memory every time.
    fn bytes(&self, weight: WeightId) -> &[u8];

    /// How many bytes a weight has: [`bytes`](Self::bytes) for its length only, which need not have the bytes made or read.
    fn len(&self, weight: WeightId) -> usize {
        self.bytes(weight).len()
    }

    /// Copies the bytes of a weight from `at` on to `out`: for what is read once.
    ///
    /// # Errors
    /// When there are no such bytes, or they cannot be read.
    fn read(&self, weight: WeightId, at: usize, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes(weight).get(at..).and_then(|rest| rest.get(..out.len()));
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// The bytes of a weight are not needed for the time being: their memory may be given back until they are read again.
    fn release(&self, weight: WeightId) {
        let _ = weight;
    }
}

/// Whether a matrix has as many bytes as its shape asks for; in words if not.
pub(crate) fn expect_bytes(shape: WeightShape, found: usize) -> Result<(), String> {
    let WeightShape { dtype, rows, cols } = shape;
    if dtype.row_bytes(cols).and_then(|r| r.checked_mul(rows)) == Some(found) {
        return Ok(());
    }
    Err(format!("expected {rows} rows of {cols} values in {dtype}, found {found} bytes"))
}

/// Packed bytes of a piece of work: its file bytes are copied to a buffer that stays in the cache while they are packed. From the
/// map, rows a few hundred bytes apart would be waited for one by one. Small under Miri, where small matrices are several pieces.
const PIECE: usize = if cfg!(miri) { 4 << 10 } else { 128 << 10 };

/// Weights cannot be packed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PackError {
    /// A weight cannot be used.
    #[error("brick {brick}: weight {weight}: {reason}")]
    Weight {
        /// The brick.
        brick: String,
        /// The weight.
        weight: String,
        /// Why not.
        reason: String,
    },
    /// Memory for the packed weights is short.
    #[error("cannot allocate {bytes} bytes for the packed weights")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: usize,
    },
    /// A weight cannot be read.
    #[error("weight {weight}: cannot read it from the file: {source}")]
    Read {
        /// The weight.
        weight: String,
        /// The system's reason.
        source: Arc<io::Error>,
    },
    /// A thread panicked: a bug, please report it.
    #[error(transparent)]
    Panic(#[from] GangPanic),
}

/// The matrices of a graph in the kernels' layout ([`PackedShape`]): one allocation, in the order in which a forward call reads
/// them.
#[derive(Debug)]
pub struct PackedWeights {
    memory: Arena,
    /// By [`WeightId`]; `None` for what no linear brick multiplies with.
    matrices: Vec<Option<Place>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    shape: PackedShape,
    offset: usize,
    bytes: usize,
}

/// Groups of a matrix that are packed together.
#[derive(Debug)]
struct Piece {
    weight: WeightId,
    groups: Range<usize>,
}

/// A weight that could not be read, and why.
type Unread = (WeightId, io::Error);

impl Place {
    fn groups(self) -> usize {
        self.shape.rows.div_ceil(ROW_GROUP)
    }

    fn group_bytes(self) -> usize {
        self.bytes / self.groups().max(1)
    }
}

impl PackedWeights {
    /// Packs every matrix that a linear brick of `graph` multiplies with, on all threads of the gang. Bytes of the file are
    /// copied piece by piece, so that the peak of memory is about the size of the weights.
    ///
    /// # Errors
    /// A weight does not have the bytes of its shape, or cannot be read; memory is short.
    pub fn new(graph: &Graph, weights: &dyn Weights, gang: &mut Gang) -> Result<Self, PackError> {
        let mut matrices: Vec<Option<Place>> = vec![None; graph.weights().len()];
        let mut order = Vec::new();
        let mut end = 0usize;
        for brick in graph.bricks() {
            // Behind each matrix may come its bias, which is no matrix.
            let mut at = 0;
            for part in brick.op.parts() {
                let id = brick.weights[at];
                at += 1 + usize::from(part.bias);
                if matrices[id.index()].is_some() {
                    continue;
                }
                let info = graph.weight(id);
                let error =
                    |reason: String| PackError::Weight { brick: brick.name.clone(), weight: info.name.clone(), reason };
                let s = info.shape;
                expect_bytes(s, weights.len(id)).map_err(error)?;
                let shape = PackedShape { dtype: s.dtype, rows: s.rows, cols: s.cols };
                let bytes = shape.bytes().map_err(|e| error(e.to_string()))?;
                matrices[id.index()] = Some(Place { shape, offset: end, bytes });
                order.push(id);
                end = end.checked_add(bytes).ok_or(PackError::OutOfMemory { bytes: usize::MAX })?;
            }
        }
        let memory = Arena::huge(end).map_err(|ArenaError { bytes }| PackError::OutOfMemory { bytes })?;
        let packed = Self { memory, matrices };
        match packed.fill(weights, &packed.pieces(&order), gang)? {
            Some((id, e)) => Err(PackError::Read { weight: graph.weight(id).name.clone(), source: Arc::new(e) }),
            None => Ok(packed),
        }
    }

    /// What is to be packed, in order of memory.
    fn pieces(&self, order: &[WeightId]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for &weight in order {
            let place = self.place(weight);
            let groups = place.groups();
            let step = (PIECE / place.group_bytes().max(1)).max(1);
            let ranges = (0..groups).step_by(step).map(|first| first..(first + step).min(groups));
            pieces.extend(ranges.map(|groups| Piece { weight, groups }));
        }
        pieces
    }

    /// Packs all pieces; the first one that could not be read, if any.
    fn fill(&self, weights: &dyn Weights, pieces: &[Piece], gang: &mut Gang) -> Result<Option<Unread>, GangPanic> {
        let unread = Mutex::new(None);
        let work = |m: &Member<'_>| {
            let mut buffer = Vec::new();
            // Each thread begins in a part of its own and walks through it in order: two that fill the same huge page would
            // both clear it.
            while let Some(taken) = m.take(pieces.len(), 1) {
                for piece in &pieces[taken] {
                    if let Err(e) = self.pack(weights, piece, &mut buffer) {
                        // The others go on: it is rare, and they would have to be told.
                        unread.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((piece.weight, e));
                    }
                }
            }
        };
        gang.run(work, work)?;
        Ok(unread.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Packs a piece that no other thread has.
    fn pack(&self, weights: &dyn Weights, piece: &Piece, buffer: &mut Vec<u8>) -> io::Result<()> {
        let place = self.place(piece.weight);
        let PackedShape { dtype, rows, cols } = place.shape;
        let rows = piece.groups.start * ROW_GROUP..(piece.groups.end * ROW_GROUP).min(rows);
        let row_bytes = dtype.row_bytes(cols).expect("invariant: checked when memory was laid out");
        let (file_bytes, group_bytes) = (rows.len() * row_bytes, place.group_bytes());
        if buffer.len() < file_bytes + group_bytes {
            buffer.try_reserve_exact(file_bytes + group_bytes - buffer.len())?;
            buffer.resize(file_bytes + group_bytes, 0);
        }
        let (file, packed) = buffer.split_at_mut(file_bytes);
        let packed = &mut packed[..group_bytes];
        weights.read(piece.weight, rows.start * row_bytes, file)?;
        let at = place.offset + piece.groups.start * group_bytes;
        // SAFETY: these groups belong to this thread; nobody reads them before the gang has come apart.
        let out = unsafe { self.memory.slice_mut::<u8>(at, piece.groups.len() * group_bytes) };
        for (rows, out) in file.chunks(ROW_GROUP * row_bytes).zip(out.chunks_exact_mut(group_bytes)) {
            let shape = PackedShape { rows: rows.len() / row_bytes, ..place.shape };
            // By way of the cache: packing writes four bytes here and there, and each line that is not in the cache would have
            // to come from memory first. A copy writes whole lines: 296 -> 177 ns per KiB (Q4_1, 576 columns).
            shape.pack(rows, 0..1, packed).expect("invariant: lengths were checked when memory was laid out");
            out.copy_from_slice(packed);
        }
        Ok(())
    }

    fn place(&self, weight: WeightId) -> Place {
        self.matrices[weight.index()].expect("invariant: every matrix of the graph is packed")
    }

    /// A packed matrix.
    pub fn matrix(&self, weight: WeightId) -> PackedMatrix<'_> {
        let place = self.place(weight);
        // SAFETY: packed memory is not written after `new`.
        let bytes = unsafe { self.memory.slice::<u8>(place.offset, place.bytes) };
        PackedMatrix::new(place.shape, bytes).expect("invariant: packed with this shape, at aligned offsets")
    }

    /// Whether a graph's matrices are those that were packed.
    pub(crate) fn covers(&self, graph: &Graph) -> bool {
        graph.weights().len() == self.matrices.len()
            && graph.bricks().all(|b| {
                let mut at = 0;
                b.op.parts().iter().all(|part| {
                    let id = b.weights[at];
                    at += 1 + usize::from(part.bias);
                    let s = graph.weight(id).shape;
                    let shape = PackedShape { dtype: s.dtype, rows: s.rows, cols: s.cols };
                    self.matrices[id.index()].is_some_and(|p| p.shape == shape)
                })
            })
    }

    /// Bytes of all packed matrices.
    pub fn bytes(&self) -> usize {
        self.memory.bytes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use brick_graphs::GraphBuilder;
    use bricks::cpu::linear::Packed;
    use bricks::{BrickKind, DType, LinearPart, Op, Rows};

    use super::*;

    struct Files {
        files: Vec<Vec<u8>>,
    }

    impl Weights for Files {
        fn bytes(&self, weight: WeightId) -> &[u8] {
            &self.files[weight.index()]
        }
    }

    /// Type, rows and columns, each on the outputs of the one before; with whole groups and parts of one.
    const MATRICES: [(DType, usize, usize); 4] =
        [(DType::Q4_0, 96, 64), (DType::Q5_1, 70, 96), (DType::F16, 3, 70), (DType::F32, 17, 3)];

    fn graph() -> Graph {
        let mut b = GraphBuilder::new();
        let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]);
        let table = b.weight("table", WeightShape { dtype: DType::F32, rows: 2, cols: 64 });
        let mut x = b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens.out()], &[table]);
        for (i, (dtype, rows, cols)) in MATRICES.into_iter().enumerate() {
            let weight = b.weight(format!("matrix {i}"), WeightShape { dtype, rows, cols });
            let part = LinearPart { label: format!("part {i}"), rows, bias: false };
            let op = Op::Linear { input: cols, parts: vec![part], rows: Rows::All };
            x = b.push(format!("linear {i}"), BrickKind::Custom, None, op, &[x.out()], &[weight]);
        }
        b.finish(x.out()).unwrap()
    }

    /// Under Miri: the threads' pieces of the one allocation do not overlap, and nothing of it is read before it is written.
    #[test]
    fn threads_pack_side_by_side_what_one_packs() {
        let graph = graph();
        let bytes = |s: WeightShape| s.rows * s.dtype.row_bytes(s.cols).unwrap();
        let files = graph.weights().iter().map(|w| (0..bytes(w.shape)).map(|i| (i * 7) as u8).collect()).collect();
        let weights = Files { files };
        let mut gang = Gang::new(2).unwrap();
        let packed = PackedWeights::new(&graph, &weights, &mut gang).unwrap();
        assert!(packed.covers(&graph));
        let matrices = graph.bricks().filter(|b| !b.op.parts().is_empty()).map(|b| b.weights[0]);
        for (id, (dtype, rows, cols)) in matrices.zip(MATRICES) {
            let alone = Packed::new(PackedShape { dtype, rows, cols }, &weights.files[id.index()]).unwrap();
            assert_eq!(packed.matrix(id).bytes(), alone.matrix().bytes(), "{dtype}");
        }
    }

    /// One matrix, in a file that may end early.
    struct File {
        bytes: Vec<u8>,
        readable: usize,
    }

    impl Weights for File {
        fn bytes(&self, _: WeightId) -> &[u8] {
            &self.bytes
        }

        fn read(&self, _: WeightId, at: usize, out: &mut [u8]) -> io::Result<()> {
            let bytes = self.bytes[..self.readable].get(at..at + out.len());
            out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    /// Rows that are several pieces, and no multiple of a group.
    const SHAPE: PackedShape = PackedShape { dtype: DType::Q8_0, rows: if cfg!(miri) { 161 } else { 5001 }, cols: 64 };

    fn packed(readable: usize, threads: usize) -> Result<Vec<u8>, PackError> {
        let PackedShape { dtype, rows, cols } = SHAPE;
        let mut b = GraphBuilder::new();
        let tokens = b.push("tokens", BrickKind::Custom, None, Op::Input, &[], &[]).out();
        let table = b.weight("table", WeightShape { dtype, rows, cols });
        let x = b.push("embed", BrickKind::Embed, None, Op::Embed { scale: 1.0 }, &[tokens], &[table]).out();
        let parts = vec![LinearPart { label: "logits".into(), rows, bias: false }];
        let head = Op::Linear { input: cols, parts, rows: Rows::All };
        let logits = b.push("head", BrickKind::LmHead, None, head, &[x], &[table]).out();
        let graph = b.finish(logits).unwrap();
        let weights = File { bytes: file(), readable };
        let packed = PackedWeights::new(&graph, &weights, &mut Gang::new(threads).unwrap())?;
        assert!(packed.pieces(&[table]).len() > 2);
        // SAFETY: nobody writes packed memory.
        Ok(unsafe { packed.memory.slice::<u8>(0, packed.bytes()) }.to_vec())
    }

    fn file() -> Vec<u8> {
        (0..SHAPE.rows * 68).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn pieces_are_parts_of_the_packed_matrix() {
        let mut whole = vec![0; SHAPE.bytes().unwrap()];
        SHAPE.pack(&file(), 0..SHAPE.rows.div_ceil(ROW_GROUP), &mut whole).unwrap();
        for threads in [1, 3] {
            assert!(packed(file().len(), threads).unwrap() == whole, "{threads} threads");
        }
    }

    #[test]
    fn a_file_that_ends_early_is_an_error() {
        let error = packed(file().len() - 1, 2).unwrap_err();
        assert!(error.to_string().starts_with("weight table: cannot read it from the file: "), "{error}");
    }
}
