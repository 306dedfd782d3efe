//! How a place outside is written: `hf:ORG/REPO`, `ollama:NAME`, `https://...#sha256=HEX`.
//!
//! ```text
//! hf:ORG/REPO[@REV][:FILE]            hf:datasets/ORG/REPO[@REV][:FILE]
//! ollama:[USER/]NAME[:TAG]
//! https://HOST[:PORT]/PATH[?QUERY]#sha256=HEX     or #blake3=HEX
//! ```
//!
//! # Invariants
//!
//! * What was read is written as it was read: `Display` and `FromStr` go round.
//! * No part of a source leaves the place that it names: names are plain words, and a file's path
//!   goes down only ([`is_plain_path`]).
//! * A refusal shows a right example. It never repeats an address, which may hold a password.
//!
//! Not here: any request.

use core::net::{IpAddr, Ipv6Addr}; // Of `core`: addresses as text, and no sockets.
use std::fmt;
use std::str::FromStr;

use commons_record::Hash;

use super::{Digest, RepoKind, Source};

/// Longer than any address that a person pastes; signed addresses of storage services have 2 KiB.
pub const SOURCE_LEN_MAX: usize = 4096;

/// Hubs refuse longer names of organisations and repositories.
const NAME_LEN_MAX: usize = 96;

/// Git refuses longer names of branches on most file systems.
const REVISION_LEN_MAX: usize = 255;

/// The specification of container registries allows no longer tag.
const TAG_LEN_MAX: usize = 128;

/// Paths beyond this fail on one file system or another.
const PATH_LEN_MAX: usize = 1024;

/// The longest file name of common file systems.
const PATH_NAME_LEN_MAX: usize = 255;

/// No repository in use is half as deep.
const PATH_DEPTH_MAX: usize = 32;

/// Why a text is no place outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SourceError {
    #[error(
        "a source begins with hf:, ollama: or https://; write it like hf:Qwen/Qwen3-8B-GGUF, \
         ollama:qwen3:8b, or https://example.org/model.gguf#sha256=HEX"
    )]
    Scheme,

    #[error("a source of {len} bytes is too long; at most {SOURCE_LEN_MAX} are read")]
    TooLong { len: usize },

    #[error(
        "{text:?} is no repository: it takes ORG/REPO of letters, digits, `-`, `_` and `.`, like \
         hf:Qwen/Qwen3-8B-GGUF or hf:datasets/HuggingFaceFW/fineweb"
    )]
    Repo { text: String },

    #[error(
        "{text:?} is no revision: a branch, a tag or a commit stands after the `@`, like \
         hf:Qwen/Qwen3-8B-GGUF@main"
    )]
    Revision { text: String },

    #[error(
        "{text:?} is no path of a file: it is relative and goes down only, like \
         hf:Qwen/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf"
    )]
    File { text: String },

    #[error(
        "{text:?} is no model of an Ollama registry: write NAME, NAME:TAG or USER/NAME:TAG, like \
         ollama:qwen3:8b"
    )]
    Ollama { text: String },

    #[error(
        "plain http reaches this machine only; write the address with https, like \
         https://example.org/model.gguf#sha256=HEX"
    )]
    PlainHttp,

    #[error(
        "the address cannot be read: it takes a host, and ascii without spaces, like \
         https://example.org/model.gguf#sha256=HEX"
    )]
    Url,

    #[error(
        "an address must not hold a user name or a password; write it without what stands before \
         the `@`, like https://example.org/model.gguf#sha256=HEX"
    )]
    HasUser,

    #[error(
        "an address names what the file must hash to, so that nobody can exchange it: append \
         #sha256= or #blake3= and 64 hexadecimal digits (sha256sum or b3sum print them)"
    )]
    Digest,
}

/// Whether a path of a repository is safe to keep: relative, of plain names, going down only, and
/// no longer than what file systems take.
pub fn is_plain_path(path: &str) -> bool {
    let is_plain = |name: &str| {
        let is_dots = name == "." || name == "..";
        !name.is_empty() && !is_dots && name.len() <= PATH_NAME_LEN_MAX
    };
    let has_odd = path.chars().any(|it| it.is_control() || it == '\\');
    let is_drive = path.as_bytes().get(1) == Some(&b':');
    let depth = path.split('/').count();
    path.len() <= PATH_LEN_MAX
        && depth <= PATH_DEPTH_MAX
        && !has_odd
        && !is_drive
        && path.split('/').all(is_plain)
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > SOURCE_LEN_MAX {
            return Err(SourceError::TooLong { len: text.len() });
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return hugging_face(rest);
        }
        if let Some(rest) = text.strip_prefix("ollama:") {
            return ollama(rest);
        }
        let is_address = text.starts_with("https://") || text.starts_with("http://");
        if is_address { url(text) } else { Err(SourceError::Scheme) }
    }
}

fn hugging_face(text: &str) -> Result<Source, SourceError> {
    // Neither a name nor a revision has a `:`, and no name has an `@`.
    let (repo, file) = cut(text, ':');
    let (repo, revision) = cut(repo, '@');
    let (kind, repo) = match repo.strip_prefix("datasets/") {
        Some(repo) => (RepoKind::Dataset, repo),
        None => (RepoKind::Model, repo),
    };
    if !is_repo(repo) {
        return Err(SourceError::Repo { text: shown(repo) });
    }
    if let Some(text) = revision.filter(|it| !is_revision(it)) {
        return Err(SourceError::Revision { text: shown(text) });
    }
    if let Some(text) = file.filter(|it| !is_plain_path(it)) {
        return Err(SourceError::File { text: shown(text) });
    }
    let (revision, file) = (revision.map(str::to_owned), file.map(str::to_owned));
    Ok(Source::HuggingFace { kind, repo: repo.to_owned(), revision, file })
}

fn ollama(text: &str) -> Result<Source, SourceError> {
    let wrong = || SourceError::Ollama { text: shown(text) };
    let (name, tag) = cut(text, ':');
    let is_named = match name.split_once('/') {
        Some((user, name)) => is_name(user) && is_name(name),
        None => is_name(name),
    };
    let is_tag = |tag: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let starts = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_begun = tag.as_bytes().first().is_some_and(starts);
        is_begun && tag.len() <= TAG_LEN_MAX && tag.bytes().all(is_plain)
    };
    if !is_named || !tag.is_none_or(is_tag) {
        return Err(wrong());
    }
    Ok(Source::Ollama { name: name.to_owned(), tag: tag.map(str::to_owned) })
}

fn url(text: &str) -> Result<Source, SourceError> {
    let (url, fragment) = text.split_once('#').ok_or(SourceError::Digest)?;
    let (scheme, rest) = url.split_once("://").ok_or(SourceError::Url)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(SourceError::HasUser);
    }
    let is_readable = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
    if !url.bytes().all(is_readable) || !is_authority(authority) {
        return Err(SourceError::Url);
    }
    if scheme == "http" && !is_loopback(host_of(authority)) {
        return Err(SourceError::PlainHttp);
    }
    let digest = digest(fragment).ok_or(SourceError::Digest)?;
    Ok(Source::Url { url: url.to_owned(), digest })
}

fn digest(text: &str) -> Option<Digest> {
    let (name, hex) = text.split_once('=')?;
    // A hash reads the digits; it is no hash of anything yet.
    let hash = hex.parse::<Hash>().ok()?;
    match name {
        "sha256" => Some(Digest::Sha256(*hash.as_bytes())),
        "blake3" => Some(Digest::Blake3(hash)),
        _ => None,
    }
}

/// What stands before and after the first `at`.
fn cut(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Whether a text is `ORG/REPO`.
pub fn is_repo(text: &str) -> bool {
    text.split_once('/')
        .is_some_and(|(org, repo)| is_name(org) && is_name(repo) && org != "datasets")
}

/// What hubs allow as a name.
fn is_name(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_edge = |it: &str| it.starts_with(['-', '.']) || it.ends_with(['-', '.']);
    !text.is_empty()
        && text.len() <= NAME_LEN_MAX
        && text.bytes().all(is_plain)
        && !is_edge(text)
        && !text.contains("--")
        && !text.contains("..")
}

/// What git allows as a name, less what no branch in use has.
fn is_revision(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"~^:?*[\\@%#".contains(&byte);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.');
    text.len() <= REVISION_LEN_MAX
        && text.bytes().all(is_plain)
        && !text.contains("..")
        && text.split('/').all(is_part)
}

fn is_authority(text: &str) -> bool {
    let host = host_of(text);
    let port = text.get(host.len()..).unwrap_or_default();
    let is_port = match port.strip_prefix(':') {
        Some(port) => port.parse::<u16>().is_ok_and(|it| it > 0),
        None => port.is_empty(),
    };
    let is_host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(is_plain)
        }
    };
    is_host && is_port
}

/// The host with the brackets of an IPv6 address.
fn host_of(authority: &str) -> &str {
    let end = match authority.find(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    authority.get(..end).unwrap_or_default()
}

fn is_loopback(host: &str) -> bool {
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |it| it.is_loopback())
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HuggingFace { kind, repo, revision, file } => {
                let folder = match kind {
                    RepoKind::Model => "",
                    RepoKind::Dataset => "datasets/",
                };
                write!(f, "hf:{folder}{repo}")?;
                revision.iter().try_for_each(|it| write!(f, "@{it}"))?;
                file.iter().try_for_each(|it| write!(f, ":{it}"))
            }
            Self::Ollama { name, tag } => {
                write!(f, "ollama:{name}")?;
                tag.iter().try_for_each(|it| write!(f, ":{it}"))
            }
            Self::Url { url, digest } => write!(f, "{url}#{digest}"),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, bytes) = match self {
            Self::Sha256(bytes) => ("sha256", bytes.as_slice()),
            Self::Blake3(hash) => ("blake3", hash.as_bytes().as_slice()),
            Self::GitSha1(bytes) => ("gitsha1", bytes.as_slice()),
        };
        write!(f, "{name}=")?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests;
