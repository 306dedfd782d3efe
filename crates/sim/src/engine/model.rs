//! A made-up model: what it reads, what it answers, and how long that takes.

use commons_port::engine::{Alternative, LoadedModel, ModelKind, Token};
use commons_record::order::PromptInput;
use commons_record::seed::Seed32;
use commons_record::settlement::{EndReason, EngineClass};
use commons_record::{Hash, Millis};

use crate::clock::Micros;

/// Token ids are below this.
const VOCABULARY: u64 = 32_000;

/// Words of answers, so that their text can be read.
const WORDS: [&str; 16] = [
    " the", " river", " was", " low", " and", " stones", " shone", " in", " it", " when",
    " people", " came", " to", " mend", " their", " boats",
];

/// A model that follows from its name.
#[derive(Debug, Clone)]
pub struct SimModel {
    /// What the port says about it.
    pub loaded: LoadedModel,
    /// Time to read one token of a prompt.
    pub prefill: Micros,
    /// Time to write one token.
    pub decode: Micros,
    /// Sequences at once.
    pub slots: u32,
    /// Sequences that wait.
    pub queue: u32,
    /// An answer ends by itself after this many tokens.
    pub stops_after: u32,
}

/// A whole answer, computed beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// Why it ends.
    pub reason: EndReason,
}

impl SimModel {
    /// The model of that name: 20 ms a token, reading ten times as fast, two at once.
    pub fn named(name: &str) -> Self {
        let loaded = LoadedModel {
            model: Hash::of_content(name.as_bytes()),
            name: name.to_owned(),
            file_name: format!("{name}.gguf"),
            file_size: name.len() as u64,
            family: "sim".to_owned(),
            quantisation: "F16".to_owned(),
            tokenizer: Hash::of_content(b"words"),
            context_len: 2048,
            parameter_count: 1000,
            licence: Some("MIT".to_owned()),
            class: EngineClass {
                device: "sim".to_owned(),
                kernels: "hash/exact".to_owned(),
                version: "1".to_owned(),
            },
            kind: ModelKind::Decoder,
        };
        Self {
            loaded,
            prefill: Micros(2_000),
            decode: Micros(20_000),
            slots: 2,
            queue: 4,
            stops_after: 64,
        }
    }

    /// The prompt as tokens: a token for each four bytes.
    pub fn render(&self, input: &PromptInput) -> Vec<u32> {
        let text = match input {
            PromptInput::Tokens(tokens) => return tokens.clone(),
            PromptInput::Text(text) => text.clone(),
            PromptInput::Chat(messages) => {
                let line =
                    |it: &commons_record::order::Message| format!("{}: {}\n", it.role, it.content);
                messages.iter().map(line).collect()
            }
        };
        let id = |part: &[u8]| part.iter().fold(0, |sum: u32, byte| sum << 7 ^ u32::from(*byte));
        text.as_bytes().chunks(4).map(|part| id(part) % 32_000).collect()
    }

    /// The token at a position of the answer.
    pub fn token(&self, prompt: &[u32], seed: &Seed32, index: u32, top: u8) -> Token {
        let alternatives: Vec<Alternative> = (0..top.max(1))
            .map(|rank| {
                let prompt: Vec<u8> = prompt.iter().flat_map(|it| it.to_be_bytes()).collect();
                let fields = [
                    self.loaded.model.as_bytes().as_slice(),
                    &prompt,
                    seed,
                    &index.to_be_bytes(),
                    &[rank],
                ];
                let hash = Hash::of_fields("sim/token", &fields);
                let drawn = u64::from_be_bytes(std::array::from_fn(|at| hash.as_bytes()[at]));
                let id = u32::try_from(drawn % VOCABULARY).unwrap_or(0);
                let text = WORDS[id as usize % WORDS.len()].to_owned();
                Alternative { id, text, logprob_micro: -100_000 * (i32::from(rank) + 1) }
            })
            .collect();
        let chosen = alternatives[0].clone();
        let top = if top == 0 { Vec::new() } else { alternatives };
        Token { id: chosen.id, text: chosen.text, logprob_micro: chosen.logprob_micro, top }
    }

    /// The whole answer to a prompt, of at most `tokens_max` tokens.
    pub fn answer(&self, input: &PromptInput, seed: &Seed32, tokens_max: u32) -> Answer {
        let prompt = self.render(input);
        let (count, reason) = self.extent(&prompt, tokens_max);
        let tokens = (0..count).map(|index| self.token(&prompt, seed, index, 0)).collect();
        Answer { tokens, reason }
    }

    /// How long an answer is, and why it ends there.
    pub(super) fn extent(&self, prompt: &[u32], tokens_max: u32) -> (u32, EndReason) {
        let read = u32::try_from(prompt.len()).unwrap_or(u32::MAX);
        let room = self.loaded.context_len.saturating_sub(read).min(tokens_max);
        if self.stops_after <= room {
            (self.stops_after, EndReason::Stop)
        } else {
            (room, EndReason::Length)
        }
    }

    /// How long a number of tokens takes to compute.
    pub(super) fn compute_ms(&self, prompt: usize, completion: u32) -> Millis {
        let read = self.prefill.0.saturating_mul(prompt as u64);
        Micros(read.saturating_add(self.decode.0.saturating_mul(u64::from(completion)))).as_millis()
    }
}
