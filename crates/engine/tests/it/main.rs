//! The engine from outside: real files in, events out.

mod adapters;
mod bad_files;
mod calls;
mod embedding;
mod exact;
mod forms;
mod forward;
mod greedy;
mod room;
mod same_answer;
mod scoring;
mod seeds;
mod serving;
mod sharing;
mod support;
mod text;
