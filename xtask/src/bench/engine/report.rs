//! What one measurement prints: a line of JSON, of which the table asks for numbers by name.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The version of the fields that we understand.
const SCHEMA: u64 = 1;

/// One measurement: an object with the fields that every one has.
#[derive(Debug)]
pub(in crate::bench) struct Report {
    seconds: Vec<f64>,
    tokens_timed: f64,
    fields: Value,
}

impl Report {
    /// Reads the line. Times are positive and there is at least one.
    pub(in crate::bench) fn parse(text: &str) -> Result<Self> {
        let fields: Value =
            serde_json::from_str(text.trim()).with_context(|| format!("not JSON: {text:?}"))?;
        let schema = fields["schema"].as_u64();
        ensure!(schema == Some(SCHEMA), "schema {schema:?} is not {SCHEMA}: {fields}");
        let seconds = fields["seconds"].as_array().map_or(&[][..], Vec::as_slice);
        let seconds: Option<Vec<f64>> = seconds.iter().map(Value::as_f64).collect();
        let seconds = seconds.unwrap_or_default();
        let is_sound = !seconds.is_empty() && seconds.iter().all(|&it| it > 0.0);
        ensure!(is_sound, "`seconds` is no list of positive times: {fields}");
        let mut report = Self { seconds, tokens_timed: 0.0, fields };
        report.tokens_timed = report.number("tokens_timed")?;
        Ok(report)
    }

    /// The number of this name.
    pub(in crate::bench) fn number(&self, name: &str) -> Result<f64> {
        let found = self.fields[name].as_f64();
        found.with_context(|| format!("the report has no number `{name}`: {}", self.fields))
    }

    /// The sum of the list of numbers of this name, which has some.
    pub(super) fn sum(&self, name: &str) -> Result<f64> {
        Ok(self.list(name)?.iter().sum())
    }

    /// The list of numbers of this name, which has some.
    pub(in crate::bench) fn list(&self, name: &str) -> Result<Vec<f64>> {
        let list = self.fields[name].as_array().filter(|it| !it.is_empty());
        let numbers = list.and_then(|it| it.iter().map(Value::as_f64).collect());
        numbers.with_context(|| format!("the report has no numbers `{name}`: {}", self.fields))
    }

    /// What the engine calls itself.
    pub(super) fn engine(&self) -> &str {
        self.fields["engine"].as_str().unwrap_or("?")
    }

    /// The shortest repetition: whatever else the machine did only made it longer.
    pub(super) fn best_s(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// Tokens of all rows together, in a second of the shortest repetition.
    #[expect(clippy::unnecessary_wraps, reason = "it stands in a table of readers that may fail")]
    pub(super) fn tokens_per_s(&self) -> Result<f64> {
        Ok(self.tokens_timed / self.best_s())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_repetition_counts() {
        let text = r#"{"schema":1,"seconds":[4,2,3.5],"tokens_timed":128,"engine":"it"}"#;
        let report = Report::parse(text).unwrap();
        assert!((report.tokens_per_s().unwrap() - 64.0).abs() < 1e-9);
        assert_eq!(report.engine(), "it");
        let told = report.number("cold_s").unwrap_err().to_string();
        assert!(told.contains("`cold_s`"), "{told}");
        assert!((report.sum("seconds").unwrap() - 9.5).abs() < 1e-9);
        assert!(report.sum("computed_s").is_err());
    }

    #[test]
    fn what_is_no_measurement_is_refused() {
        for (text, reason) in [
            ("", "not JSON"),
            ("[]", "schema"),
            (r#"{"schema":2,"seconds":[1],"tokens_timed":1}"#, "schema"),
            (r#"{"schema":1,"seconds":[],"tokens_timed":1}"#, "positive"),
            (r#"{"schema":1,"seconds":[1,0],"tokens_timed":1}"#, "positive"),
            (r#"{"schema":1,"seconds":[1,"2"],"tokens_timed":1}"#, "positive"),
            (r#"{"schema":1,"seconds":[1]}"#, "tokens_timed"),
        ] {
            let told = format!("{:#}", Report::parse(text).unwrap_err());
            assert!(told.contains(reason), "{text}: {told}");
        }
    }
}
