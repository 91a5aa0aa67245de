//! The processor's own clock.

/// The time-stamp counter, where it counts at one rate in all states of all cores, so that differences of readings are time.
///
/// A read is cheaper than one of the system's monotonic clock, which reads the same counter and scales it. It does not wait for the
/// instructions before it: some ten nanoseconds of them may come after it.
///
/// Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 3, "Invariant TSC".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickCounter(());

impl TickCounter {
    /// The counter, if this processor has one that the system trusts too; asked once.
    pub fn detect() -> Option<Self> {
        static TRUSTED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        TRUSTED.get_or_init(is_trusted).then_some(Self(()))
    }

    /// Ticks since some time; of which a second has how many is for the caller to measure.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub fn ticks(self) -> u64 {
        // SAFETY: every x86-64 processor has the instruction; it reads a register.
        unsafe { std::arch::x86_64::_rdtsc() }
    }

    /// There is none to read.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn ticks(self) -> u64 {
        unreachable!("invariant: `detect` gives no counter on this processor")
    }
}

#[cfg(all(target_arch = "x86_64", not(miri)))]
fn is_trusted() -> bool {
    use std::arch::x86_64::__cpuid;
    const POWER: u32 = 0x8000_0007;
    const INVARIANT: u32 = 1 << 8;
    let invariant = __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx & INVARIANT != 0;
    // Linux watches the counters of all cores, and takes another clock when they part.
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    invariant && (cfg!(not(target_os = "linux")) || source.is_ok_and(|s| s.trim() == "tsc"))
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
fn is_trusted() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_go_forward_on_every_thread() {
        let Some(counter) = TickCounter::detect() else { return };
        let before = counter.ticks();
        let between = std::thread::spawn(move || counter.ticks()).join().expect("a thread that only reads");
        assert!(before <= between && between <= counter.ticks());
    }
}
