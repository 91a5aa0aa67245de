//! Any text: parsing it and launching its kernels within tight limits end with a result or an error.
//!
//! ```sh
//! cd ptx/fuzz
//! cargo +nightly fuzz run interp corpus/interp ../tests/interp -- -max_total_time=600 -max_len=16384
//! ```
//!
//! The kernels of `ptx/tests/interp` are the seeds. `ptx/tests/interp_text.rs` damages the same texts on every test run.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/interp/touch.rs"]
mod touch;

fuzz_target!(|text: &str| {
    touch::touch(text, 7);
});
