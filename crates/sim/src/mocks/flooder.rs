//! Sends more of everything than anyone takes.

use commons_exchange::message::{LoadQuestion, ToProvider, ToRequester};
use commons_record::Hash;

use super::peer::{RawLink, RawPeer, Trouble};
use super::script::{Asking, Serving};
use crate::engine::SimModel;
use crate::life::NodeId;

/// Opens streams until no more open or `count` stand, and holds them all.
pub async fn open_streams(
    peer: &RawPeer<'_>,
    to: NodeId,
    protocol: &str,
    count: usize,
) -> Vec<RawLink> {
    let mut links = Vec::new();
    for _ in 0..count {
        if let Ok(link) = peer.connect(to, protocol).await {
            links.push(link);
        }
    }
    links
}

/// Sends orders on as many streams, all good, all at once.
pub async fn order(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
    count: usize,
) -> Result<Vec<RawLink>, Trouble> {
    let mut links = open_streams(peer, to, "infer/1", count).await;
    for link in &mut links {
        // Those beyond the bound were reset.
        let _ = Asking::new(peer, peer.standing(), to, model).send(link).await;
    }
    Ok(links)
}

/// Begins an exchange and sends the same good messages over and over.
pub async fn repeat(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
    count: usize,
) -> Result<Vec<ToRequester>, Trouble> {
    let mut link = peer.connect(to, "infer/1").await?;
    let mut asking = Asking::new(peer, peer.standing(), to, model);
    asking.send(&mut link).await?;
    let _accepted: ToRequester = link.receive().await?;
    asking.reveal(&mut link).await?;
    let prefilled = link.receive().await?;
    asking.note(&prefilled);
    let voucher = asking.voucher(&peer.standing(), peer.sequence());
    for _ in 0..count {
        if link.send(&voucher).await.is_err() {
            break;
        }
    }
    Ok(link.rest().await)
}

/// Gossips noise, each message different.
pub async fn gossip(peer: &RawPeer<'_>, topic: &str, count: u64) {
    for number in 0..count {
        let noise = [number.to_be_bytes(); 20].concat();
        let _ = peer.ports.net.publish(topic.to_owned(), noise).await;
    }
}

/// Asks how busy a model is, over and over, without reading an answer.
pub async fn load(peer: &RawPeer<'_>, to: NodeId, model: Hash, count: usize) -> Vec<RawLink> {
    let mut links = open_streams(peer, to, "load/1", count).await;
    for link in &mut links {
        let _ = link.send(&LoadQuestion { model }).await;
    }
    links
}

/// What is too much of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// More tokens than were ordered.
    Tokens,
    /// All of them in one message, and again.
    Batches,
    /// A token with a megabyte of text.
    Text,
}

/// Plays a provider that gives too much.
pub async fn serve(peer: &RawPeer<'_>, model: SimModel, excess: Excess) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut link = peer.answer(&mut incoming).await?;
    let mut serving = Serving::take(peer, &mut link, model).await?;
    serving.begin(peer, &mut link).await?;
    let many: Vec<_> = (0..5_000).map(Serving::token).collect();
    let mut large = Serving::token(0);
    large.text = "x".repeat(1 << 20);
    // The requester hangs up in the middle: that is what is hoped for.
    let _ = match excess {
        Excess::Tokens => serving.tokens(&mut link, 5_000).await,
        Excess::Batches => link.send(&ToRequester::Tokens(many)).await,
        Excess::Text => link.send(&ToRequester::Tokens(vec![large])).await,
    };
    let _rest: Vec<ToProvider> = link.rest().await;
    Ok(())
}
