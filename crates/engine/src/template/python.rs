//! What templates expect of Python: methods of texts, JSON as `json.dumps` writes it, lists and
//! objects as `str` shows them, and which values are sequences.

use std::fmt::Write;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::RENDERED_SIZE_MAX;

/// How deep a value may be nested that is written as text.
const DEPTH_MAX: usize = 256;

/// Spaces of one level of indented JSON.
const INDENT_MAX: usize = 64;

/// Teaches an environment all of it.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(format);
    environment.add_filter("tojson", to_json);
    environment.add_filter("string", |value: &Value| text_of(value));
    environment.add_filter("trim", trim);
    // A text is both for Python.
    environment.add_test("iterable", |value: &Value| is_iterable(value));
    environment.add_test("sequence", |value: &Value| is_iterable(value));
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String};
    matches!(value.kind(), Seq | Map | Iterable | String)
}

/// Lists and objects as `str` shows them; all else as ever.
fn format(out: &mut Output<'_>, state: &State<'_, '_>, value: &Value) -> Result<(), Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return minijinja::escape_formatter(out, state, value);
    }
    out.write_str(&text_of(value)?).map_err(Error::from)
}

/// What `str` makes of a value.
fn text_of(value: &Value) -> Result<String, Error> {
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(value.to_string());
    }
    let mut text = Writer::new(Style::Repr);
    text.value(value, 0)?;
    Ok(text.out)
}

/// Without white space at both ends, or without these characters.
fn trim(value: &Value, characters: Option<&str>) -> Result<String, Error> {
    let text = text_of(value)?;
    Ok(match characters {
        Some(characters) => text.trim_matches(|c| characters.contains(c)).to_owned(),
        None => text.trim().to_owned(),
    })
}

/// The `tojson` that `transformers` gives to templates.
#[expect(clippy::needless_pass_by_value, reason = "filters take their options so")]
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let style = Json {
        is_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorts_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        separators: match separators.as_deref() {
            None if indent.is_some() => [",".to_owned(), ": ".to_owned()],
            None => [", ".to_owned(), ": ".to_owned()],
            Some([item, key]) => [item.clone(), key.clone()],
            Some(_) => return Err(invalid("tojson needs two separators")),
        },
    };
    options.assert_all_used()?;
    if indent.is_some_and(|it| it > INDENT_MAX) {
        return Err(invalid("tojson indents too far"));
    }
    let mut text = Writer::new(Style::Json(style));
    text.value(value, 0)?;
    Ok(text.out)
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// How a value is spelt.
enum Style {
    /// As `repr` does.
    Repr,
    Json(Json),
}

/// The settings of `json.dumps`.
struct Json {
    is_ascii: bool,
    sorts_keys: bool,
    indent: Option<usize>,
    /// Between items, and between a key and its value.
    separators: [String; 2],
}

struct Writer {
    style: Style,
    out: String,
}

impl Writer {
    fn new(style: Style) -> Self {
        Self { style, out: String::new() }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX || self.out.len() > RENDERED_SIZE_MAX {
            return Err(invalid("the value is too large to be written"));
        }
        let is_json = matches!(self.style, Style::Json(_));
        match value.kind() {
            ValueKind::None => self.out.push_str(if is_json { "null" } else { "None" }),
            ValueKind::Bool => self.out.push_str(match (is_json, value.is_true()) {
                (true, true) => "true",
                (true, false) => "false",
                (false, true) => "True",
                (false, false) => "False",
            }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.object(value, depth)?,
            _ if !is_json => self.out.push_str("Undefined"),
            _ => return Err(invalid("only values of JSON can be written by tojson")),
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(number) if !value.is_integer() => self.out.push_str(&float(number)),
            _ => self.out.push_str(&value.to_string()),
        }
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('[');
        let mut is_empty = true;
        for item in value.try_iter()? {
            self.separate(is_empty, depth);
            is_empty = false;
            self.value(&item, depth + 1)?;
        }
        self.close(is_empty, depth, ']');
        Ok(())
    }

    fn object(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.out.push('{');
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if matches!(&self.style, Style::Json(json) if json.sorts_keys) {
            keys.sort();
        }
        let mut is_empty = true;
        for key in keys {
            self.separate(is_empty, depth);
            is_empty = false;
            match (key.as_str(), &self.style) {
                (Some(key), _) => self.text(key),
                // JSON has no other keys than texts.
                (None, Style::Json(_)) => {
                    self.out.push('"');
                    self.value(&key, depth + 1)?;
                    self.out.push('"');
                }
                (None, Style::Repr) => self.value(&key, depth + 1)?,
            }
            match &self.style {
                Style::Repr => self.out.push_str(": "),
                Style::Json(json) => self.out.push_str(&json.separators[1]),
            }
            self.value(&value.get_item(&key)?, depth + 1)?;
        }
        self.close(is_empty, depth, '}');
        Ok(())
    }

    /// What goes before an item.
    fn separate(&mut self, is_first: bool, depth: usize) {
        if !is_first {
            match &self.style {
                Style::Repr => self.out.push_str(", "),
                Style::Json(json) => self.out.push_str(&json.separators[0]),
            }
        }
        self.line(depth + 1);
    }

    fn close(&mut self, is_empty: bool, depth: usize, bracket: char) {
        if !is_empty {
            self.line(depth);
        }
        self.out.push(bracket);
    }

    fn line(&mut self, depth: usize) {
        if let Style::Json(Json { indent: Some(indent), .. }) = &self.style {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn text(&mut self, text: &str) {
        match &self.style {
            Style::Json(json) => json_text(&mut self.out, text, json.is_ascii),
            Style::Repr => repr_text(&mut self.out, text),
        }
    }
}

/// A floating-point number as Python writes it: the fewest digits, with an exponent from 1e16 on and
/// below 1e-4.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let text = number.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn json_text(out: &mut String, text: &str, is_ascii: bool) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' => push_code(out, 'u', 4, u32::from(c)),
            // Marks of the guard stay what they are: escaped, they could not be lifted out.
            '\u{fdd0}'..='\u{fdef}' => out.push(c),
            '\u{7f}'.. if is_ascii && c != '\u{7f}' => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    push_code(out, 'u', 4, (*unit).into());
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// A character by its number, as `\\u00e9`.
fn push_code(out: &mut String, kind: char, width: usize, code: u32) {
    // Writing to a string cannot fail.
    let _ = write!(out, "\\{kind}{code:0width$x}");
}

fn repr_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            _ if c == quote => {
                out.push('\\');
                out.push(c);
            }
            '\0'..='\u{1f}' | '\u{7f}' => push_code(out, 'x', 2, u32::from(c)),
            _ => out.push(c),
        }
    }
    out.push(quote);
}
