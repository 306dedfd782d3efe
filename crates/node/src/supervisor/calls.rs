//! What was asked of the engine process, and the check of everything that it answers.
//!
//! ```text
//! asked -> Started -> Prefilled -> Token* -> Finished | Failed      a sequence
//! asked -> answer                                                   anything else
//! any   -> cancelled -> (what was under way is passed over) -> Over
//! ```
//!
//! A message that has no place in these lines is a [`Violation`], and its sender is killed.
//!
//! Messages to the process wait here as frames. They are bounded by the calls that are open: each
//! has one question, one seed, one cancellation, and what was read of one window.

use std::collections::{BTreeMap, VecDeque};

use commons_port::engine::{
    EngineEvent, EngineRefusal, EngineRefusalCode, EngineRequest, Score, Token,
};
use commons_port::process::frame::{self, FrameError};
use commons_port::process::{Answer, Ask, CallId, EVENTS_AHEAD, ToEngine};
use commons_record::Hash;
use commons_record::seed::Seed32;
use tokio::sync::{mpsc, oneshot};

/// Calls that are open at once. A worker takes 80 of each model; the rest is for many models, and
/// for calls that were cancelled and not yet confirmed.
pub(super) const CALLS_MAX: usize = 4_096;

/// Text of one event: what a long stop string holds back, with room.
const TEXT_SIZE_MAX: usize = 1 << 20;

/// A refusal's sentence fits a few lines; what is longer is cut.
const SENTENCE_LEN_MAX: usize = 600;

/// Alternatives of a token that a caller can ask for are fewer by far.
const TOP_MAX: usize = 256;

/// Numbers in a vector: no encoder has rows that are as long.
const VECTOR_LEN_MAX: usize = 1 << 20;

/// Room for the events of a window, and for the one that says that the process is gone.
const QUEUE_LEN: usize = EVENTS_AHEAD as usize + 1;

/// Something that no engine says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Violation {
    #[error("it speaks of call {}, which is not open", .0.0)]
    UnknownCall(CallId),

    #[error("it answers call {} with something else than was asked", .0.0)]
    WrongAnswer(CallId),

    #[error("it sends an event of call {} out of order", .0.0)]
    OutOfOrder(CallId),

    #[error("it sends more of call {} than was asked for or read", .0.0)]
    TooMuch(CallId),

    #[error("it says hello twice")]
    SecondHello,

    #[error("it does not say hello first")]
    NoHello,

    #[error("it speaks version {0} of the protocol")]
    Version(u32),

    #[error("it lists more than there can be")]
    ListTooLong,

    #[error("it sends what is no message: {0}")]
    Frame(#[from] FrameError),
}

/// A refusal in our own words.
pub(super) fn refuse(code: EngineRefusalCode, message: &str) -> EngineRefusal {
    EngineRefusal { code, message: message.to_owned() }
}

/// What a caller is told where the process did not say what was to be said.
pub(super) fn nonsense() -> EngineRefusal {
    refuse(EngineRefusalCode::Unavailable, "the engine process ended before it answered")
}

type Reply<T> = oneshot::Sender<Result<T, EngineRefusal>>;

/// What was asked, as far as the answer is checked by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Remove,
    AddAdapter,
    RemoveAdapter,
    Score,
    Embed,
}

enum Call {
    /// A question.
    Asked { kind: Kind, model: Option<Hash>, reply: Reply<Box<Answer>> },
    /// A sequence.
    Sequence(Box<Playing>),
    /// Nobody waits; its last word is still to come.
    Cancelled,
}

/// A sequence that is open.
struct Playing {
    model: Hash,
    stage: Stage,
    started: Option<Reply<()>>,
    events: mpsc::Sender<EngineEvent>,
    /// Events that were received and not said to be read.
    ahead: u32,
    prompt_tokens_max: u32,
    /// Tokens that may still come.
    tokens_left: u32,
    top_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Started,
    Prefilled,
}

/// What a sequence's caller holds: its events, and whether it began.
pub(super) struct Begun {
    pub(super) id: CallId,
    pub(super) events: mpsc::Receiver<EngineEvent>,
    pub(super) started: oneshot::Receiver<Result<(), EngineRefusal>>,
}

/// All calls that are open, and what is to be written.
#[derive(Default)]
pub(super) struct Calls {
    last: u64,
    open: BTreeMap<CallId, Call>,
    frames: VecDeque<Vec<u8>>,
    /// Why nothing can be asked now; none while there is a process.
    away: Option<EngineRefusal>,
}

/// The answer to a question, once it is there.
pub(super) type Answering = oneshot::Receiver<Result<Box<Answer>, EngineRefusal>>;

impl Calls {
    /// A question other than a sequence.
    pub(super) fn ask(&mut self, ask: Ask) -> Result<(CallId, Answering), EngineRefusal> {
        let (kind, model) = match &ask {
            Ask::Add(_) => (Kind::Add, None),
            Ask::Remove { .. } => (Kind::Remove, None),
            Ask::AddAdapter(_) => (Kind::AddAdapter, None),
            Ask::RemoveAdapter { .. } => (Kind::RemoveAdapter, None),
            Ask::Score(request) => (Kind::Score, Some(request.model)),
            Ask::Embed(request) => (Kind::Embed, Some(request.model)),
            Ask::Start(_) => return Err(nonsense()),
        };
        let id = self.send(ask)?;
        let (reply, answer) = oneshot::channel();
        self.open.insert(id, Call::Asked { kind, model, reply });
        Ok((id, answer))
    }

    /// A sequence.
    pub(super) fn start(&mut self, request: EngineRequest) -> Result<Begun, EngineRefusal> {
        let (sender, events) = mpsc::channel(QUEUE_LEN);
        let (reply, started) = oneshot::channel();
        let playing = Playing {
            model: request.model,
            stage: Stage::Asked,
            started: Some(reply),
            events: sender,
            ahead: 0,
            prompt_tokens_max: request.prompt_tokens_max,
            tokens_left: request.completion_tokens_max,
            top_max: usize::from(request.top_logprobs).saturating_add(1).min(TOP_MAX),
        };
        let id = self.send(Ask::Start(request))?;
        self.open.insert(id, Call::Sequence(Box::new(playing)));
        Ok(Begun { id, events, started })
    }

    fn send(&mut self, ask: Ask) -> Result<CallId, EngineRefusal> {
        if let Some(refusal) = &self.away {
            return Err(refusal.clone());
        }
        if self.open.len() >= CALLS_MAX {
            let message = format!("{CALLS_MAX} requests are under way already");
            return Err(refuse(EngineRefusalCode::Overloaded, &message));
        }
        self.last += 1;
        let call = CallId(self.last);
        let frame = frame::encode(&ToEngine::Ask { call, ask: Box::new(ask) });
        let frame = frame.map_err(|error| {
            let message = format!("the engine process cannot be asked this: {error}");
            refuse(EngineRefusalCode::InvalidPrompt, &message)
        })?;
        self.frames.push_back(frame);
        Ok(call)
    }

    /// The seed of a sequence, if it is open.
    pub(super) fn reveal(&mut self, call: CallId, seed: Seed32) {
        if matches!(self.open.get(&call), Some(Call::Sequence(_))) {
            self.say(&ToEngine::Reveal { call, seed });
        }
    }

    /// Events were read.
    pub(super) fn read(&mut self, call: CallId, count: u32) {
        if let Some(Call::Sequence(playing)) = self.open.get_mut(&call) {
            playing.ahead = playing.ahead.saturating_sub(count);
            self.say(&ToEngine::Read { call, count });
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn cancel(&mut self, call: CallId) {
        if let Some(open) = self.open.get_mut(&call)
            && !matches!(open, Call::Cancelled)
        {
            *open = Call::Cancelled;
            self.say(&ToEngine::Cancel { call });
        }
    }

    fn say(&mut self, message: &ToEngine) {
        match frame::encode(message) {
            Ok(frame) => self.frames.push_back(frame),
            Err(error) => tracing::error!(%error, "a message to the engine process is lost"),
        }
    }

    /// The next frame to write.
    pub(super) fn next_frame(&mut self) -> Option<Vec<u8>> {
        self.frames.pop_front()
    }

    /// Calls of a model that are open.
    pub(super) fn open(&self, model: &Hash) -> u32 {
        let is_of = |call: &&Call| match call {
            Call::Asked { model: of, .. } => of.as_ref() == Some(model),
            Call::Sequence(playing) => playing.model == *model,
            Call::Cancelled => false,
        };
        u32::try_from(self.open.values().filter(is_of).count()).unwrap_or(u32::MAX)
    }

    /// A process is there: questions are taken.
    pub(super) fn resume(&mut self) {
        self.away = None;
    }

    /// The process is gone, and all calls with it.
    pub(super) fn fail_all(&mut self, refusal: &EngineRefusal) {
        self.away = Some(refusal.clone());
        self.frames.clear();
        for call in std::mem::take(&mut self.open).into_values() {
            match call {
                Call::Asked { reply, .. } => drop(reply.send(Err(refusal.clone()))),
                Call::Sequence(playing) => playing.fail(refusal.clone()),
                Call::Cancelled => {}
            }
        }
    }

    /// An answer of the process.
    pub(super) fn answered(
        &mut self,
        id: CallId,
        answer: Result<Box<Answer>, EngineRefusal>,
    ) -> Result<(), Violation> {
        let answer = answer.map_err(|refusal| bounded(&refusal));
        let call = self.open.get_mut(&id).ok_or(Violation::UnknownCall(id))?;
        match (call, answer) {
            (Call::Sequence(playing), Ok(answer)) => {
                if playing.stage != Stage::Asked || *answer != Answer::Started {
                    return Err(Violation::WrongAnswer(id));
                }
                playing.stage = Stage::Started;
                if let Some(started) = playing.started.take() {
                    let _ = started.send(Ok(()));
                }
                return Ok(()); // Its events follow.
            }
            (Call::Sequence(playing), Err(_)) if playing.stage != Stage::Asked => {
                return Err(Violation::WrongAnswer(id));
            }
            // Events may follow until the cancellation is heard.
            (Call::Cancelled, Ok(answer)) if *answer == Answer::Started => return Ok(()),
            (Call::Asked { kind, .. }, Ok(answer)) if !fits(*kind, &answer) => {
                return Err(Violation::WrongAnswer(id));
            }
            (Call::Sequence(_) | Call::Cancelled | Call::Asked { .. }, answer) => {
                match (self.open.remove(&id), answer) {
                    (Some(Call::Asked { reply, .. }), answer) => drop(reply.send(answer)),
                    (Some(Call::Sequence(playing)), Err(refusal)) => playing.fail(refusal),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// An event of a sequence.
    pub(super) fn event(&mut self, id: CallId, event: EngineEvent) -> Result<(), Violation> {
        let call = self.open.get_mut(&id).ok_or(Violation::UnknownCall(id))?;
        let is_last = matches!(event, EngineEvent::Finished { .. } | EngineEvent::Failed(_));
        match call {
            Call::Asked { .. } => return Err(Violation::WrongAnswer(id)),
            Call::Cancelled => {}
            Call::Sequence(playing) => playing.hear(id, event)?,
        }
        if is_last {
            self.open.remove(&id);
        }
        Ok(())
    }

    /// A cancelled call is over.
    pub(super) fn over(&mut self, id: CallId) -> Result<(), Violation> {
        match self.open.remove(&id) {
            Some(Call::Cancelled) => Ok(()),
            Some(_) => Err(Violation::WrongAnswer(id)),
            None => Err(Violation::UnknownCall(id)),
        }
    }
}

impl Playing {
    fn hear(&mut self, id: CallId, event: EngineEvent) -> Result<(), Violation> {
        if self.ahead >= EVENTS_AHEAD {
            return Err(Violation::TooMuch(id));
        }
        let event = match (self.stage, event) {
            (Stage::Started | Stage::Prefilled, EngineEvent::Failed(refusal)) => {
                EngineEvent::Failed(bounded(&refusal))
            }
            (Stage::Started, EngineEvent::Prefilled { prompt, cached_tokens, tool_format }) => {
                let max = usize::try_from(self.prompt_tokens_max).unwrap_or(usize::MAX);
                if prompt.len() > max || cached_tokens as usize > prompt.len() {
                    return Err(Violation::TooMuch(id));
                }
                self.stage = Stage::Prefilled;
                EngineEvent::Prefilled { prompt, cached_tokens, tool_format }
            }
            (Stage::Prefilled, EngineEvent::Token(token)) => {
                let left = self.tokens_left.checked_sub(1);
                self.tokens_left = left.ok_or(Violation::TooMuch(id))?;
                if !is_token(&token, self.top_max) {
                    return Err(Violation::TooMuch(id));
                }
                EngineEvent::Token(token)
            }
            (Stage::Prefilled, EngineEvent::Finished { reason, text, compute_ms }) => {
                if text.len() > TEXT_SIZE_MAX {
                    return Err(Violation::TooMuch(id));
                }
                EngineEvent::Finished { reason, text, compute_ms }
            }
            (Stage::Asked | Stage::Started | Stage::Prefilled, _) => {
                return Err(Violation::OutOfOrder(id));
            }
        };
        self.ahead += 1;
        // It has room for the whole window; a caller that is gone says so by itself.
        let _ = self.events.try_send(event);
        Ok(())
    }

    /// The last word, in our own name.
    fn fail(mut self, refusal: EngineRefusal) {
        if let Some(started) = self.started.take()
            && started.send(Err(refusal.clone())).is_ok()
        {
            return;
        }
        let _ = self.events.try_send(EngineEvent::Failed(refusal));
    }
}

fn is_token(token: &Token, top_max: usize) -> bool {
    let is_short = |text: &String| text.len() <= TEXT_SIZE_MAX;
    is_short(&token.text)
        && token.top.len() <= top_max
        && token.top.iter().all(|it| is_short(&it.text))
}

fn fits(kind: Kind, answer: &Answer) -> bool {
    let is_score = |it: &Score| it.token.as_ref().is_none_or(|it| is_token(it, TOP_MAX));
    match (kind, answer) {
        (Kind::Add, Answer::Added(_))
        | (Kind::Remove, Answer::Removed(_))
        | (Kind::AddAdapter, Answer::Adapter(_))
        | (Kind::RemoveAdapter, Answer::AdapterRemoved) => true,
        (Kind::Score, Answer::Scores(scores)) => {
            scores.scores.len() <= scores.tokens.len()
                && scores.scores.iter().chain([&scores.next]).all(is_score)
        }
        (Kind::Embed, Answer::Vector(vector)) => {
            vector.values.len() <= VECTOR_LEN_MAX && vector.values.iter().all(|it| it.is_finite())
        }
        _ => false,
    }
}

/// A refusal's sentence as it may be shown: printable, and not without end.
fn bounded(refusal: &EngineRefusal) -> EngineRefusal {
    let printable = refusal.message.chars().filter(|it| !it.is_control());
    EngineRefusal { code: refusal.code, message: printable.take(SENTENCE_LEN_MAX).collect() }
}

#[cfg(test)]
mod tests;
