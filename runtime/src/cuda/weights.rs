//! Weights on a device: packed into planes on the host, uploaded once.

use std::io;
use std::sync::mpsc;

use brick_cuda::{Access, Arg, Device, DeviceError, Place, Region};
use brick_ptx::kernels::pack::{PackError, Packed, plane_row_bytes};

use super::plan::{GpuPlan, MatrixId, MatrixPlan, VectorId};
use crate::weights::Weights;

/// Packed bytes of a piece of work.
const PIECE: usize = 4 << 20;

/// A matrix on the device.
#[derive(Debug, Clone)]
struct Matrix {
    /// Codes, high bits, scales, scales of super-blocks; those that the format has.
    planes: [Option<Region>; 4],
}

/// All weights on a device.
#[derive(Debug)]
pub(super) struct GpuWeights {
    matrices: Vec<Matrix>,
    vectors: Vec<Region>,
    bytes: u64,
}

/// Weights cannot be brought to the device.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A matrix whose bytes cannot be read.
    #[error("matrix {matrix}: cannot read it from the file: {source}")]
    Read {
        /// The matrix.
        matrix: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A matrix that is not what its shape says.
    #[error("matrix {matrix}: {source}")]
    Pack {
        /// The matrix.
        matrix: String,
        /// What is wrong.
        source: PackError,
    },
}

/// How much of the weights is on the device.
pub trait UploadProgress {
    /// `done` of `total` bytes are there.
    fn uploaded(&mut self, done: u64, total: u64);
}

impl UploadProgress for () {
    fn uploaded(&mut self, _: u64, _: u64) {}
}

impl<F: FnMut(u64, u64)> UploadProgress for F {
    fn uploaded(&mut self, done: u64, total: u64) {
        self(done, total);
    }
}

/// A run of rows of a matrix.
struct Piece {
    matrix: usize,
    first: usize,
    rows: usize,
}

impl GpuWeights {
    /// Allocates one arena, packs matrices on `threads` threads, and uploads them as they come.
    pub(super) fn upload(
        device: &mut dyn Device,
        plan: &GpuPlan,
        weights: &dyn Weights,
        threads: usize,
        progress: &mut dyn UploadProgress,
    ) -> Result<Self, UploadError> {
        const NAMES: [&str; 4] = ["codes", "high", "scales", "supers"];
        let mut parts = Vec::new();
        for m in &plan.matrices {
            let bytes = plane_row_bytes(m.format, m.columns);
            for (name, bytes) in NAMES.into_iter().zip(bytes).filter(|(_, bytes)| *bytes > 0) {
                parts.push((format!("{}.{name}", m.name), (bytes * m.rows()) as u64));
            }
        }
        parts.extend(plan.vectors.iter().map(|v| (v.name.clone(), 4 * v.values.len() as u64)));
        let places = Place::in_turn(parts);
        let bytes = Place::end(&places);
        let mut regions = device.arena("weights", &places)?.into_iter();
        let mut region = || regions.next().expect("invariant: a region per part");
        let matrices: Vec<Matrix> = plan
            .matrices
            .iter()
            .map(|m| Matrix { planes: plane_row_bytes(m.format, m.columns).map(|bytes| (bytes > 0).then(&mut region)) })
            .collect();
        let vectors: Vec<Region> = plan.vectors.iter().map(|_| region()).collect();
        for (vector, region) in plan.vectors.iter().zip(&vectors) {
            let bytes: Vec<u8> = vector.values.iter().flat_map(|x| x.to_le_bytes()).collect();
            device.write(region.at(0), &bytes)?;
        }
        let this = Self { matrices, vectors, bytes };
        if device.keeps_data() {
            this.pack(device, plan, weights, threads.max(1), progress)?;
        }
        device.synchronize()?;
        Ok(this)
    }

    fn pack(
        &self,
        device: &mut dyn Device,
        plan: &GpuPlan,
        weights: &dyn Weights,
        threads: usize,
        progress: &mut dyn UploadProgress,
    ) -> Result<(), UploadError> {
        let pieces = pieces(plan);
        let next = std::sync::atomic::AtomicUsize::new(0);
        let (pieces, next) = (&pieces, &next);
        let rows_bytes =
            |m: &MatrixPlan| (m.rows() * plane_row_bytes(m.format, m.columns).iter().sum::<usize>()) as u64;
        let total = plan.matrices.iter().map(rows_bytes).sum();
        let mut done = 0;
        std::thread::scope(|scope| {
            // Few pieces wait, so that the host holds little more than the file.
            let (sender, receiver) = mpsc::sync_channel::<(&Piece, Result<Packed, PieceError>)>(2 * threads);
            for _ in 0..threads {
                let sender = sender.clone();
                scope.spawn(move || {
                    while let Some(piece) = pieces.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                        let packed = pack_piece(&plan.matrices[piece.matrix], weights, piece);
                        if sender.send((piece, packed)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            for (piece, packed) in receiver {
                let m = &plan.matrices[piece.matrix];
                let packed = packed.map_err(|e| match e {
                    PieceError::Read(source) => UploadError::Read { matrix: m.name.clone(), source },
                    PieceError::Pack(source) => UploadError::Pack { matrix: m.name.clone(), source },
                })?;
                let row_bytes = plane_row_bytes(m.format, m.columns);
                for ((plane, region), row) in
                    packed.planes().into_iter().zip(self.matrices[piece.matrix].planes).zip(row_bytes)
                {
                    if let Some(region) = region {
                        device.write(region.at((piece.first * row) as u64), plane)?;
                    }
                }
                done += packed.bytes() as u64;
                progress.uploaded(done, total);
            }
            Ok(())
        })
    }

    /// Bytes on the device.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The planes of a matrix, as arguments.
    pub(super) fn planes(&self, matrix: MatrixId) -> impl Iterator<Item = Arg> {
        self.matrices[matrix.0].planes.into_iter().flatten().map(|region| Arg::Ptr(region.at(0), Access::Read))
    }

    /// A vector.
    pub(super) fn vector(&self, vector: VectorId) -> Region {
        self.vectors[vector.0]
    }
}

fn pieces(plan: &GpuPlan) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (matrix, m) in plan.matrices.iter().enumerate() {
        let row: usize = plane_row_bytes(m.format, m.columns).iter().sum();
        let (rows, per_piece) = (m.rows(), (PIECE / row.max(1)).max(1));
        let firsts = (0..rows).step_by(per_piece);
        pieces.extend(firsts.map(|first| Piece { matrix, first, rows: per_piece.min(rows - first) }));
    }
    pieces
}

/// Packs some rows of a matrix: a weight's own, zeros that fill a head up, or those of two weights in turn.
fn pack_piece(m: &MatrixPlan, weights: &dyn Weights, piece: &Piece) -> Result<Packed, PieceError> {
    let row_bytes = m.format.row_bytes(m.columns);
    let mut rows = vec![0; row_bytes * piece.rows];
    let mut i = 0;
    while i < piece.rows {
        let Some((source, row)) = m.find(piece.first + i) else {
            // Zeros fill the head up.
            i += 1;
            continue;
        };
        // Rows that follow each other in the file are read at once.
        let run =
            (i + 1..piece.rows).take_while(|&j| m.find(piece.first + j) == Some((source, row + j - i))).count() + 1;
        let out = &mut rows[i * row_bytes..(i + run) * row_bytes];
        weights.read(m.sources[source].weight, row * row_bytes, out).map_err(PieceError::Read)?;
        i += run;
    }
    Packed::matrix(m.format, m.columns, &rows).map_err(PieceError::Pack)
}

/// Why a piece is not packed.
enum PieceError {
    Read(io::Error),
    Pack(PackError),
}
