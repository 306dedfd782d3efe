//! The key of a foreign server: sent to it, and told to nobody else.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// Keys of all known services are far shorter.
const KEY_LEN_MAX: usize = 4096;

/// A shorter text is found in innocent words: taking it out of a message would tell what it is.
const REDACTED_LEN_MIN: usize = 4;

/// What stands where a key stood.
const REDACTED: &str = "[key]";

/// A key. It is wiped from memory after use, and no debug format shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Arc<Zeroizing<String>>);

/// Why a text is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key is one line of up to {KEY_LEN_MAX} printable ascii characters without spaces")]
pub struct KeyError;

impl Key {
    /// Takes a key as it stands in a file: white space around it is no part of it.
    pub fn new(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let is_key = !text.is_empty() && text.len() <= KEY_LEN_MAX;
        if !is_key || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError);
        }
        Ok(Self(Arc::new(Zeroizing::new(text.to_owned()))))
    }

    /// The header's value that shows it.
    pub(crate) fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.0.as_str()))
    }

    /// A server may repeat the key in what it says: nobody else reads it.
    pub(crate) fn redact(&self, text: &str) -> String {
        if self.0.len() < REDACTED_LEN_MIN {
            return text.to_owned();
        }
        text.replace(self.0.as_str(), REDACTED)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        let key = Key::new(" sk-abcdef\n").expect("is a key");
        assert_eq!(format!("{key:?}"), "Key(..)");
        assert_eq!(key.bearer().as_str(), "Bearer sk-abcdef");
        assert_eq!(key.redact("no such key: sk-abcdef!"), "no such key: [key]!");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "  ", "two words", "line\nbreak", "ümlaut", &"x".repeat(4097)] {
            assert_eq!(Key::new(text), Err(KeyError), "{text:?}");
        }
    }
}
