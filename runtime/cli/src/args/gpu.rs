//! Where models run, and the arguments of `brick gpu-check`.

use std::path::PathBuf;

use brick_runtime::engine::DeviceChoice;
use clap::{Args, ValueEnum};

/// Where a model runs.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DeviceArgs {
    /// cpu, cuda (the first GPU), cuda:N, or auto: a GPU if there is one that can, else the CPU [default: auto]
    #[arg(long, value_name = "cpu|cuda[:N]|auto", value_parser = device)]
    device: Option<DeviceChoice>,
}

impl DeviceArgs {
    /// Where a command runs that knows GPUs.
    pub(crate) fn choice(self) -> DeviceChoice {
        self.device.unwrap_or(DeviceChoice::Auto)
    }

    /// Where a command runs whose tables are the CPU's, unless a GPU is asked for.
    pub(crate) fn or_cpu(self) -> DeviceChoice {
        self.device.unwrap_or(DeviceChoice::Cpu)
    }

    /// Where a command runs that looks at values between bricks, or counts instructions: on the CPU.
    ///
    /// # Errors
    /// If a GPU was asked for.
    pub(crate) fn cpu(self, what: &str) -> anyhow::Result<DeviceChoice> {
        match self.device {
            None | Some(DeviceChoice::Cpu | DeviceChoice::Auto) => Ok(DeviceChoice::Cpu),
            Some(DeviceChoice::Cuda(_)) => anyhow::bail!("{what} works on the CPU only; leave --device out"),
        }
    }

    /// Whether it has to be said that the CPU computes instead of a GPU: it was asked for one if there is, or there is a driver
    /// and something else was in the way.
    pub(crate) fn tells_fallback(self) -> bool {
        self.device == Some(DeviceChoice::Auto) || brick_cuda::driver::present()
    }
}

fn device(value: &str) -> Result<DeviceChoice, String> {
    let expected = || "expected cpu, cuda, cuda:N (a GPU, counted from 0), or auto".to_owned();
    match value {
        "cpu" => Ok(DeviceChoice::Cpu),
        "auto" => Ok(DeviceChoice::Auto),
        "cuda" => Ok(DeviceChoice::Cuda(0)),
        _ => {
            let ordinal = value.strip_prefix("cuda:").ok_or_else(expected)?;
            ordinal.parse().map(DeviceChoice::Cuda).map_err(|_| expected())
        }
    }
}

/// Part of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GpuPart {
    /// Every shipped kernel against the interpreter
    Kernels,
    /// The same under compute-sanitizer's memcheck, where it is installed
    Sanitizer,
    /// Bandwidth, integer rates, cost of a kernel boundary
    Limits,
    /// Matrix kernels alone
    Rates,
    /// Models against the CPU, replay against eager launching, 1000 steps for leaks
    Models,
    /// Decoding speed of synthetic models
    Speed,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Needs nothing but the driver: no network, and no model unless one is given. Without --model, models are synthetic.
Exits with 1 if a kernel or a model differs, the sanitizer finds something, or there is no GPU.

Examples:
  brick gpu-check
  brick gpu-check --model stories15m-q8_0.gguf -o gpu.json
  brick gpu-check --only kernels --only limits")]
pub(crate) struct GpuCheckArgs {
    /// GPU, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) device: usize,
    /// Compare this model too, token for token (repeatable)
    #[arg(long, value_name = "FILE")]
    pub(crate) model: Vec<PathBuf>,
    /// Only these parts (repeatable)
    #[arg(long, value_name = "PART", value_enum)]
    pub(crate) only: Vec<GpuPart>,
    /// Shapes whose speed is measured
    #[arg(long, value_name = "SHAPE:TYPE", default_values_t = ["qwen2.5-coder-1.5b:q4_k_m".to_owned(), "qwen2.5-coder-7b:q4_k_m".to_owned()])]
    pub(crate) speed: Vec<String>,
    /// Sequences side by side
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16, 32], value_parser = clap::value_parser!(u16).range(1..=32))]
    pub(crate) sequences: Vec<u16>,
    /// Write the JSON document to a file as well
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print the JSON document instead of the summary
    #[arg(long)]
    pub(crate) json: bool,
}
