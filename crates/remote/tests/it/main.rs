//! Foreign engines and hubs as a node sees them, in front of servers that do what a script says.

mod adapters;
mod cancel;
mod faults;
mod hub_faults;
mod hub_fetches;
mod hub_lists;
mod hub_redirects;
mod hub_support;
mod lists;
mod looks;
mod real;
mod requests;
mod support;
mod tls;
