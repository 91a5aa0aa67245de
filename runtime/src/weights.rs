//! Where a plan finds its weights: the file's bytes, and the matrices packed from them.

use brick_graphs::{Graph, WeightId};
use bricks::WeightShape;
use bricks::cpu::gang::{Gang, GangPanic, Member};
use bricks::cpu::linear::{PackedMatrix, PackedShape, ROW_GROUP};

use crate::arena::{Arena, ArenaError};

/// The bytes of a graph's weights, in storage layout (see [`bricks::DType`]). A memory map, as a rule.
pub trait Weights: Send + Sync {
    /// All bytes of a weight. Must return the same memory every time.
    fn bytes(&self, weight: WeightId) -> &[u8];

    /// The bytes of a weight are not needed for the time being: its memory may be given back until it is read again.
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
        // The largest first: while a matrix is packed it is there twice, which costs least when little else is there.
        order.sort_by_key(|id| std::cmp::Reverse(matrices[id.index()].map_or(0, |place| place.bytes)));
        let memory = Arena::huge(end).map_err(|ArenaError { bytes }| PackError::OutOfMemory { bytes })?;
        let packed = Self { memory, matrices };
        packed.fill(weights, &order, gang)?;
        Ok(packed)
    }

    fn fill(&self, weights: &dyn Weights, order: &[WeightId], gang: &mut Gang) -> Result<(), GangPanic> {
        let work = |m: &Member<'_>| {
            for &id in order {
                let place = self.place(id);
                let groups = place.shape.rows.div_ceil(ROW_GROUP);
                let file = weights.bytes(id);
                while let Some(range) = m.take(groups, (groups / (4 * m.size())).max(1)) {
                    let bytes = place.bytes / groups;
                    // SAFETY: these groups belong to this thread; nobody reads them before the gang has come apart.
                    let out =
                        unsafe { self.memory.slice_mut::<u8>(place.offset + range.start * bytes, range.len() * bytes) };
                    place
                        .shape
                        .pack(file, range, out)
                        .expect("invariant: lengths were checked when memory was laid out");
                }
                m.barrier();
                if m.index() == 0 {
                    weights.release(id);
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use brick_graphs::GraphBuilder;
    use bricks::cpu::linear::Packed;
    use bricks::{BrickKind, DType, LinearPart, Op, Rows};
    use std::sync::Mutex;

    struct Files {
        files: Vec<Vec<u8>>,
        released: Mutex<Vec<usize>>,
    }

    impl Weights for Files {
        fn bytes(&self, weight: WeightId) -> &[u8] {
            &self.files[weight.index()]
        }

        fn release(&self, weight: WeightId) {
            self.released.lock().unwrap().push(weight.index());
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
        let weights = Files { files, released: Mutex::default() };
        let mut gang = Gang::new(2).unwrap();
        let packed = PackedWeights::new(&graph, &weights, &mut gang).unwrap();
        assert!(packed.covers(&graph));
        let matrices = graph.bricks().filter(|b| !b.op.parts().is_empty()).map(|b| b.weights[0]);
        for (id, (dtype, rows, cols)) in matrices.zip(MATRICES) {
            let alone = Packed::new(PackedShape { dtype, rows, cols }, &weights.files[id.index()]).unwrap();
            assert_eq!(packed.matrix(id).bytes(), alone.matrix().bytes(), "{dtype}");
        }
        let mut released = weights.released.into_inner().unwrap();
        released.sort_unstable();
        assert_eq!(released, [1, 2, 3, 4], "all matrices, once, and not the table");
    }
}
