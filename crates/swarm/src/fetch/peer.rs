//! One peer of a fetch: what it holds, how fast it is, and how long it must rest.

use commons_port::blobs::PIECE_LEN;
use commons_record::PeerId;

use super::bits::Bitmap;
use super::{Nearness, Target};

/// Asks that one peer is given at a time.
pub(super) const WINDOW_MAX: u64 = 16;

/// A peer that owes bytes and sends none for so long has lost its asks; longer each time.
const SILENCE_MS: u64 = 8_000;

/// A peer that brings nothing to its end for so long has lost its asks: 17 KiB/s for a piece.
const SLOW_MS: u64 = 60_000;

/// The first rest after a failure; twice as long each time.
const REST_MS: u64 = 500;

/// No rest is longer, so that a peer that came back is asked soon.
const REST_MAX_MS: u64 = 60_000;

/// Failures beyond this make nothing longer.
const FAILURES_MAX: u32 = 7;

/// A rate is measured over at least so long: clocks of a millisecond are coarse.
const PERIOD_MS: u64 = 20;

/// What a peer refused, and is not asked again for a while. The oldest is forgotten first.
const REFUSED_MAX: usize = 16;

/// What a peer holds.
#[derive(Debug, Clone)]
pub(super) enum Holds {
    Nothing,
    Some(Bitmap),
    Whole,
}

impl Holds {
    pub(super) fn has(&self, piece: u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(bits) => bits.has(piece),
            Self::Whole => true,
        }
    }

    /// The pieces of word `at`; beyond the blob's end bits may be set.
    pub(super) fn word(&self, at: u64) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Some(bits) => bits.word(at),
            Self::Whole => u64::MAX,
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Some(bits) => bits.ones() == 0,
            Self::Whole => false,
        }
    }
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) near: Nearness,
    pub(super) holds: Holds,
    /// It fetches the same blob, and will have more of it.
    pub(super) is_fetching: bool,
    /// When it last said that it holds more.
    pub(super) news_at: u64,
    /// Asks that it owes.
    pub(super) asks: u64,
    /// Nothing was found to ask of it at this version of what is wanted, and until when that
    /// need not be looked at again.
    pub(super) idle: Option<(u64, u64)>,
    /// Sixteenths of a byte per millisecond; 0 before anything came.
    rate: u64,
    period: Period,
    /// From ask to last byte, where nothing else was under way; in milliseconds.
    latency: Option<u64>,
    /// When a byte last came, or the first ask was sent.
    heard_at: u64,
    /// When an ask last ended, or the first was sent.
    front_at: u64,
    failures: u32,
    rests_until: u64,
    refused: Vec<(Target, u64)>,
}

/// What came in the time in which something was owed.
#[derive(Debug, Default)]
struct Period {
    began: u64,
    idle_at: u64,
    bytes: u64,
}

impl Peer {
    pub(super) fn new(id: PeerId, near: Nearness, now: u64) -> Self {
        Self {
            id,
            near,
            holds: Holds::Nothing,
            is_fetching: false,
            news_at: now,
            asks: 0,
            idle: None,
            rate: 0,
            period: Period { began: now, idle_at: now, bytes: 0 },
            latency: None,
            heard_at: now,
            front_at: now,
            failures: 0,
            rests_until: 0,
            refused: Vec::new(),
        }
    }

    /// Bytes per second, as far as is known.
    pub(super) const fn rate_per_s(&self) -> u64 {
        self.rate * 1000 / 16
    }

    /// How many asks it is given at a time: about two round trips of work.
    pub(super) fn window(&self) -> u64 {
        if self.failures > 0 {
            return 1; // One ask shows whether it has recovered.
        }
        let Some(latency) = self.latency.filter(|_| self.rate > 0) else {
            return match self.near {
                Nearness::SameHost | Nearness::Lan => 4,
                Nearness::Wan => 2,
                Nearness::Relayed => 1,
            };
        };
        let work = (2 * latency).saturating_mul(self.rate) / 16;
        work.div_ceil(u64::from(PIECE_LEN)).clamp(1, WINDOW_MAX)
    }

    /// How long it takes to bring `len` bytes; `None` before that is known.
    pub(super) fn time_for(&self, len: u32) -> Option<u64> {
        (self.rate > 0).then(|| u64::from(len) * 16 / self.rate + self.latency.unwrap_or(0))
    }

    pub(super) fn rests(&self, now: u64) -> bool {
        now < self.rests_until
    }

    /// How often it failed lately.
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether others may wait for it to bring what it holds.
    pub(super) fn is_reliable(&self, now: u64) -> bool {
        self.failures == 0 && !self.rests(now)
    }

    /// Whether it may be given one more ask.
    pub(super) fn has_room(&self, now: u64) -> bool {
        !self.rests(now) && !self.holds.is_nothing() && self.asks < self.window()
    }

    /// An ask is sent; whether it is the only one.
    pub(super) fn asked(&mut self, now: u64) -> bool {
        self.asks += 1;
        if self.asks > 1 {
            return false;
        }
        self.period.began += now.saturating_sub(self.period.idle_at);
        (self.heard_at, self.front_at) = (now, now);
        true
    }

    /// An ask is over, however it ended.
    pub(super) fn ended(&mut self, now: u64) {
        self.asks = self.asks.saturating_sub(1);
        self.front_at = now;
        if self.asks == 0 {
            self.period.idle_at = now;
        }
    }

    /// Bytes came.
    pub(super) fn heard(&mut self, now: u64, bytes: u64) {
        self.heard_at = now;
        self.period.bytes = self.period.bytes.saturating_add(bytes);
        let elapsed = now.saturating_sub(self.period.began);
        if elapsed >= PERIOD_MS {
            let sample = self.period.bytes.saturating_mul(16) / elapsed;
            self.rate = if self.rate == 0 { sample } else { (self.rate * 3 + sample) / 4 };
            self.period = Period { began: now, idle_at: now, bytes: 0 };
        }
    }

    /// An ask was answered after so long.
    pub(super) fn answered(&mut self, elapsed: u64, was_alone: bool) {
        self.failures /= 2;
        let sample = elapsed.max(1);
        self.latency = match self.latency {
            Some(known) if was_alone => Some((known * 3 + sample).div_ceil(4)),
            Some(known) => Some(known.min(sample)),
            None => Some(sample),
        };
    }

    /// It failed in some way: it rests, at least for `at_least`.
    pub(super) fn failed(&mut self, now: u64, at_least: u64) {
        let rest = (REST_MS << self.failures).max(at_least).min(REST_MAX_MS);
        self.failures = (self.failures + 1).min(FAILURES_MAX);
        self.rests_until = now + rest;
    }

    /// When it is too late for what it owes.
    pub(super) fn deadline(&self) -> Option<u64> {
        let patience = self.failures.min(4);
        // A seeder that serves many takes its time before the first byte, and is not silent.
        let usual = (4 * self.latency.unwrap_or(0)).min(SILENCE_MS << 4);
        let silent = self.heard_at + usual.max(SILENCE_MS << patience);
        let slow = self.front_at + (SLOW_MS << patience);
        (self.asks > 0).then(|| silent.min(slow))
    }

    /// When its rest ends, if it rests.
    pub(super) fn rest_ends(&self, now: u64) -> Option<u64> {
        self.rests(now).then_some(self.rests_until)
    }

    /// It said no to this.
    pub(super) fn refuses(&mut self, target: Target, until: u64) {
        if self.refused.len() == REFUSED_MAX {
            self.refused.remove(0);
        }
        self.refused.push((target, until));
    }

    /// Whether it may be asked for this.
    pub(super) fn gives(&self, target: Target, now: u64) -> bool {
        !self.refused.iter().any(|(refused, until)| *refused == target && now < *until)
    }
}
