//! Nodes for tests, and waits that fail instead of hanging.

use std::sync::Arc;
use std::time::Duration;

use commons_mesh::{Mesh, MeshConfig, install_crypto_provider};
use commons_port::BoxStream;
use commons_port::net::{
    Acceptance, BoxDuplex, Net as _, NetError, Path, PeerEvent, Protocol, Validator,
};
use commons_record::{PeerId, SecretKey};
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{AsyncRead, AsyncWrite, StreamExt as _};
use tokio::task::JoinHandle;

/// Far beyond what any wait of these tests takes, even on a machine under load.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
pub(crate) const TCP: &str = "/ip4/127.0.0.1/tcp/0";

/// Waits for an event that must come.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, event).await;
    waited.unwrap_or_else(|elapsed| panic!("waited in vain for {what}: {elapsed}"))
}

pub(crate) fn config(seed: u8, listen: &[&str]) -> MeshConfig {
    install_crypto_provider();
    let mut config = MeshConfig::new(SecretKey::from_seed(&[seed; 32]), "0123456789abcdef");
    config.listen = listen.iter().map(|addr| (*addr).to_owned()).collect();
    config
}

/// A node that listens on both transports.
pub(crate) fn node(seed: u8) -> Mesh {
    node_on(seed, &[QUIC, TCP])
}

pub(crate) fn node_on(seed: u8, listen: &[&str]) -> Mesh {
    Mesh::start(config(seed, listen)).unwrap()
}

pub(crate) async fn addrs(node: &Mesh) -> Vec<String> {
    within("the node's addresses", node.listen_addrs()).await
}

/// Tells `one` where `other` is.
pub(crate) async fn introduce(one: &Mesh, other: &Mesh) {
    one.add_addrs(other.local_peer(), addrs(other).await).unwrap();
}

pub(crate) fn protocol(id: &str) -> Protocol {
    Protocol::new(id).unwrap()
}

pub(crate) async fn open(
    from: &Mesh,
    to: PeerId,
    ids: &[&str],
) -> Result<(Protocol, BoxDuplex), NetError> {
    let protocols = ids.iter().map(|id| protocol(id)).collect();
    let opened = within("a stream", from.open(to, protocols, Path::Direct)).await?;
    Ok((opened.protocol, opened.stream))
}

/// Sends everything back that peers send, on as many streams as they open.
pub(crate) fn echo(node: &Mesh, ids: &[&str]) -> JoinHandle<()> {
    let mut incoming = node.accept(ids.iter().map(|id| protocol(id)).collect());
    tokio::spawn(async move {
        while let Some(incoming) = incoming.next().await {
            tokio::spawn(async move {
                let (reader, mut writer) = incoming.stream.split();
                let copied = futures::io::copy(reader, &mut writer).await;
                if copied.is_ok() {
                    let _ = writer.close().await; // The peer may have gone: then it is closed.
                }
            });
        }
    })
}

/// Sends `said` and a close, and reads what comes back.
pub(crate) async fn ask(stream: BoxDuplex, said: &[u8]) -> std::io::Result<Vec<u8>> {
    let (mut reader, mut writer) = stream.split();
    let say = async {
        writer.write_all(said).await?;
        writer.close().await
    };
    let mut heard = Vec::new();
    let (sent, read) =
        within("an echo", futures::future::join(say, reader.read_to_end(&mut heard))).await;
    sent.and(read)?;
    Ok(heard)
}

/// One word there and back, without closing.
pub(crate) async fn ping_pong(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let exchange = async {
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.map(|()| back)
    };
    assert_eq!(&within("a pong", exchange).await.unwrap(), b"ping");
}

/// Waits until a peer is told as connected; gives the address that it is told at.
pub(crate) async fn connected(events: &mut BoxStream<'static, PeerEvent>, peer: PeerId) -> String {
    within("a connection", async {
        loop {
            match events.next().await.expect("the host is there") {
                PeerEvent::Connected { peer: it, addr } if it == peer => return addr,
                PeerEvent::Connected { .. } | PeerEvent::Disconnected { .. } => {}
            }
        }
    })
    .await
}

/// Waits until a peer is told as gone.
pub(crate) async fn disconnected(events: &mut BoxStream<'static, PeerEvent>, peer: PeerId) {
    let gone = PeerEvent::Disconnected { peer };
    within("a disconnection", async {
        while events.next().await.expect("the host is there") != gone {}
    })
    .await;
}

/// Judges a message by its first word: `bad` is rejected, `old` ignored, all else accepted.
pub(crate) fn judge() -> Validator {
    Arc::new(|message| match message.get(..3) {
        Some(b"bad") => Acceptance::Reject,
        Some(b"old") => Acceptance::Ignore,
        _ => Acceptance::Accept,
    })
}
