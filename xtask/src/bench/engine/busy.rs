//! A process that never rests, on the first processor: what a shared machine feels like.

use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// Runs until dropped.
#[derive(Debug)]
pub(super) struct Busy(Child);

impl Busy {
    /// Takes the first processor.
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0", "sh", "-c", "while :; do :; done"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn();
        child.map(Self).context("`taskset` of util-linux is needed to take a processor")
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // It ends for no other reason, so a failure to end it means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
