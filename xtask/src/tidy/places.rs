//! No file names a place that only exists where it was written: folders of one machine,
//! mirrors of package registries.
//!
//! The strings looked for are written in halves, or this file would break its own rules.

use super::{Problem, Tree, source::numbered};

const FOLDERS: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

const REGISTRIES: &[&str] = &[
    concat!("deb.", "debian.org"),
    concat!("archive.", "ubuntu.com"),
    concat!("index.", "crates.io"),
    concat!("static.", "crates.io"),
    concat!("pypi", ".org"),
    concat!("python", "hosted.org"),
    concat!("registry.", "npmjs.org"),
    concat!("proxy.", "golang.org"),
    concat!("--index", "-url"),
];

/// The one source of third-party code.
const CRATES_IO: &str = "\"registry+https://github.com/rust-lang/crates.io-index\"";

/// No path of one machine.
pub(super) fn check_paths(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, text) in tree.texts() {
        for (line, text) in numbered(text) {
            for folder in FOLDERS.iter().filter(|it| has_absolute(text, it)) {
                let message = format!("`{folder}` is a folder of one machine: make it relative");
                problems.push(Problem::new(&file.path, line, "machine-path", message));
            }
        }
    }
    problems
}

/// Whether the folder stands there from the root and not as a part of a longer path.
fn has_absolute(line: &str, folder: &str) -> bool {
    line.match_indices(folder).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|it| it.is_alphanumeric() || "_.-~*}>".contains(it))
    })
}

/// No host of a registry, no mirror in cargo's settings, no other source in `Cargo.lock`.
pub(super) fn check_registries(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (file, text) in tree.texts() {
        let path = file.path.as_str();
        let (is_lock, is_settings) = (path == "Cargo.lock", path.starts_with(".cargo/"));
        for (line, text) in numbered(text) {
            let source = text.strip_prefix("source = ").filter(|_| is_lock);
            let is_mirror = is_settings && text.trim_start().starts_with("[source.");
            let message = if source.is_some_and(|it| it != CRATES_IO) || is_mirror {
                "crates come from crates.io and nowhere else".to_owned()
            } else if let Some(host) = REGISTRIES.iter().find(|it| text.contains(**it)) {
                format!("`{host}` is a package registry: leave it to the user's own settings")
            } else {
                continue;
            };
            problems.push(Problem::new(path, line, "registry", message));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{super::check, *};

    #[test]
    fn a_folder_of_one_machine_is_named() {
        for folder in FOLDERS {
            check(check_paths, &[("a.md", &format!("\nsee {folder}x"))], &["a.md:2"]);
            check(check_paths, &[("a.md", &format!("file://{folder}x"))], &["a.md:1"]);
            check(check_paths, &[("a.md", &format!("crates{folder}x, ~{folder}x"))], &[]);
        }
    }

    #[test]
    fn a_registry_is_named() {
        for host in REGISTRIES {
            check(check_registries, &[("a.sh", &format!("get https://{host}/x"))], &["a.sh:1"]);
        }
        check(check_registries, &[(".cargo/config.toml", "[source.x]")], &[".cargo/config.toml:1"]);
        let lock = format!("source = {CRATES_IO}\nsource = \"git+https://example.org/x\"\n");
        check(check_registries, &[("Cargo.lock", &lock)], &["Cargo.lock:2"]);
    }
}
