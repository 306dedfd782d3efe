//! Tests of grammars on a vocabulary of a few hundred tokens: what may follow, and what is refused.

use std::time::{Duration, Instant};

use commons_record::constraint::ToolChoice::{Auto, Required};
use commons_record::constraint::ToolFormat::{Hermes, Llama, MistralArgs, MistralList};
use commons_record::constraint::{Constraint, Function, ToolChoice, Tools};

use super::tools::Calls;
use super::*;
use crate::gguf::Gguf;
use crate::noise::noise_model;

fn tokenizer() -> Tokenizer {
    let bytes = noise_model(1).expect("a model").to_bytes();
    Tokenizer::from_gguf(&Gguf::parse(&bytes).expect("a file")).expect("a vocabulary")
}

/// Walks a text token by token. How many bytes of it are allowed, and whether it may end there.
fn walk(tokenizer: &Tokenizer, mut guide: Guide, text: &str) -> (usize, bool) {
    let mut at = 0;
    while at < text.len() {
        let allowed = guide.allowed().expect("a mask");
        // Byte by byte, where the vocabulary has no word: any spelling is as good as another.
        let count = u32::try_from(tokenizer.token_count()).expect("small");
        let fits = |id: &u32| {
            let piece = tokenizer.piece(*id).unwrap_or_default();
            !piece.is_empty() && text.as_bytes()[at..].starts_with(piece)
        };
        let Some(id) = (0..count).filter(|&id| allowed.contains(id)).find(fits) else { break };
        at += tokenizer.piece(id).unwrap_or_default().len();
        guide.push(id);
    }
    let end = tokenizer.ends()[0];
    (at, at == text.len() && guide.allowed().expect("a mask").contains(end))
}

struct World {
    tokenizer: Tokenizer,
    grammars: Grammars,
}

impl World {
    fn new() -> Self {
        let tokenizer = tokenizer();
        let grammars = Grammars::new(&tokenizer).expect("a trie");
        Self { tokenizer, grammars }
    }

    fn check(&self, constraint: &Constraint, whole: &[&str], wrong: &[&str]) {
        let guide = || self.grammars.guide(Some(constraint), None).expect("compiles");
        for text in whole {
            let found = walk(&self.tokenizer, guide(), text);
            assert_eq!(found, (text.len(), true), "{constraint:?}: {text:?}");
        }
        for text in wrong {
            let (_, is_whole) = walk(&self.tokenizer, guide(), text);
            assert!(!is_whole, "{constraint:?}: {text:?}");
        }
    }

    /// Compiles, and walks a hundred tokens if it can. Returns the refusal.
    #[expect(clippy::disallowed_methods, reason = "a hang is a failure, and this is its stopwatch")]
    fn explode(&self, constraint: &Constraint) -> Option<GrammarError> {
        let started = Instant::now();
        let outcome = self.grammars.guide(Some(constraint), None).and_then(|mut guide| {
            for _ in 0..100 {
                let allowed = guide.allowed()?;
                let count = u32::try_from(self.tokenizer.token_count()).expect("small");
                let Some(id) =
                    (0..count).rev().find(|&id| allowed.contains(id) && !self.tokenizer.is_end(id))
                else {
                    break;
                };
                guide.push(id);
            }
            Ok(())
        });
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        outcome.err()
    }
}

#[test]
fn a_text_keeps_to_its_form() {
    let world = World::new();
    let regex = |source: &str| Constraint::Regex(source.into());
    let choice = |texts: &[&str]| Constraint::Choice(texts.iter().map(|&it| it.into()).collect());
    let schema = |source: &str| Constraint::JsonSchema(source.into());
    world.check(&regex("[a-c]{2,3}"), &["ab", "abc"], &["a", "abca", "xy", ""]);
    world.check(&regex("^a+$"), &["a", "aaa"], &["", "b"]);
    world.check(&regex(r"a\$"), &["a$"], &["a"]);
    world.check(&regex("a/b"), &["a/b"], &["a"]);
    world.check(&regex("(foo|bar)?"), &["", "foo", "bar"], &["fo"]);
    world.check(&regex("ünï+"), &["ünïï"], &["ün"]);
    world.check(
        &choice(&["yes", "no", "a \"b\"\\\n\u{7f}"]),
        &["yes", "no", "a \"b\"\\\n\u{7f}"],
        &["y", "yesno"],
    );
    world.check(&choice(&["a", "ab"]), &["a", "ab"], &["b"]);
    world.check(&Constraint::JsonObject, &["{}", r#"{"a": [1, null]}"#], &["[]", "1", "{"]);
    let object = r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"],"additionalProperties":false}"#;
    world.check(
        &schema(object),
        &[r#"{"a":1}"#, "{ \"a\" :\n 12 }"],
        &["{}", r#"{"a":"1"}"#, r#"{"b":1}"#],
    );
    world.check(&schema("true"), &["1", "[]", r#""a""#], &["{", "x"]);
    let list = r##"{"$ref":"#/$defs/list","$defs":{"list":{"type":"array","items":{"$ref":"#/$defs/list"}}}}"##;
    world.check(&schema(list), &["[]", "[[],[[]]]"], &["[1]", "["]);
}

/// Expressions that blow up in one way or another.
fn expressions() -> Vec<String> {
    vec![
        "a{1,1000000}".to_owned(),
        "(a{1,1000}){1,1000}".to_owned(),
        "((a*)*)*b".to_owned(),
        "(a|aa)+(b|bb)+((a|b)*a(a|b){20})".to_owned(),
        format!("(.*a.{{{}}}){{3}}", 200),
        (0..10_000).map(|it| format!("w{it}")).collect::<Vec<_>>().join("|"),
        format!("{}{}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("{}a{}", "(".repeat(200), ")*".repeat(200)),
        "(?=a)a".to_owned(),
        "[".to_owned(),
        r"\p{L}{1,4000}".to_owned(),
        "x".repeat(200_000),
        r"(a)\1".to_owned(),
    ]
}

/// Schemas that are large in one way: deep, wide, long, or many ways at once.
fn large_schemas() -> Vec<String> {
    let deep = |count: usize| format!("{}true{}", r#"{"items":"#.repeat(count), "}".repeat(count));
    let properties = |count: usize| {
        let all = (0..count).map(|it| format!(r#""p{it}":{{"type":"string","maxLength":50}}"#));
        format!(r#"{{"type":"object","properties":{{{}}}}}"#, all.collect::<Vec<_>>().join(","))
    };
    let words = |count: usize| {
        let all = (0..count).map(|it| format!(r#""word number {it}""#));
        format!(r#"{{"enum":[{}]}}"#, all.collect::<Vec<_>>().join(","))
    };
    let unions = |count: usize| {
        let all = (0..count).map(|it| {
            format!(r#"{{"type":"object","properties":{{"k{it}":{{"type":"number"}}}},"required":["k{it}"]}}"#)
        });
        format!(r#"{{"anyOf":[{}]}}"#, all.collect::<Vec<_>>().join(","))
    };
    let doubling = |count: usize| {
        let all = (0..count).map(|it| {
            let next = it + 1;
            format!(r##""d{it}":{{"type":"array","prefixItems":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}],"minItems":2}}"##)
        });
        let all = all.collect::<Vec<_>>().join(",");
        format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{all},"d{count}":{{"type":"null"}}}}}}"##)
    };
    let all_of = |count: usize| {
        let all = (0..count).map(|it| format!(r#"{{"pattern":"^.*[a-z]{{{it},}}x.*$"}}"#));
        format!(r#"{{"type":"string","allOf":[{}]}}"#, all.collect::<Vec<_>>().join(","))
    };
    let ways = |count: usize| {
        let any = (0..10).map(|it| format!(r#"{{"properties":{{"a{it}":{{"type":"null"}}}}}}"#));
        let any = format!(r#"{{"anyOf":[{}]}}"#, any.collect::<Vec<_>>().join(","));
        format!(r#"{{"allOf":[{}]}}"#, vec![any; count].join(","))
    };
    vec![
        ways(2),
        ways(8),
        all_of(4),
        all_of(30),
        deep(40),
        deep(100),
        deep(10_000),
        properties(500),
        properties(4_000),
        words(2_000),
        words(10_000),
        unions(300),
        unions(4_000),
        doubling(20),
        format!(r##"{{"$ref":"#/$defs/a","pattern":"x","$defs":{{"a":{}}}}}"##, all_of(12)),
    ]
}

/// Small schemas that mean something large, or nothing.
const SMALL_SCHEMAS: [&str; 12] = [
    r#"{"type":"array","minItems":4000,"items":{"type":"array","minItems":4000}}"#,
    r#"{"type":"string","minLength":4000,"maxLength":4096}"#,
    r#"{"type":"string","pattern":"^(a{1,4000}){1,4000}$"}"#,
    r#"{"type":"integer","multipleOf":99999999999999}"#,
    r#"{"type":"number","minimum":1e308,"maximum":1.1e308}"#,
    r#"{"type":"number","minimum":-1e-300,"maximum":1e-300}"#,
    r##"{"allOf":[{"$ref":"#"}]}"##,
    r##"{"$ref":"#"}"##,
    r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
    r##"{"anyOf":[{"$ref":"#"},{"$ref":"#"}]}"##,
    r##"{"$ref":"#/nowhere"}"##,
    r#"{"patternProperties":{"^(a+)+$":{"type":"string"},"^(a|b)+$":{"type":"string"}}}"#,
];

#[test]
fn what_explodes_is_refused_or_bounded() {
    let world = World::new();
    let schemas = large_schemas().into_iter().chain(SMALL_SCHEMAS.map(str::to_owned));
    let schemas = schemas.map(Constraint::JsonSchema);
    for constraint in expressions().into_iter().map(Constraint::Regex).chain(schemas) {
        let refusal = world.explode(&constraint).map(|it| it.to_string()).unwrap_or_default();
        assert!(!refusal.contains("panic"), "{constraint:?}: {refusal}");
    }
    let choices = (0..4_096).map(|it| format!("choice number {it}")).collect();
    assert_eq!(world.explode(&Constraint::Choice(choices)), None);
}

/// Nobody finds out how long these would have taken.
#[test]
fn what_no_count_of_steps_bounds_is_refused_beforehand() {
    let world = World::new();
    let check = |schema: &str, part: &str| {
        let refusal = world.explode(&Constraint::JsonSchema(schema.to_owned()));
        let Some(GrammarError::Schema(error)) = refusal else { panic!("{schema}: {refusal:?}") };
        assert!(error.to_string().contains(part), "{schema}: {error}");
    };
    let patterns = |count: usize| vec![r#"{"pattern":"^.*[a-z]x.*$"}"#; count].join(",");
    check(&format!(r#"{{"allOf":[{}]}}"#, patterns(7)), "allOf");
    let inside = format!(r#"{{"properties":{{"a":{{"anyOf":[{}]}}}}}}"#, patterns(7));
    check(&format!(r#"{{"allOf":[{inside},{{"required":["a"]}}]}}"#), "allOf");
    let behind = format!(r##"{{"allOf":[{{"$ref":"#/$defs/a"}}],"$defs":{{"a":{inside}}}}}"##);
    check(&behind, "allOf");
    let beside = format!(r##"{{"$ref":"#/$defs/a","type":"object","$defs":{{"a":{inside}}}}}"##);
    check(&beside, "$ref");
    let names = (0..7).map(|it| format!(r#""^p{it}":true"#)).collect::<Vec<_>>().join(",");
    check(&format!(r#"{{"patternProperties":{{{names}}}}}"#), "patternProperties");
    let chain =
        (0..1_000).map(|it| format!(r##""d{it}":{{"items":{{"$ref":"#/$defs/d{}"}}}}"##, it + 1));
    let chain = chain.collect::<Vec<_>>().join(",");
    check(&format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{chain}}}}}"##), "deep");
    let apart = format!(r#"{{"anyOf":[{}]}}"#, patterns(12));
    assert_eq!(world.explode(&Constraint::JsonSchema(apart)), None, "alternatives do not meet");
}

fn weather(choice: ToolChoice, is_parallel: bool) -> Tools {
    let parameters = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"],"additionalProperties":false}"#;
    let function = |name: &str, parameters: Option<&str>| Function {
        name: name.into(),
        description: None,
        parameters: parameters.map(str::to_owned),
    };
    let functions = vec![function("weather", Some(parameters)), function("now", None)];
    Tools { functions, choice, is_parallel }
}

#[test]
fn calls_are_written_as_each_format_has_them() {
    let world = World::new();
    let check = |format, (choice, is_parallel), whole: &[&str], wrong: &[&str]| {
        let tools = weather(choice, is_parallel);
        let calls = Calls::new(format, &world.tokenizer);
        let guide = || world.grammars.guide(None, Some((&tools, &calls))).expect("compiles");
        for text in whole {
            let found = walk(&world.tokenizer, guide(), text);
            assert_eq!(found, (text.len(), true), "{format:?} {tools:?}: {text:?}");
        }
        for text in wrong {
            let (_, is_whole) = walk(&world.tokenizer, guide(), text);
            assert!(!is_whole, "{format:?} {tools:?}: {text:?}");
        }
    };
    let named = || ToolChoice::Named("now".into());
    let one =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>";
    let now = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    let both = format!("{one}\n{now}");
    let talk = format!("Let me see. {one}");
    check(Hermes, (Required, true), &[one, now, &both], &["", "hello", &talk, "<tool_call>"]);
    check(Hermes, (Required, false), &[one, now], &[&both]);
    check(Hermes, (named(), true), &[now], &[one]);
    let broken = "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>";
    check(
        Hermes,
        (Auto, true),
        &["", "hello", "a <tool", &talk, &both],
        &[broken, "a <tool_call>\nb"],
    );
    let one = r#"{"name": "weather", "parameters": {"city": "Ulm"}}"#;
    let both = format!("{one}; {}", r#"{"name": "now", "parameters": {}}"#);
    check(Llama, (Required, true), &[one, &both], &["", "hello", "{}"]);
    check(Llama, (Required, false), &[one], &[&both]);
    check(Llama, (Auto, true), &["", "hello {", one, &both], &["{}", r#"{"name": "other"}"#]);
    let one = r#"[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Ulm"}}]"#;
    let both =
        r#"[TOOL_CALLS][{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]"#;
    check(MistralList, (Required, true), &[one, both], &["", "hello"]);
    check(MistralList, (Required, false), &[one], &[both]);
    check(MistralList, (Auto, true), &["hello", both], &["[TOOL_CALLS]", "a [TOOL_CALLS] b"]);
    let one = r#"[TOOL_CALLS]weather[ARGS]{"city": "Ulm"}"#;
    let both = format!("{one}[TOOL_CALLS]now[ARGS]{{}}");
    check(MistralArgs, (Required, true), &[one, &both], &["", "hello"]);
    check(MistralArgs, (Auto, false), &["hello", one], &["[TOOL_CALLS]x", &both]);
}
