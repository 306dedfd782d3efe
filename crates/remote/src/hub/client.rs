//! One question to a place outside: its redirects, and what a refusal means.
//!
//! Which redirects are followed, and where a token goes, is said in `hub.rs`.
//!
//! Not here: what is asked, and what an answer means.

use std::sync::Arc;

use bytes::Bytes;
use commons_port::engine::Reach;
use commons_port::hub::OriginError;
use commons_port::time::Clock;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, HeaderValue, IF_RANGE, LOCATION, RANGE,
    RETRY_AFTER, USER_AGENT,
};
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use tokio_rustls::TlsConnector;

use super::HubLimits;
use super::place::{Place, PlaceError};
use crate::config::Trust;
use crate::fault::{Fault, words_of};
use crate::http::{
    AGENT, ERROR_SIZE_MAX, Reply, TlsError, connector, dial, encrypt, exchange, within,
};
use crate::secret::Key;

/// A busy place that does not say for how long, or says it in a form that is not read (a date).
const BUSY_MS: u64 = 30_000;

/// A header of a place is shown up to this many characters.
const HEADER_LEN_MAX: usize = 256;

/// Asks places outside.
pub(crate) struct Client {
    tls: TlsConnector,
    clock: Arc<dyn Clock>,
    limits: HubLimits,
}

/// A question.
#[derive(Debug, Clone)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) place: Place,
    /// What a person is told that it was about.
    pub(crate) what: &'a str,
    pub(crate) accept: &'static str,
    /// As in `Range`.
    pub(crate) range: Option<String>,
    /// As in `If-Range`.
    pub(crate) if_range: Option<String>,
    pub(crate) token: Option<&'a Key>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(place: Place, what: &'a str) -> Self {
        let (range, if_range, token) = (None, None, None);
        Self { method: Method::GET, place, what, accept: "*/*", range, if_range, token }
    }
}

/// What came, whether it is a success or not.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Who answered in the end.
    pub(crate) place: Place,
    /// Who redirected, and with which head.
    pub(crate) trail: Vec<(Place, HeaderMap)>,
}

impl Client {
    pub(crate) fn new(
        trust: &Trust,
        clock: Arc<dyn Clock>,
        limits: HubLimits,
    ) -> Result<Self, TlsError> {
        Ok(Self { tls: connector(trust)?, clock, limits })
    }

    pub(crate) const fn limits(&self) -> &HubLimits {
        &self.limits
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Asks, and follows what may be followed, up to a head that is no redirect.
    pub(crate) async fn send(&self, ask: &Ask<'_>) -> Result<Answer, OriginError> {
        let (mut place, mut token, mut nearest) = (ask.place.clone(), ask.token, Reach::Machine);
        let mut trail: Vec<(Place, HeaderMap)> = Vec::new();
        loop {
            let asked = self.once(ask, &place, token, nearest).await;
            let (reply, reach) = asked.map_err(|fault| told(&place, &fault, ask.token))?;
            let Some(location) = location_of(&reply) else {
                return Ok(Answer { reply, place, trail });
            };
            if trail.len() >= self.limits.redirects {
                let detail = format!("it redirects more than {} times", self.limits.redirects);
                return Err(OriginError::Refused { what: ask.what.to_owned(), detail });
            }
            let next = place.redirect(&location).map_err(|error| bad_redirect(&place, &error))?;
            if !next.is_at(place.address()) {
                token = None; // For good: whoever redirects back here is somebody else.
            }
            nearest = nearest.max(reach);
            trail.push((place, reply.headers));
            place = next;
        }
    }

    /// Asks, and reads the whole of a success.
    pub(crate) async fn whole(&self, ask: &Ask<'_>) -> Result<(Answer, Vec<u8>), OriginError> {
        let max = self.limits.listing;
        let host = ask.place.host();
        let detail = format!("it sent no whole answer within {} ms", max.0);
        let late = OriginError::Broken { host, detail };
        let work = async {
            let mut answer = self.send(ask).await?;
            if answer.reply.status != 200 {
                return Err(self.refusal(answer, ask).await);
            }
            let body = answer.reply.whole(self.limits.listing_bytes).await;
            let body = body.map_err(|fault| told(&answer.place, &fault, ask.token))?;
            Ok((answer, body))
        };
        within(self.clock.as_ref(), max, late, work).await
    }

    /// What an answer that is no success means.
    pub(crate) async fn refusal(&self, mut answer: Answer, ask: &Ask<'_>) -> OriginError {
        let max = self.limits.head;
        let reading = answer.reply.beginning(ERROR_SIZE_MAX);
        let body = within(self.clock.as_ref(), max, Fault::silent(max), reading).await;
        let words = words_of(&body.unwrap_or_default(), ask.token);
        let code = header(&answer.reply.headers, "x-error-code").unwrap_or_default();
        let (status, what, host) = (answer.reply.status, ask.what.to_owned(), answer.place.host());
        match (status, code.as_str()) {
            // The hub says the same of what is not there and of what is not shown to a stranger.
            (401 | 403 | 404, "RepoNotFound") => {
                OriginError::NotFound { what: format!("{what}, or it is private: it") }
            }
            (_, "RevisionNotFound") => {
                OriginError::NotFound { what: format!("the revision of {what}") }
            }
            (_, "EntryNotFound") => OriginError::NotFound { what: format!("the file of {what}") },
            (401 | 403, _) => OriginError::Unauthorised { what },
            (404 | 410, _) => OriginError::NotFound { what },
            (429 | 503, _) => OriginError::Busy { host, after_ms: wait(&answer.reply.headers) },
            (408 | 425 | 500.., _) => {
                OriginError::Broken { host, detail: format!("status {status}: {words}") }
            }
            _ => OriginError::Refused { what, detail: format!("{host} says {status}: {words}") },
        }
    }

    async fn once(
        &self,
        ask: &Ask<'_>,
        place: &Place,
        token: Option<&Key>,
        nearest: Reach,
    ) -> Result<(Reply, Reach), Fault> {
        let request = request(ask, place, token)?;
        let (clock, limits) = (self.clock.as_ref(), &self.limits);
        let late = || Fault::silent(limits.connect);
        let address = place.address();
        let (stream, reach) = within(clock, limits.connect, late(), dial(address, nearest)).await?;
        let reply = if address.is_tls() {
            let agreeing = encrypt(&self.tls, address, stream);
            let stream = within(clock, limits.connect, late(), agreeing).await?;
            let asking = exchange(TokioIo::new(stream), request);
            within(clock, limits.head, Fault::silent(limits.head), asking).await?
        } else {
            let asking = exchange(TokioIo::new(stream), request);
            within(clock, limits.head, Fault::silent(limits.head), asking).await?
        };
        Ok((reply, reach))
    }
}

fn request(
    ask: &Ask<'_>,
    place: &Place,
    token: Option<&Key>,
) -> Result<Request<Full<Bytes>>, Fault> {
    let mut request = Request::builder()
        .method(ask.method.clone())
        .uri(place.target())
        .header(HOST, place.host())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, ask.accept)
        // A file is hashed and resumed as it is, not as it was packed for the way.
        .header(ACCEPT_ENCODING, "identity");
    if let Some(range) = &ask.range {
        request = request.header(RANGE, range);
    }
    if let Some(etag) = &ask.if_range {
        request = request.header(IF_RANGE, etag);
    }
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&token.bearer())
            .map_err(|_| Fault::BrokeOff { reason: "the token is no header".to_owned() })?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let request = request.body(Full::new(Bytes::new()));
    request.map_err(|error| Fault::BrokeOff { reason: error.to_string() })
}

/// Where a reply redirects to; an empty text if it does not say.
fn location_of(reply: &Reply) -> Option<String> {
    let is_redirect = matches!(reply.status, 301 | 302 | 303 | 307 | 308);
    let location = || reply.headers.get(LOCATION).and_then(|it| it.to_str().ok());
    is_redirect.then(|| location().unwrap_or_default().to_owned())
}

fn bad_redirect(place: &Place, error: &PlaceError) -> OriginError {
    let what = format!("a redirect of {}", place.host());
    OriginError::Refused { what, detail: error.to_string() }
}

/// A fault of a connection as the port has it, without the token.
pub(crate) fn told(place: &Place, fault: &Fault, token: Option<&Key>) -> OriginError {
    let detail = match fault {
        Fault::Unreachable { reason } | Fault::BrokeOff { reason } => reason.clone(),
        other => format!("it {other}"),
    };
    let detail = token.map_or_else(|| detail.clone(), |it| it.redact(&detail));
    let host = place.host();
    match fault {
        Fault::TooFar { .. } | Fault::TooNear { .. } | Fault::TooLarge { .. } => {
            OriginError::Refused { what: host, detail }
        }
        Fault::Unreachable { .. } | Fault::Tls { .. } | Fault::Silent { .. } => {
            OriginError::Unreachable { host, detail }
        }
        _ => OriginError::Broken { host, detail },
    }
}

/// A header as text, if it is one and not a book.
pub(crate) fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (value.len() <= HEADER_LEN_MAX).then(|| value.to_owned())
}

/// For how long a busy place wants to be left alone: `Retry-After` in seconds, or the `t=` of
/// `RateLimit`, which Hugging Face sends with a 429.
fn wait(headers: &HeaderMap) -> u64 {
    let after = || header(headers, RETRY_AFTER.as_str())?.parse::<u32>().ok();
    let limit = || {
        let value = header(headers, "ratelimit")?;
        value.split(';').find_map(|it| it.trim().strip_prefix("t=")?.parse::<u32>().ok())
    };
    after().or_else(limit).map_or(BUSY_MS, |seconds| u64::from(seconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_place_says_how_long() {
        let check = |name: &'static str, value: &str, want: u64| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("is a header"));
            assert_eq!(wait(&headers), want, "{name}: {value}");
        };
        check("retry-after", "7", 7_000);
        check("retry-after", "4294967295", 4_294_967_295_000);
        check("retry-after", "-1", BUSY_MS);
        check("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", BUSY_MS);
        check("ratelimit", "\"api\";r=0;t=55", 55_000);
        check("server", "x", BUSY_MS);
    }

    /// A name that a public host redirects to may resolve to this machine: it is not connected to.
    #[tokio::test]
    async fn a_redirect_of_a_public_place_does_not_reach_this_machine() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let address = format!("http://127.0.0.1:{port}").parse().expect("is an address");
        for nearest in [Reach::Lan, Reach::Internet] {
            let refused = dial(&address, nearest).await.map(|_| ());
            assert!(matches!(refused, Err(Fault::TooNear { .. })), "{refused:?}");
        }
        assert!(dial(&address, Reach::Machine).await.is_ok());
        let (_, peer) = listener.accept().await.expect("the one that was allowed");
        assert!(peer.ip().is_loopback());
    }
}
