//! The jail on Linux.
//!
//! JUSTIFICATION: `close_range` has no safe form, since closing a file that somebody holds breaks
//! that somebody. It is called where nobody holds one.
#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use commons_port::process::{Jail, SyscallFilter};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope,
};
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, Signal};

use super::{Devices, JailConfig, OPEN_FILES_MAX, Orphaned, syscalls};
use crate::probe;

/// The newest version of Landlock that was tested here. An older kernel enforces what it knows.
const NEWEST: ABI = ABI::V7;

/// Links in a readable folder that are followed: a model of a hub is a folder of links.
const LINKS_MAX: usize = 4_096;

/// How much likelier this process is ended than another where memory runs out: halfway up.
const OOM_SCORE: &[u8] = b"500";

/// What the engine reads to learn how much memory and how many processors there are, and what the
/// C library reads to learn where a stack ends.
const SYSTEM_FILES: &[&str] = &[
    "/dev/null",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/self/cgroup",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/status",
    "/sys/devices/system/cpu",
    "/sys/fs/cgroup",
];

/// What a device's driver reads: its libraries, its settings, what it knows of the machine.
const DRIVER_FILES: &[&str] =
    &["/etc/ld.so.cache", "/etc/nvidia", "/lib", "/lib64", "/opt", "/proc", "/sys", "/usr"];

/// Device nodes that begin so are read and written by drivers.
const DRIVER_NODES: &[&str] = &["nvidia", "dri", "dxg", "shm", "zero", "null", "urandom"];

pub(super) fn enter(config: &JailConfig) -> Result<Jail, Orphaned> {
    let mut reasons = Vec::new();
    die_with(config.parent)?;
    close_inherited();
    let memory_max = limit(config, &mut reasons);
    let landlock = restrict_files(config, &mut reasons);
    if let Err(error) = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        reasons.push(format!("memory stays readable for others: {error}"));
    }
    let syscalls = restrict_calls(config.devices, &mut reasons);
    let dies_with_node = rustix::process::parent_process_death_signal();
    Ok(Jail {
        landlock,
        syscalls,
        no_new_privileges: rustix::thread::no_new_privs().unwrap_or(false),
        is_dumpable: !rustix::process::dumpable_behavior()
            .is_ok_and(|it| it == DumpableBehavior::NotDumpable),
        dies_with_node: dies_with_node.is_ok_and(|it| it == Some(Signal::KILL)),
        memory_max,
        attempts: probe::all(&config.readable),
        reasons,
    })
}

/// The kernel ends this process with its parent. One that was gone before the kernel knew is not
/// waited for.
fn die_with(parent: Option<u32>) -> Result<(), Orphaned> {
    let Some(parent) = parent else { return Ok(()) };
    // Where it fails the end of standard input tells the same, a little later.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let now = rustix::process::getppid().map(Pid::as_raw_nonzero);
    let is_there = now.is_some_and(|it| u32::try_from(it.get()) == Ok(parent));
    if is_there { Ok(()) } else { Err(Orphaned { parent }) }
}

/// Closes what a parent left open beyond the three pipes.
fn close_inherited() {
    // SAFETY: this is the first thing that the process does, with one thread: it has opened no
    // file beyond the first three, so none that is closed belongs to a value of this program.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    if closed != 0 {
        tracing::debug!("this kernel closes no ranges: files that were inherited stay open");
    }
}

fn limit(config: &JailConfig, reasons: &mut Vec<String>) -> Option<u64> {
    let mut set = |what, name: &str, max: u64| {
        let limit = Rlimit { current: Some(max), maximum: Some(max) };
        if let Err(error) = rustix::process::setrlimit(what, limit) {
            reasons.push(format!("no limit of {name}: {error}"));
        }
    };
    set(Resource::Core, "core files", 0);
    set(Resource::Nofile, "open files", OPEN_FILES_MAX);
    if let Some(max) = config.memory_max {
        set(Resource::Data, "memory", max);
    }
    // A courtesy to the rest of the machine: without it the node still works.
    let _ = File::options()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| file.write_all(OOM_SCORE));
    rustix::process::getrlimit(Resource::Data).current
}

fn restrict_files(config: &JailConfig, reasons: &mut Vec<String>) -> Option<u32> {
    let restricted = || -> Result<LandlockStatus, landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        for path in readable(config) {
            rules = add(rules, &path, read)?;
        }
        if config.devices == Devices::Drivers {
            for path in DRIVER_FILES {
                rules = add(rules, Path::new(path), read | AccessFs::Execute)?;
            }
            for path in driver_nodes() {
                rules = add(rules, &path, AccessFs::from_all(NEWEST))?;
            }
        }
        Ok(rules.restrict_self()?.landlock)
    };
    match restricted() {
        Ok(LandlockStatus::Available { effective_abi, .. }) => {
            Some(u32::try_from(effective_abi as i32).unwrap_or_default())
        }
        Ok(LandlockStatus::NotEnabled) => {
            reasons.push("this kernel has Landlock switched off".to_owned());
            None
        }
        Ok(LandlockStatus::NotImplemented) => {
            reasons.push("this kernel has no Landlock".to_owned());
            None
        }
        Err(error) => {
            reasons.push(format!("Landlock failed: {error}"));
            None
        }
    }
}

/// A rule for a path. One that is not there cannot be read anyway.
fn add(
    rules: landlock::RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, landlock::RulesetError> {
    let Ok(place) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    // The kernel forgets an entry of /proc that nobody holds, and with it the rule. What holds it
    // can open nothing: a path and no file.
    if path.starts_with("/proc")
        && let Ok(held) = PathFd::new(path)
    {
        std::mem::forget(held);
    }
    rules.add_rule(PathBeneath::new(place, access))
}

/// What may be read, and where links in the folders of it lead.
fn readable(config: &JailConfig) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = SYSTEM_FILES.iter().map(PathBuf::from).collect();
    for path in &config.readable {
        paths.push(path.clone());
        let Ok(entries) = std::fs::read_dir(path) else { continue };
        let links = entries.flatten().filter(|it| it.file_type().is_ok_and(|it| it.is_symlink()));
        // A link to a folder would open all of it: a model's links lead to files.
        let targets = links.take(LINKS_MAX).filter_map(|it| it.path().canonicalize().ok());
        paths.extend(targets.filter(|it| it.is_file()));
    }
    paths
}

fn driver_nodes() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/dev") else { return Vec::new() };
    let is_node = |path: &PathBuf| {
        let name = path.file_name().and_then(|it| it.to_str()).unwrap_or_default();
        DRIVER_NODES.iter().any(|node| name.starts_with(node))
    };
    entries.flatten().map(|it| it.path()).filter(is_node).collect()
}

fn restrict_calls(devices: Devices, reasons: &mut Vec<String>) -> Option<SyscallFilter> {
    match syscalls::install(devices) {
        Ok(filter) => Some(filter),
        Err(error) => {
            reasons.push(format!("system calls are not filtered: {error}"));
            None
        }
    }
}
