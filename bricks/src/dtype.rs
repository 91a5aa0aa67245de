//! Storage types of weights, with the ids, block lengths and block sizes of the GGUF format.

use serde::{Deserialize, Serialize};

macro_rules! dtypes {
    ($($variant:ident = $id:literal, $name:literal, $block_len:literal, $block_bytes:literal, $doc:literal;)*) => {
        /// Storage type of a tensor: ids and block layouts are those of ggml (`enum ggml_type`).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(non_camel_case_types)] // the field's own spelling: Q4_K, IQ4_XS
        #[repr(u32)]
        pub enum DType { $(#[doc = $doc] $variant = $id,)* }

        impl DType {
            /// Every type this crate can decode.
            pub const ALL: &'static [DType] = &[$(Self::$variant),*];

            /// The type with this id in a GGUF file, if it is one that this crate can decode.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The field's name, e.g. `Q4_K`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Values per block.
            pub const fn block_len(self) -> usize {
                match self { $(Self::$variant => $block_len,)* }
            }

            /// Bytes per block.
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$variant => $block_bytes,)* }
            }
        }
    };
}

dtypes! {
    F32 = 0, "F32", 1, 4, "IEEE binary32.";
    F16 = 1, "F16", 1, 2, "IEEE binary16.";
    Q4_0 = 2, "Q4_0", 32, 18, "4-bit codes, f16 scale per 32.";
    Q4_1 = 3, "Q4_1", 32, 20, "4-bit codes, f16 scale and minimum per 32.";
    Q5_0 = 6, "Q5_0", 32, 22, "5-bit codes, f16 scale per 32.";
    Q5_1 = 7, "Q5_1", 32, 24, "5-bit codes, f16 scale and minimum per 32.";
    Q8_0 = 8, "Q8_0", 32, 34, "8-bit codes, f16 scale per 32.";
    Q2_K = 10, "Q2_K", 256, 84, "2-bit codes, 4-bit scales and minimums per 16, super-block of 256.";
    Q3_K = 11, "Q3_K", 256, 110, "3-bit codes, 6-bit scales per 16, super-block of 256.";
    Q4_K = 12, "Q4_K", 256, 144, "4-bit codes, 6-bit scales and minimums per 32, super-block of 256.";
    Q5_K = 13, "Q5_K", 256, 176, "5-bit codes, 6-bit scales and minimums per 32, super-block of 256.";
    Q6_K = 14, "Q6_K", 256, 210, "6-bit codes, 8-bit scales per 16, super-block of 256.";
    IQ4_NL = 20, "IQ4_NL", 32, 18, "4-bit indices into a non-linear table, f16 scale per 32.";
    IQ4_XS = 23, "IQ4_XS", 256, 136, "4-bit indices into a non-linear table, 6-bit scales per 32, super-block of 256.";
    BF16 = 30, "BF16", 1, 2, "bfloat16.";
}

impl DType {
    /// Whether values are stored as floats (one value per block) rather than as quantised codes.
    pub const fn is_float(self) -> bool {
        self.block_len() == 1
    }

    /// Bytes of a row of `len` values, or `None` when `len` is not a multiple of the block length or the product overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Bits per value including scales.
    pub fn bits_per_value(self) -> f64 {
        self.block_bytes() as f64 * 8.0 / self.block_len() as f64
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Name of any `ggml_type` id, also of types this crate cannot decode; for error messages.
pub fn ggml_type_name(id: u32) -> &'static str {
    if let Some(t) = DType::from_id(id) {
        return t.name();
    }
    match id {
        4 => "Q4_2 (removed)",
        5 => "Q4_3 (removed)",
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => "unknown",
    }
}
