//! The attempts on Linux.
//!
//! JUSTIFICATION: they are system calls that no safe function makes, because programs do not make
//! them.
#![allow(unsafe_code, reason = "see JUSTIFICATION above")]

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use commons_port::process::Attempt;
use rustix::process::{Pid, Resource};

/// The answers that say: you may not. Any other says that the kernel began to do it.
const REFUSALS: &[(i32, &str)] =
    &[(libc::EPERM, "EPERM"), (libc::EACCES, "EACCES"), (libc::ENOSYS, "ENOSYS")];

/// A port of this machine on which nobody listens, mostly: it is reached or it is refused.
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9);

/// What is tried, by the name under which it is told.
type Try = (&'static str, fn(&[PathBuf]) -> io::Result<()>);

pub(super) fn all(readable: &[PathBuf]) -> Vec<Attempt> {
    let told = |&(name, attempt): &Try| {
        Some(Attempt { name: name.to_owned(), refused: outcome(attempt(readable))? })
    };
    TRIES.iter().filter_map(told).collect()
}

/// The error that refused it. The outer none: there was nothing to try it on.
#[expect(
    clippy::option_option,
    reason = "not tried, and tried without being refused, are two things"
)]
fn outcome(tried: io::Result<()>) -> Option<Option<String>> {
    let Err(error) = tried else { return Some(None) };
    if error.kind() == io::ErrorKind::NotFound {
        return None;
    }
    let code = error.raw_os_error();
    let name = REFUSALS.iter().find(|(number, _)| Some(*number) == code);
    Some(name.map(|(_, name)| (*name).to_owned()))
}

const TRIES: &[Try] = &[
    ("read a file of the system", |_| File::open("/etc/passwd").map(drop)),
    ("list the root folder", |_| fs::read_dir("/").map(drop)),
    ("list the processes", |_| fs::read_dir("/proc").map(drop)),
    ("read the parent's environment", |_| File::open(of_parent("environ")).map(drop)),
    ("read the parent's memory", |_| File::open(of_parent("mem")).map(drop)),
    ("list the parent's open files", |_| fs::read_dir(of_parent("fd")).map(drop)),
    ("read the machine's memory", |_| File::open("/dev/mem").map(drop)),
    ("write to a readable file", write_readable),
    ("create a file in /tmp", |_| create(&std::env::temp_dir().join(".commons-probe"))),
    ("create a file beside what is readable", create_beside),
    ("connect over TCP", connect_tcp),
    ("listen on TCP", |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("send over UDP", |_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(drop)),
    ("connect to a socket of this machine", connect_unix),
    ("talk to the kernel over netlink", |_| socket(libc::AF_NETLINK)),
    ("send raw packets", |_| socket(libc::AF_PACKET)),
    ("run a program", |_| Command::new("/bin/true").spawn().and_then(|mut it| it.wait()).map(drop)),
    ("replace itself by a program", |_| call(libc::SYS_execve, [0; 6])),
    ("make a process", fork),
    ("trace the parent", |_| {
        call(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), parent(), 1, 0, 0, 0])
    }),
    ("copy the parent's memory", |_| call(libc::SYS_process_vm_readv, [parent(), 0, 0, 0, 0, 0])),
    ("signal the parent", |_| call(libc::SYS_kill, [parent(), 0, 0, 0, 0, 0])),
    ("hold the parent", |_| call(libc::SYS_pidfd_open, [parent(), 0, 0, 0, 0, 0])),
    ("mount a file system", |_| call(libc::SYS_mount, [0; 6])),
    ("change the root folder", |_| call(libc::SYS_chroot, [0; 6])),
    ("enter a namespace of its own", |_| call(libc::SYS_unshare, [0; 6])),
    ("become another user", |_| call(libc::SYS_setresuid, [-1, -1, -1, 0, 0, 0])),
    ("raise its limits", raise_limits),
    ("use io_uring", |_| call(libc::SYS_io_uring_setup, [0; 6])),
    ("use userfaultfd", |_| call(libc::SYS_userfaultfd, [-1, 0, 0, 0, 0, 0])),
    ("load a program into the kernel", |_| call(libc::SYS_bpf, [-1, 0, 0, 0, 0, 0])),
    ("load a module into the kernel", |_| call(libc::SYS_init_module, [0; 6])),
    ("replace the kernel", |_| call(libc::SYS_kexec_load, [0, 0, 0, -1, 0, 0])),
    ("count the machine's events", |_| call(libc::SYS_perf_event_open, [0, 0, -1, -1, 0, 0])),
    ("use the keys of the kernel", |_| call(libc::SYS_keyctl, [-1, 0, 0, 0, 0, 0])),
];

fn of_parent(name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{}/{name}", parent()))
}

fn parent() -> i64 {
    rustix::process::getppid().map_or(1, |it| i64::from(Pid::as_raw_nonzero(it).get()))
}

/// Makes a file and takes it away again.
fn create(path: &std::path::Path) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).open(path)?;
    fs::remove_file(path)
}

fn write_readable(readable: &[PathBuf]) -> io::Result<()> {
    let file = readable.iter().find(|it| it.is_file());
    // Not truncated, and nothing is written.
    file.map_or_else(nothing, |file| OpenOptions::new().append(true).open(file).map(drop))
}

fn create_beside(readable: &[PathBuf]) -> io::Result<()> {
    let folder =
        |it: &PathBuf| if it.is_dir() { Some(it.clone()) } else { it.parent().map(Into::into) };
    let folder = readable.iter().find_map(folder);
    folder.map_or_else(nothing, |it| create(&it.join(".commons-probe")))
}

fn nothing() -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn connect_tcp(_: &[PathBuf]) -> io::Result<()> {
    const WAIT: Duration = Duration::from_millis(100);
    match TcpStream::connect_timeout(&LOOPBACK, WAIT) {
        // Somebody was there, and listened or not: the network can be reached.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        tried => tried.map(drop),
    }
}

fn connect_unix(_: &[PathBuf]) -> io::Result<()> {
    let addr = UnixAddr::from_abstract_name("commons-probe")?;
    match UnixStream::connect_addr(&addr) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        tried => tried.map(drop),
    }
}

fn socket(family: i32) -> io::Result<()> {
    let kind = i64::from(libc::SOCK_RAW | libc::SOCK_CLOEXEC);
    let result = call(libc::SYS_socket, [i64::from(family), kind, 0, 0, 0, 0]);
    match result.as_ref().map_err(io::Error::raw_os_error) {
        // The kernel was reached, and lacks the family or the right: a right is a refusal.
        Err(Some(libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT)) => Ok(()),
        _ => result,
    }
}

/// Asks for a process with flags that no kernel accepts together: signal handlers are shared only
/// where memory is.
fn fork(_: &[PathBuf]) -> io::Result<()> {
    let flags = i64::from(libc::CLONE_SIGHAND);
    call(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])
}

/// Sets the limit of open files to what it is, which a process that may set limits may do.
fn raise_limits(_: &[PathBuf]) -> io::Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    Ok(rustix::process::setrlimit(Resource::Nofile, limit)?)
}

fn call(number: i64, args: [i64; 6]) -> io::Result<()> {
    let [first, second, third, fourth, fifth, sixth] = args;
    // SAFETY: every call above is made with null pointers, or with numbers alone, and none of them
    // makes the kernel write to memory of this process. `clone` is called with flags that no
    // kernel accepts, `execve` without a program, and `ptrace` with an address that it refuses.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth, sixth) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
