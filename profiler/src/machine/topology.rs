//! What the operating system says about the processor. Reads the files Linux offers; elsewhere, what `std` knows.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// One level of data caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// 1, 2, 3, …
    pub level: u8,
    /// Bytes of one cache.
    pub bytes: u64,
    /// Caches of this level that this process's hardware threads reach.
    pub instances: usize,
}

/// Cores, caches and quotas, as far as this process may use them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuTopology {
    /// Model name, or the architecture where the system tells none.
    pub model: String,
    /// Hardware threads this process may run on.
    pub logical_cores: usize,
    /// Physical cores behind them; equal to `logical_cores` where the system does not tell.
    pub physical_cores: usize,
    /// The hardware threads of each physical core, as the system numbers them; empty where it does not tell.
    pub cores: Vec<Vec<u32>>,
    /// CPU time quota of the control group in thousandths of a core, if there is one.
    pub quota_millicores: Option<u64>,
    /// Data and unified caches, lowest level first.
    pub caches: Vec<Cache>,
    /// Memory that could be had without swapping.
    pub memory_available_bytes: Option<u64>,
    /// Setting of transparent huge pages: `always`, `madvise`, `never`.
    pub huge_pages: Option<String>,
}

impl CpuTopology {
    /// Asks this system.
    pub fn detect() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self::read_below(Path::new("/"), threads)
    }

    /// Threads that can compute at full speed side by side: one per physical core, and no more than the quota pays for.
    pub fn useful_threads(&self) -> usize {
        let paid = self.quota_millicores.map_or(usize::MAX, |m| m.div_ceil(1000) as usize);
        self.physical_cores.min(paid).max(1)
    }

    /// Where to bind `threads` threads: the first hardware thread of each physical core, or nothing where they should be left
    /// to the system. Only threads that fill the cores are bound: with cores to spare, two programs would choose the same
    /// ones, and the system finds free cores by itself.
    pub fn pin_to(&self, threads: usize) -> Vec<usize> {
        if threads < 2 || threads != self.cores.len() || self.useful_threads() < threads {
            return Vec::new();
        }
        self.cores.iter().filter_map(|core| core.first().map(|&cpu| cpu as usize)).collect()
    }

    /// Reads `sys/` and `proc/` below `root`. `threads` is the number of hardware threads where the files are missing.
    fn read_below(root: &Path, threads: usize) -> Self {
        let cpu_dir = root.join("sys/devices/system/cpu");
        let mut cpus = list(&cpu_dir.join("online"));
        let allowed = line_of(&root.join("proc/self/status"), "Cpus_allowed_list:");
        if let Some(allowed) = allowed.map(|l| parse_list(&l)).filter(|l| !l.is_empty()) {
            cpus.retain(|cpu| allowed.contains(cpu));
        }
        let mut cores: BTreeMap<(String, String), Vec<u32>> = BTreeMap::new();
        for &cpu in &cpus {
            let topology = cpu_dir.join(format!("cpu{cpu}/topology"));
            if let (Some(package), Some(core)) =
                (text(&topology.join("physical_package_id")), text(&topology.join("core_id")))
            {
                cores.entry((package, core)).or_default().push(cpu);
            }
        }
        let mut cores: Vec<Vec<u32>> = cores.into_values().collect();
        cores.sort_unstable();
        let logical_cores = if cpus.is_empty() { threads.max(1) } else { cpus.len() };
        Self {
            model: line_of(&root.join("proc/cpuinfo"), "model name").map_or_else(
                || std::env::consts::ARCH.to_owned(),
                |l| l.trim_start_matches([':', ' ', '\t']).to_owned(),
            ),
            logical_cores,
            physical_cores: if cores.is_empty() { logical_cores } else { cores.len() },
            cores,
            quota_millicores: quota(root),
            caches: caches(&cpu_dir, &cpus),
            memory_available_bytes: line_of(&root.join("proc/meminfo"), "MemAvailable:")
                .and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok())
                .and_then(|kib| kib.checked_mul(1024)),
            huge_pages: text(&root.join("sys/kernel/mm/transparent_hugepage/enabled"))
                .and_then(|t| Some(t.split_once('[')?.1.split_once(']')?.0.to_owned())),
        }
    }
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|s| s.trim().to_owned())
}

/// The rest of the first line that starts with `key`.
fn line_of(path: &Path, key: &str) -> Option<String> {
    text(path)?.lines().find_map(|l| l.strip_prefix(key)).map(|l| l.trim().to_owned())
}

fn list(path: &Path) -> BTreeSet<u32> {
    text(path).map(|t| parse_list(&t)).unwrap_or_default()
}

/// `0-3,8,10-11`. Entries that make no sense, and ranges beyond any machine, are left out.
fn parse_list(s: &str) -> BTreeSet<u32> {
    const MOST: u32 = 1 << 16;
    let mut all = BTreeSet::new();
    for part in s.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            all.extend(first.min(MOST)..=last.min(MOST));
        }
    }
    all
}

/// `48K`, `2048K`, `1M`.
fn parse_size(s: &str) -> Option<u64> {
    let (digits, unit) = s.split_at(s.find(|c: char| !c.is_ascii_digit()).unwrap_or(s.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|&bytes| bytes > 0)
}

/// Data and unified caches of the given CPUs.
fn caches(cpu_dir: &Path, cpus: &BTreeSet<u32>) -> Vec<Cache> {
    let mut seen: BTreeSet<(u8, String)> = BTreeSet::new();
    let mut levels: Vec<Cache> = Vec::new();
    for cpu in cpus {
        for index in 0..8 {
            let dir = cpu_dir.join(format!("cpu{cpu}/cache/index{index}"));
            if matches!(text(&dir.join("type")).as_deref(), None | Some("Instruction")) {
                continue;
            }
            let level = text(&dir.join("level")).and_then(|t| t.parse::<u8>().ok());
            let bytes = text(&dir.join("size")).and_then(|t| parse_size(&t));
            let (Some(level), Some(bytes)) = (level, bytes) else { continue };
            let shared = text(&dir.join("shared_cpu_list")).unwrap_or_else(|| cpu.to_string());
            if !seen.insert((level, shared)) {
                continue;
            }
            match levels.iter_mut().find(|c| c.level == level) {
                Some(c) => {
                    c.instances += 1;
                    c.bytes = c.bytes.min(bytes); // of unequal cores, the smaller cache
                }
                None => levels.push(Cache { level, bytes, instances: 1 }),
            }
        }
    }
    levels.sort_by_key(|c| c.level);
    levels
}

/// The tightest CPU quota of this process's control groups in thousandths of a core.
fn quota(root: &Path) -> Option<u64> {
    let groups = text(&root.join("proc/self/cgroup"))?;
    let mut tightest: Option<u64> = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|c| c == "cpu") {
            continue;
        }
        let base = if unified { root.join("sys/fs/cgroup") } else { root.join("sys/fs/cgroup").join(controllers) };
        // The group itself and all its parents: each may be limited. In a container the path may not exist below the
        // mount, whose root is then the group itself.
        let relative = Path::new(path.trim_start_matches('/'));
        for ancestor in relative.ancestors().take(64) {
            let dir = base.join(ancestor);
            let found = if unified { quota_v2(&dir) } else { quota_v1(&dir) };
            tightest = match (tightest, found) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
    }
    tightest
}

/// `cpu.max`: `"<quota> <period>"` in µs, or `"max <period>"`.
fn quota_v2(dir: &Path) -> Option<u64> {
    let line = text(&dir.join("cpu.max"))?;
    let (quota, period) = line.split_once(' ')?;
    millicores(quota.parse().ok()?, period.parse().ok()?)
}

fn quota_v1(dir: &Path) -> Option<u64> {
    // -1 means no quota and fails to parse.
    let quota = text(&dir.join("cpu.cfs_quota_us"))?.parse().ok()?;
    millicores(quota, text(&dir.join("cpu.cfs_period_us"))?.parse().ok()?)
}

fn millicores(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period).filter(|&m| m > 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn put(&self, path: &str, content: &str) -> &Self {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
            self
        }

        fn read(&self) -> CpuTopology {
            CpuTopology::read_below(self.0.path(), 3)
        }
    }

    /// Four hardware threads on two cores with private L1/L2 and one L3.
    fn two_cores() -> Tree {
        let t = Tree::new();
        t.put("sys/devices/system/cpu/online", "0-3\n").put("proc/cpuinfo", "processor: 0\nmodel name\t: Some CPU\n");
        for cpu in 0..4 {
            let core = cpu / 2;
            let dir = format!("sys/devices/system/cpu/cpu{cpu}");
            t.put(&format!("{dir}/topology/physical_package_id"), "0\n");
            t.put(&format!("{dir}/topology/core_id"), &format!("{core}\n"));
            let private = format!("{}-{}\n", core * 2, core * 2 + 1);
            let caches = [
                ("1", "Data", "48K", private.as_str()),
                ("1", "Instruction", "32K", &private),
                ("2", "Unified", "2048K", &private),
                ("3", "Unified", "32M", "0-3\n"),
            ];
            for (i, (level, kind, size, shared)) in caches.into_iter().enumerate() {
                let dir = format!("{dir}/cache/index{i}");
                t.put(&format!("{dir}/level"), level).put(&format!("{dir}/type"), kind);
                t.put(&format!("{dir}/size"), size).put(&format!("{dir}/shared_cpu_list"), shared);
            }
        }
        t
    }

    #[test]
    fn hyper_threads_are_not_cores() {
        let t = two_cores().read();
        assert_eq!((t.logical_cores, t.physical_cores, t.model.as_str()), (4, 2, "Some CPU"));
        assert_eq!(t.useful_threads(), 2);
        assert_eq!(t.cores, [[0, 1], [2, 3]]);
        let caches: Vec<_> = t.caches.iter().map(|c| (c.level, c.bytes, c.instances)).collect();
        assert_eq!(caches, [(1, 48 << 10, 2), (2, 2 << 20, 2), (3, 32 << 20, 1)]);
    }

    #[test]
    fn a_process_bound_to_one_core_has_one_core() {
        let t = two_cores();
        t.put("proc/self/status", "Name:\tx\nCpus_allowed_list:\t2-3\n");
        let t = t.read();
        assert_eq!((t.logical_cores, t.physical_cores), (2, 1));
        assert_eq!((t.cores.as_slice(), t.useful_threads()), (&[vec![2, 3]][..], 1));
        assert_eq!(t.caches[0].instances, 1);
    }

    #[test]
    fn threads_are_bound_one_to_a_core_and_only_where_they_fill_the_cores() {
        let t = two_cores();
        let read = t.read();
        assert_eq!(read.pin_to(2), [0, 2], "one hardware thread of each core");
        for threads in [0, 1, 3, 4] {
            assert_eq!(read.pin_to(threads), [0; 0], "{threads}");
        }
        t.put("proc/self/status", "Cpus_allowed_list:\t1,3\n");
        assert_eq!(t.read().pin_to(2), [1, 3], "of those that are allowed");
        t.put("proc/self/status", "Cpus_allowed_list:\t0-1\n");
        assert_eq!(t.read().pin_to(2), [0; 0], "two threads of one core are no two cores");
        t.put("proc/self/status", "Cpus_allowed_list:\t0-3\n").put("proc/self/cgroup", "0::/\n");
        t.put("sys/fs/cgroup/cpu.max", "100000 100000\n");
        assert_eq!(t.read().pin_to(2), [0; 0], "no more than the quota pays for");
        assert_eq!(Tree::new().read().pin_to(3), [0; 0], "an unknown topology");
    }

    #[test]
    fn cores_of_two_packages_are_told_apart() {
        let t = Tree::new();
        t.put("sys/devices/system/cpu/online", "0-3\n");
        for (cpu, package, core) in [(0, 0, 0), (1, 1, 0), (2, 0, 0), (3, 1, 0)] {
            let dir = format!("sys/devices/system/cpu/cpu{cpu}/topology");
            t.put(&format!("{dir}/physical_package_id"), &format!("{package}\n"));
            t.put(&format!("{dir}/core_id"), &format!("{core}\n"));
        }
        let t = t.read();
        assert_eq!((t.cores.as_slice(), t.physical_cores), (&[vec![0, 2], vec![1, 3]][..], 2));
    }

    #[test]
    fn a_quota_is_not_a_core() {
        let t = two_cores();
        t.put("proc/self/cgroup", "0::/a/b\n").put("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
        t.put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
        let read = t.read();
        assert_eq!((read.quota_millicores, read.physical_cores), (Some(1500), 2));
        assert_eq!(read.useful_threads(), 2);
        t.put("sys/fs/cgroup/a/b/cpu.max", "20000 100000\n");
        let read = t.read();
        assert_eq!((read.quota_millicores, read.useful_threads()), (Some(200), 1));
    }

    #[test]
    fn first_generation_groups_have_quotas_too() {
        let t = two_cores();
        t.put("proc/self/cgroup", "4:cpuset:/\n3:cpu,cpuacct:/x\n");
        t.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
        t.put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
        assert_eq!(t.read().quota_millicores, None);
        t.put("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n");
        t.put("sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n");
        assert_eq!(t.read().quota_millicores, Some(500));
    }

    #[test]
    fn an_empty_system_still_has_a_topology() {
        let t = Tree::new().read();
        assert_eq!((t.logical_cores, t.physical_cores, t.useful_threads()), (3, 3, 3));
        assert_eq!((t.model.as_str(), t.caches.len(), t.cores.len()), (std::env::consts::ARCH, 0, 0));
        assert_eq!((t.huge_pages, t.memory_available_bytes, t.quota_millicores), (None, None, None));
    }

    #[test]
    fn hostile_files_do_no_harm() {
        let t = two_cores();
        t.put("sys/devices/system/cpu/online", "9-1,x,-,0-4294967295,0\n");
        t.put("sys/kernel/mm/transparent_hugepage/enabled", "]always[");
        t.put("proc/meminfo", "MemAvailable: 99999999999999999999 kB");
        t.put("proc/self/cgroup", "garbage\n0::\n::::\n");
        t.put("sys/fs/cgroup/cpu.max", "1 0");
        t.put("sys/devices/system/cpu/cpu0/cache/index0/size", "99999999999999999999K");
        let t = t.read();
        assert_eq!((t.logical_cores, t.physical_cores), ((1 << 16) + 1, 2));
        assert_eq!((t.huge_pages, t.memory_available_bytes, t.quota_millicores), (None, None, None));
        assert_eq!(t.caches[0].bytes, 48 << 10);
    }

    #[test]
    fn huge_page_setting_and_memory_are_read() {
        let t = Tree::new();
        t.put("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
        t.put("proc/meminfo", "MemTotal: 5 kB\nMemAvailable:    2048 kB\n");
        let t = t.read();
        assert_eq!((t.huge_pages.as_deref(), t.memory_available_bytes), (Some("madvise"), Some(2 << 20)));
    }
}
