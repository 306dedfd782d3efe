//! Falls silent and holds the stream, without a heartbeat.

use commons_exchange::message::ToRequester;
use commons_record::{Hash, Millis};

use super::peer::{RawPeer, Trouble};
use super::script::{Asking, Serving};
use crate::engine::SimModel;
use crate::life::NodeId;

/// How far it goes before it falls silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// Nothing at all is said.
    Opened,
    /// The stream is sealed, and that is all.
    Sealed,
    /// An order was sent, or accepted.
    Ordered,
    /// The nonce was revealed, or the prompt read.
    Revealed,
    /// Some tokens were read, or sent.
    Streaming,
    /// Everything was said but the last voucher, or the receipt.
    Finished,
}

impl Point {
    /// All points.
    pub const ALL: [Self; 6] = [
        Self::Opened,
        Self::Sealed,
        Self::Ordered,
        Self::Revealed,
        Self::Streaming,
        Self::Finished,
    ];
}

/// Plays a requester that falls silent at `point` and holds the stream for `held`.
pub async fn ask(
    peer: &RawPeer<'_>,
    to: NodeId,
    model: Hash,
    point: Point,
    held: Millis,
) -> Result<(), Trouble> {
    if point == Point::Opened {
        let stream = peer.open(to, "infer/1").await?;
        peer.sleep(held).await;
        drop(stream);
        return Ok(());
    }
    let mut link = peer.connect(to, "infer/1").await?;
    let asking = Asking::new(peer, peer.standing(), to, model);
    if point != Point::Sealed {
        asking.send(&mut link).await?;
    }
    if matches!(point, Point::Revealed | Point::Streaming | Point::Finished) {
        let _accepted: ToRequester = link.receive().await?;
        asking.reveal(&mut link).await?;
    }
    let tokens = match point {
        Point::Streaming => 20,
        Point::Finished => usize::MAX,
        Point::Opened | Point::Sealed | Point::Ordered | Point::Revealed => 0,
    };
    for _ in 0..tokens {
        let message: ToRequester = link.receive().await?;
        if matches!(message, ToRequester::Finished { .. } | ToRequester::Receipt { .. }) {
            break;
        }
    }
    peer.sleep(held).await;
    Ok(())
}

/// Plays a provider that falls silent at `point` and holds the stream for `held`.
pub async fn serve(
    peer: &RawPeer<'_>,
    model: SimModel,
    point: Point,
    held: Millis,
) -> Result<(), Trouble> {
    let mut incoming = peer.accept("infer/1");
    let mut link = peer.answer(&mut incoming).await?;
    let mut serving = Serving::take(peer, &mut link, model).await?;
    match point {
        Point::Opened | Point::Sealed => {}
        Point::Ordered => {
            link.send(&serving.acceptance(&peer.standing(), peer.sequence())).await?;
        }
        Point::Revealed => serving.begin(peer, &mut link).await?,
        Point::Streaming => {
            serving.begin(peer, &mut link).await?;
            serving.tokens(&mut link, 40).await?;
        }
        Point::Finished => {
            serving.begin(peer, &mut link).await?;
            serving.tokens(&mut link, 40).await?;
            let _voucher = serving.finish(&mut link, 40).await?;
        }
    }
    peer.sleep(held).await;
    Ok(())
}
