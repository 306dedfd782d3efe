//! What this machine is, as the operating system shows it.
//!
//! Everything is optional: a machine that does not tell is not refused.

use std::fs;
use std::path::Path;

use commons_record::mesh::Capability;

/// What a node claims to be. Nobody believes it for more than a first guess.
pub(crate) fn capability(threads: usize) -> Capability {
    let threads = u32::try_from(threads).unwrap_or(u32::MAX);
    let mebibytes = memory().map_or(0, |memory| memory.total / (1024 * 1024));
    let memory_mib = u32::try_from(mebibytes).unwrap_or(u32::MAX);
    Capability { device: "cpu".to_owned(), threads, memory_mib }
}

/// Processors that this process may use.
pub(crate) fn cores() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The processor's name.
pub(crate) fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    cpu_field(&text, "model name").map(str::to_owned)
}

/// The wide instructions that the engine has use for, of those that the processor has.
pub(crate) fn wide_instructions() -> Vec<&'static str> {
    const USEFUL: [&str; 6] = ["avx2", "fma", "f16c", "avx512f", "asimd", "asimdhp"];
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu_field(&text, "flags").or_else(|| cpu_field(&text, "Features"));
    let flags: Vec<&str> = flags.unwrap_or_default().split_whitespace().collect();
    USEFUL.into_iter().filter(|name| flags.contains(name)).collect()
}

fn cpu_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    };
    text.lines().find_map(value)
}

/// Main memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) available: u64,
}

/// How much main memory there is; none where the system does not tell.
pub(crate) fn memory() -> Option<Memory> {
    parse_memory(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
        kibibytes.checked_mul(1024)
    };
    Some(Memory { total: field("MemTotal")?, available: field("MemAvailable")? })
}

/// Bytes that an unprivileged user may still write in the file system of `path`.
pub(crate) fn free_disk(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Files that this process may hold open; none if there is no limit.
pub(crate) fn open_files_max() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_linux_writes() {
        let text = "MemTotal:       24064000 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n";
        let want = Memory { total: 24_064_000 * 1024, available: 1024 * 1024 };
        assert_eq!(parse_memory(text), Some(want));
        assert_eq!(parse_memory("MemTotal: many kB\n"), None);
    }

    #[test]
    fn a_processor_is_named_by_its_field() {
        let text = "processor : 0\nmodel name\t: A CPU @ 2 GHz\nflags : avx2 fma\n";
        assert_eq!(cpu_field(text, "model name"), Some("A CPU @ 2 GHz"));
        assert_eq!(cpu_field(text, "model"), None);
    }
}
