//! The engine: open models, computed on this machine.
//!
//! A GGUF file or a Hugging Face folder goes in, tokens come out. The modules in reading order:
//!
//! * [`local`]: the engine behind the port: loaded models, each with a thread;
//! * [`process`]: the same for a node at the other end of two pipes;
//! * [`worker`]: a model and its thread: requests, the scheduler, sequences, what comes of them;
//! * [`model`]: one model, checked and ready: facts, forward pass, vocabulary, template;
//! * [`forward`]: the forward pass, one for every family;
//! * [`place`]: where it is computed, on the processor or on a device;
//! * [`team`]: the threads that compute it; [`cache`]: keys and values; [`room`]: how many fit;
//! * [`adapter`]: small differences to a model, one for each row of a batch if need be;
//! * [`settings`] and [`weights`]: what a model says about itself, and its tensors;
//! * [`tokenizer`] and [`template`]: text to token ids, and conversations to text;
//! * [`grammar`]: which tokens may come next in an answer that must keep to a form;
//! * [`gguf`]: the bounded reader of model files, and a small writer;
//! * [`measure`]: how fast a model is here; [`exact`]: that it repeats bit for bit; [`devices`] and [`memory`]: what the machine has;
//! * [`noise`]: models of random weights, for demonstrations and measurements.
//!
//! The arithmetic is in `commons-kernels`, and what is computed when is decided in
//! `commons-schedule`: see `docs/decisions/0006-rows-in-lanes.md` and those behind it.
//!
//! # Invariants
//!
//! * Everything a model file declares is bounded before it is believed; no file makes it panic.
//! * What a user wrote is never read as a control token.
//! * What is not supported is refused by name, never ignored.
//! * Every queue is bounded, and a caller that does not read stalls itself alone.
//! * What a sequence gets depends on its own request: not on who else is computed, on the number of
//!   threads, on guesses, on what was cached, or on the instruction set. On a device that is so
//!   within a tolerance, and the model's class says which of the two holds.
//! * Weights are in memory once, in the bits of the file.
//!
//! # Threads
//!
//! Each model has a thread and helpers of its own ([`WorkerConfig::threads`]); one helper more takes
//! part while the machine's owner alone is computed for.
//!
//! Not here: sampling (`commons-verify`); which models to load, and for whom (the
//! node).

pub mod adapter;
pub mod cache;
pub mod devices;
pub mod exact;
pub mod forward;
pub mod gguf;
pub mod grammar;
pub mod local;
pub mod measure;
pub mod memory;
pub mod model;
pub mod noise;
pub mod place;
pub mod process;
pub mod room;
pub mod settings;
pub mod team;
pub mod template;
pub mod tokenizer;
pub mod weights;
pub mod worker;

pub use local::{AddError, AddOptions, LocalEngine};
pub use model::{LoadError, Model};
pub use worker::WorkerConfig;
