//! What a process gives up for good.
//!
//! ```text
//! enter: close what was inherited -> limits -> Landlock -> filter of system calls -> measure
//! ```
//!
//! | Part | What it takes | Where |
//! |---|---|---|
//! | Landlock | all files but the named ones, all writing, TCP, signals to others | Linux 5.13 and newer, more with each version |
//! | system calls | sockets, programs, processes, other processes' memory, devices | Linux on `x86_64` and `aarch64` |
//! | limits | core files, many open files, memory beyond a limit | every Unix |
//! | dying with the parent | outliving the node | Linux |
//!
//! With the processor alone the filter lists what may be called ([`Devices::Processor`]); what is
//! not listed fails. A device's driver calls what nobody outside its maker has listed, so with one
//! the filter lists what may not be called ([`Devices::Drivers`]).
//!
//! The memory limit counts what a process may write and shares with nobody (`RLIMIT_DATA`): the
//! space that threads reserve and never touch is not counted, as it would be by `RLIMIT_AS`. A
//! control group would count what is touched, and needs rights that a desktop's user lacks.
//! Without a limit the kernel is told to end this process before the node where memory runs out.
//!
//! Not here: what is tried afterwards (`probe.rs`).

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod syscalls;

use std::path::PathBuf;

use commons_port::process::Jail;

/// Open files of a process that reads a few models.
#[cfg(target_os = "linux")]
const OPEN_FILES_MAX: u64 = 256;

/// What a process needs after it gave up all else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailConfig {
    /// Files and folders that it may read.
    pub readable: Vec<PathBuf>,
    /// What computes.
    pub devices: Devices,
    /// Bytes of memory that it may have; none means no limit.
    pub memory_max: Option<u64>,
    /// The process that it dies with; none means that it outlives its parent.
    pub parent: Option<u32>,
}

/// What a process computes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// The processor alone.
    Processor,
    /// Devices as well: their drivers need their device nodes and more system calls.
    Drivers,
}

/// Why a process may not go on: what it was told to die with is gone already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the process {parent} that this one belongs to is gone")]
pub struct Orphaned {
    parent: u32,
}

/// Gives up everything but what `config` names, and measures what is left.
///
/// Only the calling thread and those that it starts are jailed: call it before any other is
/// started, and before anything is read that others wrote.
#[cfg(target_os = "linux")]
pub fn enter(config: &JailConfig) -> Result<Jail, Orphaned> {
    linux::enter(config)
}

/// Gives up nothing: this system has no jail that we know how to close.
#[cfg(not(target_os = "linux"))]
pub fn enter(_config: &JailConfig) -> Result<Jail, Orphaned> {
    let reason = format!("{} has no jail that this program can close", std::env::consts::OS);
    Ok(Jail { is_dumpable: true, reasons: vec![reason], ..Jail::default() })
}
