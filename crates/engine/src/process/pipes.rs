//! The two pipes and the clock, a thread each.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use commons_port::engine::{Engine as _, EngineRefusal, EngineRefusalCode};
use commons_port::process::frame::{self, FrameError, Frames};
use commons_port::process::{CallId, FIGURES_EVERY_MS, FromEngine, LISTED_MAX, ToEngine};
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};

use crate::LocalEngine;

/// Messages that wait for the loop: it takes each in microseconds.
const INBOX_MAX: usize = 64;

/// Frames that wait for the pipe. Every call has room for one more.
const OUTBOX_MAX: usize = 64;

/// What is read at once.
const READ_SIZE: usize = 64 << 10;

/// Where messages to the node are put.
#[derive(Debug, Clone)]
pub(super) struct Outbox(mpsc::Sender<Vec<u8>>);

impl Outbox {
    /// Sends a message. A node that is gone hears nothing, and the input tells so.
    pub(super) async fn send(&mut self, message: &FromEngine) {
        let frame = match frame::encode(message) {
            Ok(frame) => frame,
            Err(error) => match instead(message, &error).map(|it| frame::encode(&it)) {
                Some(Ok(frame)) => frame,
                Some(Err(_)) | None => {
                    tracing::error!(%error, "a message to the node cannot be sent");
                    return;
                }
            },
        };
        let _ = self.0.send(frame).await;
    }
}

/// What is said instead of an answer that fits no frame.
fn instead(message: &FromEngine, error: &FrameError) -> Option<FromEngine> {
    let FromEngine::Answer { call, .. } = message else { return None };
    let code = EngineRefusalCode::TooLong;
    let message = format!("the answer cannot be handed over: {error}; ask for less");
    Some(FromEngine::Answer { call: *call, answer: Err(EngineRefusal { code, message }) })
}

/// Writes frames until nobody sends any more, or nobody reads.
pub(super) fn write_to(mut output: impl Write + Send + 'static) -> io::Result<Outbox> {
    let (sender, mut frames) = mpsc::channel::<Vec<u8>>(OUTBOX_MAX);
    let thread = std::thread::Builder::new().name("engine output".to_owned());
    thread.spawn(move || {
        while let Some(frame) = futures::executor::block_on(frames.next()) {
            if output.write_all(&frame).and_then(|()| output.flush()).is_err() {
                return;
            }
        }
    })?;
    Ok(Outbox(sender))
}

/// Reads messages until the input ends, or holds none.
pub(super) fn read_from(
    mut input: impl Read + Send + 'static,
) -> io::Result<mpsc::Receiver<Result<ToEngine, String>>> {
    let (mut sender, messages) = mpsc::channel(INBOX_MAX);
    let mut send = move |message| futures::executor::block_on(sender.send(message)).is_ok();
    let thread = std::thread::Builder::new().name("engine input".to_owned());
    thread.spawn(move || {
        let (mut frames, mut buffer) = (Frames::default(), vec![0; READ_SIZE]);
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(size) => frames.push(&buffer[..size]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            loop {
                let message = match frames.read() {
                    Ok(Some(message)) => Ok(message),
                    Ok(None) => break,
                    Err(error) => Err(error.to_string()),
                };
                let is_end = message.is_err();
                if !send(message) || is_end {
                    return;
                }
            }
        }
    })?;
    Ok(messages)
}

/// Sends figures every second until what it returns is dropped.
pub(super) fn tick(engine: &Arc<LocalEngine>, outbox: &Outbox) -> io::Result<SyncSender<()>> {
    let (engine, mut outbox) = (Arc::clone(engine), outbox.clone());
    let (stop, stopped) = sync_channel(0);
    let thread = std::thread::Builder::new().name("engine figures".to_owned());
    thread.spawn(move || {
        let every = Duration::from_millis(FIGURES_EVERY_MS);
        while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
            let models = engine.models().into_iter().take(LISTED_MAX);
            let loads = models.filter_map(|it| Some((it.model, engine.load(&it.model)?)));
            let figures = FromEngine::Figures { loads: loads.collect() };
            futures::executor::block_on(outbox.send(&figures));
        }
    })?;
    Ok(stop)
}

/// The last word on a call that was refused.
pub(super) fn refused(call: CallId, refusal: EngineRefusal) -> FromEngine {
    FromEngine::Answer { call, answer: Err(refusal) }
}
