//! Names, versions and paths: texts that are checked where they are made.
//!
//! All are ASCII. Two Unicode names may look the same, or become one on some file systems; of
//! ASCII, only case and a few words do, and both are looked at here or by the release.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not what it was read as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {reason}")]
pub struct ParseTextError {
    /// What was expected.
    pub what: &'static str,
    /// The text, cut to a printable length.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Declares a text that `$check` has looked at.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text in lower case: what tells it apart where case does not count.
            pub fn folded(&self) -> String {
                self.0.to_ascii_lowercase()
            }
        }

        impl TryFrom<String> for $name {
            type Error = ParseTextError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                match $check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err(reason) => {
                        let text = text.chars().take(80).collect();
                        Err(ParseTextError { what: $what, text, reason })
                    }
                }
            }
        }

        impl FromStr for $name {
            type Err = ParseTextError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> Self {
                text.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_type! {
    /// A repository's name, `ORG/NAME`: two parts of letters, digits, `-`, `_` and `.`.
    RepoName, "name", check_name
}

text_type! {
    /// A release's version: a label such as `1.0` or `2024-06-01`, never one that reads as a commit.
    Version, "version", check_version
}

text_type! {
    /// A file's path in a release: plain names with `/` between them.
    FilePath, "path of a file", check_path
}

/// As long as hubs allow.
const NAME_LEN_MAX: usize = 96;

const VERSION_LEN_MAX: usize = 64;

const PATH_LEN_MAX: usize = 512;

/// File systems hold 255 bytes; tools add an ending of their own while they write.
const PART_LEN_MAX: usize = 200;

const PATH_DEPTH_MAX: usize = 16;

fn check_name(text: &str) -> Result<(), &'static str> {
    if text.len() > NAME_LEN_MAX {
        return Err("it has more than 96 bytes");
    }
    let Some((org, name)) = text.split_once('/') else {
        return Err("it is not two parts with a slash between them");
    };
    for part in [org, name] {
        let is_sign = |byte: u8| matches!(byte, b'-' | b'_' | b'.');
        if part.is_empty() {
            return Err("one of its parts is empty");
        }
        if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte)) {
            return Err("it has other signs than letters, digits, `-`, `_` and `.`");
        }
        let ends_plainly = |end: Option<u8>| end.is_some_and(|it| it.is_ascii_alphanumeric());
        if !ends_plainly(part.bytes().next()) || !ends_plainly(part.bytes().next_back()) {
            return Err("a part does not begin and end with a letter or a digit");
        }
        if part.contains("..") || part.contains("--") {
            return Err("it has `..` or `--`");
        }
    }
    Ok(())
}

fn check_version(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > VERSION_LEN_MAX {
        return Err("it is empty or has more than 64 bytes");
    }
    let is_sign = |byte: u8| matches!(byte, b'-' | b'_' | b'.' | b'+');
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || is_sign(byte)) {
        return Err("it has other signs than letters, digits, `-`, `_`, `.` and `+`");
    }
    if !text.as_bytes()[0].is_ascii_alphanumeric() || text.contains("..") {
        return Err("it begins with a sign or has `..`");
    }
    if ["main", "head"].iter().any(|it| text.eq_ignore_ascii_case(it)) {
        return Err("`main` and `HEAD` mean whatever is current");
    }
    // Abbreviated commits have seven digits or more.
    if text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err("it reads as a commit");
    }
    Ok(())
}

fn check_path(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > PATH_LEN_MAX {
        return Err("it is empty or has more than 512 bytes");
    }
    let is_allowed = |byte: u8| {
        let is_printable = byte == b' ' || byte.is_ascii_graphic();
        is_printable && !matches!(byte, b'\\' | b':' | b'*' | b'?' | b'"' | b'<' | b'>' | b'|')
    };
    if !text.bytes().all(is_allowed) {
        return Err("it has signs that are not printable ASCII, or one of \\ : * ? \" < > |");
    }
    if text.split('/').count() > PATH_DEPTH_MAX {
        return Err("it is more than 16 folders deep");
    }
    text.split('/').try_for_each(check_part)
}

fn check_part(part: &str) -> Result<(), &'static str> {
    if part.is_empty() {
        return Err("it begins or ends with a slash, or has two in a row");
    }
    if part.len() > PART_LEN_MAX {
        return Err("one of its names has more than 200 bytes");
    }
    if matches!(part, "." | "..") {
        return Err("it has `.` or `..` in it");
    }
    if part.starts_with([' ', '-', '~']) || part.ends_with([' ', '.']) {
        return Err("a name in it begins with a space, `-` or `~`, or ends with a space or a dot");
    }
    if part.eq_ignore_ascii_case(".git") {
        return Err("it leads into the folder of a version control system");
    }
    if is_device(part) {
        return Err("a name in it is a device on some systems");
    }
    Ok(())
}

/// `nul`, `COM1.txt`: names that Windows gives to devices, whatever follows the first dot.
fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or(part).trim_end().to_ascii_lowercase();
    let is_numbered = |port: &str| {
        stem.strip_prefix(port).is_some_and(|it| matches!(it.as_bytes(), [b'0'..=b'9']))
    };
    matches!(stem.as_str(), "con" | "prn" | "aux" | "nul" | "conin$" | "conout$")
        || is_numbered("com")
        || is_numbered("lpt")
}
