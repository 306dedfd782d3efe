//! Takes one file from outside into the blob store: `swarm::outside::pull`, performed.
//!
//! ```text
//! what is kept -> Pull --Fetch--> Origin --bytes--> Receiving --Kept--> Pull ... --Finish--> a blob
//! ```
//!
//! [`pull`] is a future: dropping it stops the file where it stands, and the next one goes on
//! there. [`together::pull_in_turn`] starts and drops it as it is this node's turn among others.
//!
//! # Invariants
//!
//! * A byte is kept before the next one is read: what is slow here slows the place.
//! * A file that is known by its SHA-256 is not asked for at all.
//! * No byte is kept beyond the size that was listed.
//!
//! Not here: when a place is asked again, and whose turn it is (the machines decide).

pub mod together;

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use commons_port::blobs::{AddEvent, BlobError, Blobs, Receiving};
use commons_port::hub::{Digest, Fetched, Origin, OriginError, OriginFile};
use commons_port::time::{Clock, Entropy, draw};
use commons_port::{BoxFuture, BoxStream};
use commons_record::{Hash, Millis};
use commons_swarm::outside::file_key;
use commons_swarm::outside::pull::{GiveUp, Input, Output, Policy, Pull};
use futures::StreamExt as _;
use tokio::sync::watch;

/// A write of 128 KiB is over long before; another pull of the same file is not.
const BUSY_MAX: u32 = 5;

/// Between two looks.
const BUSY_WAIT: Millis = Millis(200);

/// What a pull needs of the machine that it runs on.
#[derive(Clone)]
#[expect(missing_docs, reason = "the traits say what each is")]
pub struct OutsidePorts {
    pub origin: Arc<dyn Origin>,
    pub blobs: Arc<dyn Blobs>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
}

impl std::fmt::Debug for OutsidePorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OutsidePorts")
    }
}

/// How far a file is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are kept.
    pub kept: u64,
    /// Bytes in all.
    pub size: u64,
    /// What is done now.
    pub stage: Stage,
}

/// What is done for a file now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// The place was asked.
    #[default]
    Asking,
    /// Bytes come.
    Receiving,
    /// The place is asked again then, by this node's clock.
    Waiting {
        /// When.
        until: Millis,
    },
    /// All bytes are here and are hashed.
    Hashing,
}

/// Why a file is not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the `#[error]` text documents each variant")]
pub enum OutsideError {
    #[error("{path} did not come from outside: {reason}")]
    GaveUp { path: String, reason: GiveUp },

    #[error("{path} could not be kept: {reason}")]
    NotKept { path: String, reason: BlobError },
}

/// Takes a file of a listing in, from where it stood, and says what blob it is.
pub async fn pull(
    ports: OutsidePorts,
    file: OriginFile,
    policy: Policy,
    progress: watch::Sender<Progress>,
) -> Result<Hash, OutsideError> {
    let path = file.path.clone();
    let not_kept = |reason| OutsideError::NotKept { path: path.clone(), reason };
    if let Some(blob) = known(&ports, &file).await.map_err(not_kept)? {
        return Ok(blob);
    }
    let key = file_key(&file).to_string();
    let receiving = receive(&ports, &key, file.size).await.map_err(not_kept)?;
    let seed = Hash::from_bytes(draw::<32>(ports.entropy.as_ref()));
    let machine = Pull::new(file.size, seed, policy);
    let run = Run {
        ports,
        file,
        machine,
        receiving: Some(receiving),
        asked: None,
        bytes: None,
        timer: None,
        blob: None,
        progress,
    };
    match run.run().await {
        Ok(Ok(blob)) => Ok(blob),
        Ok(Err(reason)) => Err(OutsideError::GaveUp { path, reason }),
        Err(reason) => Err(not_kept(reason)),
    }
}

/// Opens what is kept. A pull that was dropped a moment ago may still be writing its last bytes.
async fn receive(
    ports: &OutsidePorts,
    key: &str,
    size: u64,
) -> Result<Box<dyn Receiving>, BlobError> {
    for _ in 1..BUSY_MAX {
        match ports.blobs.receive(key.to_owned(), size).await {
            Err(BlobError::Busy { .. }) => {
                let later = ports.clock.now().saturating_add(BUSY_WAIT);
                ports.clock.sleep_until(later).await;
            }
            other => return other,
        }
    }
    ports.blobs.receive(key.to_owned(), size).await
}

/// The blob that a file is, if this node holds it whole.
async fn known(ports: &OutsidePorts, file: &OriginFile) -> Result<Option<Hash>, BlobError> {
    let blob = match file.digest {
        Some(Digest::Sha256(sha256)) => ports.blobs.by_sha256(sha256).await?,
        Some(Digest::Blake3(blob)) => Some(blob),
        Some(Digest::GitSha1(_)) | None => None,
    };
    let Some(blob) = blob else { return Ok(None) };
    let info = ports.blobs.info(blob).await?;
    Ok(info.filter(|it| it.is_whole() && it.size == file.size).map(|it| it.blob))
}

struct Run {
    ports: OutsidePorts,
    file: OriginFile,
    machine: Pull,
    /// None once it was finished.
    receiving: Option<Box<dyn Receiving>>,
    asked: Option<(u32, BoxFuture<'static, Result<Fetched, OriginError>>)>,
    bytes: Option<(u32, BoxStream<'static, Result<bytes::Bytes, OriginError>>)>,
    timer: Option<Millis>,
    blob: Option<Hash>,
    progress: watch::Sender<Progress>,
}

impl Run {
    async fn run(mut self) -> Result<Result<Hash, GiveUp>, BlobError> {
        let kept = self.receiving.as_ref().map_or(0, |it| it.len());
        let mut inputs = VecDeque::from([Input::Start { kept }]);
        loop {
            let input = match inputs.pop_front() {
                Some(input) => input,
                None => self.next().await?,
            };
            for output in self.machine.step(self.ports.clock.now(), input) {
                match output {
                    Output::Done => match self.blob {
                        Some(blob) => return Ok(Ok(blob)),
                        None => return Ok(Err(GiveUp::WrongHash)),
                    },
                    Output::GiveUp(reason) => {
                        self.forget(&reason).await?;
                        return Ok(Err(reason));
                    }
                    Output::Finish => inputs.push_back(self.finish().await?),
                    other => self.perform(other).await?,
                }
            }
        }
    }

    async fn perform(&mut self, output: Output) -> Result<(), BlobError> {
        match output {
            Output::Fetch { attempt, offset } => {
                let asked = self.ports.origin.fetch(self.file.clone(), offset);
                self.asked = Some((attempt, asked));
                self.show(Stage::Asking);
            }
            Output::Stop { .. } => (self.asked, self.bytes) = (None, None),
            Output::Restart => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.restart().await?;
                }
            }
            Output::SetTimer(at) => {
                self.timer = Some(at);
                if self.asked.is_none() && self.bytes.is_none() {
                    self.show(Stage::Waiting { until: at });
                }
            }
            Output::Refuse | Output::Finish | Output::Done | Output::GiveUp(_) => {}
        }
        Ok(())
    }

    /// Waits for whatever comes first.
    async fn next(&mut self) -> Result<Input, BlobError> {
        let Self { ports, asked, bytes, timer, .. } = self;
        let fires = async {
            match timer {
                Some(at) => ports.clock.sleep_until(*at).await,
                None => pending().await,
            }
        };
        let opens = async {
            match asked {
                Some((attempt, asked)) => (*attempt, asked.await),
                None => pending().await,
            }
        };
        let comes = async {
            match bytes {
                Some((attempt, bytes)) => (*attempt, bytes.next().await),
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = fires => {
                self.timer = None;
                Ok(Input::TimerFired)
            }
            (attempt, opened) = opens => {
                self.asked = None;
                Ok(match opened {
                    Ok(Fetched { offset, bytes }) => {
                        self.bytes = Some((attempt, bytes));
                        Input::Opened { attempt, offset }
                    }
                    Err(error) => Input::Failed { attempt, error },
                })
            }
            (attempt, next) = comes => match next {
                Some(Ok(bytes)) => self.keep(attempt, bytes).await,
                Some(Err(error)) => {
                    self.bytes = None;
                    Ok(Input::Failed { attempt, error })
                }
                None => {
                    self.bytes = None;
                    Ok(Input::Ended { attempt })
                }
            },
        }
    }

    async fn keep(&mut self, attempt: u32, bytes: bytes::Bytes) -> Result<Input, BlobError> {
        let Some(receiving) = &mut self.receiving else { return Ok(Input::Ended { attempt }) };
        let room = self.file.size.saturating_sub(receiving.len());
        if bytes.len() as u64 > room {
            self.bytes = None;
            let detail = "it sends more bytes than the file has".to_owned();
            let error = OriginError::Broken { host: self.file.path.clone(), detail };
            return Ok(Input::Failed { attempt, error });
        }
        receiving.append(bytes).await?;
        let len = receiving.len();
        self.show(Stage::Receiving);
        Ok(Input::Kept { attempt, len })
    }

    async fn finish(&mut self) -> Result<Input, BlobError> {
        self.show(Stage::Hashing);
        let Some(receiving) = self.receiving.take() else {
            return Ok(Input::Hashed { is_right: false });
        };
        let sha256 = match self.file.digest {
            Some(Digest::Sha256(sha256)) => Some(sha256),
            _ => None,
        };
        let held = match receiving.finish(sha256).await {
            Ok(AddEvent::Held { blob, .. }) => blob,
            Ok(AddEvent::Progress { .. }) | Err(BlobError::WrongDigest { .. }) => {
                return Ok(Input::Hashed { is_right: false });
            }
            Err(error) => return Err(error),
        };
        // A blob that is not the one that was asked for is nobody's: it goes when room is needed.
        let is_right = match self.file.digest {
            Some(Digest::Blake3(want)) => want == held,
            _ => true,
        };
        self.blob = Some(held);
        Ok(Input::Hashed { is_right })
    }

    /// What is kept of a file that is another one now is of no use.
    async fn forget(&mut self, reason: &GiveUp) -> Result<(), BlobError> {
        match (&mut self.receiving, reason) {
            (Some(receiving), GiveUp::Refused(OriginError::Changed { .. })) => {
                receiving.restart().await
            }
            _ => Ok(()),
        }
    }

    fn show(&self, stage: Stage) {
        let kept = self.receiving.as_ref().map_or(self.file.size, |it| it.len());
        self.progress.send_replace(Progress { kept, size: self.file.size, stage });
    }
}

#[cfg(test)]
mod tests;
