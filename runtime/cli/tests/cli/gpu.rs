//! GPUs that are not there: no driver, a stub, one that is too old, one that shows nothing. Each is a clear error, or the CPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::Shell;

/// A library that calls itself the driver, and answers what the environment tells it to.
const DRIVER: &str = r#"
fn told(name: &str) -> i32 { std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(0) }
#[unsafe(no_mangle)] pub extern "C" fn cuInit(_: u32) -> i32 { told("FAKE_CUDA_INIT") }
#[unsafe(no_mangle)] pub extern "C" fn cuDriverGetVersion(v: &mut i32) -> i32 { *v = told("FAKE_CUDA_VERSION"); 0 }
#[unsafe(no_mangle)] pub extern "C" fn cuDeviceGetCount(n: &mut i32) -> i32 { *n = told("FAKE_CUDA_COUNT"); 0 }
"#;

/// Whether a real driver is on this machine: it would be found before, or besides, whatever a test pretends.
fn real_driver() -> bool {
    brick_cuda::driver::present()
}

/// Compiles the library into a directory that the loader is sent to.
fn fake_driver(dir: &Path) -> PathBuf {
    let source = dir.join("driver.rs");
    std::fs::write(&source, DRIVER).unwrap();
    let lib = dir.join("libcuda.so");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let made = Command::new(rustc)
        .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort", "-o"])
        .args([&lib, &source])
        .status()
        .unwrap();
    assert!(made.success());
    std::fs::copy(&lib, dir.join("libcuda.so.1")).unwrap();
    dir.to_path_buf()
}

#[test]
fn without_a_driver_a_gpu_is_a_clear_error_and_auto_is_the_cpu() {
    if real_driver() {
        return;
    }
    let shell = Shell::with_models();
    let words = ["no NVIDIA driver", "--device cpu"];
    shell.brick("run qwen2-tiny.gguf hi -n 2 --device cuda").fails(1, &words);
    shell.brick("run qwen2-tiny.gguf hi -n 2 --device cuda:3").fails(1, &words);
    shell.brick("bench qwen2-tiny.gguf -p 4 -n 0 -r 1 --device cuda").fails(1, &words);
    shell.brick("profile qwen2-tiny.gguf --pp 4 --tg 1 --device cuda").fails(1, &words);
    shell.brick("gpu-check").fails(1, &words[..1]);
    let told = shell.brick("run qwen2-tiny.gguf hi -n 2 --raw --device auto").succeeds();
    assert!(told.stderr.contains("running on the CPU: no NVIDIA driver"), "{}", told.stderr);
    // Nobody asked, so nobody is told.
    let quiet = shell.brick("run qwen2-tiny.gguf hi -n 2 --raw").succeeds();
    assert!(!quiet.stderr.contains("NVIDIA"), "{}", quiet.stderr);
    assert_eq!(told.stdout, quiet.stdout);
}

#[test]
fn what_is_no_device_and_what_only_the_cpu_does() {
    let shell = Shell::with_models();
    for value in ["gpu", "cuda:", "cuda:x", "cuda:-1", ""] {
        let run = shell.brick("run qwen2-tiny.gguf hi --device").arg(value);
        run.fails(2, &["cpu, cuda, cuda:N"]);
    }
    for command in ["trace qwen2-tiny.gguf", "check qwen2-tiny.gguf"] {
        shell.brick(&format!("{command} --device cuda")).fails(1, &["on the CPU only", "--device"]);
    }
}

#[test]
fn stamps_are_for_replayed_decode_steps_of_a_gpu() {
    let shell = Shell::with_models();
    let profile = "profile qwen2-tiny.gguf --pp 4 --stamps";
    let run = |words: &str, told: &[&str]| shell.brick(&format!("{profile} {words}")).fails(1, told);
    run("--tg 1", &["--stamps", "--device cuda"]);
    run("--tg 1 --device cpu", &["--stamps", "--device cuda"]);
    run("--tg 1 --device cuda --sync immediate", &["--stamps", "--sync deferred"]);
    run("--tg 1 --device cuda --sync per-layer", &["--stamps", "--sync deferred"]);
    run("--tg 0 --device cuda", &["--stamps", "--tg"]);
    if !real_driver() {
        run("--tg 1 --device cuda", &["no NVIDIA driver"]);
        run("--tg 1 --device cuda --sync deferred", &["no NVIDIA driver"]);
        let auto = Shell::with_machine();
        auto.brick(&format!("{profile} --tg 1 --device auto")).fails(1, &["--stamps", "--device cuda"]);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn drivers_that_are_none() {
    if real_driver() {
        return;
    }
    let shell = Shell::with_models();
    let dir = tempfile::tempdir().unwrap();
    let path = fake_driver(dir.path());
    let with = |init: &str, version: &str, count: &str| {
        shell
            .brick("run qwen2-tiny.gguf hi -n 2 --raw --device cuda")
            .env("LD_LIBRARY_PATH", path.to_str().unwrap())
            .env("FAKE_CUDA_INIT", init)
            .env("FAKE_CUDA_VERSION", version)
            .env("FAKE_CUDA_COUNT", count)
    };
    with("34", "0", "0").fails(1, &["stub", "not a driver"]);
    with("100", "0", "0").fails(1, &["there is no GPU 0", "shows 0"]);
    with("0", "11040", "1").fails(1, &["speaks CUDA 11.4", "12.0 or newer"]);
    with("0", "13000", "0").fails(1, &["there is no GPU 0", "shows 0"]);
    with("999", "0", "0").fails(1, &["cuInit"]);
    with("3", "0", "0").fails(1, &["cuInit", "CUDA_ERROR_NOT_INITIALIZED (3)"]);
    // A driver that is there and useless is worth a word, also if nobody asked.
    let auto = shell
        .brick("run qwen2-tiny.gguf hi -n 2 --raw")
        .env("LD_LIBRARY_PATH", path.to_str().unwrap())
        .env("FAKE_CUDA_INIT", "34")
        .succeeds();
    assert!(auto.stderr.contains("running on the CPU"), "{}", auto.stderr);
}
