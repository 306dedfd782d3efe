//! Commits to one nonce and reveals another, so as to choose the seed.

use commons_exchange::message::{ToProvider, ToRequester};
use commons_record::seed::SeedTranscript;
use commons_record::{Hash, Nonce};

use super::peer::{RawPeer, Trouble};
use super::script::{Asking, Serving, receipt_message};
use crate::engine::SimModel;
use crate::life::NodeId;

/// Plays a requester; what the provider says to it after the reveal.
pub async fn ask(peer: &RawPeer<'_>, to: NodeId, model: Hash) -> Result<Vec<ToRequester>, Trouble> {
    let mut link = peer.connect(to, "infer/1").await?;
    let asking = Asking::new(peer, peer.standing(), to, model);
    asking.send(&mut link).await?;
    let _accepted: ToRequester = link.receive().await?;
    link.send(&ToProvider::Reveal { nonce: Nonce::from_bytes([9; 32]) }).await?;
    Ok(link.rest().await)
}

/// Plays a provider whose receipt names another seed than the one that was agreed on.
pub async fn serve(peer: &RawPeer<'_>, model: SimModel) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut link = peer.answer(&mut incoming).await?;
    let mut serving = Serving::take(peer, &mut link, model).await?;
    serving.begin(peer, &mut link).await?;
    serving.tokens(&mut link, 10).await?;
    let voucher = serving.finish(&mut link, 10).await?;
    let mut receipt = serving.receipt(&voucher);
    if let Some(SeedTranscript::Joint { provider_commit, .. }) = &mut receipt.seed {
        *provider_commit = Hash::of_content(b"another nonce");
    }
    link.send(&receipt_message(&peer.standing(), peer.sequence(), receipt)).await?;
    let _rest: Vec<ToProvider> = link.rest().await;
    Ok(())
}
