//! The last accesses to memory, and whether a new one is ordered after them.
//!
//! Cells cover four bytes until something smaller is accessed nearby; then the page around it has a cell per byte.

use super::actor::Actor;
use crate::interp::fault::Verb;
use crate::interp::op::{Order, Scope};

const PAGE: u64 = 1024;

/// Shadow of one buffer, or of one block's shared memory. Pages appear when they are first accessed.
#[derive(Debug, Default)]
pub(crate) struct Shadow {
    pages: Vec<Option<Page>>,
}

#[derive(Debug)]
struct Page {
    /// log2 of the bytes per cell: 2 or 0.
    shift: u32,
    cells: Vec<Cell>,
}

#[derive(Debug, Clone, Default)]
struct Cell {
    write: Option<Stamp>,
    read: Option<Stamp>,
    /// Further reads, none ordered before another.
    reads: Vec<Stamp>,
}

/// An access that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) actor: u32,
    time: u32,
    pub(crate) lanes: u32,
    pub(crate) verb: Verb,
    strong: bool,
    scope: Scope,
}

/// An access to be made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Use {
    pub(crate) verb: Verb,
    /// The lanes that make it; several where one instruction serves them together.
    pub(crate) lanes: u32,
    pub(crate) order: Order,
}

/// An earlier access that nothing orders before this one.
#[derive(Debug)]
pub(crate) struct Conflict {
    /// First byte both touch.
    pub(crate) offset: u64,
    pub(crate) earlier: Stamp,
}

impl Stamp {
    fn new(what: Use, actor: &Actor) -> Self {
        let Use { verb, lanes, order } = what;
        Self { actor: actor.id, time: actor.time(), lanes, verb, strong: order.strong, scope: order.scope }
    }

    /// Whether this earlier access and a new one may be made in any order.
    fn agrees(&self, what: Use, actor: &Actor) -> bool {
        if self.strong && what.order.strong {
            let wide = self.scope == Scope::Gpu && what.order.scope == Scope::Gpu;
            if wide || actor.same_block(self.actor) {
                return true;
            }
        }
        if self.actor != actor.id {
            return actor.knows(self.actor, self.time);
        }
        if actor.all_lanes_since(self.time) {
            return true;
        }
        // One thread's own accesses are ordered. A write by several lanes wrote one value, so each may read it back.
        let own = match self.verb {
            Verb::Read => self.lanes & !what.lanes == 0,
            _ => what.lanes & !self.lanes == 0,
        };
        own || lanes(self.lanes).all(|a| lanes(what.lanes).all(|b| a == b || actor.lanes_since(self.time, a, b)))
    }
}

/// The lanes of a mask, ascending.
fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |lane| mask >> lane & 1 == 1)
}

impl Cell {
    fn first_conflict(&self, what: Use, actor: &Actor) -> Option<Stamp> {
        let bad = |stamp: &&Stamp| !stamp.agrees(what, actor);
        let write = self.write.iter().find(bad);
        if what.verb == Verb::Read {
            return write.copied();
        }
        write.or_else(|| self.read.iter().find(bad)).or_else(|| self.reads.iter().find(bad)).copied()
    }

    fn record(&mut self, what: Use, actor: &Actor) {
        let mut stamp = Stamp::new(what, actor);
        if what.verb != Verb::Read {
            *self = Self { write: Some(stamp), read: None, reads: Vec::new() };
            return;
        }
        match &mut self.read {
            None => self.read = Some(stamp),
            Some(old) if old.actor == stamp.actor => {
                let kept = !actor.all_lanes_since(old.time) && !actor.some_lanes_since(old.time);
                if kept {
                    stamp.lanes |= old.lanes;
                    stamp.strong &= old.strong;
                }
                *old = stamp;
            }
            Some(old) if actor.knows(old.actor, old.time) => {
                *old = stamp;
            }
            Some(_) => {
                let reads = &mut self.reads;
                match reads.iter_mut().find(|r| r.actor == stamp.actor) {
                    Some(old) => {
                        if !actor.all_lanes_since(old.time) {
                            stamp.lanes |= old.lanes;
                            stamp.strong &= old.strong;
                        }
                        *old = stamp;
                    }
                    None => reads.push(stamp),
                }
            }
        }
    }
}

impl Shadow {
    /// A shadow for `bytes` bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let mut pages = Vec::new();
        pages.resize_with(bytes.div_ceil(PAGE) as usize, || None);
        Self { pages }
    }

    /// The cells of `offset..offset + bytes`, which never crosses a page: accesses are aligned to their size.
    fn cells(&mut self, offset: u64, bytes: u32) -> (u32, &mut [Cell]) {
        let page = &mut self.pages[(offset / PAGE) as usize];
        let page = page.get_or_insert_with(|| Page { shift: 2, cells: vec![Cell::default(); PAGE as usize / 4] });
        if page.shift == 2 && bytes < 4 {
            page.shift = 0;
            page.cells = page.cells.iter().flat_map(|cell| std::iter::repeat_n(cell.clone(), 4)).collect();
        }
        let start = (offset % PAGE) as usize >> page.shift;
        let count = (bytes as usize >> page.shift).max(1);
        debug_assert!(start + count <= page.cells.len(), "an aligned access stays in its page");
        (page.shift, &mut page.cells[start..start + count])
    }

    /// Checks an access and remembers it.
    pub(crate) fn access(&mut self, offset: u64, bytes: u32, what: Use, actor: &Actor) -> Result<(), Box<Conflict>> {
        let (shift, cells) = self.cells(offset, bytes);
        for (i, cell) in cells.iter_mut().enumerate() {
            if let Some(earlier) = cell.first_conflict(what, actor) {
                return Err(Box::new(Conflict { offset: offset + ((i as u64) << shift), earlier }));
            }
            cell.record(what, actor);
        }
        Ok(())
    }

    /// Remembers a write that was checked when it began.
    pub(crate) fn stamp(&mut self, offset: u64, bytes: u32, what: Use, actor: &Actor) {
        for cell in self.cells(offset, bytes).1 {
            cell.record(what, actor);
        }
    }

    /// Whether any of these bytes was written during the launch.
    pub(crate) fn written(&mut self, offset: u64, bytes: u32) -> bool {
        self.cells(offset, bytes).1.iter().any(|cell| cell.write.is_some())
    }
}
