//! An engine as a process of its own: what a child of a node does until the node is gone.
//!
//! ```text
//! standard input -> reader thread -> loop -> a task for each call -> writer thread -> output
//!                                      |         |
//!                                      |         +-> clerk: renders, encodes, admits, in order
//!                                      |         +-> loader: models and adapters, one at a time
//!                                      +-- a second passed: figures, the sign of life
//! ```
//!
//! The loop never computes and never waits for a caller: it wakes tasks. A task sends an event only
//! while its reader has room ([`EVENTS_AHEAD`](commons_port::process::EVENTS_AHEAD)), so a caller that does not read stalls its own
//! sequence, in the scheduler as here.
//!
//! # Invariants
//!
//! * Each call has one last word (see [`commons_port::process`]).
//! * The end of the input is the end of everything: a node that is gone has no engine.
//! * A node that breaks the protocol is none: the process ends.
//!
//! Not here: the jail around this (`commons-sandbox`), and the node's side (`commons-node`).

mod calls;
mod pipes;
mod rooms;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use commons_port::process::{CallId, FromEngine, Jail, PROTOCOL, ToEngine};
use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::stream::{FuturesUnordered, StreamExt};

use crate::LocalEngine;
use calls::{CONTROLS_MAX, Control, call};
use pipes::Outbox;
use rooms::Rooms;

/// Calls that a node may have open. It keeps to fewer; one that does not is no node of ours.
const CALLS_MAX: usize = 8_192;

/// Why a process ends before its input does.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum ServeError {
    #[error("failed to start a thread")]
    Thread(#[source] std::io::Error),

    #[error("the node broke the protocol: {detail}")]
    Protocol { detail: String },
}

/// Serves a node at the other end of `input` and `output` until the input ends.
pub fn serve(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
    engine: &Arc<LocalEngine>,
    jail: Jail,
) -> Result<(), ServeError> {
    let outbox = pipes::write_to(output).map_err(ServeError::Thread)?;
    let inbox = pipes::read_from(input).map_err(ServeError::Thread)?;
    let rooms = Rooms::open(engine).map_err(ServeError::Thread)?;
    let _ticking = pipes::tick(engine, &outbox).map_err(ServeError::Thread)?;
    futures::executor::block_on(async {
        let mut first = outbox.clone();
        first.send(&FromEngine::Hello { protocol: PROTOCOL, jail: Box::new(jail) }).await;
        run(inbox, outbox, rooms).await
    })
}

/// The loop.
async fn run(
    mut inbox: mpsc::Receiver<Result<ToEngine, String>>,
    outbox: Outbox,
    rooms: Rooms,
) -> Result<(), ServeError> {
    let mut open: BTreeMap<CallId, mpsc::Sender<Control>> = BTreeMap::new();
    let mut tasks = FuturesUnordered::new();
    loop {
        let message = {
            // A set without tasks is over at once, and nothing to wait for.
            let ended = async {
                match tasks.next().await {
                    Some(id) => id,
                    None => std::future::pending().await,
                }
            };
            match select(inbox.next(), std::pin::pin!(ended)).await {
                Either::Left((message, _)) => message,
                Either::Right((id, _)) => {
                    open.remove(&id);
                    continue;
                }
            }
        };
        let Some(message) = message else { return Ok(()) };
        let message = message.map_err(|detail| ServeError::Protocol { detail })?;
        let (id, control) = match message {
            ToEngine::Ask { call: id, ask } => {
                if open.contains_key(&id) || open.len() >= CALLS_MAX {
                    let detail =
                        format!("{} calls are open, {id:?} perhaps among them", open.len());
                    return Err(ServeError::Protocol { detail });
                }
                let (sender, controls) = mpsc::channel(CONTROLS_MAX);
                open.insert(id, sender);
                tasks.push(call(id, *ask, controls, outbox.clone(), rooms.clone()));
                continue;
            }
            ToEngine::Reveal { call, seed } => (call, Control::Reveal(seed)),
            ToEngine::Read { call, count } => (call, Control::Read(count)),
            ToEngine::Cancel { call } => (call, Control::Cancel),
        };
        // A call that is over already wants nothing.
        if let Some(sender) = open.get_mut(&id)
            && let Err(error) = sender.try_send(control)
            && error.is_full()
        {
            let detail = format!("{CONTROLS_MAX} messages for {id:?} wait already");
            return Err(ServeError::Protocol { detail });
        }
    }
}
