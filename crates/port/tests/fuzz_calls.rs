//! The fuzz target of calls in an answer's text, which may come from a peer. `cargo test` runs it for a
//! moment; `cargo bolero test TARGET` for as long as one likes.

use commons_port::tools::{CallParser, Piece};
use commons_record::constraint::{ToolFormat, is_function_name};

const FORMATS: [ToolFormat; 4] =
    [ToolFormat::Hermes, ToolFormat::Llama, ToolFormat::MistralList, ToolFormat::MistralArgs];

const WORDS: [&str; 16] = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|python_tag|>",
    "{\"name\": \"f\", \"arguments\": {",
    "{\"name\": \"f\", \"parameters\": {",
    "[",
    "]",
    "}",
    "\"",
    "\\",
    "; ",
    ", ",
    "\n",
    "name",
];

/// Bytes above 239 stand for words of the formats.
fn text(input: &[u8]) -> String {
    let mut bytes = Vec::new();
    for &byte in input {
        match byte.checked_sub(240) {
            Some(index) => bytes.extend_from_slice(WORDS[usize::from(index)].as_bytes()),
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn any_text_as_calls() {
    bolero::check!().for_each(|input: &[u8]| {
        let text = text(input);
        for format in FORMATS {
            let mut parser = CallParser::new(format);
            let mut pieces = Vec::new();
            for c in text.chars() {
                pieces.extend(parser.push(c.encode_utf8(&mut [0; 4])));
            }
            pieces.extend(parser.finish());
            let (mut is_open, mut size) = (false, 0);
            for piece in pieces {
                match piece {
                    Piece::Text(text) => size += text.len(),
                    Piece::Begins { name } => {
                        assert!(is_function_name(&name) && !is_open);
                        (is_open, size) = (true, size + name.len());
                    }
                    Piece::Arguments(text) => {
                        assert!(is_open, "arguments of nothing");
                        size += text.len();
                    }
                    Piece::Ends => assert!(std::mem::take(&mut is_open)),
                }
            }
            assert!(size <= text.len(), "nothing is made up");
        }
    });
}
