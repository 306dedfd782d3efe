//! Which addresses may be listened on, and why one cannot be.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, UnixListener};

/// The shortest `sun_path` among the systems we run on (macOS and the BSDs), less its final
/// zero. Linux takes 107; one number keeps a data folder portable.
pub const SOCKET_PATH_LEN_MAX: usize = 103;

/// Only the owner may give commands.
const SOCKET_MODE: u32 = 0o600;

/// Why an address is not listened on without a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{addr} can be reached from other machines; set an API key, or listen on 127.0.0.1")]
pub struct BindRefusal {
    /// The address.
    pub addr: SocketAddr,
}

/// A listener beyond loopback needs a key.
pub fn check_bind(addr: SocketAddr, has_key: bool) -> Result<(), BindRefusal> {
    // `::ffff:127.0.0.1` is loopback too; `0.0.0.0` and `::` are every address.
    if has_key || addr.ip().to_canonical().is_loopback() {
        Ok(())
    } else {
        Err(BindRefusal { addr })
    }
}

/// Why a listener was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum BindError {
    #[error(transparent)]
    Refused(#[from] BindRefusal),

    #[error(
        "{addr} is taken by another program; stop it, or choose another with `--api ADDR:PORT`"
    )]
    PortTaken { addr: SocketAddr, source: io::Error },

    #[error("{addr} is no address of this machine; choose another with `--api ADDR:PORT`")]
    NotOurs { addr: SocketAddr, source: io::Error },

    #[error("this user may not listen on {addr}; choose a port above 1023 with `--api ADDR:PORT`")]
    NotPermitted { addr: SocketAddr, source: io::Error },

    #[error("failed to listen on {addr}")]
    Tcp { addr: SocketAddr, source: io::Error },

    #[error(
        "the control socket {path} would have a path of {len} bytes, and a socket's path has at \
         most {SOCKET_PATH_LEN_MAX}; choose a shorter folder with `--data-dir DIR`",
        path = path.display()
    )]
    PathTooLong { path: PathBuf, len: usize },

    #[error("another node already runs on this folder: it answers on {path}", path = path.display())]
    SocketTaken { path: PathBuf },

    #[error("{path} is in the way and is no socket; move it, or choose another `--data-dir DIR`", path = path.display())]
    NotASocket { path: PathBuf },

    #[error("failed to open the control socket {path}", path = path.display())]
    Unix { path: PathBuf, source: io::Error },
}

/// Opens the listener of the public API.
pub async fn bind_tcp(addr: SocketAddr, has_key: bool) -> Result<TcpListener, BindError> {
    check_bind(addr, has_key)?;
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken { addr, source },
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs { addr, source },
        io::ErrorKind::PermissionDenied => BindError::NotPermitted { addr, source },
        _ => BindError::Tcp { addr, source },
    })
}

/// Whether a socket can stand at `path`.
pub fn check_socket_path(path: &Path) -> Result<(), BindError> {
    let len = path.as_os_str().len();
    if len > SOCKET_PATH_LEN_MAX {
        return Err(BindError::PathTooLong { path: path.to_owned(), len });
    }
    Ok(())
}

/// Opens the control socket, in place of one that a dead node left behind.
///
/// Call it under the data folder's lock: between looking and binding, another node could come.
/// The folder should be the owner's alone; the socket itself is closed to others too.
pub fn bind_unix(path: &Path) -> Result<UnixListener, BindError> {
    check_socket_path(path)?;
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) if StdUnixStream::connect(path).is_ok() => {
            return Err(BindError::SocketTaken { path: path.to_owned() });
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(listener)
}
