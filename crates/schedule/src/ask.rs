//! What a caller asks for, and why it is refused at once when it is.

use std::fmt;

/// A sequence, as the engine names it. Never two at once with the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who asks: fairness holds between callers, and cached prefixes stay within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallerId(pub [u8; 32]);

/// What besides tokens decides what a position holds: base model, adapter, scale. Opaque here; two
/// asks with the same key and the same tokens must compute the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixKey(pub [u8; 32]);

/// Which asks come first; between equals, callers share fairly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Whose machine it is.
    Owner,
    /// Who waits for an answer.
    Normal,
    /// What can wait.
    Background,
}

impl Priority {
    /// All, the first first.
    pub const ALL: [Self; 3] = [Self::Owner, Self::Normal, Self::Background];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Owner => 0,
            Self::Normal => 1,
            Self::Background => 2,
        }
    }
}

/// Who may find the prefixes that this ask computes, and whose it may find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// The same caller alone.
    Private,
    /// Everybody who also says `Shared`. Whether a prefix was cached can be timed: say it only of
    /// what is no secret.
    Shared,
}

/// Where guesses at the next tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Drafting {
    /// Nowhere: a token a step.
    Off,
    /// From earlier in the sequence: see [`crate::draft`].
    Ngram,
    /// From the engine, which calls [`crate::Scheduler::propose`].
    Outside,
    /// From earlier in the sequence where it was there, otherwise from the engine.
    Both,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Tokens are drawn after the prompt, at most this many.
    Generate {
        /// Tokens drawn at most; at least 1.
        output_len_max: u32,
    },

    /// The logits of the prompt's positions from this one on; nothing is drawn.
    Score {
        /// The first position whose logits are wanted, counted from 0.
        from: u32,
    },

    /// The hidden states of every position of the prompt; nothing is drawn.
    Embed,
}

impl Work {
    pub(crate) fn output_len_max(self) -> usize {
        match self {
            Self::Generate { output_len_max } => output_len_max as usize,
            Self::Score { .. } | Self::Embed => 0,
        }
    }
}

/// One sequence to compute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Its name in batches and outcomes.
    pub id: SequenceId,
    /// Who asks.
    pub caller: CallerId,
    /// Before and behind whom.
    pub priority: Priority,
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// What is computed.
    pub work: Work,
    /// Positions that the model can attend to.
    pub context_len_max: u32,
    /// What besides tokens decides what a position holds.
    pub prefix_key: PrefixKey,
    /// Who may find its prefixes.
    pub sharing: Sharing,
    /// Where guesses come from.
    pub drafting: Drafting,
    /// Whether the first token may be drawn now, or only after [`crate::Scheduler::reveal`]. The
    /// prompt is computed meanwhile, all but its last token.
    pub is_revealed: bool,
}

/// The stable name of a [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefuseCode {
    /// The ask itself makes no sense: do not repeat it.
    Invalid,
    /// It can never fit here: ask for less, or ask elsewhere.
    TooLong,
    /// Too many wait: ask again later.
    Busy,
}

/// Why an ask is not taken. Nothing of a refused ask is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum Refusal {
    #[error("the prompt is empty: send at least one token")]
    EmptyPrompt,

    #[error("no output is asked for: ask for at least one token, or for scores")]
    NoOutput,

    #[error("scores are asked for from position {from}, but the prompt has {len} tokens")]
    NothingToScore { from: u32, len: usize },

    #[error("sequence {id} is here already: choose another id")]
    Duplicate { id: SequenceId },

    #[error(
        "{prompt} tokens of prompt and {output} of output exceed the context of {context}: \
         shorten one"
    )]
    BeyondContext { prompt: usize, output: usize, context: u32 },

    #[error(
        "{prompt} tokens of prompt and {output} of output need {needed} pages, but there are \
         {page_count}: shorten one"
    )]
    BeyondPages { prompt: usize, output: usize, needed: usize, page_count: u32 },

    #[error("{waiting} sequences wait and {max} may: try again later")]
    QueueFull { waiting: usize, max: u32 },

    #[error("{waiting} sequences of this caller wait and {max} may: try again later")]
    CallerQueueFull { waiting: usize, max: u32 },
}

impl Refusal {
    /// The stable name, for callers that branch.
    pub fn code(&self) -> RefuseCode {
        match self {
            Self::EmptyPrompt
            | Self::NoOutput
            | Self::NothingToScore { .. }
            | Self::Duplicate { .. } => RefuseCode::Invalid,
            Self::BeyondContext { .. } | Self::BeyondPages { .. } => RefuseCode::TooLong,
            Self::QueueFull { .. } | Self::CallerQueueFull { .. } => RefuseCode::Busy,
        }
    }
}
