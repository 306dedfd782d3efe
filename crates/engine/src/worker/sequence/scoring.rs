//! A text that is judged: what the model thinks of each token, given those before it.

use commons_port::engine::{EngineRefusal, Score, ScoreRequest, Scores, Token};
use commons_verify::sampling::{Drawn, Sampler};
use futures::channel::oneshot;

use super::Seen;
use super::answering::describe;
use crate::model::Model;
use crate::worker::failed;

/// A text on its way.
#[derive(Debug)]
pub(in crate::worker) struct Scoring {
    tokens: Vec<u32>,
    /// The next token to judge: the logits before it come next.
    at: usize,
    from: usize,
    sampler: Sampler,
    is_replay: bool,
    scores: Vec<Score>,
    next: Option<(Score, bool)>,
    sender: Option<oneshot::Sender<Result<Scores, EngineRefusal>>>,
}

impl Scoring {
    pub(in crate::worker) fn new(
        request: &ScoreRequest,
        tokens: Vec<u32>,
        sampler: Sampler,
        sender: oneshot::Sender<Result<Scores, EngineRefusal>>,
    ) -> Self {
        let from = request.from as usize;
        let nothing_before = (from == 0).then_some(Score { token: None, margin: None });
        Self {
            tokens,
            at: from.max(1),
            from,
            sampler,
            is_replay: request.replay.is_some(),
            scores: nothing_before.into_iter().collect(),
            next: None,
            sender: Some(sender),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_canceled)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.sender.is_none()
    }

    /// Takes in the logits behind a token.
    pub(super) fn judge(&mut self, model: &Model, seen: &Seen<'_>) -> Result<(), EngineRefusal> {
        // What was computed once more because its pages were needed is known already.
        if seen.position + 1 != self.at {
            return Ok(());
        }
        let unusable = |error| failed(format!("the model's output is unusable: {error}"));
        let logits = &seen.logits[..seen.logits.len().min(model.tokenizer().token_count())];
        let place = (self.at - self.from.min(self.at)) as u64;
        let Some(&id) = self.tokens.get(self.at) else {
            let drawn = self.sampler.sample(place, logits).map_err(unusable)?;
            let ends = model.tokenizer().is_end(drawn.id);
            let score = Score { token: Some(token(model, drawn)), margin: None };
            self.next = Some((score, ends));
            return Ok(());
        };
        let (replayed, top) = self.sampler.judge(place, logits, id).map_err(unusable)?;
        let drawn = Drawn { id, logprob_micro: replayed.logprob_micro, top };
        let margin = self.is_replay.then_some(replayed.margin);
        self.scores.push(Score { token: Some(token(model, drawn)), margin });
        self.at += 1;
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        let outcome = match self.next.take() {
            Some((next, next_ends)) => {
                let tokens = std::mem::take(&mut self.tokens);
                Ok(Scores { tokens, scores: std::mem::take(&mut self.scores), next, next_ends })
            }
            None => Err(failed("the text was not read to its end".to_owned())),
        };
        self.answer(outcome);
    }

    pub(super) fn fail(&mut self, refusal: EngineRefusal) {
        self.answer(Err(refusal));
    }

    fn answer(&mut self, outcome: Result<Scores, EngineRefusal>) {
        if let Some(sender) = self.sender.take() {
            // Nobody listens any more: then nobody misses it.
            let _ = sender.send(outcome);
        }
    }
}

fn token(model: &Model, drawn: Drawn) -> Token {
    let piece = model.tokenizer().piece(drawn.id).unwrap_or_default();
    let text = String::from_utf8_lossy(piece).into_owned();
    describe(model.tokenizer(), drawn, text)
}
