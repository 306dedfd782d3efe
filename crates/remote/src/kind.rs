//! Which programs are known, and what each can be asked.
//!
//! A field that a program does not know is not sent. Where a program has a field, it is sent even
//! if it changes nothing by our rules: servers have defaults of their own, such as `top_k` 40.

use std::fmt;
use std::str::FromStr;

/// A program that serves models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Anything that speaks the published API, and nothing beyond it.
    OpenAi,
    /// vLLM.
    Vllm,
    /// The server of llama.cpp.
    LlamaServer,
    /// The server of llama-cpp-python.
    LlamaCppPython,
    /// `SGLang`.
    Sglang,
    /// Ollama.
    Ollama,
}

/// When a program is asked for log-probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logprobs {
    /// With every answer: they cost little, and bring the tokens' borders.
    Always,
    /// Where alternatives are asked for.
    WhenAsked,
}

/// How a program tells the length of a prompt before its first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PromptCount {
    /// Not at all.
    Never,
    /// In the `usage` of each event, if asked to.
    Usage,
    /// In the `timings` of each event, if asked to.
    Timings,
}

/// What a program can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a parameter that a program knows or not"
)]
pub(crate) struct Abilities {
    /// The `top_k` that keeps all, if it knows `top_k`.
    pub(crate) top_k_of_all: Option<i32>,
    /// Whether it knows `min_p`.
    pub(crate) has_min_p: bool,
    /// What it calls a repetition penalty.
    pub(crate) repetition: Option<&'static str>,
    /// Whether it takes biases.
    pub(crate) has_logit_bias: bool,
    /// Whether it takes a prompt as token ids.
    pub(crate) has_token_prompts: bool,
    /// Whether `return_token_ids` makes it tell ids.
    pub(crate) tells_ids: bool,
    pub(crate) logprobs: Logprobs,
    pub(crate) prompt_count: PromptCount,
    /// Stop strings that it takes.
    pub(crate) stop_max: usize,
    /// Whether a text is continued without a bound where the bound is null.
    pub(crate) takes_no_bound: bool,
}

/// What the published API has.
const PUBLISHED: Abilities = Abilities {
    top_k_of_all: None,
    has_min_p: false,
    repetition: None,
    has_logit_bias: true,
    has_token_prompts: true,
    tells_ids: false,
    logprobs: Logprobs::WhenAsked,
    prompt_count: PromptCount::Never,
    stop_max: 4,
    takes_no_bound: false,
};

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::OpenAi,
        Self::Vllm,
        Self::LlamaServer,
        Self::LlamaCppPython,
        Self::Sglang,
        Self::Ollama,
    ];

    /// Its name in settings, receipts and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Vllm => "vllm",
            Self::LlamaServer => "llama-server",
            Self::LlamaCppPython => "llama-cpp-python",
            Self::Sglang => "sglang",
            Self::Ollama => "ollama",
        }
    }

    pub(crate) const fn abilities(self) -> Abilities {
        let many_stops = commons_record::order::STOP_MAX;
        match self {
            Self::OpenAi => PUBLISHED,
            Self::Vllm => Abilities {
                top_k_of_all: Some(-1),
                has_min_p: true,
                repetition: Some("repetition_penalty"),
                tells_ids: true,
                logprobs: Logprobs::Always,
                prompt_count: PromptCount::Usage,
                stop_max: many_stops,
                takes_no_bound: true,
                ..PUBLISHED
            },
            Self::Sglang => Abilities {
                top_k_of_all: Some(-1),
                has_min_p: true,
                repetition: Some("repetition_penalty"),
                prompt_count: PromptCount::Usage,
                stop_max: many_stops,
                ..PUBLISHED
            },
            Self::LlamaServer => Abilities {
                top_k_of_all: Some(0),
                has_min_p: true,
                repetition: Some("repeat_penalty"),
                logprobs: Logprobs::Always,
                prompt_count: PromptCount::Timings,
                stop_max: many_stops,
                takes_no_bound: true,
                ..PUBLISHED
            },
            // It refuses a list of ids as a prompt, and log-probabilities unless it was started
            // to keep them.
            Self::LlamaCppPython => Abilities {
                top_k_of_all: Some(0),
                has_min_p: true,
                repetition: Some("repeat_penalty"),
                has_token_prompts: false,
                stop_max: many_stops,
                takes_no_bound: true,
                ..PUBLISHED
            },
            Self::Ollama => Abilities {
                has_logit_bias: false,
                has_token_prompts: false,
                stop_max: many_stops,
                takes_no_bound: true,
                ..PUBLISHED
            },
        }
    }

    /// The route that loads an adapter, if it has one.
    pub(crate) const fn adapter_route(self) -> Option<&'static str> {
        match self {
            Self::Vllm => Some("/v1/load_lora_adapter"),
            Self::Sglang => Some("/load_lora_adapter"),
            Self::OpenAi | Self::LlamaServer | Self::LlamaCppPython | Self::Ollama => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no kind of engine; write auto, openai, vllm, llama-server, llama-cpp-python, \
     sglang or ollama"
)]
pub struct KindError {
    text: String,
}

impl FromStr for Kind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|it| it.name() == text);
        found.ok_or_else(|| KindError { text: text.chars().take(40).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_name_alone() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        let error = "VLLM".parse::<Kind>().expect_err("names are as they are");
        assert!(error.to_string().contains("sglang"));
    }
}
