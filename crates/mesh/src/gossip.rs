//! Gossip: topics, their judges, and messages that nobody was there for yet.
//!
//! A message is one signed record, so gossipsub does not sign again: messages carry no author,
//! sequence number or signature of the publishing node ("anonymous" in gossipsub's words), and
//! whoever adds one is refused. A message's id is the hash of its topic and content: the same
//! record sent by two nodes, or twice by one, travels once within [`SEEN_TIME`].
//!
//! Nothing is relayed before it was judged: `Accept` relays, `Ignore` drops, `Reject` drops and
//! counts against the peers who sent it, until they are not listened to.
//!
//! A peer that joins while a message passes may miss it, and gossipsub does not repeat it. So what
//! must be known by all is said again from time to time, as a new record: the same bytes are not
//! sent twice within [`SEEN_TIME`].
//!
//! Not here: what a record means. Judges come from above (`Net::subscribe`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use commons_port::net::{Acceptance, GOSSIP_SIZE_MAX, NetError, Validator};
use commons_record::{Hash, Millis};
use libp2p::gossipsub::{
    self, AllowAllSubscriptionFilter, IdentTopic, IdentityTransform, MaxCountSubscriptionFilter,
    MessageAcceptance, MessageAuthenticity, MessageId, PublishError, TopicHash, ValidationMode,
};
use tokio::sync::mpsc;

/// Gossipsub with bounds on what peers may subscribe to.
pub(crate) type Gossipsub = gossipsub::Behaviour<IdentityTransform, SubscriptionFilter>;

type SubscriptionFilter = MaxCountSubscriptionFilter<AllowAllSubscriptionFilter>;

/// What a frame holds besides the message: the topic and the field headers.
const FRAME_OVERHEAD: usize = 1024;

/// Topics of ours and of any peer. A mesh has a handful.
const TOPICS_MAX: usize = 64;

/// Topic names are paths of a few short parts, and fit the frame's overhead.
const TOPIC_LEN_MAX: usize = 256;

/// How long a message is known again: a record that was refused, too.
const SEEN_TIME: Duration = Duration::from_mins(2);

/// Messages on their way to one peer: 8 MiB of the largest.
const PEER_QUEUE_BOUND: usize = 128;

/// Accepted messages that a subscriber has not read: 4 MiB of the largest. A slower one misses
/// messages, as it may anyway: gossip is repeated, not guaranteed.
pub(crate) const SUBSCRIBER_BOUND: usize = 64;

/// Subscribers of one topic: parts of one node.
const SUBSCRIBERS_MAX: usize = 16;

/// Messages kept for a topic that nobody subscribes to yet: 2 MiB of the largest.
const UNHEARD_MAX: usize = 32;

/// How long they are kept: a node that has just joined connects within seconds.
const UNHEARD_TIME: Millis = Millis(30_000);

/// Gossipsub under our bounds.
pub(crate) fn behaviour(
    protocol: String,
) -> Result<Gossipsub, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = gossipsub::ConfigBuilder::default();
    config
        .protocol_id(protocol, gossipsub::Version::V1_1)
        .validation_mode(ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message| id(message.topic.as_str(), &message.data))
        .max_transmit_size(GOSSIP_SIZE_MAX + FRAME_OVERHEAD)
        .duplicate_cache_time(SEEN_TIME)
        .heartbeat_initial_delay(Duration::from_secs(1)) // A late joiner waits for this one.
        .connection_handler_queue_len(PEER_QUEUE_BOUND);
    let filter = MaxCountSubscriptionFilter {
        filter: AllowAllSubscriptionFilter {},
        max_subscribed_topics: TOPICS_MAX,
        max_subscriptions_per_request: TOPICS_MAX,
    };
    let mut gossip = Gossipsub::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config.build()?,
        filter,
    )?;
    gossip.with_peer_score(score_params(), score_thresholds())?;
    Ok(gossip)
}

fn id(topic: &str, content: &[u8]) -> MessageId {
    let hash = Hash::of_fields("commons/gossip-id/1", &[topic.as_bytes(), content]);
    MessageId::from(hash.as_bytes().to_vec())
}

/// Homes and labs share an address among machines: a few dozen are no sign of a forger.
const NODES_PER_IP: f64 = 32.0;

fn score_params() -> gossipsub::PeerScoreParams {
    gossipsub::PeerScoreParams {
        topic_score_cap: 20.0,
        app_specific_weight: 0.0,
        ip_colocation_factor_weight: -1.0,
        ip_colocation_factor_threshold: NODES_PER_IP,
        ..gossipsub::PeerScoreParams::default()
    }
}

/// With one rejected message worth -20 and the penalty growing with its square: one costs
/// nothing yet (a version that we misjudge), two end lazy gossip and publishing to the peer,
/// three end listening to it.
fn score_thresholds() -> gossipsub::PeerScoreThresholds {
    gossipsub::PeerScoreThresholds {
        gossip_threshold: -40.0,
        publish_threshold: -80.0,
        graylist_threshold: -120.0,
        ..gossipsub::PeerScoreThresholds::default()
    }
}

/// A rejected message no longer counts after this.
const FORGIVEN: Duration = Duration::from_mins(10);

/// Rejected messages are forgiven in time. Delivery rates are not scored: records are
/// rare, and silence is no fault.
fn topic_params() -> gossipsub::TopicScoreParams {
    gossipsub::TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 600.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_cap: 100.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: gossipsub::score_parameter_decay(FORGIVEN),
        ..gossipsub::TopicScoreParams::default()
    }
}

/// Our topics, and what waits for somebody to hear it.
#[derive(Default)]
pub(crate) struct Topics {
    subscribers: BTreeMap<String, Vec<Subscriber>>,
    unheard: VecDeque<Unheard>,
}

struct Subscriber {
    validator: Validator,
    deliver: mpsc::Sender<Vec<u8>>,
}

#[derive(Debug)]
struct Unheard {
    topic: String,
    message: Vec<u8>,
    until: Millis,
}

impl std::fmt::Debug for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let topics: Vec<_> = self.subscribers.keys().collect();
        f.debug_struct("Topics").field("topics", &topics).finish_non_exhaustive()
    }
}

impl Topics {
    /// Delivers what `validator` accepts from now on. Beyond the bounds the subscriber's stream
    /// ends at once.
    pub(crate) fn subscribe(
        &mut self,
        gossip: &mut Gossipsub,
        topic: String,
        validator: Validator,
        deliver: mpsc::Sender<Vec<u8>>,
    ) {
        let is_new = !self.subscribers.contains_key(&topic);
        if topic.len() > TOPIC_LEN_MAX || (is_new && self.subscribers.len() >= TOPICS_MAX) {
            tracing::error!(%topic, "not subscribed: too many topics, or a name too long");
            return;
        }
        if is_new {
            let name = IdentTopic::new(topic.clone());
            if let Err(error) = gossip.subscribe(&name) {
                tracing::error!(%topic, %error, "not subscribed");
                return;
            }
            if let Err(error) = gossip.set_topic_params(name, topic_params()) {
                tracing::error!(%topic, %error, "peers are not scored on this topic");
            }
        }
        let subscribers = self.subscribers.entry(topic).or_default();
        if subscribers.len() < SUBSCRIBERS_MAX {
            subscribers.push(Subscriber { validator, deliver });
        }
    }

    /// Judges a message, delivers it to those whose judge accepts it, and says whether it
    /// travels on: not if any judge rejects it, and only if one accepts it.
    pub(crate) fn judge(&self, message: &gossipsub::Message) -> MessageAcceptance {
        if message.data.len() > GOSSIP_SIZE_MAX {
            return MessageAcceptance::Reject;
        }
        let topic = message.topic.as_str();
        let subscribers = self.subscribers.get(topic).map(Vec::as_slice).unwrap_or_default();
        let mut verdict = MessageAcceptance::Ignore;
        let mut accepted = Vec::new();
        for subscriber in subscribers {
            match (subscriber.validator)(&message.data) {
                Acceptance::Reject => return MessageAcceptance::Reject,
                Acceptance::Ignore => {}
                Acceptance::Accept => {
                    verdict = MessageAcceptance::Accept;
                    accepted.push(&subscriber.deliver);
                }
            }
        }
        for deliver in accepted {
            if deliver.try_send(message.data.clone()).is_err() {
                tracing::debug!(topic, "a subscriber is gone or too slow: it misses a message");
            }
        }
        verdict
    }

    /// Sends a message to all subscribers that are connected, or keeps it a while for the first
    /// one. Saying the same again within [`SEEN_TIME`] changes nothing.
    pub(crate) fn publish(
        &mut self,
        gossip: &mut Gossipsub,
        now: Millis,
        topic: String,
        message: Vec<u8>,
    ) -> Result<(), NetError> {
        let size = message.len();
        if size > GOSSIP_SIZE_MAX || topic.len() > TOPIC_LEN_MAX {
            return Err(NetError::TooLarge { size, max: GOSSIP_SIZE_MAX });
        }
        match gossip.publish(TopicHash::from_raw(topic.clone()), message.clone()) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic) => {
                let is_same = |it: &Unheard| it.topic == topic && it.message == message;
                self.unheard.retain(|it| !is_same(it));
                if self.unheard.len() >= UNHEARD_MAX {
                    self.unheard.pop_front();
                }
                let until = Millis(now.0.saturating_add(UNHEARD_TIME.0));
                self.unheard.push_back(Unheard { topic, message, until });
            }
            // Congestion, or what cannot happen to an unsigned and untransformed message.
            Err(error) => tracing::warn!(%topic, %error, "a message was not published"),
        }
        Ok(())
    }

    /// Somebody subscribed to a topic: it is told what nobody has heard yet.
    pub(crate) fn on_subscribed(&mut self, gossip: &mut Gossipsub, now: Millis, topic: &TopicHash) {
        let (due, rest) = std::mem::take(&mut self.unheard)
            .into_iter()
            .filter(|unheard| unheard.until > now)
            .partition(|unheard| unheard.topic == topic.as_str());
        self.unheard = rest;
        let due: VecDeque<Unheard> = due;
        for Unheard { topic, message, until } in due {
            // Still unheard, say since the newcomer's score is too low: it waits on.
            let sent = gossip.publish(TopicHash::from_raw(topic.clone()), message.clone());
            if matches!(sent, Err(PublishError::NoPeersSubscribedToTopic)) {
                self.unheard.push_back(Unheard { topic, message, until });
            }
        }
    }

    /// Lets go of subscribers that are gone and of messages that are too old.
    pub(crate) fn sweep(&mut self, gossip: &mut Gossipsub, now: Millis) {
        self.unheard.retain(|unheard| unheard.until > now);
        self.subscribers.retain(|topic, subscribers| {
            subscribers.retain(|subscriber| !subscriber.deliver.is_closed());
            let is_used = !subscribers.is_empty();
            if !is_used {
                gossip.unsubscribe(&IdentTopic::new(topic.clone()));
            }
            is_used
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn message(data: Vec<u8>) -> gossipsub::Message {
        let topic = TopicHash::from_raw("t");
        gossipsub::Message { source: None, data, sequence_number: None, topic }
    }

    /// One topic with a subscriber for each verdict; what the relay does, and who was told.
    fn check(verdicts: &[Acceptance], data: Vec<u8>) -> (String, Vec<bool>) {
        let mut gossip = behaviour("/commons/test/gossip/1".to_owned()).unwrap();
        let mut topics = Topics::default();
        let mut receivers = Vec::new();
        for &verdict in verdicts {
            let (deliver, receiver) = mpsc::channel(SUBSCRIBER_BOUND);
            topics.subscribe(&mut gossip, "t".to_owned(), Arc::new(move |_| verdict), deliver);
            receivers.push(receiver);
        }
        let verdict = topics.judge(&message(data));
        let told = receivers.iter_mut().map(|it| it.try_recv().is_ok()).collect();
        (format!("{verdict:?}"), told)
    }

    #[test]
    fn one_who_rejects_outweighs_all_and_one_who_accepts_is_needed() {
        use Acceptance::{Accept, Ignore, Reject};
        let said = |verdict: &str, told: &[bool]| (verdict.to_owned(), told.to_vec());
        assert_eq!(check(&[], vec![1]), said("Ignore", &[]));
        assert_eq!(check(&[Ignore], vec![1]), said("Ignore", &[false]));
        assert_eq!(check(&[Ignore, Accept], vec![1]), said("Accept", &[false, true]));
        assert_eq!(check(&[Accept, Reject], vec![1]), said("Reject", &[false, false]));
        let large = vec![0; GOSSIP_SIZE_MAX + 1];
        assert_eq!(check(&[Accept], large), said("Reject", &[false]));
    }

    #[test]
    fn a_message_is_known_by_its_topic_and_content() {
        assert_eq!(id("a", b"b"), id("a", b"b"));
        assert_ne!(id("a", b"b"), id("ab", b""));
    }

    #[test]
    fn what_nobody_hears_is_kept_within_bounds() {
        let mut gossip = behaviour("/commons/test/gossip/1".to_owned()).unwrap();
        let mut topics = Topics::default();
        for number in 0..100_u8 {
            let sent = topics.publish(&mut gossip, Millis(0), "t".into(), vec![number]);
            assert_eq!(sent, Ok(()));
        }
        assert_eq!(topics.unheard.len(), UNHEARD_MAX);
        assert_eq!(topics.unheard.front().map(|it| it.message.clone()), Some(vec![68]));
        topics.sweep(&mut gossip, UNHEARD_TIME);
        assert!(topics.unheard.is_empty());
        let large =
            topics.publish(&mut gossip, Millis(0), "t".into(), vec![0; GOSSIP_SIZE_MAX + 1]);
        assert!(matches!(large, Err(NetError::TooLarge { .. })));
    }

    #[test]
    fn a_topic_without_subscribers_is_left() {
        let mut gossip = behaviour("/commons/test/gossip/1".to_owned()).unwrap();
        let mut topics = Topics::default();
        let (deliver, receiver) = mpsc::channel(SUBSCRIBER_BOUND);
        let accept: Validator = Arc::new(|_| Acceptance::Accept);
        topics.subscribe(&mut gossip, "t".to_owned(), accept, deliver);
        topics.sweep(&mut gossip, Millis(0));
        assert_eq!(gossip.topics().count(), 1);
        drop(receiver);
        topics.sweep(&mut gossip, Millis(0));
        assert_eq!(gossip.topics().count(), 0);
    }
}
