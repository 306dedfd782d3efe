//! `commons publish`: signs a release of files under a name.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use commons_gateway::control::Client;
use commons_node::api::catalogue::{PublishedView, ReleaseDraft};
use commons_record::Hash;
use commons_record::catalogue::{
    Derivation, FILES_MAX, FilePath, Relation, ReleaseFile, ReleaseKind, RepoName, Version,
};

use crate::command::blobs;
use crate::control::{Explain as _, client};
use crate::output::Output;
use crate::settings::Settings;

/// Folders inside each other: as deep as a path of a release may be.
const DEPTH_MAX: usize = 16;

/// Publish files under a name: sign a release that all members of the mesh learn of
///
/// The name means this release on this node from then on, and in the whole mesh if you are one of
/// its authorities. Others are shown who claims the name, and choose with `commons pin`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A file, or a folder with all that is in it
    path: PathBuf,
    /// What to call it: `ORG/NAME`
    #[arg(long)]
    name: RepoName,
    /// Tells it from other releases of the name
    #[arg(long)]
    version: Version,
    /// An SPDX expression, such as `MIT` or `Apache-2.0 OR MIT`; others as `LicenseRef-NAME`
    #[arg(long, visible_alias = "license")]
    licence: String,
    /// What it holds
    #[arg(long, value_enum, default_value_t = Kind::Model)]
    kind: Kind,
    /// What it was made from, as `RELATION=NAME` or `RELATION=HASH`, such as
    /// `quantised-from=acme/stories`
    #[arg(long = "from", value_name = "RELATION=WHAT", value_parser = parse_origin)]
    origins: Vec<Origin>,
    /// What you want to be called [default: your key]
    #[arg(long)]
    author: Option<String>,
    /// A paragraph for people
    #[arg(long, default_value = "")]
    description: String,
    /// Copy the files into the data folder; else they are given from where they lie
    #[arg(long)]
    copy: bool,
    /// A word that people search for; can be given many times
    #[arg(long = "tag", value_name = "WORD")]
    tags: Vec<String>,
}

/// Kinds of releases, as they are typed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    /// Weights with what belongs to them
    Model,
    /// What changes a model
    Adapter,
    /// Data
    Dataset,
    /// Anything else
    Other,
}

impl From<Kind> for ReleaseKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Model => Self::Model,
            Kind::Adapter => Self::Adapter,
            Kind::Dataset => Self::DataSet,
            Kind::Other => Self::Other,
        }
    }
}

/// What a release was made from, as it was typed.
#[derive(Debug, Clone)]
struct Origin {
    relation: Relation,
    what: String,
}

fn parse_origin(text: &str) -> Result<Origin, String> {
    let (relation, what) = text.split_once('=').ok_or("it is not RELATION=WHAT")?;
    let found = Relation::ALL.into_iter().find(|it| it.as_str() == relation);
    let all = || Relation::ALL.map(Relation::as_str).join(", ");
    let relation = found.ok_or_else(|| format!("{relation:?} is none of {}", all()))?;
    Ok(Origin { relation, what: what.to_owned() })
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    let client = client(settings)?;
    let mut lineage = Vec::with_capacity(args.origins.len());
    for origin in args.origins {
        lineage.push(derivation(&client, origin, settings).await?);
    }
    let mut files = Vec::new();
    for (file, inner) in found(&args.path)? {
        let added = blobs::add(file, args.copy, settings, out).await?;
        files.push(ReleaseFile {
            path: inner,
            blob: added.blob,
            size: added.size,
            sha256: Some(added.sha256),
            recipe: Some(added.recipe),
        });
    }
    let draft = ReleaseDraft {
        kind: args.kind.into(),
        name: args.name,
        version: args.version,
        files,
        licence: args.licence,
        lineage,
        author: args.author,
        description: args.description,
        tags: args.tags,
        previous: None,
    };
    let published = client.publish(&draft).await.explain("failed to publish", settings)?;
    out.value(&published, text)?;
    Ok(())
}

fn text(it: &PublishedView) -> String {
    let PublishedView { release, name, version, is_bound, .. } = it;
    let reach = if *is_bound {
        "the name means it in the whole mesh"
    } else {
        "the name means it on this node; others choose with `commons pin`"
    };
    format!("published {name}@{version} as release {release}: {reach}")
}

/// What a release was made from: a release that the node knows, or a file by its hash.
async fn derivation(
    client: &Client,
    Origin { relation, what }: Origin,
    settings: &Settings,
) -> anyhow::Result<Derivation> {
    let shown = client.show(what.clone()).await;
    let (release, blob, label) = match (shown, what.parse::<Hash>()) {
        (Ok(view), _) => {
            let label = format!("{}@{}", view.body.name, view.body.version);
            (Some(view.release), None, Some(label))
        }
        (Err(_), Ok(blob)) => (None, Some(blob), None),
        (shown, Err(_)) => {
            shown.explain("failed to find what it was made from", settings)?;
            bail!("{what:?} names nothing that it could be made from");
        }
    };
    Ok(Derivation { relation, release, blob, label })
}

/// A file, or all files of a folder, each with its path in the release.
fn found(path: &Path) -> anyhow::Result<Vec<(PathBuf, FilePath)>> {
    let about =
        std::fs::metadata(path).with_context(|| format!("no file at {}", path.display()))?;
    let mut files = Vec::new();
    if about.is_dir() {
        walk(path, "", 0, &mut files)?;
        ensure!(!files.is_empty(), "there is no file in {}", path.display());
    } else {
        let name = path.file_name().and_then(|it| it.to_str());
        files.push((path.to_owned(), inner(name.context("the file's name is not UTF-8")?)?));
    }
    Ok(files)
}

fn walk(
    folder: &Path,
    prefix: &str,
    depth: usize,
    files: &mut Vec<(PathBuf, FilePath)>,
) -> anyhow::Result<()> {
    ensure!(depth < DEPTH_MAX, "{} is more than {DEPTH_MAX} folders deep", folder.display());
    let unreadable = || format!("failed to read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
        let place = format!("{prefix}{name}");
        // What a link leads to may lie anywhere.
        let kind = entry.file_type().with_context(unreadable)?;
        if kind.is_dir() {
            walk(&path, &format!("{place}/"), depth + 1, files)?;
        } else if kind.is_file() {
            ensure!(files.len() < FILES_MAX, "a release has {FILES_MAX} files at most");
            files.push((path, inner(&place)?));
        } else {
            bail!("{} is a link or a device; a release holds plain files", path.display());
        }
    }
    Ok(())
}

fn inner(path: &str) -> anyhow::Result<FilePath> {
    path.parse().context("the release cannot hold this file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_published_with_all_that_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("q4")).unwrap();
        std::fs::write(folder.path().join("q4/model.gguf"), b"weights").unwrap();
        std::fs::write(folder.path().join("README.md"), b"").unwrap();
        let names = |path: &Path| {
            let mut all: Vec<_> = found(path).unwrap().iter().map(|it| it.1.to_string()).collect();
            all.sort();
            all
        };
        assert_eq!(names(folder.path()), ["README.md", "q4/model.gguf"]);
        assert_eq!(names(&folder.path().join("q4/model.gguf")), ["model.gguf"]);
        assert!(found(&folder.path().join("none")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("x")).unwrap();
        let error = found(folder.path()).unwrap_err().to_string();
        assert!(error.contains("plain files"), "{error}");
    }

    #[test]
    fn what_it_was_made_from_is_typed_as_words() {
        let origin = parse_origin("adapter-of=acme/base@1").unwrap();
        assert_eq!((origin.relation, origin.what.as_str()), (Relation::AdapterOf, "acme/base@1"));
        assert!(parse_origin("adapter-of").is_err());
        assert!(parse_origin("stolen-from=x").unwrap_err().contains("quantised-from"));
    }
}
