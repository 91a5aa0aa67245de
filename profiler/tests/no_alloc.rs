//! The recorder's hot path does not allocate. A binary of its own, because it counts every allocation of the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use brick_profiler::{BrickProfiler, Phase, Recorder, StepInfo, SyncMode};
use bricks::{BrickKind, Extent, Op, PortType, Rows};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

fn count() {
    // Counts nothing while the thread is being torn down.
    let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
}

// SAFETY: every call is passed on to the system allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations_of(f: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    f();
    ALLOCATIONS.with(Cell::get) - before
}

fn steps() -> Vec<StepInfo> {
    (0..300)
        .map(|i| StepInfo {
            name: format!("blk.{}.add{}", i / 10, i % 10),
            kind: BrickKind::ALL[i % BrickKind::COUNT],
            layer: Some(i as u32 / 10),
            kernel: "add_scalar".into(),
            bricks: vec![i as u32],
            op: Op::Add,
            inputs: vec![PortType::rows(Rows::All, 64); 2],
            weights: vec![],
        })
        .collect()
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations_of(|| drop(std::hint::black_box(Box::new(1u64)))), 1);
}

#[test]
fn recording_allocates_nothing_in_any_mode() {
    let steps = steps();
    for mode in [SyncMode::Immediate, SyncMode::PerLayer, SyncMode::Deferred, SyncMode::None] {
        let mut profiler = BrickProfiler::with_mode(&steps, 16, mode);
        // More forwards than there is room for, so that rows are reused and resolved on the way.
        let n = allocations_of(|| {
            for i in 0..100 {
                let phase = Phase::ALL[i % Phase::COUNT];
                profiler.begin_forward(&Extent::one_sequence(1, 1 + i as u64, 1), phase);
                for step in 0..steps.len() {
                    profiler.step_done(step);
                }
                profiler.end_forward();
                profiler.record_external(BrickKind::Sample, 100);
            }
            profiler.finish();
        });
        assert_eq!(n, 0, "{mode}");
        let expected = if mode == SyncMode::None { 0 } else { 34 };
        assert_eq!(profiler.phase_totals(Phase::Prefill).forwards, expected);
    }
}
