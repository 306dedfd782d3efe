//! What a template sees: messages, tools, documents, variables, and a time.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::TemplateError;

/// Bytes of a conversation's JSON: as much as a text that is encoded.
pub(super) const JSON_SIZE_MAX: usize = crate::tokenizer::TEXT_SIZE_MAX;

/// A JSON value whose objects keep the order that they were written in, as templates show it.
#[derive(Clone, Debug)]
pub struct Json(pub(super) Value);

impl Json {
    /// Parses a text of at most 4 MiB, nested at most 128 deep.
    pub fn parse(text: &[u8]) -> Result<Self, TemplateError> {
        if text.len() > JSON_SIZE_MAX {
            return Err(TemplateError::Json { source: None });
        }
        let value = serde_json::from_slice(text);
        value.map(Self).map_err(|source| TemplateError::Json { source: Some(Box::new(source)) })
    }

    #[cfg(test)]
    pub(super) fn of_value(value: Value) -> Self {
        Self(value)
    }
}

/// A conversation, and how it is to be rendered.
#[derive(Clone, Copy, Debug)]
pub struct Conversation<'a> {
    /// A list of objects with `role` and `content`: a text or a list of parts, and whatever else the
    /// template reads (`tool_calls`, `reasoning_content`).
    pub messages: &'a Json,
    /// The functions that may be called, as JSON schemas.
    pub tools: Option<&'a Json>,
    /// What the answer may cite.
    pub documents: Option<&'a Json>,
    /// More variables by name, such as `enable_thinking`. They cannot replace those above.
    pub variables: Option<&'a Json>,
    /// Whether the beginning of an answer is written behind the last message.
    pub adds_generation_prompt: bool,
    /// What `strftime_now` writes; without it there is no such function.
    pub now: Option<Moment>,
    /// The template to use, where the model has several.
    pub template: Option<&'a str>,
}

impl<'a> Conversation<'a> {
    /// A conversation of messages only, to be answered.
    pub fn new(messages: &'a Json) -> Self {
        Self {
            messages,
            tools: None,
            documents: None,
            variables: None,
            adds_generation_prompt: true,
            now: None,
            template: None,
        }
    }

    fn all(&self) -> impl Iterator<Item = &'a Json> {
        [Some(self.messages), self.tools, self.documents, self.variables].into_iter().flatten()
    }

    /// Every text in it.
    pub(super) fn texts(&self) -> Vec<String> {
        let mut texts = Vec::new();
        for json in self.all() {
            map_texts(&json.0, &mut |text| {
                texts.push(text.to_owned());
                String::new()
            });
        }
        texts
    }

    /// What the messages say: their contents, or the text parts of those.
    pub(super) fn contents(&self) -> Vec<String> {
        let messages = self.messages.0.try_iter().into_iter().flatten();
        let content = |message: Value| {
            let content = message.get_attr("content").unwrap_or_default();
            if let Some(text) = content.as_str() {
                return text.to_owned();
            }
            let parts = content.try_iter().into_iter().flatten();
            let texts = parts.filter_map(|part| part.get_attr("text").ok());
            texts.filter_map(|text| text.as_str().map(str::to_owned)).collect()
        };
        messages.map(content).collect()
    }

    /// The variables of the template, every text passed through `protect`.
    pub(super) fn context(&self, bos: &str, eos: &str, protect: &dyn Fn(&str) -> String) -> Value {
        let value = |json: Option<&Json>| {
            json.map_or(Value::from(()), |json| map_texts(&json.0, &mut |it| protect(it)))
        };
        let mut pairs: Vec<(Value, Value)> = Vec::new();
        let variables = value(self.variables);
        if variables.kind() == ValueKind::Map {
            for key in variables.try_iter().into_iter().flatten() {
                let item = variables.get_item(&key).unwrap_or_default();
                pairs.push((key, item));
            }
        }
        let own = [
            ("messages", value(Some(self.messages))),
            ("tools", value(self.tools)),
            ("documents", value(self.documents)),
            ("add_generation_prompt", self.adds_generation_prompt.into()),
            ("bos_token", bos.into()),
            ("eos_token", eos.into()),
        ];
        pairs.extend(own.map(|(name, value)| (name.into(), value)));
        if let Some(now) = self.now {
            let write = move |format: &str| now.format(format);
            pairs.push(("strftime_now".into(), Value::from_function(write)));
        }
        pairs.into_iter().collect()
    }
}

/// The same value with every text, and every key, passed through `change`.
///
/// Parsed JSON is nested at most 128 deep, and so is this.
fn map_texts(value: &Value, change: &mut dyn FnMut(&str) -> String) -> Value {
    if let Some(text) = value.as_str() {
        return change(text).into();
    }
    match value.kind() {
        ValueKind::Seq => {
            let items = value.try_iter().into_iter().flatten();
            items.map(|item| map_texts(&item, change)).collect::<Vec<_>>().into()
        }
        ValueKind::Map => {
            let keys = value.try_iter().into_iter().flatten();
            let pairs = keys.map(|key| {
                let item = value.get_item(&key).unwrap_or_default();
                (map_texts(&key, change), map_texts(&item, change))
            });
            pairs.collect()
        }
        _ => value.clone(),
    }
}

/// A time of day on a date: what a template may write of the present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    year: i64,
    /// From 1.
    month: usize,
    /// From 1.
    day: i64,
    second_of_day: i64,
    /// From 0, which is Sunday.
    weekday: usize,
    /// From 1.
    day_of_year: i64,
}

const DAY: i64 = 86_400;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

impl Moment {
    /// The moment this many seconds after the beginning of 1970, in universal time.
    ///
    /// The calendar is computed as by Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    pub fn from_unix_seconds(seconds: u32) -> Self {
        let seconds = i64::from(seconds);
        let (days, second_of_day) = (seconds / DAY, seconds % DAY);
        // Days since the first of March of the year 0, when a cycle of 400 years begins.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        // In a year that begins in March, the first of January is day 306, counted from 0.
        let from_january =
            if month <= 2 { day_of_year - 305 } else { day_of_year + 60 + i64::from(is_leap) };
        let index = |value: i64| usize::try_from(value).unwrap_or(0);
        Self {
            year,
            month: index(month),
            day,
            second_of_day,
            weekday: index((days + 4) % 7),
            day_of_year: from_january,
        }
    }

    /// Writes the moment as Python's `strftime` does in the C locale.
    fn format(self, format: &str) -> Result<String, Error> {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut code = chars.next();
            let is_bare = code == Some('-');
            if is_bare {
                code = chars.next();
            }
            // Writing to a string cannot fail.
            let _ = self.push(&mut out, code.unwrap_or_default(), is_bare).ok_or_else(|| {
                let message = format!("strftime_now cannot write {format:?}");
                Error::new(ErrorKind::InvalidOperation, message)
            })?;
        }
        Ok(out)
    }

    fn push(self, out: &mut String, code: char, is_bare: bool) -> Option<std::fmt::Result> {
        let (hour, minute, second) =
            (self.second_of_day / 3_600, self.second_of_day / 60 % 60, self.second_of_day % 60);
        let month_name = MONTHS[(self.month - 1) % 12];
        let weekday_name = WEEKDAYS[self.weekday % 7];
        let (number, width) = match code {
            'd' => (self.day, 2),
            'm' => (i64::try_from(self.month).ok()?, 2),
            'y' => (self.year % 100, 2),
            'Y' => (self.year, 4),
            'H' => (hour, 2),
            'I' => ((hour + 11) % 12 + 1, 2),
            'M' => (minute, 2),
            'S' => (second, 2),
            'j' => (self.day_of_year, 3),
            _ if is_bare => return None,
            'e' => return Some(write!(out, "{:2}", self.day)),
            'B' => return Some(out.write_str(month_name)),
            'b' | 'h' => return Some(out.write_str(&month_name[..3])),
            'A' => return Some(out.write_str(weekday_name)),
            'a' => return Some(out.write_str(&weekday_name[..3])),
            'p' => return Some(out.write_str(if hour < 12 { "AM" } else { "PM" })),
            'Z' => return Some(out.write_str("UTC")),
            'z' => return Some(out.write_str("+0000")),
            '%' => return Some(out.write_str("%")),
            'F' => return Some(write!(out, "{:04}-{:02}-{:02}", self.year, self.month, self.day)),
            'T' => return Some(write!(out, "{hour:02}:{minute:02}:{second:02}")),
            _ => return None,
        };
        let width = if is_bare { 0 } else { width };
        Some(write!(out, "{number:0width$}"))
    }
}
