//! Formats of weights, as GGUF files store them.

/// Storage format of a matrix of weights: the ggml formats that the kernels take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)] // the field's own spelling
pub enum Format {
    /// 4-bit codes, f16 scale per 32.
    Q4_0,
    /// 4-bit codes, f16 scale and minimum per 32.
    Q4_1,
    /// 4-bit codes, 6-bit scale and minimum per 32, super-block of 256.
    Q4_K,
    /// 5-bit codes, 6-bit scale and minimum per 32, super-block of 256.
    Q5_K,
    /// 6-bit codes, 8-bit scale per 16, super-block of 256.
    Q6_K,
    /// 8-bit codes, f16 scale per 32.
    Q8_0,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 8] =
        [Self::Q4_0, Self::Q4_1, Self::Q4_K, Self::Q5_K, Self::Q6_K, Self::Q8_0, Self::F16, Self::BF16];

    /// The formats of codes and scales.
    pub const QUANTISED: [Self; 6] = [Self::Q4_0, Self::Q4_1, Self::Q4_K, Self::Q5_K, Self::Q6_K, Self::Q8_0];

    /// As part of the name of a kernel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q4_K => "q4_k",
            Self::Q5_K => "q5_k",
            Self::Q6_K => "q6_k",
            Self::Q8_0 => "q8_0",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        }
    }

    /// Whether a value is a float of its own rather than a code with a scale.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    /// Values per block of the file.
    pub fn block_len(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q4_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
            Self::F16 | Self::BF16 => 1,
        }
    }

    /// Bytes per block of the file.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::Q8_0 => 34,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// What the columns of a matrix have to be a multiple of, for the kernels: whole blocks, and whole lanes of 16 bytes.
    pub fn column_multiple(self) -> usize {
        if self.is_float() { 8 } else { self.block_len() }
    }

    /// Bytes of a row in the file. `columns` is a multiple of [`block_len`](Self::block_len).
    pub fn row_bytes(self, columns: usize) -> usize {
        columns / self.block_len() * self.block_bytes()
    }
}
