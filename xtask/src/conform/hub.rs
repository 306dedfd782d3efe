//! `cargo xtask conform hub`: real clients pull from the gateway's hub, with all else cut off.
//!
//! ```text
//! outside: build the example `hub`, fetch the pinned clients, write the files that are served
//! inside (a network of its own, with loopback alone): hub <- each client, its files compared
//! ```
//!
//! The clients come through the package managers of this machine. Where a network of its own
//! cannot be had, every proxy points to a port where nobody listens, and the page says so.

mod files;

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    bench,
    shell::{self, cargo, say},
};

/// The newest of each line that is in use.
const HUGGINGFACE_HUB: [&str; 3] = ["2.4.0", "1.33.0", "0.36.2"];
const HUGGINGFACE_JS: &str = "2.17.5";

const CLIENT_PY: &str = include_str!("hub/client.py");
const LOAD_PY: &str = include_str!("hub/load.py");
const GGUF_PY: &str = include_str!("hub/gguf.py");
const CLIENT_MJS: &str = include_str!("hub/client.mjs");

const PAGE: &str = "docs/conformance.md";
const TITLE: &str = "# Conformance\n\nProgrammes that others wrote, driven against this one. Each \
     section is written by the command that it names.\n";
const HEADING: &str = "## Hub clients";

/// Brings up loopback, and becomes what is asked for.
const ISOLATE: [&str; 5] = ["-rn", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];

/// Where nobody listens.
const DEAD_PROXY: &str = "http://127.0.0.1:9";

/// What was typed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A Python that has `transformers` and `torch`, to load a model with; a gigabyte, so not
    /// fetched
    #[arg(long, value_name = "PYTHON")]
    transformers: Option<PathBuf>,

    /// A Python that has `llama_cpp` and `huggingface_hub`, to load a GGUF file with
    #[arg(long, value_name = "PYTHON")]
    llama_cpp: Option<PathBuf>,

    /// A folder with a small llama of Hugging Face's layout, for `transformers`
    #[arg(long, value_name = "FOLDER", default_value = "../shared/fixtures/models/stories260K-hf")]
    model: PathBuf,

    /// A small GGUF file, for `llama_cpp`
    #[arg(
        long,
        value_name = "FILE",
        default_value = "../shared/fixtures/models/stories260K-Q8_0.gguf"
    )]
    gguf: PathBuf,

    /// This is the run inside
    #[arg(long, hide = true)]
    is_inside: bool,
}

/// Where the clients and the files are kept between runs.
struct Place {
    folder: PathBuf,
}

pub(super) fn run(root: &Path, args: &Args) -> Result<()> {
    let place = Place { folder: bench::target(root)?.join("conform/hub") };
    if args.is_inside {
        return drive(root, &place, args);
    }
    shell::run(&mut cargo(root, &["build", "--package", "commons-gateway", "--example", "hub"]))?;
    place.fetch()?;
    files::write(&place.served(), &root.join(&args.model), &root.join(&args.gguf))?;
    let program = std::env::current_exe().context("failed to find this program")?;
    let typed = std::env::args_os().skip(1);
    let mut inside = if can_isolate() {
        let mut command = Command::new("unshare");
        command.args(ISOLATE).arg(program);
        command
    } else {
        eprintln!("no network of its own can be had here: proxies are cut off alone");
        Command::new(program)
    };
    shell::run(inside.args(typed).arg("--is-inside").current_dir(root))
}

fn can_isolate() -> bool {
    shell::output(Command::new("unshare").args(ISOLATE).arg("true")).is_some()
}

impl Place {
    fn served(&self) -> PathBuf {
        self.folder.join("served")
    }

    fn python(&self, version: &str) -> PathBuf {
        self.folder.join(format!("venv-{version}/bin/python"))
    }

    /// Writes a script where it finds its packages.
    fn script(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    fn npm(&self) -> PathBuf {
        self.folder.join("npm")
    }

    /// The pinned clients, unless they are there.
    fn fetch(&self) -> Result<()> {
        for version in HUGGINGFACE_HUB {
            let python = self.python(version);
            if python.exists() {
                continue;
            }
            let folder = self.folder.join(format!("venv-{version}"));
            shell::run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
            let package = format!("huggingface_hub=={version}");
            shell::run(Command::new(python).args(["-m", "pip", "install", "-q", &package]))?;
        }
        fs::create_dir_all(self.npm()).context("failed to make a folder for npm")?;
        if !self.npm().join("node_modules").exists() {
            fs::write(self.npm().join("package.json"), "{\"private\": true}")
                .context("failed to write package.json")?;
            let package = format!("@huggingface/hub@{HUGGINGFACE_JS}");
            let mut npm = Command::new("npm");
            shell::run(npm.args(["install", "--save-exact", &package]).current_dir(self.npm()))?;
        }
        Ok(())
    }
}

/// A hub that ends with this value.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(root: &Path, place: &Place) -> Result<Self> {
        let program = bench::target(root)?.join("debug/examples/hub");
        let mut command = Command::new(program);
        command.arg(place.served()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("failed to start the hub")?;
        let mut url = String::new();
        let stdout = child.stdout.take().context("the hub's output is piped")?;
        BufReader::new(stdout).read_line(&mut url).context("failed to read the hub's address")?;
        ensure!(url.starts_with("http"), "the hub did not start");
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        if let Err(error) = ended {
            eprintln!("the hub did not end: {error}");
        }
    }
}

/// One client that was driven.
struct Row {
    client: String,
    with: &'static str,
    checks: Vec<String>,
}

fn drive(root: &Path, place: &Place, args: &Args) -> Result<()> {
    let server = Server::start(root, place)?;
    let mut rows = Vec::new();
    for version in HUGGINGFACE_HUB {
        for with in ["`hf_xet` on", "`HF_HUB_DISABLE_XET=1`"] {
            let script = place.script("client.py", CLIENT_PY)?;
            let mut command = Command::new(place.python(version));
            command.arg(script).arg(place.served());
            if with.contains("DISABLE") {
                command.env("HF_HUB_DISABLE_XET", "1");
            }
            rows.push(row(place, &server, command, with)?);
        }
    }
    let script = place.script("npm/client.mjs", CLIENT_MJS)?;
    let mut command = Command::new("node");
    command.arg(script).arg(&server.url).arg(place.served());
    rows.push(row(place, &server, command, "node")?);
    for loader in loaders(args) {
        rows.extend(load(place, &server, &loader)?);
    }
    write_page(root, &section(&rows, can_see_only_loopback()))
}

/// A library that loads a model, too large to be fetched.
struct Loader<'a> {
    flag: &'static str,
    python: Option<&'a Path>,
    script: (&'static str, &'static str),
    repo: &'static str,
    with: &'static str,
}

fn loaders(args: &Args) -> [Loader<'_>; 2] {
    let transformers = Loader {
        flag: "--transformers",
        python: args.transformers.as_deref(),
        script: ("load.py", LOAD_PY),
        repo: "commons/stories",
        with: "a model of 260 K parameters, its tokenizer",
    };
    let llama_cpp = Loader {
        flag: "--llama-cpp",
        python: args.llama_cpp.as_deref(),
        script: ("gguf.py", GGUF_PY),
        repo: "commons/gguf",
        with: "a GGUF file of 260 K parameters",
    };
    [transformers, llama_cpp]
}

fn load(place: &Place, server: &Server, loader: &Loader<'_>) -> Result<Option<Row>> {
    let (name, text) = loader.script;
    let Some(python) = loader.python else {
        eprintln!("{name} is skipped: name a Python with {}", loader.flag);
        return Ok(None);
    };
    if !place.served().join(loader.repo).exists() {
        eprintln!("{name} is skipped: there is no model for it; see --help");
        return Ok(None);
    }
    let mut command = Command::new(python);
    command.arg(place.script(name, text)?).arg(place.served());
    row(place, server, command, loader.with).map(Some)
}

/// Runs one client on an empty cache, and reads what it found.
fn row(place: &Place, server: &Server, mut command: Command, with: &'static str) -> Result<Row> {
    let cache = place.folder.join("cache");
    if cache.exists() {
        fs::remove_dir_all(&cache).context("failed to empty the cache")?;
    }
    fs::create_dir_all(&cache).context("failed to make the cache")?;
    command.arg(&cache).env("HF_ENDPOINT", &server.url).env("HF_HOME", cache.join("home"));
    command.env("HF_HUB_DISABLE_PROGRESS_BARS", "1").env("NO_PROXY", "127.0.0.1");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, DEAD_PROXY);
    }
    let told = shell::output_or_reason(&mut command)?;
    let after = |word: &'static str| told.lines().filter_map(move |line| line.strip_prefix(word));
    let client = after("version ").next().context("the client told no version")?.to_owned();
    let checks: Vec<String> = after("ok ").map(str::to_owned).collect();
    ensure!(!checks.is_empty(), "{client} checked nothing");
    eprintln!("{client}, {with}: {} checks", checks.len());
    Ok(Row { client, with, checks })
}

/// Whether loopback is all that there is, beside links that the kernel makes and that lead nowhere.
fn can_see_only_loopback() -> bool {
    let links = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut names = links.lines().skip(2).filter_map(|line| line.split(':').next());
    !links.is_empty() && names.all(|name| matches!(name.trim(), "lo" | "tunl0" | "sit0"))
}

fn section(rows: &[Row], is_isolated: bool) -> String {
    let cut_off = if is_isolated {
        "in a network namespace with loopback alone"
    } else {
        "with every proxy pointed to a port where nobody listens"
    };
    let mut text = format!(
        "{HEADING}\n\nThe gateway's hub serves folders (`crates/gateway/examples/hub.rs`); each \
         client pulls from it with an empty cache, {cut_off}. Every file that it gets is compared \
         byte for byte. One repository breaks off in the middle of each read: `huggingface_hub` \
         gets it whole by asking for the rest (0.36 when it is called again), and `@huggingface/hub` sees that it was cut.\n\n\
         ```sh\ncargo xtask conform hub --transformers PYTHON --llama-cpp PYTHON\n```\n\n\
         | Client | With | Checks | What |\n|---|---|---|---|\n"
    );
    for Row { client, with, checks } in rows {
        let what = checks.join(", ");
        let line = writeln!(text, "| `{client}` | {with} | {} of {0} | {what} |", checks.len());
        line.expect("a string takes all that is written to it");
    }
    text
}

/// Puts the section in the place of the one that was there.
fn write_page(root: &Path, section: &str) -> Result<()> {
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).unwrap_or_else(|_none| TITLE.to_owned());
    fs::write(&path, replace(&page, section))
        .with_context(|| format!("failed to write {}", path.display()))?;
    say(section);
    say(&format!("written to {PAGE}"));
    Ok(())
}

fn replace(page: &str, section: &str) -> String {
    let (before, rest) = page.split_once(HEADING).unwrap_or((page, ""));
    let after = rest.find("\n## ").map_or("", |at| &rest[at + 1..]);
    let section = section.trim_end();
    let text = format!("{}\n\n{section}\n\n{after}", before.trim_end());
    format!("{}\n", text.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_like_and_no_other() {
        let new = "## Hub clients\n\nnew\n";
        let cases = [
            ("# C\n", "# C\n\n## Hub clients\n\nnew\n"),
            ("# C\n\n## Hub clients\n\nold\n", "# C\n\n## Hub clients\n\nnew\n"),
            (
                "# C\n\n## A\n\na\n\n## Hub clients\n\nold\n\n## B\n\nb\n",
                "# C\n\n## A\n\na\n\n## Hub clients\n\nnew\n\n## B\n\nb\n",
            ),
        ];
        for (page, expected) in cases {
            assert_eq!(replace(page, new), expected);
        }
    }
}
