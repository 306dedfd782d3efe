//! The handle: `Net` as messages to the host.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use commons_port::net::{
    Incoming, Net, NetError, Opened, PROVIDERS_MAX, Path, PeerEvent, Protocol, Validator,
};
use commons_port::{BoxFuture, BoxStream};
use commons_record::{Hash, PeerId};
use futures::{Stream, StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot, watch};

use crate::addr::{self, Book};
use crate::behaviour;
use crate::config::{MeshConfig, StartError};
use crate::gossip::SUBSCRIBER_BOUND;
use crate::host::{Command, Host, Listening};
use crate::peers::{self, Sessions, Standing};
use crate::redial::Redial;
use crate::streams::{self, Accepting, OpenError, OpenRequest};

/// Commands that wait for the host. Each belongs to a caller that waits with it, so the bound
/// only smooths bursts; beyond it callers wait to send.
const COMMAND_BOUND: usize = 256;

/// From the wish for a stream to the stream: a dial with its handshake (10 s at most), and a
/// negotiation. Whoever can go elsewhere sets a shorter limit.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(15);

/// Versions that one attempt offers: a protocol has a current one and a few that are ending.
pub const VERSIONS_MAX: usize = 8;

/// A node's place in a mesh. Clones are handles to the same host, which ends with the last.
#[derive(Debug, Clone)]
pub struct Mesh {
    local: PeerId,
    commands: mpsc::Sender<Command>,
    book: Arc<Book>,
    accepting: Arc<Accepting>,
    standing: watch::Receiver<Standing>,
}

impl Mesh {
    /// Starts a host on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its I/O and time drivers.
    pub fn start(config: MeshConfig) -> Result<Self, StartError> {
        config.check()?;
        let local = PeerId::from_key(config.key.public());
        let accepting = Arc::new(Accepting::default());
        let book = Arc::new(Book::new(config.limits.peers));
        let mut swarm = behaviour::swarm(&config, accepting.clone())?;
        let listening = Listening::start(&mut swarm, &config.listen, &config.external)?;
        let (sessions, standing) = Sessions::new();
        let redial = Redial::new(local, config.limits.peers_kept);
        let shared = (book.clone(), accepting.clone());
        let (commands, inbox) = mpsc::channel(COMMAND_BOUND);
        // Not kept: the task ends with its inbox, and `shutdown` waits for that.
        tokio::spawn(Host::new(swarm, listening, sessions, redial, shared).run(inbox));
        drop(config); // Wipes this copy of the key; the transports have their own.
        Ok(Self { local, commands, book, accepting, standing })
    }

    /// Ends the host, with goodbyes to the peers, and completes when it has ended. Dropping all
    /// handles does the same, in the background. A UDP port stays taken for a moment longer,
    /// while quinn waits for late packets.
    pub async fn shutdown(&self) {
        // If the host is gone already, there is nothing to tell it.
        let _ = self.commands.send(Command::Shutdown).await;
        self.commands.closed().await;
    }
}

impl Net for Mesh {
    fn local_peer(&self) -> PeerId {
        self.local
    }

    /// Waits until every listener has an address. Addresses do not end in `/p2p/..`: the peer is
    /// always named beside them, and a presence record has no room to say it twice.
    fn listen_addrs(&self) -> BoxFuture<'static, Vec<String>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            // A host that is gone listens nowhere.
            if commands.send(Command::ListenAddrs { reply }).await.is_err() {
                return Vec::new();
            }
            drop(commands);
            answer.await.unwrap_or_default()
        })
    }

    /// An empty list remembers the peer alone: its connections are then held open.
    fn add_addrs(&self, peer: PeerId, addrs: Vec<String>) -> Result<(), NetError> {
        if self.commands.is_closed() {
            return Err(NetError::Closed);
        }
        if peer == self.local {
            return Err(NetError::BadAddr { detail: "they are this node's own".to_owned() });
        }
        self.book.add(peer, addr::read(peer, &addrs)?);
        Ok(())
    }

    fn open(
        &self,
        peer: PeerId,
        protocols: Vec<Protocol>,
        path: Path,
    ) -> BoxFuture<'static, Result<Opened, NetError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            match path {
                Path::Direct => {}
                other => {
                    let detail = format!("no such path yet: {other:?}");
                    return Err(NetError::Unreachable { peer, detail });
                }
            }
            tokio::time::timeout(OPEN_TIMEOUT, open(commands, peer, protocols))
                .await
                .unwrap_or_else(|_| {
                    let detail = format!("nothing within {} s", OPEN_TIMEOUT.as_secs());
                    Err(NetError::Unreachable { peer, detail })
                })
        })
    }

    /// The latest acceptor of a protocol gets its streams. Ends when others have taken all of
    /// its protocols over, or with the host.
    fn accept(&self, protocols: Vec<Protocol>) -> BoxStream<'static, Incoming> {
        Box::pin(Received(self.accepting.register(protocols)))
    }

    /// Success means that the message is on its way to whoever is subscribed and connected, or
    /// kept a short while for the first who will be. It is not delivered to ourselves.
    fn publish(&self, topic: String, message: Vec<u8>) -> BoxFuture<'static, Result<(), NetError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let command = Command::Publish { topic, message, reply };
            commands.send(command).await.map_err(|_| NetError::Closed)?;
            drop(commands);
            answer.await.unwrap_or(Err(NetError::Closed))
        })
    }

    /// A subscriber that reads too slowly misses messages.
    fn subscribe(&self, topic: String, validator: Validator) -> BoxStream<'static, Vec<u8>> {
        let (deliver, messages) = mpsc::channel(SUBSCRIBER_BOUND);
        let messages = Received(messages);
        let command = Command::Subscribe { topic, validator, deliver };
        match self.commands.try_send(command) {
            // If the host is gone, so is the sender: the stream is at its end.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Box::pin(messages),
            // A rare burst: the subscription then begins when the stream is first read.
            Err(mpsc::error::TrySendError::Full(command)) => {
                let commands = self.commands.clone();
                let sent = async move {
                    let _ = commands.send(command).await; // Closed: as above.
                    messages
                };
                Box::pin(stream::once(sent).flatten())
            }
        }
    }

    fn provide(&self, key: Hash, is_on: bool) -> BoxFuture<'static, Result<(), NetError>> {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            let command = Command::Provide { key, is_on, reply };
            commands.send(command).await.map_err(|_| NetError::Closed)?;
            drop(commands);
            answer.await.unwrap_or(Err(NetError::Closed))
        })
    }

    /// A search takes a minute at most; kad gives up then.
    fn providers(&self, key: Hash) -> BoxStream<'static, PeerId> {
        let commands = self.commands.clone();
        let found = async move {
            let (deliver, found) = mpsc::channel(PROVIDERS_MAX);
            // A host that is gone finds nobody: the stream is at its end.
            let _ = commands.send(Command::FindProviders { key, deliver }).await;
            Received(found)
        };
        Box::pin(stream::once(found).flatten())
    }

    /// A slow reader is told the difference between what it saw last and what is now.
    fn peer_events(&self) -> BoxStream<'static, PeerEvent> {
        peers::events(self.standing.clone())
    }
}

async fn open(
    commands: mpsc::Sender<Command>,
    peer: PeerId,
    protocols: Vec<Protocol>,
) -> Result<Opened, NetError> {
    let protocols: Vec<Protocol> = protocols.into_iter().take(VERSIONS_MAX).collect();
    let names: Vec<_> = protocols.iter().filter_map(streams::name).collect();
    if names.is_empty() {
        return Err(NetError::NoCommonProtocol { peer });
    }
    let (reply, answer) = oneshot::channel();
    let request = OpenRequest { protocols: names, reply };
    commands.send(Command::Open { peer, request }).await.map_err(|_| NetError::Closed)?;
    // From here on the host must be free to end with its handles.
    let closed = commands.downgrade();
    drop(commands);
    match answer.await {
        Ok(Ok((name, stream))) => {
            let agreed = protocols.into_iter().find(|it| it.as_str() == name.as_ref());
            let protocol = agreed.ok_or(NetError::NoCommonProtocol { peer })?;
            Ok(Opened { protocol, stream: Box::new(stream) })
        }
        Ok(Err(OpenError::NoCommonProtocol)) => Err(NetError::NoCommonProtocol { peer }),
        Ok(Err(OpenError::Unreachable(detail))) => Err(NetError::Unreachable { peer, detail }),
        Err(_) if closed.upgrade().is_none_or(|commands| commands.is_closed()) => {
            Err(NetError::Closed)
        }
        Err(_) => Err(NetError::Unreachable { peer, detail: "the connection was lost".to_owned() }),
    }
}

/// A channel's receiving half as a stream.
struct Received<T>(mpsc::Receiver<T>);

impl<T> Stream for Received<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}
