//! The part of the streams behaviour that lives with one connection.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use commons_record::PeerId;
use libp2p::core::upgrade::{InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionHandler, ConnectionHandlerEvent, StreamUpgradeError, SubstreamProtocol,
};
use libp2p::{Stream, StreamProtocol};

use super::{Accepting, Negotiated, OpenError, OpenRequest, Reply};

/// Streams that wait for their turn to be negotiated on one connection: a burst of requests.
const WAITING_MAX: usize = 64;

/// Streams being negotiated at once on one connection. The other side allows 128 by default and
/// drops what comes beyond; other behaviours need some too.
const NEGOTIATING_MAX: usize = 32;

/// A negotiation takes one round trip for each version that is refused.
const NEGOTIATION_TIMEOUT: Duration = Duration::from_secs(8);

/// What the behaviour tells a connection.
#[derive(Debug)]
pub(crate) enum FromStreams {
    Open(OpenRequest),
    Keep(bool),
}

/// One connection's streams.
#[derive(Debug)]
pub(crate) struct Handler {
    remote: PeerId,
    accepting: Arc<Accepting>,
    waiting: VecDeque<OpenRequest>,
    negotiating: usize,
    is_kept: bool,
    is_relayed: bool,
    waker: Option<Waker>,
}

impl Handler {
    pub(super) fn new(
        remote: PeerId,
        accepting: Arc<Accepting>,
        is_kept: bool,
        is_relayed: bool,
    ) -> Self {
        let waiting = VecDeque::new();
        Self { remote, accepting, waiting, negotiating: 0, is_kept, is_relayed, waker: None }
    }

    fn finish(&mut self, reply: Reply, result: Result<Negotiated, OpenError>) {
        self.negotiating = self.negotiating.saturating_sub(1);
        // Whoever asked may have given up: the stream is dropped, which closes it.
        let _ = reply.send(result);
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = FromStreams;
    type ToBehaviour = Infallible;
    type InboundProtocol = OneOf;
    type OutboundProtocol = OneOf;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Reply;

    fn listen_protocol(&self) -> SubstreamProtocol<OneOf> {
        SubstreamProtocol::new(OneOf(self.accepting.protocols()), ())
    }

    /// Streams in use hold a connection open by themselves. Idle ones are held for remembered
    /// peers, and only where they are direct: a relay should be free again once it is bypassed.
    fn connection_keep_alive(&self) -> bool {
        (self.is_kept && !self.is_relayed) || !self.waiting.is_empty() || self.negotiating > 0
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<OneOf, Reply, Infallible>> {
        while self.negotiating < NEGOTIATING_MAX {
            let Some(OpenRequest { protocols, reply }) = self.waiting.pop_front() else { break };
            if reply.is_closed() {
                continue;
            }
            self.negotiating += 1;
            let protocol =
                SubstreamProtocol::new(OneOf(protocols), reply).with_timeout(NEGOTIATION_TIMEOUT);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, event: FromStreams) {
        match event {
            FromStreams::Keep(is_kept) => self.is_kept = is_kept,
            FromStreams::Open(request) if self.waiting.len() < WAITING_MAX => {
                self.waiting.push_back(request);
            }
            FromStreams::Open(request) => {
                let detail = format!("{WAITING_MAX} streams are waiting to be opened already");
                let _ = request.reply.send(Err(OpenError::Unreachable(detail)));
            }
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, OneOf, OneOf, (), Reply>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (protocol, stream),
                ..
            }) => self.accepting.deliver(self.remote, &protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol,
                info: reply,
            }) => self.finish(reply, Ok(protocol)),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: reply }) => {
                let refusal = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::NoCommonProtocol,
                    StreamUpgradeError::Timeout => {
                        OpenError::Unreachable("it did not answer".to_owned())
                    }
                    StreamUpgradeError::Io(error) => OpenError::Unreachable(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                self.finish(reply, Err(refusal));
            }
            // Failed negotiations of the peer's own streams, and what identify says of it.
            _ => {}
        }
    }
}

/// An upgrade to whichever of these protocols the two sides agree on, with nothing on top.
#[derive(Debug, Clone)]
pub(crate) struct OneOf(Vec<StreamProtocol>);

impl UpgradeInfo for OneOf {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for OneOf {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}

impl OutboundUpgrade<Stream> for OneOf {
    type Output = Negotiated;
    type Error = Infallible;
    type Future = Ready<Result<Negotiated, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((protocol, stream)))
    }
}
