//! `cargo xtask bench`: measurements, written to `docs/bench` with the command that made them.
//!
//! A benchmark is a target of the crate that it measures, or a module here where whole programs
//! are compared; either gives a Markdown table. Here the table gets its heading, the machine and
//! the command. Paths are left out of what is written: a model's name is in the table.

mod engine;
mod forms;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, output, say};

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which benchmark: `adapters`, `engine`, `forms` or `gateway`
    #[arg(value_name = "NAME")]
    name: String,

    /// Passed on to the benchmark
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
    rest: Vec<String>,
}

/// A benchmark and where it lives.
struct Bench {
    name: &'static str,
    title: &'static str,
    what: &'static str,
    /// Measures with the arguments typed after the name, and returns the table.
    measure: fn(&Path, &[String]) -> Result<String>,
}

const BENCHES: [Bench; 4] = [
    Bench {
        name: "adapters",
        title: "Many adapters on one base",
        what: "One base, and every row of a batch with an adapter of its own: what that costs \
               beside the base alone, round by round; how soon an adapter answers that is on the \
               disk; what is read when more are in use than fit.",
        measure: |root, rest| target_of(root, "commons-cli", "adapters", rest),
    },
    Bench {
        name: "engine",
        title: "Our engine beside llama.cpp",
        what: engine::WHAT,
        measure: engine::measure,
    },
    Bench {
        name: "forms",
        title: "What holding an answer to a form costs",
        what: forms::WHAT,
        measure: forms::measure,
    },
    Bench {
        name: "gateway",
        title: "What the gateway and the mesh add",
        what: "The same greedy answer from the engine in one process, from the node that holds \
               the model over HTTP, and from a node without it over HTTP and the mesh. The three \
               are measured in turn, round by round. The records of every answer are made and \
               stored.",
        measure: |root, rest| target_of(root, "commons-cli", "gateway", rest),
    },
];

/// Arguments whose value is a path of this machine.
const PATHS: [&str; 3] = ["--model", "--python", "--commons"];

/// Runs one benchmark and writes its page.
pub(crate) fn run(root: &Path, args: &Args) -> Result<()> {
    let known = BENCHES.iter().map(|it| it.name).collect::<Vec<_>>().join(", ");
    let Some(bench) = BENCHES.iter().find(|it| it.name == args.name) else {
        bail!("there is no benchmark {:?}; there is: {known}", args.name);
    };
    let table = (bench.measure)(root, &args.rest)?;
    let page = page(bench, &args.rest, &machine(), &table);
    let path = root.join("docs/bench").join(format!("{}.md", bench.name));
    std::fs::write(&path, page).with_context(|| format!("failed to write {}", path.display()))?;
    say(&table);
    say(&format!("written to docs/bench/{}.md", bench.name));
    Ok(())
}

/// Runs a benchmark that is a target of a package.
fn target_of(root: &Path, package: &str, name: &str, rest: &[String]) -> Result<String> {
    let mut command = cargo(root, &["bench", "--package", package, "--bench", name, "--"]);
    output(command.args(rest)).context("the benchmark failed; run `cargo bench` to see why")
}

/// The folder that cargo builds in.
pub(crate) fn target(root: &Path) -> Result<PathBuf> {
    // This program lies in `TARGET/PROFILE/xtask`, wherever the user has it built.
    let own = std::env::current_exe().context("this program does not know where it lies")?;
    Ok(own.ancestors().nth(2).map_or_else(|| root.join("target"), Path::to_path_buf))
}

fn page(bench: &Bench, rest: &[String], machine: &str, table: &str) -> String {
    let mut shown = vec!["cargo", "xtask", "bench", bench.name];
    let mut is_path = false;
    for arg in rest {
        shown.push(if is_path { "FILE" } else { arg });
        is_path = PATHS.contains(&arg.as_str());
    }
    format!(
        "# {}\n\n{}\n\n```sh\n{}\n```\n\nMachine: {machine}.\n\n{}\n",
        bench.title,
        bench.what,
        shown.join(" "),
        table.trim_end()
    )
}

/// The processor's name and the number of threads.
pub(crate) fn machine() -> String {
    let threads = threads();
    let lscpu = output(&mut Command::new("lscpu")).unwrap_or_default();
    let name = lscpu.lines().find_map(|line| line.strip_prefix("Model name:"));
    let name = name.map_or(std::env::consts::ARCH, str::trim);
    format!("{name}, {threads} threads")
}

/// How many threads the machine runs at once.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_says_how_it_was_made_and_names_no_path() {
        let rest = ["--model", "/tmp/x.gguf", "--rounds", "3"].map(str::to_owned);
        let page = page(&BENCHES[3], &rest, "a machine, 2 threads", "| a |\n");
        assert!(page.contains("cargo xtask bench gateway --model FILE --rounds 3"), "{page}");
        assert!(!page.contains("x.gguf"), "{page}");
        assert!(page.contains("Machine: a machine, 2 threads."), "{page}");
    }
}
