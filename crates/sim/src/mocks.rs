//! Peers that misbehave, each in its own way and by its own name.
//!
//! A mock takes over the machine of a member that was killed: it has that node's keys and place
//! in the mesh, and none of its manners. It speaks the raw wire through the ports. Most mocks
//! can be on either side of an exchange: `ask` plays a requester, `serve` a provider.
//!
//! | Mock | As a requester | As a provider |
//! |---|---|---|
//! | [`garbage_sender`] | bytes, frames and messages that mean nothing | the same, in place of an answer |
//! | [`flooder`] | more streams, messages and gossip than anyone takes | more and larger tokens than were ordered |
//! | [`staller`] | falls silent at any point and holds the stream | the same, without a heartbeat |
//! | [`nonce_swapper`] | reveals another nonce than it committed to | names another in its receipt |
//! | [`wrong_key_signer`] | signs orders and vouchers with a foreign key | signs manifest or receipt with one |
//! | [`replayer`] | sends an old order again | sends an old receipt again |
//!
//! [`peer`] is what they share; [`script`] is the honest part of an exchange, step by step.

pub mod flooder;
pub mod garbage_sender;
pub mod nonce_swapper;
pub mod peer;
pub mod replayer;
pub mod script;
pub mod staller;
pub mod wrong_key_signer;
