//! The gateway: HTTP on a node.
//!
//! ```text
//! TCP:  serve_tcp  -> router         = access rules -> public routes -> NodeApi
//! Unix: serve_unix -> control_router =  owner's commands + public routes -> NodeApi
//! ```
//!
//! The public routes speak the OpenAI API: models, chat completions, completions. Every refusal
//! has the OpenAI error shape and a stable code; a parameter that would change the answer and is
//! not supported is refused by name, never ignored. Beside them stands a hub that tools of Hugging
//! Face read from. The owner's commands stand on a Unix socket
//! in the node's data folder, which the operating system guards.
//!
//! The modules in reading order:
//!
//! * [`state`]: what the routes share, and its settings;
//! * [`listen`], [`serve`]: which addresses are allowed, and how connections are bounded;
//! * `router`, `access`: routes, and who may use them;
//! * `body`, `params`, `call`: from bytes to a checked question;
//! * `answer`: from a node's events to JSON or server-sent events;
//! * `hub`: the node's repositories, for tools that know how to speak to a hub;
//! * `error`: the one place that decides status, code and public text;
//! * [`control`]: the owner's commands, and the client for them.
//!
//! Not here: any decision about who serves (`route`), and any record (`node`).

#![forbid(unsafe_code)]

mod access;
mod adapters;
mod answer;
mod body;
mod call;
pub mod control;
mod error;
mod hub;
pub mod listen;
mod metrics;
mod models;
mod params;
mod router;
pub mod serve;
pub mod state;

pub use control::control_router;
pub use hub::hub_router;
pub use listen::{BindError, BindRefusal, bind_tcp, bind_unix, check_bind};
pub use router::router;
pub use serve::{ServeLimits, serve_tcp, serve_unix};
pub use state::{ApiKey, ApiKeyError, GatewayConfig, GatewayState};
