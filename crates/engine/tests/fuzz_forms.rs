//! Fuzz targets of the forms that callers ask for: schemas and expressions. `cargo test` runs each for
//! a moment; `cargo bolero test TARGET` for as long as one likes.

use std::sync::LazyLock;

use bolero::TypeGenerator;
use commons_engine::gguf::Gguf;
use commons_engine::grammar::Grammars;
use commons_engine::noise::noise_model;
use commons_engine::tokenizer::Tokenizer;
use commons_record::constraint::Constraint;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let bytes = noise_model(1).expect("a model").to_bytes();
    let gguf = Gguf::parse(&bytes).expect("a file");
    Grammars::new(&Tokenizer::from_gguf(&gguf).expect("a vocabulary")).expect("a trie")
});

/// It compiles or is refused with a sentence; nothing else may happen.
fn read(constraint: &Constraint) {
    if let Err(error) = GRAMMARS.check(constraint) {
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn any_bytes_as_a_form() {
    bolero::check!().for_each(|input: &[u8]| {
        let text = String::from_utf8_lossy(input).into_owned();
        read(&Constraint::JsonSchema(text.clone()));
        read(&Constraint::Regex(text.clone()));
        read(&Constraint::Choice(text.split(',').map(str::to_owned).collect()));
    });
}

/// Parts of schemas, put inside each other in any order.
const PARTS: [&str; 20] = [
    r#"{"type":"object","properties":{"a":@,"b":@},"required":["a"]}"#,
    r#"{"type":"array","items":@,"minItems":2,"maxItems":9}"#,
    r#"{"anyOf":[@,@,@]}"#,
    r#"{"allOf":[@,@]}"#,
    r#"{"oneOf":[@,@]}"#,
    r##"{"$ref":"#/$defs/x"}"##,
    r##"{"$ref":"#"}"##,
    r#"{"$ref":"http://example.com/x"}"#,
    r##"{"$ref":"#/$defs/x","pattern":"^a+$"}"##,
    r#"{"type":"string","pattern":"^(a|b)*c{2,9}$","maxLength":20}"#,
    r#"{"type":"string","format":"date-time"}"#,
    r#"{"type":["string","null","integer"]}"#,
    r#"{"type":"integer","minimum":-7,"exclusiveMaximum":1e9,"multipleOf":3}"#,
    r#"{"type":"number","minimum":0.1,"maximum":0.2}"#,
    r#"{"enum":[1,"a",null,{"b":[]}]}"#,
    r#"{"const":"é\u0000"}"#,
    r#"{"type":"object","patternProperties":{"^x":@,"y$":@},"additionalProperties":@}"#,
    r#"{"not":@}"#,
    r#"{"prefixItems":[@,@],"items":false,"minItems":4}"#,
    "true",
];

#[derive(Debug, TypeGenerator)]
struct Nested {
    parts: Vec<u8>,
    definition: Vec<u8>,
}

/// Fills every `@` with the next part, and what is left with `true`.
fn put_together(parts: &[u8]) -> String {
    let mut text = "@".to_owned();
    for part in parts.iter().take(40) {
        text = text.replacen('@', PARTS[usize::from(*part) % PARTS.len()], 1);
    }
    text.replace('@', "true")
}

#[test]
fn any_parts_as_a_schema() {
    bolero::check!().with_type::<Nested>().for_each(|nested| {
        let (schema, definition) = (put_together(&nested.parts), put_together(&nested.definition));
        let defs = format!(r#""$defs":{{"x":{definition}}}"#);
        let schema = match schema.strip_suffix('}') {
            Some(open) => format!("{open},{defs}}}"),
            None => schema,
        };
        read(&Constraint::JsonSchema(schema));
    });
}
