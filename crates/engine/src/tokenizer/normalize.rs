//! What is done to a text before it is cut into words.

use std::borrow::Cow;

use unicode_normalization::UnicodeNormalization;

use super::unicode::Class;

/// One step. A normaliser is a list of them, applied in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Unicode's normal forms.
    Compose,
    Decompose,
    ComposeCompatible,
    DecomposeCompatible,
    Lowercase,
    /// Drops nonspacing marks (`\p{Mn}`).
    StripAccents,
    /// Puts a text before one that is not empty.
    Prepend(String),
    Replace {
        from: String,
        to: String,
    },
    /// Puts a text before one that does not begin with it (`Metaspace`, `add_prefix_space`).
    Lead {
        with: String,
        only_first: bool,
    },
    /// BERT's dropping of control characters; every white space becomes a space.
    Clean,
    /// A space on both sides of each CJK ideograph.
    SpaceIdeographs,
}

/// Applies all steps. `is_first`: the text is not behind a special token.
pub(super) fn normalize<'a>(steps: &[Step], text: &'a str, is_first: bool) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for step in steps {
        if let Some(changed) = step.apply(&text, is_first) {
            text = Cow::Owned(changed);
        }
    }
    text
}

impl Step {
    /// `None` where nothing changes.
    fn apply(&self, text: &str, is_first: bool) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        match self {
            Self::Compose => (!text.is_ascii()).then(|| text.nfc().collect()),
            Self::Decompose => (!text.is_ascii()).then(|| text.nfd().collect()),
            Self::ComposeCompatible => (!text.is_ascii()).then(|| text.nfkc().collect()),
            Self::DecomposeCompatible => (!text.is_ascii()).then(|| text.nfkd().collect()),
            // Character by character: no other form of sigma at the end of a word.
            Self::Lowercase => Some(text.chars().flat_map(char::to_lowercase).collect()),
            Self::StripAccents => (!text.is_ascii())
                .then(|| text.chars().filter(|&c| !Class::ACCENT.has(c)).collect()),
            Self::Prepend(prefix) => Some(format!("{prefix}{text}")),
            Self::Replace { from, to } => text.contains(from).then(|| text.replace(from, to)),
            Self::Lead { with, only_first } => {
                let is_due = (is_first || !only_first) && !text.starts_with(with);
                is_due.then(|| format!("{with}{text}"))
            }
            Self::Clean => Some(
                text.chars()
                    .filter(|&c| !Class::BERT_CONTROL.has(c))
                    .map(|c| if Class::SPACE.has(c) { ' ' } else { c })
                    .collect(),
            ),
            Self::SpaceIdeographs => space_ideographs(text),
        }
    }
}

fn space_ideographs(text: &str) -> Option<String> {
    let count = text.chars().filter(|&c| is_ideograph(c)).count();
    if count == 0 {
        return None;
    }
    let mut spaced = String::with_capacity(text.len() + 2 * count);
    for c in text.chars() {
        if is_ideograph(c) {
            spaced.push(' ');
            spaced.push(c);
            spaced.push(' ');
        } else {
            spaced.push(c);
        }
    }
    Some(spaced)
}

/// What the `tokenizers` library takes for CJK ideographs, with the gap before U+2B920 that it has.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff | 0x3400..=0x4dbf | 0x2_0000..=0x2_a6df | 0x2_a700..=0x2_b73f
        | 0x2_b740..=0x2_b81f | 0x2_b920..=0x2_ceaf | 0xf900..=0xfaff | 0x2_f800..=0x2_fa1f)
}

/// The settings of BERT's normaliser.
#[expect(clippy::struct_excessive_bools, reason = "the file has them so")]
pub(super) struct Bert {
    pub(super) cleans: bool,
    pub(super) spaces_ideographs: bool,
    pub(super) strips_accents: bool,
    pub(super) lowers: bool,
}

/// BERT's steps, in its order.
pub(super) fn bert(settings: &Bert) -> Vec<Step> {
    let mut steps = Vec::new();
    if settings.cleans {
        steps.push(Step::Clean);
    }
    if settings.spaces_ideographs {
        steps.push(Step::SpaceIdeographs);
    }
    if settings.strips_accents {
        steps.extend([Step::Decompose, Step::StripAccents]);
    }
    if settings.lowers {
        steps.push(Step::Lowercase);
    }
    steps
}
