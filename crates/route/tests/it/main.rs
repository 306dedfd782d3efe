//! Tests of routing through its public boundary.

mod choosing;
mod filters;
mod golden;
mod laws;
mod world;
