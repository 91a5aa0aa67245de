//! Data for `gemv_q4.ptx`, and what it must compute.

use half::f16;

/// A matrix of 4-bit weights and a vector of 8-bit activations.
pub(crate) struct Problem {
    pub(crate) rows: usize,
    pub(crate) blocks: usize,
    pub(crate) w: Vec<u8>,
    pub(crate) dm: Vec<u8>,
    pub(crate) q: Vec<u8>,
    pub(crate) s: Vec<u8>,
    /// The product in f64.
    pub(crate) y: Vec<f64>,
}

impl Problem {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        let blocks = columns / 32;
        let mut state = 7_u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let w: Vec<u8> = (0..16 * rows * blocks).map(|_| noise() as u8).collect();
        let dm: Vec<[f16; 2]> = (0..rows * blocks)
            .map(|_| [0.001, 0.01].map(|unit| f16::from_f64(f64::from(noise() % 100) * unit)))
            .collect();
        let q: Vec<i8> = (0..32 * blocks).map(|_| noise() as i8).collect();
        let scale: Vec<f32> = (0..blocks).map(|_| (noise() % 50) as f32 / 1000.0).collect();
        let sum: Vec<i32> = q.chunks(32).map(|block| block.iter().map(|&v| i32::from(v)).sum()).collect();
        let y = (0..rows)
            .map(|row| {
                let block_sum = |b: usize| {
                    let at = row * blocks + b;
                    let dot: i32 = (0..32)
                        .map(|j| {
                            let byte = w[16 * at + j % 16];
                            i32::from(if j < 16 { byte & 15 } else { byte >> 4 }) * i32::from(q[32 * b + j])
                        })
                        .sum();
                    let [d, m] = dm[at].map(f16::to_f64);
                    f64::from(scale[b]) * (d * f64::from(dot) - m * f64::from(sum[b]))
                };
                (0..blocks).map(block_sum).sum()
            })
            .collect();
        let s = (0..blocks).flat_map(|b| [scale[b].to_le_bytes(), sum[b].to_le_bytes()].concat()).collect();
        let dm = dm.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
        Self { rows, blocks, w, dm, q: q.iter().map(|&v| v as u8).collect(), s, y }
    }
}
