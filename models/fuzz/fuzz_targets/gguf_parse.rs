//! Any bytes: parsing, reading every metadata value and tensor, and building an `ArchSpec` end with `Ok` or an error.
//!
//! ```sh
//! cd models/fuzz
//! cargo +nightly run --bin gguf_seeds          # writes the seeds into corpus/gguf_parse
//! cargo +nightly fuzz run gguf_parse -- -max_total_time=600 -max_len=16384
//! cargo +nightly fuzz cmin gguf_parse          # keeps the corpus small; commit it
//! ```
//!
//! The corpus is replayed by `models/tests/gguf_hostile.rs` on every test run.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/gguf_common/mod.rs"]
mod gguf_common;

fuzz_target!(|bytes: &[u8]| {
    gguf_common::touch(bytes);
});
