//! Answers that must keep to a form: whatever a model of random weights draws, they do.

use commons_engine::LocalEngine;
use commons_port::engine::{Engine, EngineRefusalCode, LoadedModel, Replay, ScoreRequest};
use commons_record::Micro;
use commons_record::constraint::Constraint;
use commons_record::order::{PromptInput, Sampling};
use commons_record::settlement::EndReason;
use futures::executor::block_on;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::support::{Said, ask, caller, config, noise_engine, request};

/// A schema of the kinds that people write, which this file can check on its own.
#[derive(Clone, Debug)]
enum Shape {
    Null,
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    Number {
        min: i32,
        max: i32,
    },
    Text {
        min: usize,
        max: usize,
    },
    Digits {
        min: usize,
        max: usize,
    },
    Enum(Vec<Value>),
    List {
        items: Box<Shape>,
        min: usize,
        max: usize,
    },
    Object {
        members: Vec<(Shape, bool)>,
    },
    AnyOf(Vec<Shape>),
    /// One of the definitions, by its number.
    Refers(usize),
}

impl Shape {
    fn schema(&self) -> Value {
        match self {
            Self::Null => json!({ "type": "null" }),
            Self::Boolean => json!({ "type": "boolean" }),
            Self::Integer { min, max } => {
                json!({ "type": "integer", "minimum": min, "maximum": max })
            }
            Self::Number { min, max } => {
                json!({ "type": "number", "minimum": min, "maximum": max })
            }
            Self::Text { min, max } => {
                json!({ "type": "string", "minLength": min, "maxLength": max })
            }
            Self::Digits { min, max } => {
                json!({ "type": "string", "pattern": format!("^[0-9]{{{min},{max}}}$") })
            }
            Self::Enum(values) => json!({ "enum": values }),
            Self::List { items, min, max } => {
                json!({ "type": "array", "items": items.schema(), "minItems": min, "maxItems": max })
            }
            Self::Object { members } => {
                let numbered = members.iter().enumerate();
                let properties: serde_json::Map<String, Value> =
                    numbered.map(|(index, it)| (format!("m{index}"), it.0.schema())).collect();
                let numbered = members.iter().enumerate().filter(|(_, it)| it.1);
                let required: Vec<String> =
                    numbered.map(|(index, _)| format!("m{index}")).collect();
                json!({
                    "type": "object", "properties": properties, "required": required,
                    "additionalProperties": false,
                })
            }
            Self::AnyOf(shapes) => {
                json!({ "anyOf": shapes.iter().map(Self::schema).collect::<Vec<_>>() })
            }
            Self::Refers(index) => json!({ "$ref": format!("#/$defs/d{index}") }),
        }
    }

    fn accepts(&self, value: &Value, defs: &[Shape]) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Boolean => value.is_boolean(),
            Self::Integer { min, max } => {
                value.as_i64().is_some_and(|it| (*min..=*max).contains(&it))
            }
            Self::Number { min, max } => {
                value.as_f64().is_some_and(|it| (f64::from(*min)..=f64::from(*max)).contains(&it))
            }
            Self::Text { min, max } => {
                value.as_str().is_some_and(|it| (*min..=*max).contains(&it.chars().count()))
            }
            Self::Digits { min, max } => value.as_str().is_some_and(|it| {
                (*min..=*max).contains(&it.len()) && it.bytes().all(|byte| byte.is_ascii_digit())
            }),
            Self::Enum(values) => values.contains(value),
            Self::List { items, min, max } => value.as_array().is_some_and(|list| {
                (*min..=*max).contains(&list.len()) && list.iter().all(|it| items.accepts(it, defs))
            }),
            Self::Object { members } => value.as_object().is_some_and(|object| {
                let numbered = members.iter().enumerate();
                let mut fits = numbered.map(|(index, (shape, is_required))| {
                    object
                        .get(&format!("m{index}"))
                        .map_or(!is_required, |it| shape.accepts(it, defs))
                });
                let is_known =
                    |name: &String| (0..members.len()).any(|it| *name == format!("m{it}"));
                fits.all(|fits| fits) && object.keys().all(is_known)
            }),
            Self::AnyOf(shapes) => shapes.iter().any(|shape| shape.accepts(value, defs)),
            Self::Refers(index) => defs[*index].accepts(value, defs),
        }
    }
}

fn leaf() -> impl Strategy<Value = Shape> {
    let word = prop_oneof![
        Just(json!("yes")),
        Just(json!("a \"b\"\n")),
        Just(json!(7)),
        Just(json!(null)),
        Just(json!({ "a": [1] })),
        Just(json!("é"))
    ];
    prop_oneof![
        Just(Shape::Null),
        Just(Shape::Boolean),
        (-300_i64..300, 0_i64..2_000)
            .prop_map(|(min, span)| Shape::Integer { min, max: min + span }),
        (-50_i32..50, 0_i32..90).prop_map(|(min, span)| Shape::Number { min, max: min + span }),
        (0_usize..4, 0_usize..6).prop_map(|(min, span)| Shape::Text { min, max: min + span }),
        (0_usize..4, 0_usize..6).prop_map(|(min, span)| Shape::Digits { min, max: min + span }),
        prop::collection::vec(word, 1..4).prop_map(Shape::Enum),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            (inner.clone(), 0_usize..3, 0_usize..3).prop_map(|(items, min, span)| {
                Shape::List { items: Box::new(items), min, max: min + span }
            }),
            prop::collection::vec((inner.clone(), any::<bool>()), 0..4)
                .prop_map(|members| Shape::Object { members }),
            prop::collection::vec(inner, 1..3).prop_map(Shape::AnyOf),
            (0_usize..2).prop_map(Shape::Refers),
        ]
    })
}

fn warm(temperature: i64, seed: u8) -> (Sampling, Option<[u8; 32]>) {
    let temperature = Micro::from_millionths(temperature).expect("small");
    (Sampling { temperature, ..Sampling::greedy() }, Some([seed; 32]))
}

fn held(
    engine: &LocalEngine,
    facts: &LoadedModel,
    constraint: Constraint,
    seed: u8,
    count: u32,
) -> Said {
    let (sampling, seed) = warm(1_300_000, seed);
    let asked = request(facts, "once", count);
    let said = ask(
        engine,
        commons_port::engine::EngineRequest {
            constraint: Some(constraint),
            sampling,
            seed,
            ..asked
        },
    );
    assert_eq!(said.failure, None);
    said
}

/// The claim: constrained output always parses, for schemas drawn at random.
#[test]
fn an_answer_under_a_random_schema_is_json_that_the_schema_accepts() {
    let (engine, facts) = noise_engine(config());
    let mut runner = TestRunner::new(Config { cases: 48, ..Config::default() });
    let drawn = (shape(), prop::collection::vec(leaf(), 2), any::<u8>());
    let mut whole = 0;
    runner
        .run(&drawn, |(shape, defs, seed)| {
            let mut schema = shape.schema();
            schema["$defs"] = json!({ "d0": defs[0].schema(), "d1": defs[1].schema() });
            let said =
                held(&engine, &facts, Constraint::JsonSchema(schema.to_string()), seed, 1_200);
            match (said.reason, serde_json::from_str::<Value>(&said.text)) {
                (Some(EndReason::Stop), Ok(value)) => {
                    prop_assert!(shape.accepts(&value, &defs), "{} under {schema}", said.text);
                }
                // A text that is cut is the beginning of one: a number may look whole.
                (Some(EndReason::Length), Ok(_)) => {}
                (Some(EndReason::Length), Err(error)) => {
                    prop_assert!(error.is_eof(), "{}", said.text);
                }
                (reason, value) => {
                    prop_assert!(false, "{reason:?} {value:?} {:?} under {schema}", said.text);
                }
            }
            Ok(())
        })
        .expect("every answer parses");
    // And the common case by itself: it ends.
    for seed in 0..20 {
        let shape = Shape::Object {
            members: vec![
                (Shape::Integer { min: 0, max: 99 }, true),
                (Shape::Text { min: 1, max: 5 }, false),
            ],
        };
        let said =
            held(&engine, &facts, Constraint::JsonSchema(shape.schema().to_string()), seed, 1_200);
        let value = serde_json::from_str(&said.text);
        if said.reason == Some(EndReason::Stop) {
            assert!(shape.accepts(&value.expect("JSON"), &[]), "{}", said.text);
            whole += 1;
        }
    }
    assert!(whole > 10, "only {whole} of 20 answers ended");
}

#[test]
fn an_answer_under_an_expression_or_a_choice_is_one_of_its_texts() {
    let (engine, facts) = noise_engine(config());
    for seed in 0..12 {
        let said = held(&engine, &facts, Constraint::Regex("[a-f]{2,4}-(0|1){3}".into()), seed, 40);
        let (word, bits) = said.text.split_once('-').expect("a hyphen");
        assert!(
            (2..=4).contains(&word.len()) && word.bytes().all(|it| (b'a'..=b'f').contains(&it))
        );
        assert!(
            bits.len() == 3 && bits.bytes().all(|it| it == b'0' || it == b'1'),
            "{}",
            said.text
        );
        assert_eq!(said.reason, Some(EndReason::Stop));
        let choices = vec!["yes".to_owned(), "no".to_owned(), "perhaps, \"so\"".to_owned()];
        let said = held(&engine, &facts, Constraint::Choice(choices.clone()), seed, 40);
        assert!(choices.contains(&said.text), "{}", said.text);
        let said = held(&engine, &facts, Constraint::JsonObject, seed, 60);
        let is_json = serde_json::from_str::<serde_json::Map<String, Value>>(&said.text);
        let is_cut = said.reason == Some(EndReason::Length);
        assert!(is_json.is_ok() || is_cut && is_json.is_err_and(|it| it.is_eof()), "{}", said.text);
    }
}

/// An auditor computes the same masks: the answer is what it would have drawn, and no other is.
#[test]
fn a_replay_under_the_same_form_draws_the_same_answer() {
    let (engine, facts) = noise_engine(config());
    let (sampling, seed) = warm(1_000_000, 3);
    let constraint = Some(Constraint::Regex("[a-z]{12}".into()));
    let asked = commons_port::engine::EngineRequest {
        constraint: constraint.clone(),
        sampling: sampling.clone(),
        seed,
        ..request(&facts, "once", 40)
    };
    let said = ask(&engine, asked);
    let judge = |constraint: Option<Constraint>, tokens: Vec<u32>| {
        let replay = Replay { sampling: sampling.clone(), seed, constraint, tools: None };
        let from = u32::try_from(said.prompt.len()).expect("small");
        let input = PromptInput::Tokens([said.prompt.clone(), tokens].concat());
        let request = ScoreRequest {
            model: facts.model,
            adapter: None,
            caller: caller(1),
            input,
            from,
            top_logprobs: 0,
            replay: Some(replay),
        };
        block_on(engine.score(request)).expect("is judged")
    };
    let scores = judge(constraint.clone(), said.ids());
    assert!(scores.scores.iter().all(|it| it.margin.is_some_and(|margin| margin <= 0.0)));
    assert!(scores.next_ends, "twelve letters are all");
    // Without the form, other tokens would have been drawn.
    let free = judge(None, said.ids());
    assert!(free.scores.iter().any(|it| it.margin.is_some_and(|margin| margin > 0.0)));
    // A token that the form forbids is infinitely far away, and so is all behind it.
    let digit = 3 + u32::from(b'7');
    let mut wrong = said.ids();
    wrong[1] = digit;
    let margins: Vec<f64> =
        judge(constraint, wrong).scores.iter().filter_map(|it| it.margin).collect();
    assert!(margins[0] <= 0.0 && margins[1..].iter().all(|it| it.is_infinite()), "{margins:?}");
}

#[test]
fn a_form_that_cannot_be_kept_is_refused_at_once_with_a_reason() {
    let (engine, facts) = noise_engine(config());
    let check = |constraint: Constraint, word: &str| {
        let asked = commons_port::engine::EngineRequest {
            constraint: Some(constraint),
            ..request(&facts, "a", 5)
        };
        let refusal = engine.start(asked).err().expect("is refused");
        assert_eq!(refusal.code, EngineRefusalCode::InvalidConstraint, "{refusal:?}");
        assert!(refusal.message.contains(word), "{word}: {refusal:?}");
    };
    let schema = |source: &str| Constraint::JsonSchema(source.into());
    for reference in
        ["http://example.com/s.json", "https://x#/a", "file:///etc/passwd", "other.json", "//h/x"]
    {
        check(schema(&json!({ "$ref": reference }).to_string()), reference);
        let inside =
            json!({ "type": "object", "properties": { "a": { "items": { "$ref": reference } } } });
        check(schema(&inside.to_string()), reference);
    }
    check(schema("{"), "not JSON");
    check(schema("7"), "neither");
    check(
        schema(
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##,
        ),
        "circle",
    );
    check(schema(r#"{"type":"array","minItems":1000000}"#), "minItems");
    check(schema(&format!("{}true{}", r#"{"items":"#.repeat(100), "}".repeat(100))), "deep");
    check(schema(r#"{"x-guidance":{}}"#), "x-guidance");
    check(Constraint::Regex("(".into()), "unclosed group");
    check(Constraint::Regex("(?=a)a".into()), "look");
}
