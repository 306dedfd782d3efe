//! Signs with a key that is not its own.

use commons_exchange::message::{ToProvider, ToRequester};
use commons_record::Hash;

use super::peer::{RawPeer, Trouble};
use super::script::{Asking, Serving, receipt_message};
use crate::engine::SimModel;
use crate::life::NodeId;

/// What is signed with the foreign key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forged {
    /// A requester's order, or a provider's manifest.
    First,
    /// A requester's voucher, or a provider's receipt.
    Last,
}

/// Plays a requester; what the provider says to it.
pub async fn ask(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
    forged: Forged,
) -> Result<Vec<ToRequester>, Trouble> {
    let mut link = peer.connect(to, "infer/1").await?;
    let standing = match forged {
        Forged::First => peer.forged_standing(),
        Forged::Last => peer.standing(),
    };
    let mut asking = Asking::new(peer, standing, to, model);
    asking.send(&mut link).await?;
    let mut heard = Vec::new();
    if forged == Forged::Last {
        heard.push(link.receive().await?);
        asking.reveal(&mut link).await?;
        while heard.len() < 30 {
            let message = link.receive().await?;
            asking.note(&message);
            heard.push(message);
        }
        link.send(&asking.voucher(&peer.forged_standing(), peer.sequence())).await?;
    }
    heard.extend(link.rest().await);
    Ok(heard)
}

/// Plays a provider.
pub async fn serve(peer: &RawPeer<'_>, model: SimModel, forged: Forged) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut link = peer.answer(&mut incoming).await?;
    let mut serving = Serving::take(peer, &mut link, model).await?;
    match forged {
        Forged::First => {
            link.send(&serving.acceptance(&peer.forged_standing(), peer.sequence())).await?;
        }
        Forged::Last => {
            serving.begin(peer, &mut link).await?;
            serving.tokens(&mut link, 10).await?;
            let voucher = serving.finish(&mut link, 10).await?;
            let receipt = serving.receipt(&voucher);
            let message = receipt_message(&peer.forged_standing(), peer.sequence(), receipt);
            link.send(&message).await?;
        }
    }
    let _rest: Vec<ToProvider> = link.rest().await;
    Ok(())
}
