//! Blocks of weights that are loaded long before they are used.

use super::super::weights::{Raw, RawScales};
use crate::build::{B32, F16, F16x2, KernelBuilder, Reg, S32, Ty, Var};
use crate::kernels::format::Format;

/// A block in variables: what was loaded last.
pub(super) struct Held {
    /// One load, or two of Q8_0.
    codes: Vec<[Var<B32>; 4]>,
    high: [Option<Var<B32>>; 2],
    scales: Scales,
}

enum Scales {
    One(Var<F16>),
    Pair(Var<F16x2>),
    Fields([Var<B32>; 4]),
    Halves(Var<F16>, [Var<S32>; 2]),
}

fn words(k: &KernelBuilder) -> [Var<B32>; 4] {
    std::array::from_fn(|_| k.var(0_u32))
}

fn set_all<T: Ty, const N: usize>(k: &KernelBuilder, vars: &[Var<T>; N], values: [Reg<T>; N]) {
    for (var, value) in vars.iter().zip(values) {
        k.set(*var, value);
    }
}

impl Held {
    /// Nothing yet.
    pub(super) fn new(k: &KernelBuilder, format: Format) -> Self {
        let halves = if format == Format::Q8_0 { 2 } else { 1 };
        let half = || k.var(k.f16(half::f16::ZERO));
        Self {
            codes: (0..halves).map(|_| words(k)).collect(),
            high: match format {
                Format::Q6_K => [Some(k.var(0_u32)), Some(k.var(0_u32))],
                Format::Q5_K => [Some(k.var(0_u32)), None],
                _ => [None, None],
            },
            scales: match format {
                Format::Q4_1 => Scales::Pair(k.var::<B32>(0_u32).as_ty()),
                Format::Q4_K | Format::Q5_K => Scales::Fields(words(k)),
                Format::Q6_K => Scales::Halves(half(), [k.var(0), k.var(0)]),
                _ => Scales::One(half()),
            },
        }
    }

    /// Replaces it by a block of the same format.
    pub(super) fn set(&self, k: &KernelBuilder, raw: Raw) {
        for (held, codes) in self.codes.iter().zip(raw.codes) {
            set_all(k, held, codes);
        }
        for (held, high) in self.high.iter().zip(raw.high) {
            if let (Some(held), Some(high)) = (held, high) {
                k.set(*held, high);
            }
        }
        match (&self.scales, raw.scales) {
            (Scales::One(held), RawScales::One(d)) => k.set(*held, d),
            (Scales::Pair(held), RawScales::Pair(pair)) => k.set(*held, pair),
            (Scales::Fields(held), RawScales::Fields(fields)) => set_all(k, held, fields),
            (Scales::Halves(held, scales), RawScales::Halves(d, halves)) => {
                k.set(*held, d);
                set_all(k, scales, halves);
            }
            _ => unreachable!("invariant: both are of one format"),
        }
    }

    /// Forgets what was loaded.
    pub(super) fn clear(&self, k: &KernelBuilder) {
        let clear = |var: &Var<B32>| k.set(*var, 0_u32);
        self.codes.iter().flatten().for_each(clear);
        self.high.iter().flatten().for_each(clear);
        let half = |var: Var<F16>| k.set(var, k.f16(half::f16::ZERO));
        match &self.scales {
            Scales::One(d) => half(*d),
            Scales::Pair(pair) => clear(&pair.as_ty()),
            Scales::Fields(fields) => fields.iter().for_each(clear),
            Scales::Halves(d, scales) => {
                half(*d);
                for scale in scales {
                    k.set(*scale, 0);
                }
            }
        }
    }

    /// The block that was loaded last.
    pub(super) fn get(&self) -> Raw {
        let first = self.codes[0].map(Var::get);
        Raw {
            codes: [first, self.codes.get(1).map_or(first, |second| second.map(Var::get))],
            high: self.high.map(|high| high.map(Var::get)),
            scales: match &self.scales {
                Scales::One(d) => RawScales::One(d.get()),
                Scales::Pair(pair) => RawScales::Pair(pair.get()),
                Scales::Fields(fields) => RawScales::Fields(fields.map(Var::get)),
                Scales::Halves(d, scales) => RawScales::Halves(d.get(), scales.map(Var::get)),
            },
        }
    }
}
