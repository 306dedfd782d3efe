//! Many adapters on one base: what they cost beside the base alone, and beside llama.cpp.
//!
//! ```text
//! batches:   N rows without adapters | N rows with N adapters          in turn, round by round
//! cold:      first token with an adapter that is on the disk | the same with it in memory
//! rotation:  64 adapters asked in turn, room for 16: what is read | what an oracle would read
//! crowd:     1,000 adapters are registered: what the process grows by
//! ```
//!
//! Prints Markdown. `cargo xtask bench adapters` writes it to `docs/bench`.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people: they are far below what floats hold"
)]

#[path = "adapters/crowd.rs"]
mod crowd;
#[path = "adapters/lab.rs"]
mod lab;
#[path = "adapters/reference.rs"]
mod reference;
#[path = "adapters/rotation.rs"]
mod rotation;

use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser as _;

use lab::{Lab, Room};

/// The batch that llama.cpp computes as well.
const COMPARED: usize = 8;

/// The rank of all adapters.
const RANK: usize = 16;

#[derive(clap::Parser)]
struct Args {
    /// GGUF file of the base; `cargo xtask bench-model` writes one
    #[arg(long)]
    model: PathBuf,

    /// Python that has llama-cpp-python [default: none, the comparison is left out]
    #[arg(long)]
    python: Option<PathBuf>,

    /// Threads of each engine [default: as many as the machine runs at once]
    #[arg(long)]
    threads: Option<usize>,

    /// Rounds; the tables show medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,

    /// Tokens of each answer in a batch of up to 16 rows
    #[arg(long, default_value_t = 32)]
    tokens: usize,

    /// Rows of the batches, each with an adapter of its own; 64 at most
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16,64")]
    rows: Vec<usize>,

    /// Measure the batches alone
    #[arg(long)]
    only_batches: bool,

    /// Adapters that are registered to see what that costs
    #[arg(long, default_value_t = 1_000)]
    crowd: usize,

    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Tokens per second of one batch, round by round.
struct Batch {
    rows: usize,
    base: Vec<f64>,
    adapted: Vec<f64>,
    rounded: Vec<f64>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(args.rounds > 0 && args.tokens > 0, "without a round there is nothing to show");
    let fits = |rows: &usize| (1..=lab::ROUNDED_FROM).contains(rows);
    ensure!(args.rows.iter().all(fits), "a batch has 1 to {} rows", lab::ROUNDED_FROM);
    let threads = args
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get));
    let lab = Lab::new(&args.model, threads, &Room::All)?;
    say(&format!(
        "Model: {}. Threads: {threads}. Rounds: {}. Each adapter changes all seven sites of every \
         layer, has rank {RANK} and takes {:.1} MB on the disk, in 16 bits.\n\n",
        args.model.file_name().unwrap_or_default().display(),
        args.rounds,
        lab.file_size()? as f64 / 1e6,
    ))?;
    let batches = batches(&lab, &args)?;
    say(&batch_table(&batches))?;
    if let Some(python) = &args.python {
        eprintln!("llama.cpp");
        let (model, rounds) = (&args.model, args.rounds);
        let their = reference::measure(python, model, &lab, (threads, args.tokens, rounds))?;
        say(&reference_table(&batches, &their))?;
    }
    if args.only_batches {
        return Ok(());
    }
    say(&cold(&lab, args.rounds.max(5))?)?;
    drop(lab);
    say(&rotation::measure(&args.model, threads)?)?;
    say(&crowd::measure(&args.model, args.crowd)?)
}

/// Each part as it is known.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn batches(lab: &Lab, args: &Args) -> anyhow::Result<Vec<Batch>> {
    let new = |rows| Batch { rows, base: vec![], adapted: vec![], rounded: vec![] };
    let mut batches: Vec<Batch> = args.rows.iter().copied().map(new).collect();
    for round in 0..args.rounds {
        for batch in &mut batches {
            eprintln!("round {} of {}: {} rows", round + 1, args.rounds, batch.rows);
            let tokens = if batch.rows > 16 { args.tokens.div_ceil(4) } else { args.tokens };
            // Each is first as often as the others.
            for turn in 0..3 {
                let (to, owner): (_, fn(usize) -> Option<usize>) = match (round + turn) % 3 {
                    0 => (&mut batch.base, |_| None),
                    1 => (&mut batch.adapted, |row| Some(row)),
                    _ => (&mut batch.rounded, |row| Some(lab::ROUNDED_FROM + row)),
                };
                let took = lab.decode(batch.rows, tokens, owner)?;
                to.push((batch.rows * tokens) as f64 / took.as_secs_f64());
            }
        }
    }
    Ok(batches)
}

fn batch_table(batches: &[Batch]) -> String {
    let mut text = "## Rows of one batch, each with an adapter of its own\n\n\
        Requests through the scheduler, tokens per second of all rows together. The base is the same \
        batch without adapters. A share is the median of the rounds, each over the base of its own \
        round. Wanted of the base: 1 row 92 %, 4 rows 85 %, 16 rows 80 %.\n\n\
        | Rows | Base | Adapters, F16 | of base | Adapters, A in Q8_0 | of base | Spread |\n\
        |---:|---:|---:|---:|---:|---:|---:|\n"
        .to_owned();
    for batch in batches {
        let [base, adapted, rounded] =
            [&batch.base, &batch.adapted, &batch.rounded].map(|it| median(it));
        let spread = [&batch.base, &batch.adapted, &batch.rounded].map(|it| spread(it));
        let _ = writeln!(
            text,
            "| {} | {base:.1} | {adapted:.1} | {:.1} % | {rounded:.1} | {:.1} % | {:.0} % |",
            batch.rows,
            100.0 * share(&batch.adapted, &batch.base),
            100.0 * share(&batch.rounded, &batch.base),
            100.0 * spread.into_iter().fold(0.0, f64::max),
        );
    }
    text += "\n```text\ntokens per second: base #, as many adapters as rows =\n\n";
    let most = batches.iter().map(|it| median(&it.base)).fold(1.0, f64::max);
    for batch in batches {
        for (mark, values) in [('#', &batch.base), ('=', &batch.adapted)] {
            let value = median(values);
            let bar = mark.to_string().repeat((50.0 * value / most).round() as usize);
            let _ = writeln!(text, "{:>3} {bar:<50} {value:>6.1}", batch.rows);
        }
    }
    text + "```\n\n"
}

fn reference_table(batches: &[Batch], their: &reference::Theirs) -> String {
    let ours = batches.iter().find(|it| it.rows == COMPARED).map_or(0.0, |it| median(&it.adapted));
    format!(
        "## {COMPARED} adapters in flight, beside llama.cpp\n\n\
         llama.cpp's server computes requests with different adapters one after the other (\"requests \
         with different LoRA configurations will not be batched together\"). What is measured is its \
         library doing the same with nothing around it: each of {COMPARED} answers whole, with its \
         adapter set once.\n\n\
         | | tokens/s |\n|---|---:|\n| Commons, {COMPARED} rows with {COMPARED} adapters | {ours:.1} \
         |\n| {} | {:.1} |\n| {}, not repacked | {:.1} |\n\nRatio to the better: {:.2}. Wanted: 3.\n\n",
        their.engine,
        their.repacked,
        their.engine,
        their.plain,
        ours / their.repacked.max(their.plain),
    )
}

/// The first token with an adapter on the disk, and with the same one in memory.
fn cold(lab: &Lab, rounds: usize) -> anyhow::Result<String> {
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        eprintln!("cold {} of {rounds}", round + 1);
        let adapter = lab.add_cold(round)?;
        cold.push(millis(lab.first_token(&adapter, round)?));
        warm.push(millis(lab.first_token(&adapter, rounds + round)?));
    }
    let (cold_ms, warm_ms) = (median(&cold), median(&warm));
    Ok(format!(
        "## An adapter that nobody asked for yet\n\n\
         From the request to its first token, for a prompt of one token. Cold: the adapter is on the \
         disk and not in the page cache, is read, checked against its hash, packed and used. Warm: it \
         is in memory. Wanted: 150 ms.\n\n\
         | | ms |\n|---|---:|\n| cold, median of {rounds} | {cold_ms:.0} |\n\
         | cold, slowest | {:.0} |\n| warm, median | {warm_ms:.0} |\n\n",
        cold.iter().copied().fold(0.0, f64::max),
    ))
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(0.0)
}

/// The median of what each round is of its neighbour.
fn share(values: &[f64], base: &[f64]) -> f64 {
    let shares: Vec<f64> = values.iter().zip(base).map(|(value, base)| value / base).collect();
    median(&shares)
}

/// The distance of the extremes, of the median.
fn spread(values: &[f64]) -> f64 {
    let most = values.iter().copied().fold(f64::MIN, f64::max);
    let least = values.iter().copied().fold(f64::MAX, f64::min);
    (most - least) / median(values).max(f64::MIN_POSITIVE)
}
