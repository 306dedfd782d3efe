//! Sends what means nothing: raw bytes, unsealed frames, sealed noise, wrong lengths.

use commons_exchange::message::{ToProvider, ToRequester};
use commons_record::{Hash, Millis};
use futures::AsyncReadExt as _;
use futures::AsyncWriteExt as _;

use super::peer::{RawLink, RawPeer, Trouble};
use super::script::{Asking, Serving};
use crate::engine::SimModel;
use crate::life::NodeId;

/// At which layer the garbage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Garbage {
    /// Bytes in place of the opening.
    Opening,
    /// A length class that no frame has.
    LengthClass,
    /// A frame of the right size that was not sealed.
    Unsealed,
    /// A sealed frame that holds no message.
    Sealed,
    /// An order with noise for a record.
    Order,
}

impl Garbage {
    /// All layers.
    pub const ALL: [Self; 5] =
        [Self::Opening, Self::LengthClass, Self::Unsealed, Self::Sealed, Self::Order];
}

/// Plays a requester; what the provider says to it.
pub async fn ask(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
    layer: Garbage,
) -> Result<Vec<ToRequester>, Trouble> {
    let noise: Vec<u8> = peer.cluster.rng("noise").bytes::<400>().to_vec();
    if layer == Garbage::Opening {
        let mut stream = peer.open(to, "infer/1").await?;
        // The other side may hang up in the middle, which is its right.
        let _ = stream.write_all(&noise).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        return Ok(Vec::new());
    }
    let mut link = peer.connect(to, "infer/1").await?;
    send(&mut link, layer, &noise).await?;
    if layer == Garbage::Order {
        let mut asking = Asking::new(peer, peer.standing(), to, model);
        asking.ask.order = noise.into();
        asking.send(&mut link).await?;
    }
    Ok(link.rest().await)
}

async fn send(link: &mut RawLink, layer: Garbage, noise: &[u8]) -> Result<(), Trouble> {
    match layer {
        Garbage::LengthClass => link.write(&[99; 300]).await,
        Garbage::Unsealed => link.write(&[[8].as_slice(), &noise[..256]].concat()).await,
        Garbage::Sealed => link.send_sealed(noise).await,
        Garbage::Opening | Garbage::Order => Ok(()),
    }
}

/// Plays a provider that answers an order with garbage, at once or in the middle.
pub async fn serve(
    peer: &RawPeer<'_>,
    model: SimModel,
    layer: Garbage,
    after_tokens: Option<u32>,
) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut link = peer.answer(&mut incoming).await?;
    let mut serving = Serving::take(peer, &mut link, model).await?;
    if let Some(count) = after_tokens {
        serving.begin(peer, &mut link).await?;
        serving.tokens(&mut link, count).await?;
    }
    let noise: Vec<u8> = peer.cluster.rng("noise").bytes::<400>().to_vec();
    send(&mut link, layer, &noise).await?;
    let _rest: Vec<ToProvider> = link.rest().await;
    peer.sleep(Millis(10)).await;
    Ok(())
}

/// Sends noise where single clear records are expected, under a length that is honest or not.
pub async fn talk(
    peer: &RawPeer<'_>,
    to: NodeId,
    protocol: &str,
    length: u32,
) -> Result<(), Trouble> {
    let mut stream = peer.open(to, protocol).await?;
    let noise: Vec<u8> = peer.cluster.rng("noise").bytes::<400>().to_vec();
    let _ = stream.write_all(&length.to_be_bytes()).await;
    let _ = stream.write_all(&noise).await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
    Ok(())
}
