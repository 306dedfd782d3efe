//! One engine process, from its start to its end.

use std::sync::Arc;

use commons_port::engine::EngineLoad;
use commons_port::process::frame::Frames;
use commons_port::process::{FromEngine, Jail, LISTED_MAX, PROTOCOL, Spawned};
use commons_record::{Hash, Millis};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Shared;
use super::calls::Violation;
use crate::tasks::{lock, within};

/// A process says hello within this: it measures its jail and loads nothing before.
const HELLO_MAX: Millis = Millis::from_secs(20);

/// A process that is silent for so long hangs: it says something every second, whatever it
/// computes. A machine that swaps is slow, not dead.
const SILENCE_MAX: Millis = Millis::from_secs(30);

/// A process whose input was closed ends within this, or is killed: a step of a large model is
/// shorter.
const FAREWELL_MAX: Millis = Millis::from_secs(2);

/// What is read at once.
const READ_SIZE: usize = 64 << 10;

/// Names in a list, reasons among them, that are kept of what a process says about its jail.
const NAMES_MAX: usize = 256;

/// A process that said hello.
pub(super) struct Session {
    spawned: Spawned,
    frames: Frames,
    pub(super) jail: Box<Jail>,
}

/// Waits for the hello of a process. Otherwise, how it ended.
pub(super) async fn greet(mut spawned: Spawned, shared: &Shared) -> Result<Session, String> {
    let mut frames = Frames::default();
    let hello = next(&mut spawned.reader, &mut frames);
    let greeted = tokio::select! {
        biased;
        greeted = within(&*shared.clock, HELLO_MAX, hello) => greeted,
        () = stopped(shared) => return Err(end(spawned, shared, None).await),
    };
    let fault = match greeted {
        None => Some(format!("said nothing for {HELLO_MAX} after its start")),
        Some(Err(Fault::Over)) => None,
        Some(Err(Fault::Violation(violation))) => Some(blame(&violation)),
        Some(Ok(FromEngine::Hello { protocol: PROTOCOL, jail })) => {
            return Ok(Session { spawned, frames, jail: Box::new(bounded(*jail)) });
        }
        Some(Ok(FromEngine::Hello { protocol, .. })) => Some(blame(&Violation::Version(protocol))),
        Some(Ok(_)) => Some(blame(&Violation::NoHello)),
    };
    Err(end(spawned, shared, fault).await)
}

impl Session {
    /// The system's number for the process.
    pub(super) fn process(&self) -> u32 {
        self.spawned.process.id()
    }

    /// Carries messages both ways until the process has ended; returns how it did, as the end of a
    /// sentence about it.
    pub(super) async fn run(self, shared: Arc<Shared>) -> String {
        let Self { mut spawned, mut frames, .. } = self;
        let fault = {
            let heard = hear_all(&mut spawned.reader, &mut frames, &shared);
            let told = tell_all(&mut spawned.writer, &shared);
            tokio::select! {
                biased;
                fault = heard => fault,
                () = told => None,
                () = stopped(&shared) => None,
            }
        };
        end(spawned, &shared, fault).await
    }
}

/// Why nothing more is heard.
enum Fault {
    /// The process closed its output: it has ended, or will.
    Over,
    Violation(Violation),
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

/// The next message.
async fn next(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    frames: &mut Frames,
) -> Result<FromEngine, Fault> {
    let mut buffer = vec![0; READ_SIZE];
    loop {
        if let Some(message) = frames.read().map_err(Violation::from)? {
            return Ok(message);
        }
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return Err(Fault::Over),
            Ok(size) => frames.push(&buffer[..size]),
        }
    }
}

/// Hears messages until one is missing or wrong; says what was wrong.
async fn hear_all(
    reader: &mut (dyn AsyncRead + Send + Unpin),
    frames: &mut Frames,
    shared: &Shared,
) -> Option<String> {
    loop {
        match within(&*shared.clock, SILENCE_MAX, next(reader, frames)).await {
            None => return Some(format!("was silent for {SILENCE_MAX}")),
            Some(Err(Fault::Over)) => return None,
            Some(Err(Fault::Violation(violation))) => return Some(blame(&violation)),
            Some(Ok(message)) => {
                if let Err(violation) = hear(message, shared) {
                    return Some(blame(&violation));
                }
            }
        }
    }
}

fn hear(message: FromEngine, shared: &Shared) -> Result<(), Violation> {
    match message {
        FromEngine::Hello { .. } => Err(Violation::SecondHello),
        FromEngine::Figures { loads } => figures(&loads, shared),
        FromEngine::Answer { call, answer } => lock(&shared.calls).answered(call, answer),
        FromEngine::Event { call, event } => lock(&shared.calls).event(call, event),
        FromEngine::Over { call } => lock(&shared.calls).over(call),
    }
}

/// Of the figures only the slots count: what is under way is known here.
fn figures(loads: &[(Hash, EngineLoad)], shared: &Shared) -> Result<(), Violation> {
    if loads.len() > LISTED_MAX {
        return Err(Violation::ListTooLong);
    }
    for listing in &mut lock(&shared.listed).models {
        let load = loads.iter().find(|(model, _)| *model == listing.added.facts.model);
        if let Some((_, load)) = load {
            listing.slots = load.slots;
        }
    }
    Ok(())
}

/// Writes frames as they come, until nobody reads.
async fn tell_all(writer: &mut (dyn AsyncWrite + Send + Unpin), shared: &Shared) {
    loop {
        let frame = lock(&shared.calls).next_frame();
        let Some(frame) = frame else {
            shared.bell.notified().await;
            continue;
        };
        let written = async {
            writer.write_all(&frame).await?;
            writer.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}

/// Ends a process: at once if it is at fault, otherwise by closing its input. Says how it ended.
async fn end(mut spawned: Spawned, shared: &Shared, fault: Option<String>) -> String {
    if fault.is_some() {
        spawned.process.kill();
    } else {
        // One that has ended already cannot be told, and need not be.
        let _ = within(&*shared.clock, FAREWELL_MAX, spawned.writer.close()).await;
        drop(spawned.writer);
        if within(&*shared.clock, FAREWELL_MAX, spawned.process.ended()).await.is_none() {
            spawned.process.kill();
        }
    }
    let how = spawned.process.ended().await;
    fault.unwrap_or_else(|| format!("ended with {how}"))
}

async fn stopped(shared: &Shared) {
    let mut stop = shared.stop.subscribe();
    if stop.wait_for(|is_stopped| *is_stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn blame(violation: &Violation) -> String {
    format!("broke the protocol ({violation}) and was killed")
}

/// What a process says about its jail, at a length that can be shown.
fn bounded(jail: Jail) -> Jail {
    let short = |text: String| -> String {
        text.chars().filter(|it| !it.is_control()).take(NAMES_MAX).collect()
    };
    let mut jail = jail;
    jail.attempts.truncate(NAMES_MAX);
    for attempt in &mut jail.attempts {
        attempt.name = short(std::mem::take(&mut attempt.name));
        attempt.refused = attempt.refused.take().map(short);
    }
    jail.reasons.truncate(NAMES_MAX);
    jail.reasons = jail.reasons.into_iter().map(short).collect();
    jail
}
