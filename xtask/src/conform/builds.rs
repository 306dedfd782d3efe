//! Two builds of the engine's examples: the one that is shown, and one to hold it against.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    bench,
    shell::{self, cargo},
};

/// The other build: AVX-512 in plain Rust, which any machine with AVX2 runs, and AVX2 that fuses
/// and adds in any order. See `intrinsics.rs` and `matrix/avx2/free.rs` of the kernels.
const OTHER_FLAGS: &str =
    "--cfg emulated_avx512 --cfg free_order -C target-feature=+avx2,+f16c,+fma";

const EXAMPLES: [&str; 5] = ["build", "--release", "--package", "commons-engine", "--examples"];

/// A build, by the folder and the flags that are its own.
pub(super) struct Build {
    folder: PathBuf,
    flags: Option<&'static str>,
}

impl Build {
    /// The engine as everybody builds it.
    pub(super) fn plain(root: &Path) -> Result<Self> {
        let build = Self { folder: bench::target(root)?, flags: None };
        shell::run(&mut build.cargo(root, &EXAMPLES))?;
        Ok(build)
    }

    /// The engine to compare with; none where the machine cannot run it.
    pub(super) fn other(root: &Path) -> Result<Option<Self>> {
        if !can_run_other() {
            return Ok(None);
        }
        let folder = bench::target(root)?.join("conform");
        let build = Self { folder, flags: Some(OTHER_FLAGS) };
        shell::run(&mut build.cargo(root, &EXAMPLES))?;
        Ok(Some(build))
    }

    /// One of its programs.
    pub(super) fn example(&self, name: &str) -> PathBuf {
        self.folder.join("release/examples").join(name)
    }

    /// Cargo, for this build.
    pub(super) fn cargo(&self, root: &Path, args: &[&str]) -> Command {
        let mut command = cargo(root, args);
        command.env("CARGO_TARGET_DIR", &self.folder);
        if let Some(flags) = self.flags {
            command.env("RUSTFLAGS", flags);
        }
        command
    }
}

fn can_run_other() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}
