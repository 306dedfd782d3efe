//! The engine: open models, computed on this machine.
//!
//! A GGUF file goes in, tokens come out. The modules in reading order:
//!
//! * [`local`]: the engine behind the port: loaded models, each with a thread;
//! * [`worker`]: the thread of a model: sequences in turn, bounded queues, cancellation;
//! * [`model`]: one file, checked and ready: facts, forward pass, vocabulary, template;
//! * [`llama`]: the forward pass; [`weights`] and `mapped`: tensors straight from the file;
//! * [`tokenizer`] and [`template`]: text to token ids, and conversations to text;
//! * [`gguf`]: the bounded reader of model files, and a small writer;
//! * [`noise`]: a model of random weights for demonstrations.
//!
//! # Invariants
//!
//! * Everything a model file declares is bounded before it is believed; no file makes it panic.
//! * What a user wrote is never read as a control token.
//! * What is not supported is refused by name, never ignored.
//! * Every queue is bounded, and a caller that does not read stalls itself alone.
//!
//! # Threads
//!
//! Each model has a thread and a small pool of its own ([`WorkerConfig::threads`]). Products with
//! large quantised matrices go through candle's own pool, one for the process; its size is what
//! `CANDLE_NUM_THREADS` or `RAYON_NUM_THREADS` says when the first model computes, otherwise the
//! number of physical cores. candle offers no other way, so a program that wants another number
//! starts the process that computes with that environment. A panic inside candle's pool poisons
//! it for all models of the process: one more reason to give the engine a process of its own.
//!
//! Not here: adapters, batches of several sequences, other families (later issues); sampling
//! (`commons-verify`); which models to load, and for whom (the node).

pub mod gguf;
pub mod llama;
pub mod local;
mod mapped;
pub mod model;
pub mod noise;
pub mod template;
pub mod tokenizer;
pub mod weights;
pub mod worker;

pub use local::{AddError, LocalEngine};
pub use model::{LoadError, Model};
pub use worker::WorkerConfig;
