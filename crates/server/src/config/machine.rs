//! How much memory this process may use.

use std::fs;
use std::path::Path;

/// What is assumed where the machine does not tell: half of it is 1 GiB.
const UNKNOWN: u64 = 2 << 30;

/// Half of the machine's memory, or of the cgroup's limit where that is less.
pub(super) fn half_of_memory() -> u64 {
    memory(Path::new("/")) / 2
}

/// The least of the machine's memory and the limits of the cgroups (v1, v2) that hold this process.
fn memory(root: &Path) -> u64 {
    let read = |path: &Path| fs::read_to_string(root.join(path)).ok();
    let machine = read(Path::new("proc/meminfo")).and_then(|text| total_of(&text));
    let groups = read(Path::new("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // v2 is `0::/path`, v1 is `9:memory:/path`.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (folder, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            "memory" => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        // A limit of any group above holds too; in a container the group itself is mounted at the top.
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors().filter_map(|group| read(&Path::new(folder).join(group).join(file))?.trim().parse().ok()).collect()
    });
    limits.chain(machine).filter(|&bytes| bytes > 0).min().unwrap_or(UNKNOWN)
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> u64 {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        memory(root.path())
    }

    #[test]
    fn the_least_of_machine_and_cgroups_counts() {
        let meminfo = ("proc/meminfo", "MemTotal:        8000000 kB\nMemFree: 1 kB\n");
        assert_eq!(machine(&[]), UNKNOWN);
        assert_eq!(machine(&[meminfo]), 8_192_000_000);
        let v2 = ("proc/self/cgroup", "0::/a/b\n");
        assert_eq!(machine(&[meminfo, v2, ("sys/fs/cgroup/a/memory.max", "1000\n"), ("sys/fs/cgroup/a/b/memory.max", "max\n")]), 1000);
        let v1 = ("proc/self/cgroup", "5:cpu:/x\n9:memory:/docker/1\n");
        assert_eq!(machine(&[meminfo, v1, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n")]), 2000);
        let unlimited = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(machine(&[meminfo, v1, unlimited]), 8_192_000_000);
    }
}
