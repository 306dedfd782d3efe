//! How a foreign server is used. Everything that can be checked without asking it was.

use commons_record::Millis;

use crate::address::Address;
use crate::kind::Kind;
use crate::secret::Key;

/// A prefix is typed with every question.
const PREFIX_LEN_MAX: usize = 32;

/// Models that are asked for by name.
const ALLOWED_MAX: usize = 64;

/// Whether adapters may be loaded into the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adapters {
    /// Those that it has are listed.
    Listed,
    /// More may be loaded.
    Loaded,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those that this machine trusts.
    Machine,
    /// These alone, as DER.
    Only(Vec<Vec<u8>>),
}

/// How long a server may take, and how much of it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// To resolve its name, connect and agree on keys. A packet around the world is back in 300 ms.
    pub connect: Millis,
    /// To answer a small question: what it is, what it has.
    pub check: Millis,
    /// To the first byte of an answer: a long prompt in a busy server takes minutes.
    pub first_byte: Millis,
    /// Between two lines of an answer. Bytes that end no line do not count.
    pub idle: Millis,
    /// For a whole answer: the longest deadline that an order may have.
    pub total: Millis,
    /// Between two looks at a server that lives.
    pub check_every: Millis,
    /// Before the second look at one that does not; doubled with each failure.
    pub retry_first: Millis,
    /// Between two looks at one that has been dead for long.
    pub retry_max: Millis,
    /// Answers at once. One more is refused: the server's own queue is not ours to fill.
    pub answers_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Millis::from_secs(5),
            check: Millis::from_secs(10),
            first_byte: Millis::from_secs(300),
            idle: Millis::from_secs(60),
            total: commons_record::order::DEADLINE_MAX,
            check_every: Millis::from_secs(10),
            retry_first: Millis::from_secs(1),
            retry_max: Millis::from_secs(60),
            answers_max: 64,
        }
    }
}

/// Why settings do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ConfigError {
    #[error(
        "{prefix:?} is no prefix; write up to {PREFIX_LEN_MAX} letters, digits, `.`, `_` or `-`"
    )]
    Prefix { prefix: String },

    #[error("the key would be sent in the clear to {address}; use https, or say `insecure=on`")]
    KeyInTheClear { address: Address },

    #[error(
        "over {ALLOWED_MAX} models are named; leave `models=` out to take the first that it lists"
    )]
    TooManyModels,
}

/// A foreign server as it is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteConfig {
    pub(crate) address: Address,
    pub(crate) key: Option<Key>,
    /// None: it is asked what it is.
    pub(crate) kind: Option<Kind>,
    pub(crate) prefix: Option<String>,
    /// None: all that it lists.
    pub(crate) models: Vec<String>,
    pub(crate) context_len: Option<u32>,
    pub(crate) adapters: Adapters,
    pub(crate) trust: Trust,
    pub(crate) limits: Limits,
}

impl RemoteConfig {
    /// The server at this address, as far as it says itself what it is.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            key: None,
            kind: None,
            prefix: None,
            models: Vec::new(),
            context_len: None,
            adapters: Adapters::Listed,
            trust: Trust::Machine,
            limits: Limits::default(),
        }
    }

    /// Sends this key with every request.
    pub fn with_key(mut self, key: Key) -> Result<Self, ConfigError> {
        if !self.address.keeps_secrets() {
            return Err(ConfigError::KeyInTheClear { address: self.address });
        }
        self.key = Some(key);
        Ok(self)
    }

    /// Takes the server for what its owner says that it is.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Names its models `PREFIX/NAME`. Without this the prefix is its kind's name. A model of a
    /// file has no slash in its name, so that neither is ever taken for the other.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, ConfigError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if prefix.is_empty() || prefix.len() > PREFIX_LEN_MAX || !prefix.bytes().all(is_plain) {
            return Err(ConfigError::Prefix { prefix: prefix.chars().take(40).collect() });
        }
        self.prefix = Some(prefix.to_owned());
        Ok(self)
    }

    /// Uses these models alone, by the server's own names.
    pub fn with_models(mut self, models: Vec<String>) -> Result<Self, ConfigError> {
        if models.len() > ALLOWED_MAX {
            return Err(ConfigError::TooManyModels);
        }
        self.models = models;
        Ok(self)
    }

    /// Takes this for the context of models that do not tell theirs.
    #[must_use]
    pub fn with_context_len(mut self, context_len: u32) -> Self {
        self.context_len = Some(context_len);
        self
    }

    /// Whether adapters may be loaded into the server.
    #[must_use]
    pub fn with_adapters(mut self, adapters: Adapters) -> Self {
        self.adapters = adapters;
        self
    }

    /// Believes these certificates.
    #[must_use]
    pub fn with_trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// Other bounds.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the server is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What was said to stand before the names of its models.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> RemoteConfig {
        RemoteConfig::new(text.parse().expect("is an address"))
    }

    #[test]
    fn a_key_is_not_sent_in_the_clear() {
        let key = || Key::new("sk-1234567890").expect("is a key");
        for text in ["https://a.example", "http://127.0.0.1:1", "http://localhost:1"] {
            assert!(at(text).with_key(key()).is_ok(), "{text}");
        }
        let error = at("http://192.168.1.1").with_key(key()).expect_err("is refused");
        assert!(error.to_string().contains("insecure=on"));
        let told = Address::parse("http://192.168.1.1", true).map(RemoteConfig::new);
        assert!(told.is_ok_and(|it| it.with_key(key()).is_ok()));
    }

    #[test]
    fn a_prefix_is_a_plain_word() {
        assert_eq!(
            at("http://localhost").with_prefix("lab-1").map(|it| it.prefix).ok(),
            Some(Some("lab-1".to_owned()))
        );
        for prefix in ["", "a/b", "a b", "ä", &"x".repeat(33)] {
            assert!(at("http://localhost").with_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
