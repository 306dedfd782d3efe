//! Constrained answers: which tokens may come next so that a text keeps to a grammar.
//!
//! ```text
//! model:   vocabulary -> trie of its tokens' bytes                          (once, when first asked)
//! request: constraint, tools -> source -> limits -> compiled -> Guide       (on the caller's thread)
//! step:    drawn token -> Guide::push -> mask thread { advance, next mask } beside the forward pass
//!          logits -> Guide::allowed -> sampler
//! ```
//!
//! Grammars are those of `llguidance`: an Earley parser over a lexer of regular derivatives. What it
//! does is bounded by counted steps and never by a clock, so that a grammar is refused on a slow
//! machine if and only if it is on a fast one.
//!
//! # Invariants
//!
//! * A mask is a function of the vocabulary, the grammar and the tokens before: an auditor who has
//!   these computes the same one.
//! * Under a grammar no control token can be drawn but those that end an answer, and those that the
//!   grammar itself names.
//! * Whatever a caller writes is compiled or refused within the bounds below; a panic inside
//!   `llguidance` is a refusal.
//! * A grammar that is compiled may still become too complex while it is read: then its answer
//!   fails, by name, and no other.
//!
//! Not here: schemas (`grammar/schema.rs`), calls (`grammar/tools.rs`), one answer's state and the
//! mask thread (`grammar/guide.rs`), drawing (`commons-verify`).

mod guide;
pub mod schema;
mod source;
pub(crate) mod tools;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use commons_record::constraint::{Constraint, Tools};
use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, earley::SlicedBiasComputer};

pub(crate) use guide::{Guide, MaskThread};
pub use schema::SchemaError;

use crate::tokenizer::Tokenizer;
use tools::Calls;

/// What a grammar may cost. The numbers are steps of `llguidance`; the times beside them were
/// measured on one core of 2021.
const LIMITS: ParserLimits = ParserLimits {
    // Branches of an ambiguous grammar that are followed at once.
    max_items_in_row: 2_000,
    // Nodes of all expressions together: some 20 ms. The schema of FHIR takes half of it.
    initial_lexer_fuel: 1_000_000,
    // Derivatives for one mask: some 10 ms, where hundreds are usual. One sequence can slow a
    // batch of sixteen by no more.
    step_lexer_fuel: 150_000,
    // Items for one mask: some 2 ms.
    step_max_items: 40_000,
    // States of the lexer, of 1 to 2 KB each: 20 MB for one answer.
    max_lexer_states: 10_000,
    // Symbols in all rules: a schema of 256 KiB has fewer.
    max_grammar_size: 200_000,
    // It would read the whole vocabulary for a large expression, before anything was asked.
    precompute_large_lexemes: false,
    verbose_errors: false,
};

/// Bytes of a token that a grammar can use. Longer ones are runs of spaces.
const WORD_SIZE_MAX: usize = 256;

/// Bytes of stack for compiling and for masks: both follow what a caller nested. Only what is used is
/// real memory.
const STACK_SIZE: usize = 256 << 20;

/// Bytes of a message by `llguidance` that callers are shown.
const CAUSE_LEN_MAX: usize = 300;

/// Why an answer cannot be constrained as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum GrammarError {
    #[error("the model has no token that ends an answer, so an answer cannot be held to a form")]
    NoEnd,

    #[error("the model's vocabulary cannot be read by a grammar: {cause}")]
    Vocabulary { cause: String },

    #[error("the schema cannot be used")]
    Schema(#[from] SchemaError),

    #[error("the schema of the arguments of {name:?} cannot be used")]
    Parameters { name: String, source: SchemaError },

    #[error("the model writes no calls that are known here; ask without tools, or another model")]
    NoToolFormat,

    #[error("what the answer must look like is not understood, or is too much: {cause}")]
    Compile { cause: String },

    #[error("the form became too complex while the answer was written: {cause}; make it simpler")]
    TooComplex { cause: String },
}

/// What one model needs to follow grammars.
pub struct Grammars {
    factory: ParserFactory,
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars").finish_non_exhaustive()
    }
}

impl Grammars {
    /// Reads the vocabulary of a model into a trie.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, GrammarError> {
        let ends = tokenizer.ends();
        let Some(&end) = ends.first() else { return Err(GrammarError::NoEnd) };
        let count = u32::try_from(tokenizer.token_count()).unwrap_or(u32::MAX);
        let words: Vec<Vec<u8>> = (0..count).map(|id| word(tokenizer, id)).collect();
        let build = || {
            let trie = TokTrie::from(&TokRxInfo::new(count, end), &words).with_eos_tokens(ends);
            let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
            // No token is forced: a model says how it spells what only one text can follow.
            let abilities = InferenceCapabilities::default();
            let slices = SlicedBiasComputer::general_slices();
            let factory = ParserFactory::new(&env, abilities, &slices);
            let mut factory = factory.map_err(|error| error.to_string())?;
            factory.quiet();
            *factory.limits_mut() = LIMITS;
            Ok::<_, String>(factory)
        };
        let factory = guarded(build).map_err(|cause| GrammarError::Vocabulary { cause })?;
        Ok(Self { factory })
    }

    /// Whether answers could be held to this.
    pub fn check(&self, constraint: &Constraint) -> Result<(), GrammarError> {
        self.guide(Some(constraint), None).map(drop)
    }

    /// The beginning of an answer under a constraint. `calls` says how the model writes calls.
    pub(crate) fn guide(
        &self,
        constraint: Option<&Constraint>,
        tools: Option<(&Tools, &Calls)>,
    ) -> Result<Guide, GrammarError> {
        let work = || source::of(constraint, tools).and_then(|source| self.compile(source));
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_SIZE);
            let thread = thread.spawn_scoped(scope, work).map_err(|error| {
                GrammarError::Compile { cause: format!("failed to start a thread: {error}") }
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn compile(&self, grammar: TopLevelGrammar) -> Result<Guide, GrammarError> {
        let build = || {
            let parser = self.factory.create_parser(grammar)?;
            let mut matcher = Matcher::new(Ok(parser));
            matcher.compute_mask_or_eos().map(|mask| (matcher, mask))
        };
        let (matcher, mask) = guarded(build).map_err(|cause| GrammarError::Compile { cause })?;
        Ok(Guide::new(matcher, mask))
    }
}

/// What a grammar sees of a token: nothing of control tokens, and nothing that no UTF-8 has.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.piece(id).unwrap_or_default();
    let is_usable = bytes.len() <= WORD_SIZE_MAX
        && bytes.first() != Some(&TokTrie::SPECIAL_TOKEN_MARKER)
        && !tokenizer.is_end(id)
        && !tokenizer.is_unused(id);
    if is_usable { bytes.to_vec() } else { Vec::new() }
}

/// Runs what is not ours. A panic in it becomes an error.
fn guarded<T, E: fmt::Display>(work: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sentence(&error.to_string())),
        Err(_) => Err("it made the grammar library panic".to_owned()),
    }
}

/// The sentence of a message that may hold a dump of the grammar around it.
fn sentence(message: &str) -> String {
    let mut lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("no reason");
    // An expression's own error comes last, behind a picture of where it is.
    let line = lines.find_map(|line| line.strip_prefix("error: ")).unwrap_or(first);
    // The library numbers the lines of the grammar that was made here, which nobody has seen.
    let line = match line.strip_prefix("at ").and_then(|rest| rest.split_once("): ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    let line = if line == "NoExtensionBias" { "nothing can be written under it" } else { line };
    line.chars().filter(|it| !it.is_control()).take(CAUSE_LEN_MAX).collect()
}

#[cfg(test)]
mod tests;
