//! `commons engine`: compute models for the node that started this process. Nobody types it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use commons_engine::LocalEngine;
use commons_engine::place::Device;
use commons_port::process::{Jail, JailLevel};
use commons_sandbox::jail::{self, Devices, JailConfig};

use crate::engine::{EngineArgs, Size};
use crate::output::Output;
use crate::up;

/// Compute models for the node at the other end of standard input and output, from inside a jail
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file or folder that may be read; may be given several times
    #[arg(long, value_name = "PATH")]
    read: Vec<PathBuf>,

    /// The process that this one ends with
    #[arg(long, value_name = "ID")]
    parent: Option<u32>,

    /// Memory that this process may have, such as 8GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<Size>,

    /// Close the jail, try every way out, print what came of it, and end
    #[arg(long)]
    probe: bool,

    #[command(flatten)]
    engine: EngineArgs,
}

/// Closes the jail around this thread, which is the only one, and computes until the node is gone.
pub(crate) fn run(args: &Args, out: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let config = args.engine.config()?;
    let jail = jail::enter(&JailConfig {
        readable: args.read.clone(),
        devices: devices(config.device),
        memory_max: args.memory.map(Size::bytes),
        parent: args.parent,
    })?;
    if args.probe {
        out.value(&jail, text)?;
        let is_whole = jail.level() == JailLevel::Full;
        return Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    up::log_to_stderr()?;
    let engine = Arc::new(LocalEngine::new(config));
    let (input, output) = (own(io::stdin())?, own(io::stdout())?);
    commons_engine::process::serve(input, output, &engine, jail)?;
    Ok(ExitCode::SUCCESS)
}

/// What computes: where this program was built for no device, the processor does.
fn devices(device: Device) -> Devices {
    let has_drivers = cfg!(any(feature = "cuda", feature = "metal"));
    match device {
        Device::Cpu => Devices::Processor,
        _ if has_drivers => Devices::Drivers,
        _ => Devices::Processor,
    }
}

/// A pipe without the lock and the buffer around it.
fn own(pipe: impl AsFd) -> anyhow::Result<File> {
    let pipe: OwnedFd = pipe.as_fd().try_clone_to_owned().context("a standard pipe is closed")?;
    Ok(File::from(pipe))
}

fn text(jail: &Jail) -> String {
    let line = |name: &str, refused: Option<&str>| {
        format!("{:<8} {name}\n", refused.unwrap_or("POSSIBLE"))
    };
    let attempts = jail.attempts.iter().map(|it| line(&it.name, it.refused.as_deref()));
    format!("{jail}\n{}", attempts.collect::<String>())
}
