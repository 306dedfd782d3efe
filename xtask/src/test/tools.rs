//! What has to be on the machine before the checks can run.
//!
//! What may be installed without asking is installed: parts of the toolchain through rustup,
//! the C compiler through apt when we are root. For the rest, the error is the line to type.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::shell::{self, cargo};

/// Parts of the toolchain that a minimal installation leaves out.
const COMPONENTS: &[(&str, &str)] = &[("fmt", "rustfmt"), ("clippy", "clippy")];

/// Makes sure that everything is there.
pub(super) fn ensure(root: &Path) -> Result<()> {
    for (subcommand, component) in COMPONENTS {
        ensure_component(root, subcommand, component)?;
    }
    ensure_c_compiler()
}

fn ensure_component(root: &Path, subcommand: &str, component: &str) -> Result<()> {
    if shell::is_installed("cargo", &[subcommand]) {
        return Ok(());
    }
    if !shell::is_installed("rustup", &[]) {
        bail!("`cargo {subcommand}` is missing: install the `{component}` of your Rust toolchain");
    }
    shell::run(Command::new("rustup").args(["component", "add", component]).current_dir(root))?;
    shell::run(&mut cargo(root, &[subcommand, "--version"]))
}

/// `ring` and `aws-lc-sys`, both under libp2p's TLS, compile C and assembly.
fn ensure_c_compiler() -> Result<()> {
    if shell::is_installed("cc", &[]) {
        return Ok(());
    }
    let has_apt = shell::is_installed("apt-get", &[]);
    let is_root = shell::output(Command::new("id").arg("-u")).is_some_and(|it| it.trim() == "0");
    if has_apt && is_root {
        shell::run(Command::new("apt-get").arg("update"))?;
        let packages = ["install", "--yes", "--no-install-recommends", "gcc", "libc6-dev"];
        return shell::run(Command::new("apt-get").args(packages));
    }
    bail!("no C compiler; type: {}", c_compiler_line(has_apt));
}

fn c_compiler_line(has_apt: bool) -> &'static str {
    match std::env::consts::OS {
        "macos" => "xcode-select --install",
        _ if has_apt => "sudo apt-get install --yes gcc libc6-dev",
        _ if shell::is_installed("dnf", &[]) => "sudo dnf install gcc",
        _ if shell::is_installed("pacman", &[]) => "sudo pacman -S gcc",
        _ => "(your system's way to install gcc or clang as `cc`)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_one_line_to_type() {
        for has_apt in [true, false] {
            let line = c_compiler_line(has_apt);
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
    }
}
