//! The program as a person and their programs meet it: real processes on loopback.
//!
//! Every test has its own folders and free ports. Nothing sleeps to wait for something: tests
//! wait for what a process says, or look until a state is there, each with a deadline.

mod adapters;
mod bench;
mod catalogue;
mod chat;
mod demo;
mod encoder;
mod endings;
mod exact;
mod files;
mod foreign;
mod forms;
mod kills;
mod mesh;
mod owner;
mod process;
mod refusals;
mod support;
