//! The data folder: whether it can be written, who can read it, and whose it is now.

use std::fs;
use std::io;
use std::path::Path;

use super::Finding;
use crate::lock;
use crate::machine;
use crate::output::bytes;
use crate::settings::{Settings, quote};

/// Records of a few thousand answers, and room for a model's download to fail in.
const DISK_MIN: u64 = 256 << 20;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let dir = settings.data_dir.as_path();
    let mut findings = vec![folder(dir)];
    findings.extend(permissions(dir));
    findings.push(disk(dir));
    findings.push(holder(dir));
    if let Err(error) = settings.control_path() {
        let next = "choose a shorter folder with `--data-dir`";
        findings.push(Finding::fault("control", format!("{error:#}"), next));
    }
    findings
}

fn folder(dir: &Path) -> Finding {
    const CHECK: &str = "data folder";
    let name = dir.display();
    let other = "choose another folder with `--data-dir DIR`";
    match fs::metadata(dir) {
        Ok(meta) if !meta.is_dir() => {
            Finding::fault(CHECK, format!("{name} is in the way and is no folder"), other)
        }
        Ok(_) => match writable(dir) {
            Ok(()) => Finding::ok(CHECK, name.to_string()),
            Err(error) => Finding::fault(
                CHECK,
                format!("{name} cannot be written: {error}"),
                format!("give it to this user, or {other}"),
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match nearest(dir) {
            Some(parent) if writable(parent).is_ok() => {
                Finding::ok(CHECK, format!("{name} is not there yet; `commons up` makes it"))
            }
            _ => Finding::fault(CHECK, format!("{name} is not there and cannot be made"), other),
        },
        Err(error) => Finding::fault(CHECK, format!("{name} cannot be looked at: {error}"), other),
    }
}

/// Whether this user may write there, as the system says; nothing is written.
fn writable(dir: &Path) -> io::Result<()> {
    Ok(rustix::fs::access(dir, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)?)
}

/// The closest folder above that is there.
fn nearest(dir: &Path) -> Option<&Path> {
    dir.ancestors().skip(1).find(|it| it.is_dir())
}

/// Whether others can get at the keys.
fn permissions(dir: &Path) -> Option<Finding> {
    use std::os::unix::fs::PermissionsExt as _;
    const CHECK: &str = "keys";
    let keys = dir.join("keys");
    let mode = fs::metadata(&keys).ok()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let next = format!("type `chmod 700 {}`", quote(&keys));
        let detail = format!("others can look into {} (mode {mode:03o})", keys.display());
        return Some(Finding::fault(CHECK, detail, next));
    }
    let files = fs::read_dir(&keys).ok()?.filter_map(Result::ok);
    let lax = files
        .map(|file| file.path())
        .find(|path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o077 != 0));
    Some(match lax {
        Some(path) => Finding::fault(
            CHECK,
            format!("others can read {}", path.display()),
            format!("type `chmod 600 {}`; if they may have read it, make a new key", quote(&path)),
        ),
        None => Finding::ok(CHECK, "only this user can read them"),
    })
}

fn disk(dir: &Path) -> Finding {
    const CHECK: &str = "disk";
    let there = if dir.is_dir() { Some(dir) } else { nearest(dir) };
    let Some(free) = there.and_then(|it| machine::free_disk(it).ok()) else {
        return Finding::ok(CHECK, "this system does not tell how much is free");
    };
    let detail = format!("{} free", bytes(free));
    if free < DISK_MIN {
        let next = "free some space: a node that cannot store records refuses to answer";
        return Finding::fault(CHECK, detail, next);
    }
    Finding::ok(CHECK, detail)
}

fn holder(dir: &Path) -> Finding {
    const CHECK: &str = "lock";
    match lock::is_held(dir) {
        Ok(false) => Finding::ok(CHECK, "no node runs on this folder"),
        Ok(true) => {
            let process =
                lock::holder(dir).map_or_else(String::new, |id| format!(", process {id}"));
            Finding::ok(CHECK, format!("a node runs on this folder{process}"))
        }
        Err(error) => {
            let next = "give the folder to this user, or choose another with `--data-dir DIR`";
            Finding::fault(CHECK, format!("{error:#}"), next)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_no_fault() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        assert_eq!(folder(&dir.path().join("a/b")).verdict, Verdict::Ok);
        assert_eq!(holder(&dir.path().join("a/b")).verdict, Verdict::Ok);
        let file = dir.path().join("file");
        fs::write(&file, "")?;
        assert_eq!(folder(&file).verdict, Verdict::Fault);
        Ok(())
    }

    #[test]
    fn keys_that_others_can_read_are_a_fault() -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir()?;
        let keys = dir.path().join("keys");
        fs::create_dir(&keys)?;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o700))?;
        let key = keys.join("node.key");
        fs::write(&key, "")?;
        let verdict_at = |mode| {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode))?;
            Ok::<_, io::Error>(permissions(dir.path()).map(|it| it.verdict))
        };
        assert_eq!(verdict_at(0o600)?, Some(Verdict::Ok));
        assert_eq!(verdict_at(0o644)?, Some(Verdict::Fault));
        Ok(())
    }
}
