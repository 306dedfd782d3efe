//! Pipes of a child as the asynchronous streams of the ports, on the runtime of the caller.

use std::io;
use std::pin::Pin;
use std::process::{ChildStdin, ChildStdout};
use std::task::{Context, Poll};

use futures::io::{AsyncRead, AsyncWrite};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

/// What a child says.
#[derive(Debug)]
pub(crate) struct Reader(tokio::process::ChildStdout);

impl Reader {
    pub(crate) fn new(stdout: ChildStdout) -> io::Result<Self> {
        Ok(Self(tokio::process::ChildStdout::from_std(stdout)?))
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut filled = ReadBuf::new(buffer);
        let polled = Pin::new(&mut self.0).poll_read(ctx, &mut filled);
        polled.map_ok(|()| filled.filled().len())
    }
}

/// What a child is told.
#[derive(Debug)]
pub(crate) struct Writer(tokio::process::ChildStdin);

impl Writer {
    pub(crate) fn new(stdin: ChildStdin) -> io::Result<Self> {
        Ok(Self(tokio::process::ChildStdin::from_std(stdin)?))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(ctx)
    }

    fn poll_close(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(ctx)
    }
}
