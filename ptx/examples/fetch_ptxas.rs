//! Fetches `ptxas` and `nvdisasm` into brick's cache, where the tests find them:
//! `cargo run -p brick-ptx --example fetch_ptxas`.

use brick_ptx::ptxas::{PtxasError, Tools};

fn main() -> Result<(), PtxasError> {
    let tools = Tools::fetch()?;
    println!("{}\n{}", tools.ptxas().display(), tools.nvdisasm().display());
    Ok(())
}
