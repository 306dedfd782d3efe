//! A text that becomes one vector: rows are gathered as they are computed.

use commons_port::engine::{EmbeddingVector, EngineRefusal, Pooling};
use futures::channel::oneshot;

use super::Seen;
use crate::worker::failed;

/// A text on its way.
#[derive(Debug)]
pub(in crate::worker) struct Embedding {
    pooling: Pooling,
    token_count: usize,
    /// The next token whose row is wanted.
    at: usize,
    /// The sum of the rows, or the one that counts.
    pooled: Vec<f64>,
    sender: Option<oneshot::Sender<Result<EmbeddingVector, EngineRefusal>>>,
}

impl Embedding {
    pub(in crate::worker) fn new(
        pooling: Pooling,
        token_count: usize,
        sender: oneshot::Sender<Result<EmbeddingVector, EngineRefusal>>,
    ) -> Self {
        Self { pooling, token_count, at: 0, pooled: Vec::new(), sender: Some(sender) }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_canceled)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.sender.is_none()
    }

    /// Takes in the row of a token.
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        // What was computed once more because its pages were needed is known already.
        if seen.position != self.at {
            return;
        }
        let row = seen.hidden.iter().map(|&value| f64::from(value));
        match self.pooling {
            Pooling::Mean if self.at > 0 => {
                self.pooled.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
            }
            Pooling::Cls if self.at > 0 => {}
            Pooling::Mean | Pooling::Cls | Pooling::Last => self.pooled = row.collect(),
        }
        self.at += 1;
    }

    pub(super) fn finish(&mut self) {
        let outcome = if self.at < self.token_count {
            Err(failed("the text was not read to its end".to_owned()))
        } else {
            self.vector()
        };
        self.answer(outcome);
    }

    /// What was pooled, divided by its length: the mean and the sum point the same way.
    fn vector(&self) -> Result<EmbeddingVector, EngineRefusal> {
        let length = self.pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
        if !(length.is_finite() && length > 0.0) {
            return Err(failed("the model's output is unusable: it has no direction".to_owned()));
        }
        #[expect(clippy::cast_possible_truncation, reason = "rounded to what callers take")]
        let values = self.pooled.iter().map(|value| (value / length) as f32).collect();
        let token_count = u32::try_from(self.token_count).unwrap_or(u32::MAX);
        Ok(EmbeddingVector { values, token_count })
    }

    pub(super) fn fail(&mut self, refusal: EngineRefusal) {
        self.answer(Err(refusal));
    }

    fn answer(&mut self, outcome: Result<EmbeddingVector, EngineRefusal>) {
        if let Some(sender) = self.sender.take() {
            // Nobody listens any more: then nobody misses it.
            let _ = sender.send(outcome);
        }
    }
}
