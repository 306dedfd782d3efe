//! A small HTTP client over TCP, for the demonstration: it asks a node as any program would.
//!
//! Not here: TLS, redirects and connections that are kept: everything stays on this machine.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A node's events are a few KiB at most; a line beyond this is not one of ours.
const LINE_SIZE_MAX: usize = 1024 * 1024;

/// An error's body has a sentence in it, and not a book.
const ERROR_SIZE_MAX: usize = 64 * 1024;

/// A stream of server-sent events and the headers that came before it.
#[derive(Debug)]
pub(crate) struct EventStream {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    /// What has arrived and is not a whole line yet.
    pending: Vec<u8>,
    /// Stops the connection's task when the stream is dropped.
    _connection: JoinSet<()>,
}

/// Posts JSON and reads the answer as server-sent events. A refusal is an error with its text.
pub(crate) async fn post_for_events(
    addr: SocketAddr,
    path: &str,
    body: &serde_json::Value,
) -> anyhow::Result<EventStream> {
    let (response, connection) = post(addr, path, body).await?;
    let (head, mut body) = response.into_parts();
    if !head.status.is_success() {
        let text = error_text(&mut body).await;
        bail!("the node at {addr} answered {}: {text}", head.status);
    }
    Ok(EventStream { headers: head.headers, body, pending: Vec::new(), _connection: connection })
}

async fn post(
    addr: SocketAddr,
    path: &str,
    body: &serde_json::Value,
) -> anyhow::Result<(Response<Incoming>, JoinSet<()>)> {
    let stream = TcpStream::connect(addr).await;
    let stream = stream.with_context(|| format!("failed to connect to the node at {addr}"))?;
    stream.set_nodelay(true).context("failed to set up the connection")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            // Whoever reads the body is told too.
            tracing::debug!(%error, "the connection ended early");
        }
    });
    let request = Request::post(path)
        .header(HOST, addr.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(serde_json::to_vec(body)?)))?;
    let response = sender.send_request(request).await.context("the node did not answer")?;
    Ok((response, tasks))
}

/// The sentence in a refusal's body, or as much of the body as can be shown.
async fn error_text(body: &mut Incoming) -> String {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > ERROR_SIZE_MAX {
            break;
        }
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let message = value.pointer("/error/message").and_then(serde_json::Value::as_str);
    message.map_or_else(|| String::from_utf8_lossy(&bytes).into_owned(), str::to_owned)
}

impl EventStream {
    /// A header's value, if it is there and text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next event's data; none at the end of the stream. Comments are passed over.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8(line).context("the node sent what is not text")?;
                if let Some(data) = line.trim_end().strip_prefix("data: ") {
                    return Ok(Some(data.to_owned()));
                }
            }
            if self.pending.len() > LINE_SIZE_MAX {
                bail!("the node sent a line of over {LINE_SIZE_MAX} bytes");
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.context("the stream broke off")?;
            self.pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }
}
