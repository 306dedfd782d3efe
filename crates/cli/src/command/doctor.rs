//! `commons doctor`: what stands in the way of a node on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::doctor;
use crate::output::Output;
use crate::settings::{API_DEFAULT, Settings};

/// Check this machine, the data folder and the running node
///
/// Works with and without a running node. Exits with 1 if a check failed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model file to check as well
    #[arg(long, value_name = "FILE")]
    model: Vec<PathBuf>,

    /// The address that the API would listen on
    #[arg(long, value_name = "ADDR:PORT", default_value_t = API_DEFAULT)]
    api: SocketAddr,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<ExitCode> {
    let subject = doctor::Subject { settings: settings.clone(), models: args.model, api: args.api };
    let findings = doctor::examine(&subject).await;
    out.value(&findings, |findings| doctor::text(findings))?;
    let is_ill = findings.iter().any(|it| it.verdict == doctor::Verdict::Fault);
    Ok(if is_ill { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
