//! Arbitrary IR: neither the validator nor emission panics, and what is valid has a text.

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
