//! Who is served next: a pure machine over the asks of many peers.
//!
//! ```text
//! Asked -> queue of its peer -> deficit round robin -> token bucket -> Serve -> Served
//! ```
//!
//! Peers are served in turn, each as many bytes as every other one while it has asks (M. Shreedhar
//! and G. Varghese, SIGCOMM 1995). A cap on all of them is a token bucket of whole numbers. Bytes
//! of any content count alike.
//!
//! # Invariants
//!
//! * S16: among peers that keep asking, none is served more than two pieces more than another one.
//! * S17: over any time, no more is served than the cap, a burst and one answer.
//! * Queues are bounded, for each peer and in all; what does not fit is refused at once.
//!
//! Not here: whether the bytes are held and may be given; reading and sending them.

use std::collections::{BTreeMap, VecDeque};

use commons_port::blobs::PIECE_LEN;
use commons_record::PeerId;

use crate::wire::AskId;

/// Asks of one peer that wait: its window for a few fetches at once.
pub const QUEUE_MAX: usize = 64;

/// Peers with asks that wait.
pub const PEERS_MAX: usize = 256;

/// Answers that are read and sent at a time: so many MiB of memory at most.
pub const SERVING_MAX: usize = 24;

/// Of these, to one peer: one is sent while the next one is read.
pub const SERVING_EACH_MAX: usize = 2;

/// What a peer is given at its turn: one piece.
const QUANTUM: u64 = PIECE_LEN as u64;

/// A cap lets so much of itself be saved up while nobody asks.
const BURST_MS: u64 = 250;

/// An answer that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// To whom.
    pub peer: PeerId,
    /// The stream of that peer, where it has several.
    pub stream: u64,
    /// To which ask.
    pub ask: AskId,
    /// How many bytes.
    pub len: u32,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A peer asks.
    Asked(Job),
    /// A peer does not want an answer any more. One that is being sent goes on.
    Cancelled {
        /// The peer.
        peer: PeerId,
        /// Its stream.
        stream: u64,
        /// The ask.
        ask: AskId,
    },
    /// A stream is gone, and its asks with it.
    Gone {
        /// The peer.
        peer: PeerId,
        /// Its stream.
        stream: u64,
    },
    /// An answer was sent, or given up.
    Served {
        /// To whom.
        peer: PeerId,
    },
    /// From now on so many bytes per second in all; `None` for as many as there are.
    Cap(Option<u64>),
    /// Time passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send this answer, then say [`Input::Served`].
    Serve(Job),
    /// Too much of this peer waits, or too many peers do.
    Refuse(Job),
    /// Say [`Input::Tick`] at this time.
    Wake(u64),
}

/// The machine.
#[derive(Debug, Default)]
pub struct Upload {
    queues: BTreeMap<PeerId, Queue>,
    /// Peers with asks that wait, in the order of their turns.
    turns: VecDeque<PeerId>,
    serving: usize,
    bucket: Option<Bucket>,
    wake_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Bytes that it may be given before its turn ends.
    deficit: u64,
    serving: usize,
}

/// Tokens are thousandths of a byte, so that a millisecond of any rate is a whole number.
#[derive(Debug)]
struct Bucket {
    per_s: u64,
    tokens: i128,
    at: u64,
}

impl Bucket {
    fn refill(&mut self, now: u64) {
        let elapsed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        let full = i128::from(self.per_s) * i128::from(BURST_MS);
        self.tokens = (self.tokens + i128::from(self.per_s) * i128::from(elapsed)).min(full);
    }

    /// When something may be served again; `None` for now. An answer may leave a debt behind.
    fn wait(&self) -> Option<u64> {
        let owed = u64::try_from(-self.tokens).ok().filter(|owed| *owed > 0)?;
        Some(self.at + owed.div_ceil(self.per_s.max(1)))
    }
}

impl Upload {
    /// Nobody asks, and there is no cap.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pure and total: every input has an outcome in every state. `now` is in milliseconds.
    pub fn step(&mut self, now: u64, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        match input {
            Input::Asked(job) => {
                if !self.enter(job) {
                    out.push(Output::Refuse(job));
                }
            }
            Input::Cancelled { peer, stream, ask } => {
                self.drop_jobs(peer, |it| it.stream == stream && it.ask == ask);
            }
            Input::Gone { peer, stream } => self.drop_jobs(peer, |it| it.stream == stream),
            Input::Served { peer } => self.served(peer),
            Input::Cap(per_s) => {
                self.bucket = per_s.map(|per_s| Bucket { per_s, tokens: 0, at: now });
            }
            Input::Tick => {}
        }
        self.serve(now, &mut out);
        out
    }

    /// How many asks wait.
    pub fn waiting(&self) -> usize {
        self.queues.values().map(|it| it.jobs.len()).sum()
    }

    /// How many answers are being sent.
    pub const fn serving(&self) -> usize {
        self.serving
    }

    fn enter(&mut self, job: Job) -> bool {
        let is_known = self.queues.contains_key(&job.peer);
        if !is_known && self.queues.len() == PEERS_MAX {
            return false;
        }
        let queue = self.queues.entry(job.peer).or_default();
        if queue.jobs.len() == QUEUE_MAX {
            return false;
        }
        if queue.jobs.is_empty() {
            self.turns.push_back(job.peer);
        }
        queue.jobs.push_back(job);
        true
    }

    fn drop_jobs(&mut self, peer: PeerId, is_over: impl Fn(&Job) -> bool) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        let had = !queue.jobs.is_empty();
        queue.jobs.retain(|it| !is_over(it));
        if had && queue.jobs.is_empty() {
            queue.deficit = 0;
            self.turns.retain(|it| *it != peer);
        }
        self.tidy(peer);
    }

    fn served(&mut self, peer: PeerId) {
        let Some(queue) = self.queues.get_mut(&peer) else { return };
        if queue.serving > 0 {
            queue.serving -= 1;
            self.serving -= 1;
        }
        self.tidy(peer);
    }

    fn tidy(&mut self, peer: PeerId) {
        let is_over = |it: &Queue| it.jobs.is_empty() && it.serving == 0;
        if self.queues.get(&peer).is_some_and(is_over) {
            self.queues.remove(&peer);
        }
    }

    fn serve(&mut self, now: u64, out: &mut Vec<Output>) {
        if let Some(bucket) = &mut self.bucket {
            bucket.refill(now);
        }
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
        }
        // Turns in a row at which nobody could be served. The largest answer takes two quanta, so
        // twice round it is over.
        let mut idle = 0;
        while self.serving < SERVING_MAX && idle < 2 * self.turns.len() {
            if let Some(at) = self.bucket.as_ref().and_then(Bucket::wait) {
                if self.wake_at.is_none_or(|before| at < before) {
                    self.wake_at = Some(at);
                    out.push(Output::Wake(at));
                }
                return;
            }
            match self.turn() {
                Some(job) => {
                    idle = 0;
                    if let Some(bucket) = &mut self.bucket {
                        bucket.tokens -= i128::from(job.len) * 1000;
                    }
                    out.push(Output::Serve(job));
                }
                None => idle += 1,
            }
        }
    }

    /// The peer at the front has its turn: one answer, or the next peer's turn.
    fn turn(&mut self) -> Option<Job> {
        let peer = *self.turns.front()?;
        let queue = self.queues.get_mut(&peer)?;
        let len = queue.jobs.front().map_or(0, |it| u64::from(it.len));
        if queue.serving == SERVING_EACH_MAX {
            self.turns.rotate_left(1);
            return None;
        }
        if queue.deficit < len {
            queue.deficit += QUANTUM;
            if queue.deficit < len {
                self.turns.rotate_left(1);
                return None;
            }
        }
        let job = queue.jobs.pop_front()?;
        queue.deficit -= len;
        queue.serving += 1;
        self.serving += 1;
        let next = queue.jobs.front().map(|it| u64::from(it.len));
        match next {
            None => {
                queue.deficit = 0;
                self.turns.pop_front();
            }
            Some(next) if queue.deficit < next => self.turns.rotate_left(1),
            Some(_) => {}
        }
        Some(job)
    }
}

#[cfg(test)]
mod tests;
