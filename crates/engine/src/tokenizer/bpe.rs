//! Byte-level BPE: split into words, spell each word in bytes, apply the merges in order of rank.
//!
//! The `tokenizers` crate is not used here. Its builder indexes past a buffer when two tokens of a
//! lying merge are longer together than the longest token, its splitter stops without a word when
//! the regular expression gives up, and it keeps users' words in a cache for the life of the thread.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use fancy_regex::Regex;

use super::TokenizerError;
use super::vocabulary::Vocabulary;
use crate::gguf::Gguf;

/// Contractions, words, numbers, punctuation and white space, as GPT-2 split them.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Llama 3: contractions in any case, at most three digits together, line ends apart.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Qwen 2: as Llama 3, with every digit apart.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Every digit apart, before anything else is split.
const DIGITS: &str = r"\p{N}|\P{N}+";

/// What llama.cpp does for a file that names no pre-tokenizer: punctuation apart, ...
const PUNCTUATION: &str = r"[\p{P}$+<=>^~|]+|[^\p{P}$+<=>^~|]+";
/// ... numbers apart, ...
const NUMBERS: &str = r"\p{N}+|\P{N}+";
/// ... and at most three digits together.
const TRIPLES: &str = r"(?s)[0-9]{3}|(?:(?![0-9]{3}).)+";

/// How a family splits, by the names that files use for it.
struct Family {
    names: &'static [&'static str],
    /// Applied one after the other, each to the words of the one before. Each covers every text.
    patterns: &'static [&'static str],
    /// Whether a word that is a token as a whole is taken as it is, without merging.
    takes_whole_words: bool,
    adds_bos: bool,
}

/// The supported families. An unknown name is refused: splitting differently changes every answer.
const FAMILIES: [Family; 5] = [
    Family {
        names: &["default"],
        patterns: &[PUNCTUATION, GPT2, NUMBERS, TRIPLES],
        takes_whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &["gpt-2", "phi-2", "mpt", "olmo"],
        patterns: &[GPT2],
        takes_whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3", "smaug-bpe"],
        patterns: &[LLAMA3],
        takes_whole_words: true,
        adds_bos: true,
    },
    Family {
        names: &["qwen2", "deepseek-r1-qwen"],
        patterns: &[QWEN2],
        takes_whole_words: false,
        adds_bos: false,
    },
    Family {
        names: &["smollm", "starcoder", "refact", "command-r"],
        patterns: &[DIGITS, GPT2],
        takes_whole_words: false,
        adds_bos: false,
    },
];

/// For two neighbours: the rank of their merge, and the token they become.
type Merges = HashMap<(u32, u32), (u32, u32)>;

/// The rules of one byte-level BPE model.
#[derive(Debug)]
pub(super) struct Bpe {
    patterns: Vec<Regex>,
    merges: Merges,
    bytes: Vec<u32>,
    takes_whole_words: bool,
}

/// A token in a word, linked to its neighbours. `None` after it was merged into the left one.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    id: Option<u32>,
    before: Option<usize>,
    after: Option<usize>,
}

impl Bpe {
    /// The rules, and whether the family puts the opening token before a text.
    pub(super) fn new(
        gguf: &Gguf,
        vocabulary: &Vocabulary,
    ) -> Result<(Self, bool), TokenizerError> {
        let name = gguf.text("tokenizer.ggml.pre")?.unwrap_or("default");
        let family = FAMILIES.iter().find(|family| family.names.contains(&name));
        let Some(family) = family else {
            let supported = FAMILIES.map(|family| family.names.join(", ")).join(", ");
            return Err(TokenizerError::PreTokenizer { name: name.to_owned(), supported });
        };
        let patterns = family.patterns.iter().map(|pattern| Regex::new(pattern));
        let patterns = patterns.collect::<Result<_, _>>().map_err(split_error)?;
        let mut bytes = Vec::with_capacity(256);
        for byte in 0u8..=255 {
            let id = vocabulary.id(char_of_byte(byte).encode_utf8(&mut [0; 4]));
            bytes.push(id.ok_or(TokenizerError::MissingByte { byte })?);
        }
        let merges = read_merges(gguf, vocabulary)?;
        let bpe = Self { patterns, merges, bytes, takes_whole_words: family.takes_whole_words };
        Ok((bpe, family.adds_bos))
    }

    /// Appends the tokens of `text`, which lies between two special tokens.
    pub(super) fn encode(
        &self,
        vocabulary: &Vocabulary,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let mut words = vec![text];
        for pattern in &self.patterns {
            words = split(pattern, &words)?;
        }
        for word in words {
            let whole =
                self.takes_whole_words.then(|| spell(word)).and_then(|it| vocabulary.id(&it));
            match whole {
                Some(id) => ids.push(id),
                None => self.merge(word, ids),
            }
        }
        Ok(())
    }

    /// Applies the merges to one word: the lowest rank first, among equals the leftmost.
    fn merge(&self, word: &str, ids: &mut Vec<u32>) {
        let last = word.len().saturating_sub(1);
        let mut symbols: Vec<Symbol> = word
            .bytes()
            .enumerate()
            .map(|(index, byte)| Symbol {
                id: Some(self.bytes[usize::from(byte)]),
                before: index.checked_sub(1),
                after: Some(index + 1).filter(|_| index < last),
            })
            .collect();
        let mut queue = BinaryHeap::new();
        for left in 0..symbols.len() {
            queue.extend(self.candidate(&symbols, left));
        }
        while let Some(Reverse((rank, left))) = queue.pop() {
            // A candidate is stale if the two are no longer neighbours with this very merge.
            let Some(Reverse((now, _))) = self.candidate(&symbols, left) else { continue };
            let (Some(right), true) = (symbols[left].after, now == rank) else { continue };
            symbols[left].id = self.union(&symbols, left, right).map(|(_, id)| id);
            symbols[left].after = symbols[right].after;
            symbols[right].id = None;
            if let Some(after) = symbols[right].after {
                symbols[after].before = Some(left);
            }
            if let Some(before) = symbols[left].before {
                queue.extend(self.candidate(&symbols, before));
            }
            queue.extend(self.candidate(&symbols, left));
        }
        ids.extend(symbols.iter().filter_map(|symbol| symbol.id));
    }

    fn union(&self, symbols: &[Symbol], left: usize, right: usize) -> Option<(u32, u32)> {
        self.merges.get(&(symbols[left].id?, symbols[right].id?)).copied()
    }

    fn candidate(&self, symbols: &[Symbol], left: usize) -> Option<Reverse<(u32, usize)>> {
        let (rank, _) = self.union(symbols, left, symbols[left].after?)?;
        Some(Reverse((rank, left)))
    }
}

fn read_merges(gguf: &Gguf, vocabulary: &Vocabulary) -> Result<Merges, TokenizerError> {
    let key = "tokenizer.ggml.merges";
    let texts = Gguf::require(key, gguf.texts(key)?)?;
    let mut merges = HashMap::with_capacity(texts.len());
    for (rank, (index, text)) in (0u32..).zip(texts.iter().enumerate()) {
        let unknown = || TokenizerError::Merge { index, text: text.clone() };
        // In a byte-level vocabulary a space is written as another character.
        let (left, right) = text.split_once(' ').ok_or_else(unknown)?;
        let union = vocabulary.id(&format!("{left}{right}")).ok_or_else(unknown)?;
        let left = vocabulary.id(left).ok_or_else(unknown)?;
        let right = vocabulary.id(right).ok_or_else(unknown)?;
        merges.entry((left, right)).or_insert((rank, union));
    }
    Ok(merges)
}

fn split<'a>(pattern: &Regex, words: &[&'a str]) -> Result<Vec<&'a str>, TokenizerError> {
    let mut parts = Vec::new();
    for &word in words {
        let mut end = 0;
        for found in pattern.find_iter(word) {
            let found = found.map_err(split_error)?;
            if found.start() != end {
                return Err(TokenizerError::Unsplit { start: end, end: found.start() });
            }
            end = found.end();
            parts.push(&word[found.range()]);
        }
        if end != word.len() {
            return Err(TokenizerError::Unsplit { start: end, end: word.len() });
        }
    }
    Ok(parts)
}

fn split_error(source: fancy_regex::Error) -> TokenizerError {
    TokenizerError::Split { source: Box::new(source) }
}

fn spell(word: &str) -> String {
    word.bytes().map(char_of_byte).collect()
}

/// How a byte is written in the vocabulary: itself if it is printable in Latin-1, otherwise the
/// next free character from U+0100 on.
fn char_of_byte(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
        0x00..=0x20 => 0x100 + u32::from(byte),
        0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
        0xad => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The inverse of [`char_of_byte`].
pub(super) fn byte_of_char(c: char) -> Option<u8> {
    let code = match u32::from(c) {
        code @ (0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) => code,
        code @ 0x100..=0x120 => code - 0x100,
        code @ 0x121..=0x142 => code - 0x121 + 0x7f,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(code).ok()
}
