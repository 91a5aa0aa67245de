//! Rewrites a GGUF file with its matrices in another type: the files that `reference/record.py` shows to llama.cpp.
//!
//! ```text
//! cargo run --release -p brick-falsification --example requantize -- IN.gguf OUT.gguf q8_0|f16|f32|q4_0|q4_1
//! ```

use std::process::ExitCode;

use brick_models::format::gguf::{Gguf, requantize};
use bricks::DType;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [input, output, dtype] = args.as_slice() else {
        eprintln!("usage: requantize IN.gguf OUT.gguf TYPE");
        return ExitCode::from(2);
    };
    let Some(&dtype) = DType::ALL.iter().find(|d| d.name().eq_ignore_ascii_case(dtype)) else {
        eprintln!("unknown type {dtype}");
        return ExitCode::from(2);
    };
    let done = Gguf::open(input)
        .map_err(|e| format!("{e:?}"))
        .and_then(|source| requantize(&source, output, |_| dtype).map_err(|e| e.to_string()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
