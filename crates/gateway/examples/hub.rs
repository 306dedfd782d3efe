//! A hub of folders on loopback, for tools to be driven against: see `cargo xtask conform hub`.
//!
//! `hub FOLDER` serves `FOLDER/ORG/NAME` as models and `FOLDER/datasets/ORG/NAME` as data sets, and
//! prints its address. Files of the models of `cut` break off after [`CUT_SIZE`] bytes, each time
//! that they are read: only a tool that asks for the rest gets them whole. It ends when its input
//! ends.
//!
//! Everything is kept in memory; the catalogue and the store of a node are not here.

#![expect(clippy::print_stdout, reason = "whoever started it reads the address")]

#[path = "../tests/it/shelf.rs"]
mod shelf;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use commons_gateway::{GatewayConfig, ServeLimits, bind_tcp, hub_router, serve_tcp};
use commons_port::hub::{Hub, HubError, Repo, RepoFile, RepoKind};
use commons_port::{BoxFuture, BoxStream};
use commons_record::Hash;
use futures::{StreamExt, stream};
use tokio::io::AsyncReadExt;

use shelf::{Sha, Shelf};

/// A read of less is not cut. `huggingface_hub` keeps whole steps of 10 MiB of what it got.
const CUT_SIZE: u64 = 12 * 1024 * 1024;

/// The SHA-256 of a file of less is not known, so that both kinds of names are driven.
const SMALL_SIZE: usize = 4 * 1024;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).ok_or("usage: hub FOLDER")?;
    let folder = PathBuf::from(folder);
    let mut shelf = Shelf::default();
    add_all(&mut shelf, RepoKind::Model, &folder)?;
    add_all(&mut shelf, RepoKind::Dataset, &folder.join("datasets"))?;
    let mut cut = Vec::new();
    read_all(&folder.join("cut"), "", &mut cut)?;
    let cut = cut.iter().map(|(_, bytes, _)| Hash::of_content(bytes)).collect();
    let hub = Arc::new(Cutting { shelf, cut });
    let router = hub_router(hub, GatewayConfig::default());
    let listener = bind_tcp("127.0.0.1:0".parse()?, false).await?;
    println!("http://{}", listener.local_addr()?);
    let ended = async {
        if let Err(error) = tokio::io::stdin().read_to_end(&mut Vec::new()).await {
            eprintln!("the input broke off: {error}");
        }
    };
    serve_tcp(listener, router, ServeLimits::default(), ended).await;
    Ok(())
}

/// Puts every `ORG/NAME` below a folder on the shelf.
fn add_all(shelf: &mut Shelf, kind: RepoKind, folder: &Path) -> io::Result<()> {
    for org in names(folder)?.into_iter().filter(|org| org != "datasets") {
        for name in names(&folder.join(&org))? {
            let mut files = Vec::new();
            read_all(&folder.join(&org).join(&name), "", &mut files)?;
            shelf.add(kind, &format!("{org}/{name}"), files);
        }
    }
    Ok(())
}

fn read_all(folder: &Path, prefix: &str, files: &mut Vec<(String, Bytes, Sha)>) -> io::Result<()> {
    for name in names(folder)? {
        let (at, path) = (folder.join(&name), format!("{prefix}{name}"));
        if at.is_dir() {
            read_all(&at, &format!("{path}/"), files)?;
            continue;
        }
        let bytes = Bytes::from(std::fs::read(&at)?);
        let sha = if bytes.len() < SMALL_SIZE { Sha::Unknown } else { Sha::Known };
        files.push((path, bytes, sha));
    }
    Ok(())
}

/// What is in a folder; nothing where there is none.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let names = std::fs::read_dir(folder)?;
    let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

/// A shelf whose reads of some files break off.
struct Cutting {
    shelf: Shelf,
    cut: Vec<Hash>,
}

impl Hub for Cutting {
    fn repo(
        &self,
        kind: RepoKind,
        id: String,
        revision: String,
    ) -> BoxFuture<'static, Result<Repo, HubError>> {
        self.shelf.repo(kind, id, revision)
    }

    fn search(
        &self,
        kind: RepoKind,
        query: String,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<Repo>, HubError>> {
        self.shelf.search(kind, query, limit)
    }

    fn read(
        &self,
        file: RepoFile,
        offset: u64,
        len: u64,
    ) -> BoxStream<'static, Result<Bytes, HubError>> {
        if len <= CUT_SIZE || !self.cut.contains(&file.blob) {
            return self.shelf.read(file, offset, len);
        }
        let detail = "it breaks off to see who asks again".to_owned();
        let broken = HubError::Unavailable { what: file.path.clone(), detail };
        self.shelf.read(file, offset, CUT_SIZE).chain(stream::iter([Err(broken)])).boxed()
    }
}
