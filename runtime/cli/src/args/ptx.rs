//! Flags of `brick ptx`.

use clap::Args;

use brick_ptx::ir::Arch;

#[derive(Debug, Args)]
#[command(after_help = "\
Kernels are written in Rust and printed here as the text that is given to the driver. --explain runs the kernel's small launch in an interpreter \
and counts instructions, sectors of memory and bank conflicts; with NVIDIA's assembler (ptxas and nvdisasm on PATH, in $PTXAS and $NVDISASM, or \
fetched by --fetch-ptxas) it also says what the kernel takes of the hardware and what its innermost loop is made of. No GPU is needed.

Examples:
  brick ptx list                                    every kernel, what it computes, the oldest target it runs on
  brick ptx gemv_q4_k_b1                            its text
  brick ptx gemv_q4_k_b1 --target sm_90 --explain   its resources, counts, and what bounds it")]
pub(crate) struct PtxArgs {
    /// A kernel, or `list`
    #[arg(default_value = "list")]
    pub(crate) kernel: String,
    /// Architecture [default: the oldest the kernel is written for]
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    pub(crate) target: Option<Arch>,
    /// Resources, counts and the derived ceiling instead of the text
    #[arg(long)]
    pub(crate) explain: bool,
    /// Fetch NVIDIA's assembler from the Python package index first (once; 42 MB; its licence applies)
    #[arg(long)]
    pub(crate) fetch_ptxas: bool,
    /// The same as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn arch(name: &str) -> Result<Arch, String> {
    let known = || Arch::ALL.map(|a| a.to_string()).join(", ");
    Arch::ALL.into_iter().find(|a| a.to_string() == name).ok_or_else(|| format!("expected one of {}", known()))
}
