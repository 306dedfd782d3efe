//! Where a node lives on this machine: folders and addresses, resolved once.
//!
//! ```text
//! data folder: --data-dir, else COMMONS_DATA_DIR, else $XDG_DATA_HOME/commons,
//!              else ~/.local/share/commons (macOS: ~/Library/Application Support/commons)
//! control socket: DIR/control.sock
//! ```

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Where the API listens unless told otherwise: one above Ollama's port, so that both can run.
pub(crate) const API_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 11_435);

/// Unix sockets have short names: 104 bytes with the closing zero on macOS, 108 on Linux.
const SOCKET_PATH_LEN_MAX: usize = 103;

/// What the environment says about folders.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    pub(crate) xdg_data_home: Option<OsString>,
    pub(crate) home: Option<OsString>,
}

impl Environment {
    /// Reads this process's own environment.
    #[expect(clippy::disallowed_methods, reason = "this is where settings are read, once")]
    pub(crate) fn read() -> Self {
        Self { xdg_data_home: std::env::var_os("XDG_DATA_HOME"), home: std::env::var_os("HOME") }
    }
}

/// Where things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The node's data folder.
    pub(crate) data_dir: PathBuf,
}

impl Settings {
    /// Decides which folder is meant.
    pub(crate) fn resolve(
        data_dir: Option<PathBuf>,
        environment: &Environment,
    ) -> anyhow::Result<Self> {
        let chosen = data_dir.or_else(|| default_dir(environment));
        let path =
            chosen.context("this user has no home folder: name one with `--data-dir DIR`")?;
        ensure!(!path.as_os_str().is_empty(), "the data folder's name is empty");
        // A node may outlive the folder that it was started in, and messages name the folder.
        let data_dir = std::path::absolute(&path)
            .with_context(|| format!("failed to find the data folder {}", path.display()))?;
        Ok(Self { data_dir })
    }

    /// Where the owner's commands reach the node.
    pub(crate) fn control_path(&self) -> anyhow::Result<PathBuf> {
        let path = self.data_dir.join("control.sock");
        let len = path.as_os_str().len();
        ensure!(
            len <= SOCKET_PATH_LEN_MAX,
            "the control socket's path {} has {len} bytes and the system allows \
             {SOCKET_PATH_LEN_MAX}: choose a shorter folder with `--data-dir`",
            path.display()
        );
        Ok(path)
    }

    /// What starts a node on this folder, to be typed.
    pub(crate) fn up_command(&self) -> String {
        let dir = quote(&self.data_dir);
        format!("commons up --data-dir {dir} --model FILE")
    }
}

fn default_dir(environment: &Environment) -> Option<PathBuf> {
    let is_set = |it: &&OsString| !it.is_empty();
    // The XDG rules ignore a relative path.
    let xdg = environment.xdg_data_home.as_ref().filter(is_set).map(PathBuf::from);
    if let Some(dir) = xdg.filter(|it| it.is_absolute()) {
        return Some(dir.join("commons"));
    }
    let home = PathBuf::from(environment.home.as_ref().filter(is_set)?);
    let data =
        if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Some(home.join(data).join("commons"))
}

/// A path as a shell takes it.
pub(crate) fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |it: char| it.is_alphanumeric() || "/._-+:@".contains(it);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: Option<&str>, xdg: Option<&str>, home: Option<&str>, want: Option<&str>) {
        let environment =
            Environment { xdg_data_home: xdg.map(Into::into), home: home.map(Into::into) };
        let settings = Settings::resolve(given.map(Into::into), &environment);
        let found = settings.ok().map(|it| it.data_dir);
        assert_eq!(found, want.map(PathBuf::from), "{given:?} {xdg:?} {home:?}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_nearest_word_decides_on_the_folder() {
        check(Some("/a"), Some("/x"), Some("/h"), Some("/a"));
        check(None, Some("/x"), Some("/h"), Some("/x/commons"));
        check(None, Some("x"), Some("/h"), Some("/h/.local/share/commons"));
        check(None, Some(""), Some("/h"), Some("/h/.local/share/commons"));
        check(None, None, Some("/h"), Some("/h/.local/share/commons"));
        check(None, None, None, None);
        check(Some(""), None, Some("/h"), None);
    }

    #[test]
    fn a_folder_too_deep_for_a_socket_is_refused() {
        let settings = Settings { data_dir: PathBuf::from("/".to_owned() + &"x".repeat(100)) };
        let error = settings.control_path().map_err(|it| it.to_string());
        assert!(error.is_err_and(|it| it.contains("--data-dir")));
    }

    #[test]
    fn a_path_with_spaces_is_quoted() {
        assert_eq!(quote(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quote(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
