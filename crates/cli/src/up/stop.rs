//! What ends a node: Ctrl-C, SIGTERM, `commons stop`, or the end of standard input.
//!
//! The first wish ends in order; a second signal ends at once.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

/// What a shell reports of a program that a signal ended: 128 and the signal's number.
const EXIT_AT_ONCE: i32 = 130;

/// Hears every wish to end.
#[derive(Debug)]
pub(super) struct Stop {
    asked: Arc<watch::Sender<bool>>,
    tasks: JoinSet<()>,
}

impl Stop {
    /// Begins to listen to signals and, if it is wanted, to standard input.
    pub(super) fn listen(until_stdin_ends: bool) -> anyhow::Result<Self> {
        let asked = Arc::new(watch::Sender::new(false));
        let mut tasks = JoinSet::new();
        let mut interrupt = signal(SignalKind::interrupt()).context("failed to wait for Ctrl-C")?;
        let mut terminate =
            signal(SignalKind::terminate()).context("failed to wait for SIGTERM")?;
        let sender = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut count = 0_u32;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                count += 1;
                if count > 1 {
                    // Records are durable when they are spoken of: nothing is lost by leaving.
                    std::process::exit(EXIT_AT_ONCE);
                }
                tracing::info!("ending; once more ends at once");
                sender.send_replace(true);
            }
        });
        if until_stdin_ends {
            let sender = Arc::clone(&asked);
            tasks.spawn(async move {
                read_to_end().await;
                sender.send_replace(true);
            });
        }
        Ok(Self { asked, tasks })
    }

    /// Completes once somebody wants the node to end.
    pub(super) fn asked(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut asked = self.asked.subscribe();
        async move {
            // A sender that is gone means that the program ends as well.
            let _ = asked.wait_for(|asked| *asked).await;
        }
    }

    /// Wants the node to end.
    pub(super) fn ask(&self) {
        self.asked.send_replace(true);
    }

    /// A wish that comes through the control socket.
    pub(super) fn by_owner(&mut self) -> oneshot::Sender<()> {
        let (sender, receiver) = oneshot::channel();
        let asked = Arc::clone(&self.asked);
        self.tasks.spawn(async move {
            if receiver.await.is_ok() {
                asked.send_replace(true);
            }
        });
        sender
    }
}

/// Reads and forgets standard input until nobody holds its other end.
async fn read_to_end() {
    let (mut stdin, mut buffer) = (tokio::io::stdin(), [0; 1024]);
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => return, // An input that cannot be read has ended too.
            Ok(_ignored) => {}
        }
    }
}
