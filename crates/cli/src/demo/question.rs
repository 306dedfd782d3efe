//! A question to a node over HTTP, told as its answer comes, with times.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use commons_node::api::AnswerProof;
use commons_record::PeerId;

use super::child::Child;
use super::{Config, Story};
use crate::answer::{Event, read};
use crate::http::post_for_events;
use crate::runtime::Stopwatch;

/// An answer and its times, from the moment before the connection was opened.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) peer: PeerId,
    pub(super) proof: AnswerProof,
    pub(super) first_token: Duration,
    pub(super) total: Duration,
}

/// Asks, and tells the text as it comes.
pub(super) async fn ask(
    asker: &Child,
    model: &str,
    config: &Config,
    story: &mut Story<'_, '_>,
) -> anyhow::Result<Answer> {
    let body = serde_json::json!({
        "model": model,
        "prompt": config.prompt,
        "max_tokens": config.max_tokens,
        "temperature": 0,
        "stream": true,
    });
    let watch = Stopwatch::start();
    let mut events = post_for_events(asker.api()?, "/v1/completions", &body).await?;
    let peer = events.header("x-commons-peer").context("the response does not say who serves")?;
    let peer: PeerId = peer.parse().context("the response says who serves in unknown words")?;
    story.piece(&format!("  {}", config.prompt))?;
    let mut first_token = None;
    let proof = loop {
        let event = events.next().await?.context("the stream ended before the answer did")?;
        match read(&event)? {
            Event::Text(text) => {
                first_token.get_or_insert_with(|| watch.elapsed());
                story.piece(&text.replace('\n', "\n  "))?;
            }
            Event::Finished(finish) => break finish.proof,
            Event::Done => bail!("the answer ended without saying who gave it"),
            Event::Other => {}
        }
    };
    let total = watch.elapsed();
    story.say("")?;
    ensure!(proof.peer == peer, "the header and the body name different nodes");
    let first_token = first_token.context("the answer is empty")?;
    Ok(Answer { peer, proof, first_token, total })
}
