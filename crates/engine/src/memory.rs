//! How much memory this machine can still give: to refuse a model that does not fit by numbers,
//! before it is loaded and the system stops the process.
//!
//! Linux: what the kernel calls available, and what the process's control groups leave, whichever
//! is less. Elsewhere nothing is known, and nothing is refused.
//!
//! Not here: what a model needs (`settings.rs`, `weights.rs`), and what is done about it.

use std::fs;
use std::path::Path;

/// A file of the kernel's is far smaller; a longer one is not what is looked for.
const FILE_SIZE_MAX: usize = 1 << 20;

/// Control groups nest: a folder for each level. No system nests deeper.
const GROUP_DEPTH_MAX: usize = 64;

/// Bytes that can still be had; `None` where the system does not say.
pub fn available_memory() -> Option<u64> {
    available_under(Path::new("/"))
}

/// The same for a system whose files lie below `root`.
fn available_under(root: &Path) -> Option<u64> {
    let machine = read(&root.join("proc/meminfo")).and_then(|text| machine_available(&text));
    let groups = read(&root.join("proc/self/cgroup")).and_then(|text| groups_left(root, &text));
    match (machine, groups) {
        (Some(machine), Some(groups)) => Some(machine.min(groups)),
        (machine, groups) => machine.or(groups),
    }
}

fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|text| text.len() <= FILE_SIZE_MAX)
}

/// `MemAvailable:   123 kB`
fn machine_available(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let count: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    count.checked_mul(1_024)
}

/// What the process's groups leave: the least of all levels, in both versions of the interface.
fn groups_left(root: &Path, text: &str) -> Option<u64> {
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        let is_memory = controllers.split(',').any(|controller| controller == "memory");
        match (controllers.is_empty(), is_memory) {
            (true, _) => levels_left(&root.join("sys/fs/cgroup"), group, NEW),
            (false, true) => levels_left(&root.join("sys/fs/cgroup/memory"), group, OLD),
            (false, false) => None,
        }
    });
    lines.min()
}

/// The names of a group's limit, its use, and the part of its use that is given back on demand.
type Names = (&'static str, &'static str, &'static str);
const NEW: Names = ("memory.max", "memory.current", "inactive_file");
const OLD: Names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file");

/// The least that a group and those around it leave. In a container the path of the group may not
/// exist as it is named outside; the levels that do exist count.
fn levels_left(base: &Path, group: &str, names: Names) -> Option<u64> {
    let group = Path::new(group.trim_start_matches('/'));
    let is_inside = group.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let group = if is_inside { group } else { Path::new("") };
    let levels = group.ancestors().take(GROUP_DEPTH_MAX);
    levels.filter_map(|level| level_left(&base.join(level), names)).min()
}

fn level_left(folder: &Path, (limit, used, cached): Names) -> Option<u64> {
    let number = |name: &str| read(&folder.join(name))?.trim().parse::<u64>().ok();
    // A group without a limit says `max`, or in the old version a number near 2^63.
    let limit = number(limit).filter(|&limit| limit < 1 << 60)?;
    let used = number(used)?;
    let cached = read(&folder.join("memory.stat")).and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix(cached)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    });
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left on a system with these files.
    fn check(files: &[(&str, &str)], wanted: Option<u64>) {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().expect("is in a folder")).expect("makes a folder");
            fs::write(path, text).expect("writes");
        }
        assert_eq!(available_under(root.path()), wanted, "{files:?}");
    }

    const MACHINE: (&str, &str) =
        ("proc/meminfo", "MemTotal:  24000 kB\nMemFree: 1 kB\nMemAvailable:   8000 kB\n");

    #[test]
    fn what_the_kernel_calls_available_counts() {
        check(&[MACHINE], Some(8_000 * 1_024));
        check(&[], None);
        check(&[("proc/meminfo", "MemAvailable: much kB")], None);
        check(&[("proc/meminfo", "MemAvailable: 18446744073709551615 kB")], None);
    }

    #[test]
    fn a_control_group_leaves_its_limit_less_what_cannot_be_given_back() {
        let group = ("proc/self/cgroup", "0::/a/b\n");
        let new = |limit: &'static str| {
            [
                MACHINE,
                group,
                ("sys/fs/cgroup/a/memory.max", limit),
                ("sys/fs/cgroup/a/memory.current", "5000\n"),
                ("sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 2000\n"),
                ("sys/fs/cgroup/a/b/memory.max", "max\n"),
            ]
        };
        check(&new("7000\n"), Some(4_000));
        check(&new("2000\n"), Some(0));
        check(&new("max\n"), Some(8_000 * 1_024));
    }

    #[test]
    fn the_old_interface_is_read_too() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "9:cpu:/\n4:memory,hugetlb:/outside\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n"),
        ];
        check(&files, Some(8_000));
    }

    #[test]
    fn a_group_outside_the_folder_is_read_as_the_root() {
        let files = [
            MACHINE,
            ("proc/self/cgroup", "0::/../../etc\n"),
            ("sys/fs/cgroup/memory.max", "300\n"),
            ("sys/fs/cgroup/memory.current", "100\n"),
        ];
        check(&files, Some(200));
    }

    #[test]
    fn this_machine_answers() {
        let available = available_memory();
        assert!(!cfg!(target_os = "linux") || available.is_some_and(|it| it > 0), "{available:?}");
    }
}
