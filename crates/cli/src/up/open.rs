//! What a node owns on this machine: its folder, its keys, its journal and its sockets.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use commons_gateway::{bind_tcp, bind_unix};
use commons_port::time::draw;
use commons_record::{PeerId, SecretKey};
use commons_store::{DataDir, RedbJournal};
use tokio::net::{TcpListener, UnixListener};
use zeroize::Zeroizing;

use super::config::Config;
use crate::runtime::OsEntropy;

/// Everything that was opened. The folder stays locked as long as the journal lives.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) keys: Keys,
    pub(super) journal: Arc<RedbJournal>,
    pub(super) api: TcpListener,
    pub(super) control: UnixListener,
    pub(super) control_path: PathBuf,
    pub(super) dir: DataDir,
}

/// The node's secrets.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) owner: SecretKey,
    pub(super) node: SecretKey,
    pub(super) hpke_seed: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn open(dir: &DataDir) -> anyhow::Result<Self> {
        let key = |name: &str| {
            let seed = dir.key(name, || draw(&OsEntropy));
            seed.with_context(|| format!("failed to open the {name} key"))
        };
        Ok(Self {
            owner: SecretKey::from_seed(key("owner")?.as_bytes()),
            node: SecretKey::from_seed(key("node")?.as_bytes()),
            hpke_seed: Zeroizing::new(*key("hpke")?.as_bytes()),
        })
    }

    /// The node's name.
    pub(super) fn peer(&self) -> PeerId {
        PeerId::from_key(self.node.public())
    }
}

impl Opened {
    /// Opens all of it or nothing. The folder comes first: whoever holds it may bind its socket.
    pub(super) async fn open(config: &Config) -> anyhow::Result<Self> {
        let dir = DataDir::open(&config.data_dir)?;
        let api = bind_tcp(config.api, config.api_key.is_some()).await?;
        let control = bind_unix(&config.control_path)?;
        let keys = Keys::open(&dir)?;
        let journal = Arc::new(RedbJournal::open(&dir)?);
        Ok(Self { keys, journal, api, control, control_path: config.control_path.clone(), dir })
    }
}
