//! How fast products are, on one thread: run by hand, on a quiet machine.
//!
//! `cargo bench -p commons-kernels --bench matrix -- [FORMAT] [ISA]`
#![expect(clippy::cast_precision_loss, reason = "figures for people to read")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use commons_kernels::{Activations, Format, Isa, Matrix};

/// A feed-forward layer of a model of a billion weights.
const SHAPE: (usize, usize) = (5632, 2048);

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_wanted = |name: &str, others: &[String]| {
        let about: Vec<_> = wanted.iter().filter(|word| others.contains(word)).collect();
        about.is_empty() || about.iter().any(|word| *word == name)
    };
    let formats: Vec<_> = Format::ALL.map(|format| format.to_string()).to_vec();
    let isas: Vec<_> = Isa::available().iter().map(ToString::to_string).collect();
    say("format isa        m     ms  GFLOP/s   GB/s");
    for format in Format::ALL.into_iter().filter(|format| is_wanted(format.name(), &formats)) {
        let matrix = matrix(format);
        for isa in Isa::available() {
            if !is_wanted(&isa.to_string(), &isas)
                || (isa == Isa::SCALAR && !wanted.contains(&isas[0]))
            {
                continue;
            }
            for rows in [1, 2, 4, 8, 16, 128, 512] {
                measure(&matrix, isa, rows);
            }
        }
    }
}

fn matrix(format: Format) -> Matrix {
    let (rows, columns) = SHAPE;
    let size = columns / format.block_len() * format.block_size();
    // Few exponents: neither infinite nor subnormal as any kind of number.
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..rows * size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x33
        })
        .collect();
    Matrix::pack(format, rows, columns, &bytes).expect("the shape is whole blocks")
}

fn measure(matrix: &Matrix, isa: Isa, rows: usize) {
    let values: Vec<f32> =
        (0..rows * matrix.columns()).map(|index| ((index * 37) % 101) as f32 - 50.0).collect();
    let kind = matrix.format().activation_kind();
    let mut input = Activations::new(kind, matrix.columns()).expect("whole blocks");
    let quantising = fastest(|| input.set(isa, &values).expect("whole rows"));
    // In short pieces, so that a run fits between two interruptions.
    let piece = (matrix.rows() / rows.clamp(1, 64)).next_multiple_of(16);
    let time: Duration = (0..matrix.rows())
        .step_by(piece)
        .map(|start| {
            let range = start..matrix.rows().min(start + piece);
            let mut out = vec![0.0; rows * range.len()];
            fastest(|| matrix.multiply(isa, black_box(&input), range.clone(), &mut out))
        })
        .sum();
    let operations = 2.0 * (rows * matrix.rows() * matrix.columns()) as f64;
    say(&format!(
        "{:6} {:8} {rows:4} {:8.3} {:7.1} {:6.1}   (quantising {:.3} ms)",
        matrix.format().name(),
        isa.to_string(),
        time.as_secs_f64() * 1e3,
        operations / time.as_secs_f64() / 1e9,
        matrix.size_bytes() as f64 / time.as_secs_f64() / 1e9,
        quantising.as_secs_f64() * 1e3,
    ));
}

/// The shortest of many runs: what disturbs a run only makes it longer.
#[expect(clippy::disallowed_methods, reason = "a measurement reads a clock")]
fn fastest(mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    let mut count = 0;
    while count < 3 || (start.elapsed() < Duration::from_millis(30) && count < 100) {
        let start = Instant::now();
        run();
        fastest = fastest.min(start.elapsed());
        count += 1;
    }
    fastest
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]
fn say(line: &str) {
    println!("{line}");
}
