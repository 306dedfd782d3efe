//! Log-probabilities in the two published shapes.

use std::collections::BTreeMap;

use commons_port::engine::Token;
use serde::Serialize;

use crate::call::Dialect;

/// Log-probabilities of some tokens of an answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Logprobs {
    Chat {
        content: Vec<ChatToken>,
        /// Always null: the answer is the model's text and never a refusal beside it.
        refusal: Option<()>,
    },
    Text {
        tokens: Vec<String>,
        token_logprobs: Vec<Option<f64>>,
        top_logprobs: Vec<BTreeMap<String, f64>>,
        text_offset: Vec<usize>,
    },
}

/// One token in the shape of the chat route.
#[derive(Debug, Serialize)]
pub(super) struct ChatToken {
    #[serde(flatten)]
    token: ScoredText,
    top_logprobs: Vec<ScoredText>,
}

#[derive(Debug, Serialize)]
struct ScoredText {
    token: String,
    /// Null where a foreign engine tells none.
    logprob: Option<f64>,
    bytes: Option<Vec<u8>>,
}

impl Logprobs {
    pub(super) fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Chat => Self::Chat { content: Vec::new(), refusal: None },
            Dialect::Text => Self::Text {
                tokens: Vec::new(),
                token_logprobs: Vec::new(),
                top_logprobs: Vec::new(),
                text_offset: Vec::new(),
            },
        }
    }

    /// Adds a token whose text begins `offset` characters into the answer.
    pub(super) fn push(&mut self, token: &Token, offset: usize) {
        match self {
            Self::Chat { content, .. } => content.push(chat_token(token)),
            Self::Text { tokens, token_logprobs, top_logprobs, text_offset } => {
                tokens.push(token.text.clone());
                token_logprobs.push(nats(token.logprob_micro));
                top_logprobs.push(top_map(token));
                text_offset.push(offset);
            }
        }
    }
}

fn chat_token(token: &Token) -> ChatToken {
    let top = token.top.iter().map(|it| scored(&it.text, it.logprob_micro));
    ChatToken { token: scored(&token.text, token.logprob_micro), top_logprobs: top.collect() }
}

/// A token that is part of a character has no text of its own: it stands as U+FFFD, and its
/// bytes are not known here.
fn scored(text: &str, logprob_micro: i32) -> ScoredText {
    let bytes = (!text.contains(char::REPLACEMENT_CHARACTER)).then(|| text.as_bytes().to_vec());
    ScoredText { token: text.to_owned(), logprob: nats(logprob_micro), bytes }
}

/// The alternatives by text, the drawn token among them as the published API promises. Of two
/// tokens with one text the likelier stands.
fn top_map(token: &Token) -> BTreeMap<String, f64> {
    let mut map = BTreeMap::new();
    for it in &token.top {
        if let Some(logprob) = nats(it.logprob_micro) {
            map.entry(it.text.clone()).or_insert(logprob);
        }
    }
    // Without ids it is the text that tells whether the token is among them.
    let is_there = token.id != Token::NO_ID && token.top.iter().any(|it| it.id == token.id);
    if let Some(logprob) = nats(token.logprob_micro).filter(|_| !is_there) {
        map.entry(token.text.clone()).or_insert(logprob);
    }
    map
}

fn nats(micro: i32) -> Option<f64> {
    (micro != Token::NO_LOGPROB).then(|| f64::from(micro) / 1e6)
}
