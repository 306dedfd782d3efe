//! What the demonstration found out, as a table or as JSON.

use std::time::Duration;

use commons_record::{Hash, PeerId, RequestId};
use serde::Serialize;

use super::child::{Child, JoinTimes};
use super::millis;
use super::proof::Proof;
use super::question::Answer;
use crate::output::table;

/// Everything that was measured. Times are in milliseconds, from this one run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// The model's name.
    pub(super) model: String,
    /// Whether its weights are random.
    pub(super) is_noise: bool,
    /// The three nodes.
    pub(super) nodes: Vec<NodeRow>,
    /// From the start of the first node to the last receipt.
    pub(super) total_ms: u64,
}

/// One node and what it asked.
#[derive(Debug, Serialize)]
pub(super) struct NodeRow {
    node: &'static str,
    peer: PeerId,
    start_ms: u64,
    asked: Option<Asked>,
}

/// One question and its answer.
#[derive(Debug, Serialize)]
struct Asked {
    request: RequestId,
    served_by: PeerId,
    receipt: Hash,
    join_ms: u64,
    model_seen_ms: u64,
    first_token_ms: u64,
    completion_tokens: u32,
    /// After the first token; none if one token is all there is.
    tokens_per_s: Option<u64>,
    answer_ms: u64,
    verify_ms: u64,
}

impl NodeRow {
    pub(super) fn provider(child: &Child) -> Self {
        Self {
            node: child.name(),
            peer: child.ready.peer,
            start_ms: millis(child.start_time),
            asked: None,
        }
    }

    pub(super) fn asker(child: &Child, join: JoinTimes, answer: &Answer, proof: &Proof) -> Self {
        let decoding = answer.total.saturating_sub(answer.first_token);
        let asked = Asked {
            request: answer.proof.request,
            served_by: answer.peer,
            receipt: proof.receipt,
            join_ms: millis(join.joined),
            model_seen_ms: millis(join.model_seen),
            first_token_ms: millis(answer.first_token),
            completion_tokens: proof.completion_tokens,
            tokens_per_s: rate(proof.completion_tokens.saturating_sub(1), decoding),
            answer_ms: millis(answer.total),
            verify_ms: millis(proof.verify),
        };
        Self { asked: Some(asked), ..Self::provider(child) }
    }
}

fn rate(count: u32, time: Duration) -> Option<u64> {
    let micros = u64::try_from(time.as_micros()).ok().filter(|micros| *micros > 0)?;
    (count > 0).then(|| u64::from(count) * 1_000_000 / micros)
}

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    const HEAD: [&str; 9] = [
        "NODE",
        "START",
        "JOIN",
        "MODEL SEEN",
        "FIRST TOKEN",
        "TOKENS",
        "TOKEN/S",
        "ANSWER",
        "VERIFY",
    ];
    let ms = |count: u64| format!("{count} ms");
    let row = |node: &NodeRow| {
        let cell = |read: fn(&Asked) -> String| node.asked.as_ref().map_or("-".to_owned(), read);
        [
            node.node.to_owned(),
            ms(node.start_ms),
            cell(|it| format!("{} ms", it.join_ms)),
            cell(|it| format!("{} ms", it.model_seen_ms)),
            cell(|it| format!("{} ms", it.first_token_ms)),
            cell(|it| it.completion_tokens.to_string()),
            cell(|it| it.tokens_per_s.map_or("-".to_owned(), |rate| rate.to_string())),
            cell(|it| format!("{} ms", it.answer_ms)),
            cell(|it| format!("{} ms", it.verify_ms)),
        ]
    };
    let rows: Vec<_> = report.nodes.iter().map(row).collect();
    let noise = if report.is_noise { " (random weights: its text is noise)" } else { "" };
    format!(
        "\nmodel {}{noise}, held by A alone; every answer came over the mesh\n\n{}\n\n\
         both copies of both receipts verified offline; all in {} ms, and nothing is left behind",
        report.model,
        table(HEAD, &rows),
        report.total_ms
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_needs_time_and_tokens() {
        assert_eq!(rate(10, Duration::from_millis(500)), Some(20));
        assert_eq!(rate(10, Duration::ZERO), None);
        assert_eq!(rate(0, Duration::from_secs(1)), None);
    }
}
