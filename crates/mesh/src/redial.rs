//! When to dial which remembered peer: a pure state machine, with time as an argument.
//!
//! ```text
//! Known -> Waiting -- due, or wanted --> Dialing -- it stands --> Connected
//!             ^                             |                        |
//!             +------- with back-off -------+------------------------+
//! ```
//!
//! # Invariants
//!
//! * D1: a peer is never dialled while it is connected or being dialled.
//! * D2: unless somebody wants it now, a peer that keeps failing is dialled ever more rarely,
//!   down to once per [`RETRY_MAX`]; it is never given up while it is remembered, since the one
//!   who comes back may know no address of ours.
//! * D3: by its own will the machine dials at most [`DIALS_MAX`] peers at once, and keeps no
//!   more than `kept_max` connected.
//!
//! Not here: addresses (see `addr.rs`) and the dialling itself (see `host.rs`).

use std::collections::BTreeMap;

use commons_record::{Millis, PeerId};

/// The wait after the first failure: a restart takes about as long.
pub(crate) const RETRY_MIN: Millis = Millis(250);

/// The longest wait. A thousand lost peers then cost eight dials a second.
pub(crate) const RETRY_MAX: Millis = Millis(120_000);

/// A connection that held this long was no accident: the next failure counts as the first.
const STABLE: Millis = Millis(10_000);

/// Dials in progress by the machine's own will: a quarter of the handshakes that may be pending,
/// which leaves the rest for streams that somebody waits for.
pub(crate) const DIALS_MAX: usize = 16;

/// What the machine is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    /// A peer is remembered from now on, or has new addresses.
    Known { peer: PeerId, is_connected: bool },
    /// A peer is remembered no longer.
    Forgotten(PeerId),
    /// Somebody waits for a connection.
    Wanted(PeerId),
    /// A connection stands, the first or a further one.
    Connected(PeerId),
    /// The last connection is gone.
    Disconnected(PeerId),
    /// A dial that the machine asked for came to nothing.
    DialFailed(PeerId),
    /// The deadline may have passed. Early and repeated calls are harmless.
    TimerFired,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Dial the peer; answer with `Connected` or `DialFailed`.
    Dial(PeerId),
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    state: State,
    /// Failures since the last connection that held.
    failures: u32,
    /// When the last dial began.
    dialed: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting { until: Millis },
    Dialing,
    Connected { since: Millis },
}

/// The machine. It holds one small entry for each remembered peer.
#[derive(Debug)]
pub(crate) struct Redial {
    peers: BTreeMap<PeerId, Peer>,
    kept_max: usize,
    /// Differs between nodes, so that two that lost each other do not dial in step.
    seed: u64,
    deadline: Option<Millis>,
}

impl Redial {
    /// A machine that keeps at most `kept_max` peers connected.
    pub(crate) fn new(local: PeerId, kept_max: usize) -> Self {
        Self { peers: BTreeMap::new(), kept_max, seed: word(local), deadline: None }
    }

    /// Pure and total: every input has an outcome in every state.
    pub(crate) fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Known { peer, is_connected } => self.know(now, peer, is_connected),
            Input::Forgotten(peer) => {
                self.peers.remove(&peer);
            }
            Input::Wanted(peer) => outputs.extend(self.dial(now, peer)),
            Input::Connected(peer) => self.hold(now, peer),
            Input::Disconnected(peer) => self.lose(now, peer),
            Input::DialFailed(peer) => self.fail(now, peer),
            Input::TimerFired => {}
        }
        outputs.extend(self.dial_due(now));
        self.deadline = self.peers.values().filter_map(|peer| peer.due_after(now)).min();
        outputs
    }

    /// When to send [`Input::TimerFired`]; nothing is due before.
    pub(crate) fn deadline(&self) -> Option<Millis> {
        self.deadline
    }

    /// The peers that the machine looks after.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peers.keys().copied()
    }

    fn know(&mut self, now: Millis, peer: PeerId, is_connected: bool) {
        let state = if is_connected {
            State::Connected { since: now }
        } else {
            State::Waiting { until: now }
        };
        let new = Peer { state, failures: 0, dialed: None };
        let entry = self.peers.entry(peer).or_insert(new);
        if let State::Waiting { until } = &mut entry.state {
            // News deserve a fresh start, but a stream of news does not make a stream of dials.
            entry.failures = 0;
            let soonest = entry.dialed.map_or(now, |dialed| later(dialed, RETRY_MIN));
            *until = (*until).min(soonest.max(now));
        }
    }

    fn hold(&mut self, now: Millis, peer: PeerId) {
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        match entry.state {
            State::Waiting { .. } | State::Dialing => {
                entry.state = State::Connected { since: now };
            }
            State::Connected { .. } => {} // A further connection changes nothing.
        }
    }

    fn lose(&mut self, now: Millis, peer: PeerId) {
        let seed = self.seed;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        if let State::Connected { since } = entry.state {
            let has_held = now.since(since) >= STABLE;
            entry.failures = if has_held { 1 } else { entry.failures.saturating_add(1) };
            entry.state = State::Waiting { until: later(now, wait(seed, peer, entry.failures)) };
        }
    }

    fn fail(&mut self, now: Millis, peer: PeerId) {
        let seed = self.seed;
        let Some(entry) = self.peers.get_mut(&peer) else { return };
        // A dial can fail after the peer has reached us: then there is nothing to repeat.
        if entry.state == State::Dialing {
            entry.failures = entry.failures.saturating_add(1);
            entry.state = State::Waiting { until: later(now, wait(seed, peer, entry.failures)) };
        }
    }

    /// Dials one peer now, if it is neither connected nor being dialled (D1).
    fn dial(&mut self, now: Millis, peer: PeerId) -> Option<Output> {
        let entry = self.peers.get_mut(&peer)?;
        let State::Waiting { .. } = entry.state else { return None };
        entry.state = State::Dialing;
        entry.dialed = Some(now);
        Some(Output::Dial(peer))
    }

    /// Dials what is due, longest waiting first, as far as D3 allows.
    fn dial_due(&mut self, now: Millis) -> Vec<Output> {
        let count = |is: fn(&State) -> bool| self.peers.values().filter(|it| is(&it.state)).count();
        let dialing = count(|state| matches!(state, State::Dialing));
        let connected = count(|state| matches!(state, State::Connected { .. }));
        let by_dials = DIALS_MAX.saturating_sub(dialing);
        let by_kept = self.kept_max.saturating_sub(dialing + connected);
        let mut due: Vec<(Millis, PeerId)> = self
            .peers
            .iter()
            .filter_map(|(peer, entry)| match entry.state {
                State::Waiting { until } if until <= now => Some((until, *peer)),
                State::Waiting { .. } | State::Dialing | State::Connected { .. } => None,
            })
            .collect();
        due.sort_unstable();
        due.truncate(by_dials.min(by_kept));
        due.into_iter().filter_map(|(_, peer)| self.dial(now, peer)).collect()
    }
}

impl Peer {
    /// When this peer becomes due. One that is due already waits for room and not for time.
    fn due_after(&self, now: Millis) -> Option<Millis> {
        match self.state {
            State::Waiting { until } if until > now => Some(until),
            State::Waiting { .. } | State::Dialing | State::Connected { .. } => None,
        }
    }
}

/// Doubles from [`RETRY_MIN`] to [`RETRY_MAX`], less up to a quarter.
fn wait(seed: u64, peer: PeerId, failures: u32) -> Millis {
    let doublings = failures.saturating_sub(1).min(16); // 250 ms << 16 is far beyond the maximum.
    let full = (RETRY_MIN.0 << doublings).min(RETRY_MAX.0);
    let mixed = (seed ^ word(peer).rotate_left(17) ^ u64::from(failures))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15); // The golden ratio: every input bit moves the top.
    Millis(full - (full / 4) * (mixed >> 56) / 256)
}

fn later(now: Millis, wait: Millis) -> Millis {
    Millis(now.0.saturating_add(wait.0))
}

/// The first eight bytes of a key, which are as good as random.
fn word(peer: PeerId) -> u64 {
    peer.as_bytes().iter().take(8).fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
