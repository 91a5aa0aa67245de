//! Bytes with a record of which were ever written, and which are the target of a copy under way.

use crate::interp::race::Shadow;

/// What memory without a value holds: as a float of any width, a NaN.
const POISON: u8 = 0xff;

/// One span of memory.
#[derive(Debug)]
pub(crate) struct Cells {
    data: Vec<u8>,
    /// Bit per byte that has a value; `None` if all have.
    written: Option<Bits>,
    /// Bit per byte that an asynchronous copy will write; `None` where no copy ever went.
    pending: Option<Bits>,
    /// Accesses of the launch; `None` where races are not looked for.
    pub(crate) shadow: Option<Shadow>,
}

#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Self(vec![0; len.div_ceil(64)])
    }

    /// Bits `at..at + count`, of which there are at most 32, as the low bits of a number.
    fn get(&self, at: usize, count: u32) -> u32 {
        let (word, shift) = (at / 64, at % 64);
        let mut bits = self.0[word] >> shift;
        if shift + count as usize > 64 {
            bits |= self.0[word + 1] << (64 - shift);
        }
        (bits & ((1 << count) - 1)) as u32
    }

    fn put(&mut self, at: usize, count: u32, on: bool) {
        for i in at..at + count as usize {
            if on {
                self.0[i / 64] |= 1 << (i % 64);
            } else {
                self.0[i / 64] &= !(1 << (i % 64));
            }
        }
    }
}

impl Cells {
    /// Memory with a value in every byte.
    pub(crate) fn filled(data: Vec<u8>) -> Self {
        Self { data, written: None, pending: None, shadow: None }
    }

    /// Memory without values.
    pub(crate) fn poisoned(len: usize) -> Self {
        Self { data: vec![POISON; len], written: Some(Bits::new(len)), pending: None, shadow: None }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The first byte of `at..at + count` without a value.
    pub(crate) fn first_unwritten(&self, at: usize, count: u32) -> Option<usize> {
        let written = self.written.as_ref()?;
        let missing = !written.get(at, count) & ((1_u64 << count) - 1) as u32;
        (missing != 0).then(|| at + missing.trailing_zeros() as usize)
    }

    /// The first byte without a value at all.
    pub(crate) fn first_hole(&self) -> Option<usize> {
        let written = self.written.as_ref()?;
        let word = written.0.iter().position(|&bits| bits != u64::MAX)?;
        let at = word * 64 + written.0[word].trailing_ones() as usize;
        (at < self.data.len()).then_some(at)
    }

    /// Whether a copy to any of `at..at + count` is under way.
    pub(crate) fn is_pending(&self, at: usize, count: u32) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.get(at, count) != 0)
    }

    pub(crate) fn set_pending(&mut self, at: usize, count: u32, on: bool) {
        let len = self.data.len();
        self.pending.get_or_insert_with(|| Bits::new(len)).put(at, count, on);
    }

    /// Up to 16 bytes as a little-endian number.
    pub(crate) fn load(&self, at: usize, count: u32) -> u128 {
        let data = &self.data[at..at + count as usize];
        let mut bytes = [0; 16];
        bytes[..data.len()].copy_from_slice(data);
        u128::from_le_bytes(bytes)
    }

    /// Stores the low `count` bytes of `value`.
    pub(crate) fn store(&mut self, at: usize, count: u32, value: u128) {
        self.data[at..at + count as usize].copy_from_slice(&value.to_le_bytes()[..count as usize]);
        if let Some(written) = &mut self.written {
            written.put(at, count, true);
        }
    }

    /// Stores bytes of the host.
    pub(crate) fn store_bytes(&mut self, at: usize, bytes: &[u8]) {
        self.data[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(written) = &mut self.written {
            written.put(at, bytes.len() as u32, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_found_across_words() {
        let mut cells = Cells::poisoned(130);
        assert_eq!(cells.first_hole(), Some(0));
        cells.store_bytes(0, &[1; 64]);
        assert_eq!(cells.first_hole(), Some(64));
        cells.store(60, 16, 7);
        assert_eq!(cells.first_unwritten(60, 16), None);
        assert_eq!(cells.first_unwritten(72, 8), Some(76));
        cells.store_bytes(64, &[1; 66]);
        assert_eq!(cells.first_hole(), None);
        assert_eq!(cells.load(60, 4), 7);
    }
}
