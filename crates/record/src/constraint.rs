//! What an answer must look like: a constraint on its text, or calls of functions.
//!
//! Both are content: they stand in the canonical [`Prompt`](crate::order::Prompt), so an order
//! commits to them, a peer gets them sealed, and an auditor can replay what was drawn under them.
//!
//! Schemas and arguments are kept as the JSON text that the caller wrote: a template shows their
//! keys in that order, and no number is read and written again.
//!
//! Not here: what a schema means (the engine), how a model writes a call (`commons-port`).

use serde::{Deserialize, Serialize};

use crate::envelope::InvalidBody;

/// What the text of an answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema accepts. The schema is JSON text.
    JsonSchema(String),
    /// A text that a regular expression matches from its first to its last character.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
}

/// The functions that an answer may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// The functions, each name once.
    pub functions: Vec<Function>,
    /// Whether one must be called.
    pub choice: ToolChoice,
    /// Whether one answer may hold several calls.
    pub is_parallel: bool,
}

/// A function that can be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The schema of its arguments, as JSON text; none means that it takes none.
    pub parameters: Option<String>,
}

/// Whether a function must be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// Any of them, and nothing else is said.
    Required,
    /// This one, and nothing else is said.
    Named(String),
}

/// A call that an earlier answer made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolCall {
    /// Its id: what the result names.
    pub id: String,
    /// The function.
    pub name: String,
    /// The arguments, as JSON text.
    pub arguments: String,
}

/// How a model writes calls into its text. It is a fact of the model's template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolFormat {
    /// `<tool_call>\n{"name": .., "arguments": {..}}\n</tool_call>`: Hermes, Qwen 2.5 and 3.
    Hermes,
    /// `{"name": .., "parameters": {..}}` as the whole answer, behind `<|python_tag|>` or not:
    /// Llama 3. Gemma is asked for the same.
    Llama,
    /// `[TOOL_CALLS] [{"name": .., "arguments": {..}}]`: Mistral until tokenizer version 7.
    MistralList,
    /// `[TOOL_CALLS]name[ARGS]{..}`: Mistral from tokenizer version 11 on.
    MistralArgs,
}

/// The source of a schema or an expression. The largest schema in use that we know, of medical
/// records, has some 3 MB; a request's own has a few kilobytes.
pub const CONSTRAINT_SIZE_MAX: usize = 256 * 1024;

/// An enumeration of more is a table, and belongs into the prompt.
pub const CHOICES_MAX: usize = 4096;

/// The `OpenAI` API takes this many.
pub const FUNCTIONS_MAX: usize = 128;

/// Calls in one message of a conversation: as many as there can be functions.
pub const CALLS_MAX: usize = 128;

/// Bytes of a call's id. Published ones have up to some 40.
pub const CALL_ID_LEN_MAX: usize = 128;

/// Bytes of a function's name, as the `OpenAI` API has it.
pub const FUNCTION_NAME_LEN_MAX: usize = 64;

impl Constraint {
    /// Checks the bounds. Whether a source means anything is for the engine to say.
    pub fn check(&self) -> Result<(), InvalidBody> {
        let name = "constraint";
        let size = match self {
            Self::JsonObject => return Ok(()),
            Self::JsonSchema(source) | Self::Regex(source) => source.len(),
            Self::Choice(choices) => {
                let is_bounded = (1..=CHOICES_MAX).contains(&choices.len());
                InvalidBody::unless(is_bounded, name, "has no choices or over 4096")?;
                choices.iter().map(String::len).sum()
            }
        };
        InvalidBody::unless(size > 0, name, "is empty")?;
        InvalidBody::unless(size <= CONSTRAINT_SIZE_MAX, name, "is over 256 KiB")
    }
}

impl Tools {
    /// Checks the bounds and names.
    pub fn check(&self) -> Result<(), InvalidBody> {
        let is_bounded = (1..=FUNCTIONS_MAX).contains(&self.functions.len());
        InvalidBody::unless(is_bounded, "tools", "are none or over 128")?;
        let are_names = self.functions.iter().all(|it| is_function_name(&it.name));
        InvalidBody::unless(are_names, "tools", "have a name that is not 1 to 64 of a-zA-Z0-9_-")?;
        let mut names: Vec<&str> = self.functions.iter().map(|it| it.name.as_str()).collect();
        names.sort_unstable();
        let is_once = names.windows(2).all(|pair| pair[0] != pair[1]);
        InvalidBody::unless(is_once, "tools", "have a name twice")?;
        let size = self.functions.iter().map(Function::size).sum::<usize>();
        InvalidBody::unless(size <= CONSTRAINT_SIZE_MAX, "tools", "are over 256 KiB")?;
        match &self.choice {
            ToolChoice::Auto | ToolChoice::Required => Ok(()),
            ToolChoice::Named(name) => {
                let is_there = names.binary_search(&name.as_str()).is_ok();
                InvalidBody::unless(is_there, "tool_choice", "names none of the tools")
            }
        }
    }

    /// The functions that may be called: all, or the one that is named.
    pub fn callable(&self) -> impl Iterator<Item = &Function> {
        let is_callable = |it: &&Function| match &self.choice {
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::Named(name) => it.name == *name,
        };
        self.functions.iter().filter(is_callable)
    }
}

impl Function {
    fn size(&self) -> usize {
        let len = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.name.len() + len(&self.description) + len(&self.parameters)
    }
}

impl ToolCall {
    /// Checks the bounds and the name.
    pub fn check(&self) -> Result<(), InvalidBody> {
        let is_id = (1..=CALL_ID_LEN_MAX).contains(&self.id.len());
        InvalidBody::unless(is_id, "tool_calls", "have an id that is empty or over 128 bytes")?;
        let is_name = is_function_name(&self.name);
        InvalidBody::unless(is_name, "tool_calls", "have a name that is not 1 to 64 of a-zA-Z0-9_-")
    }

    pub(crate) fn size(&self) -> usize {
        self.id.len() + self.name.len() + self.arguments.len()
    }
}

/// Whether a function may have this name. Such a name needs no escape in JSON or in a grammar.
pub fn is_function_name(name: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=FUNCTION_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(is_word)
}
