//! Chat templates: from a conversation to the token ids that the model was trained to answer.
//!
//! A template is a small program out of the model's file, so it runs with a bound on its steps
//! ([`FUEL`]), its output ([`RENDERED_SIZE_MAX`]) and its own size, and sees nothing but the
//! conversation. It has no clock: `strftime_now` is absent, and templates that ask first then use
//! their own default date.
//!
//! A file without a template is a base model: it was trained to continue text, and knows no roles.
//! Then the contents are joined by line ends and continued, so that one user message is continued
//! exactly as it was written. Putting role names into the text would only make it stranger.
//!
//! # Invariants
//!
//! * No control token comes out of what a message says (see [`Guard`](crate::tokenizer::Guard)).
//!
//! Not here: tools, images, and documents in a conversation.

use std::io::{self, Write};

use commons_record::order::Message;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::gguf::{Gguf, GgufError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Instructions that one rendering may take. A conversation of 4 096 messages takes under a million.
pub const FUEL: u64 = 10_000_000;

/// Bytes that one rendering may write: four times the largest prompt that an order may hold.
pub const RENDERED_SIZE_MAX: usize = 4 << 20;

/// How deep a template's own macros may call each other.
const RECURSION_MAX: usize = 64;

/// The only template of an environment.
const NAME: &str = "chat";

/// Why a conversation was not rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TemplateError {
    #[error("the template is not readable")]
    Gguf(#[from] GgufError),

    #[error("the model's chat template is not valid; use plain completion, or another file")]
    Syntax { source: Box<Error> },

    #[error("the model's chat template refuses this conversation: {message}")]
    Refused { message: String },

    #[error("the model's chat template failed: {message}; use plain completion, or another file")]
    Failed { message: String, source: Box<Error> },

    #[error("the rendered conversation has more than {RENDERED_SIZE_MAX} bytes")]
    TooLong,

    #[error("failed to encode the rendered conversation")]
    Encode(#[from] TokenizerError),
}

/// How one model wants a conversation to be written.
#[derive(Debug)]
pub struct Template {
    /// None where the file has no template.
    environment: Option<Environment<'static>>,
}

impl Template {
    /// Compiles the template of the file, if it has one.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, TemplateError> {
        match gguf.text("tokenizer.chat_template")? {
            Some(source) => Self::new(source),
            None => Ok(Self { environment: None }),
        }
    }

    /// Compiles a template.
    pub fn new(source: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        // As `transformers` sets up Jinja: block tags leave no white space behind.
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|source| TemplateError::Syntax { source: Box::new(source) })?;
        Ok(Self { environment: Some(environment) })
    }

    /// The token ids of a conversation, up to where the answer begins.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, TemplateError> {
        let texts = messages.iter().flat_map(|it| [it.role.as_str(), it.content.as_str()]);
        let guard = tokenizer.guard(texts)?;
        let Some(environment) = &self.environment else {
            let contents: Vec<&str> = messages.iter().map(|it| it.content.as_str()).collect();
            return Ok(tokenizer.encode_prompt(&contents.join("\n"))?);
        };
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| {
                let role = tokenizer.protect(guard, &message.role);
                context! { role, content => tokenizer.protect(guard, &message.content) }
            })
            .collect();
        let context = context! {
            messages,
            add_generation_prompt => true,
            bos_token => tokenizer.bos_text(),
            eos_token => tokenizer.eos_text(),
        };
        let mut out = BoundedWriter::default();
        let template = environment.get_template(NAME).map_err(render_error)?;
        let rendered = template.render_captured_to(context, &mut out).map(drop);
        if out.is_full {
            return Err(TemplateError::TooLong);
        }
        rendered.map_err(render_error)?;
        // The renderer writes only whole strings.
        let text = String::from_utf8_lossy(&out.bytes);
        Ok(tokenizer.encode_rendered(&text, guard)?)
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

/// JSON as Python writes it; minijinja's own escapes characters for HTML.
fn to_json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

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
