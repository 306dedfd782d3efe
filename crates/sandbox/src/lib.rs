//! Processes: starting one that is jailed, and jailing oneself.
//!
//! ```text
//! node: spawn -> (another process of this program) -> jail::enter -> measured -> work
//! ```
//!
//! * [`spawn`]: a child process behind `port`'s [`Spawner`](commons_port::process::Spawner);
//! * [`jail`]: what a process gives up for good, before it reads anything that others wrote;
//! * [`probe`]: every way out that we know of, tried from the inside.
//!
//! # Invariants
//!
//! * What a process gave up it cannot have back: no setting, no message and no flaw of ours undoes
//!   Landlock or a filter of system calls.
//! * What is reported is what was measured inside, not what was asked for.
//! * A machine that lacks a part of the jail still serves its owner, and says what it lacks.
//! * A child has nothing of its parent's: no environment, no open file beyond its three pipes.
//!
//! Not here: what a child computes (`engine`), what it says (`port`), and when it is started again
//! (`node`).

#[cfg(unix)]
mod compat;
pub mod jail;
pub mod probe;
#[cfg(unix)]
pub mod spawn;
