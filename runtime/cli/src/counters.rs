//! Hardware counters of this process, where the system offers them.

use brick_profiler::profile::Counters;

/// Counters of all threads that are started after they were opened.
pub(crate) struct HardwareCounters {
    #[cfg(target_os = "linux")]
    open: [Result<perf_event::Counter, std::io::Error>; 3],
}

#[cfg(target_os = "linux")]
impl HardwareCounters {
    /// Opens what can be opened; nothing counts yet. Threads that exist already, besides this one, are not counted.
    pub(crate) fn open() -> Self {
        use perf_event::Builder;
        use perf_event::events::Hardware;
        let events = [Hardware::CPU_CYCLES, Hardware::INSTRUCTIONS, Hardware::CACHE_MISSES];
        Self { open: events.map(|event| Builder::new(event).inherit(true).build()) }
    }

    /// Counting goes on.
    pub(crate) fn start(&mut self) {
        self.open.iter_mut().flatten().for_each(|c| drop(c.enable()));
    }

    /// What was counted since [`start`](Self::start).
    pub(crate) fn read(&mut self) -> Counters {
        let mut why = None;
        let mut read = |i: usize| {
            let refused = |e: &std::io::Error| format!("the system offers no hardware counters ({e})");
            let counted = match &mut self.open[i] {
                Ok(counter) => counter.read().map_err(|e| refused(&e)),
                Err(e) => Err(refused(e)),
            };
            counted.map_err(|reason| why.get_or_insert(reason)).ok()
        };
        let [cycles, instructions, cache_misses] = [0, 1, 2].map(&mut read);
        Counters { cycles, instructions, cache_misses, unavailable: why }
    }
}

#[cfg(not(target_os = "linux"))]
impl HardwareCounters {
    pub(crate) fn open() -> Self {
        Self {}
    }

    pub(crate) fn start(&mut self) {}

    pub(crate) fn read(&mut self) -> Counters {
        Counters { unavailable: Some("brick reads hardware counters on Linux only".into()), ..Counters::default() }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn counters_are_figures_or_absent_with_a_reason() {
        let mut counters = super::HardwareCounters::open();
        counters.start();
        let mut x = 1u64;
        for i in 0..1_000_000u64 {
            x = std::hint::black_box(x.wrapping_mul(i | 1));
        }
        let read = counters.read();
        let all = [read.cycles, read.instructions, read.cache_misses];
        assert!(all.iter().all(Option::is_some) || read.unavailable.is_some(), "{read:?}");
        assert!(read.instructions.is_none_or(|n| n > 1_000_000), "{read:?}");
    }
}
