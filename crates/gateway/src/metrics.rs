//! Counters for the operator, in the Prometheus text format.
//!
//! Every label set is bounded: routes come from our own table, statuses and codes from our own
//! errors, never from a caller.

use std::fmt;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use commons_node::api::{Counters, NodeApi};
use commons_record::Millis;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::error::ErrorCode;
use crate::state::GatewayState;

/// From a cached local prompt to a long prompt on a slow machine, each about twice the last.
const FIRST_TOKEN_BUCKETS_S: [f64; 13] =
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// Stands for every path that is no route.
const NO_ROUTE: &str = "other";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// The gateway's own counters and, at each scrape, the node's.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    broken_answers: Family<CodeLabel, Counter>,
    answers_in_flight: Gauge,
    first_token_s: Histogram,
}

impl Metrics {
    pub(crate) fn new(node: Arc<dyn NodeApi>) -> Self {
        let mut registry = Registry::with_prefix("commons");
        let requests = Family::default();
        registry.register("http_requests", "Requests by route, status and code", requests.clone());
        let broken_answers = Family::default();
        registry.register(
            "answers_broken",
            "Answers that failed after they had begun, by code",
            broken_answers.clone(),
        );
        let answers_in_flight = Gauge::default();
        registry.register("answers_in_flight", "Answers in work", answers_in_flight.clone());
        let first_token_s = Histogram::new(FIRST_TOKEN_BUCKETS_S);
        registry.register(
            "first_token_seconds",
            "From the request to the first token",
            first_token_s.clone(),
        );
        registry.register_collector(Box::new(NodeCounters(node)));
        Self { registry, requests, broken_answers, answers_in_flight, first_token_s }
    }

    /// Counts an answer as in work until the guard is dropped.
    pub(crate) fn begin_answer(&self) -> InFlight {
        self.answers_in_flight.inc();
        InFlight(self.answers_in_flight.clone())
    }

    pub(crate) fn answer_broke(&self, code: &'static str) {
        self.broken_answers.get_or_create(&CodeLabel { code }).inc();
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds of an answer fit an f64")]
    pub(crate) fn first_token(&self, wait: Millis) {
        self.first_token_s.observe(wait.0 as f64 / 1_000.0);
    }

    fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// An answer in work.
#[derive(Debug)]
pub(crate) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// `GET /metrics`
pub(crate) async fn get_metrics(State(state): State<GatewayState>) -> Response {
    match state.metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(CONTENT_TYPE, kind)], text).into_response()
        }
        Err(fmt::Error) => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Counts a request once its status is known.
pub(crate) async fn count(
    State(state): State<GatewayState>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let route = path.as_ref().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let code = response.extensions().get::<ErrorCode>().map_or("ok", |code| code.0);
    tracing::debug!(route, status, code, "answered a request");
    state.metrics.requests.get_or_create(&RequestLabels { route, status, code }).inc();
    response
}

/// Reads the node's counters at each scrape.
struct NodeCounters(Arc<dyn NodeApi>);

impl fmt::Debug for NodeCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeCounters")
    }
}

impl Collector for NodeCounters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counters = self.0.counters();
        for (name, help, value) in table(&counters) {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(
                name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        let peers = ConstGauge::new(i64::try_from(counters.peers).unwrap_or(i64::MAX));
        let help = "Peers whose presence holds";
        peers.encode(encoder.encode_descriptor("peers", help, None, peers.metric_type())?)
    }
}

fn table(counters: &Counters) -> [(&'static str, &'static str, u64); 7] {
    [
        ("asks", "Requests that were asked of this node", counters.asks),
        ("asks_failed", "Of these, refused or failed", counters.asks_failed),
        ("orders_served", "Orders from peers that were served", counters.orders_served),
        ("orders_refused", "Orders from peers that were refused", counters.orders_refused),
        ("tokens_computed", "Tokens that this node computed", counters.tokens_computed),
        ("tokens_received", "Tokens received from peers", counters.tokens_received),
        ("records_stored", "Records that were made durable", counters.records_stored),
    ]
}
