//! Chat templates: from a conversation to the token ids that the model was trained to answer.
//!
//! A template is a small program out of the model's file, so it runs with a bound on its steps
//! ([`FUEL`]), its output ([`RENDERED_SIZE_MAX`]) and its own size, and sees nothing but the
//! conversation. It has no clock: `strftime_now` writes the time that the caller gives, and is
//! absent where none is given; templates that ask first then use their own default date.
//!
//! A template was written for Python's Jinja as `transformers` sets it up, and reads here as it does
//! there (`python.rs`): tags leave no white space, `tojson` and lists are spelt as Python spells
//! them, and `{% generation %}`, which marks what is trained on, marks nothing.
//!
//! A file without a template is a base model: it was trained to continue text, and knows no roles.
//! Then the contents are joined by line ends and continued, so that one user message is continued
//! exactly as it was written. Putting role names into the text would only make it stranger.
//!
//! # Invariants
//!
//! * No control token comes out of what a message, a tool or a document says (see
//!   [`Guard`](crate::tokenizer::Guard)).
//!
//! Not here: pictures and sound; a bound on the memory that a template's own variables take while it
//! runs (its steps bound the time, and a step can double a string).

mod conversation;
mod python;
mod source;
mod tools;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use commons_record::constraint::{ToolFormat, Tools};
use commons_record::order::Message;
use minijinja::{Environment, Error, ErrorKind};

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{Tokenizer, TokenizerError};

pub use conversation::{Conversation, Json, Moment};
pub use source::TemplateFiles;

/// Instructions that one rendering may take. A conversation of 4 096 messages takes under a million.
pub const FUEL: u64 = 2_000_000;

/// Bytes of stack for one rendering. Each step can nest a value once more, and a value is dropped by
/// recursion; the stack holds as many levels as there are steps. Only what is used is real memory.
const STACK_SIZE: usize = 1 << 30;

/// Bytes that one rendering may write: four times the largest prompt that an order may hold.
pub const RENDERED_SIZE_MAX: usize = 4 << 20;

/// Bytes of one template. The largest seen has some 20 KiB.
pub const SOURCE_SIZE_MAX: usize = 1 << 20;

/// Templates of one model. Published ones have up to three.
const TEMPLATES_MAX: usize = 16;

/// How deep a template's own macros may call each other.
const RECURSION_MAX: usize = 64;

/// The template that is used where none is named.
const DEFAULT: &str = "default";

/// The template that is used where there are tools.
const TOOL_USE: &str = "tool_use";

/// Why a conversation was not rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TemplateError {
    #[error("the template is not readable")]
    Gguf(#[from] GgufError),

    #[error("{file} is not what a model folder has there; fetch it again")]
    File { file: String, source: Box<serde_json::Error> },

    #[error("{file} is not UTF-8; fetch it again")]
    NotUtf8 { file: String },

    #[error("the model has a chat template of {size} bytes, at most {SOURCE_SIZE_MAX} accepted")]
    SourceSize { size: usize },

    #[error("the model has {count} chat templates, at most {TEMPLATES_MAX} accepted")]
    SourceCount { count: usize },

    #[error("the model has no chat template {name:?}; it has: {known}")]
    Unknown { name: String, known: String },

    #[error("the model's chat template is not valid; use plain completion, or another file")]
    Syntax { source: Box<Error> },

    #[error("the conversation is not JSON of at most {limit} bytes", limit = conversation::JSON_SIZE_MAX)]
    Json { source: Option<Box<serde_json::Error>> },

    #[error("the {what} of {name:?} is no JSON object: {cause}")]
    NoObject { what: &'static str, name: String, cause: String },

    #[error("the model's chat template refuses this conversation: {message}")]
    Refused { message: String },

    #[error("the model's chat template failed: {message}; use plain completion, or another file")]
    Failed { message: String, source: Box<Error> },

    #[error("the rendered conversation has more than {RENDERED_SIZE_MAX} bytes")]
    TooLong,

    #[error("failed to start a thread for the model's chat template")]
    Thread { source: io::Error },

    #[error("failed to read or encode the conversation's text")]
    Encode(#[from] TokenizerError),
}

/// How one model wants a conversation to be written.
#[derive(Debug)]
pub struct Template {
    /// The templates by name; none where the model has no template.
    environment: Option<Environment<'static>>,
    /// How calls are written by the template that is used where there are tools.
    tool_format: Option<ToolFormat>,
    mentions_tools: bool,
}

impl Template {
    /// Compiles the templates of a GGUF file, if it has any.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TemplateError> {
        Self::from_sources(source::of_gguf(gguf)?)
    }

    /// Compiles the templates of a Hugging Face folder's files, if they have any.
    pub fn from_files(files: &TemplateFiles<'_>) -> Result<Self, TemplateError> {
        Self::from_sources(source::of_files(files)?)
    }

    /// Reads those files, each bounded, and compiles the templates.
    pub fn from_folder(path: &Path) -> Result<Self, TemplateError> {
        source::Owned::read(path).and_then(|files| Self::from_files(&files.borrow()))
    }

    /// Compiles a template.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        Self::from_sources(vec![(DEFAULT.to_owned(), source.to_owned())])
    }

    fn from_sources(sources: Vec<(String, String)>) -> Result<Self, TemplateError> {
        if sources.is_empty() {
            return Ok(Self { environment: None, tool_format: None, mentions_tools: false });
        }
        if sources.len() > TEMPLATES_MAX {
            return Err(TemplateError::SourceCount { count: sources.len() });
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        // As `transformers` sets up Jinja: block tags leave no white space behind.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_function("raise_exception", raise_exception);
        python::install(&mut environment);
        let named = |name: &str| sources.iter().find(|it| it.0 == name).map(|it| &it.1);
        let source = named(TOOL_USE).or_else(|| named(DEFAULT));
        let mentions_tools = source.is_some_and(|source| source.contains("tools"));
        let tool_format = source.and_then(|source| tools::format_of(source));
        for (name, source) in sources {
            if source.len() > SOURCE_SIZE_MAX {
                return Err(TemplateError::SourceSize { size: source.len() });
            }
            environment
                .add_template_owned(name, source::without_generation(&source))
                .map_err(|source| TemplateError::Syntax { source: Box::new(source) })?;
        }
        Ok(Self { environment: Some(environment), tool_format, mentions_tools })
    }

    /// The names of the templates, in order; the one that is used without asking is `default`.
    pub fn names(&self) -> Vec<&str> {
        let environment = self.environment.iter();
        let names = environment.flat_map(|it| it.templates().map(|(name, _)| name));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// How calls are written by this model, if it has a way that is known here.
    pub fn tool_format(&self) -> Option<ToolFormat> {
        self.tool_format
    }

    /// Whether the template has words for tools, known here or not.
    pub(crate) fn mentions_tools(&self) -> bool {
        self.mentions_tools
    }

    /// The token ids of a conversation of messages, up to where the answer begins.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, TemplateError> {
        let messages = Json::of_messages(messages, self.tool_format)?;
        self.encode_conversation(tokenizer, &Conversation::new(&messages))
    }

    /// The same, with functions that the answer may call.
    pub fn encode_with_tools(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &Tools,
    ) -> Result<Vec<u32>, TemplateError> {
        let messages = Json::of_messages(messages, self.tool_format)?;
        let tools = Json::of_tools(tools)?;
        let conversation = Conversation { tools: Some(&tools), ..Conversation::new(&messages) };
        self.encode_conversation(tokenizer, &conversation)
    }

    /// The token ids of a conversation, up to where the answer begins.
    pub fn encode_conversation(
        &self,
        tokenizer: &Tokenizer,
        conversation: &Conversation<'_>,
    ) -> Result<Vec<u32>, TemplateError> {
        let texts = conversation.texts();
        let guard = tokenizer.guard(texts.iter().map(String::as_str))?;
        if self.environment.is_none() {
            return Ok(tokenizer.encode_prompt(&conversation.contents().join("\n"))?);
        }
        let text =
            self.write(conversation, tokenizer.bos_text(), tokenizer.eos_text(), &|text| {
                tokenizer.protect(guard, text)
            })?;
        Ok(tokenizer.encode_rendered(&text, guard)?)
    }

    /// The text of a conversation as the template writes it, with `bos` and `eos` for the tokens that
    /// open and close. To encode, use [`Template::encode_conversation`]: in this text nothing keeps
    /// what a user wrote from being read as a control token.
    pub fn render(
        &self,
        conversation: &Conversation<'_>,
        bos: &str,
        eos: &str,
    ) -> Result<String, TemplateError> {
        self.write(conversation, bos, eos, &str::to_owned)
    }

    fn write(
        &self,
        conversation: &Conversation<'_>,
        bos: &str,
        eos: &str,
        protect: &(dyn Fn(&str) -> String + Sync),
    ) -> Result<String, TemplateError> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_SIZE);
            let thread = thread
                .spawn_scoped(scope, || self.write_here(conversation, bos, eos, protect))
                .map_err(|source| TemplateError::Thread { source })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn write_here(
        &self,
        conversation: &Conversation<'_>,
        bos: &str,
        eos: &str,
        protect: &dyn Fn(&str) -> String,
    ) -> Result<String, TemplateError> {
        let Some(environment) = &self.environment else {
            return Ok(conversation.contents().join("\n"));
        };
        let name = self.choose(environment, conversation)?;
        let template = environment.get_template(name).map_err(render_error)?;
        let mut out = BoundedWriter::default();
        let context = conversation.context(bos, eos, protect);
        let rendered = template.render_captured_to(context, &mut out).map(drop);
        if out.is_full {
            return Err(TemplateError::TooLong);
        }
        rendered.map_err(render_error)?;
        // The renderer writes only whole strings.
        Ok(String::from_utf8_lossy(&out.bytes).into_owned())
    }

    fn choose<'a>(
        &self,
        environment: &Environment<'_>,
        conversation: &Conversation<'a>,
    ) -> Result<&'a str, TemplateError> {
        let has = |name: &str| environment.get_template(name).is_ok();
        let name = match conversation.template {
            Some(name) => name,
            None if conversation.tools.is_some() && has(TOOL_USE) => TOOL_USE,
            None => DEFAULT,
        };
        if has(name) {
            return Ok(name);
        }
        let (name, known) = (name.to_owned(), self.names().join(", "));
        Err(TemplateError::Unknown { name, known })
    }
}

/// Takes what a template writes, up to the bound.
#[derive(Debug, Default)]
struct BoundedWriter {
    bytes: Vec<u8>,
    is_full: bool,
}

impl Write for BoundedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > RENDERED_SIZE_MAX {
            self.is_full = true;
            return Err(io::Error::other("the rendered conversation is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What templates call to refuse a conversation.
fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Refusal))
}

/// Marks an error as the template's own decision.
#[derive(Debug, thiserror::Error)]
#[error("refused by the template")]
struct Refusal;

fn render_error(source: Error) -> TemplateError {
    let message = source.detail().map_or_else(|| source.kind().to_string(), str::to_owned);
    let is_refusal =
        std::error::Error::source(&source).is_some_and(<dyn std::error::Error>::is::<Refusal>);
    if is_refusal {
        return TemplateError::Refused { message };
    }
    TemplateError::Failed { message, source: Box::new(source) }
}

#[cfg(test)]
mod tests;
