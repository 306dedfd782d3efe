//! Computes one sequence in every way and compares: `exact MODEL TOKENS REFERENCE [NAME=A,B]...`
//!
//! `isa=`, `threads=`, `rows=` and `pass=` name the ways; without them all are taken. `isa=fast` is
//! all but plain code. The hashes of
//! the first way ever computed are kept in the file REFERENCE; where it exists, ways are compared
//! with what is in it, from whichever build that came. A line of JSON is printed for each way.
//!
//! `cargo xtask conform exact` runs it.

#![expect(clippy::print_stdout, reason = "a program that prints what it found")]

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Instant;

use commons_engine::Model;
use commons_engine::cache::KvFormat;
use commons_engine::exact::{Pass, Trace, Way};
use commons_engine::forward::LoadOptions;
use commons_engine::place::Device;
use commons_kernels::Isa;
use commons_record::Hash;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Which ways are computed.
struct Ways {
    isas: Vec<Isa>,
    threads: Vec<usize>,
    rows: Vec<usize>,
    passes: Vec<Pass>,
}

fn run(args: &[String]) -> Result<(), Box<dyn Error>> {
    let [model, tokens, reference, ways @ ..] = args else {
        return Err("three arguments are wanted: MODEL TOKENS REFERENCE".into());
    };
    let (tokens, reference) = (tokens.parse::<usize>()?, Path::new(reference));
    let options = LoadOptions { device: Device::Cpu, ..LoadOptions::default() };
    let model = Model::load_with(Path::new(model), &options)?;
    let mut wanted = reference.exists().then(|| read(reference)).transpose()?;
    for way in Ways::parse(ways)?.all() {
        #[expect(clippy::disallowed_methods, reason = "this is the stopwatch")]
        let started = Instant::now();
        let trace = way.run(model.transformer(), tokens)?;
        let seconds = started.elapsed().as_secs_f64();
        let difference = match &wanted {
            Some(wanted) => trace.first_difference(wanted),
            None => {
                write(reference, &trace)?;
                wanted = Some(trace.clone());
                None
            }
        };
        let hash = trace.hashes().last().ok_or("no token was computed")?;
        let Way { isa, threads, rows, pass, .. } = way;
        let difference = difference.map_or_else(|| "null".to_owned(), |it| it.to_string());
        println!(
            r#"{{"isa":"{isa}","threads":{threads},"rows":{rows},"pass":"{pass}","tokens":{tokens},"hash":"{hash}","differs_at":{difference},"seconds":{seconds:.1}}}"#
        );
    }
    Ok(())
}

impl Ways {
    fn parse(args: &[String]) -> Result<Self, Box<dyn Error>> {
        let mut ways = Self {
            isas: Isa::available(),
            threads: vec![1, 2, 4],
            rows: vec![1, 7, 32],
            passes: vec![Pass::Prefill, Pass::Decode],
        };
        for arg in args {
            match arg.split_once('=') {
                Some(("isa", "fast")) => ways.isas.retain(|it| *it != Isa::SCALAR),
                Some(("isa", names)) => {
                    ways.isas = names.split(',').map(Isa::named).collect::<Result<_, _>>()?;
                }
                Some(("threads", counts)) => ways.threads = list(counts)?,
                Some(("rows", counts)) => ways.rows = list(counts)?,
                Some(("pass", names)) => ways.passes = list(names)?,
                _ => return Err(format!("{arg:?} is none of isa=, threads=, rows=, pass=").into()),
            }
        }
        Ok(ways)
    }

    fn all(&self) -> Vec<Way> {
        let mut all = Vec::new();
        for &isa in &self.isas {
            for &threads in &self.threads {
                for &rows in &self.rows {
                    let way = |&pass| Way { isa, threads, rows, pass, kv_format: KvFormat::F16 };
                    all.extend(self.passes.iter().map(way));
                }
            }
        }
        all
    }
}

fn list<T: FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::parse).collect()
}

/// Hashes as they are written down, one a line.
fn read(path: &Path) -> Result<Trace, Box<dyn Error>> {
    let text = std::fs::read_to_string(path)?;
    let hashes = text.lines().map(str::parse::<Hash>).collect::<Result<_, _>>();
    Ok(Trace::new(hashes.map_err(|error| format!("{}: {error}", path.display()))?))
}

fn write(path: &Path, trace: &Trace) -> std::io::Result<()> {
    let lines: Vec<String> = trace.hashes().iter().map(ToString::to_string).collect();
    std::fs::write(path, lines.join("\n") + "\n")
}
