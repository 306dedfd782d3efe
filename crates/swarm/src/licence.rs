//! SPDX licence expressions: read, and compared with the licences that somebody accepts.
//!
//! The form is checked by `record`; this adds the list of identifiers. An expression with `OR`
//! is accepted if one side is, one with `AND` if both are. A licence is also accepted under what
//! it offers: `Apache-2.0+` under `Apache-2.0`, `GPL-2.0-or-later` under `GPL-2.0-only`, and one
//! with a listed exception without it, since exceptions only permit more.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use commons_record::catalogue::{LicenceSyntaxError, NOASSERTION, check_licence};
use serde::{Deserialize, Serialize};
use spdx::{AdditionItem, Expression, LicenseItem, LicenseReq, ParseMode};

/// Identifiers must be on the list; withdrawn ones (`GPL-2.0`) are on older releases and mean
/// what they meant.
const MODE: ParseMode = ParseMode {
    allow_slash_as_or_operator: false,
    allow_imprecise_license_names: false,
    allow_postfix_plus_on_gpl: true,
    allow_deprecated: true,
    allow_unknown: false,
};

/// Why a text is not a licence that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum LicenceError {
    #[error("{licence:?} is no SPDX expression: {why}")]
    Syntax { licence: String, why: LicenceSyntaxError },

    #[error(
        "{licence:?} names what is not on the SPDX list: {detail}; other licences are written \
         LicenseRef-NAME"
    )]
    Unknown { licence: String, detail: String },

    #[error("{licence:?} is not one licence; list each by itself")]
    NotOne { licence: String },
}

/// A licence expression whose identifiers are known.
#[derive(Debug, Clone)]
pub struct Licence {
    text: String,
    /// None for [`NOASSERTION`].
    expression: Option<Expression>,
}

impl Licence {
    /// Whether its author claims anything at all.
    pub fn is_asserted(&self) -> bool {
        self.expression.is_some()
    }

    /// Whether it can be accepted by somebody who accepts these licences. [`NOASSERTION`] is
    /// within nothing.
    pub fn is_within(&self, accepted: &BTreeSet<LicenceId>) -> bool {
        let accepts = |text: String| accepted.contains(&LicenceId(text));
        let is_accepted = |requirement: &LicenseReq| offers(requirement).into_iter().any(accepts);
        self.expression.as_ref().is_some_and(|it| it.evaluate(is_accepted))
    }
}

/// What a requirement can be accepted as, itself first.
fn offers(requirement: &LicenseReq) -> Vec<String> {
    let mut offers = vec![requirement.to_string()];
    match requirement.addition {
        None => {}
        Some(AdditionItem::Spdx(_)) => offers.push(requirement.license.to_string()),
        Some(AdditionItem::Other(_)) => return offers, // Nobody knows what it adds.
    }
    if let LicenseItem::Spdx { id, or_later } = &requirement.license {
        if *or_later {
            offers.push(id.name.to_owned());
        }
        if let Some(base) = id.name.strip_suffix("-or-later") {
            offers.push(format!("{base}-only"));
        }
    }
    offers
}

impl FromStr for Licence {
    type Err = LicenceError;

    fn from_str(text: &str) -> Result<Self, LicenceError> {
        let licence = || text.chars().take(80).collect();
        check_licence(text).map_err(|why| LicenceError::Syntax { licence: licence(), why })?;
        if text == NOASSERTION {
            return Ok(Self { text: text.to_owned(), expression: None });
        }
        let expression = Expression::parse_mode(text, MODE).map_err(|error| {
            LicenceError::Unknown { licence: licence(), detail: error.reason.to_string() }
        })?;
        Ok(Self { text: text.to_owned(), expression: Some(expression) })
    }
}

impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One licence that is accepted: an SPDX identifier, with its exception if it has one, or a
/// `LicenseRef-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LicenceId(String);

impl LicenceId {
    /// As SPDX writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LicenceId {
    type Err = LicenceError;

    fn from_str(text: &str) -> Result<Self, LicenceError> {
        let licence: Licence = text.parse()?;
        let requirements = licence.expression.iter().flat_map(Expression::requirements);
        let mut requirements: Vec<_> = requirements.take(2).collect();
        match (requirements.pop(), requirements.pop()) {
            (Some(one), None) => Ok(Self(one.req.to_string())),
            _ => Err(LicenceError::NotOne { licence: licence.text }),
        }
    }
}

impl TryFrom<String> for LicenceId {
    type Error = LicenceError;

    fn try_from(text: String) -> Result<Self, LicenceError> {
        text.parse()
    }
}

impl From<LicenceId> for String {
    fn from(id: LicenceId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(ids: &[&str]) -> BTreeSet<LicenceId> {
        ids.iter().map(|it| it.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
    }

    #[test]
    fn an_expression_is_within_what_is_accepted_or_not() {
        for (licence, ids, is_within) in [
            ("MIT", &["MIT"][..], true),
            ("MIT", &["Apache-2.0"], false),
            ("MIT", &[], false),
            ("MIT OR GPL-3.0-only", &["MIT"], true),
            ("MIT AND GPL-3.0-only", &["MIT"], false),
            ("MIT AND GPL-3.0-only", &["MIT", "GPL-3.0-only"], true),
            ("MIT AND (GPL-3.0-only OR BSD-3-Clause)", &["MIT", "BSD-3-Clause"], true),
            ("MIT OR Apache-2.0 AND GPL-3.0-only", &["Apache-2.0"], false),
            ("Apache-2.0+", &["Apache-2.0"], true),
            ("Apache-2.0", &["Apache-2.0+"], false),
            ("GPL-2.0-or-later", &["GPL-2.0-only"], true),
            ("GPL-2.0-only", &["GPL-2.0-or-later"], false),
            ("GPL-2.0-only WITH Classpath-exception-2.0", &["GPL-2.0-only"], true),
            ("GPL-2.0-only", &["GPL-2.0-only WITH Classpath-exception-2.0"], false),
            ("LicenseRef-llama3", &["LicenseRef-llama3"], true),
            ("LicenseRef-llama3", &["LicenseRef-llama2", "MIT"], false),
            ("NOASSERTION", &["MIT"], false),
        ] {
            let parsed: Licence = licence.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(parsed.is_within(&accepted(ids)), is_within, "{licence} within {ids:?}");
            assert_eq!(parsed.to_string(), licence);
        }
    }

    #[test]
    fn what_is_not_on_the_list_is_named() {
        for (licence, what) in [
            ("Llama-3", "LicenseRef"),
            ("MIT OR Llama-3", "LicenseRef"),
            ("mit", "LicenseRef"),
            ("MIT WITH magic", "LicenseRef"),
            ("", "required"),
            ("NONE", "grants nothing"),
        ] {
            let error = licence.parse::<Licence>().expect_err(licence).to_string();
            assert!(error.contains(what), "{licence}: {error}");
        }
        for licence in ["MIT OR Apache-2.0", "NOASSERTION", "(MIT AND ISC)"] {
            let error = licence.parse::<LicenceId>().expect_err(licence);
            assert!(matches!(error, LicenceError::NotOne { .. }), "{licence}: {error}");
        }
    }

    proptest::proptest! {
        /// The two readers agree on form: whatever `record` accepts, the list can be asked about,
        /// and any text has an answer.
        #[test]
        fn any_text_is_read_or_refused(words in proptest::collection::vec(
            proptest::sample::select(vec![
                "MIT", "AND", "OR", "WITH", "(", ")", "GPL-2.0+", "Apache-2.0+", "LicenseRef-x",
                "Classpath-exception-2.0", "x:y", "NOASSERTION", "é",
            ]), 0..12))
        {
            let text = words.join(" ");
            if let Ok(licence) = text.parse::<Licence>() {
                let all = accepted(&["MIT", "GPL-2.0", "Apache-2.0", "LicenseRef-x"]);
                proptest::prop_assert!(check_licence(&text).is_ok());
                // What nobody accepts is within nothing; more acceptance never takes away.
                proptest::prop_assert!(!licence.is_within(&BTreeSet::new()));
                let _ = licence.is_within(&all);
            }
        }
    }
}
