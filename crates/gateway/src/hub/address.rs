//! What a path of the hub asks for.
//!
//! ```text
//! /api/models  /api/datasets                                   List
//! /api/KIND/ID                    [/revision/REV]               Info
//! /api/KIND/ID/tree/REV           [/PATH]                       Tree
//! /api/KIND/ID/paths-info/REV                                   Paths
//! /api/KIND/ID/refs                                             Refs
//! /api/whoami-v2                                                WhoAmI
//! [/datasets]/ID/resolve|raw/REV/PATH                           File
//! /v2/ID/manifests/TAG                                          Manifest
//! ```
//!
//! ID is `ORG/NAME`. A single `NAME`, as the oldest repositories elsewhere have, is read too and
//! names nothing here. Each segment is percent-decoded after the path was split, so that a
//! revision with an encoded `/` is one revision; a file's path is decoded and then must be plain.
//!
//! Names are keys that a catalogue is asked for, never files that are opened. They are held to a
//! form all the same: what has none of it was never published.

use commons_port::hub::RepoKind;

use super::refusal::Refusal;
use super::text::decode;

/// What other hubs allow; ours are shorter.
const ID_LEN_MAX: usize = 96;

/// Branches, tags and commits of git end far below.
const REVISION_LEN_MAX: usize = 256;

/// As file systems have it: the longest path in practice, and the longest name in it.
const PATH_LEN_MAX: usize = 1_024;
const NAME_LEN_MAX: usize = 255;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    List(RepoKind),
    Info(Revised),
    Tree { repo: Revised, path: String },
    Paths(Revised),
    Refs(Revised),
    File { repo: Revised, path: String },
    Manifest { repo: Revised, tag: String },
    WhoAmI,
}

/// A repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Revised {
    pub(super) kind: RepoKind,
    /// `ORG/NAME`.
    pub(super) id: String,
    /// `main`, a version, or a commit. Other names of the branch that is always there are read as
    /// `main`.
    pub(super) revision: String,
}

impl Address {
    /// Reads a path as it was sent, still encoded.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match parts.as_slice() {
            ["api", "whoami-v2"] => Ok(Self::WhoAmI),
            ["api", "models", rest @ ..] => parse_api(RepoKind::Model, rest, path),
            ["api", "datasets", rest @ ..] => parse_api(RepoKind::Dataset, rest, path),
            ["v2", org, name, "manifests", tag] => {
                let repo = revised(RepoKind::Model, &[org, name], "main")?;
                Ok(Self::Manifest { repo, tag: part(tag)? })
            }
            ["datasets", org, name, "resolve" | "raw", revision, rest @ ..] => {
                file(RepoKind::Dataset, &[org, name], revision, rest)
            }
            ["datasets", name, "resolve" | "raw", revision, rest @ ..] => {
                file(RepoKind::Dataset, &[name], revision, rest)
            }
            [org, name, "resolve" | "raw", revision, rest @ ..] => {
                file(RepoKind::Model, &[org, name], revision, rest)
            }
            [name, "resolve" | "raw", revision, rest @ ..] => {
                file(RepoKind::Model, &[name], revision, rest)
            }
            _ => Err(Refusal::unknown(path)),
        }
    }
}

fn parse_api(kind: RepoKind, rest: &[&str], path: &str) -> Result<Address, Refusal> {
    let main = |id: &[&str]| revised(kind, id, "main");
    match rest {
        [] | [""] => Ok(Address::List(kind)),
        [name] | [name, "refs"] | [name, "revision" | "paths-info", _] | [name, "tree", _, ..] => {
            Err(no_repo(&[name])?)
        }
        [org, name] => Ok(Address::Info(main(&[org, name])?)),
        [org, name, "revision", revision] => {
            Ok(Address::Info(revised(kind, &[org, name], revision)?))
        }
        [org, name, "refs"] => Ok(Address::Refs(main(&[org, name])?)),
        [org, name, "paths-info", revision] => {
            Ok(Address::Paths(revised(kind, &[org, name], revision)?))
        }
        [org, name, "tree", revision, folders @ ..] => {
            let repo = revised(kind, &[org, name], revision)?;
            let path = part(&folders.join("/"))?;
            let path = path.trim_end_matches('/').to_owned();
            if !path.is_empty() && !is_plain(&path) {
                return Err(Refusal::bad_path(&path));
            }
            Ok(Address::Tree { repo, path })
        }
        _ => Err(Refusal::unknown(path)),
    }
}

fn file(kind: RepoKind, id: &[&str], revision: &str, rest: &[&str]) -> Result<Address, Refusal> {
    let repo = revised(kind, id, revision)?;
    let path = part(&rest.join("/"))?;
    if is_plain(&path) { Ok(Address::File { repo, path }) } else { Err(Refusal::bad_path(&path)) }
}

fn revised(kind: RepoKind, id: &[&str], revision: &str) -> Result<Revised, Refusal> {
    let id = part(&id.join("/"))?;
    if !is_id(&id) {
        return Err(Refusal::no_repo(&id));
    }
    let revision = match part(revision)?.as_str() {
        "HEAD" | "refs/heads/main" => "main".to_owned(),
        other => other.to_owned(),
    };
    if !is_revision(&revision) {
        return Err(Refusal::no_revision(&id, &revision));
    }
    Ok(Revised { kind, id, revision })
}

/// Says that there is no such repository, in the words of its decoded name.
fn no_repo(id: &[&str]) -> Result<Refusal, Refusal> {
    Ok(Refusal::no_repo(&part(&id.join("/"))?))
}

fn part(text: &str) -> Result<String, Refusal> {
    decode(text).ok_or_else(|| Refusal::not_utf8(text))
}

/// Two names of letters, digits, `.`, `_` and `-` that neither begin nor end with `.` or `-`.
fn is_id(id: &str) -> bool {
    let is_name = |name: &str| {
        let is_end = |letter: Option<char>| letter.is_some_and(|it| it != '.' && it != '-');
        let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        name.chars().all(is_letter) && is_end(name.chars().next()) && is_end(name.chars().last())
    };
    id.len() <= ID_LEN_MAX
        && !id.contains("..")
        && id.split_once('/').is_some_and(|(org, name)| is_name(org) && is_name(name))
}

fn is_revision(revision: &str) -> bool {
    let is_letter = |letter: char| !letter.is_control() && letter != '\\';
    (1..=REVISION_LEN_MAX).contains(&revision.len())
        && !revision.contains("..")
        && revision.chars().all(is_letter)
}

/// Whether a path is relative, of plain names, on every system.
pub(super) fn is_plain(path: &str) -> bool {
    let is_name =
        |name: &str| (1..=NAME_LEN_MAX).contains(&name.len()) && name != "." && name != "..";
    path.len() <= PATH_LEN_MAX
        && path.split('/').all(is_name)
        && !path.chars().any(|letter| letter.is_control() || letter == '\\')
}

#[cfg(test)]
mod tests;
