//! The arithmetic of a forward pass: the same bits on every machine.
//!
//! A kernel is a function from numbers to numbers, on one thread. The modules in reading order:
//!
//! * [`isa`]: the instruction sets, and which this machine has;
//! * [`matrix`]: weights, packed, and their products with
//! * [`activations`]: rows of numbers in the form that the weights need;
//! * [`adapt`]: adapters of low rank, many in one batch;
//! * [`kv`]: pages of keys and values, and [`mod@attend`] over them;
//! * [`norm`], [`rope`], [`gate`], [`softmax`], [`exp`]: what stands between the products;
//! * `lanes`: sixteen numbers at once, on every instruction set;
//! * `intrinsics`: those of AVX-512, which a test build can have emulated.
//!
//! # Invariants
//!
//! * The result of a row depends on that row alone: not on the batch it came in, the thread that
//!   computed it or the instruction set that was chosen. Sums run in one fixed order, a product is
//!   rounded before it is added, and functions such as `exp` are ours.
//! * Every kernel has a scalar twin, and the others equal it bit for bit.
//! * An [`Isa`] is proof that this machine has it.
//!
//! Not here: threads, models, files (the engine).

pub mod activations;
pub mod adapt;
pub mod attend;
pub mod exp;
pub mod gate;
#[cfg(all(target_arch = "x86_64", emulated_avx512))]
mod intrinsics;
pub mod isa;
pub mod kv;
mod lanes;
pub mod matrix;
pub mod norm;
pub mod rope;
pub mod softmax;
#[cfg(test)]
mod testing;

#[cfg(all(target_arch = "x86_64", not(emulated_avx512)))]
use std::arch::x86_64 as intrinsics;

pub use activations::{ActivationKind, Activations};
pub use isa::Isa;
pub use matrix::{Format, Matrix};
