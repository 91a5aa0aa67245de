//! Where a plan finds its weights: the file's bytes, and the matrices packed from them.

use std::ops::Range;

use brick_graphs::{Graph, WeightId};
use bricks::WeightShape;
use bricks::cpu::gang::{Gang, GangPanic, Member};
use bricks::cpu::linear::{PackedMatrix, PackedShape, ROW_GROUP};

use crate::arena::{Arena, ArenaError};

/// The bytes of a graph's weights, in storage layout (see [`bricks::DType`]). A memory map, as a rule.
pub trait Weights: Send + Sync {
    /// All bytes of a weight. Must return the same memory every time.
    fn bytes(&self, weight: WeightId) -> &[u8];

    /// These bytes of a weight are not needed for the time being: their memory may be given back until they are read again.
    fn release(&self, weight: WeightId, bytes: Range<usize>) {
        let _ = (weight, bytes);
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

/// Packed bytes of a piece of work. Small, since each thread holds as many of the file's bytes in memory as well, and large
/// against a system call that gives them back. Pieces are neighbours in memory: two threads that fill the same huge page
/// would both clear it.
const PIECE: usize = 512 << 10;

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
    /// released as they are consumed, so that the peak of memory is about the size of the weights.
    ///
    /// # Errors
    /// A weight does not have the bytes of its shape; memory is short.
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
                expect_bytes(s, weights.bytes(id).len()).map_err(error)?;
                let shape = PackedShape { dtype: s.dtype, rows: s.rows, cols: s.cols };
                let bytes = shape.bytes().map_err(|e| error(e.to_string()))?;
                matrices[id.index()] = Some(Place { shape, offset: end, bytes });
                order.push(id);
                end = end.checked_add(bytes).ok_or(PackError::OutOfMemory { bytes: usize::MAX })?;
            }
        }
        let memory = Arena::huge(end).map_err(|ArenaError { bytes }| PackError::OutOfMemory { bytes })?;
        let packed = Self { memory, matrices };
        packed.fill(weights, &packed.pieces(&order), gang)?;
        Ok(packed)
    }

    /// Groups of rows to be packed, in order of memory.
    fn pieces(&self, order: &[WeightId]) -> Vec<(WeightId, Range<usize>)> {
        let mut pieces = Vec::new();
        for &id in order {
            let place = self.place(id);
            let groups = place.groups();
            let step = (PIECE / place.group_bytes().max(1)).max(1);
            pieces.extend((0..groups).step_by(step).map(|first| (id, first..(first + step).min(groups))));
        }
        pieces
    }

    fn fill(
        &self,
        weights: &dyn Weights,
        pieces: &[(WeightId, Range<usize>)],
        gang: &mut Gang,
    ) -> Result<(), GangPanic> {
        let work = |m: &Member<'_>| {
            // Each thread begins in a part of its own and walks through it in order.
            while let Some(taken) = m.take(pieces.len(), 1) {
                for (id, groups) in &pieces[taken] {
                    let place = self.place(*id);
                    let (file, bytes) = (weights.bytes(*id), place.group_bytes());
                    // SAFETY: these groups belong to this thread; nobody reads them before the gang has come apart.
                    let out = unsafe {
                        self.memory.slice_mut::<u8>(place.offset + groups.start * bytes, groups.len() * bytes)
                    };
                    place
                        .shape
                        .pack(file, groups.clone(), out)
                        .expect("invariant: lengths were checked when memory was laid out");
                    let row = file.len() / place.shape.rows.max(1);
                    let rows = groups.start * ROW_GROUP..(groups.end * ROW_GROUP).min(place.shape.rows);
                    weights.release(*id, rows.start * row..rows.end * row);
                }
            }
        };
        gang.run(work, work)
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
