//! The tokens of one event, with as much as the server tells of them.
//!
//! The text is what the server says in `content` or `text`; log-probabilities and ids only say
//! where its tokens begin. If their texts do not add up to what was said, the whole text stands
//! with the first token, and the others are empty.

use commons_port::engine::{Alternative, Token};

use crate::wire::{Choice, Logprobs, Scored};

/// The text of one token: far below what an exchange takes for one, with its alternatives.
const TEXT_MAX: usize = 4096;

/// The text of an alternative.
const ALTERNATIVE_TEXT_MAX: usize = 256;

/// The tokens, and whether each has its log-probability. `says` is whether there are any.
pub(super) fn of(choice: &Choice, said: &str, says: bool, top: u8) -> (Vec<Token>, bool) {
    let scored = choice.logprobs.as_ref().map(scores).unwrap_or_default();
    let ids = choice.token_ids.as_deref().unwrap_or_default();
    if !says {
        return (Vec::new(), false);
    }
    let count = scored.len().max(ids.len()).max(1);
    let adds_up = scored.len() == count
        && scored.iter().map(|it| it.token.len()).sum::<usize>() == said.len()
        && said == scored.iter().map(|it| it.token.as_str()).collect::<String>();
    let token = |index: usize| {
        let scored = scored.get(index);
        let text = match scored {
            Some(scored) if adds_up => scored.token.as_str(),
            Some(_) | None if index == 0 => said,
            Some(_) | None => "",
        };
        let id = ids.get(index).copied().or_else(|| scored.and_then(|it| it.id));
        Token {
            id: id.unwrap_or(Token::NO_ID),
            text: text.to_owned(),
            logprob_micro: micro(scored.and_then(|it| it.logprob)),
            top: scored.map(|it| alternatives(it, top)).unwrap_or_default(),
        }
    };
    let tokens: Vec<_> = (0..count).map(token).flat_map(split).collect();
    let is_scored = scored.len() == count && scored.iter().all(|it| it.logprob.is_some());
    (tokens, is_scored)
}

/// A server that answers in large pieces sends texts that no token has: they are cut.
fn split(token: Token) -> Vec<Token> {
    if token.text.len() <= TEXT_MAX {
        return vec![token];
    }
    let mut pieces = Vec::new();
    let mut rest = token.text.as_str();
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rest.floor_char_boundary(TEXT_MAX));
        let is_first = pieces.is_empty();
        pieces.push(Token {
            id: if is_first { token.id } else { Token::NO_ID },
            text: piece.to_owned(),
            logprob_micro: if is_first { token.logprob_micro } else { Token::NO_LOGPROB },
            top: if is_first { token.top.clone() } else { Vec::new() },
        });
        rest = left;
    }
    pieces
}

/// Both shapes as one.
fn scores(logprobs: &Logprobs) -> Vec<Scored> {
    if let Some(content) = &logprobs.content {
        let copy = |it: &Scored| Scored {
            token: it.token.clone(),
            logprob: it.logprob,
            id: it.id,
            top_logprobs: Vec::new(),
        };
        let whole = |it: &Scored| Scored {
            top_logprobs: it.top_logprobs.iter().map(copy).collect(),
            ..copy(it)
        };
        return content.iter().map(whole).collect();
    }
    let tokens = logprobs.tokens.as_deref().unwrap_or_default();
    let values = logprobs.token_logprobs.as_deref().unwrap_or_default();
    let tops = logprobs.top_logprobs.as_deref().unwrap_or_default();
    let scored = |(index, token): (usize, &String)| {
        let top = tops.get(index).and_then(Option::as_ref);
        let top = top.into_iter().flatten().map(|(token, logprob)| Scored {
            token: token.clone(),
            logprob: *logprob,
            ..Scored::default()
        });
        Scored {
            token: token.clone(),
            logprob: values.get(index).copied().flatten(),
            id: None,
            top_logprobs: top.collect(),
        }
    };
    tokens.iter().enumerate().map(scored).collect()
}

/// The likeliest alternatives, best first, no more than were asked for.
fn alternatives(scored: &Scored, top: u8) -> Vec<Alternative> {
    let alternative = |it: &Scored| Alternative {
        id: it.id.unwrap_or(Token::NO_ID),
        text: it.token[..it.token.floor_char_boundary(ALTERNATIVE_TEXT_MAX)].to_owned(),
        logprob_micro: micro(it.logprob),
    };
    let mut found: Vec<_> = scored.top_logprobs.iter().map(alternative).collect();
    found.sort_by_key(|it| std::cmp::Reverse(it.logprob_micro));
    found.truncate(usize::from(top));
    found
}

/// A log-probability in micro-nats. One above 0 is none that could be; one below what an `i32`
/// holds is as unlikely as it can say.
fn micro(logprob: Option<f64>) -> i32 {
    let Some(logprob) = logprob.filter(|it| !it.is_nan()) else { return Token::NO_LOGPROB };
    #[expect(clippy::cast_possible_truncation, reason = "clamped to what an i32 holds")]
    let micro = (logprob * 1e6).round().clamp(f64::from(Token::NO_LOGPROB + 1), 0.0) as i32;
    micro
}
