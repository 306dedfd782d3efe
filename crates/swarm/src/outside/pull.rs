//! One file from outside by one node, as a pure state machine.
//!
//! ```text
//! Idle --Start--> Asking --Opened--> Receiving --all kept--> Finishing --> Over
//!                   ^  \                 |
//!                   |   `--- failure ----+--> Waiting --TimerFired--> Asking
//! ```
//!
//! # Invariants
//!
//! * U1: nothing is asked for twice that is kept, unless the place cannot begin in the middle.
//! * U2: of attempts that bring nothing new there are [`Policy::attempts_max`] at most. New is what
//!   lies beyond all that was ever kept: a place that begins anew each time and breaks off at the
//!   half is given up.
//! * U3: a place that asks to be left alone is left alone for at least that long.
//! * U4: a file that changed, or hashes to something else, is given up at once.
//! * U5: after `Done` or `GiveUp` nothing more comes out. A late word of an old attempt changes
//!   nothing: each carries the number of its attempt.
//!
//! Not here: requests, bytes and the disk. Whoever performs [`Output::Fetch`] appends what comes
//! and reports it as [`Input::Kept`]; [`Output::Stop`] ends that. `Restart` is performed before any
//! byte of that attempt is appended.

use commons_port::hub::OriginError;
use commons_record::{Hash, Millis};

/// When a place is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Before the second attempt; doubled with each that brings nothing.
    pub wait_first: Millis,
    /// Between two attempts, unless the place asks for more.
    pub wait_max: Millis,
    /// A place that asks to wait longer is given up: its owner can come back.
    pub after_max: Millis,
    /// Attempts in a row that bring nothing new.
    pub attempts_max: u32,
    /// Fewer bytes are nothing new, unless they are the last.
    pub progress_min: u64,
    /// Without a word about an attempt for so long, it failed. Longer than the waits of `remote`,
    /// which know better why.
    pub stall: Millis,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            wait_first: Millis::from_secs(1),
            wait_max: Millis::from_secs(60),
            after_max: Millis::from_secs(3_600),
            attempts_max: 8,
            progress_min: 64 * 1024,
            stall: Millis::from_secs(300),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// It is wanted, and so many bytes of it are kept.
    Start {
        /// Bytes from the beginning.
        kept: u64,
    },
    /// The place answers.
    Opened {
        /// Of which [`Output::Fetch`].
        attempt: u32,
        /// Where its bytes begin.
        offset: u64,
    },
    /// So many bytes are kept now, from the beginning on.
    Kept {
        /// Of which [`Output::Fetch`].
        attempt: u32,
        /// Bytes from the beginning.
        len: u64,
    },
    /// The bytes ended.
    Ended {
        /// Of which [`Output::Fetch`].
        attempt: u32,
    },
    /// The place refused, or broke off.
    Failed {
        /// Of which [`Output::Fetch`].
        attempt: u32,
        /// Why.
        error: OriginError,
    },
    /// What was kept is whole, and was hashed.
    Hashed {
        /// Whether it is what was asked for.
        is_right: bool,
    },
    /// A timer that was set, or any other.
    TimerFired,
    /// Nobody wants it for now. What is kept stays.
    Stop,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Ask for the bytes from `offset` on.
    Fetch {
        /// To be named in every word about it.
        attempt: u32,
        /// The first byte.
        offset: u64,
    },
    /// Take no more bytes of this attempt, and close its connection.
    Stop {
        /// Which.
        attempt: u32,
    },
    /// Throw away what is kept: the bytes begin at 0.
    Restart,
    /// Say [`Input::TimerFired`] then.
    SetTimer(Millis),
    /// All is kept: hash it.
    Finish,
    /// It is held. The last output.
    Done,
    /// It is not to be had. The last output.
    GiveUp(GiveUp),
    /// An input that has no meaning now.
    Refuse,
}

/// Why a file was given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum GiveUp {
    #[error(transparent)]
    Refused(OriginError),

    #[error("{attempts} attempts in a row brought nothing new; the last one ended so: {last}")]
    NoProgress { attempts: u32, last: Failure },

    #[error("the place asks to wait {after_ms} ms, and at most {max_ms} are waited; try later")]
    TooBusy { after_ms: u64, max_ms: u64 },

    #[error("what came is not what was asked for: its hash is another one")]
    WrongHash,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum Failure {
    #[error(transparent)]
    Origin(OriginError),

    #[error("it ended at byte {kept} of {size}")]
    EndedEarly { kept: u64, size: u64 },

    #[error("it began at byte {offset} where byte {kept} or the first one was asked for")]
    BeganElsewhere { offset: u64, kept: u64 },

    #[error("nothing was heard of it for {stall_ms} ms")]
    Stalled { stall_ms: u64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    /// Asked; the last word is this old.
    Asking {
        since: Millis,
    },
    /// Bytes come; the last ones are this old.
    Receiving {
        since: Millis,
    },
    /// Asked again then.
    Waiting {
        until: Millis,
    },
    /// All is kept.
    Finishing,
    Over,
}

/// One file, on its way from outside.
#[derive(Debug, Clone)]
pub struct Pull {
    size: u64,
    policy: Policy,
    /// So that nodes that failed together do not come back together.
    seed: Hash,
    state: State,
    attempt: u32,
    /// In a row, without anything new.
    failures: u32,
    kept: u64,
    /// The most that was ever kept, as far as it counted.
    reached: u64,
}

impl Pull {
    /// A file of `size` bytes; `seed` is any value that others do not share.
    pub const fn new(size: u64, seed: Hash, policy: Policy) -> Self {
        let (state, attempt, failures, kept, reached) = (State::Idle, 0, 0, 0, 0);
        Self { size, policy, seed, state, attempt, failures, kept, reached }
    }

    /// Bytes that are kept, as far as was said.
    pub const fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether nothing more will come out.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Pure and total: every input has an outcome in every state.
    pub fn step(&mut self, now: Millis, input: Input) -> Vec<Output> {
        match (self.state, input) {
            (State::Idle, Input::Start { kept }) => self.start(now, kept),
            (State::Asking { .. }, Input::Opened { attempt, offset })
                if attempt == self.attempt =>
            {
                self.opened(now, offset)
            }
            (State::Receiving { .. }, Input::Kept { attempt, len }) if attempt == self.attempt => {
                self.keep(now, len)
            }
            (State::Receiving { .. }, Input::Ended { attempt }) if attempt == self.attempt => {
                let last = Failure::EndedEarly { kept: self.kept, size: self.size };
                self.fail(now, last, 0)
            }
            (State::Asking { .. } | State::Receiving { .. }, Input::Failed { attempt, error })
                if attempt == self.attempt =>
            {
                self.failed(now, error)
            }
            (State::Finishing, Input::Hashed { is_right: true }) => self.over(Output::Done),
            (State::Finishing, Input::Hashed { is_right: false }) => {
                self.over(Output::GiveUp(GiveUp::WrongHash))
            }
            (_, Input::TimerFired) => self.timer(now),
            (State::Asking { .. } | State::Receiving { .. }, Input::Stop) => {
                self.state = State::Idle;
                vec![Output::Stop { attempt: self.attempt }]
            }
            (State::Waiting { .. } | State::Idle, Input::Stop) => {
                self.state = State::Idle;
                Vec::new()
            }
            // A word of an attempt that is past, or out of turn.
            _ => vec![Output::Refuse],
        }
    }

    fn start(&mut self, now: Millis, kept: u64) -> Vec<Output> {
        if kept > self.size {
            // It was another file.
            self.kept = 0;
            return [vec![Output::Restart], self.ask(now)].concat();
        }
        self.kept = kept;
        self.reached = self.reached.max(kept);
        if kept == self.size {
            self.state = State::Finishing;
            return vec![Output::Finish];
        }
        self.ask(now)
    }

    fn ask(&mut self, now: Millis) -> Vec<Output> {
        self.attempt = self.attempt.wrapping_add(1);
        self.state = State::Asking { since: now };
        let fetch = Output::Fetch { attempt: self.attempt, offset: self.kept };
        vec![fetch, Output::SetTimer(now.saturating_add(self.policy.stall))]
    }

    fn opened(&mut self, now: Millis, offset: u64) -> Vec<Output> {
        if offset == self.kept {
            self.state = State::Receiving { since: now };
            return Vec::new();
        }
        if offset == 0 {
            self.state = State::Receiving { since: now };
            self.kept = 0;
            return vec![Output::Restart];
        }
        self.fail(now, Failure::BeganElsewhere { offset, kept: self.kept }, 0)
    }

    fn keep(&mut self, now: Millis, len: u64) -> Vec<Output> {
        if len < self.kept || len > self.size {
            return vec![Output::Refuse];
        }
        if len > self.kept {
            self.state = State::Receiving { since: now };
        }
        self.kept = len;
        let is_new = len >= self.reached.saturating_add(self.policy.progress_min.max(1));
        if is_new || (len == self.size && len > self.reached) {
            self.reached = len;
            self.failures = 0;
        }
        if len < self.size {
            return Vec::new();
        }
        self.state = State::Finishing;
        vec![Output::Stop { attempt: self.attempt }, Output::Finish]
    }

    fn failed(&mut self, now: Millis, error: OriginError) -> Vec<Output> {
        if !error.is_temporary() {
            let stop = Output::Stop { attempt: self.attempt };
            let over = self.over(Output::GiveUp(GiveUp::Refused(error)));
            return [vec![stop], over].concat();
        }
        let after_ms = if let OriginError::Busy { after_ms, .. } = error { after_ms } else { 0 };
        self.fail(now, Failure::Origin(error), after_ms)
    }

    fn fail(&mut self, now: Millis, last: Failure, after_ms: u64) -> Vec<Output> {
        let stop = Output::Stop { attempt: self.attempt };
        self.failures += 1;
        let max_ms = self.policy.after_max.0;
        let given_up = if after_ms > max_ms {
            Some(GiveUp::TooBusy { after_ms, max_ms })
        } else if self.failures >= self.policy.attempts_max {
            Some(GiveUp::NoProgress { attempts: self.failures, last })
        } else {
            None
        };
        if let Some(reason) = given_up {
            return [vec![stop], self.over(Output::GiveUp(reason))].concat();
        }
        let until = now.saturating_add(Millis(self.wait().saturating_add(after_ms)));
        self.state = State::Waiting { until };
        vec![stop, Output::SetTimer(until)]
    }

    /// Doubled with each failure, and up to a quarter longer by chance.
    fn wait(&self) -> u64 {
        let doublings = self.failures.saturating_sub(1).min(32);
        let wait = self.policy.wait_first.0.saturating_mul(1 << doublings);
        let wait = wait.min(self.policy.wait_max.0);
        let attempt = self.attempt.to_be_bytes();
        let drawn = Hash::of_fields("commons/outside/wait/1", &[self.seed.as_bytes(), &attempt]);
        wait + wait / 4 * u64::from(drawn.as_bytes()[0]) / 255
    }

    fn timer(&mut self, now: Millis) -> Vec<Output> {
        match self.state {
            State::Waiting { until } if now >= until => self.ask(now),
            State::Waiting { until } => vec![Output::SetTimer(until)],
            State::Asking { since } | State::Receiving { since } => {
                let until = since.saturating_add(self.policy.stall);
                if now < until {
                    return vec![Output::SetTimer(until)];
                }
                self.fail(now, Failure::Stalled { stall_ms: self.policy.stall.0 }, 0)
            }
            State::Idle | State::Finishing | State::Over => Vec::new(),
        }
    }

    fn over(&mut self, last: Output) -> Vec<Output> {
        self.state = State::Over;
        vec![last]
    }
}

#[cfg(test)]
mod tests;
