//! Global memory: buffers at synthetic addresses, far apart.

use super::Cells;
use crate::interp::fault::{FaultKind, Place, Verb};
use crate::interp::race::Shadow;

/// Every buffer has this much address space to itself, and lies in its middle: no overrun of less than 32 GiB reaches
/// another buffer.
const SLOT: u64 = 1 << 36;

/// A buffer in global memory, as the host knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Buffer(pub(crate) u32);

/// What a kernel may do with a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Loads only.
    Read,
    /// Stores only.
    Write,
    /// Loads, stores and atomics.
    ReadWrite,
}

impl Access {
    fn allows(self, verb: Verb) -> bool {
        match self {
            Self::ReadWrite => true,
            Self::Read => verb == Verb::Read,
            Self::Write => verb == Verb::Write,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadWrite => "read and write",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) cells: Cells,
    /// What launches may do unless they say otherwise.
    access: Access,
    /// What the launch under way may do.
    launch: Access,
}

/// All buffers.
#[derive(Debug, Default)]
pub(crate) struct Global {
    spans: Vec<Span>,
}

impl Global {
    pub(crate) fn add(&mut self, name: &str, cells: Cells, access: Access) -> Buffer {
        self.spans.push(Span { name: name.to_owned(), cells, access, launch: access });
        Buffer(self.spans.len() as u32 - 1)
    }

    /// The buffer, unless it belongs to another machine.
    pub(crate) fn span(&self, buffer: Buffer) -> Option<&Span> {
        self.spans.get(buffer.0 as usize)
    }

    pub(crate) fn span_mut(&mut self, buffer: Buffer) -> Option<&mut Span> {
        self.spans.get_mut(buffer.0 as usize)
    }

    pub(crate) fn address(buffer: Buffer) -> u64 {
        (u64::from(buffer.0) + 1) * SLOT + SLOT / 2
    }

    /// Prepares a launch: default rights, and shadows for whatever may be written if `races` are looked for.
    pub(crate) fn begin(&mut self, rights: &[(Buffer, Access)], races: bool) {
        for span in &mut self.spans {
            span.launch = span.access;
        }
        for &(buffer, access) in rights {
            if let Some(span) = self.span_mut(buffer) {
                span.launch = access;
            }
        }
        for span in &mut self.spans {
            let tracked = races && span.launch != Access::Read;
            span.cells.shadow = tracked.then(|| Shadow::new(span.cells.len() as u64));
        }
    }

    /// The buffer and offset of an access, which is checked for bounds, alignment and rights.
    pub(crate) fn resolve(&mut self, address: u64, bytes: u32, verb: Verb) -> Result<(&mut Cells, usize), FaultKind> {
        let index = (address / SLOT).wrapping_sub(1) as usize;
        let Some(span) = self.spans.get_mut(index) else {
            return Err(FaultKind::OutOfBounds { verb, bytes, place: Place::Global(address), size: None });
        };
        let base = Self::address(Buffer(index as u32));
        let offset = address.wrapping_sub(base) as i64;
        let size = span.cells.len() as u64;
        let inside = offset >= 0 && (offset as u64).checked_add(bytes.into()).is_some_and(|end| end <= size);
        if inside && (offset as u64).is_multiple_of(bytes.into()) && span.launch.allows(verb) {
            return Ok((&mut span.cells, offset as usize));
        }
        let place = Place::Buffer { name: span.name.clone(), offset };
        Err(if !inside {
            FaultKind::OutOfBounds { verb, bytes, place, size: Some(size) }
        } else if span.launch.allows(verb) {
            FaultKind::Misaligned { verb, bytes, place }
        } else {
            FaultKind::Forbidden { verb, place, allowed: span.launch.word() }
        })
    }

    /// The place of an address as a person would name it.
    pub(crate) fn place(&self, address: u64) -> Place {
        let index = (address / SLOT).wrapping_sub(1) as usize;
        match self.spans.get(index) {
            None => Place::Global(address),
            Some(span) => Place::Buffer {
                name: span.name.clone(),
                offset: address.wrapping_sub(Self::address(Buffer(index as u32))) as i64,
            },
        }
    }
}
