//! The two machines of an exchange, back to back, and everything that can go wrong between them.

mod admit;
mod disk;
mod ends;
mod engine;
mod faults;
mod golden;
mod inputs;
mod invariant;
mod messages;
mod provider_rules;
mod random;
mod requester_rules;
mod sample;
mod sealed;
mod settle;
mod settled;
mod settling;
mod world;
