//! `commons up`: run a node on the data folder until it is told to end.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::engine::{EngineArgs, Size};
use crate::output::Output;
use crate::settings::{API_DEFAULT, Settings};
use crate::up;

/// Run a node until Ctrl-C or `commons stop`
///
/// The API opens first and answers without the mesh. The node serves others only with `--share`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A model to load: a GGUF file, or a folder with config.json and .safetensors files; may be
    /// given several times. `PATH,device=cpu` computes this one there, whatever `--device` says: its
    /// answers then repeat bit for bit
    #[arg(long, value_name = "PATH[,device=DEVICE]")]
    pub(crate) model: Vec<PathBuf>,

    /// A foreign engine to use for this node's owner: the address of any server that speaks the
    /// OpenAI API, and behind it any of `,kind=vllm`, `,prefix=lab`, `,key-file=FILE`,
    /// `,key-env=NAME`, `,models=A+B`, `,context=N`, `,adapters=on`, `,ca=FILE` and `,insecure=on`;
    /// may be given several times
    #[arg(long = "engine", value_name = "URL[,...]")]
    pub(crate) foreign: Vec<String>,

    /// Where the API listens; an address beyond this machine needs `--api-key-file`
    #[arg(long, value_name = "ADDR:PORT", default_value_t = API_DEFAULT)]
    pub(crate) api: SocketAddr,

    /// A file whose one line is the key that users of the API must send
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,

    /// Where peers reach this node, such as /ip4/0.0.0.0/udp/4001/quic-v1; may be given several
    /// times [default: free ports of this machine alone]
    #[arg(long, value_name = "MULTIADDR")]
    pub(crate) listen: Vec<String>,

    /// Join the mesh that this ticket invites to; `-` reads it from standard input
    #[arg(long, value_name = "TICKET")]
    pub(crate) join: Option<String>,

    /// Yes, members of the mesh may use this machine to compute their answers
    #[arg(long)]
    pub(crate) share: bool,

    /// What the private mesh that a fresh data folder founds is called
    #[arg(long, value_name = "NAME", default_value = "home")]
    pub(crate) mesh_name: String,

    /// Bytes that files which were pulled or copied may take in all, such as 200GiB
    /// [default: what the disk has]
    #[arg(long, value_name = "SIZE", help_heading = "Files")]
    pub(crate) files_max: Option<Size>,

    /// Ask nothing outside the mesh: no hub, no registry, no web server
    #[arg(long, env = "COMMONS_OFFLINE", help_heading = "Files")]
    pub(crate) offline: bool,

    /// Another host that speaks Hugging Face's API [default: the public one]
    #[arg(long, value_name = "URL", help_heading = "Files")]
    pub(crate) hugging_face: Option<String>,

    /// A file whose one line is the token for that host
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) hugging_face_token_file: Option<PathBuf>,

    /// End when standard input ends: for programs that start a node and may die before it
    #[arg(long)]
    pub(crate) until_stdin_ends: bool,

    /// Where models are computed: a jailed process of their own that is started again when it
    /// ends, or inside the node
    #[arg(long, value_name = "WHERE", default_value = "child", help_heading = "Engine")]
    pub(crate) engine_process: EngineProcess,

    /// Memory that the engine process may have, such as 8GiB; a request beyond it fails, or the
    /// process ends and is started again [default: no limit]
    #[arg(long, value_name = "SIZE", help_heading = "Engine")]
    pub(crate) engine_memory: Option<Size>,

    #[command(flatten)]
    pub(crate) engine: EngineArgs,
}

/// Where models are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EngineProcess {
    /// In a process of their own
    Child,
    /// In the node's process
    Inline,
}

impl std::fmt::Debug for Args {
    /// The ticket is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").field("model", &self.model).finish_non_exhaustive()
    }
}

pub(crate) async fn run(
    args: Args,
    settings: &Settings,
    out: &mut Output<'_>,
) -> anyhow::Result<()> {
    up::log_to_stderr()?;
    let config = up::Config::from_args(args, settings)?;
    up::run(config, out).await
}
