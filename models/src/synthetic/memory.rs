//! How much memory there is.

use std::path::Path;

/// Bytes that this process can still have: what the system calls available, or less if its control group sets a limit. `None`
/// where the system does not tell (anything but Linux).
pub fn available() -> Option<u64> {
    below(Path::new("/"))
}

fn below(root: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let system = kib.checked_mul(1024)?;
    Some(group_limit(root).map_or(system, |group| group.min(system)))
}

/// What the control group leaves, of version 2 as it looks from inside a container. Pages of files count as used there, but
/// are given up first.
fn group_limit(root: &Path) -> Option<u64> {
    let group = root.join("sys/fs/cgroup");
    let number = |name: &str| std::fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    let files = || {
        let text = std::fs::read_to_string(group.join("memory.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("file "))?.trim().parse::<u64>().ok()
    };
    let used = number("memory.current")?.saturating_sub(files().unwrap_or(0));
    Some(number("memory.max")?.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_smaller_of_what_system_and_group_leave() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(below(root.path()), None);
        put("proc/meminfo", "MemTotal:  9 kB\nMemAvailable:    2048 kB\n");
        assert_eq!(below(root.path()), Some(2 << 20));
        put("sys/fs/cgroup/memory.current", "900000\n");
        put("sys/fs/cgroup/memory.max", "max\n");
        assert_eq!(below(root.path()), Some(2 << 20));
        put("sys/fs/cgroup/memory.max", "1000000\n");
        assert_eq!(below(root.path()), Some(100_000));
        put("sys/fs/cgroup/memory.stat", "anon 500000\nfile 400000\n");
        assert_eq!(below(root.path()), Some(500_000));
        put("proc/meminfo", "MemAvailable: much\n");
        assert_eq!(below(root.path()), None);
    }
}
