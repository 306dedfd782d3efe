//! How a model writes calls of functions: its format, and the grammar of that.
//!
//! | format | an answer that calls |
//! |---|---|
//! | Hermes | `<tool_call>\n{"name": "f", "arguments": {..}}\n</tool_call>`, and again |
//! | Llama | `{"name": "f", "parameters": {..}}`, behind `<\|python_tag\|>` or not; `; ` between two |
//! | Mistral, list | `[TOOL_CALLS] [{"name": "f", "arguments": {..}}, ..]` |
//! | Mistral, arguments | `[TOOL_CALLS]f[ARGS]{..}`, and again |
//!
//! Where a word such as `[TOOL_CALLS]` is a control token of the vocabulary, the grammar names that
//! token; where it is not, it is a text. Under `auto` an answer is free until a call begins, and from
//! there on it is calls alone.
//!
//! Not here: which format a template has (`template.rs`), how calls are read (`commons-port`).

pub(crate) mod plain;

use std::fmt::Write;

use commons_record::constraint::{ToolFormat, Tools};

use super::source::{push_json, quoted};
use super::{GrammarError, schema};
use crate::tokenizer::Tokenizer;

/// How one model writes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) format: ToolFormat,
    /// The words of the format that are control tokens here, with their ids.
    controls: Vec<(&'static str, u32)>,
}

/// Words of formats that may be control tokens.
const WORDS: [&str; 5] =
    ["<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]"];

impl Calls {
    pub(crate) fn new(format: ToolFormat, tokenizer: &Tokenizer) -> Self {
        let controls = WORDS.iter().filter_map(|&word| Some((word, tokenizer.control(word)?)));
        Self { format, controls: controls.collect() }
    }

    /// The control tokens whose text belongs to an answer: the parser of calls looks for it.
    pub(crate) fn spoken(&self) -> Vec<u32> {
        self.controls.iter().map(|&(_, id)| id).collect()
    }

    fn control(&self, word: &str) -> Option<u32> {
        self.controls.iter().find(|it| it.0 == word).map(|it| it.1)
    }

    /// A word of the format with a text behind it, as the grammar has it.
    fn word(&self, word: &str, behind: &str) -> String {
        match self.control(word) {
            Some(id) if behind.is_empty() => format!("<[{id}]>"),
            Some(id) => format!("<[{id}]> {}", quoted(behind)),
            None => quoted(&format!("{word}{behind}")),
        }
    }

    /// Writes `start`, and the rules of calls.
    pub(super) fn write(
        &self,
        tools: &Tools,
        has_answer: bool,
        is_free: bool,
        lark: &mut String,
    ) -> Result<(), GrammarError> {
        let trigger = match self.format {
            ToolFormat::Hermes => self.word("<tool_call>", "\n"),
            ToolFormat::Llama => String::new(),
            ToolFormat::MistralList | ToolFormat::MistralArgs => self.word("[TOOL_CALLS]", ""),
        };
        // What may stand before the first call, and the call's own beginning.
        let lead = match (self.format, has_answer && is_free) {
            (ToolFormat::Llama, _) => self.control("<|python_tag|>").map(|id| format!("<[{id}]>?")),
            (_, true) if trigger.starts_with("<[") => Some(format!("TEXT? {trigger}")),
            (_, true) => {
                let _ = writeln!(lark, "lead[lazy]: /(?s:.*)/ {trigger}");
                Some("lead".to_owned())
            }
            (_, false) => Some(trigger.clone()),
        };
        let lead = lead.unwrap_or_default();
        let (more, close) = match self.format {
            ToolFormat::Hermes => (format!("\"\\n\" {trigger} call"), ""),
            ToolFormat::Llama => ("\"; \" call".to_owned(), ""),
            ToolFormat::MistralList => ("\", \" call".to_owned(), "\"]\""),
            ToolFormat::MistralArgs => (format!("{trigger} call"), ""),
        };
        let open = if self.format == ToolFormat::MistralList { "/ ?\\[/" } else { "" };
        let more = if tools.is_parallel { format!("({more})*") } else { String::new() };
        let start = if has_answer { "start: answer | calls" } else { "start: calls" };
        let _ = writeln!(lark, "{start}\ncalls: {lead} {open} call {more} {close}");
        self.write_functions(tools, lark)
    }

    fn write_functions(&self, tools: &Tools, lark: &mut String) -> Result<(), GrammarError> {
        let mut names = Vec::new();
        for (index, function) in tools.callable().enumerate() {
            let name = &function.name;
            let schema = schema::read_parameters(function.parameters.as_deref());
            let schema =
                schema.map_err(|source| GrammarError::Parameters { name: name.clone(), source })?;
            let key = if self.format == ToolFormat::Llama { "parameters" } else { "arguments" };
            let open = quoted(&format!("{{\"name\": \"{name}\", \"{key}\": "));
            let close = quoted("}");
            let rule = match self.format {
                ToolFormat::Hermes => {
                    let end = match self.control("</tool_call>") {
                        Some(id) => format!("\"}}\\n\" <[{id}]>"),
                        None => quoted("}\n</tool_call>"),
                    };
                    format!("{open} args{index} {end}")
                }
                ToolFormat::Llama | ToolFormat::MistralList => {
                    format!("{open} args{index} {close}")
                }
                ToolFormat::MistralArgs => match self.control("[ARGS]") {
                    Some(id) => format!("{} <[{id}]> args{index}", quoted(name)),
                    None => format!("{} args{index}", quoted(&format!("{name}[ARGS]"))),
                },
            };
            let _ = writeln!(lark, "call{index}: {rule}");
            push_json(lark, &format!("args{index}"), &schema);
            names.push(format!("call{index}"));
        }
        let _ = writeln!(lark, "call: {}", names.join(" | "));
        Ok(())
    }

    /// Any text in which no call begins. The parser reads what begins with a brace as a call, where
    /// the format has no word for one.
    pub(super) fn write_free_text(&self, lark: &mut String) {
        let text = match self.format {
            ToolFormat::Llama => r"/[ \t\r\n]*[^{ \t\r\n](?s:.*)/",
            ToolFormat::Hermes | ToolFormat::MistralList | ToolFormat::MistralArgs => "/(?s:.+)/",
        };
        let _ = writeln!(lark, "answer: TEXT?\nTEXT: {text}");
    }
}
