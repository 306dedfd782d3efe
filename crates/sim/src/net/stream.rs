//! A stream between two nodes: two pipes of ordered bytes with back-pressure.
//!
//! ```text
//! write -> in flight (bandwidth, latency, loss = delay) -> arrived -> read
//!          \_________ at most WINDOW bytes together _________/
//! ```
//!
//! Closing sends an end that arrives after the bytes. Dropping without it sends a reset, which
//! overtakes bytes in flight and may take arrived bytes with it, as the seed decides. After
//! dropping, the peer's writes fail. Reads are sometimes shorter than what is there.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};

use super::Fabric;
use crate::clock::Micros;
use crate::entropy::Rng;
use crate::life::{Life, NodeId};
use crate::lock;

/// Bytes that a writer can be ahead of its reader.
pub const WINDOW: usize = 64 * 1024;

/// A write takes at most this much: long writes come in parts, as over a real transport.
const PART_MAX: usize = 16 * 1024;

/// How long a stream stalls when a packet is lost.
const RESEND: Micros = Micros::from_millis(250);

/// Reads out of a hundred that return less than there is.
const SHORT_READS: u64 = 20;

/// A stream's number in the fabric.
pub(super) type StreamId = u64;

/// Which end of a stream: 0 opened it.
pub(super) type End = usize;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) ends: [NodeId; 2],
    /// Pipe `i` carries what end `i` writes.
    pipes: [Pipe; 2],
    is_held: [bool; 2],
}

#[derive(Debug, Default)]
struct Pipe {
    in_flight: VecDeque<Item>,
    arrived: VecDeque<u8>,
    /// In flight and arrived together.
    used: usize,
    /// When the last thing written arrives: the next arrives no earlier.
    last: Micros,
    write: Half,
    read: Half,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// A pipe as one of its ends sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Half {
    #[default]
    Open,
    /// By the writer's wish: it closed, or the reader saw the end.
    Ended,
    /// Without it.
    Reset,
}

#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    End,
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Stream {
    pub(super) fn new(ends: [NodeId; 2]) -> Self {
        Self { ends, pipes: Default::default(), is_held: [true; 2] }
    }

    /// Breaks both directions for both ends. Bytes that arrived may be lost or not.
    pub(super) fn kill(&mut self, rng: &mut Rng) {
        for pipe in &mut self.pipes {
            pipe.reset_for_reader(rng);
            pipe.reset_for_writer();
        }
    }

    /// What `end` of the stream sees when the other end went away without a word.
    pub(super) fn kill_end(&mut self, end: End, rng: &mut Rng) {
        self.pipes[1 - end].reset_for_reader(rng);
        self.pipes[end].reset_for_writer();
    }

    pub(super) fn release(&mut self, end: End) {
        self.is_held[end] = false;
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.is_held == [false; 2]
    }

    fn arrive(&mut self, end: End) {
        let is_read = self.is_held[1 - end];
        let pipe = &mut self.pipes[end];
        match pipe.in_flight.pop_front() {
            Some(Item::Bytes(bytes)) if is_read => pipe.arrived.extend(bytes),
            Some(Item::Bytes(bytes)) => pipe.used -= bytes.len(),
            Some(Item::End) => pipe.read = Half::Ended,
            None => {}
        }
        wake(&mut pipe.reader);
    }
}

impl Pipe {
    fn reset_for_reader(&mut self, rng: &mut Rng) {
        self.in_flight.clear();
        if self.read != Half::Ended {
            self.read = Half::Reset;
            if rng.chance(500) {
                self.arrived.clear();
            }
        }
        wake(&mut self.reader);
    }

    fn reset_for_writer(&mut self) {
        if self.write == Half::Open {
            self.write = Half::Reset;
        }
        wake(&mut self.writer);
    }

    fn read(&mut self, buffer: &mut [u8], rng: &mut Rng) -> Option<io::Result<usize>> {
        if !self.arrived.is_empty() && !buffer.is_empty() {
            let mut count = buffer.len().min(self.arrived.len());
            if rng.below(100) < SHORT_READS {
                count = rng.index(count) + 1;
            }
            for (slot, byte) in buffer.iter_mut().zip(self.arrived.drain(..count)) {
                *slot = byte;
            }
            self.used = self.used.saturating_sub(count);
            wake(&mut self.writer);
            return Some(Ok(count));
        }
        if self.read == Half::Reset {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        (self.read == Half::Ended || buffer.is_empty()).then_some(Ok(0))
    }
}

/// One end of a stream, held by a run of a node.
pub(super) struct SimStream {
    fabric: Arc<Fabric>,
    life: Arc<Life>,
    id: StreamId,
    end: End,
}

impl SimStream {
    pub(super) fn new(fabric: Arc<Fabric>, life: Arc<Life>, id: StreamId, end: End) -> Self {
        Self { fabric, life, id, end }
    }
}

impl Fabric {
    /// Puts something into `end`'s pipe and sends it on its way.
    fn send(self: &Arc<Self>, id: StreamId, end: End, item: Item) {
        let size = match &item {
            Item::Bytes(bytes) => bytes.len() as u64,
            Item::End => 0,
        };
        let (from, to, at) = {
            let mut state = lock(&self.state);
            let state = &mut *state;
            let Some(stream) = state.streams.get_mut(&id) else { return };
            let (from, to) = (stream.ends[end], stream.ends[1 - end]);
            let link = state.links.link(from, to);
            let mut delay = Micros(size.saturating_mul(1_000_000) / link.bytes_per_s.max(1));
            if state.rng.chance(link.loss_per_mille) {
                delay = delay.plus(RESEND);
            }
            let jitter = Micros(state.rng.within(0, link.jitter.0));
            let pipe = &mut stream.pipes[end];
            // Bandwidth is shared by what is behind each other: parts queue up.
            let earliest = self.executor.now().plus(link.latency).plus(jitter);
            pipe.last = pipe.last.max(earliest).plus(delay);
            pipe.in_flight.push_back(item);
            (from, to, pipe.last)
        };
        self.transmit(from, to, at, move |fabric| {
            if let Some(stream) = lock(&fabric.state).streams.get_mut(&id) {
                stream.arrive(end);
            }
        });
    }

    /// Tells the other end that `end` is gone: with a reset, unless it had closed its half.
    fn abort(self: &Arc<Self>, id: StreamId, end: End) {
        let (from, to, is_closed) = {
            let mut state = lock(&self.state);
            let Some(stream) = state.streams.get_mut(&id) else { return };
            stream.release(end);
            let told =
                (stream.ends[end], stream.ends[1 - end], stream.pipes[end].write == Half::Ended);
            if stream.is_abandoned() {
                state.remove_stream(id);
                return;
            }
            told
        };
        let at = self.executor.now().plus(lock(&self.state).links.link(from, to).latency);
        self.transmit(from, to, at, move |fabric| {
            let mut state = lock(&fabric.state);
            let state = &mut *state;
            let Some(stream) = state.streams.get_mut(&id) else { return };
            if !is_closed {
                stream.pipes[end].reset_for_reader(&mut state.rng);
            }
            stream.pipes[1 - end].reset_for_writer();
            fabric.log.note(Some(to), "stream.gone", format_args!("s{id} by {from}"));
        });
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.fabric.state);
        let state = &mut *state;
        let gone = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        let Some(stream) = state.streams.get_mut(&self.id) else { return gone() };
        let pipe = &mut stream.pipes[1 - self.end];
        if let Some(result) = pipe.read(buffer, &mut state.rng) {
            return Poll::Ready(result);
        }
        pipe.reader = Some(ctx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let failed = |kind: io::ErrorKind| Poll::Ready(Err(kind.into()));
        let count = {
            let mut state = lock(&self.fabric.state);
            let gone = io::ErrorKind::ConnectionReset;
            let Some(stream) = state.streams.get_mut(&self.id) else { return failed(gone) };
            let pipe = &mut stream.pipes[self.end];
            if pipe.write == Half::Ended {
                return failed(io::ErrorKind::BrokenPipe);
            }
            if pipe.write == Half::Reset || !self.life.is_alive() {
                return failed(gone);
            }
            let count = bytes.len().min(PART_MAX).min(WINDOW.saturating_sub(pipe.used));
            if count == 0 && !bytes.is_empty() {
                pipe.writer = Some(ctx.waker().clone());
                return Poll::Pending;
            }
            pipe.used += count;
            count
        };
        if count > 0 {
            self.fabric.send(self.id, self.end, Item::Bytes(bytes[..count].to_vec()));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut state = lock(&self.fabric.state);
            let gone = || Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            let Some(stream) = state.streams.get_mut(&self.id) else { return gone() };
            let pipe = &mut stream.pipes[self.end];
            if pipe.write == Half::Ended {
                return Poll::Ready(Ok(()));
            }
            if pipe.write == Half::Reset || !self.life.is_alive() {
                return gone();
            }
            pipe.write = Half::Ended;
        }
        self.fabric.send(self.id, self.end, Item::End);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        // What a crashed run leaves behind is cleaned up by the crash.
        if self.life.is_alive() {
            self.fabric.abort(self.id, self.end);
        }
    }
}
