//! What adapters cost beside the base, on one thread: run by hand, on a quiet machine.
//!
//! `cargo bench -p commons-kernels --bench adapt -- [FORMAT] [ISA]`
//!
//! First two single sites, then layers of a model of a billion weights with all seven sites: more
//! of them than a cache holds, one after the other, as a forward pass reads them. The base is
//! `Q4_K`. The best of many runs, so that other work on the machine shows least.
#![expect(clippy::cast_precision_loss, reason = "figures for people to read")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use commons_kernels::adapt::{Factor, Rows, Source, Tile, Up, expand, shrink};
use commons_kernels::{Activations, Format, Isa, Matrix};

const WIDTH: usize = 2048;
const KEYS: usize = 256;
const INNER: usize = 5632;

/// Matrices that read the same rows: their inputs, and the outputs of each.
const LAYER: [(usize, &[usize]); 4] =
    [(WIDTH, &[WIDTH, KEYS, KEYS]), (WIDTH, &[WIDTH]), (WIDTH, &[INNER, INNER]), (INNER, &[WIDTH])];

/// Layers that are walked: a hundred megabytes of base.
const LAYERS: usize = 4;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let is_wanted =
        |name: &str| wanted.is_empty() || wanted.iter().any(|word| word.eq_ignore_ascii_case(name));
    let isa = Isa::available().into_iter().rfind(|isa| is_wanted(&isa.to_string()));
    let isa = isa.unwrap_or_else(Isa::best);
    say(&format!("{isa}, base Q4_K"));
    let formats = [Format::F16, Format::Bf16, Format::F32, Format::Q8_0];
    for format in formats.into_iter().filter(|format| {
        is_wanted(format.name()) || formats.iter().all(|format| !is_wanted(format.name()))
    }) {
        for (name, outputs) in [("2048 x 2048", WIDTH), ("2048 x 5632", INNER)] {
            let outputs = [outputs];
            let site = [(WIDTH, &outputs[..])];
            report(isa, format, name, &site, 1, (16, 16, 16));
        }
        let loads = [(1, 1, 16), (4, 4, 16), (16, 16, 16), (16, 4, 16), (16, 1, 16), (64, 1, 16)];
        for load in loads.into_iter().chain([(16, 16, 8), (4, 4, 64), (16, 16, 64)]) {
            report(isa, format, "seven sites", &LAYER, LAYERS, load);
        }
    }
}

/// A stack of the base, and the same stack of every adapter.
struct Stack {
    inputs: usize,
    parts: Vec<Matrix>,
    adapters: Vec<(Factor, Vec<Factor>)>,
}

/// Measures `rows` rows with `adapters` adapters of a rank.
fn report(
    isa: Isa,
    format: Format,
    name: &str,
    shape: &[(usize, &[usize])],
    layers: usize,
    (rows, adapters, rank): (usize, usize, usize),
) {
    let mut random = Random(1);
    let stacks: Vec<Stack> = (0..layers)
        .flat_map(|_| shape)
        .map(|&(inputs, outputs)| stack(&mut random, (format, rank, adapters), inputs, outputs))
        .collect();
    let segments: Vec<Vec<usize>> = (0..adapters)
        .map(|index| (0..rows).filter(|row| row % adapters == index).collect())
        .collect();
    let values: Vec<f32> = (0..rows * INNER).map(|_| random.number()).collect();
    let widest = INNER;
    let mut out = vec![0.0; rows * widest];
    let mut hidden = vec![0.0; rows * 4 * rank];
    let base = fastest(|| {
        for stack in &stacks {
            let values = &values[..rows * stack.inputs];
            let mut input =
                Activations::new(stack.parts[0].format().activation_kind(), stack.inputs)
                    .expect("whole blocks");
            input.set(isa, values).expect("whole rows");
            for part in &stack.parts {
                let out = &mut out[..rows * part.rows()];
                part.multiply(isa, black_box(&input), 0..part.rows(), out);
            }
        }
    });
    let extra = fastest(|| {
        for stack in &stacks {
            for (rows, (down, ups)) in segments.iter().zip(&stack.adapters) {
                let stride = down.rows();
                let input =
                    Rows { values: &values, stride: stack.inputs, first: 0, first_row: 0, rows };
                let tile = Tile { values: &mut hidden, stride, first_row: 0 };
                shrink(isa, down, black_box(input), 0..stride, tile);
                for (index, up) in ups.iter().enumerate() {
                    let from =
                        Rows { values: &hidden, stride, first: index * rank, first_row: 0, rows };
                    let tile = Tile { values: &mut out, stride: up.rows(), first_row: 0 };
                    let outputs = 0..up.rows();
                    let up = Up { factor: up, scale: 0.5, row_factors: None };
                    expand(isa, up, from, outputs, tile);
                }
            }
        }
    });
    let bytes: usize = stacks
        .iter()
        .flat_map(|stack| &stack.adapters)
        .map(|(down, ups)| down.size_bytes() + ups.iter().map(Factor::size_bytes).sum::<usize>())
        .sum();
    say(&format!(
        "{:5} {name:11} rows {rows:2} adapters {adapters:2} rank {rank:2}: base {:8.3} ms, adapters \
         {:7.3} ms = {:5.1} %  ({:.1} GB/s)",
        format.name(),
        base.as_secs_f64() * 1e3,
        extra.as_secs_f64() * 1e3,
        100.0 * extra.as_secs_f64() / base.as_secs_f64(),
        bytes as f64 / extra.as_secs_f64() / 1e9,
    ));
}

fn stack(
    random: &mut Random,
    (format, rank, adapters): (Format, usize, usize),
    inputs: usize,
    outputs: &[usize],
) -> Stack {
    let matrix = |random: &mut Random, rows: usize| {
        let base = Format::Q4K;
        let size = rows * inputs / base.block_len() * base.block_size();
        Matrix::pack(base, rows, inputs, &random.bytes(size)).expect("whole blocks")
    };
    let parts: Vec<_> = outputs.iter().map(|&rows| matrix(random, rows)).collect();
    let factor = |random: &mut Random, format: Format, rows: usize, columns: usize| {
        let size = rows * columns / format.block_len() * format.block_size();
        let bytes = random.bytes(size);
        Factor::pack(Source { format, rows, bytes: &bytes }, columns).expect("whole blocks")
    };
    let up = if format == Format::Q8_0 && rank % 32 != 0 { Format::F16 } else { format };
    let adapters = (0..adapters)
        .map(|_| {
            let down = factor(random, format, rank * outputs.len(), inputs);
            (down, outputs.iter().map(|&rows| factor(random, up, rows, rank)).collect())
        })
        .collect();
    Stack { inputs, parts, adapters }
}

/// The shortest of many runs: what disturbs a run only makes it longer.
#[expect(clippy::disallowed_methods, reason = "a measurement reads a clock")]
fn fastest(mut run: impl FnMut()) -> Duration {
    let start = Instant::now();
    let mut fastest = Duration::MAX;
    let mut count = 0;
    while count < 3 || (start.elapsed() < Duration::from_millis(400) && count < 1000) {
        let start = Instant::now();
        run();
        fastest = fastest.min(start.elapsed());
        count += 1;
    }
    fastest
}

/// Numbers that look random, the same every time.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 16
    }

    fn number(&mut self) -> f32 {
        self.next() as f32 / 32768.0 - 1.0
    }

    /// Few exponents: neither infinite nor subnormal as any kind of number.
    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next().to_le_bytes()[1] & 0x33).collect()
    }
}

#[expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]
fn say(line: &str) {
    println!("{line}");
}
