//! One HTTP request on one connection: bounds on every wait, no redirects, no proxies.
//!
//! [`Http`] speaks to one foreign engine. The parts below it ([`dial`], [`encrypt`], [`exchange`],
//! [`within`]) are those of `hub::client` too, which follows redirects where this never does.
//!
//! A connection is made for a request and dropped with it: then a server sees at once that nobody
//! reads any more, which is the one way to cancel that all of them know. On loopback a connection
//! costs well under a millisecond, and an answer takes thousands.
//!
//! It is hyper, which the gateway stands on already, and not a client on top of it: those follow
//! redirects, read proxies from the environment and keep connections, and all of that would have
//! to be switched off.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use commons_port::BoxFuture;
use commons_port::engine::Reach;
use commons_port::time::Clock;
use commons_record::Millis;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::rt::{Read, Write};
use hyper::{HeaderMap, Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::address::{Address, reach_of};
use crate::config::{Limits, Trust};
use crate::fault::{Fault, RetryAfter, words_of};
use crate::secret::Key;

/// Headers, and a piece of a body: the largest headers of proxies in the wild have 32 KiB.
const BUFFER_SIZE: usize = 128 * 1024;

/// An error has a sentence in it, and not a book.
pub(crate) const ERROR_SIZE_MAX: usize = 16 * 1024;

/// Addresses of one name that are tried.
const ADDRS_MAX: usize = 8;

pub(crate) const AGENT: &str = concat!("commons/", env!("CARGO_PKG_VERSION"));

/// Why a client was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum TlsError {
    #[error(
        "this machine trusts no certificate ({detail}); name a file of certificates with `ca=FILE`"
    )]
    NoRoots { detail: String },

    #[error("a certificate that was named is none")]
    BadRoot(#[source] rustls::Error),

    #[error("TLS cannot be set up")]
    Setup(#[source] rustls::Error),
}

/// Speaks to one server.
pub(crate) struct Http {
    address: Address,
    key: Option<Key>,
    tls: Option<TlsConnector>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http").field("address", &self.address).finish_non_exhaustive()
    }
}

/// A response whose body is still to be read. Dropping it closes the connection.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    connection: Connection,
}

/// What moves the bytes of a connection: it must be polled beside whoever waits for them.
struct Connection(Option<BoxFuture<'static, ()>>);

impl Connection {
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if let Some(connection) = &mut self.0
                && connection.as_mut().poll(cx).is_ready()
            {
                self.0 = None;
            }
            // After the connection: its end is what makes the body's end known.
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl Http {
    pub(crate) fn new(
        address: Address,
        key: Option<Key>,
        trust: &Trust,
        clock: Arc<dyn Clock>,
        limits: Limits,
    ) -> Result<Self, TlsError> {
        let tls = address.is_tls().then(|| connector(trust)).transpose()?;
        Ok(Self { address, key, tls, clock, limits })
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_ref()
    }

    /// Waits no longer than this; `late` is what is wrong then.
    pub(crate) fn within<T>(
        &self,
        max: Millis,
        late: Fault,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> impl Future<Output = Result<T, Fault>> {
        // Not another `async`: each holds what it waits for once more.
        within(self.clock.as_ref(), max, late, work)
    }

    /// Asks for JSON and reads all of it.
    pub(crate) async fn get(&self, route: &str, size_max: usize) -> Result<Vec<u8>, Fault> {
        self.small(Method::GET, route, Vec::new(), size_max).await
    }

    /// Sends JSON and reads the whole answer.
    pub(crate) async fn post(&self, route: &str, body: Vec<u8>) -> Result<Vec<u8>, Fault> {
        self.small(Method::POST, route, body, ERROR_SIZE_MAX).await
    }

    async fn small(
        &self,
        method: Method,
        route: &str,
        body: Vec<u8>,
        size_max: usize,
    ) -> Result<Vec<u8>, Fault> {
        let max = self.limits.check;
        let work = async {
            let mut reply = self.send(method, route, body, max).await?;
            if reply.status != 200 {
                return Err(self.refused(&mut reply).await);
            }
            reply.whole(size_max).await
        };
        self.within(max, Fault::silent(max), work).await
    }

    /// What a response that is no success says.
    pub(crate) async fn refused(&self, reply: &mut Reply) -> Fault {
        let max = self.limits.check;
        let reading = self.within(max, Fault::silent(max), reply.beginning(ERROR_SIZE_MAX));
        let body = reading.await.unwrap_or_default();
        let words = words_of(&body, self.key());
        Fault::of_status(reply.status, reply.retry_after(), words)
    }

    /// Sends a request and waits for the head of the response.
    pub(crate) async fn send(
        &self,
        method: Method,
        route: &str,
        body: Vec<u8>,
        first_byte: Millis,
    ) -> Result<Reply, Fault> {
        let connect = self.limits.connect;
        let dialling = dial(&self.address, Reach::Machine);
        let (stream, _) = self.within(connect, Fault::silent(connect), dialling).await?;
        let request = self.request(method, route, body)?;
        let asking = async {
            match &self.tls {
                Some(tls) => {
                    let agreeing = encrypt(tls, &self.address, stream);
                    let stream = self.within(connect, Fault::silent(connect), agreeing).await?;
                    exchange(TokioIo::new(stream), request).await
                }
                None => exchange(TokioIo::new(stream), request).await,
            }
        };
        self.within(first_byte, Fault::silent(first_byte), asking).await
    }

    fn request(
        &self,
        method: Method,
        route: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        let broken = |error: hyper::http::Error| Fault::BrokeOff { reason: error.to_string() };
        let mut request = Request::builder()
            .method(method)
            .uri(self.address.path_to(route))
            .header(HOST, self.address.authority())
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "application/json, text/event-stream");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = &self.key {
            let mut value = HeaderValue::from_str(&key.bearer())
                .map_err(|_| Fault::BrokeOff { reason: "the key is no header".to_owned() })?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request.body(Full::new(Bytes::from(body))).map_err(broken)
    }
}

/// Waits no longer than this; `late` is what is wrong then.
pub(crate) async fn within<T, E>(
    clock: &dyn Clock,
    max: Millis,
    late: E,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let deadline = clock.now().saturating_add(max);
    tokio::select! {
        biased;
        result = work => result,
        () = clock.sleep_until(deadline) => Err(late),
    }
}

/// Connects to a host, no farther away than its address was declared to be and no nearer than
/// `nearest`, and says how far away it is.
pub(crate) async fn dial(address: &Address, nearest: Reach) -> Result<(TcpStream, Reach), Fault> {
    let unreachable = |error: std::io::Error| Fault::Unreachable { reason: error.to_string() };
    let host = (address.host(), address.port());
    let found: Vec<SocketAddr> =
        lookup_host(host).await.map_err(unreachable)?.take(ADDRS_MAX).collect();
    let mut fault = Fault::Unreachable { reason: "its name stands for no address".to_owned() };
    for addr in found {
        if !address.admits(addr.ip()) {
            fault = Fault::TooFar { ip: addr.ip() };
            continue;
        }
        let reach = reach_of(addr.ip());
        if reach < nearest {
            fault = Fault::TooNear { ip: addr.ip() };
            continue;
        }
        match TcpStream::connect(addr).await {
            Ok(stream) => {
                // Small requests must not wait for each other; without this they are slower.
                let _ = stream.set_nodelay(true);
                return Ok((stream, reach));
            }
            Err(error) => fault = unreachable(error),
        }
    }
    Err(fault)
}

/// Agrees on keys with the host that an address names.
pub(crate) async fn encrypt(
    tls: &TlsConnector,
    address: &Address,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Fault> {
    let name = ServerName::try_from(address.host().to_owned());
    let name = name.map_err(|error| Fault::Tls { reason: error.to_string() })?;
    tls.connect(name, stream).await.map_err(|error| Fault::Tls { reason: error.to_string() })
}

/// Sends a request and reads the head of the response.
pub(crate) async fn exchange<T>(stream: T, request: Request<Full<Bytes>>) -> Result<Reply, Fault>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let broke = |error: hyper::Error| Fault::BrokeOff { reason: chain(&error) };
    let mut builder = http1::Builder::new();
    builder.max_buf_size(BUFFER_SIZE);
    let (mut sender, connection) = builder.handshake(stream).await.map_err(broke)?;
    let running = async move {
        // Whoever reads the body is told what went wrong.
        let _ = connection.await;
    };
    let mut connection = Connection(Some(Box::pin(running)));
    let response: Response<Incoming> =
        connection.beside(sender.send_request(request)).await.map_err(broke)?;
    let (head, body) = response.into_parts();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body, connection })
}

impl Reply {
    /// The next piece of the body; none at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let frame = self.connection.beside(self.body.frame()).await;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| Fault::BrokeOff { reason: chain(&error) })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// The whole body, unless it is larger.
    pub(crate) async fn whole(&mut self, size_max: usize) -> Result<Vec<u8>, Fault> {
        let body = self.beginning(size_max + 1).await?;
        if body.len() > size_max { Err(Fault::TooLarge { max: size_max }) } else { Ok(body) }
    }

    /// The body's beginning.
    pub(crate) async fn beginning(&mut self, size_max: usize) -> Result<Vec<u8>, Fault> {
        let mut body = Vec::new();
        while let Some(piece) = self.chunk().await? {
            let room = size_max.saturating_sub(body.len());
            body.extend_from_slice(&piece[..piece.len().min(room)]);
            if body.len() >= size_max {
                break;
            }
        }
        Ok(body)
    }

    /// The media type, without what follows it.
    pub(crate) fn media_type(&self) -> String {
        let value = self.headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let media = value.unwrap_or_default().split(';').next().unwrap_or_default();
        media.trim().chars().take(60).collect::<String>().to_ascii_lowercase()
    }

    fn retry_after(&self) -> RetryAfter {
        let value = self.headers.get(RETRY_AFTER).and_then(|it| it.to_str().ok());
        RetryAfter(value.and_then(|it| it.trim().parse().ok()))
    }
}

/// An error with its causes: hyper's own words name none.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |it| it.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// TLS by ring, which the network below the mesh uses too.
pub(crate) fn connector(trust: &Trust) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::Machine => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let detail = found
                    .errors
                    .first()
                    .map_or_else(|| "none found".to_owned(), ToString::to_string);
                return Err(TlsError::NoRoots { detail });
            }
        }
        Trust::Only(certificates) => {
            for certificate in certificates {
                let certificate = CertificateDer::from(certificate.clone());
                roots.add(certificate).map_err(TlsError::BadRoot)?;
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
