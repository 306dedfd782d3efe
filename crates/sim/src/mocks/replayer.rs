//! Sends again what was good once.

use commons_exchange::message::{ToProvider, ToRequester};
use commons_record::Hash;

use super::peer::{RawPeer, Trouble};
use super::script::{Asking, Serving, receipt_message};
use crate::engine::SimModel;
use crate::life::NodeId;

/// An order that was served, ready to be sent again.
#[derive(Debug, Clone)]
pub struct Recording(Asking);

/// Has an order served as it should be, and keeps it.
pub async fn record(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
) -> Result<(Recording, Hash), Trouble> {
    let mut link = peer.connect(to, "infer/1").await?;
    let recording = Recording(Asking::new(peer, peer.standing(), to, model));
    let receipt = recording.0.clone().complete(peer, &mut link).await?;
    Ok((recording, receipt))
}

/// An order that was never sent, to be sent twice at once.
pub fn unsent(peer: &RawPeer<'_>, to: NodeId, model: Hash) -> Recording {
    Recording(Asking::new(peer, peer.standing(), to, model))
}

/// Sends a recorded order again; the first thing that the provider says to it.
pub async fn replay(
    peer: &RawPeer<'_>,
    to: NodeId,
    recording: &Recording,
) -> Result<ToRequester, Trouble> {
    let mut link = peer.connect(to, "infer/1").await?;
    recording.0.send(&mut link).await?;
    link.receive().await
}

/// Plays a provider that serves two orders and gives the second the receipt of the first.
pub async fn serve(peer: &RawPeer<'_>, model: SimModel) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut old = None;
    loop {
        let mut link = peer.answer(&mut incoming).await?;
        let mut serving = Serving::take(peer, &mut link, model.clone()).await?;
        serving.begin(peer, &mut link).await?;
        serving.tokens(&mut link, 10).await?;
        let voucher = serving.finish(&mut link, 10).await?;
        let fresh = receipt_message(&peer.standing(), peer.sequence(), serving.receipt(&voucher));
        let message = old.get_or_insert(fresh).clone();
        link.send(&message).await?;
        let _rest: Vec<ToProvider> = link.rest().await;
    }
}
