//! Fuzz targets of tokenizers and templates out of strangers' folders. `cargo test` runs each for a
//! moment; `cargo bolero test TARGET` for as long as one likes.

use bolero::TypeGenerator;
use commons_engine::template::{Conversation, Json, Template, TemplateFiles};
use commons_engine::tokenizer::{Tokenizer, TokenizerFiles};

const TEXTS: [&str; 4] =
    ["", "ab a<s>b  12\u{301}", "\u{1f999} \u{0}<0x41>▁▁b", "bbbbbaaaabababab"];

/// Builds a tokenizer and holds what it says to what it may say.
fn read_and_encode(json: &[u8], config: Option<&[u8]>) {
    let files =
        TokenizerFiles { tokenizer: json, tokenizer_config: config, ..TokenizerFiles::default() };
    let Ok(tokenizer) = Tokenizer::from_files(&files) else { return };
    for text in TEXTS {
        let plain = tokenizer.encode_whole(text).unwrap_or_default();
        let guard = tokenizer.guard([text]).expect("a free mark");
        let rendered = tokenizer.encode_rendered(&tokenizer.protect(guard, text), guard);
        for ids in [plain, rendered.unwrap_or_default()] {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.token_count()));
            let _ = tokenizer.decode(&ids);
        }
    }
}

#[test]
fn any_bytes_as_a_tokenizer() {
    bolero::check!().for_each(|input: &[u8]| {
        read_and_encode(input, Some(input));
        let files = TemplateFiles { tokenizer_config: Some(input), ..TemplateFiles::default() };
        let _ = Template::from_files(&files);
    });
}

/// A pipeline out of known parts, in any order, around a vocabulary that lies as it likes.
#[derive(Debug, TypeGenerator)]
struct Lying {
    /// Tokens of up to four letters of a small alphabet, with their ids.
    tokens: Vec<(Vec<u8>, u8)>,
    merges: Vec<(u8, u8)>,
    added: Vec<(u8, u8)>,
    normalizer: u8,
    pre_tokenizer: u8,
    flags: u8,
}

const LETTERS: [&str; 8] = ["a", "b", "▁", "<", "s", ">", "é", "\u{301}"];

const NORMALIZERS: [&str; 6] = [
    "null",
    r#"{"type":"NFC"}"#,
    r#"{"type":"Prepend","prepend":"▁"}"#,
    r#"{"type":"Replace","pattern":{"String":" "},"content":"▁"}"#,
    r#"{"type":"BertNormalizer"}"#,
    r#"{"type":"Sequence","normalizers":[{"type":"NFKD"},{"type":"Lowercase"},{"type":"NFC"}]}"#,
];

const PRE_TOKENIZERS: [&str; 6] = [
    "null",
    r#"{"type":"ByteLevel","add_prefix_space":true}"#,
    r#"{"type":"Metaspace","replacement":"▁","prepend_scheme":"first","split":true}"#,
    r#"{"type":"BertPreTokenizer"}"#,
    r#"{"type":"Sequence","pretokenizers":[{"type":"Digits","individual_digits":true},{"type":"ByteLevel"}]}"#,
    r#"{"type":"Metaspace","replacement":"▁","split":false}"#,
];

impl Lying {
    fn to_json(&self) -> Vec<u8> {
        let pick = |list: &[&'static str], at: u8| list[usize::from(at) % list.len()];
        let spell = |letters: &[u8]| -> String {
            letters.iter().take(4).map(|&it| pick(&LETTERS, it)).collect()
        };
        let mut vocabulary = serde_json::Map::new();
        for byte in 0..=255u8 {
            // The byte tokens of both families, so that most files get as far as encoding.
            let code = match byte {
                b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => u32::from(byte),
                0x00..=0x20 => 0x100 + u32::from(byte),
                0x7f..=0xa0 => 0x121 + u32::from(byte - 0x7f),
                0xad => 0x143,
            };
            let name = if self.flags & 1 == 0 {
                format!("<0x{byte:02X}>")
            } else {
                char::from_u32(code).map(String::from).unwrap_or_default()
            };
            vocabulary.insert(name, byte.into());
        }
        let texts: Vec<String> = self.tokens.iter().map(|(letters, _)| spell(letters)).collect();
        for (text, (_, id)) in texts.iter().zip(&self.tokens) {
            vocabulary.entry(text.clone()).or_insert((256 + u32::from(*id)).into());
        }
        let text = |at: u8| texts.get(usize::from(at) % texts.len().max(1)).cloned();
        let merges: Vec<_> = self.merges.iter().map(|&(a, b)| [text(a), text(b)]).collect();
        let added: Vec<_> = self
            .added
            .iter()
            .map(|&(at, flags)| {
                let is = |bit: u8| flags >> bit & 1 == 1;
                serde_json::json!({"id": 300 + u32::from(at), "content": text(at), "special": is(0),
                    "lstrip": is(1), "rstrip": is(2), "normalized": is(3), "single_word": is(4)})
            })
            .collect();
        let raw = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
        let json = serde_json::json!({
            "added_tokens": added,
            "normalizer": raw(pick(&NORMALIZERS, self.normalizer)),
            "pre_tokenizer": raw(pick(&PRE_TOKENIZERS, self.pre_tokenizer)),
            "post_processor": null,
            "model": {
                "type": if self.flags & 2 == 0 { "BPE" } else { "WordPiece" },
                "byte_fallback": self.flags & 1 == 0, "fuse_unk": self.flags & 4 == 0,
                "ignore_merges": self.flags & 8 != 0, "unk_token": "a",
                "vocab": vocabulary, "merges": merges,
            },
        });
        serde_json::to_vec(&json).expect("JSON")
    }
}

#[test]
fn a_tokenizer_that_lies() {
    bolero::check!().with_type::<Lying>().for_each(|lying| read_and_encode(&lying.to_json(), None));
}

#[test]
fn any_conversation() {
    let source = "{{ bos_token }}{% for m in messages %}{{ m.role }}{{ m.content | trim }}{{ m | tojson }}\
        {% endfor %}{{ tools | tojson }}{{ messages }}";
    bolero::check!().for_each(|input: &[u8]| {
        let Ok(json) = Json::parse(input) else { return };
        let template = Template::new(source).expect("compiles");
        let conversation = Conversation { tools: Some(&json), ..Conversation::new(&json) };
        let _ = template.render(&conversation, "<s>", "</s>");
    });
}
