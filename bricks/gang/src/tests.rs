#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use super::*;

/// Barriers per test; an interpreter (Miri) is some hundred times slower.
const STEPS: usize = if cfg!(miri) { 6 } else { 100 };

fn sum_of_steps(size: usize, steps: usize, n: usize) -> Vec<usize> {
    let mut gang = Gang::new(size).unwrap();
    let cells: Vec<AtomicUsize> = (0..steps).map(|_| AtomicUsize::new(0)).collect();
    let work = |m: &Member<'_>| {
        for cell in &cells {
            while let Some(r) = m.take(n, 3) {
                cell.fetch_add(r.sum::<usize>(), Ordering::Relaxed);
            }
            m.barrier();
        }
    };
    gang.run(work, work).unwrap();
    cells.into_iter().map(AtomicUsize::into_inner).collect()
}

#[test]
fn every_item_is_done_exactly_once_in_every_step() {
    for size in [1, 2, 3, 4, 5, 8] {
        assert_eq!(sum_of_steps(size, STEPS, 100), vec![4950; STEPS], "{size} threads");
    }
}

#[test]
fn writes_before_a_barrier_are_seen_after_it() {
    let mut gang = Gang::new(3).unwrap();
    let data: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
    let work = |m: &Member<'_>| {
        for step in 1..=STEPS {
            while let Some(r) = m.take(64, 5) {
                for i in r {
                    // Reads what another thread may have written in the step before.
                    let before = data[(i + 1) % 64].load(Ordering::Relaxed);
                    assert!(before == step - 1 || before == step);
                    data[i].store(step, Ordering::Relaxed);
                }
            }
            m.barrier();
        }
    };
    gang.run(work, work).unwrap();
    assert!(data.iter().all(|d| d.load(Ordering::Relaxed) == STEPS));
}

#[test]
fn a_panic_becomes_an_error_and_the_gang_survives() {
    let mut gang = Gang::new(3).unwrap();
    for culprit in 0..3 {
        let work = |m: &Member<'_>| {
            m.barrier();
            assert!(m.index() != culprit, "planted in {culprit}");
            m.barrier();
        };
        let err = gang.run(work, work).unwrap_err();
        assert!(err.message.contains(&format!("planted in {culprit}")), "{err}");
        let ok = |m: &Member<'_>| m.barrier();
        gang.run(ok, ok).unwrap();
    }
}

/// Waits until every worker sleeps; bounded, and the outcome does not depend on the time it takes.
fn wait_until_asleep(gang: &Gang) {
    for _ in 0..10_000 {
        if gang.shared.seats[1..].iter().all(|seat| seat.is_sleeping()) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("an idle worker must park");
}

#[test]
fn parks_and_wakes_again() {
    let mut gang = Gang::new(3).unwrap();
    for _ in 0..3 {
        wait_until_asleep(&gang);
        let hits = AtomicUsize::new(0);
        let work = |m: &Member<'_>| {
            hits.fetch_add(1, Ordering::Relaxed);
            m.barrier();
        };
        gang.run(work, work).unwrap();
        assert_eq!(hits.load(Ordering::Relaxed), 3);
    }
}

#[test]
fn a_member_that_waits_long_inside_a_call_parks_and_is_woken() {
    let mut gang = Gang::new(2).unwrap();
    let shared = Arc::clone(&gang.shared);
    let seen = AtomicUsize::new(0);
    gang.run(
        |m| {
            // Arrives only when the other has fallen asleep at the barrier.
            while !shared.seats[1].is_sleeping() {
                std::thread::yield_now();
            }
            m.barrier();
            m.barrier();
        },
        |m| {
            m.barrier();
            while !shared.seats[0].is_sleeping() {
                std::thread::yield_now();
            }
            seen.store(1, Ordering::Relaxed);
            m.barrier();
        },
    )
    .unwrap();
    assert_eq!(seen.into_inner(), 1);
}

#[test]
fn a_panic_reaches_members_that_sleep_at_the_barrier() {
    let mut gang = Gang::new(2).unwrap();
    let shared = Arc::clone(&gang.shared);
    let culprit = |m: &Member<'_>| {
        while !shared.seats[1 - m.index()].is_sleeping() {
            std::thread::yield_now();
        }
        panic!("late");
    };
    let victim = |m: &Member<'_>| m.barrier();
    assert_eq!(gang.run(victim, culprit).unwrap_err().message, "late");
    assert_eq!(gang.run(culprit, victim).unwrap_err().message, "late");
    gang.run(victim, victim).unwrap();
}

#[test]
fn pieces_begin_at_multiples_of_the_chunk_and_cover_everything_once() {
    for size in [1, 2, 3, 7] {
        let mut gang = Gang::new(size).unwrap();
        for (total, chunk) in
            [(0, 1), (1, 1), (1, 16), (5, 1), (31, 16), (96, 16), (97, 8), (1000, 7), (10, usize::MAX)]
        {
            let pieces = Mutex::new(Vec::new());
            let work = |m: &Member<'_>| {
                while let Some(r) = m.take(total, chunk) {
                    assert!(r.start.is_multiple_of(chunk) && !r.is_empty(), "{r:?}");
                    // Callers have scratch memory for one chunk.
                    assert!(r.len() == chunk.min(total - r.start), "{r:?} is no chunk of {chunk}");
                    pieces.lock().unwrap().push((r.start, r.end));
                }
                assert_eq!(m.take(total, chunk), None, "nothing comes after the end");
                m.barrier();
            };
            gang.run(work, work).unwrap();
            let mut pieces = pieces.into_inner().unwrap();
            pieces.sort_unstable();
            let end = pieces.iter().fold(0, |at, &(start, end)| {
                assert_eq!(at, start, "{total} by {chunk}, {size} threads: {pieces:?}");
                end
            });
            assert_eq!(end, total);
        }
    }
}

#[test]
fn the_count_of_barriers_wraps() {
    let mut gang = Gang::new(3).unwrap();
    let start = u32::MAX - 2;
    gang.epoch = start;
    gang.shared.signals.iter().for_each(|s| s.store(start, Ordering::Relaxed));
    let data: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
    let work = |m: &Member<'_>| {
        for step in 1..=6 {
            data[m.index()].store(step, Ordering::Relaxed);
            m.barrier();
            assert!(data.iter().all(|d| d.load(Ordering::Relaxed) >= step), "a member ran ahead");
            m.barrier();
        }
    };
    gang.run(work, work).unwrap();
    assert_eq!(gang.epoch, start.wrapping_add(12));
}

#[test]
fn any_thread_may_lead() {
    let mut gang = Gang::new(2).unwrap();
    let sum = AtomicUsize::new(0);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let work = |m: &Member<'_>| {
                    sum.fetch_add(m.index() + 1, Ordering::Relaxed);
                    m.barrier();
                };
                gang.run(work, work).unwrap();
            });
        });
    }
    assert_eq!(sum.into_inner(), 9);
}

#[cfg(target_os = "linux")]
mod linux {
    use super::*;

    /// Processor time of a thread of this process in clock ticks of 10 ms.
    fn ticks(thread: &str) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
        // After the name, which may hold anything: state, ten numbers, then user and system time.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "no /proc")]
    fn an_idle_gang_uses_no_processor_time() {
        let mut gang = Gang::new(3).unwrap();
        let names = Mutex::new(Vec::new());
        let work = |m: &Member<'_>| {
            let path = std::fs::read_link("/proc/thread-self").unwrap();
            names.lock().unwrap().push((m.index(), path.file_name().unwrap().to_str().unwrap().to_owned()));
            m.barrier();
        };
        gang.run(work, work).unwrap();
        wait_until_asleep(&gang);
        let names = names.into_inner().unwrap();
        let used = || names.iter().filter(|n| n.0 != 0).map(|n| ticks(&n.1)).sum::<u64>();
        let before = used();
        // Spinning workers would use ten ticks each.
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(used() - before <= 1, "{} ticks", used() - before);
    }

    /// Hardware threads the calling thread may run on.
    fn allowed() -> Vec<usize> {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
        list.split(',')
            .flat_map(|part| {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                first.parse::<usize>().unwrap()..=last.parse::<usize>().unwrap()
            })
            .collect()
    }

    #[test]
    #[cfg_attr(miri, ignore = "no /proc")]
    fn workers_are_bound_where_asked_and_the_leader_is_not() {
        let before = allowed();
        let cpu = *before.last().unwrap();
        let bound = |cpus: &[usize]| {
            let mut gang = Gang::with_cpus(2, cpus).unwrap();
            let seen = Mutex::new(vec![Vec::new(); 2]);
            let work = |m: &Member<'_>| seen.lock().unwrap()[m.index()] = allowed();
            gang.run(work, work).unwrap();
            seen.into_inner().unwrap()
        };
        assert_eq!(bound(&[before[0], cpu]), [before.clone(), vec![cpu]]);
        assert_eq!(bound(&[cpu]), [before.clone(), before.clone()], "fewer processors than threads bind nobody");
        assert_eq!(bound(&[0, usize::MAX]), [before.clone(), before.clone()], "no such processor");
    }
}
