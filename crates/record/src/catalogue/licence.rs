//! The form of an SPDX licence expression. Whether its identifiers exist is known to `swarm`, which
//! has the list: a record must not become invalid because a list grew.
//!
//! ```text
//! expression = operand (("AND" | "OR") operand)*
//! operand    = identifier ["+"] ["WITH" identifier] | "(" expression ")"
//! ```

/// What says that the author claims nothing about the licence.
pub const NOASSERTION: &str = "NOASSERTION";

/// Bytes of an expression.
pub const LICENCE_LEN_MAX: usize = 256;

/// Parentheses inside each other: real expressions have one or two.
const DEPTH_MAX: usize = 8;

/// Why a text is no licence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum LicenceSyntaxError {
    #[error("a licence is required: an SPDX expression such as MIT or Apache-2.0 OR MIT")]
    Empty,

    #[error("it has more than 256 bytes")]
    TooLong,

    #[error("NONE grants nothing, so nobody may hold it")]
    None,

    #[error("NOASSERTION stands alone or not at all")]
    MixedNoassertion,

    #[error("its parentheses do not match, or are more than 8 deep")]
    Parentheses,

    #[error("a licence is missing before or after AND, OR or WITH")]
    MissingOperand,

    #[error("two licences stand together without AND or OR between them")]
    MissingOperator,

    #[error("an identifier has other signs than letters, digits, `.` and `-`")]
    BadIdentifier,
}

/// What was read last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    /// An operator or nothing: an operand must follow.
    Operator,
    /// A licence, to which an exception may be added.
    Licence,
    /// `WITH`: an exception must follow.
    With,
    /// A licence with its exception, or a group.
    Complete,
}

/// Checks the form of an expression: one pass, no recursion.
pub fn check_licence(text: &str) -> Result<(), LicenceSyntaxError> {
    if text.trim().is_empty() {
        return Err(LicenceSyntaxError::Empty);
    }
    if text.len() > LICENCE_LEN_MAX {
        return Err(LicenceSyntaxError::TooLong);
    }
    match text {
        NOASSERTION => return Ok(()),
        "NONE" => return Err(LicenceSyntaxError::None),
        _ => {}
    }
    let (mut last, mut depth) = (Last::Operator, 0_usize);
    for token in tokens(text) {
        last = match (last, token) {
            (Last::Operator, "(") if depth < DEPTH_MAX => {
                depth += 1;
                Last::Operator
            }
            (Last::Licence | Last::Complete, ")") if depth > 0 => {
                depth -= 1;
                Last::Complete
            }
            (_, "(" | ")") => return Err(LicenceSyntaxError::Parentheses),
            (Last::Licence | Last::Complete, "AND" | "OR") => Last::Operator,
            (Last::Licence, "WITH") => Last::With,
            (_, "AND" | "OR" | "WITH") => return Err(LicenceSyntaxError::MissingOperand),
            (_, NOASSERTION | "NONE") => return Err(LicenceSyntaxError::MixedNoassertion),
            (Last::Operator, word) if is_licence(word) => Last::Licence,
            (Last::With, word) if is_identifier(word) => Last::Complete,
            (Last::Operator | Last::With, _) => return Err(LicenceSyntaxError::BadIdentifier),
            (Last::Licence | Last::Complete, _) => {
                return Err(LicenceSyntaxError::MissingOperator);
            }
        };
    }
    match last {
        Last::Operator | Last::With => Err(LicenceSyntaxError::MissingOperand),
        Last::Licence | Last::Complete if depth > 0 => Err(LicenceSyntaxError::Parentheses),
        Last::Licence | Last::Complete => Ok(()),
    }
}

/// Words between spaces; a parenthesis is a word of its own.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split_inclusive(['(', ')']).flat_map(|part| {
        let end = part.len() - usize::from(part.ends_with(['(', ')']));
        [&part[..end], &part[end..]]
    });
    parts.flat_map(|part| part.split(' ')).filter(|word| !word.is_empty())
}

fn is_identifier(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
        && word.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

/// `MIT`, `GPL-2.0+`, `LicenseRef-a`, `DocumentRef-a:LicenseRef-b`.
fn is_licence(word: &str) -> bool {
    if let Some((document, licence)) = word.split_once(':') {
        let is_reference = |text: &str, prefix| {
            text.strip_prefix(prefix).is_some_and(|it: &str| !it.is_empty() && is_identifier(it))
        };
        return is_reference(document, "DocumentRef-") && is_reference(licence, "LicenseRef-");
    }
    is_identifier(word.strip_suffix('+').unwrap_or(word))
}
