//! `commons pin`, `unpin` and `bind`: what names mean, here and in the mesh.

use commons_node::api::catalogue::PinView;
use commons_record::Hash;

use crate::control::{Explain as _, client};
use crate::output::{Output, table};
use crate::settings::Settings;

/// Say what a name means on this node, or list what you said
///
/// A pin stands above what the authorities of the mesh say. `commons unpin NAME` takes it back.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `ORG/NAME`, or `ORG/NAME@VERSION` for one version; none lists all pins
    #[arg(requires = "release")]
    name: Option<String>,
    /// The release's id, as `commons search` shows it
    release: Option<Hash>,
}

/// Take a pin back
#[derive(Debug, clap::Args)]
pub(crate) struct UnpinArgs {
    /// `ORG/NAME` or `ORG/NAME@VERSION`
    name: String,
}

/// Say what a name means in the whole mesh; for its authorities
#[derive(Debug, clap::Args)]
pub(crate) struct BindArgs {
    /// `ORG/NAME`, or `ORG/NAME@VERSION` for one version
    name: String,
    /// The release's id
    #[arg(required_unless_present = "withdraw")]
    release: Option<Hash>,
    /// The name means nothing any more
    #[arg(long, conflicts_with = "release")]
    withdraw: bool,
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    let Some((name, release)) = args.name.zip(args.release) else {
        let pins = client.pins().await.explain("failed to list pins", settings)?;
        out.value(&pins, |pins| text(pins))?;
        return Ok(());
    };
    let pinned = client.pin(name, release).await.explain("failed to pin the name", settings)?;
    out.value(&pinned, |it| format!("{} means release {release} on this node", it.name))?;
    Ok(())
}

pub(crate) async fn unpin(
    args: UnpinArgs,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let gone = client(settings)?.unpin(args.name).await;
    let gone = gone.explain("failed to take the pin back", settings)?;
    out.value(&gone, |it| format!("{} is not pinned any more", it.name))?;
    Ok(())
}

pub(crate) async fn bind(
    args: BindArgs,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let BindArgs { name, release, withdraw: _ } = args;
    let record = client(settings)?.bind(name.clone(), release).await;
    let record = record.explain("failed to bind the name", settings)?;
    let value = serde_json::json!({ "name": name, "release": release, "record": record });
    out.value(&value, |_| match release {
        Some(release) => format!("{name} means release {release} in the mesh"),
        None => format!("{name} means nothing in the mesh any more"),
    })?;
    Ok(())
}

fn text(pins: &[PinView]) -> String {
    if pins.is_empty() {
        return "no name is pinned: pin one with `commons pin NAME RELEASE`".to_owned();
    }
    let release = |it: &PinView| it.release.map(|it| it.to_string()).unwrap_or_default();
    let rows: Vec<_> = pins.iter().map(|it| [it.name.clone(), release(it)]).collect();
    table(["NAME", "RELEASE"], &rows)
}
