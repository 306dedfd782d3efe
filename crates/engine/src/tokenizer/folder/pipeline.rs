//! The components around the model: normaliser, pre-tokenizer and post-processor.

use serde_json::Value;

use super::super::TokenizerError;
use super::super::normalize::{self, Bert, Step};
use super::super::split::{self, Split, WordRules};
use super::super::vocabulary::Spelling;
use super::TokenizerJson;
use super::model::{Model, type_of};

/// What all components together mean.
#[derive(Default)]
pub(super) struct Pipeline {
    pub(super) steps: Vec<Step>,
    pub(super) late_steps: Vec<Step>,
    pub(super) splits: Vec<Split>,
    pub(super) prefix: Vec<u32>,
    pub(super) suffix: Vec<u32>,
    /// Whether a space goes before a text.
    pub(super) adds_space: bool,
    is_byte_level: bool,
    is_bert: bool,
}

fn unsupported(part: &'static str, name: impl Into<String>) -> TokenizerError {
    TokenizerError::Unsupported { part, name: name.into() }
}

/// A truth value of a component, or what the library takes where it is absent or null.
fn flag(component: &Value, key: &str, default: bool) -> bool {
    component.get(key).and_then(Value::as_bool).unwrap_or(default)
}

fn text<'a>(component: &'a Value, key: &str) -> Option<&'a str> {
    component.get(key).and_then(Value::as_str)
}

/// The parts of a `Sequence`.
fn parts<'a>(component: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    component.get(key).and_then(Value::as_array).into_iter().flatten()
}

impl Pipeline {
    pub(super) fn read(json: &TokenizerJson) -> Result<Self, TokenizerError> {
        let mut pipeline = Self::default();
        pipeline.normalizer(&json.normalizer)?;
        pipeline.pre_tokenizer(&json.pre_tokenizer)?;
        pipeline.post_processor(&json.post_processor)?;
        if pipeline.is_bert != json.model.is_word_piece() {
            return Err(unsupported("pre_tokenizer with this model", type_of(&json.pre_tokenizer)));
        }
        Ok(pipeline)
    }

    /// How the vocabulary is written.
    pub(super) fn spelling(&self, model: &Model) -> Result<Spelling, TokenizerError> {
        match (model.is_word_piece(), self.is_byte_level) {
            (true, _) => Ok(Spelling::Continuations),
            (false, true) if model.falls_back_to_bytes() => {
                Err(unsupported("byte_fallback with", "ByteLevel"))
            }
            (false, true) => Ok(Spelling::ByteLevel),
            (false, false) => Ok(Spelling::SpaceMarks),
        }
    }

    /// Parsed JSON is nested at most 128 deep, and so is this.
    fn normalizer(&mut self, component: &Value) -> Result<(), TokenizerError> {
        if component.is_null() {
            return Ok(());
        }
        let step = match type_of(component) {
            "Sequence" => {
                return parts(component, "normalizers").try_for_each(|it| self.normalizer(it));
            }
            "NFC" => Step::Compose,
            "NFD" => Step::Decompose,
            "NFKC" => Step::ComposeCompatible,
            "NFKD" => Step::DecomposeCompatible,
            "Lowercase" => Step::Lowercase,
            "Prepend" => {
                let prefix = text(component, "prepend").unwrap_or_default();
                self.adds_space |= prefix == "▁";
                Step::Prepend(prefix.to_owned())
            }
            "Replace" => replacement(component)?,
            "BertNormalizer" => {
                let lowers = flag(component, "lowercase", true);
                self.steps.extend(normalize::bert(&Bert {
                    cleans: flag(component, "clean_text", true),
                    spaces_ideographs: flag(component, "handle_chinese_chars", true),
                    strips_accents: flag(component, "strip_accents", lowers),
                    lowers,
                }));
                return Ok(());
            }
            other => return Err(unsupported("normalizer", other)),
        };
        self.steps.push(step);
        Ok(())
    }

    fn pre_tokenizer(&mut self, component: &Value) -> Result<(), TokenizerError> {
        if component.is_null() {
            return Ok(());
        }
        match type_of(component) {
            "Sequence" => {
                return parts(component, "pretokenizers").try_for_each(|it| self.pre_tokenizer(it));
            }
            // Each of these must be the last, or the only one.
            _ if self.is_byte_level || self.is_bert => {
                return Err(unsupported("pre_tokenizer behind the last", type_of(component)));
            }
            "Split" => self.split(component)?,
            "Digits" if flag(component, "individual_digits", false) => {
                self.splits.push(Split::EachDigit);
            }
            "Digits" => self.splits.push(Split::NumericRuns),
            "ByteLevel" => self.byte_level(component)?,
            "Metaspace" => self.metaspace(component)?,
            "BertPreTokenizer" => self.is_bert = true,
            other => return Err(unsupported("pre_tokenizer", other)),
        }
        Ok(())
    }

    fn split(&mut self, component: &Value) -> Result<(), TokenizerError> {
        let behavior = text(component, "behavior").unwrap_or("none");
        let is_inverted = flag(component, "invert", false);
        let pattern = component.get("pattern").unwrap_or(&Value::Null);
        if let Some(regex) = text(pattern, "Regex") {
            let found = split::by_regex(regex);
            let (split, is_covering) =
                found.ok_or_else(|| unsupported("pre_tokenizer pattern", regex))?;
            let is_known = match (behavior, is_inverted) {
                ("Isolated", _) => true,
                // The matches are kept, and nothing lies between them.
                ("Removed", true) => is_covering,
                _ => false,
            };
            if !is_known {
                return Err(unsupported("behavior of Split", behavior));
            }
            self.splits.push(split);
            return Ok(());
        }
        // Gemma writes this, and has replaced all spaces before: there is nothing to split.
        let has_no_spaces = self
            .steps
            .iter()
            .any(|step| matches!(step, Step::Replace { from, to } if from == " " && to == "▁"));
        let string = text(pattern, "String").unwrap_or_default();
        if string == " " && has_no_spaces { Ok(()) } else { Err(unsupported("Split at", string)) }
    }

    fn byte_level(&mut self, component: &Value) -> Result<(), TokenizerError> {
        if flag(component, "add_prefix_space", true) {
            if !self.splits.is_empty() {
                return Err(unsupported("add_prefix_space behind", "another pre_tokenizer"));
            }
            self.late_steps.push(Step::Lead { with: " ".to_owned(), only_first: false });
            self.adds_space = true;
        }
        if flag(component, "use_regex", true) {
            self.splits.push(Split::Words(WordRules::GPT2));
        }
        self.is_byte_level = true;
        Ok(())
    }

    fn metaspace(&mut self, component: &Value) -> Result<(), TokenizerError> {
        let replacement = text(component, "replacement").unwrap_or("▁");
        if replacement != "▁" {
            return Err(unsupported("replacement of Metaspace", replacement));
        }
        if !self.splits.is_empty() {
            return Err(unsupported("pre_tokenizer behind another", "Metaspace"));
        }
        self.late_steps.push(Step::Replace { from: " ".to_owned(), to: replacement.to_owned() });
        // Old files have a truth value in place of the scheme.
        let old = if flag(component, "add_prefix_space", true) { "always" } else { "never" };
        let only_first = match text(component, "prepend_scheme").unwrap_or(old) {
            "always" => Some(false),
            "first" => Some(true),
            "never" => None,
            other => return Err(unsupported("prepend_scheme", other)),
        };
        if let Some(only_first) = only_first {
            self.late_steps.push(Step::Lead { with: replacement.to_owned(), only_first });
            self.adds_space = true;
        }
        if flag(component, "split", true) {
            self.splits.push(Split::BeforeSpaceMarks);
        }
        Ok(())
    }

    fn post_processor(&mut self, component: &Value) -> Result<(), TokenizerError> {
        if component.is_null() {
            return Ok(());
        }
        match type_of(component) {
            "Sequence" => parts(component, "processors").try_for_each(|it| self.post_processor(it)),
            // It moves offsets, which nobody here reads.
            "ByteLevel" => Ok(()),
            "TemplateProcessing" => self.template(component),
            "BertProcessing" | "RobertaProcessing" => {
                self.prefix = vec![pair_id(component, "cls")?];
                self.suffix = vec![pair_id(component, "sep")?];
                Ok(())
            }
            other => Err(unsupported("post_processor", other)),
        }
    }

    /// What stands before and behind the one text.
    fn template(&mut self, component: &Value) -> Result<(), TokenizerError> {
        let mut is_behind = false;
        for part in parts(component, "single") {
            let name = part.get("SpecialToken").and_then(|token| text(token, "id"));
            match name {
                Some(name) => {
                    let ids = special_ids(component, name)?;
                    let side = if is_behind { &mut self.suffix } else { &mut self.prefix };
                    side.extend(ids);
                }
                None if part.get("Sequence").is_some() && !is_behind => is_behind = true,
                None => return Err(unsupported("post_processor", "TemplateProcessing")),
            }
        }
        Ok(())
    }
}

fn replacement(component: &Value) -> Result<Step, TokenizerError> {
    let pattern = component.get("pattern").unwrap_or(&Value::Null);
    let from = text(pattern, "String").filter(|it| !it.is_empty());
    let from = from.ok_or_else(|| unsupported("normalizer", "Replace by a regular expression"))?;
    let to = text(component, "content").unwrap_or_default();
    // Otherwise a text could grow without measure.
    if to.len() > 4 * from.len() {
        return Err(unsupported("normalizer Replace by", to));
    }
    Ok(Step::Replace { from: from.to_owned(), to: to.to_owned() })
}

fn id_of(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// The id in `["[CLS]", 101]`.
fn pair_id(component: &Value, key: &str) -> Result<u32, TokenizerError> {
    let id = component.get(key).and_then(|pair| pair.get(1)).and_then(id_of);
    id.ok_or_else(|| unsupported("post_processor without", key))
}

fn special_ids(component: &Value, name: &str) -> Result<Vec<u32>, TokenizerError> {
    let token = component.get("special_tokens").and_then(|tokens| tokens.get(name));
    let ids = token.and_then(|token| token.get("ids")).and_then(Value::as_array);
    let ids: Option<Vec<u32>> = ids.and_then(|ids| ids.iter().map(id_of).collect());
    // One token each in every published file.
    let ids = ids.filter(|ids| ids.len() <= 4);
    ids.ok_or_else(|| unsupported("special token of the post_processor", name))
}
