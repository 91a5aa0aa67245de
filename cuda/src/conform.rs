//! Conformance: the launch that every shipped kernel carries, on a device and in the interpreter, compared byte by byte.
//!
//! Integer results have to agree to the bit; so does f32 arithmetic that both round alike. What the hardware only approximates
//! (`ex2.approx`, `rcp.approx`, sums within `mma`) may differ by a little: a result is *close* if every float is within
//! `1e-3` of the interpreter's, relative to the largest of its buffer.

use brick_ptx::interp::{Access, Checks, Schedule};
use brick_ptx::ir::{Module, Shared, SharedSize, Target};
use brick_ptx::kernels::workload::{Arg as WorkArg, Contents as Initial};
use brick_ptx::kernels::{Entry, Workload, activation};
use serde::Serialize;

use crate::device::{About, Arg, Device, Launch, Place};
use crate::error::DeviceError;

/// How a buffer of a kernel compares.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compared {
    /// Name of the buffer.
    pub buffer: String,
    /// Bytes that differ.
    pub different_bytes: usize,
    /// Its size.
    pub bytes: usize,
    /// The largest difference of two floats, relative to the largest magnitude in the buffer; none if a float is NaN on one side only.
    pub largest_difference: Option<f64>,
}

/// How the results of a kernel compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every bit.
    Equal,
    /// Within the tolerance.
    Close,
    /// Not.
    Different,
    /// It did not run.
    Failed,
}

/// A kernel that was compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conformance {
    /// Name of the kernel.
    pub kernel: String,
    /// Target of its text.
    pub target: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What differs, if anything; why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Its buffers that kernels write.
    pub buffers: Vec<Compared>,
}

/// Relative difference that is close.
pub const TOLERANCE: f64 = 1e-3;

/// The text of an entry for a target.
///
/// # Errors
/// If the kernel is not valid, which the tests of `brick-ptx` rule out.
pub fn text(entry: &Entry, target: Target) -> Result<String, brick_ptx::CompileError> {
    let target = target.max(entry.oldest);
    brick_ptx::compile(&Module { kernels: vec![(entry.build)(target)] }, target)
}

/// Whether a GPU is new enough for a kernel, and has the shared memory for its own launch.
pub fn fits(about: &About, entry: &Entry) -> bool {
    let of_text = |shared: &Shared| match shared.size {
        SharedSize::Static { bytes } => bytes,
        SharedSize::Dynamic { .. } => 0,
    };
    let target = about.target();
    entry.oldest <= target
        && (entry.build)(target).shared.iter().map(of_text).sum::<u32>() + entry.workload.dims.dynamic_shared
            <= about.shared
}

/// Runs a kernel's own launch on a device and in the interpreter.
///
/// # Errors
/// Only what leaves the device useless; a kernel that is refused or gives other results is a verdict.
pub fn check(device: &mut dyn Device, entry: &Entry) -> Result<Conformance, DeviceError> {
    let target = device.about().target();
    let failed = |detail: String| Conformance {
        kernel: entry.name.clone(),
        target: target.to_string(),
        verdict: Verdict::Failed,
        detail: Some(detail),
        buffers: Vec::new(),
    };
    let text = match text(entry, target) {
        Ok(text) => text,
        Err(e) => return Ok(failed(e.to_string())),
    };
    let expected = match expected(entry, &text) {
        Ok(expected) => expected,
        Err(e) => return Ok(failed(format!("the interpreter: {e}"))),
    };
    match run(device, entry, &text, &expected) {
        Ok(buffers) => {
            let worst = |b: &Compared| match (b.different_bytes, b.largest_difference) {
                (0, _) => Verdict::Equal,
                (_, Some(d)) if d <= TOLERANCE => Verdict::Close,
                _ => Verdict::Different,
            };
            let rank = |v: Verdict| v as u8;
            let verdict = buffers.iter().map(worst).max_by_key(|&v| rank(v)).unwrap_or(Verdict::Equal);
            Ok(Conformance { kernel: entry.name.clone(), target: target.to_string(), verdict, detail: None, buffers })
        }
        Err(e @ (DeviceError::Lost { .. } | DeviceError::OutOfMemory { .. })) => Err(e),
        Err(e) => Ok(failed(e.to_string())),
    }
}

/// Contents of a buffer, by the index of its argument.
type Contents = (usize, Vec<u8>);

/// What the interpreter leaves in each buffer that the kernel promises to write.
fn expected(entry: &Entry, text: &str) -> Result<Vec<Contents>, Box<dyn std::error::Error>> {
    let module = brick_ptx::interp::Module::parse(text)?;
    let run = entry.workload.run(&module, &entry.name, Schedule::default(), Checks::MemoryOnly)?;
    let mut out = Vec::new();
    for (i, arg) in entry.workload.args.iter().enumerate() {
        // Scratch differs by schedule: only what is promised is compared.
        let WorkArg::Buffer { name, contents, access } = arg else { continue };
        let scratch = *access == Access::ReadWrite && matches!(contents, Initial::Unwritten(_));
        if *access != Access::Read && !scratch {
            out.push((i, run.bytes(name)?.to_vec()));
        }
    }
    Ok(out)
}

fn run(
    device: &mut dyn Device,
    entry: &Entry,
    text: &str,
    expected: &[Contents],
) -> Result<Vec<Compared>, DeviceError> {
    let Workload { dims, args, .. } = &entry.workload;
    let kernel = device.kernel(&entry.name, text)?;
    let sized = args.iter().filter_map(|arg| match arg {
        WorkArg::Buffer { name, .. } => Some(((*name).to_owned(), arg.bytes().max(16))),
        _ => None,
    });
    let places = Place::in_turn(sized);
    let regions = device.arena("conformance", &places)?;
    let mut next = regions.iter();
    let mut bound = Vec::with_capacity(args.len());
    for arg in args {
        bound.push(match arg {
            WorkArg::Buffer { contents, access, .. } => {
                let region = *next.next().expect("invariant: a region per buffer");
                match contents {
                    Initial::Bytes(bytes) => device.write(region.at(0), bytes)?,
                    // Poison: a byte that the kernel leaves out shows.
                    Initial::Unwritten(n) => device.write(region.at(0), &vec![0xa5; *n])?,
                }
                Arg::Ptr(region.at(0), *access)
            }
            WorkArg::U32(n) => Arg::U32(*n),
            WorkArg::U64(n) => Arg::U64(*n),
            WorkArg::F32(x) => Arg::F32(*x),
        });
    }
    device.launch(&Launch { kernel, dims: *dims, args: bound.clone(), dependent: false })?;
    device.synchronize()?;
    let mut compared = Vec::new();
    for (index, expected) in expected {
        let (Arg::Ptr(at, _), WorkArg::Buffer { name, .. }) = (bound[*index], &args[*index]) else { continue };
        let mut found = vec![0; expected.len()];
        device.read(at, &mut found)?;
        compared.push(compare(name, expected, &found));
    }
    Ok(compared)
}

/// Tiles of 8-bit codes: where an approximated function is rounded, a code may be its neighbour. Gives the largest relative difference of
/// scales, none if a code is further away.
fn compare_tiles(expected: &[u8], found: &[u8]) -> Option<f64> {
    let mut most = 0.0_f64;
    for (a, b) in expected.chunks(activation::TILE).zip(found.chunks(activation::TILE)) {
        let (codes, scales) = a.split_at(activation::SCALES.min(a.len()));
        let (found_codes, found_scales) = b.split_at(activation::SCALES.min(b.len()));
        let apart = |(a, b): (&u8, &u8)| (*a as i8).abs_diff(*b as i8) > 1;
        if codes.iter().zip(found_codes).any(apart) {
            return None;
        }
        // Of each block: scale, scaled sum, and sums, which follow from the codes.
        for (a, b) in scales.as_chunks::<16>().0.iter().zip(found_scales.as_chunks::<16>().0) {
            let scale = |x: &[u8; 16]| f64::from(f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
            let (a, b) = (scale(a), scale(b));
            if a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()) {
                let d = (a - b).abs() / a.abs().max(f64::MIN_POSITIVE);
                most = most.max(if d.is_finite() { d } else { return None });
            }
        }
    }
    Some(most)
}

fn compare(buffer: &str, expected: &[u8], found: &[u8]) -> Compared {
    if buffer == "tiles" {
        let different_bytes = expected.iter().zip(found).filter(|(a, b)| a != b).count();
        let largest_difference = compare_tiles(expected, found);
        return Compared { buffer: buffer.to_owned(), different_bytes, bytes: expected.len(), largest_difference };
    }
    let different_bytes = expected.iter().zip(found).filter(|(a, b)| a != b).count();
    let floats =
        |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect() };
    let (a, b) = (floats(expected), floats(found));
    let largest = a.iter().filter(|x| x.is_finite()).fold(0.0_f32, |m, x| m.max(x.abs()));
    let difference = a.iter().zip(&b).try_fold(0.0_f64, |most, (a, b)| {
        if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
            return Some(most);
        }
        let d = (f64::from(*a) - f64::from(*b)).abs() / f64::from(largest.max(f32::MIN_POSITIVE));
        d.is_finite().then(|| most.max(d))
    });
    Compared { buffer: buffer.to_owned(), different_bytes, bytes: expected.len(), largest_difference: difference }
}
