//! A foreign engine as a node sees it, in front of servers that do what a script says.

mod adapters;
mod cancel;
mod faults;
mod lists;
mod looks;
mod real;
mod requests;
mod support;
mod tls;
