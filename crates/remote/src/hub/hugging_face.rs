//! What a repository of Hugging Face, or of a host that speaks its API, has.
//!
//! ```text
//! GET /api/{models,datasets}/ORG/REPO/revision/REV?blobs=true     the commit, the card, the files
//! GET /api/{models,datasets}/ORG/REPO/tree/COMMIT?recursive=true  where the first gave no sizes
//! ```
//!
//! Fields that are relied upon, as the client library `huggingface_hub` reads them:
//!
//! * of the first: `sha`; `cardData.{license,license_name,base_model}`;
//!   `siblings[].{rfilename,size,blobId,lfs.{sha256,size}}`;
//! * of the second: `[].{type,path,size,oid,lfs.{oid,size}}`, and `Link: <URL>; rel="next"`;
//! * of a refusal: `x-error-code` (`RepoNotFound`, `RevisionNotFound`, `EntryNotFound`).
//!
//! The commit is part of every file's address, so that a branch that moves changes nothing.

use commons_port::hub::{Digest, Listing, OriginError, OriginFile, RepoKind, source};
use hyper::HeaderMap;
use hyper::header::LINK;
use serde::Deserialize;

use super::Inner;
use super::client::Ask;
use super::json::{Items, Words};
use super::licence::spdx;
use super::place::{Place, encoded, encoded_path};
use crate::fault::words;

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) kind: RepoKind,
    pub(crate) repo: String,
    pub(crate) revision: Option<String>,
    pub(crate) file: Option<String>,
    /// All of it, as a person wrote it.
    pub(crate) what: String,
}

#[derive(Debug, Deserialize)]
struct Info {
    sha: String,
    #[serde(default, rename = "cardData")]
    card: Option<Card>,
    #[serde(default)]
    siblings: Items<Sibling>,
}

#[derive(Debug, Default, Deserialize)]
struct Card {
    #[serde(default)]
    license: Words,
    #[serde(default)]
    license_name: Words,
    #[serde(default)]
    base_model: Words,
}

#[derive(Debug, Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default, rename = "blobId")]
    blob_id: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

/// A large file. The first question calls its hash `sha256`, the second one `oid`.
#[derive(Debug, Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    oid: Option<String>,
    #[serde(default)]
    lfs: Option<Lfs>,
}

impl From<Entry> for Sibling {
    fn from(entry: Entry) -> Self {
        let Entry { path, size, oid, lfs, .. } = entry;
        Self { rfilename: path, size, blob_id: oid, lfs }
    }
}

pub(crate) async fn list(hubs: &Inner, wanted: &Wanted) -> Result<Listing, OriginError> {
    let revision = encoded(wanted.revision.as_deref().unwrap_or("main"));
    let route = format!("{}/revision/{revision}?blobs=true", api(wanted));
    let (_, body) = ask(hubs, Place::below(&hubs.hugging_face, &route), wanted).await?;
    let info: Info = read(hubs, &body)?;
    if !is_commit(&info.sha) {
        let detail = "its revision is no commit of 40 hexadecimal digits".to_owned();
        return Err(broken(hubs, detail));
    }
    let mut siblings = info.siblings.0;
    if siblings.iter().any(|it| it.size.is_none() && it.lfs.is_none()) {
        siblings = tree(hubs, wanted, &info.sha).await?;
    }
    if siblings.len() > hubs.client.limits().files {
        let detail = format!("it has more than {} files", hubs.client.limits().files);
        return Err(OriginError::Refused { what: wanted.what.clone(), detail });
    }
    let mut files = Vec::new();
    let mut paths = std::collections::BTreeSet::new();
    for sibling in siblings {
        let file = file(hubs, wanted, &info.sha, sibling)?;
        if !paths.insert(file.path.clone()) {
            return Err(broken(hubs, format!("it lists {} twice", words(&file.path, None))));
        }
        if wanted.file.as_ref().is_none_or(|it| *it == file.path) {
            files.push(file);
        }
    }
    if files.is_empty() && wanted.file.is_some() {
        return Err(OriginError::NotFound { what: format!("the file of {}", wanted.what) });
    }
    let card = info.card.unwrap_or_default();
    Ok(Listing {
        revision: info.sha,
        licence: spdx(&card.license.0, &card.license_name.0),
        base_models: card.base_model.0.into_iter().filter(|it| source::is_repo(it)).collect(),
        files,
    })
}

/// The files of a commit, page by page.
async fn tree(hubs: &Inner, wanted: &Wanted, commit: &str) -> Result<Vec<Sibling>, OriginError> {
    let files_max = hubs.client.limits().files;
    let route = format!("{}/tree/{commit}?recursive=true", api(wanted));
    let mut place = Place::below(&hubs.hugging_face, &route);
    let mut siblings: Vec<Sibling> = Vec::new();
    loop {
        let (headers, body) = ask(hubs, place.clone(), wanted).await?;
        let entries: Items<Entry> = read(hubs, &body)?;
        let is_empty = entries.0.is_empty();
        let found = entries.0.into_iter().filter(|it| it.kind == "file");
        siblings.extend(found.map(Sibling::from));
        let Some(link) = next_page(&headers) else { return Ok(siblings) };
        // An empty page that has a next one could go on for ever.
        if siblings.len() > files_max || is_empty {
            let detail = format!("its list does not end within {files_max} files");
            return Err(OriginError::Refused { what: wanted.what.clone(), detail });
        }
        let next = place.redirect(&link).ok().filter(|it| it.is_at(&hubs.hugging_face));
        place = next.ok_or_else(|| {
            broken(hubs, "the next page of its list is on another host".to_owned())
        })?;
    }
}

async fn ask(
    hubs: &Inner,
    place: Place,
    wanted: &Wanted,
) -> Result<(HeaderMap, Vec<u8>), OriginError> {
    let token = hubs.token_for(&place);
    let ask = Ask { accept: "application/json", token, ..Ask::get(place, &wanted.what) };
    let (answer, body) = hubs.client.whole(&ask).await?;
    Ok((answer.reply.headers, body))
}

fn api(wanted: &Wanted) -> String {
    let kind = match wanted.kind {
        RepoKind::Model => "models",
        RepoKind::Dataset => "datasets",
    };
    format!("/api/{kind}/{}", wanted.repo)
}

fn file(
    hubs: &Inner,
    wanted: &Wanted,
    commit: &str,
    sibling: Sibling,
) -> Result<OriginFile, OriginError> {
    let Sibling { rfilename: path, size, blob_id, lfs } = sibling;
    if !source::is_plain_path(&path) {
        let detail = format!("the path {} is not one that goes down only", words(&path, None));
        return Err(OriginError::Refused { what: wanted.what.clone(), detail });
    }
    let shown = || words(&path, None);
    let missing = || broken(hubs, format!("it does not say how large {} is", shown()));
    let size = lfs.as_ref().map(|it| it.size).or(size).ok_or_else(missing)?;
    let max = hubs.client.limits().file_bytes;
    if size > max {
        let detail = format!("{} is said to have {size} bytes, more than {max}", shown());
        return Err(OriginError::Refused { what: wanted.what.clone(), detail });
    }
    let digest = match (lfs, blob_id) {
        (Some(lfs), _) => Some(
            sha256(&lfs.sha256)
                .ok_or_else(|| broken(hubs, format!("the hash of {} is no SHA-256", shown())))?,
        ),
        (None, Some(oid)) => git_sha1(&oid),
        (None, None) => None,
    };
    let folder = match wanted.kind {
        RepoKind::Model => "",
        RepoKind::Dataset => "/datasets",
    };
    let route = format!("{folder}/{}/resolve/{commit}/{}", wanted.repo, encoded_path(&path));
    let url = Place::below(&hubs.hugging_face, &route).to_string();
    Ok(OriginFile { path, size, digest, url })
}

/// The commit that an address of a file is pinned to, if it is one of this host's.
pub(crate) fn pinned(hubs: &Inner, place: &Place) -> Option<String> {
    let route = place.route_at(&hubs.hugging_face)?;
    let (_, after) = route.split_once("/resolve/")?;
    let commit = after.split('/').next()?;
    is_commit(commit).then(|| commit.to_owned())
}

fn read<T: serde::de::DeserializeOwned>(hubs: &Inner, body: &[u8]) -> Result<T, OriginError> {
    serde_json::from_slice(body).map_err(|error| {
        broken(hubs, format!("no JSON of the published shape: {}", words(&error.to_string(), None)))
    })
}

fn broken(hubs: &Inner, detail: String) -> OriginError {
    OriginError::Broken { host: hubs.hugging_face.authority(), detail }
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|it| it.is_ascii_digit() || (b'a'..=b'f').contains(&it))
}

/// 64 hexadecimal digits.
pub(crate) fn sha256(hex: &str) -> Option<Digest> {
    let hash = hex.parse::<commons_record::Hash>().ok()?;
    Some(Digest::Sha256(*hash.as_bytes()))
}

/// 40 hexadecimal digits.
pub(crate) fn git_sha1(hex: &str) -> Option<Digest> {
    if !is_commit(hex) {
        return None;
    }
    let mut bytes = [0; 20];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(Digest::GitSha1(bytes))
}

/// Where the next page is: `Link: <URL>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    links.split(',').find_map(|link| {
        let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|it| matches!(it.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| url.to_owned())
    })
}
