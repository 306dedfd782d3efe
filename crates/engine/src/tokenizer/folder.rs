//! What a Hugging Face folder says of its tokenizer.
//!
//! `tokenizer.json` is a pipeline of components, each with a type and settings (`pipeline.rs`), a
//! model with its vocabulary (`model.rs`), and added tokens with flags. `tokenizer_config.json`,
//! `special_tokens_map.json` and `generation_config.json` name the tokens that open and close a
//! text. The pipelines of the supported families are recognised; a component or a setting that is
//! not among them is refused by name, because an almost right tokenizer is wrong.
//!
//! What differs from the library, on purpose: a control token that asks to be looked for in the
//! normalised text is looked for in the text as written. A user's text between a template's own
//! must not move when it is normalised.
//!
//! Not here: `truncation` and `padding`, which are the caller's business; the decoder, which
//! follows from the rest.

mod model;
mod pipeline;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use commons_record::Hash;
use commons_record::hash::FieldHasher;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::special::Special;
use super::vocabulary::{Spelling, TOKENS_MAX, TokenKind, Vocabulary, parse_byte};
use super::{Definition, TokenizerError};
use model::Model;
use pipeline::Pipeline;

/// Bytes of `tokenizer.json`. The largest published has 33 MiB.
const TOKENIZER_SIZE_MAX: u64 = 96 << 20;

/// Bytes of each other file. The largest seen, with the flags of 6 000 tokens, has 1.2 MiB.
const CONFIG_SIZE_MAX: u64 = 8 << 20;

/// The contents of the files that describe a tokenizer.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenizerFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer: &'a [u8],
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`
    pub special_tokens_map: Option<&'a [u8]>,
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
}

/// The same, read from a folder.
pub(super) struct Owned {
    tokenizer: Vec<u8>,
    tokenizer_config: Option<Vec<u8>>,
    special_tokens_map: Option<Vec<u8>>,
    generation_config: Option<Vec<u8>>,
}

impl Owned {
    pub(super) fn read(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let config = |name: &str| read_file(&folder.join(name), CONFIG_SIZE_MAX);
        Ok(Self {
            tokenizer: read_file(&path, TOKENIZER_SIZE_MAX)?.ok_or_else(|| {
                TokenizerError::Read { path: path.clone(), source: ErrorKind::NotFound.into() }
            })?,
            tokenizer_config: config("tokenizer_config.json")?,
            special_tokens_map: config("special_tokens_map.json")?,
            generation_config: config("generation_config.json")?,
        })
    }

    pub(super) fn borrow(&self) -> TokenizerFiles<'_> {
        TokenizerFiles {
            tokenizer: &self.tokenizer,
            tokenizer_config: self.tokenizer_config.as_deref(),
            special_tokens_map: self.special_tokens_map.as_deref(),
            generation_config: self.generation_config.as_deref(),
        }
    }
}

/// A whole file of at most `limit` bytes; `None` if there is none.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(TokenizerError::FileSize { file: path.display().to_string(), limit });
    }
    Ok(Some(bytes))
}

/// `tokenizer.json`
#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    model: Model,
}

/// One entry of `added_tokens`, or a value of `added_tokens_decoder`.
#[derive(Clone, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file has them so")]
struct AddedToken {
    #[serde(default)]
    id: Option<u32>,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// What is read of `tokenizer_config.json` and of `special_tokens_map.json`.
#[derive(Default, Deserialize)]
struct ConfigJson {
    #[serde(default)]
    bos_token: Option<TokenName>,
    #[serde(default)]
    eos_token: Option<TokenName>,
    #[serde(default)]
    add_bos_token: Option<bool>,
    #[serde(default)]
    add_eos_token: Option<bool>,
    #[serde(default)]
    added_tokens_decoder: BTreeMap<String, AddedToken>,
}

/// What is read of `generation_config.json`.
#[derive(Default, Deserialize)]
struct GenerationJson {
    #[serde(default)]
    eos_token_id: Option<OneOrMany>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum TokenName {
    Text(String),
    Token { content: String },
}

impl TokenName {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Token { content: text } => text,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// Reads the whole definition.
pub(super) fn read(files: &TokenizerFiles<'_>) -> Result<Definition, TokenizerError> {
    check_sizes(files)?;
    let mut json: TokenizerJson = parse("tokenizer.json", files.tokenizer)?;
    let config: ConfigJson = parse_or_default("tokenizer_config.json", files.tokenizer_config)?;
    let map: ConfigJson = parse_or_default("special_tokens_map.json", files.special_tokens_map)?;
    let generation: GenerationJson =
        parse_or_default("generation_config.json", files.generation_config)?;
    add_configured(&mut json.added_tokens, &config)?;

    let pipeline = Pipeline::read(&json)?;
    let texts = json.model.texts(&json.added_tokens)?;
    let named = |name: fn(&ConfigJson) -> &Option<TokenName>| {
        let name = name(&config).as_ref().or_else(|| name(&map).as_ref());
        name.map(|name| name.text().to_owned())
    };
    let (bos_text, eos_text) = (named(|it| &it.bos_token), named(|it| &it.eos_token));
    let spelling = pipeline.spelling(&json.model)?;
    let controls = [bos_text.as_deref(), eos_text.as_deref()];
    let kinds = kinds_of(&texts, &json, spelling, controls);
    let specials = specials_of(&json.added_tokens, &kinds);
    let mut vocabulary = Vocabulary::new(texts.iter().map(|it| it.unwrap_or("")), kinds, spelling)?;
    let algorithm = json.model.build(&mut vocabulary, spelling, pipeline.splits)?;

    let find = |text: Option<String>| text.and_then(|text| vocabulary.any_id(&text));
    let (bos, eos) = (find(bos_text), find(eos_text));
    let mut ends: Vec<u32> = eos.into_iter().collect();
    ends.extend(match generation.eos_token_id {
        Some(OneOrMany::One(id)) => vec![id],
        Some(OneOrMany::Many(ids)) => ids,
        None => Vec::new(),
    });
    let count = vocabulary.len();
    let used = ends.iter().chain(&pipeline.prefix).chain(&pipeline.suffix);
    if let Some(&id) = used.into_iter().find(|&&id| id as usize >= count) {
        let key = "generation_config.json or post_processor".to_owned();
        return Err(TokenizerError::SpecialId { key, id: id.into(), count });
    }
    Ok(Definition {
        prefix: affix(pipeline.prefix, bos, config.add_bos_token),
        suffix: affix(pipeline.suffix, eos, config.add_eos_token),
        vocabulary,
        algorithm,
        steps: pipeline.steps,
        late_steps: pipeline.late_steps,
        specials,
        bos,
        eos,
        ends,
        adds_space: pipeline.adds_space || spelling == Spelling::Continuations,
        hash: hash_of(files),
    })
}

/// What goes before or behind a text: as the post-processor has it, unless the configuration says.
fn affix(processed: Vec<u32>, token: Option<u32>, is_added: Option<bool>) -> Vec<u32> {
    match (is_added, token) {
        (Some(true), Some(id)) => vec![id],
        (Some(false), Some(id)) if processed == [id] => Vec::new(),
        _ => processed,
    }
}

fn check_sizes(files: &TokenizerFiles<'_>) -> Result<(), TokenizerError> {
    let configs = [files.tokenizer_config, files.special_tokens_map, files.generation_config];
    let configs = configs.into_iter().flatten().map(|it| ("a configuration", it, CONFIG_SIZE_MAX));
    let tokenizer = [("tokenizer.json", files.tokenizer, TOKENIZER_SIZE_MAX)];
    for (file, bytes, limit) in tokenizer.into_iter().chain(configs) {
        if bytes.len() as u64 > limit {
            return Err(TokenizerError::FileSize { file: file.to_owned(), limit });
        }
    }
    Ok(())
}

/// Adds the tokens that only the configuration has, as `transformers` does.
fn add_configured(tokens: &mut Vec<AddedToken>, config: &ConfigJson) -> Result<(), TokenizerError> {
    let known: std::collections::HashSet<String> =
        tokens.iter().map(|token| token.content.clone()).collect();
    for (id, token) in &config.added_tokens_decoder {
        if !known.contains(&token.content) {
            let id = id.parse().map_err(|_| TokenizerError::Unsupported {
                part: "the id in added_tokens_decoder",
                name: id.clone(),
            })?;
            tokens.push(AddedToken { id: Some(id), ..token.clone() });
        }
    }
    Ok(())
}

fn kinds_of(
    texts: &[Option<&str>],
    json: &TokenizerJson,
    spelling: Spelling,
    controls: [Option<&str>; 2],
) -> Vec<TokenKind> {
    let unknown = json.model.unknown();
    let is_byte = |text: &str| spelling == Spelling::SpaceMarks && parse_byte(text).is_some();
    let mut kinds: Vec<TokenKind> = texts
        .iter()
        .map(|&text| match text {
            None => TokenKind::Unused,
            Some(text) if controls.contains(&Some(text)) => TokenKind::Control,
            Some(text) if unknown == Some(text) => TokenKind::Unknown,
            Some(text) if json.model.falls_back_to_bytes() && is_byte(text) => TokenKind::Byte,
            Some(_) => TokenKind::Normal,
        })
        .collect();
    for token in &json.added_tokens {
        let kind = token.id.and_then(|id| kinds.get_mut(id as usize));
        if let Some(kind) = kind.filter(|kind| **kind != TokenKind::Control) {
            *kind = if token.special { TokenKind::Control } else { TokenKind::UserDefined };
        }
    }
    kinds
}

fn specials_of(added: &[AddedToken], kinds: &[TokenKind]) -> Vec<Special> {
    let tokens = added.iter().filter_map(|token| {
        let id = token.id?;
        let is_control = kinds.get(id as usize) == Some(&TokenKind::Control);
        Some(Special {
            id,
            text: token.content.clone(),
            is_control,
            is_normalized: token.normalized && !is_control,
            takes_left: token.lstrip,
            takes_right: token.rstrip,
            is_single_word: token.single_word,
        })
    });
    tokens.collect()
}

fn parse<T: DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, TokenizerError> {
    let failed = |source| TokenizerError::Json { file, source: Box::new(source) };
    serde_json::from_slice(bytes).map_err(failed)
}

fn parse_or_default<T: DeserializeOwned + Default>(
    file: &'static str,
    bytes: Option<&[u8]>,
) -> Result<T, TokenizerError> {
    bytes.map_or_else(|| Ok(T::default()), |bytes| parse(file, bytes))
}

/// Every file that was read, in a fixed order; one that is absent differs from one that is empty.
fn hash_of(files: &TokenizerFiles<'_>) -> Hash {
    let mut hasher = FieldHasher::new("commons/tokenizer-folder/1");
    hasher.field(files.tokenizer);
    for file in [files.tokenizer_config, files.special_tokens_map, files.generation_config] {
        hasher.field(&[u8::from(file.is_some())]);
        hasher.field(file.unwrap_or_default());
    }
    hasher.finish()
}
