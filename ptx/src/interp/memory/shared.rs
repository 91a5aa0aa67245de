//! Shared memory of one block: its arrays, with nothing mapped between them.

use super::Cells;
use crate::interp::decode::SharedArray;
use crate::interp::fault::{FaultKind, Place, Verb};
use crate::interp::race::Shadow;

/// The shared memory of a block.
#[derive(Debug)]
pub(crate) struct Shared {
    arrays: Vec<Span>,
    cells: Cells,
}

#[derive(Debug, Clone)]
struct Span {
    name: String,
    start: u64,
    bytes: u64,
}

impl Shared {
    /// Memory without values for the arrays of a kernel.
    pub(crate) fn new(arrays: &[SharedArray], dynamic: u32, races: bool) -> Self {
        let arrays: Vec<Span> = arrays
            .iter()
            .map(|array| Span {
                name: array.name.clone(),
                start: array.address.into(),
                bytes: array.bytes.unwrap_or(dynamic).into(),
            })
            .collect();
        let end = arrays.iter().map(|a| a.start + a.bytes).max().unwrap_or(0);
        let mut cells = Cells::poisoned(end as usize);
        cells.shadow = races.then(|| Shadow::new(end));
        Self { arrays, cells }
    }

    /// The offset of an access, which is checked for bounds and alignment.
    pub(crate) fn resolve(&mut self, address: u64, bytes: u32, verb: Verb) -> Result<(&mut Cells, usize), FaultKind> {
        let inside = |a: &Span| address >= a.start && address.saturating_add(bytes.into()) <= a.start + a.bytes;
        if !self.arrays.iter().any(inside) {
            // The nearest array that starts below is the one that was overrun.
            let near = self.arrays.iter().filter(|a| a.start <= address).max_by_key(|a| a.start);
            let size = near.map(|a| a.bytes);
            return Err(FaultKind::OutOfBounds { verb, bytes, place: self.place(address), size });
        }
        if !address.is_multiple_of(bytes.into()) {
            return Err(FaultKind::Misaligned { verb, bytes, place: self.place(address) });
        }
        Ok((&mut self.cells, address as usize))
    }

    /// The place of an address as a person would name it.
    pub(crate) fn place(&self, address: u64) -> Place {
        match self.arrays.iter().filter(|a| a.start <= address).max_by_key(|a| a.start) {
            Some(array) if address < 1 << 32 => {
                Place::Shared { name: array.name.clone(), offset: (address - array.start) as i64 }
            }
            _ => Place::SharedAddress(address),
        }
    }
}
