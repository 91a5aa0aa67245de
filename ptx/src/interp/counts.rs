//! What a launch did, counted: exact numbers, the same on every machine, for the profiler and for gates.

use std::fmt;

use super::op::{AtomFn, Op, Space};

/// What an instruction mainly uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// Moves, packing, selection.
    Move,
    /// Integer arithmetic.
    Integer,
    /// Logic, shifts, fields, permutations.
    Bits,
    /// f32 and f64 arithmetic.
    Float,
    /// f16 and bf16 arithmetic.
    Half,
    /// ex2, lg2, rcp, rsqrt, sqrt, sin, cos, tanh.
    Special,
    /// Conversions between types.
    Convert,
    /// Comparisons and predicate logic.
    Predicate,
    /// dp4a.
    Dot,
    /// mma.
    Matrix,
    /// Loads of kernel parameters.
    LoadParam,
    /// Loads from global memory.
    LoadGlobal,
    /// Stores to global memory.
    StoreGlobal,
    /// Loads from shared memory, ldmatrix included.
    LoadShared,
    /// Stores to shared memory.
    StoreShared,
    /// Atomics and reductions in memory.
    Atomic,
    /// cp.async, its commits and waits.
    AsyncCopy,
    /// Shuffles, votes, matches, redux.
    Warp,
    /// Barriers and fences.
    Sync,
    /// Branches and returns.
    Branch,
    /// Everything else.
    Other,
}

/// All classes with their names, in the order of reports.
const CLASSES: [(Class, &str); 21] = [
    (Class::Move, "move"),
    (Class::Integer, "integer"),
    (Class::Bits, "bits"),
    (Class::Float, "float"),
    (Class::Half, "half"),
    (Class::Special, "special"),
    (Class::Convert, "convert"),
    (Class::Predicate, "predicate"),
    (Class::Dot, "dot"),
    (Class::Matrix, "matrix"),
    (Class::LoadParam, "load.param"),
    (Class::LoadGlobal, "load.global"),
    (Class::StoreGlobal, "store.global"),
    (Class::LoadShared, "load.shared"),
    (Class::StoreShared, "store.shared"),
    (Class::Atomic, "atomic"),
    (Class::AsyncCopy, "async_copy"),
    (Class::Warp, "warp"),
    (Class::Sync, "sync"),
    (Class::Branch, "branch"),
    (Class::Other, "other"),
];

impl Class {
    /// Every class, in the order of reports.
    pub fn all() -> impl Iterator<Item = Self> {
        CLASSES.into_iter().map(|(class, _)| class)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        CLASSES[self as usize].1
    }
}

impl Op {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Mov32 { .. }
            | Self::Mov64 { .. }
            | Self::MovPred { .. }
            | Self::Pack32 { .. }
            | Self::Unpack32 { .. }
            | Self::Pack64 { .. }
            | Self::Unpack64 { .. }
            | Self::Pack64x4 { .. }
            | Self::Unpack64x4 { .. }
            | Self::Clock32 { .. }
            | Self::Clock64 { .. }
            | Self::Selp32 { .. }
            | Self::Selp64 { .. }
            | Self::Slct32 { .. }
            | Self::Slct64 { .. } => Class::Move,
            Self::Int16 { f, .. } | Self::Int32 { f, .. } | Self::Int64 { f, .. } => {
                use super::op::IntBin::{And, Or, Xor};
                if matches!(f, And | Or | Xor) { Class::Bits } else { Class::Integer }
            }
            Self::IntUn16 { .. }
            | Self::IntUn32 { .. }
            | Self::IntUn64 { .. }
            | Self::Mad16 { .. }
            | Self::Mad32 { .. }
            | Self::Mad64 { .. }
            | Self::MulWide16 { .. }
            | Self::MulWide32 { .. } => Class::Integer,
            Self::Shift16 { .. }
            | Self::Shift32 { .. }
            | Self::Shift64 { .. }
            | Self::Count64 { .. }
            | Self::Lop3 { .. }
            | Self::Prmt { .. }
            | Self::Shf { .. }
            | Self::Bfe32 { .. }
            | Self::Bfe64 { .. }
            | Self::Bfi32 { .. }
            | Self::Bfi64 { .. } => Class::Bits,
            Self::Float32 { .. } | Self::Float64 { .. } | Self::Fma32 { .. } | Self::Fma64 { .. } => Class::Float,
            Self::FloatUn32 { f, .. } | Self::FloatUn64 { f, .. } => {
                use super::op::FloatUn::{Abs, Neg};
                if matches!(f, Abs | Neg) { Class::Float } else { Class::Special }
            }
            Self::Half { .. } => Class::Half,
            Self::Cvt(_) | Self::CvtPack { .. } => Class::Convert,
            Self::Setp { .. } | Self::PredBin { .. } | Self::PredNot { .. } => Class::Predicate,
            Self::Dp4a { .. } => Class::Dot,
            Self::Mma(_) => Class::Matrix,
            Self::LdParam { .. } => Class::LoadParam,
            Self::Ld(a) if a.space == Space::Global => Class::LoadGlobal,
            Self::Ld(_) | Self::LdMatrix { .. } => Class::LoadShared,
            Self::St(a) if a.space == Space::Global => Class::StoreGlobal,
            Self::St(_) => Class::StoreShared,
            Self::Atom(_) => Class::Atomic,
            Self::CpAsync { .. } | Self::CpCommit | Self::CpWait { .. } => Class::AsyncCopy,
            Self::Shfl(_)
            | Self::Vote { .. }
            | Self::Ballot { .. }
            | Self::MatchAny { .. }
            | Self::MatchAll { .. }
            | Self::Redux { .. }
            | Self::ActiveMask { .. } => Class::Warp,
            Self::Fence { .. } | Self::Bar { .. } | Self::BarWarp { .. } => Class::Sync,
            Self::Bra { .. } | Self::Exit => Class::Branch,
            Self::Nop | Self::Trap | Self::Nanosleep => Class::Other,
        }
    }
}

/// Traffic of one kind between warps and a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Instructions with at least one active lane.
    pub requests: u64,
    /// Bytes the lanes asked for, repeats included.
    pub bytes: u64,
    /// Global memory: 32-byte sectors touched, each once per request. Shared memory: wavefronts, the passes a request
    /// takes through the 32 banks.
    pub units: u64,
    /// What `units` would be at best: for global memory the distinct bytes in sectors, for shared memory one pass per
    /// 128 bytes the instruction can carry at once.
    pub ideal: u64,
}

impl Traffic {
    fn add(&mut self, bytes: u64, units: u64, ideal: u64) {
        self.requests += 1;
        self.bytes += bytes;
        self.units += units;
        self.ideal += ideal;
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.units += other.units;
        self.ideal += other.ideal;
    }

    /// Bank conflicts, or sectors beyond the ideal: how many units were not needed.
    pub fn excess(&self) -> u64 {
        self.units - self.ideal
    }
}

/// What one line of the text did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCount {
    /// Line of the text, from 1.
    pub line: u32,
    /// Instructions issued, once per warp.
    pub instructions: u64,
    /// Lanes that executed them.
    pub lanes: u64,
}

/// What a launch did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    instructions: [u64; CLASSES.len()],
    lanes: u64,
    lines: Vec<LineCount>,
    pub(super) blocks: u64,
    pub(super) warps: u64,
    pub(super) tally: Tally,
}

/// The counts that are made while instructions execute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    global_load: Traffic,
    global_store: Traffic,
    global_atomic: Traffic,
    shared_load: Traffic,
    shared_store: Traffic,
    shared_atomic: Traffic,
    pub(crate) param_bytes: u64,
    pub(crate) barriers: u64,
    pub(crate) branches: u64,
    pub(crate) divergent: u64,
    pub(crate) float_atomics: u64,
}

impl Counts {
    /// Adds up what every instruction of the code did: `(op, line, times issued, lanes)`.
    pub(super) fn of_code<'a>(code: impl Iterator<Item = (&'a Op, u32, u64, u64)>) -> Self {
        let mut out = Self::default();
        for (op, line, issued, lanes) in code.filter(|&(_, _, issued, _)| issued > 0) {
            out.instructions[op.class() as usize] += issued;
            out.lanes += lanes;
            // The code is in the order of the text.
            match out.lines.last_mut() {
                Some(count) if count.line == line => {
                    count.instructions += issued;
                    count.lanes += lanes;
                }
                _ => out.lines.push(LineCount { line, instructions: issued, lanes }),
            }
        }
        out
    }

    /// Instructions issued, once per warp.
    pub fn instructions(&self) -> u64 {
        self.instructions.iter().sum()
    }

    /// Instructions of one class, once per warp.
    pub fn class(&self, class: Class) -> u64 {
        self.instructions[class as usize]
    }

    /// Instructions times the lanes that executed them.
    pub fn lane_instructions(&self) -> u64 {
        self.lanes
    }

    /// Share of lanes that executed, of 32 per instruction: 1 without divergence, guards or partial warps.
    pub fn lane_efficiency(&self) -> f64 {
        let issued = self.instructions();
        if issued == 0 { 1.0 } else { self.lanes as f64 / (issued as f64 * 32.0) }
    }

    /// Per line of the text, ascending.
    pub fn lines(&self) -> &[LineCount] {
        &self.lines
    }

    /// Blocks that ran.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Warps that ran.
    pub fn warps(&self) -> u64 {
        self.warps
    }

    /// Loads from global memory, the sources of asynchronous copies included.
    pub fn global_loads(&self) -> Traffic {
        self.tally.global_load
    }

    /// Stores to global memory.
    pub fn global_stores(&self) -> Traffic {
        self.tally.global_store
    }

    /// Atomics on global memory.
    pub fn global_atomics(&self) -> Traffic {
        self.tally.global_atomic
    }

    /// Loads from shared memory.
    pub fn shared_loads(&self) -> Traffic {
        self.tally.shared_load
    }

    /// Stores to shared memory, the targets of asynchronous copies included.
    pub fn shared_stores(&self) -> Traffic {
        self.tally.shared_store
    }

    /// Atomics on shared memory.
    pub fn shared_atomics(&self) -> Traffic {
        self.tally.shared_atomic
    }

    /// Extra wavefronts of shared memory, over loads, stores and atomics.
    pub fn bank_conflicts(&self) -> u64 {
        [self.tally.shared_load, self.tally.shared_store, self.tally.shared_atomic].iter().map(Traffic::excess).sum()
    }

    /// Bytes of parameters read, once per warp.
    pub fn param_bytes(&self) -> u64 {
        self.tally.param_bytes
    }

    /// Arrivals of warps at barriers of the block.
    pub fn barriers(&self) -> u64 {
        self.tally.barriers
    }

    /// Conditional and unconditional branches, once per warp.
    pub fn branches(&self) -> u64 {
        self.tally.branches
    }

    /// Branches that split a warp.
    pub fn divergent_branches(&self) -> u64 {
        self.tally.divergent
    }

    /// Lanes that added floats atomically: their order, and so the last bits of the sum, is open.
    pub fn float_atomics(&self) -> u64 {
        self.tally.float_atomics
    }

    /// Adds the counts of another launch.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.instructions.iter_mut().zip(other.instructions) {
            *mine += theirs;
        }
        self.lanes += other.lanes;
        self.blocks += other.blocks;
        self.warps += other.warps;
        for count in &other.lines {
            match self.lines.binary_search_by_key(&count.line, |c| c.line) {
                Ok(i) => {
                    self.lines[i].instructions += count.instructions;
                    self.lines[i].lanes += count.lanes;
                }
                Err(i) => self.lines.insert(i, *count),
            }
        }
        let (a, b) = (&mut self.tally, &other.tally);
        a.global_load.merge(&b.global_load);
        a.global_store.merge(&b.global_store);
        a.global_atomic.merge(&b.global_atomic);
        a.shared_load.merge(&b.shared_load);
        a.shared_store.merge(&b.shared_store);
        a.shared_atomic.merge(&b.shared_atomic);
        a.param_bytes += b.param_bytes;
        a.barriers += b.barriers;
        a.branches += b.branches;
        a.divergent += b.divergent;
        a.float_atomics += b.float_atomics;
    }
}

/// How an access counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Load,
    Store,
    Atomic(AtomFn),
}

impl Tally {
    /// Counts one request: the address of every active lane, and how many bytes each accesses.
    pub(crate) fn request(&mut self, space: Space, kind: Kind, addresses: &[u64; 32], mask: u32, bytes: u32) {
        let lanes = u64::from(mask.count_ones());
        let total = lanes * u64::from(bytes);
        let (units, ideal) = match space {
            Space::Global => sectors(addresses, mask, bytes),
            Space::Shared => wavefronts(addresses, mask, bytes),
        };
        let traffic = match (space, kind) {
            (Space::Global, Kind::Load) => &mut self.global_load,
            (Space::Global, Kind::Store) => &mut self.global_store,
            (Space::Global, Kind::Atomic(_)) => &mut self.global_atomic,
            (Space::Shared, Kind::Load) => &mut self.shared_load,
            (Space::Shared, Kind::Store) => &mut self.shared_store,
            (Space::Shared, Kind::Atomic(_)) => &mut self.shared_atomic,
        };
        traffic.add(total, units, ideal);
        if matches!(kind, Kind::Atomic(AtomFn::AddF32 | AtomFn::AddF64)) {
            self.float_atomics += lanes;
        }
    }

    /// Counts the rows of one `ldmatrix`: eight rows of 16 bytes per pass.
    pub(crate) fn matrix_rows(&mut self, rows: &[u64]) {
        let mut units = 0;
        for eight in rows.chunks(8) {
            let mut addresses = [0; 32];
            addresses[..eight.len()].copy_from_slice(eight);
            units += phase(&addresses[..eight.len()], 16);
        }
        self.shared_load.add(rows.len() as u64 * 16, units, rows.len().div_ceil(8) as u64);
    }
}

/// Sectors touched by one request, and the fewest that hold its distinct bytes.
fn sectors(addresses: &[u64; 32], mask: u32, bytes: u32) -> (u64, u64) {
    let mut sorted = [0_u64; 32];
    let mut n = 0;
    let mut ascending = true;
    for (lane, &address) in addresses.iter().enumerate() {
        if mask >> lane & 1 == 1 {
            ascending &= n == 0 || sorted[n - 1] <= address;
            sorted[n] = address;
            n += 1;
        }
    }
    let sorted = &mut sorted[..n];
    if !ascending {
        sorted.sort_unstable();
    }
    let (mut sectors, mut distinct) = (0, 0);
    let (mut last, mut last_sector) = (None, None);
    for &address in sorted.iter() {
        distinct += u64::from(last != Some(address));
        sectors += u64::from(last_sector != Some(address / 32));
        last = Some(address);
        last_sector = Some(address / 32);
    }
    (sectors, (distinct * u64::from(bytes)).div_ceil(32))
}

/// Passes of one request through shared memory, and the fewest possible.
///
/// Lanes that ask for the same 4-byte word are served together. An 8-byte access is served by half warps, a 16-byte
/// access by quarters, each on its own.
fn wavefronts(addresses: &[u64; 32], mask: u32, bytes: u32) -> (u64, u64) {
    let group = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    let (mut units, mut ideal) = (0, 0);
    for start in (0..32).step_by(group) {
        let mut active = [0_u64; 32];
        let mut n = 0;
        for (i, &address) in addresses[start..start + group].iter().enumerate() {
            if mask >> (start + i) & 1 == 1 {
                active[n] = address;
                n += 1;
            }
        }
        if n > 0 {
            units += phase(&active[..n], bytes);
            ideal += 1;
        }
    }
    (units, ideal)
}

/// The most distinct words any bank is asked for.
fn phase(addresses: &[u64], bytes: u32) -> u64 {
    let words_each = u64::from(bytes.div_ceil(4));
    let mut words = [0_u64; 32];
    let mut n = 0;
    for &address in addresses {
        for i in 0..words_each {
            // At most 32 words per phase: 32 lanes of 4 bytes, 16 of 8, 8 of 16.
            if n < 32 {
                words[n] = address / 4 + i;
                n += 1;
            }
        }
    }
    let words = &mut words[..n];
    words.sort_unstable();
    let mut per_bank = [0_u64; 32];
    let mut last = None;
    for &word in words.iter() {
        if last != Some(word) {
            per_bank[(word % 32) as usize] += 1;
            last = Some(word);
        }
    }
    per_bank.into_iter().max().unwrap_or(0)
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "blocks {} warps {}", self.blocks, self.warps)?;
        writeln!(f, "instructions {} lane_efficiency {:.4}", self.instructions(), self.lane_efficiency())?;
        for class in Class::all().filter(|&class| self.class(class) > 0) {
            writeln!(f, "  {} {}", class.name(), self.class(class))?;
        }
        let spaces = [
            ("global loads", "sectors", self.global_loads()),
            ("global stores", "sectors", self.global_stores()),
            ("global atomics", "sectors", self.global_atomics()),
            ("shared loads", "wavefronts", self.shared_loads()),
            ("shared stores", "wavefronts", self.shared_stores()),
            ("shared atomics", "wavefronts", self.shared_atomics()),
        ];
        for (name, unit, t) in spaces.into_iter().filter(|(_, _, t)| t.requests > 0) {
            writeln!(f, "{name} {} bytes {} {unit} {} ideal {}", t.requests, t.bytes, t.units, t.ideal)?;
        }
        writeln!(f, "branches {} divergent {}", self.branches(), self.divergent_branches())?;
        write!(f, "barriers {}", self.barriers())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(f: impl Fn(u64) -> u64) -> [u64; 32] {
        std::array::from_fn(|lane| f(lane as u64))
    }

    #[test]
    fn sectors_of_typical_requests() {
        assert_eq!(sectors(&addresses(|l| l * 4), u32::MAX, 4), (4, 4));
        assert_eq!(sectors(&addresses(|l| l * 16), u32::MAX, 16), (16, 16));
        assert_eq!(sectors(&addresses(|l| l * 32), u32::MAX, 4), (32, 4));
        assert_eq!(sectors(&addresses(|_| 64), u32::MAX, 4), (1, 1));
        assert_eq!(sectors(&addresses(|l| (31 - l) * 4), 0xff, 4), (1, 1));
    }

    #[test]
    fn wavefronts_of_typical_requests() {
        assert_eq!(wavefronts(&addresses(|l| l * 4), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&addresses(|_| 0), u32::MAX, 4), (1, 1), "a broadcast");
        assert_eq!(wavefronts(&addresses(|l| l * 128), u32::MAX, 4), (32, 1), "one column");
        assert_eq!(wavefronts(&addresses(|l| l * 132), u32::MAX, 4), (1, 1), "a padded column");
        assert_eq!(wavefronts(&addresses(|l| l * 8), u32::MAX, 4), (2, 1), "every second word");
        assert_eq!(wavefronts(&addresses(|l| l * 16), u32::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&addresses(|l| l * 128), u32::MAX, 16), (32, 4));
    }

    #[test]
    fn the_table_of_classes_is_in_the_order_of_the_enum() {
        assert!(CLASSES.iter().enumerate().all(|(i, &(class, _))| class as usize == i));
    }
}
