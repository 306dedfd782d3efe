//! An engine that is a child process of the node: what the two say to each other, and how a child
//! is had.
//!
//! ```text
//! node                                     child
//!   |  <- Hello { protocol, jail } ----------|   first, or the child is given up
//!   |  -- Ask { call, Start .. } ----------> |
//!   |  <- Answer { call, Started } ----------|   or a refusal, which is the last word on the call
//!   |  <- Event { call, .. } ----------------|   at most EVENTS_AHEAD that were not read
//!   |  -- Read { call, count } ------------> |
//!   |  -- Cancel { call } -----------------> |
//!   |  <- Over { call } ---------------------|   unless the call was over already
//!   |  <- Figures { .. } --------------------|   every second: also the sign of life
//! ```
//!
//! Each message is a frame: its length in four bytes, big-endian, and its CBOR ([`frame`]). It is
//! never signed, stored or sent to another machine, so there is no canonical form: both ends are
//! one program, and a child of another version is not used.
//!
//! # Invariants
//!
//! * A compromised child is an attacker of the node: a frame is bounded, what is in it is checked
//!   by the node's side, and a child that says what no engine says is killed.
//! * Each call has one last word: an answer that is no `Started`, an event that ends a sequence, or
//!   `Over`.
//! * A caller that does not read stalls its own sequence: the child sends no event beyond the
//!   window, and goes on with the others.
//!
//! Not here: a process, a pipe or a jail (`sandbox`), the loop in the child (`engine`), restarts
//! (`node`).

pub mod frame;

use std::path::PathBuf;

use commons_record::Hash;
use commons_record::seed::Seed32;
use futures_io::{AsyncRead, AsyncWrite};
use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::engine::{
    AddAdapter, EmbedRequest, EmbeddingVector, EngineEvent, EngineLoad, EngineRefusal,
    EngineRequest, LoadedAdapter, LoadedModel, ScoreRequest, Scores,
};

/// The version of these messages. Both ends are one program: another number is another program.
pub const PROTOCOL: u32 = 1;

/// Events of one sequence that the child sends ahead of what was read. A token every 10 ms and a
/// reader that is looked at every 100 ms: three times that.
pub const EVENTS_AHEAD: u32 = 32;

/// How often the child sends [`FromEngine::Figures`], in milliseconds.
pub const FIGURES_EVERY_MS: u64 = 1_000;

/// Models that a child may tell of. More fit no machine that we know of.
pub const LISTED_MAX: usize = 4_096;

/// Names a question to the child until its last word. Never used twice by one node.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct CallId(pub u64);

/// From the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToEngine {
    /// A question. It is answered with [`FromEngine::Answer`].
    Ask {
        /// Its name.
        call: CallId,
        /// What is asked.
        ask: Box<Ask>,
    },
    /// The seed of a sequence that was started without one.
    Reveal {
        /// The sequence.
        call: CallId,
        /// Its seed.
        seed: Seed32,
    },
    /// The caller read events: as many more may be sent.
    Read {
        /// The sequence.
        call: CallId,
        /// How many were read.
        count: u32,
    },
    /// Nobody waits for it any more. A call that is over already is passed over.
    Cancel {
        /// The call.
        call: CallId,
    },
}

/// What a node asks of a child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Load a model.
    Add(AddModel),
    /// Unload a model.
    Remove {
        /// Which.
        model: Hash,
    },
    /// Take in an adapter.
    AddAdapter(AddAdapter),
    /// Forget an adapter.
    RemoveAdapter {
        /// The model that it changes.
        model: Hash,
        /// Which.
        adapter: Hash,
    },
    /// Continue a prompt.
    Start(EngineRequest),
    /// Judge a text.
    Score(ScoreRequest),
    /// Turn a text into a vector.
    Embed(EmbedRequest),
}

/// A model to load. A child of a node can read the paths that it was given at its start alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddModel {
    /// Its file or folder, on the engine's machine.
    pub path: PathBuf,
    /// Where it is computed, such as `cpu`; none means where all others are.
    pub device: Option<String>,
    /// The file or folder of a smaller model that guesses for it.
    pub draft: Option<PathBuf>,
    /// Bytes that the smaller model's keys and values may take.
    pub draft_kv_size_max: Option<u64>,
}

/// A model that was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddedModel {
    /// What there is to know about it.
    pub facts: LoadedModel,
    /// Where it is computed, and why there, in words.
    pub placement: String,
    /// Sequences that are computed at once.
    pub slots: u32,
}

/// From the child.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromEngine {
    /// The first message.
    Hello {
        /// Must be [`PROTOCOL`].
        protocol: u32,
        /// How the child is jailed, as it measured.
        jail: Box<Jail>,
    },
    /// How it stands. Its absence is a child that hangs.
    Figures {
        /// How busy each model is.
        loads: Vec<(Hash, EngineLoad)>,
    },
    /// The answer to a question.
    Answer {
        /// Which.
        call: CallId,
        /// What came of it.
        answer: Result<Box<Answer>, EngineRefusal>,
    },
    /// A sequence has something to say.
    Event {
        /// Which.
        call: CallId,
        /// What.
        event: EngineEvent,
    },
    /// A cancelled call is over.
    Over {
        /// Which.
        call: CallId,
    },
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// To [`Ask::Add`].
    Added(AddedModel),
    /// To [`Ask::Remove`]: whether there was one.
    Removed(bool),
    /// To [`Ask::AddAdapter`].
    Adapter(LoadedAdapter),
    /// To [`Ask::RemoveAdapter`].
    AdapterRemoved,
    /// To [`Ask::Start`]: events follow.
    Started,
    /// To [`Ask::Score`].
    Scores(Scores),
    /// To [`Ask::Embed`].
    Vector(EmbeddingVector),
}

/// How a process is jailed: measured from the inside, after the doors were closed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jail {
    /// The version of Landlock that is in force: which files can be reached, and no port. None
    /// where the kernel has none.
    pub landlock: Option<u32>,
    /// Which filter of system calls is in force, if one is.
    pub syscalls: Option<SyscallFilter>,
    /// Whether a program that it starts could never gain what it does not have.
    pub no_new_privileges: bool,
    /// Whether processes of the same user may look into its memory.
    pub is_dumpable: bool,
    /// Whether it dies with the node.
    pub dies_with_node: bool,
    /// Bytes of memory that it may have, where there is a limit.
    pub memory_max: Option<u64>,
    /// What was tried, and what came of it.
    pub attempts: Vec<Attempt>,
    /// Why something of this is not in force, in words.
    pub reasons: Vec<String>,
}

/// Which system calls a process may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyscallFilter {
    /// Those on a list, and no others: where the processor computes.
    Allowed,
    /// All but those on a list: where a device's driver needs what nobody has listed.
    Denied,
}

/// A way out that was tried from the inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// What was tried.
    pub name: String,
    /// The name of the error that refused it; none means that it was possible.
    pub refused: Option<String>,
}

/// How much of a jail there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailLevel {
    /// It is a process of its own, and no more.
    None,
    /// Something was possible that should not be.
    Partial,
    /// Everything that was tried was refused.
    Full,
}

impl Jail {
    /// How much of a jail it is, by what was tried.
    pub fn level(&self) -> JailLevel {
        let is_open =
            self.attempts.is_empty() || self.attempts.iter().any(|it| it.refused.is_none());
        match (is_open, self.landlock, self.syscalls) {
            (_, None, None) => JailLevel::None,
            (false, Some(_), Some(_)) => JailLevel::Full,
            _ => JailLevel::Partial,
        }
    }

    /// What was possible.
    pub fn open(&self) -> impl Iterator<Item = &str> {
        self.attempts.iter().filter(|it| it.refused.is_none()).map(|it| it.name.as_str())
    }
}

impl std::fmt::Display for Jail {
    /// `full: landlock 7, listed system calls alone, 27 of 27 ways out refused`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level() {
            JailLevel::None => "none",
            JailLevel::Partial => "partial",
            JailLevel::Full => "full",
        };
        match self.landlock {
            Some(abi) => write!(f, "{level}: Landlock {abi}")?,
            None => write!(f, "{level}: no Landlock")?,
        }
        match self.syscalls {
            Some(SyscallFilter::Allowed) => f.write_str(", only listed system calls")?,
            Some(SyscallFilter::Denied) => f.write_str(", dangerous system calls refused")?,
            None => f.write_str(", no filter of system calls")?,
        }
        let refused = self.attempts.iter().filter(|it| it.refused.is_some()).count();
        write!(f, ", {refused} of {} ways out refused", self.attempts.len())?;
        for reason in &self.reasons {
            write!(f, "; {reason}")?;
        }
        Ok(())
    }
}

/// Starts engine processes.
pub trait Spawner: Send + Sync {
    /// Starts one, which may read these paths and what it needs itself, and no other.
    fn spawn(&self, readable: Vec<PathBuf>) -> BoxFuture<'static, Result<Spawned, SpawnError>>;
}

/// Why no process was started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to start the engine process: {detail}")]
pub struct SpawnError {
    /// What stood in the way.
    pub detail: String,
}

/// A process that was started. Dropping all of it kills the process.
pub struct Spawned {
    /// What it says.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// What it is told. Closing it tells the process to end.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The process itself.
    pub process: Box<dyn ChildProcess>,
}

impl std::fmt::Debug for Spawned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spawned").field("id", &self.process.id()).finish_non_exhaustive()
    }
}

/// A child process. Dropping it kills it; it leaves no zombie.
pub trait ChildProcess: Send {
    /// The system's number for it.
    fn id(&self) -> u32;

    /// Completes when it has ended and its memory is free, with how it ended, in words: `exit
    /// status 1`, `signal 9`. Dropping the future loses nothing.
    fn ended(&mut self) -> BoxFuture<'_, String>;

    /// Ends it at once. It may have ended already.
    fn kill(&mut self);
}
