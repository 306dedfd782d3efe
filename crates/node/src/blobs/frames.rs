//! Frames on a stream: a message, and the raw bytes behind it.

use bytes::{Bytes, BytesMut};
use commons_port::net::BoxDuplex;
use commons_swarm::wire::{FRAME_HEAD_LEN, Message, WireError, message_len};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

/// Frames that wait for a slow reader.
pub(super) const QUEUE_LEN: usize = 16;

/// Raw bytes are read in parts of this size, so that progress is heard.
const PART_LEN: usize = 128 * 1024;

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("the stream broke")]
    Io(#[from] std::io::Error),

    #[error(transparent)]
    Wire(#[from] WireError),
}

/// A frame that is to be sent.
pub(super) struct Frame {
    head: Vec<u8>,
    raw: Bytes,
    /// Dropped or used when the frame has left, or never will.
    _left: Option<oneshot::Sender<()>>,
}

impl Frame {
    pub(super) fn of(message: &impl Message) -> Self {
        Self { head: message.to_frame(), raw: Bytes::new(), _left: None }
    }

    /// A frame with raw bytes. The receiver completes when it has left, or never will.
    pub(super) fn with_raw(message: &impl Message, raw: Bytes) -> (Self, oneshot::Receiver<()>) {
        let (tx, rx) = oneshot::channel();
        (Self { head: message.to_frame(), raw, _left: Some(tx) }, rx)
    }
}

/// Sends frames until the queue's senders are gone or the stream breaks.
pub(super) async fn write_all(mut queue: mpsc::Receiver<Frame>, mut writer: WriteHalf<BoxDuplex>) {
    let write = async {
        while let Some(frame) = queue.recv().await {
            writer.write_all(&frame.head).await?;
            writer.write_all(&frame.raw).await?;
            writer.flush().await?;
        }
        writer.close().await
    };
    if let Err(error) = write.await {
        let error: std::io::Error = error;
        // The reader of the stream sees the same break and ends what depends on it.
        tracing::debug!(%error, "a stream of blobs could not be written");
    }
}

/// Reads one message; raw bytes may follow it.
pub(super) async fn read<M: Message>(reader: &mut ReadHalf<BoxDuplex>) -> Result<M, FrameError> {
    let mut head = [0; FRAME_HEAD_LEN];
    reader.read_exact(&mut head).await?;
    let mut bytes = vec![0; message_len(head)?];
    reader.read_exact(&mut bytes).await?;
    Ok(M::from_bytes(&bytes)?)
}

/// Reads raw bytes, and says after each part how many it had.
pub(super) async fn read_raw(
    reader: &mut ReadHalf<BoxDuplex>,
    len: u32,
    mut heard: impl FnMut(u32),
) -> Result<Bytes, FrameError> {
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    let mut bytes = BytesMut::zeroed(len);
    for part in bytes.chunks_mut(PART_LEN) {
        reader.read_exact(part).await?;
        heard(u32::try_from(part.len()).unwrap_or(0));
    }
    Ok(bytes.freeze())
}

/// Reads past raw bytes that nobody waits for.
pub(super) async fn skip_raw(reader: &mut ReadHalf<BoxDuplex>, len: u32) -> Result<(), FrameError> {
    let mut left = usize::try_from(len).unwrap_or(usize::MAX);
    let mut part = vec![0; PART_LEN.min(left)];
    while left > 0 {
        let now = left.min(part.len());
        reader.read_exact(&mut part[..now]).await?;
        left -= now;
    }
    Ok(())
}
