//! Connections: accepted within bounds, served with HTTP/1.1, and ended in order.
//!
//! ```text
//! accept -- one of `connections_max` permits --> connection -> requests -> closed
//! shutdown: stop accepting -> answers in work may end for `drain_ms` -> the rest is dropped
//! ```
//!
//! A client that is slow on purpose is bounded at each step: its headers and the pause before
//! them by `header_ms`, its body by [`crate::GatewayConfig::body_timeout_ms`], its reading by
//! `stall_ms`. While all permits are out, new connections wait in the system's own short queue.

mod stall;

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use commons_record::Millis;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};

use stall::StallGuard;

/// Bounds on the connections of one listener.
#[derive(Debug, Clone)]
pub struct ServeLimits {
    /// Connections at once. Each can hold one request body: 128 of 2 MiB are 256 MiB at worst.
    pub connections_max: usize,
    /// A request's headers have arrived within this time of the last answer. It is also how long
    /// an idle connection is kept: longer than the pools of common clients do.
    pub header_ms: Millis,
    /// A client that takes nothing for this long is gone, or wants to hold the connection.
    pub stall_ms: Millis,
    /// How long answers in work may go on after a shutdown was asked for.
    pub drain_ms: Millis,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            header_ms: Millis::from_secs(30),
            stall_ms: Millis::from_secs(60),
            drain_ms: Millis::from_secs(10),
        }
    }
}

/// Headers of one request, and what is read ahead: browsers send 2 KiB, long cookies 8.
const HEADERS_SIZE_MAX: usize = 64 * 1024;

/// Accepting fails when the process is out of file descriptors: some will be closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the public API until `shutdown` completes and the connections are closed.
pub async fn serve_tcp(
    listener: TcpListener,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve(listener, router, limits, shutdown).await;
}

/// Serves the control socket until `shutdown` completes and the connections are closed.
pub async fn serve_unix(
    listener: UnixListener,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    serve(listener, router, limits, shutdown).await;
}

/// The two kinds of listener.
trait Listener: Send + Sync {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

impl Listener for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _peer) = TcpListener::accept(self).await?;
        // A token is a small packet that must not wait for the next one.
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Io = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _peer)| stream)
    }
}

async fn serve<L: Listener>(
    listener: L,
    router: Router,
    limits: ServeLimits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let mut shutdown = pin!(shutdown);
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let (closing, is_closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased; // A shutdown comes before a flood of connections.
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                note_end(ended);
                continue;
            }
            accepted = accept(&listener, &permits) => accepted,
        };
        let (io, permit) = accepted;
        let connection = Connection { limits: limits.clone(), is_closing: is_closing.clone() };
        connections.spawn(connection.run(io, router.clone(), permit));
    }
    drop(listener);
    closing.send_replace(true);
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    };
    if tokio::time::timeout(duration(limits.drain_ms), drain).await.is_err() {
        tracing::warn!(left = connections.len(), "closing connections with answers in work");
        connections.shutdown().await;
    }
}

/// The next connection, once there is room for it. Dropping the future loses none: a permit is
/// given back, and a connection stays in the system's queue until it is accepted.
async fn accept<L: Listener>(
    listener: &L,
    permits: &Arc<Semaphore>,
) -> (L::Io, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match listener.accept().await {
            Ok(io) => return (io, permit),
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Connection {
    limits: ServeLimits,
    is_closing: watch::Receiver<bool>,
}

impl Connection {
    async fn run<Io>(mut self, io: Io, router: Router, permit: OwnedSemaphorePermit)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(StallGuard::new(io, duration(self.limits.stall_ms)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(duration(self.limits.header_ms))
            .max_buf_size(HEADERS_SIZE_MAX)
            .serve_connection(io, TowerToHyperService::new(router));
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // The other side's doing: gone, too slow, or not speaking HTTP.
            tracing::debug!(%error, "a connection ended early");
        }
        drop(permit);
    }

    /// Completes when the listener shuts down, or is gone.
    async fn closing(&mut self) {
        if self.is_closing.wait_for(|is_closing| *is_closing).await.is_err() {
            tracing::debug!("the listener is gone");
        }
    }
}

fn note_end(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

fn duration(millis: Millis) -> Duration {
    Duration::from_millis(millis.0)
}
