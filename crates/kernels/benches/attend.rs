//! How fast attention and its neighbours are: `cargo bench -p commons-kernels --bench attend`.
//!
//! Each number is the best of many runs, so that other work on the machine shows least.

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]
#![expect(clippy::cast_precision_loss, reason = "numbers are small")]

use std::hint::black_box;
use std::time::Duration;

use commons_kernels::attend::{Attend, Queries, Scratch, attend};
use commons_kernels::gate::{Activation, gate};
use commons_kernels::isa::Isa;
use commons_kernels::kv::{KvFormat, KvShape, KvStore, PAGE_LEN};
use commons_kernels::{exp, norm};

fn main() {
    for isa in Isa::available() {
        for (size, context, format) in cases() {
            for (name, count) in [("decode  8 x 1", 8), ("prefill 1 x 64", 64)] {
                attention(isa, &Case { name, count, size, context, format });
            }
        }
        small(isa);
    }
}

fn cases() -> impl Iterator<Item = (usize, usize, KvFormat)> {
    let formats = [KvFormat::F32, KvFormat::F16, KvFormat::Q8];
    let sizes = [(64, 512), (64, 4096), (128, 512), (128, 4096)];
    sizes.into_iter().flat_map(move |(size, len)| formats.map(|format| (size, len, format)))
}

struct Case {
    name: &'static str,
    count: usize,
    size: usize,
    context: usize,
    format: KvFormat,
}

/// One head of four: queries at the end of the context, all heads of a position seeing the same, or
/// 64 positions each seeing one more.
fn attention(isa: Isa, case: &Case) {
    let Case { name, count, size, context, format } = *case;
    let shape = KvShape { kv_heads: 4, key_size: size, value_size: size, format };
    let mut store = KvStore::new(shape, context / PAGE_LEN).expect("there is memory");
    let mut random = Random(1);
    for position in 0..context {
        let (keys, values) = (random.numbers(4 * size), random.numbers(4 * size));
        let page = u32::try_from(position / PAGE_LEN).expect("few pages");
        store.write(page, position % PAGE_LEN, &keys, &values);
    }
    let len = u32::try_from(context).expect("a short context");
    let pages: Vec<u32> = (0..len.div_ceil(32)).collect();
    let rows = random.numbers(count * size);
    let end = |query: u32| if count == 64 { len - 63 + query } else { len };
    let spans: Vec<_> = (0..).take(count).map(|query| 0..end(query)).collect();
    let mut out = vec![0.0; count * size];
    let mut scratch = Scratch::default();
    let queries = Queries { rows: &rows, spans: &spans };
    let time = best(|| {
        for head in 0..4 {
            let scale = 1.0 / (size as f32).sqrt();
            let task = Attend { store: &store, pages: &pages, head, scale, softcap: None };
            attend(isa, &task, queries, &mut out, &mut scratch);
        }
        black_box(&mut out);
    });
    let seen: u32 = spans.iter().map(|span| span.end).sum();
    let operations = f64::from(seen) * 4.0 * (4 * size) as f64;
    let bytes = shape.page_bytes().expect("it exists") * context / PAGE_LEN;
    println!(
        "{isa:>7} {name} size {size:>3} context {context:>4} {format:?}: {:>6.1} GFLOP/s {:>6.1} GB/s",
        operations / time.as_secs_f64() / 1e9,
        bytes as f64 / time.as_secs_f64() / 1e9,
    );
}

fn small(isa: Isa) {
    let mut random = Random(2);
    let (row, weight) = (random.numbers(2048), random.numbers(2048));
    report(isa, "rms_norm", |out| norm::rms_norm(isa, &row, &weight, 1e-5, out));
    report(isa, "exp", |out| {
        out.copy_from_slice(&row);
        exp::exp(isa, out);
    });
    for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
        let name = format!("gate {activation:?}");
        report(isa, &name, |out| gate(isa, activation, &row, &weight, out));
    }
}

/// Times something that writes 2048 numbers.
fn report(isa: Isa, name: &str, mut run: impl FnMut(&mut [f32])) {
    let mut out = vec![0.0; 2048];
    let time = best(|| {
        run(&mut out);
        black_box(&mut out);
    });
    println!("{isa:>7} {name} of 2048: {:.2} numbers/ns", 2048.0 / time.as_secs_f64() / 1e9);
}

/// The shortest of many runs.
fn best(mut run: impl FnMut()) -> Duration {
    let mut best = Duration::MAX;
    let begin = now();
    let mut rounds = 0;
    while rounds < 10 || begin.elapsed() < Duration::from_millis(300) {
        let start = now();
        run();
        best = best.min(start.elapsed());
        rounds += 1;
    }
    best
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads a clock")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Numbers between -1 and 1, the same every time.
struct Random(u32);

impl Random {
    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.next()).collect()
    }

    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(self.0 >> 16).expect("sixteen bits are left")) / 32768.0 - 1.0
    }
}
