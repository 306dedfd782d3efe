//! One file that several nodes of a network want: fetched from outside by one of them.
//!
//! ```text
//! words of members -> Turn --Fetch--> pull --progress--> Turn -> words to members
//!                          --StandDown--> the pull is dropped
//! ```
//!
//! Not here: how words travel, and how the file goes on from the one that has it. Whoever knows
//! that it is held here, by whatever way, says [`Heard::Have`].

use commons_port::BoxFuture;
use commons_port::hub::OriginFile;
use commons_record::{Hash, Millis, PeerId};
use commons_swarm::outside::file_key;
use commons_swarm::outside::pull::Policy;
use commons_swarm::outside::turn::{Input, Output, Timing, Turn};
use std::future::pending;
use tokio::sync::{mpsc, watch};

use super::{OutsideError, OutsidePorts, Progress, pull};

/// What a member says to the others that want the same file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Bytes from outside that it keeps.
    pub kept: u64,
    /// Whether it is fetching.
    pub is_fetching: bool,
}

/// What was heard of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A member's word.
    Word {
        /// Whose.
        peer: PeerId,
        /// What it says.
        word: Word,
    },
    /// A member went, or wants the file no more.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// The file is held here.
    Have,
}

/// A file that is wanted, and with whom.
#[derive(Debug)]
pub struct Wanted {
    /// This node.
    pub me: PeerId,
    /// The file.
    pub file: OriginFile,
    /// When the place is asked again.
    pub policy: Policy,
    /// How long members wait for each other.
    pub timing: Timing,
    /// To all members. A word that finds no room is dropped: the next one says more.
    pub words: mpsc::Sender<Word>,
    /// From all members; no member is heard any more when it is closed.
    pub heard: mpsc::Receiver<Heard>,
    /// How far the file is, as long as this node fetches it.
    pub progress: watch::Sender<Progress>,
}

/// Fetches a file when it is this node's turn. `None`: it came by another way.
pub async fn pull_in_turn(
    ports: OutsidePorts,
    wanted: Wanted,
) -> Result<Option<Hash>, OutsideError> {
    let turn = Turn::new(file_key(&wanted.file), wanted.me, wanted.timing);
    let seen = wanted.progress.subscribe();
    let mut run = Run { ports, wanted, turn, seen, pulling: None, timer: None, is_heard: true };
    run.step(Input::Want { kept: 0 });
    loop {
        match run.next().await {
            Next::Input(input) => run.step(input),
            Next::Have => {
                run.step(Input::Have);
                return Ok(None);
            }
            Next::Pulled(result) => {
                run.pulling = None;
                run.step(if result.is_ok() { Input::Have } else { Input::GaveUp });
                return result.map(Some);
            }
        }
    }
}

enum Next {
    Input(Input),
    Have,
    Pulled(Result<Hash, OutsideError>),
}

struct Run {
    ports: OutsidePorts,
    wanted: Wanted,
    turn: Turn,
    seen: watch::Receiver<Progress>,
    pulling: Option<BoxFuture<'static, Result<Hash, OutsideError>>>,
    timer: Option<Millis>,
    is_heard: bool,
}

impl Run {
    fn step(&mut self, input: Input) {
        for output in self.turn.step(self.ports.clock.now(), input) {
            match output {
                Output::Announce { kept, is_fetching } => {
                    let _ = self.wanted.words.try_send(Word { kept, is_fetching });
                }
                Output::Fetch => {
                    let (ports, file) = (self.ports.clone(), self.wanted.file.clone());
                    let progress = self.wanted.progress.clone();
                    self.pulling = Some(Box::pin(pull(ports, file, self.wanted.policy, progress)));
                }
                Output::StandDown => self.pulling = None,
                Output::SetTimer(at) => self.timer = Some(at),
            }
        }
    }

    /// Waits for whatever comes first.
    async fn next(&mut self) -> Next {
        let Self { ports, wanted, seen, pulling, timer, is_heard, .. } = self;
        let fires = async {
            match timer {
                Some(at) => ports.clock.sleep_until(*at).await,
                None => pending().await,
            }
        };
        let listens = async { if *is_heard { wanted.heard.recv().await } else { pending().await } };
        let pulls = async {
            match pulling {
                Some(pulling) => pulling.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = fires => {
                self.timer = None;
                Next::Input(Input::TimerFired)
            }
            heard = listens => match heard {
                Some(Heard::Word { peer, word: Word { kept, is_fetching } }) => {
                    Next::Input(Input::Heard { peer, kept, is_fetching })
                }
                Some(Heard::Left { peer }) => Next::Input(Input::Left { peer }),
                Some(Heard::Have) => Next::Have,
                None => {
                    // Alone from here on: those who were heard of lose their turns in time.
                    self.is_heard = false;
                    Next::Input(Input::TimerFired)
                }
            },
            result = pulls => Next::Pulled(result),
            Ok(()) = seen.changed() => {
                let len = seen.borrow_and_update().kept;
                Next::Input(Input::Kept { len })
            }
        }
    }
}

#[cfg(test)]
mod tests;
