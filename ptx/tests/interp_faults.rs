//! Every rule of the machine, broken once: the report names kernel, line and lane.

#![allow(clippy::unwrap_used)]

#[path = "interp/common.rs"]
mod common;

use brick_ptx::interp::{Access, Arg, Fault, FaultKind, Gpu, Limits, Place, Schedule, Verb};

const TEXT: &str = include_str!("interp/faults.ptx");

/// Lines of a kernel that are marked as faulty.
fn marked_lines(kernel: &str) -> Vec<u32> {
    let start = TEXT.lines().position(|line| line.contains(&format!(".entry {kernel}("))).expect("the kernel is there");
    let body = TEXT.lines().enumerate().skip(start).take_while(|(_, line)| *line != "}");
    body.filter(|(_, line)| line.contains("// fault:")).map(|(i, _)| i as u32 + 1).collect()
}

struct Case {
    blocks: u32,
    threads: u32,
    x: Access,
    out: Access,
}

const ONE_WARP: Case = Case { blocks: 1, threads: 32, x: Access::Read, out: Access::ReadWrite };
const TWO_WARPS: Case = Case { threads: 64, ..ONE_WARP };
const TWO_BLOCKS: Case = Case { blocks: 2, x: Access::ReadWrite, ..ONE_WARP };

/// Launches a kernel under several schedules; each must report a marked line. Returns the reports.
fn faults(kernel: &str, case: &Case) -> Vec<Fault> {
    let module = common::parse(TEXT);
    let lines = marked_lines(kernel);
    assert!(!lines.is_empty(), "{kernel} has a marked line");
    let report = |schedule| {
        let mut gpu = Gpu::new(Limits { steps: 100_000, ..Limits::default() });
        let words = (case.threads * case.blocks) as usize;
        let x = gpu.buffer("x", &common::bytes_of(&vec![0; words]), case.x).unwrap();
        let out = gpu.scratch("out", 4 * words).unwrap();
        let args = [Arg::Buffer(x), Arg::Slice { buffer: out, offset: 0, access: case.out }, Arg::U32(words as u32)];
        let launch = common::linear(case.blocks, case.threads, schedule);
        let fault = common::fault(gpu.launch(&module, kernel, launch, &args));
        assert_eq!(fault.kernel, kernel);
        assert!(lines.contains(&fault.line), "{fault}: expected one of the lines {lines:?}");
        fault
    };
    common::schedules().map(report).collect()
}

/// The same report under every schedule.
fn fault(kernel: &str, case: &Case) -> Fault {
    let mut all = faults(kernel, case);
    all.dedup();
    assert_eq!(all.len(), 1, "{kernel}: the report depends on the schedule: {all:?}");
    all.remove(0)
}

#[test]
fn accesses_outside_of_buffers() {
    let past = fault("out_of_bounds_read", &ONE_WARP);
    assert_eq!((past.warp, past.lane), (0, Some(31)));
    assert_eq!(
        past.to_string(),
        format!(
            "kernel `out_of_bounds_read`, line {}, block (0, 0, 0), warp 0, lane 31: \
             read of 4 bytes out of bounds: buffer `x` at byte 128 of 128 bytes",
            past.line
        )
    );
    let before = fault("out_of_bounds_before", &ONE_WARP);
    assert_eq!(before.lane, Some(0));
    assert!(before.to_string().ends_with("buffer `x` at byte -4 of 128 bytes"), "{before}");
    let shared = fault("out_of_bounds_shared", &ONE_WARP);
    assert_eq!(shared.lane, Some(4));
    assert!(shared.to_string().contains("shared array `s` at byte 256 of 256 bytes"), "{shared}");
}

#[test]
fn misaligned_accesses() {
    let global = fault("misaligned_vector", &ONE_WARP);
    assert_eq!(global.lane, Some(1));
    assert!(matches!(global.kind, FaultKind::Misaligned { verb: Verb::Read, bytes: 16, .. }), "{global}");
    let shared = fault("misaligned_shared", &ONE_WARP);
    assert!(matches!(shared.kind, FaultKind::Misaligned { verb: Verb::Write, bytes: 8, .. }), "{shared}");
}

#[test]
fn values_nobody_wrote() {
    let shared = fault("uninitialised_shared", &ONE_WARP);
    assert_eq!(shared.lane, Some(20));
    let place = Place::Shared { name: "s".into(), offset: 80 };
    assert_eq!(shared.kind, FaultKind::Uninitialised { bytes: 4, place });
    let global = fault("uninitialised_output", &ONE_WARP);
    assert_eq!(global.lane, Some(0));
    let register = fault("unset_register", &ONE_WARP);
    assert_eq!(register.lane, Some(7));
    assert_eq!(register.kind, FaultKind::RegisterUnset { register: "%r5".into() });
}

#[test]
fn accesses_the_host_did_not_allow() {
    let write = fault("write_to_input", &ONE_WARP);
    assert_eq!(write.lane, Some(0));
    assert!(write.to_string().ends_with("write of buffer `x` at byte 0, which this launch may only read"), "{write}");
    let read = fault("uninitialised_output", &Case { out: Access::Write, ..ONE_WARP });
    assert!(matches!(read.kind, FaultKind::Forbidden { verb: Verb::Read, .. }), "{read}");
}

#[test]
fn races_in_shared_memory() {
    for kernel in ["shared_race", "missing_barrier", "missing_barrier_before_reuse"] {
        for fault in faults(kernel, &TWO_WARPS) {
            match fault.kind {
                FaultKind::Race { other, .. } => assert_ne!(other.warp, fault.warp),
                // Where the reader comes first there is nothing to read yet.
                FaultKind::Uninitialised { .. } => assert_eq!(kernel, "missing_barrier"),
                _ => panic!("{fault}"),
            }
        }
    }
    let within = fault("missing_warp_barrier", &ONE_WARP);
    let FaultKind::Race { verb: Verb::Read, other_verb: Verb::Write, other, .. } = within.kind else {
        panic!("{within}")
    };
    assert_eq!((within.lane, other.warp, other.lane), (Some(0), 0, 1));
    let disagree = fault("lanes_disagree", &ONE_WARP);
    assert!(matches!(disagree.kind, FaultKind::LanesDisagree { first: 0, second: 1, .. }), "{disagree}");
}

#[test]
fn races_in_global_memory() {
    for kernel in ["global_race", "global_flag_without_release", "plain_flag", "cta_scope_across_blocks"] {
        for fault in faults(kernel, &TWO_BLOCKS) {
            let FaultKind::Race { other, .. } = fault.kind else { panic!("{fault}") };
            assert_ne!(other.block, u64::from(fault.block[0]));
        }
    }
    let constant = fault("constant_load_of_written", &ONE_WARP);
    assert!(matches!(constant.kind, FaultKind::NotConstant { .. }), "{constant}");
}

#[test]
fn copies_that_are_used_too_early() {
    for kernel in ["early_read_of_copy", "wait_leaves_a_group"] {
        let early = fault(kernel, &ONE_WARP);
        assert_eq!(early.lane, Some(0));
        assert!(matches!(early.kind, FaultKind::CopyPending { verb: Verb::Read, .. }), "{early}");
    }
    for fault in faults("copy_without_barrier", &TWO_WARPS) {
        // Depending on the schedule the copy is still missing, under way, or complete and unordered.
        let expected = matches!(
            fault.kind,
            FaultKind::Uninitialised { .. } | FaultKind::CopyPending { .. } | FaultKind::Race { .. }
        );
        assert!(expected, "{fault}");
    }
}

#[test]
fn warp_operations_under_divergence() {
    let shuffle = fault("divergent_shuffle", &ONE_WARP);
    let divergent = FaultKind::Divergent { operation: "shfl.sync", named: u32::MAX, active: 0xffff_0000 };
    assert_eq!((shuffle.lane, shuffle.kind), (Some(16), divergent));
    let outside = fault("shuffle_from_outside", &ONE_WARP);
    assert_eq!(outside.kind, FaultKind::ShuffleSource { source_lane: 20, members: 0xffff });
    let stranger = fault("not_a_member", &ONE_WARP);
    assert_eq!(stranger.lane, Some(31));
    assert!(matches!(stranger.kind, FaultKind::NotMember { named: 0x7fff_ffff, .. }), "{stranger}");
    let matrix = fault("partial_matrix", &ONE_WARP);
    let active = !(1 << 6);
    assert_eq!(matrix.kind, FaultKind::Divergent { operation: "mma.sync.aligned", named: u32::MAX, active });
    for barrier in faults("divergent_barrier", &ONE_WARP) {
        assert!(matches!(barrier.kind, FaultKind::Divergent { operation: "bar.sync", .. }), "{barrier}");
    }
    let branch = fault("split_uniform_branch", &ONE_WARP);
    assert_eq!(branch.kind, FaultKind::NotUniform { active: u32::MAX, taken: 0x1f });
}

#[test]
fn launches_that_do_not_end() {
    for deadlock in faults("deadlock", &TWO_WARPS) {
        assert!(
            matches!(deadlock.kind, FaultKind::Deadlock { waiting: 2, arrived: 32, expected: 64, .. }),
            "{deadlock}"
        );
    }
    let left = fault("barrier_after_exit", &TWO_WARPS);
    assert_eq!(left.kind, FaultKind::Deadlock { waiting: 1, id: 0, arrived: 32, expected: 64 });
    for endless in faults("endless_loop", &ONE_WARP) {
        assert_eq!(endless.kind, FaultKind::StepLimit { steps: 100_000 });
    }
}

#[test]
fn single_lanes_that_stop() {
    assert_eq!(fault("division_by_zero", &ONE_WARP).lane, Some(9));
    assert_eq!(fault("division_by_zero", &ONE_WARP).kind, FaultKind::DivisionByZero);
    assert_eq!(fault("trapped", &ONE_WARP).lane, Some(6));
}

/// Without race checks the same kernels run to their end, but for what the memory itself shows.
#[test]
fn memory_only_checks_do_not_look_for_races() {
    let module = common::parse(TEXT);
    for kernel in ["shared_race", "global_race"] {
        let mut gpu = Gpu::new(Limits::default());
        let x = gpu.buffer("x", &[0; 1024], Access::Read).unwrap();
        let out = gpu.scratch("out", 1024).unwrap();
        let launch = brick_ptx::interp::Launch {
            checks: brick_ptx::interp::Checks::MemoryOnly,
            ..common::linear(2, 64, Schedule::RoundRobin)
        };
        gpu.launch(&module, kernel, launch, &[Arg::Buffer(x), Arg::Buffer(out), Arg::U32(1)]).unwrap();
    }
}
