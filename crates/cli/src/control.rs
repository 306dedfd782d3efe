//! Speaking to the node that runs on a data folder.

use anyhow::Context as _;
use commons_gateway::control::{Client, ClientError};

use crate::settings::{Settings, quote};

/// A client of the node on this folder. Nothing is opened yet.
pub(crate) fn client(settings: &Settings) -> anyhow::Result<Client> {
    Ok(Client::new(settings.control_path()?))
}

/// Adds what a person needs to know when a call did not succeed: which folder was meant, and
/// what starts a node on it.
pub(crate) trait Explain<T> {
    fn explain(self, what: &'static str, settings: &Settings) -> anyhow::Result<T>;
}

impl<T> Explain<T> for Result<T, ClientError> {
    fn explain(self, what: &'static str, settings: &Settings) -> anyhow::Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(ClientError::NotRunning { .. }) => {
                anyhow::bail!(
                    "no node runs on the data folder {}; start one with `{}`",
                    quote(&settings.data_dir),
                    settings.up_command()
                )
            }
            Err(error) => Err(error).context(what),
        }
    }
}
