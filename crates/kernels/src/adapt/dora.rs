//! What the outputs of a `DoRA` are multiplied by.
//!
//! `DoRA` gives each output a length of its own (S.-Y. Liu et al., "`DoRA`: Weight-Decomposed Low-Rank
//! Adaptation", 2024): `y = m / |W + s B A| * (W x + s B A x)`, where the norm is of one output's
//! row and `m` its magnitude. The norm knows no `x`, so it is computed once, and what is left while
//! a batch runs is one factor for each output.
//!
//! Sums are in `f64`, in ascending order of ranks, then of columns.

use super::Factor;

/// Computes the row factors of one site, output by output.
#[derive(Debug)]
pub struct RowFactors<'a> {
    up: &'a Factor,
    scale: f64,
    /// The rows of `A`, one for each rank.
    down: Vec<Vec<f32>>,
    sum: Vec<f64>,
}

impl<'a> RowFactors<'a> {
    /// Gets ready for a site: its `B`, the rows of `A` that are its own, and its scale.
    ///
    /// # Panics
    ///
    /// If `A` has not as many rows as `B` has columns, or they differ in length.
    pub fn new(up: &'a Factor, down: Vec<Vec<f32>>, scale: f32) -> Self {
        assert_eq!(down.len(), up.columns(), "a row of A for each column of B");
        let columns = down.first().map_or(0, Vec::len);
        assert!(down.iter().all(|row| row.len() == columns), "rows of A have one length");
        Self { up, scale: f64::from(scale), down, sum: vec![0.0; columns] }
    }

    /// `magnitude / |base + scale * (B A)|` for one output, whose row of the base is `base`. `None`
    /// where that is no finite number: the norm is zero, or something was not finite.
    ///
    /// # Panics
    ///
    /// If there is no such output, or `base` is not as long as a row of `A`.
    pub fn factor(&mut self, output: usize, base: &[f32], magnitude: f32) -> Option<f32> {
        assert_eq!(base.len(), self.sum.len(), "a row of the base is as long as one of A");
        self.sum.fill(0.0);
        for (down, weight) in self.down.iter().zip(self.up.dequantise_row(output)) {
            let weight = f64::from(weight);
            for (sum, &number) in self.sum.iter_mut().zip(down) {
                *sum += weight * f64::from(number);
            }
        }
        let pairs = base.iter().zip(&self.sum);
        let square = pairs.fold(0.0_f64, |square, (&base, &sum)| {
            let number = f64::from(base) + self.scale * sum;
            square + number * number
        });
        // The square root of IEEE 754 is exact to the last bit everywhere.
        let factor = narrow(f64::from(magnitude) / square.sqrt());
        (square > 0.0 && factor.is_finite()).then_some(factor)
    }
}

/// The nearest f32.
#[expect(clippy::cast_possible_truncation, reason = "the nearest f32 is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}
