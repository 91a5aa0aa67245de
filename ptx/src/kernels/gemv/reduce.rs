//! Sums over the lanes of a warp, of many values at once.

use crate::build::{F32, KernelBuilder, Reg, U32};

/// A sum over all lanes, of the value that [`place`] gives this lane.
pub(super) struct Reduced {
    /// The sum.
    pub(super) sum: Reg<F32>,
    /// Lanes that hold the same sum: a power of two, consecutive.
    pub(super) copies: u32,
}

/// Which of so many values this lane is given the sum of, and how many lanes are.
pub(super) fn place(k: &KernelBuilder, values: u32) -> (Reg<U32>, u32) {
    let copies = 32 / values.next_power_of_two();
    (k.shr(k.laneid(), copies.trailing_zeros()), copies)
}

/// Sums each of up to 32 values over the 32 lanes. In every step a lane gives away half of its values and takes the other half of its
/// partner, so there are about as many shuffles as values rather than five times as many.
///
/// The partners are 16, 8, 4, 2 and 1 lanes away, whatever the number of values: each sum is the tree that
/// [`KernelBuilder::warp_reduce`] computes, bit for bit.
pub(super) fn over_lanes(k: &KernelBuilder, mut values: Vec<Reg<F32>>) -> Reduced {
    let padded = values.len().next_power_of_two();
    let (_, copies) = place(k, values.len() as u32);
    if let Some(&last) = values.last() {
        values.resize(padded, last);
    }
    for distance in [16_u32, 8, 4, 2, 1] {
        if let [value] = values[..] {
            values = vec![k.add(value, k.shfl_bfly(value, distance))];
            continue;
        }
        let upper = k.ne(k.and(k.laneid(), distance), 0);
        let (low, high) = values.split_at(values.len() / 2);
        values = low
            .iter()
            .zip(high)
            .map(|(&low, &high)| {
                let (keep, give) = (k.select(upper, high, low), k.select(upper, low, high));
                k.add(keep, k.shfl_bfly(give, distance))
            })
            .collect();
    }
    Reduced { sum: values[0], copies }
}
