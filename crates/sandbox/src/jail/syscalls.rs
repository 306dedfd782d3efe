//! Which system calls a jailed process may make.
//!
//! Two filters, and the kernel takes the stricter answer of both:
//!
//! * `clone3` does not exist (`ENOSYS`): its flags lie in memory, where no filter sees them, and the
//!   C library then calls `clone`, whose flags lie in a register;
//! * everything else is on a list, and fails with `EPERM` if it is not ([`Devices::Processor`]), or
//!   fails if it is ([`Devices::Drivers`]).
//!
//! A call that is refused returns an error and does not end the process: a library that tries
//! something and goes on without it goes on here as well.
//!
//! The list was made from what the standard library, threads, the allocator and reading files need,
//! not from watching a run: a run shows what it happened to call.

use std::collections::BTreeMap;

use commons_port::process::SyscallFilter;
use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS, CLONE_SIGHAND, CLONE_THREAD, CLONE_VM,
};
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Devices;

/// Calls by number, each with the conditions under which it matches; none means always.
type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Why the calls of a process are not filtered.
#[derive(Debug, thiserror::Error)]
pub(super) enum FilterError {
    #[error("no filter is known for this processor")]
    Processor(#[source] BackendError),

    #[error("the filter is not well-formed: {0}")]
    Rules(#[from] BackendError),

    #[error("the kernel takes no filter: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Filters the calls of this thread and of those that it starts, for good.
pub(super) fn install(devices: Devices) -> Result<SyscallFilter, FilterError> {
    let processor: TargetArch =
        std::env::consts::ARCH.try_into().map_err(FilterError::Processor)?;
    let errno = |number: i32| SeccompAction::Errno(number.unsigned_abs());
    let clone3 = Rules::from([(libc::SYS_clone3, Vec::new())]);
    let (rules, listed, others, filter) = match devices {
        Devices::Processor => {
            (allowed()?, SeccompAction::Allow, errno(libc::EPERM), SyscallFilter::Allowed)
        }
        Devices::Drivers => {
            (denied(), errno(libc::EPERM), SeccompAction::Allow, SyscallFilter::Denied)
        }
    };
    let filters = [
        SeccompFilter::new(clone3, SeccompAction::Allow, errno(libc::ENOSYS), processor)?,
        SeccompFilter::new(rules, others, listed, processor)?,
    ];
    for filter in filters {
        let program: seccompiler::BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(filter)
}

/// What an engine on the processor calls.
fn allowed() -> Result<Rules, BackendError> {
    let mut rules: Rules = ALWAYS.iter().map(|&number| (number, Vec::new())).collect();
    let own = u64::from(std::process::id());
    rules.extend([
        // Its own threads and no process; no namespaces.
        (libc::SYS_clone, vec![all(&[(0, Qword, masked(CLONE_MASK), CLONE_THREADS)])?]),
        // The other filter says that it does not exist.
        (libc::SYS_clone3, Vec::new()),
        // `abort` signals the process that it is in.
        (libc::SYS_tgkill, vec![all(&[(0, Dword, Eq, own)])?]),
        // Limits are asked for, never set: no new limit is handed over.
        (libc::SYS_prlimit64, vec![all(&[(2, Qword, Eq, 0)])?]),
        // Files are opened to be read. Landlock says the same, where there is one.
        (libc::SYS_openat, vec![all(&[(2, Dword, masked(WRITES), 0)])?]),
        // Nothing that is written is ever run.
        (libc::SYS_mmap, vec![all(&[(2, Dword, masked(EXECUTES), 0)])?]),
        (libc::SYS_mprotect, vec![all(&[(2, Dword, masked(EXECUTES), 0)])?]),
        (libc::SYS_fcntl, one_of(1, FCNTL)?),
        (libc::SYS_prctl, one_of(0, PRCTL)?),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![all(&[(1, Dword, masked(WRITES), 0)])?]);
    Ok(rules)
}

/// Flags of `clone` that are looked at: what makes a thread, and what makes a namespace.
const CLONE_MASK: u64 = CLONE_THREADS
    | bits(CLONE_NEWCGROUP | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWNS)
    | bits(CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWUTS);

/// What a thread is cloned with, among others.
const CLONE_THREADS: u64 = bits(CLONE_VM | CLONE_THREAD | CLONE_SIGHAND);

/// Flags of `open` that change a file.
const WRITES: u64 = bits(libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC);

/// Memory that can be run.
const EXECUTES: u64 = bits(libc::PROT_EXEC);

/// What is asked of a file that is open: whether it is, and for a second handle on it.
const FCNTL: &[i32] = &[libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC];

/// Names of threads and of memory; and what the jail looks at to measure itself.
const PRCTL: &[i32] = &[
    libc::PR_SET_NAME,
    libc::PR_GET_NAME,
    PR_SET_VMA,
    libc::PR_GET_DUMPABLE,
    libc::PR_GET_NO_NEW_PRIVS,
    libc::PR_GET_PDEATHSIG,
];

/// Names a range of memory: the C library does it, and goes on where it may not.
const PR_SET_VMA: i32 = 0x5356_4d41;

/// Calls that are harmless whatever they are called with: they work on memory, threads, clocks and
/// files that are open already, or look at files by name without opening them.
const ALWAYS: &[i64] = &[
    // Files that are open, and names.
    libc::SYS_close,
    libc::SYS_fadvise64,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_lseek,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_statx,
    libc::SYS_write,
    libc::SYS_writev,
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Threads of this process. Where they run is chosen by `team/seat.rs`; another process of the
    // same user could be moved to another core as well, and nothing worse.
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_gettid,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    // Signals of its own.
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // What it is, what the time is, and what cannot be guessed.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_nanosleep,
    libc::SYS_sysinfo,
    libc::SYS_times,
    libc::SYS_uname,
    // The same by their old names.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_getrlimit,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// What no engine calls, with any device.
fn denied() -> Rules {
    let numbers = NEVER.iter().flat_map(|&number| aliases(number));
    numbers.map(|number| (number, Vec::new())).collect()
}

/// A call's numbers. Kernels that run programs with short pointers know each call by a second one.
fn aliases(number: i64) -> impl Iterator<Item = i64> {
    const SHORT_POINTERS: i64 = 0x4000_0000;
    let second = cfg!(target_arch = "x86_64").then_some(number | SHORT_POINTERS);
    std::iter::once(number).chain(second)
}

/// Calls that reach beyond the process. Drivers make pairs of sockets and events for themselves:
/// `socketpair` and `eventfd2` are not here.
const NEVER: &[i64] = &[
    // The network.
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_socket,
    // Programs and processes, and what other processes hold.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_tkill,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Who it is.
    libc::SYS_capset,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setuid,
    // What it sees of the machine.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // The kernel itself, and the parts of it that most holes were found in.
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_perf_event_open,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
];

/// Flags as a filter compares them.
const fn bits(flags: i32) -> u64 {
    flags.unsigned_abs() as u64
}

/// The arguments that hold, under these bits, the value that is compared with.
fn masked(mask: u64) -> SeccompCmpOp {
    MaskedEq(mask)
}

/// A condition: which argument, how wide, how compared, with what.
type Condition = (u8, SeccompCmpArgLen, SeccompCmpOp, u64);

fn all(conditions: &[Condition]) -> Result<SeccompRule, BackendError> {
    let conditions = conditions.iter().cloned();
    let conditions =
        conditions.map(|(index, len, op, value)| SeccompCondition::new(index, len, op, value));
    SeccompRule::new(conditions.collect::<Result<_, _>>()?)
}

fn one_of(index: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|&value| all(&[(index, Dword, Eq, bits(value))])).collect()
}
