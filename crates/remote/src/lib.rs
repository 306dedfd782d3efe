//! HTTPS out: foreign engines behind `port::engine::Engine`, and places that files are taken from
//! behind `port::hub::Origin`.
//!
//! A foreign engine is any server that speaks the OpenAI API:
//!
//! ```text
//! RemoteEngine --one task--> watch: what is it, does it live, what does it list -> State
//!      | start
//!      v
//! one task for each answer: POST, stream -> sse::Parser -> answer::Answer -> EngineEvent
//! ```
//!
//! The modules in reading order:
//!
//! * [`mod@address`], [`secret`], [`config`]: where a server is, its key, and how it is used;
//! * [`kind`]: which programs are known, and what each can be asked;
//! * `http`: one connection for each request, with a bound on everything;
//! * `probe`, `catalog`, `health`, `watch`: what a server is, has, and whether it lives;
//! * `ask`, `sse`, `wire`, `answer`, `sequence`: one answer;
//! * `fault`: everything that goes wrong, each with a code and a sentence;
//! * `engine`: all of it behind the port;
//! * [`hub`]: Hugging Face, Ollama registries and plain addresses: what they list, and their bytes.
//!
//! # What is promised, and what cannot be
//!
//! * A foreign server's weights cannot be hashed. A model's hash is over the kind, the address and
//!   what the server *declares* of the model: if the declaration changes, it is another model. Its
//!   engine class begins with `foreign/` ([`EngineClass::is_foreign`]); no claim of exactness or of
//!   seeded sampling goes with it, and it is its owner's alone: peers are refused.
//! * An answer that names another model than the one asked for fails. A server that repeats a
//!   name and runs something else cannot be found out.
//! * [`Token::id`] is the server's own id where it sends one, and [`Token::NO_ID`] where it does
//!   not. No id is made up. The same holds for [`Token::NO_LOGPROB`]. Without ids, one event of
//!   the server's stream counts as one token.
//! * The seed that is revealed later is not used. One that is known from the start is sent along,
//!   and what the server makes of it is the server's affair.
//! * The prompt's tokens are counted where the server tells them before its first token; else none
//!   are.
//!
//! # Invariants
//!
//! * No proxy is used, no connection outlives its request. No redirect of an engine is followed;
//!   what is followed of a hub's is said in [`hub`].
//! * A connection goes no farther than the address was declared to: a name that suddenly resolves
//!   beyond it is refused. A key leaves this machine only under TLS, unless told otherwise.
//! * Dropping a sequence closes its connection.
//! * Every line, event, body, list, name and wait has a bound.
//!
//! Not here: vectors and scores (both are refused), and any decision about who is served.
//!
//! [`EngineClass::is_foreign`]: commons_record::settlement::EngineClass::is_foreign
//! [`Token::id`]: commons_port::engine::Token::id
//! [`Token::NO_ID`]: commons_port::engine::Token::NO_ID
//! [`Token::NO_LOGPROB`]: commons_port::engine::Token::NO_LOGPROB

#![forbid(unsafe_code)]

pub mod address;
mod answer;
mod ask;
mod catalog;
pub mod config;
mod engine;
mod fault;
mod health;
mod http;
pub mod hub;
pub mod kind;
mod probe;
pub mod secret;
mod sequence;
pub mod sse;
mod watch;
mod wire;

pub use address::{Address, AddressError};
pub use config::{Adapters, ConfigError, Limits, RemoteConfig, Trust};
pub use engine::{AdapterError, RemoteEngine, RemotePorts, TlsError};
pub use hub::{HubConfig, HubLimits, Hubs, Offline};
pub use kind::Kind;
pub use secret::Key;
pub use watch::{ListedView, RemoteState, RemoteView};
