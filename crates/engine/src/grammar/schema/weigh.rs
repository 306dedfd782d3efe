//! How much a schema brings together at one place: the one thing that no count of steps bounds.
//!
//! A conjunction of expressions has states in the product of theirs, and a conjunction of
//! alternatives has alternatives in the product of theirs. `llguidance` counts its steps, but a single
//! step of a conjunction can be that large. So what meets in a conjunction is bounded beforehand, by a
//! measure that is never too small: whatever lies below an `allOf`, or behind a reference that has
//! neighbours, meets there.
//!
//! Not here: the other bounds (`schema.rs`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{CONJUNCTION_PATTERNS_MAX, CONJUNCTION_WAYS_MAX, DATA, PATTERN_NAMES_MAX, SchemaError};

/// Schemas inside schemas, references followed: each takes stack here and in `llguidance`.
const FOLLOWED_DEPTH_MAX: usize = 400;

/// Keywords that say nothing beside a reference.
const SILENT: [&str; 8] =
    ["$ref", "$defs", "definitions", "title", "description", "$schema", "$id", "$comment"];

/// What lies in a schema, references followed.
#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    patterns: u64,
    ways: u64,
}

impl Weight {
    fn add(&mut self, other: Self) {
        self.patterns = self.patterns.saturating_add(other.patterns);
        self.ways = self.ways.saturating_add(other.ways);
    }
}

struct Scale<'a> {
    root: &'a Map<String, Value>,
    /// What is behind each reference. A reference that is being followed weighs nothing there.
    known: BTreeMap<&'a str, Weight>,
}

/// Refuses a schema that brings too much together anywhere.
pub(super) fn check(root: &Map<String, Value>) -> Result<(), SchemaError> {
    let mut scale = Scale { root, known: BTreeMap::new() };
    scale.object(root, 0).map(drop)
}

impl<'a> Scale<'a> {
    fn object(&mut self, map: &'a Map<String, Value>, depth: usize) -> Result<Weight, SchemaError> {
        if depth > FOLLOWED_DEPTH_MAX {
            return Err(SchemaError::TooDeep);
        }
        let depth = depth + 1;
        let mut weight = Weight::default();
        let (mut all, mut is_conjunction) = (1_u64, None);
        for (keyword, value) in map {
            let below = match keyword.as_str() {
                "pattern" | "format" | "multipleOf" => Weight { patterns: 1, ways: 0 },
                "type" if value.as_array().is_some_and(|it| it.len() > 1) => {
                    Weight { patterns: 0, ways: 1 }
                }
                "$ref" => self.reference(value, depth)?,
                word if DATA.contains(&word) => continue,
                "anyOf" | "oneOf" => {
                    let mut below = self.value(value, depth)?;
                    below.ways = below.ways.saturating_add(count(value));
                    below
                }
                "patternProperties" => {
                    if count(value) > PATTERN_NAMES_MAX as u64 {
                        return Err(SchemaError::Conjunction { keyword: "patternProperties" });
                    }
                    let mut below = self.value(value, depth)?;
                    below.patterns = below.patterns.saturating_add(count(value));
                    below
                }
                _ => self.value(value, depth)?,
            };
            if keyword == "allOf" {
                is_conjunction = Some("allOf");
                for item in value.as_array().into_iter().flatten() {
                    all = all.saturating_mul(self.value(item, depth)?.ways.saturating_add(1));
                }
            } else {
                let is_silent = SILENT.contains(&keyword.as_str()) && keyword != "$ref";
                let ways = if is_silent { 0 } else { below.ways };
                all = all.saturating_mul(ways.saturating_add(1));
            }
            weight.add(below);
        }
        if map.contains_key("$ref") && map.keys().any(|it| !SILENT.contains(&it.as_str())) {
            is_conjunction = is_conjunction.or(Some("$ref"));
        }
        match is_conjunction {
            Some(keyword)
                if weight.patterns > CONJUNCTION_PATTERNS_MAX || all > CONJUNCTION_WAYS_MAX =>
            {
                Err(SchemaError::Conjunction { keyword })
            }
            Some(_) | None => Ok(weight),
        }
    }

    fn value(&mut self, value: &'a Value, depth: usize) -> Result<Weight, SchemaError> {
        match value {
            Value::Object(map) => self.object(map, depth),
            Value::Array(items) => {
                let mut weight = Weight::default();
                for item in items {
                    weight.add(self.value(item, depth)?);
                }
                Ok(weight)
            }
            _ => Ok(Weight::default()),
        }
    }

    fn reference(&mut self, value: &'a Value, depth: usize) -> Result<Weight, SchemaError> {
        let Some(reference) = value.as_str() else { return Ok(Weight::default()) };
        if let Some(weight) = self.known.get(reference) {
            return Ok(*weight);
        }
        self.known.insert(reference, Weight::default());
        let pointer = reference.strip_prefix('#').unwrap_or_default();
        let weight = match pointer.split('/').nth(1) {
            None => Weight::default(),
            Some(first) => {
                let rest = &pointer[1 + first.len()..];
                let target = self.root.get(first).and_then(|it| it.pointer(rest));
                target.map_or(Ok(Weight::default()), |target| self.value(target, depth))?
            }
        };
        self.known.insert(reference, weight);
        Ok(weight)
    }
}

fn count(value: &Value) -> u64 {
    let count = match value {
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    count as u64
}
