//! Where we listen, and who asked about it before we knew.

use std::collections::HashSet;

use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm};
use tokio::sync::oneshot;

use crate::behaviour::Behaviour;
use crate::config::StartError;

/// Those who may wait for the first answer: parts of one node. Others get what is known.
const ASKING_MAX: usize = 64;

/// Listeners that have not said where they are yet.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    starting: HashSet<ListenerId>,
    asking: Vec<oneshot::Sender<Vec<String>>>,
}

impl Listening {
    /// Listens on exactly `listen`, and tells peers that `external` leads to us too.
    pub(crate) fn start(
        swarm: &mut Swarm<Behaviour>,
        listen: &[String],
        external: &[String],
    ) -> Result<Self, StartError> {
        for addr in external {
            swarm.add_external_address(parse(addr)?);
        }
        let mut starting = HashSet::new();
        for addr in listen {
            let id = swarm.listen_on(parse(addr)?).map_err(|error| match error {
                libp2p::TransportError::MultiaddrNotSupported(_) => {
                    let detail = "no transport listens on such an address".to_owned();
                    StartError::BadAddr { addr: addr.clone(), detail }
                }
                libp2p::TransportError::Other(source) => {
                    StartError::Listen { addr: addr.clone(), source }
                }
            })?;
            starting.insert(id);
        }
        Ok(Self { starting, asking: Vec::new() })
    }

    /// Answers with our addresses as soon as every listener has one.
    pub(super) fn ask(&mut self, swarm: &Swarm<Behaviour>, reply: oneshot::Sender<Vec<String>>) {
        self.asking.retain(|asking| !asking.is_closed());
        self.asking.push(reply);
        if self.starting.is_empty() || self.asking.len() > ASKING_MAX {
            self.answer(swarm);
        }
    }

    /// A listener has an address, or has ended.
    pub(super) fn on_ready(&mut self, swarm: &Swarm<Behaviour>, id: ListenerId) {
        self.starting.remove(&id);
        if self.starting.is_empty() {
            self.answer(swarm);
        }
    }

    fn answer(&mut self, swarm: &Swarm<Behaviour>) {
        for reply in std::mem::take(&mut self.asking) {
            // Whoever asked may be gone: then nobody needs the answer.
            let _ = reply.send(addrs(swarm));
        }
    }
}

fn parse(addr: &str) -> Result<Multiaddr, StartError> {
    addr.parse().map_err(|error: libp2p::multiaddr::Error| StartError::BadAddr {
        addr: addr.to_owned(),
        detail: error.to_string(),
    })
}

/// Confirmed outside addresses first, since they work from everywhere; then the bound ones.
/// Without our own key, which whoever passes them on names beside them.
fn addrs(swarm: &Swarm<Behaviour>) -> Vec<String> {
    let mut addrs: Vec<Multiaddr> = Vec::new();
    for addr in swarm.external_addresses().chain(swarm.listeners()) {
        let mut addr = addr.clone();
        if let Some(Protocol::P2p(_)) = addr.iter().last() {
            addr.pop();
        }
        if !addrs.contains(&addr) {
            addrs.push(addr);
        }
    }
    addrs.iter().map(ToString::to_string).collect()
}
