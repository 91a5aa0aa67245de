//! Attention over pages against a plain softmax in f64, and its independence of tiles, splits, pages and what is not visible.
#![allow(clippy::unwrap_used)]

use bricks::cpu::SimdLevel;
use bricks::cpu::attention::{AttentionGroup, KvLayout, KvType, MAX_ROWS, PAGE, SPLIT, Tile};
use proptest::prelude::*;

/// Queries for a tile, and keys and values of enough whole pages for its context.
#[derive(Clone)]
struct Case {
    group: AttentionGroup,
    tile: Tile,
    /// `[rows][heads][head_dim]`.
    q: Vec<f32>,
    /// `[context][head_dim]`, what was stored.
    keys: Vec<f32>,
    values: Vec<f32>,
    pages: Vec<Vec<u8>>,
}

fn noise(i: usize, seed: usize) -> f32 {
    let x = (i.wrapping_mul(0x9e37_79b9) ^ seed.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35) >> 7;
    (x % 20_011) as f32 / 10_005.5 - 1.0
}

fn tile(position: usize, rows: usize) -> Tile {
    Tile { position, rows, window: None }
}

impl Case {
    fn new(kind: KvType, heads: usize, head_dim: usize, tile: Tile, size: f32) -> Self {
        let layout = KvLayout::new(kind, head_dim).unwrap();
        let group = AttentionGroup { heads, layout, scale: 1.0 / (head_dim as f32).sqrt(), softcap: None };
        let n = (tile.position + tile.rows) * head_dim;
        let mut case = Self {
            group,
            tile,
            q: (0..tile.rows * heads * head_dim).map(|i| noise(i, 1) * size).collect(),
            keys: (0..n).map(|i| noise(i, 2) * size).collect(),
            values: (0..n).map(|i| noise(i, 3)).collect(),
            pages: Vec::new(),
        };
        case.store();
        case
    }

    /// Writes the pages, and reads back what they hold.
    fn store(&mut self) {
        let Self { group: AttentionGroup { layout, .. }, keys, values, pages, .. } = self;
        let dim = layout.head_dim();
        let rows = keys.chunks_exact_mut(dim).zip(values.chunks_exact_mut(dim));
        *pages = Vec::new();
        for (i, (key, value)) in rows.enumerate() {
            if i % PAGE == 0 {
                // What was there before does not matter: here NaNs in every type.
                pages.push(vec![0xff; layout.page_bytes()]);
            }
            let page = pages.last_mut().unwrap();
            layout.write(SimdLevel::detect(), page, i % PAGE, key, value).unwrap();
            layout.read(page, i % PAGE, key, value).unwrap();
        }
    }

    fn query(&self, row: usize) -> &[f32] {
        let size = self.group.heads * self.group.layout.head_dim();
        &self.q[row * size..(row + 1) * size]
    }

    fn page(&self, i: usize) -> Option<&[u8]> {
        self.pages.get(i).map(Vec::as_slice)
    }

    fn run(&self, level: SimdLevel) -> Vec<f32> {
        let mut scratch = vec![f32::NAN; self.group.scratch_len(self.tile.rows)];
        let page = |i| self.page(i);
        self.group.attend(level, &self.tile, |r| self.query(r), page, &mut scratch).unwrap().to_vec()
    }

    /// The same from splits computed one by one, in any order.
    fn run_in_parts(&self, level: SimdLevel) -> Vec<f32> {
        let (group, tile) = (&self.group, &self.tile);
        let mut scratch = vec![f32::NAN; group.scratch_len(tile.rows)];
        let mut records: Vec<Vec<f32>> = tile.splits().map(|_| vec![f32::NAN; group.record_len(tile.rows)]).collect();
        for (split, record) in tile.splits().zip(&mut records).rev() {
            let mut record = Some(record.as_mut_slice());
            let (query, page) = (|r| self.query(r), |i| self.page(i));
            let range = split..split + 1;
            group.partial(level, tile, range, query, page, &mut scratch, |_| record.take().unwrap()).unwrap();
            scratch.fill(f32::NAN);
        }
        group.merge(level, tile.rows, records.iter().map(Vec::as_slice), &mut scratch).unwrap().to_vec()
    }

    /// Row `row` alone.
    fn alone(&self, row: usize) -> Self {
        let tile = Tile { position: self.tile.position + row, rows: 1, ..self.tile };
        Self { tile, q: self.query(row).to_vec(), ..self.clone() }
    }

    /// The definition, in f64.
    fn expected(&self) -> Vec<f64> {
        let dim = self.group.layout.head_dim();
        let mut out = Vec::new();
        for row in 0..self.tile.rows {
            let visible = self.tile.visible(row);
            for q in self.query(row).chunks_exact(dim) {
                let scores: Vec<f64> = visible
                    .clone()
                    .map(|i| {
                        let key = &self.keys[i * dim..][..dim];
                        let dot: f64 = q.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                        let score = dot * f64::from(self.group.scale);
                        self.group.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                    })
                    .collect();
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = weights.iter().sum();
                out.extend((0..dim).map(|d| {
                    let values = visible.clone().map(|i| f64::from(self.values[i * dim + d]));
                    values.zip(&weights).map(|(v, w)| v * w).sum::<f64>() / sum
                }));
            }
        }
        out
    }

    /// Every level agrees with the definition, and the levels with each other to the bit; as do splits put together later, and
    /// rows computed alone.
    fn check(&self) {
        let expected = self.expected();
        let dim = self.group.layout.head_dim();
        let mut first = None;
        for level in SimdLevel::available() {
            let out = self.run(level);
            let context = || format!("{level} {:?} {:?}", self.group, self.tile);
            assert_eq!(out.len(), expected.len(), "{}", context());
            for (i, (y, e)) in out.iter().zip(&expected).enumerate() {
                assert!((f64::from(*y) - e).abs() <= 2e-5, "{}: out[{i}] = {y}, expected {e}", context());
            }
            assert_eq!(bits(&self.run_in_parts(level)), bits(&out), "in parts: {}", context());
            let rows = self.tile.rows;
            for row in [0, rows / 2, rows - 1] {
                let size = self.group.heads * dim;
                let alone = self.alone(row).run(level);
                assert_eq!(bits(&alone), bits(&out[row * size..][..size]), "row {row} alone: {}", context());
            }
            let first = first.get_or_insert_with(|| out.clone());
            assert_eq!(bits(&out), bits(first), "{}", context());
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn agrees_with_the_definition_for_all_shapes() {
    for head_dim in [16, 32, 48, 64, 80, 96, 128, 256, 1, 7, 20, 72] {
        for heads in [1, 2, 3, 4, 5, 7, 8] {
            for tile in [tile(0, 1), tile(76, 1), tile(0, 5), tile(30, 4), tile(255, 2)] {
                for kind in KvType::ALL {
                    if kind == KvType::F16 || head_dim % 32 == 0 {
                        Case::new(kind, heads, head_dim, tile, 2.0).check();
                    }
                }
            }
        }
    }
}

#[test]
fn contexts_around_the_edges_of_pages_and_splits() {
    for edge in [PAGE, 2 * PAGE, SPLIT, 2 * SPLIT] {
        for position in edge - 2..=edge + 1 {
            for kind in KvType::ALL {
                Case::new(kind, 3, 32, tile(position, 1), 1.0).check();
                Case::new(kind, 2, 32, tile(position, 3), 1.0).check();
                Case::new(kind, 1, 32, tile(position - 20, MAX_ROWS), 1.0).check();
            }
        }
    }
}

#[test]
fn windows_softcaps_and_large_scores() {
    for size in [0.0, 1e-3, 1.0, 12.0] {
        for window in [None, Some(1), Some(2), Some(17), Some(32), Some(100), Some(256), Some(300), Some(9999)] {
            let mut case = Case::new(KvType::F16, 3, 64, Tile { position: 270, rows: 6, window }, size);
            case.check();
            for cap in [50.0, 1.0] {
                case.group.softcap = Some(cap);
                case.check();
            }
        }
    }
}

/// Rising scores move the maximum at every split, falling ones at none; both far beyond what `exp` could take unshifted.
#[test]
fn scores_that_rise_or_fall_over_thousands_stay_finite() {
    for direction in [1.0, -1.0] {
        let mut case = Case::new(KvType::F16, 2, 16, tile(3 * SPLIT - 3, 3), 1.0);
        case.group.scale = 1.0;
        case.q.fill(8.0);
        for (i, row) in case.keys.chunks_exact_mut(16).enumerate() {
            row.fill(direction * (i as f32 - 380.0) / 4.0);
        }
        case.store();
        case.check();
    }
}

/// Neither what lies before the window, nor what comes later, nor what a page held before: not even infinities and NaNs.
#[test]
fn what_is_not_visible_does_not_matter() {
    for (kind, poison) in [(KvType::F16, f32::NAN), (KvType::F16, f32::INFINITY), (KvType::Q8_0, f32::NAN)] {
        let tile = Tile { position: 300, rows: 1, window: Some(60) };
        let wide = Tile { position: 300, rows: 20, window: Some(60) };
        let case = Case::new(kind, 4, 64, wide, 1.0);
        let mut poisoned = case.clone();
        for (i, row) in poisoned.keys.chunks_exact_mut(64).enumerate() {
            if !(241..301).contains(&i) {
                row.fill(poison);
            }
        }
        for (i, row) in poisoned.values.chunks_exact_mut(64).enumerate() {
            if !(241..301).contains(&i) {
                row.fill(poison);
            }
        }
        poisoned.store();
        for level in SimdLevel::available() {
            let (clean, dirty) = (case.run(level), poisoned.run(level));
            assert_eq!(bits(&dirty[..4 * 64]), bits(&clean[..4 * 64]), "{level} {kind}");
            assert!(dirty[4 * 64..].iter().all(|y| y.is_nan()), "{level} {kind}: the next row sees it");
            let alone = Case { tile, q: case.query(0).to_vec(), ..poisoned.clone() };
            assert_eq!(bits(&alone.run(level)), bits(&clean[..4 * 64]), "{level} {kind}");
        }
    }
}

/// A head's bits do not depend on the heads beside it, so grouping is free to change.
#[test]
fn heads_do_not_depend_on_their_company() {
    let case = Case::new(KvType::F16, 7, 80, Tile { position: 290, rows: 3, window: Some(270) }, 1.5);
    for level in SimdLevel::available() {
        let together = case.run(level);
        for h in 0..7 {
            let mut alone = case.clone();
            alone.group.heads = 1;
            alone.q = (0..3).flat_map(|r| case.query(r)[h * 80..(h + 1) * 80].to_vec()).collect();
            for (r, alone) in alone.run(level).chunks_exact(80).enumerate() {
                assert_eq!(bits(alone), bits(&together[(r * 7 + h) * 80..][..80]), "{level} row {r} head {h}");
            }
        }
    }
}

#[test]
fn no_position_gives_zeros_and_contradictions_are_errors() {
    let case = Case::new(KvType::F16, 2, 32, tile(39, 1), 1.0);
    let level = SimdLevel::detect();
    let g = &case.group;
    let mut scratch = vec![0.0; g.scratch_len(1)];
    let query = |_| &case.q[..];
    let page = |i| case.page(i);
    let blind = Tile { window: Some(0), ..case.tile };
    assert_eq!(g.attend(level, &blind, query, page, &mut scratch).unwrap(), [0.0; 64]);
    let none = Tile { rows: 0, ..case.tile };
    assert!(g.attend(level, &none, query, page, &mut scratch).unwrap().is_empty());

    let e = g.attend(level, &case.tile, |_| &case.q[1..], page, &mut scratch).unwrap_err();
    assert_eq!(e.to_string(), "elements of the queries: expected 64, found 63");
    let short = scratch.len() - 1;
    let e = g.attend(level, &case.tile, query, page, &mut scratch[..short]).unwrap_err();
    assert_eq!(e.to_string(), format!("scratch of attention: expected at most {short}, found {}", short + 1));
    let e = g.attend(level, &Tile { position: 64, ..case.tile }, query, page, &mut scratch).unwrap_err();
    assert_eq!(e.to_string(), "page of the sequence: expected at most 1, found 2");
    let e = g.attend(level, &case.tile, query, |i| Some(&case.page(i)?[1..]), &mut scratch).unwrap_err();
    assert_eq!(e.to_string(), "bytes of a page: expected 4096, found 4095");
    let e = g.attend(level, &Tile { rows: MAX_ROWS + 1, ..case.tile }, query, page, &mut scratch).unwrap_err();
    assert_eq!(e.to_string(), "rows of an attention tile: expected at most 32, found 33");
    let record = [0.0f32; 5];
    let e = g.merge(level, 1, [&record[..]].into_iter(), &mut scratch).unwrap_err();
    assert_eq!(e.to_string(), "elements of a split's record: expected 96, found 5");
    let absurd = AttentionGroup { heads: usize::MAX, ..case.group };
    assert!(absurd.attend(level, &case.tile, query, page, &mut scratch).is_err());
}

#[test]
fn layouts_that_cannot_be_are_errors() {
    let of = |kind, dim| KvLayout::new(kind, dim).unwrap_err().to_string();
    assert_eq!(of(KvType::Q8_0, 80), "elements of a head in a q8_0 cache, a multiple of 32: expected 96, found 80");
    assert_eq!(of(KvType::F16, 0), "elements of a head: expected 1, found 0");
    assert!(KvLayout::new(KvType::F16, usize::MAX).is_err());
    assert!(KvLayout::new(KvType::Q8_0, usize::MAX - 31).is_err());
    let layout = KvLayout::new(KvType::Q8_0, 64).unwrap();
    assert_eq!((layout.page_bytes(), layout.position_bytes()), (2 * 32 * (64 + 4), 2 * 68));
    let (mut page, row) = (vec![0; layout.page_bytes()], [0.0; 64]);
    let level = SimdLevel::detect();
    let e = layout.write(level, &mut page, PAGE, &row, &row).unwrap_err();
    assert_eq!(e.to_string(), "slot of a page: expected at most 31, found 32");
    let e = layout.write(level, &mut page, 0, &row[1..], &row).unwrap_err();
    assert_eq!(e.to_string(), "elements of a key: expected 64, found 63");
    let e = layout.write(level, &mut page, 0, &row, &row[1..]).unwrap_err();
    assert_eq!(e.to_string(), "elements of a value: expected 64, found 63");
    let e = layout.write(level, &mut page[1..], 0, &row, &row).unwrap_err();
    assert_eq!(e.to_string(), "bytes of a page: expected 4352, found 4351");
}

/// Codes differ from the values by half a step of their block at most; neighbours in the page stay as they are.
#[test]
fn q8_pages_keep_values_to_half_a_step() {
    let layout = KvLayout::new(KvType::Q8_0, 64).unwrap();
    let (mut key, mut value) = ([0.0; 64], [0.0; 64]);
    for size in [1.0f32, 300.0, 1e-3, 1e-6, 1e-9, 0.0, 60_000.0] {
        let mut first = None;
        for level in SimdLevel::available() {
            let mut page = vec![0xff; layout.page_bytes()];
            for slot in (0..PAGE).rev() {
                let x: Vec<f32> = (0..64).map(|i| noise(slot * 64 + i, 4) * size).collect();
                let y: Vec<f32> = (0..64).map(|i| noise(slot * 64 + i, 5) * size).collect();
                layout.write(level, &mut page, slot, &x, &y).unwrap();
            }
            for slot in 0..PAGE {
                layout.read(&page, slot, &mut key, &mut value).unwrap();
                for (seed, found) in [(4, &key), (5, &value)] {
                    for (b, found) in found.chunks_exact(32).enumerate() {
                        let x: Vec<f32> = (0..32).map(|i| noise(slot * 64 + b * 32 + i, seed) * size).collect();
                        let amax = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                        // Half a step of a scale rounded to f16, whose own smallest step is 2^-24.
                        let bound = amax / 254.0 * 1.001 + 127.0 * 2f32.powi(-25);
                        for (x, y) in x.iter().zip(found) {
                            assert!((x - y).abs() <= bound, "{level}: {x} became {y}, block of {amax}");
                        }
                    }
                }
            }
            assert_eq!(first.get_or_insert_with(|| page.clone()), &page, "{level}");
        }
    }
}

#[test]
fn broken_values_stay_visible_in_q8_pages() {
    let layout = KvLayout::new(KvType::Q8_0, 64).unwrap();
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        for level in SimdLevel::available() {
            let mut page = vec![0; layout.page_bytes()];
            let mut x = [1.0; 64];
            x[40] = broken;
            layout.write(level, &mut page, 3, &x, &x).unwrap();
            let (mut key, mut value) = ([0.0; 64], [0.0; 64]);
            layout.read(&page, 3, &mut key, &mut value).unwrap();
            for found in [key, value] {
                assert!(found[..32].iter().all(|x| (x - 1.0).abs() < 1e-3) && found[32..].iter().all(|x| x.is_nan()));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.min(64)))] // PROPTEST_CASES lowers it

    #[test]
    fn any_shape_agrees(
        heads in 1usize..9, head_dim in 1usize..140, rows in 1usize..33, position in 0usize..700,
        window in proptest::option::of(1usize..600), size in 0f32..6.0
    ) {
        Case::new(KvType::F16, heads, head_dim, Tile { position, rows, window }, size).check();
    }

    #[test]
    fn any_shape_agrees_in_q8(
        heads in 1usize..9, blocks in 1usize..5, rows in 1usize..33, position in 0usize..700,
        window in proptest::option::of(1usize..600), size in 0f32..6.0
    ) {
        Case::new(KvType::Q8_0, heads, 32 * blocks, Tile { position, rows, window }, size).check();
    }
}
