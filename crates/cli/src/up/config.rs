//! What `commons up` was told, as what it means.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use commons_engine::WorkerConfig;
use commons_gateway::{ApiKey, check_bind};
use commons_remote::hub::HubConfig;
use commons_remote::{Address, Key, RemoteConfig};
use zeroize::Zeroizing;

use crate::command::join::read_ticket;
use crate::command::up::Args;
use crate::engine::Size;
use crate::model_path;
use crate::settings::Settings;
use crate::up::compute::ComputeConfig;
use crate::up::foreign;

/// A key is one short line.
const KEY_FILE_SIZE_MAX: u64 = 4096;

/// A node as it is to be run. Everything that can be checked without opening anything was.
pub(crate) struct Config {
    pub(super) data_dir: PathBuf,
    pub(super) control_path: PathBuf,
    pub(super) models: Vec<model_path::Named>,
    pub(super) foreign: Vec<RemoteConfig>,
    pub(super) api: SocketAddr,
    pub(super) api_key: Option<ApiKey>,
    pub(super) listen: Vec<String>,
    pub(super) join: Option<Zeroizing<String>>,
    pub(super) share: bool,
    pub(super) mesh_name: String,
    pub(super) engine: WorkerConfig,
    pub(super) compute: ComputeConfig,
    pub(super) files: FilesConfig,
    pub(super) until_stdin_ends: bool,
}

impl std::fmt::Debug for Config {
    /// The ticket is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Config");
        debug.field("data_dir", &self.data_dir).field("api", &self.api).finish_non_exhaustive()
    }
}

impl Config {
    /// Takes what was typed, or says what is wrong with it.
    pub(crate) fn from_args(args: Args, settings: &Settings) -> anyhow::Result<Self> {
        ensure!(
            !(args.until_stdin_ends && args.join.as_deref() == Some("-")),
            "`--join -` and `--until-stdin-ends` both want standard input: choose one"
        );
        let models = args.model.iter().map(|typed| model_path::Named::checked(typed));
        let models = models.collect::<Result<_, _>>().context("see `--model PATH`")?;
        let api_key = args.api_key_file.as_deref().map(read_key).transpose()?;
        check_bind(args.api, api_key.is_some())
            .context("write a key into a file, and name it with `--api-key-file FILE`")?;
        Ok(Self {
            data_dir: settings.data_dir.clone(),
            control_path: settings.control_path()?,
            models,
            foreign: foreign::configs(&args.foreign)?,
            api: args.api,
            api_key,
            listen: args.listen,
            join: args.join.map(read_ticket).transpose()?,
            share: args.share,
            mesh_name: args.mesh_name,
            engine: args.engine.config()?,
            compute: ComputeConfig {
                process: args.engine_process,
                args: args.engine.to_args(),
                memory_max: args.engine_memory,
            },
            files: FilesConfig {
                size_max: args.files_max,
                origin: origin(
                    args.offline,
                    args.hugging_face.as_deref(),
                    args.hugging_face_token_file.as_deref(),
                )?,
            },
            until_stdin_ends: args.until_stdin_ends,
        })
    }
}

/// The node's files.
pub(super) struct FilesConfig {
    pub(super) size_max: Option<Size>,
    /// Hubs outside; none offline.
    pub(super) origin: Option<HubConfig>,
}

fn origin(
    is_offline: bool,
    host: Option<&str>,
    token: Option<&Path>,
) -> anyhow::Result<Option<HubConfig>> {
    if is_offline {
        return Ok(None);
    }
    let mut hubs = HubConfig::new().context("the public hubs have no sound address")?;
    if let Some(host) = host {
        let address = Address::parse(host, false).context("see `--hugging-face URL`")?;
        hubs = hubs.with_hugging_face(address);
    }
    if let Some(path) = token {
        let name = path.display();
        let text = read_secret(path)?;
        let key = Key::new(text.trim()).with_context(|| format!("the file {name} has no token"))?;
        hubs = hubs.with_token(key).context("see `--hugging-face-token-file FILE`")?;
    }
    Ok(Some(hubs))
}

fn read_key(path: &Path) -> anyhow::Result<ApiKey> {
    let text = read_secret(path)?;
    let name = path.display();
    ApiKey::new(text.trim()).with_context(|| format!("the file {name} holds no API key"))
}

/// Reads a file that only its owner can read.
pub(super) fn read_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let name = path.display();
    let meta = std::fs::metadata(path);
    let meta = meta.with_context(|| format!("failed to look at the API key file {name}"))?;
    ensure!(meta.len() <= KEY_FILE_SIZE_MAX, "the API key file {name} is no key: it is too large");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
        ensure!(
            mode.trailing_zeros() >= 6, // Six bits for group and others.
            "others can read the API key file {name} (mode {mode:03o}): type `chmod 600 {}`",
            crate::settings::quote(path)
        );
    }
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    text.with_context(|| format!("failed to read the API key file {name}"))
}
