//! What came of a measurement, as the process that measured says it.

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::Value;

/// The version that is understood here.
pub(super) const SCHEMA: u32 = 1;

/// One measurement. Fields that the table does not need are not read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Reading {
    schema: u32,
    /// Seconds of each round.
    pub(super) seconds: Vec<f64>,
    /// Seconds of each round without a schema.
    #[serde(default)]
    free_s: Vec<f64>,
    /// Tokens of one round, all rows together.
    pub(super) tokens_timed: u64,
    pub(super) peak_bytes: u64,
    pub(super) file_bytes: u64,
    pub(super) weight_bytes: u64,
    pub(super) kv_bytes: u64,
    pub(super) load_s: f64,
    /// Seconds without a cache.
    pub(super) cold_s: Option<f64>,
    /// Guessed tokens.
    pub(super) drafted: Option<u64>,
    /// Guesses that were right.
    pub(super) accepted: Option<u64>,
}

impl Reading {
    /// Takes what was said; what is missing is named.
    pub(super) fn parse(value: Value) -> anyhow::Result<Self> {
        let reading: Self = serde_json::from_value(value).context("the result cannot be read")?;
        let schema = reading.schema;
        ensure!(schema == SCHEMA, "the result has version {schema} and {SCHEMA} is understood");
        ensure!(reading.fastest().is_some(), "the result has no time in `seconds`");
        Ok(reading)
    }

    /// The fastest round: the one that least else disturbed.
    pub(super) fn fastest(&self) -> Option<f64> {
        least(&self.seconds)
    }

    /// The fastest round without a schema.
    pub(super) fn fastest_free(&self) -> Option<f64> {
        least(&self.free_s)
    }
}

fn least(seconds: &[f64]) -> Option<f64> {
    seconds.iter().copied().filter(|it| it.is_finite()).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Value {
        json!({
            "schema": 1, "seconds": [2.0, 1.0], "tokens_timed": 8, "peak_bytes": 1,
            "file_bytes": 1, "weight_bytes": 1, "kv_bytes": 1, "load_s": 0.5, "unknown": true,
        })
    }

    #[test]
    fn what_is_missing_is_named_and_what_is_unknown_is_left() {
        assert_eq!(Reading::parse(sample()).ok().and_then(|it| it.fastest()), Some(1.0));
        let refused = |name: &str, value: Option<Value>, part: &str| {
            let mut sample = sample();
            match value {
                Some(value) => sample[name] = value,
                None => drop(sample.as_object_mut().and_then(|it| it.remove(name))),
            }
            let error = format!("{:#}", Reading::parse(sample).expect_err("is refused"));
            assert!(error.contains(part), "no {part:?} in {error}");
        };
        refused("tokens_timed", None, "tokens_timed");
        refused("schema", Some(json!(2)), "version 2");
        refused("seconds", Some(json!([])), "seconds");
    }
}
