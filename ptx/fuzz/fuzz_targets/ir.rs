//! Arbitrary IR: neither the validator nor emission panics, and what is valid has a text.
//!
//! ```sh
//! cd ptx/fuzz
//! cargo +nightly fuzz run ir -- -max_total_time=600 -max_len=4096
//! ```
//!
//! `tests/no_panic.rs` holds the same property over random bytes on every test run.

#![no_main]

#[path = "../../tests/nonsense/mod.rs"]
mod nonsense;

use brick_ptx::emit::emit;
use brick_ptx::ir::Target;
use brick_ptx::valid::validate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let module = nonsense::Nonsense::new(bytes).module();
    for target in Target::ALL {
        let text = emit(&module, target);
        if validate(&module, target).is_ok() {
            text.expect("invariant: what is valid has a text");
        }
    }
});
