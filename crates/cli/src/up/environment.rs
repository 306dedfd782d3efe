//! What a process is told through its environment: what to log.

use anyhow::{Context as _, anyhow};
use tracing_subscriber::EnvFilter;

/// What is logged: a level, or levels by module.
const LOG_VARIABLE: &str = "COMMONS_LOG";

/// Trouble only: what a person should see is told in plain lines. The table of a node that is
/// alone is empty, which is no trouble.
const LOG_DEFAULT: &str = "warn,libp2p_kad=error";

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
