//! What a GGUF file says of its tokenizer: the `tokenizer.` keys.
//!
//! The format names an algorithm (`tokenizer.ggml.model`) and a way to cut words
//! (`tokenizer.ggml.pre`), and leaves the rest to whoever knows the family. What is added here to
//! the keys: `qwen2` composes its texts, as its own tokenizer does, unless the file says otherwise;
//! control tokens of Phi-3 take the white space behind them.

use commons_record::Hash;
use commons_record::hash::FieldHasher;

use super::bpe::Bpe;
use super::normalize::{self, Bert, Step};
use super::special::Special;
use super::split::{self, Family};
use super::vocabulary::{Spelling, TokenKind, Vocabulary};
use super::wordpiece::{WORD_LEN_MAX, WordPiece};
use super::{Algorithm, Definition, TokenizerError};
use crate::gguf::{Gguf, GgufError, Value};

/// Reads the whole definition.
pub(super) fn read(gguf: &Gguf) -> Result<Definition, TokenizerError> {
    let key = "tokenizer.ggml.model";
    match Gguf::require(key, gguf.text(key)?)? {
        "llama" => read_sentence_piece(gguf),
        "gpt2" => read_byte_level(gguf),
        "bert" => read_word_piece(gguf),
        other => Err(TokenizerError::Model { name: other.to_owned() }),
    }
}

fn read_sentence_piece(gguf: &Gguf) -> Result<Definition, TokenizerError> {
    let vocabulary = read_vocabulary(gguf, Spelling::SpaceMarks)?;
    let key = "tokenizer.ggml.scores";
    let value = Gguf::require(key, gguf.get(key))?;
    let scores = value.as_f32s().ok_or_else(|| wrong_type(key, value))?;
    if scores.len() != vocabulary.len() {
        let (found, wanted) = (scores.len(), vocabulary.len());
        return Err(TokenizerError::Count { key, found, wanted });
    }
    let unknown = find_unknown(gguf, &vocabulary)?;
    let mut bytes = Box::new([0; 256]);
    for ((byte, token), slot) in (0u8..=255).zip(vocabulary.byte_tokens()).zip(bytes.iter_mut()) {
        *slot = token.or(unknown).ok_or(TokenizerError::MissingByte { byte })?;
    }
    let algorithm = Algorithm::Bpe(Bpe::scored(&vocabulary, scores, bytes)?);
    let adds_space = gguf.boolean("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut steps = Vec::new();
    if adds_space {
        steps.push(Step::Prepend("▁".to_owned()));
    }
    steps.push(Step::Replace { from: " ".to_owned(), to: "▁".to_owned() });
    finish(gguf, vocabulary, algorithm, Rules { steps, adds_space, adds_bos: true })
}

fn read_byte_level(gguf: &Gguf) -> Result<Definition, TokenizerError> {
    let name = gguf.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let family = split::by_name(name).map_err(|supported| TokenizerError::PreTokenizer {
        name: name.to_owned(),
        supported: supported.into_owned(),
    })?;
    let Family { splits, takes_whole_words, adds_bos, composes, .. } = family;
    let mut vocabulary = read_vocabulary(gguf, Spelling::ByteLevel)?;
    if takes_whole_words {
        vocabulary.index_words();
    }
    let key = "tokenizer.ggml.merges";
    let texts = Gguf::require(key, gguf.texts(key)?)?;
    let mut merges = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        // In a byte-level vocabulary a space is written as another character.
        let parts = text.split_once(' ');
        merges.push(parts.ok_or_else(|| TokenizerError::Merge { index, text: text.clone() })?);
    }
    let algorithm =
        Algorithm::Bpe(Bpe::byte_level(&vocabulary, merges.into_iter(), splits.to_vec())?);
    let composes = gguf.boolean("tokenizer.ggml.normalizer.nfc")?.unwrap_or(composes);
    let steps = if composes { vec![Step::Compose] } else { Vec::new() };
    finish(gguf, vocabulary, algorithm, Rules { steps, adds_space: false, adds_bos })
}

fn read_word_piece(gguf: &Gguf) -> Result<Definition, TokenizerError> {
    // The file writes a space mark before what begins a word, and nothing before what continues it.
    let vocabulary = read_vocabulary(gguf, Spelling::SpaceMarks)?;
    let unknown = find_unknown(gguf, &vocabulary)?.or(vocabulary.any_id("[UNK]"));
    let unknown = unknown.ok_or(TokenizerError::NoUnknown)?;
    let algorithm = Algorithm::WordPiece(WordPiece {
        unknown,
        first_prefix: "▁".to_owned(),
        rest_prefix: String::new(),
        word_len_max: WORD_LEN_MAX,
    });
    let lowers = gguf.boolean("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let strips = gguf.boolean("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowers);
    let steps = normalize::bert(&Bert {
        cleans: true,
        spaces_ideographs: true,
        strips_accents: strips,
        lowers,
    });
    let mut definition =
        finish(gguf, vocabulary, algorithm, Rules { steps, adds_space: true, adds_bos: true })?;
    // `[CLS]` opens a text and `[SEP]` closes it, by whichever of the format's names.
    let vocabulary = &definition.vocabulary;
    let by_name = |keys: [&str; 3], text: &str| -> Result<Option<u32>, TokenizerError> {
        for key in keys {
            if let Some(id) = special_id(gguf, vocabulary, key)? {
                return Ok(Some(id));
            }
        }
        Ok(vocabulary.any_id(text))
    };
    let token = "tokenizer.ggml.";
    let [cls, bos] = ["cls", "bos"].map(|it| format!("{token}{it}_token_id"));
    let opening = by_name([&cls, &bos, &bos], "[CLS]")?;
    let [sep, typo, eos] = ["sep", "seperator", "eos"].map(|it| format!("{token}{it}_token_id"));
    let closing = by_name([&sep, &typo, &eos], "[SEP]")?;
    definition.prefix = opening.into_iter().collect();
    definition.suffix = closing.into_iter().collect();
    Ok(definition)
}

/// What the algorithm implies for the rest of the definition.
struct Rules {
    steps: Vec<Step>,
    adds_space: bool,
    adds_bos: bool,
}

fn finish(
    gguf: &Gguf,
    vocabulary: Vocabulary,
    algorithm: Algorithm,
    rules: Rules,
) -> Result<Definition, TokenizerError> {
    let bos = special_id(gguf, &vocabulary, "tokenizer.ggml.bos_token_id")?;
    let eos = special_id(gguf, &vocabulary, "tokenizer.ggml.eos_token_id")?;
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for key in ["tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        ends.extend(special_id(gguf, &vocabulary, key)?);
    }
    let adds_bos = gguf.boolean("tokenizer.ggml.add_bos_token")?.unwrap_or(rules.adds_bos);
    let closes = gguf.boolean("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(Definition {
        specials: read_specials(gguf, &vocabulary)?,
        steps: rules.steps,
        late_steps: Vec::new(),
        algorithm,
        prefix: bos.filter(|_| adds_bos).into_iter().collect(),
        suffix: eos.filter(|_| closes).into_iter().collect(),
        bos,
        eos,
        ends,
        adds_space: rules.adds_space,
        hash: hash_of(gguf)?,
        vocabulary,
    })
}

fn read_vocabulary(gguf: &Gguf, spelling: Spelling) -> Result<Vocabulary, TokenizerError> {
    let key = "tokenizer.ggml.tokens";
    let texts = Gguf::require(key, gguf.texts(key)?)?;
    let kinds = read_kinds(gguf, texts.len())?;
    Vocabulary::new(texts.iter().map(String::as_str), kinds, spelling)
}

/// The kind of each token. Those that open or close a text are control tokens, whatever the file
/// says: otherwise a user could write them.
fn read_kinds(gguf: &Gguf, count: usize) -> Result<Vec<TokenKind>, TokenizerError> {
    let key = "tokenizer.ggml.token_type";
    let mut kinds = vec![TokenKind::Normal; count];
    if let Some(value) = gguf.get(key) {
        let codes = value.as_i32s().ok_or_else(|| wrong_type(key, value))?;
        if codes.len() != count {
            return Err(TokenizerError::Count { key, found: codes.len(), wanted: count });
        }
        for (id, (kind, &code)) in kinds.iter_mut().zip(codes).enumerate() {
            *kind = match code {
                1 => TokenKind::Normal,
                2 => TokenKind::Unknown,
                3 => TokenKind::Control,
                4 => TokenKind::UserDefined,
                5 => TokenKind::Unused,
                6 => TokenKind::Byte,
                kind => return Err(TokenizerError::Kind { id, kind }),
            };
        }
    }
    for name in ["bos", "eos", "eot", "eom", "cls", "sep", "seperator", "padding", "mask"] {
        let id = gguf.unsigned(&format!("tokenizer.ggml.{name}_token_id"))?;
        let id = id.and_then(|id| usize::try_from(id).ok());
        if let Some(kind) = id.and_then(|id| kinds.get_mut(id)) {
            *kind = TokenKind::Control;
        }
    }
    Ok(kinds)
}

/// Whether the file is of the Phi-3 family. Its tokens take the white space behind them, and the
/// format has no key to say so; this is how llama.cpp knows.
fn is_phi3(gguf: &Gguf) -> Result<bool, TokenizerError> {
    let name = gguf.text("general.name")?.unwrap_or_default().to_lowercase();
    Ok(name.contains("phi-3") || name.contains("phi3"))
}

fn read_specials(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Vec<Special>, TokenizerError> {
    let takes_right = is_phi3(gguf)?;
    let tokens = vocabulary.all().filter_map(|(id, kind, text)| {
        let is_control = match kind {
            TokenKind::Control => true,
            TokenKind::UserDefined => false,
            _ => return None,
        };
        let takes_right = takes_right && !matches!(text, "<unk>" | "<s>" | "<|endoftext|>");
        Some(Special { id, text: text.to_owned(), is_control, takes_right, ..Special::default() })
    });
    Ok(tokens.collect())
}

fn find_unknown(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Option<u32>, TokenizerError> {
    let named = special_id(gguf, vocabulary, "tokenizer.ggml.unknown_token_id")?;
    Ok(named.or_else(|| vocabulary.of_kind(TokenKind::Unknown).next().map(|(id, _)| id)))
}

/// A special token's id that the file names; all ones is the format's way to say "none".
fn special_id(
    gguf: &Gguf,
    vocabulary: &Vocabulary,
    key: &str,
) -> Result<Option<u32>, TokenizerError> {
    let Some(id) = gguf.unsigned(key)?.filter(|&id| id != u64::from(u32::MAX)) else {
        return Ok(None);
    };
    let found = u32::try_from(id).ok().filter(|&id| vocabulary.kind(id).is_some());
    let unknown = || TokenizerError::SpecialId { key: key.to_owned(), id, count: vocabulary.len() };
    found.map(Some).ok_or_else(unknown)
}

/// The hash of every `tokenizer.` pair of the file, by key, and of what its name implies.
fn hash_of(gguf: &Gguf) -> Result<Hash, TokenizerError> {
    let mut hasher = FieldHasher::new("commons/tokenizer/1");
    for (key, value) in gguf.metadata().range("tokenizer.".to_owned()..) {
        if !key.starts_with("tokenizer.") {
            break;
        }
        hasher.field(key.as_bytes());
        hasher.field(&value.to_gguf_bytes());
    }
    if is_phi3(gguf)? {
        hasher.field(b"phi-3");
    }
    Ok(hasher.finish())
}

/// The refusal of an array with elements of another type.
fn wrong_type(key: &str, value: &Value) -> TokenizerError {
    let wanted = "an array of the right type";
    GgufError::WrongType { key: key.to_owned(), wanted, found: value.type_name() }.into()
}
