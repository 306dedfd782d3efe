//! Telling the mesh what is new, and hearing it.

use std::sync::Arc;

use commons_port::net::{Acceptance, Validator};
use futures::StreamExt as _;

use super::{Item, ReceiveError, receive};
use crate::start::Inner;

/// Listens until the task is stopped.
pub(crate) async fn run(inner: Arc<Inner>) {
    let topic = inner.place().catalogue_topic();
    let mut gossip = inner.ports.net.subscribe(topic, validator(&inner));
    while let Some(message) = gossip.next().await {
        let Ok(item) = Item::decode(&message) else { continue };
        match receive(&inner, &item).await {
            Ok(admission) => tracing::trace!(?admission, "a record was told"),
            Err(ReceiveError::Unwanted(error)) => {
                tracing::debug!(%error, "a record that was told is not wanted");
            }
            // It is asked for again when the next peer is met.
            Err(ReceiveError::Storage(error)) => {
                tracing::error!(%error, "a record that was told could not be kept");
            }
        }
    }
}

/// Only what a member signed travels on (Rule C5).
fn validator(inner: &Arc<Inner>) -> Validator {
    let inner = Arc::downgrade(inner);
    Arc::new(move |message: &[u8]| {
        let Some(inner) = inner.upgrade() else { return Acceptance::Ignore };
        let Ok(item) = Item::decode(message) else { return Acceptance::Reject };
        match item.check_now(&inner.standing()) {
            Ok(_) => Acceptance::Accept,
            Err(error) if error.is_blameless() => Acceptance::Ignore,
            Err(_) => Acceptance::Reject,
        }
    })
}

/// Tells everyone. Whoever is not reached asks when it meets someone who was.
pub(crate) async fn tell(inner: &Arc<Inner>, item: &Item) {
    let topic = inner.place().catalogue_topic();
    if let Err(error) = inner.ports.net.publish(topic, item.encode()).await {
        tracing::debug!(%error, "a record was not gossiped");
    }
}
