//! Binding a thread to a processor.

/// Binds the calling thread to hardware thread `cpu`; false where the system has no such call or refuses.
#[cfg(target_os = "linux")]
pub(super) fn pin(cpu: usize) -> bool {
    if cpu >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: a CPU set is plain bits, of which all zero is the empty set; `cpu` is within it (checked above). The call
    // reads `size_of` bytes of it and changes nothing but the calling thread (0).
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) == 0
    }
}

/// Nothing to bind with.
#[cfg(not(target_os = "linux"))]
pub(super) fn pin(_cpu: usize) -> bool {
    false
}
