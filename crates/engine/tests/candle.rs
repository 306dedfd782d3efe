//! The engine through candle against the engine on our own kernels: the same logits within a
//! tolerance, and the same answers.
//!
//! `cargo test -p commons-engine --features candle --test candle` runs it, on the processor: a
//! device computes the same steps, and needs a machine that has one.
//!
//! * `steps`: batches through the forward pass; `rounding`: quantised weights; `serving`: requests.
#![cfg(feature = "candle")]

#[path = "families/blocks.rs"]
mod blocks;
#[path = "families/plain.rs"]
#[expect(dead_code, reason = "the pass that rounds as we do is for our own kernels")]
mod plain;
#[path = "candle/rounding.rs"]
mod rounding;
#[path = "candle/serving.rs"]
mod serving;
#[path = "candle/steps.rs"]
mod steps;
#[path = "it/support.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod support;

use std::path::{Path, PathBuf};

/// Numbers of f32, summed in another order. The worst of all families is 2e-6.
const TOLERANCE: f32 = 1e-5;

/// The largest difference, measured by the largest number.
fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    let largest = |most: f32, number: f32| most.max(number.abs());
    assert_eq!(found.len(), wanted.len());
    assert!(found.iter().all(|number| number.is_finite()));
    let most = found.iter().zip(wanted).map(|(a, b)| a - b).fold(0.0, largest);
    most / wanted.iter().copied().fold(1e-6, largest)
}

/// The project's own tiny models, a folder each.
fn families() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families")
}
