//! JSON schemas as callers write them: bounded, and complete in themselves.
//!
//! A schema that points outside of itself is refused by name: nothing is fetched, ever. What a
//! keyword means is for `llguidance`; one that it does not know is refused by it, not ignored.
//!
//! Not here: the size of the source (`commons-record`).

mod weigh;

use serde_json::{Map, Value, json};

/// Values inside values. Schemas that people write have some ten.
pub const SCHEMA_DEPTH_MAX: usize = 48;

/// Values in a schema, all together.
pub const SCHEMA_VALUES_MAX: usize = 8_192;

/// Counts in a schema that make a grammar longer: `minItems`, `maxLength` and the like.
pub const SCHEMA_COUNT_MAX: u64 = 4_096;

/// Patterns that one `allOf` may bring together: the states of a conjunction multiply.
pub const CONJUNCTION_PATTERNS_MAX: u64 = 6;

/// Alternatives that one `allOf` may multiply out to.
pub const CONJUNCTION_WAYS_MAX: u64 = 512;

/// Names by pattern in one object: each is told apart from all others.
pub const PATTERN_NAMES_MAX: usize = 6;

/// White space between two words of JSON. A model that writes spaces for ever writes no answer; this
/// is enough for a line break and sixteen levels of indentation.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,65}";

/// Why a schema is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum SchemaError {
    #[error("it is not JSON, or nested too deep: {cause}")]
    NotJson { cause: String },

    #[error("it is neither an object nor true")]
    NotASchema,

    #[error("it is nested more than {SCHEMA_DEPTH_MAX} deep, or 400 deep with its references")]
    TooDeep,

    #[error("it has more than {SCHEMA_VALUES_MAX} values")]
    TooLarge,

    #[error("its `{keyword}` is {count}, and at most {SCHEMA_COUNT_MAX} are accepted")]
    TooMany { keyword: String, count: u64 },

    #[error(
        "it refers to {reference:?}, which is not in it; nothing is fetched: put it into `$defs`"
    )]
    Remote { reference: String },

    #[error("its references are a circle through {reference:?} that says nothing")]
    Circle { reference: String },

    #[error(
        "its `{keyword}` brings too much together: at most {CONJUNCTION_PATTERNS_MAX} patterns and \
         {CONJUNCTION_WAYS_MAX} ways"
    )]
    Conjunction { keyword: &'static str },

    #[error("it has the keyword {keyword:?}, which is not one of JSON schema")]
    Keyword { keyword: &'static str },

    #[error("it describes no object, and arguments are one")]
    NotAnObject,
}

/// Keywords whose values are data, in which nothing refers to anything.
const DATA: [&str; 4] = ["const", "default", "enum", "examples"];

/// Keywords whose values are schemas by the names that the caller chose.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];

/// Keywords that repeat something.
const COUNTS: [&str; 6] =
    ["minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"];

/// Reads and checks a schema, and says how white space is written under it.
pub(super) fn read(source: &str) -> Result<Value, SchemaError> {
    let schema = serde_json::from_str(source);
    let schema = schema.map_err(|error| SchemaError::NotJson { cause: error.to_string() })?;
    let mut schema = match schema {
        Value::Object(map) => map,
        Value::Bool(true) => Map::new(),
        _ => return Err(SchemaError::NotASchema),
    };
    let mut walk = Walk { values: 0 };
    walk.object(&schema, 0)?;
    check_circles(&schema)?;
    weigh::check(&schema)?;
    schema.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": WHITE_SPACE }));
    Ok(Value::Object(schema))
}

/// The schema of any object.
pub(super) fn of_objects() -> Value {
    json!({ "type": "object", "x-guidance": { "whitespace_pattern": WHITE_SPACE } })
}

/// The schema of a call's arguments: an object, by whatever its properties are.
pub(super) fn read_parameters(source: Option<&str>) -> Result<Value, SchemaError> {
    let nothing = r#"{"type":"object","properties":{},"additionalProperties":false}"#;
    let mut schema = read(source.unwrap_or(nothing))?;
    match schema.get("type").map(|it| it.as_str()) {
        Some(Some("object")) => Ok(schema),
        Some(_) => Err(SchemaError::NotAnObject),
        None => {
            schema["type"] = json!("object");
            Ok(schema)
        }
    }
}

struct Walk {
    values: usize,
}

impl Walk {
    fn count(&mut self, depth: usize) -> Result<(), SchemaError> {
        self.values += 1;
        if depth > SCHEMA_DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        if self.values > SCHEMA_VALUES_MAX {
            return Err(SchemaError::TooLarge);
        }
        Ok(())
    }

    /// A schema.
    fn object(&mut self, schema: &Map<String, Value>, depth: usize) -> Result<(), SchemaError> {
        self.count(depth)?;
        if schema.contains_key("x-guidance") {
            return Err(SchemaError::Keyword { keyword: "x-guidance" });
        }
        for (keyword, value) in schema {
            check_reference(keyword, value)?;
            if let Some(count) = value.as_u64().filter(|&count| count > SCHEMA_COUNT_MAX)
                && COUNTS.contains(&keyword.as_str())
            {
                return Err(SchemaError::TooMany { keyword: keyword.clone(), count });
            }
            match value {
                _ if DATA.contains(&keyword.as_str()) => self.data(value, depth + 1)?,
                Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                    self.count(depth + 1)?;
                    named.values().try_for_each(|it| self.value(it, depth + 2))?;
                }
                value => self.value(value, depth + 1)?,
            }
        }
        Ok(())
    }

    /// A schema, or a list of them, or something else.
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), SchemaError> {
        match value {
            Value::Object(schema) => self.object(schema, depth),
            Value::Array(items) => {
                self.count(depth)?;
                items.iter().try_for_each(|it| self.value(it, depth + 1))
            }
            _ => self.count(depth),
        }
    }

    /// Something that is compared with and not read.
    fn data(&mut self, value: &Value, depth: usize) -> Result<(), SchemaError> {
        self.count(depth)?;
        match value {
            Value::Object(map) => map.values().try_for_each(|it| self.data(it, depth + 1)),
            Value::Array(items) => items.iter().try_for_each(|it| self.data(it, depth + 1)),
            _ => Ok(()),
        }
    }
}

/// A reference begins with `#`: it stays in the document. An `$id` would move what it starts from.
fn check_reference(keyword: &str, value: &Value) -> Result<(), SchemaError> {
    let Some(reference) = value.as_str() else { return Ok(()) };
    let is_remote = match keyword {
        "$ref" | "$dynamicRef" | "$recursiveRef" => !reference.starts_with('#'),
        _ => false,
    };
    if is_remote {
        return Err(SchemaError::Remote { reference: reference.chars().take(200).collect() });
    }
    Ok(())
}

/// Refuses `{"$ref": "#/a"}` whose target is again nothing but a reference, and so on in a circle.
fn check_circles(root: &Map<String, Value>) -> Result<(), SchemaError> {
    let whole = Value::Object(root.clone());
    let mut stack = vec![&whole];
    while let Some(value) = stack.pop() {
        match value {
            Value::Object(map) => {
                let (mut at, mut steps) = (map.get("$ref").and_then(Value::as_str), 0);
                while let Some(reference) = at {
                    steps += 1;
                    if steps > SCHEMA_DEPTH_MAX {
                        return Err(SchemaError::Circle { reference: reference.to_owned() });
                    }
                    let target = reference.strip_prefix('#').and_then(|it| whole.pointer(it));
                    at = target.and_then(|it| it.get("$ref")).and_then(Value::as_str);
                }
                stack.extend(map.values());
            }
            Value::Array(items) => stack.extend(items),
            _ => {}
        }
    }
    Ok(())
}
