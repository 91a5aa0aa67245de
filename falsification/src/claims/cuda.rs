//! F041, F062–F064, F090: models on a GPU. On a machine with one they run on it; where there is none, the interpreter runs the same
//! launches, and says what it found.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use brick_cuda::driver::{self, Cuda};
use brick_cuda::interp::Interp;
use brick_cuda::{Access, Arg, Device, Launch, Place};
use brick_models::synthetic::Synthetic;
use brick_ptx::interp::{Checks, Schedule};
use brick_ptx::ir;
use brick_ptx::kernels::calibrate;
use brick_runtime::Model;
use brick_runtime::cuda::certify::{ModelCheck, Subject};

use crate::claim::{Claim, Family, Outcome, Refusal, require, require_eq};
use crate::context::Context;

macro_rules! claim {
    ($id:literal, $statement:literal, $threshold:literal, $check:ident) => {
        Claim { id: $id, statement: $statement, family: Family::Gpu, threshold: $threshold, check: $check }
    };
}

pub(super) const CLAIMS: &[Claim] = &[
    claim!("F062", "No call of the driver fails in normal operation", "none", f062),
    claim!("F063", "The launches of a decode step can be captured", "captured once per extent", f063),
    claim!("F064", "A replayed step equals the same launches made one by one", "to the bit", f064),
    claim!("F090", "Replaying a captured step costs little", "< 100 µs beside its kernels", f090),
];

/// Steps that are compared: few where every instruction is interpreted.
const STEPS_ON_GPU: usize = 64;
const STEPS_INTERPRETED: usize = 3;

/// A model of two layers in Q4_K and Q6_K, compared once with the CPU and with itself.
struct Compared {
    check: ModelCheck,
    on_gpu: bool,
}

fn gpu() -> bool {
    driver::count().is_ok_and(|n| n > 0)
}

fn compared() -> Result<&'static Compared, Refusal> {
    static DONE: OnceLock<Result<Compared, Refusal>> = OnceLock::new();
    let done = DONE.get_or_init(|| {
        let on_gpu = gpu();
        let synthetic: Synthetic = "tiny:q4_k_m".parse()?;
        let model = Model::from_gguf(Arc::new(synthetic.gguf()?))?;
        let subject = Subject { name: "tiny:q4_k_m", graph: &model.fused, weights: model.weights(), exact: None };
        let device: Box<dyn Device> = if on_gpu {
            Box::new(Cuda::open(0)?)
        } else {
            Box::new(Interp::new(Schedule::default(), Checks::MemoryOnly, (9, 0)))
        };
        let steps = if on_gpu { STEPS_ON_GPU } else { STEPS_INTERPRETED };
        let check = subject.compare(device, &[3, 17, 250, 9, 400], steps)?;
        Ok(Compared { check, on_gpu })
    });
    done.as_ref().map_err(Clone::clone)
}

/// A finding, or that there was no GPU and what stands in for it.
fn found(compared: &Compared, finding: String) -> Outcome {
    if compared.on_gpu {
        Ok(finding)
    } else {
        Err(Refusal::not_testable(format!("GPU; on the interpreter: {finding}")))
    }
}

/// Of the family of backends, where its statement stands.
pub(super) fn f041(_: &Context) -> Outcome {
    let compared = compared()?;
    let check = &compared.check;
    require(check.passed(), "the GPU is no further from exact arithmetic than the CPU", || format!("{check:?}"))?;
    let finding = format!(
        "{} of {} tokens as on the CPU, logits within {:.4} standard deviations (both round activations to 8 bits)",
        check.same_token, check.decoded, check.difference.largest
    );
    found(compared, finding)
}

fn f062(_: &Context) -> Outcome {
    // Every call's code is looked at: a run that ended had none.
    let compared = compared()?;
    found(compared, format!("a prompt and {} steps, four times over, without an error", compared.check.decoded))
}

fn f063(_: &Context) -> Outcome {
    let compared = compared()?;
    require(compared.check.captures > 0, "a captured step", || "none".to_owned())?;
    found(compared, format!("{} extents captured", compared.check.captures))
}

fn f064(_: &Context) -> Outcome {
    let compared = compared()?;
    let (same, all) = compared.check.replay_equals_eager;
    require_eq("rows of logits that are equal to the bit", &same, &all)?;
    found(compared, format!("{same} of {all} rows of logits"))
}

fn f090(_: &Context) -> Outcome {
    const REPLAYS: u32 = 200;
    if !gpu() {
        return Err(Refusal::not_testable("GPU; measured ones are in benches/runs".to_owned()));
    }
    let mut device = Cuda::open(0)?;
    let target = device.about().target();
    let text = brick_ptx::compile(&ir::Module { kernels: vec![calibrate::touch(target)] }, target)?;
    let kernel = device.kernel("touch", &text)?;
    let counter = device.arena("counter", &Place::in_turn([("counter".to_owned(), 4)]))?[0];
    device.clear(counter.at(0), 4)?;
    let dims = calibrate::touch_dims(1)?;
    let args = vec![Arg::Ptr(counter.at(0), Access::ReadWrite)];
    device.begin_capture()?;
    device.launch(&Launch { kernel, dims, args, dependent: false })?;
    let graph = device.end_capture()?;
    device.replay(graph)?;
    device.synchronize()?;
    let start = Instant::now();
    for _ in 0..REPLAYS {
        device.replay(graph)?;
    }
    device.synchronize()?;
    let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(REPLAYS);
    require(each < 100.0, "< 100 µs", || format!("{each:.1} µs"))?;
    Ok(format!("{each:.1} µs per replay of a graph of one kernel, the kernel included"))
}
