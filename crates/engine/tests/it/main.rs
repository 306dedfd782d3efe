//! The engine from outside: real files in, events out.

mod bad_files;
mod greedy;
mod reference;
mod serving;
mod speed;
mod support;
