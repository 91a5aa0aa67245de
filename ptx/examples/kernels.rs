//! What the kernels that ship take and do: registers and hot loops by the assembler, counts by the interpreter.
//!
//! ```sh
//! cargo run -p brick-ptx --example kernels -- gemv_q4_k
//! ```
//! The argument picks kernels by a part of their name; without it, all are listed.

use brick_ptx::interp::{Checks, Schedule};
use brick_ptx::ir::{Arch, Module, Target};
use brick_ptx::kernels;
use brick_ptx::ptxas::Tools;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let part = std::env::args().nth(1).unwrap_or_default();
    let tools = Tools::find_for_tests()?;
    for entry in kernels::all().into_iter().filter(|entry| entry.name.contains(&part)) {
        println!("{}: {}", entry.name, entry.about);
        if let Some(tools) = &tools {
            let module = Module { kernels: vec![(entry.build)(Target::Sm90)] };
            let assembled = tools.assemble(&brick_ptx::compile(&module, Target::Sm90)?, Arch::Sm90)?;
            println!("  {}", assembled.resources[0]);
            let sass = &tools.disassemble(&assembled.cubin)?[0];
            if let Some(hot) = sass.hot_loop() {
                println!("  hot loop of {}: {}", hot.len(), sass.histogram(hot));
            }
        }
        let counts = entry.run(Schedule::RoundRobin, Checks::Full)?.counts;
        println!("  {}", counts.to_string().replace('\n', "\n  "));
    }
    Ok(())
}
