//! Streams as queues of messages.
//!
//! A [`Link`] is one end of an exchange: a bounded queue out and a bounded queue in. Over the
//! mesh two tasks stand behind it that seal, frame, read and open; in one node the two ends are
//! tied together. The machines' shells cannot tell which it is.

use commons_exchange::message::{Message, WireCode, WireRefusal};
use commons_exchange::sealed::{
    Channel, HpkeSecret, OPENING_LEN, Opener, SealError, Sealer, frame_body_len,
};
use commons_port::BoxFuture;
use commons_port::net::BoxDuplex;
use commons_record::codec::DecodeError;
use commons_record::{Hash, HpkeKey};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::tasks::Tasks;

/// Messages that wait on either side. Small, so that a slow reader is felt by the writer soon.
const QUEUE_LEN: usize = 16;

/// Records in clear frames (hello, join) are single records.
const CLEAR_SIZE_MAX: usize = 128 * 1024;

/// Why a stream could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the stream broke: {0}")]
    Io(#[from] std::io::Error),

    #[error(transparent)]
    Seal(#[from] SealError),

    #[error(transparent)]
    Decode(#[from] DecodeError),

    #[error("a message of {size} bytes is more than the {max} allowed here")]
    TooLarge { size: usize, max: usize },
}

impl WireError {
    /// What the machine is told.
    pub(crate) fn refusal(&self) -> WireRefusal {
        let code = match self {
            Self::Io(_) => WireCode::Disconnected,
            Self::Seal(_) | Self::Decode(_) | Self::TooLarge { .. } => WireCode::ProtocolViolation,
        };
        WireRefusal::new(code, self.to_string())
    }
}

/// One end of an exchange.
pub(crate) struct Link<Out, In> {
    /// Messages to the other side. Dropping it ends the stream once all are sent.
    pub(crate) tx: mpsc::Sender<Out>,
    /// Messages from the other side, and at most one reason why no more follow.
    pub(crate) rx: mpsc::Receiver<Result<In, WireRefusal>>,
    /// Completes when everything that was sent has left.
    pub(crate) flushed: oneshot::Receiver<()>,
}

/// Two ends in one node.
pub(crate) fn local_link<A: Send + 'static, B: Send + 'static>(
    tasks: &Tasks,
) -> (Link<A, B>, Link<B, A>) {
    let ((a_tx, a_rx), (b_tx, b_rx)) = (mpsc::channel(QUEUE_LEN), mpsc::channel(QUEUE_LEN));
    let (a_in, a_flushed) = relay(tasks, b_rx);
    let (b_in, b_flushed) = relay(tasks, a_rx);
    (
        Link { tx: a_tx, rx: a_in, flushed: b_flushed },
        Link { tx: b_tx, rx: b_in, flushed: a_flushed },
    )
}

/// Carries one direction of a local link, so that its end looks like a stream's end.
fn relay<T: Send + 'static>(
    tasks: &Tasks,
    mut from: mpsc::Receiver<T>,
) -> (mpsc::Receiver<Result<T, WireRefusal>>, oneshot::Receiver<()>) {
    let (tx, rx) = mpsc::channel(1);
    let (done_tx, done) = oneshot::channel();
    let carry = async move {
        while let Some(message) = from.recv().await {
            if tx.send(Ok(message)).await.is_err() {
                break;
            }
        }
        // The other end may not be listening for this any more.
        let _ = done_tx.send(());
    };
    tasks.start("local link", Box::pin(carry));
    (rx, done)
}

/// Opens the sealed side of a stream to `provider` and stands a link on it.
pub(crate) async fn connect<Out: Message + Send + 'static, In: Message + Send + 'static>(
    tasks: &Tasks,
    mut stream: BoxDuplex,
    entropy: [u8; 32],
    mesh: &Hash,
    provider: &HpkeKey,
) -> Result<Link<Out, In>, WireError> {
    let (channel, opening) = Channel::connect(entropy, mesh, provider)?;
    stream.write_all(&opening).await?;
    Ok(link(tasks, stream, channel))
}

/// Answers a sealed stream.
pub(crate) async fn accept<Out: Message + Send + 'static, In: Message + Send + 'static>(
    tasks: &Tasks,
    mut stream: BoxDuplex,
    secret: &HpkeSecret,
    mesh: &Hash,
) -> Result<Link<Out, In>, WireError> {
    let mut opening = [0; OPENING_LEN];
    stream.read_exact(&mut opening).await?;
    let channel = Channel::accept(secret, mesh, &opening)?;
    Ok(link(tasks, stream, channel))
}

fn link<Out: Message + Send + 'static, In: Message + Send + 'static>(
    tasks: &Tasks,
    stream: BoxDuplex,
    channel: Channel,
) -> Link<Out, In> {
    let (reader, writer) = stream.split();
    let (tx, outgoing) = mpsc::channel(QUEUE_LEN);
    let (incoming, rx) = mpsc::channel(QUEUE_LEN);
    let (done, flushed) = oneshot::channel();
    tasks.start("link writer", Box::pin(write_all(outgoing, writer, channel.sealer, done)));
    tasks.start("link reader", Box::pin(read_all(reader, channel.opener, incoming)));
    Link { tx, rx, flushed }
}

async fn write_all<Out: Message + Send>(
    mut outgoing: mpsc::Receiver<Out>,
    mut writer: WriteHalf<BoxDuplex>,
    mut sealer: Sealer,
    mut done: oneshot::Sender<()>,
) {
    let write: BoxFuture<'_, Result<(), WireError>> = Box::pin(async {
        while let Some(message) = outgoing.recv().await {
            writer.write_all(&sealer.seal(&message.to_bytes())?).await?;
            writer.flush().await?;
        }
        Ok(writer.close().await?)
    });
    tokio::select! {
        biased;
        written = write => {
            if let Err(error) = written {
                // The reader sees the same break and tells the machine.
                tracing::debug!(%error, "a stream could not be written");
            }
            let _ = done.send(());
        }
        // Nobody waits for it any more: a peer that reads nothing does not hold this task.
        () = done.closed() => {}
    }
}

async fn read_all<In: Message>(
    mut reader: ReadHalf<BoxDuplex>,
    mut opener: Opener,
    incoming: mpsc::Sender<Result<In, WireRefusal>>,
) {
    loop {
        let next = tokio::select! {
            biased;
            // The exchange is over: a peer that holds the stream does not hold this task.
            () = incoming.closed() => return,
            next = read_frame(&mut reader, &mut opener) => next,
        };
        let next = next.and_then(|bytes| Ok(In::from_bytes(&bytes)?));
        let is_last = next.is_err();
        let next = next.map_err(|error| error.refusal());
        if incoming.send(next).await.is_err() || is_last {
            return;
        }
    }
}

async fn read_frame(
    reader: &mut ReadHalf<BoxDuplex>,
    opener: &mut Opener,
) -> Result<Vec<u8>, WireError> {
    let mut class = [0];
    reader.read_exact(&mut class).await?;
    let mut body = vec![0; frame_body_len(class[0])?];
    reader.read_exact(&mut body).await?;
    Ok(opener.open(class[0], &body)?)
}

/// Writes one clear message: its length as four big-endian bytes, then the message.
pub(crate) async fn write_clear(stream: &mut BoxDuplex, message: &[u8]) -> Result<(), WireError> {
    let size = message.len();
    let too_large = || WireError::TooLarge { size, max: CLEAR_SIZE_MAX };
    let length = u32::try_from(size).ok().filter(|_| size <= CLEAR_SIZE_MAX);
    stream.write_all(&length.ok_or_else(too_large)?.to_be_bytes()).await?;
    stream.write_all(message).await?;
    Ok(stream.flush().await?)
}

/// Writes the last clear message of a stream. A stream that is dropped without this may take
/// what is under way with it.
pub(crate) async fn finish_clear(stream: &mut BoxDuplex, message: &[u8]) -> Result<(), WireError> {
    write_clear(stream, message).await?;
    Ok(stream.close().await?)
}

/// Reads one clear message of bounded length.
pub(crate) async fn read_clear(stream: &mut BoxDuplex) -> Result<Vec<u8>, WireError> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await?;
    let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if size > CLEAR_SIZE_MAX {
        return Err(WireError::TooLarge { size, max: CLEAR_SIZE_MAX });
    }
    let mut message = vec![0; size];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
