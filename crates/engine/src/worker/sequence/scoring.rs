//! A text that is judged: what the model thinks of each token, given those before it.

use commons_port::engine::{EngineRefusal, Score, ScoreRequest, Scores, Token};
use commons_verify::sampling::{Drawn, Replayed, SampleError, Sampler};
use futures::channel::oneshot;

use super::Seen;
use super::answering::{describe, stuck};
use crate::grammar::Guide;
use crate::model::Model;
use crate::worker::failed;

/// What judges the tokens of a text.
#[derive(Debug)]
pub(in crate::worker) struct Judge {
    sampler: Sampler,
    /// What the answer had to keep to.
    guide: Option<Guide>,
    /// Whether it did not: no grammar leads to what follows.
    is_astray: bool,
}

impl Judge {
    pub(in crate::worker) fn new(sampler: Sampler, guide: Option<Guide>) -> Self {
        Self { sampler, guide, is_astray: false }
    }

    /// What would be drawn at a place of the answer.
    fn draw(&mut self, place: u64, logits: &[f32]) -> Result<Drawn, EngineRefusal> {
        let guide = self.guide.as_mut().filter(|_| !self.is_astray);
        let allowed = guide.map(Guide::allowed).transpose().map_err(stuck)?;
        self.sampler.sample_within(place, logits, allowed).map_err(unusable)
    }

    /// How a token compares with that. One that was not allowed is infinitely far away, and so is
    /// whatever stands behind it.
    fn judge(
        &mut self,
        place: u64,
        logits: &[f32],
        id: u32,
    ) -> Result<(Replayed, Vec<(u32, i32)>), EngineRefusal> {
        let guide = self.guide.as_mut().filter(|_| !self.is_astray);
        let allowed = guide.map(Guide::allowed).transpose().map_err(stuck)?;
        self.is_astray |= allowed.is_some_and(|allowed| !allowed.contains(id));
        let allowed = allowed.filter(|_| !self.is_astray);
        let judged = self.sampler.judge_within(place, logits, id, allowed);
        let (mut replayed, top) = judged.map_err(unusable)?;
        match &mut self.guide {
            Some(_) if self.is_astray => replayed.margin = f64::INFINITY,
            Some(guide) => guide.push(id),
            None => {}
        }
        Ok((replayed, top))
    }
}

/// A text on its way.
#[derive(Debug)]
pub(in crate::worker) struct Scoring {
    tokens: Vec<u32>,
    /// The next token to judge: the logits before it come next.
    at: usize,
    from: usize,
    judge: Judge,
    is_replay: bool,
    scores: Vec<Score>,
    next: Option<(Score, bool)>,
    sender: Option<oneshot::Sender<Result<Scores, EngineRefusal>>>,
}

impl Scoring {
    pub(in crate::worker) fn new(
        request: &ScoreRequest,
        tokens: Vec<u32>,
        judge: Judge,
        sender: oneshot::Sender<Result<Scores, EngineRefusal>>,
    ) -> Self {
        let from = request.from as usize;
        let nothing_before = (from == 0).then_some(Score { token: None, margin: None });
        Self {
            tokens,
            at: from.max(1),
            from,
            judge,
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
        let logits = &seen.logits[..seen.logits.len().min(model.tokenizer().token_count())];
        let place = (self.at - self.from.min(self.at)) as u64;
        let Some(&id) = self.tokens.get(self.at) else {
            let drawn = self.judge.draw(place, logits)?;
            let ends = model.tokenizer().is_end(drawn.id);
            let score = Score { token: Some(token(model, drawn)), margin: None };
            self.next = Some((score, ends));
            return Ok(());
        };
        let (replayed, top) = self.judge.judge(place, logits, id)?;
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

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
fn unusable(error: SampleError) -> EngineRefusal {
    failed(format!("the model's output is unusable: {error}"))
}

fn token(model: &Model, drawn: Drawn) -> Token {
    let piece = model.tokenizer().piece(drawn.id).unwrap_or_default();
    let text = String::from_utf8_lossy(piece).into_owned();
    describe(model.tokenizer(), drawn, text)
}
