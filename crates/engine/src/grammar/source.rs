//! The grammar of an answer, in the words of `llguidance`: its variant of Lark.
//!
//! ```text
//! constraint alone     start: answer
//! tools, auto          start: answer | calls
//! tools, required      start: calls
//! ```
//!
//! Without a constraint `answer` is any text, up to where a call begins.
//!
//! Not here: how calls are written (`grammar/tools.rs`).

use std::fmt::Write;

use commons_record::constraint::{Constraint, ToolChoice, Tools};
use llguidance::api::TopLevelGrammar;
use llguidance::regex_to_lark;
use serde_json::Value;

use super::tools::Calls;
use super::{GrammarError, schema};

/// The grammar of a request.
pub(super) fn of(
    constraint: Option<&Constraint>,
    tools: Option<(&Tools, &Calls)>,
) -> Result<TopLevelGrammar, GrammarError> {
    let mut lark = String::new();
    match tools {
        None => lark.push_str("start: answer\n"),
        Some((tools, calls)) => {
            let has_answer = tools.choice == ToolChoice::Auto;
            calls.write(tools, has_answer, constraint.is_none(), &mut lark)?;
            if !has_answer {
                return Ok(TopLevelGrammar::from_lark(lark));
            }
        }
    }
    match (constraint, tools) {
        (Some(constraint), _) => write_answer(constraint, &mut lark)?,
        (None, Some((_, calls))) => calls.write_free_text(&mut lark),
        (None, None) => lark.push_str("answer: /(?s:.*)/\n"),
    }
    Ok(TopLevelGrammar::from_lark(lark))
}

fn write_answer(constraint: &Constraint, lark: &mut String) -> Result<(), GrammarError> {
    match constraint {
        Constraint::JsonObject => push_json(lark, "answer", &schema::of_objects()),
        Constraint::JsonSchema(source) => push_json(lark, "answer", &schema::read(source)?),
        Constraint::Regex(source) => {
            let body = regex_to_lark(whole(source), "");
            // An empty expression would be no token.
            let body = if body.is_empty() { "()".to_owned() } else { body };
            // Writing to a string cannot fail.
            let _ = writeln!(lark, "answer: /{body}/");
        }
        Constraint::Choice(choices) => {
            lark.push_str("answer: CHOICE\nCHOICE: ");
            for (index, choice) in choices.iter().enumerate() {
                lark.push_str(if index == 0 { "" } else { " | " });
                lark.push_str(&quoted(choice));
            }
            lark.push('\n');
        }
    }
    Ok(())
}

/// An expression without the anchors at its ends: it is matched as a whole in any case.
fn whole(source: &str) -> &str {
    let source = source.strip_prefix('^').unwrap_or(source);
    let escapes = |text: &str| text.bytes().rev().take_while(|&it| it == b'\\').count();
    match source.strip_suffix('$') {
        Some(rest) if escapes(rest) % 2 == 0 => rest,
        Some(_) | None => source,
    }
}

/// A rule that is JSON by a schema.
pub(super) fn push_json(lark: &mut String, rule: &str, schema: &Value) {
    let _ = writeln!(lark, "{rule}: %json {schema}");
}

/// A text as a literal.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
