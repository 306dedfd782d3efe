//! What a process is told through its environment: threads and logs.

use std::num::NonZeroU16;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, anyhow};
use tracing_subscriber::EnvFilter;

/// The size of the engine's pool is read from here, once for the whole process.
const THREADS_VARIABLE: &str = "RAYON_NUM_THREADS";

/// What is logged: a level, or levels by module.
const LOG_VARIABLE: &str = "COMMONS_LOG";

/// Trouble only: what a person should see is told in plain lines. The table of a node that is
/// alone is empty, which is no trouble.
const LOG_DEFAULT: &str = "warn,libp2p_kad=error";

/// Makes the engine compute with so many threads, and returns how many were set by anybody.
///
/// The engine's pool reads its size from the environment, and a process cannot safely change its
/// own. So the program starts itself anew in its own place, once: same process, same files.
#[expect(clippy::disallowed_methods, reason = "settings are read here, where the program starts")]
pub(crate) fn use_threads(wanted: Option<NonZeroU16>) -> anyhow::Result<Option<NonZeroU16>> {
    let set = std::env::var(THREADS_VARIABLE).ok().and_then(|it| it.parse::<NonZeroU16>().ok());
    let Some(wanted) = wanted.filter(|wanted| set != Some(*wanted)) else { return Ok(set) };
    let program = std::env::current_exe().context("failed to find this program")?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1)).env(THREADS_VARIABLE, wanted.to_string());
    // Returns only if it failed.
    Err(anyhow!(command.exec()).context("failed to start with the wanted number of threads"))
}

/// Logs go to standard error. Secrets are in none: their types do not print them.
#[expect(clippy::disallowed_methods, reason = "settings are read here, where the program starts")]
pub(crate) fn log_to_stderr() -> anyhow::Result<()> {
    let text = std::env::var(LOG_VARIABLE).unwrap_or_else(|_| LOG_DEFAULT.to_owned());
    let filter = EnvFilter::builder().parse(&text);
    let filter = filter.with_context(|| format!("{LOG_VARIABLE}={text:?} is no log filter"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr);
    subscriber.try_init().map_err(|error| anyhow!("failed to begin to log: {error}"))
}
