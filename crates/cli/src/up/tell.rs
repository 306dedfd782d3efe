//! What a running node tells: an event a line for programs, a sentence for people.

use std::io;
use std::path::PathBuf;

use commons_node::api::{Counters, JoinState};
use commons_port::process::Jail;
use commons_record::{Hash, Millis, PeerId};
use commons_remote::{RemoteState, RemoteView};
use serde::Serialize;

use crate::output::{Output, bytes, span};
use crate::settings::quote;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// The API answers.
    Listening { api: String },
    /// A model can be asked for.
    Model {
        name: String,
        model: Hash,
        quantisation: String,
        size: u64,
        /// Where it is computed, and why not elsewhere.
        device: String,
        load_ms: Millis,
    },
    /// How the process that computes models is.
    Process {
        /// The system's number for it, while it is up.
        process: Option<u32>,
        /// How it is jailed, while it is up.
        jail: Option<Box<Jail>>,
        /// How it ended, while it is away.
        reason: Option<String>,
    },
    /// How a foreign engine is, and what it has.
    Engine(RemoteView),
    /// A join goes on in the background.
    Joining { mesh: Hash, mesh_name: String },
    /// The owner lets others compute here.
    Sharing { mesh_name: String, threads: u32 },
    /// Everything that was asked for at the start is there.
    Ready(Box<Ready>),
    /// How the join goes.
    Join { mesh_name: String, state: JoinState },
    /// What this machine did for others since the start.
    Meter { orders_served: u64, orders_refused: u64, tokens_computed: u64 },
    /// The node has ended in order.
    Stopped,
}

/// A node that is ready.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Ready {
    pub(super) api: String,
    pub(super) control: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) process: u32,
    pub(super) peer: PeerId,
    pub(super) mesh: Hash,
    pub(super) mesh_name: String,
    pub(super) addrs: Vec<String>,
    pub(super) models: Vec<String>,
    pub(super) share: bool,
}

impl Event {
    /// The meter's reading.
    pub(super) fn meter(counters: &Counters) -> Self {
        Self::Meter {
            orders_served: counters.orders_served,
            orders_refused: counters.orders_refused,
            tokens_computed: counters.tokens_computed,
        }
    }
}

/// Tells events where they belong.
#[derive(Debug)]
pub(super) struct Teller<'a, 'b> {
    out: &'a mut Output<'b>,
}

impl<'a, 'b> Teller<'a, 'b> {
    pub(super) fn new(out: &'a mut Output<'b>) -> Self {
        Self { out }
    }

    /// Tells an event. It is out when this returns: programs wait for it.
    pub(super) fn tell(&mut self, event: &Event) -> anyhow::Result<()> {
        match self.out.value(event, text) {
            // Nobody reads the events any more; those who ask the node are still there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => Ok(told?),
        }
    }
}

fn text(event: &Event) -> String {
    match event {
        Event::Listening { api } => format!("the API answers at {api}/v1"),
        Event::Model { name, quantisation, size, device, load_ms, .. } => format!(
            "model {name} {quantisation}, {}, on {device}, loaded in {}",
            bytes(*size),
            span(*load_ms)
        ),
        Event::Process { process, jail, reason } => {
            process_text(*process, jail.as_deref(), reason.as_deref())
        }
        Event::Engine(view) => engine_text(view),
        Event::Joining { mesh_name, .. } => {
            format!("joining the mesh {mesh_name:?} in the background")
        }
        Event::Sharing { mesh_name, threads } => format!(
            "SHARING: members of the mesh {mesh_name:?} may compute here, with up to {threads} \
             threads, because of `--share`; `commons stop` or Ctrl-C ends it"
        ),
        Event::Ready(ready) => ready_text(ready),
        Event::Join { mesh_name, state } => join_text(mesh_name, state),
        Event::Meter { orders_served, orders_refused, tokens_computed } => format!(
            "meter: orders served {orders_served}, refused {orders_refused}; tokens computed here \
             {tokens_computed}"
        ),
        Event::Stopped => "stopped".to_owned(),
    }
}

fn process_text(process: Option<u32>, jail: Option<&Jail>, reason: Option<&str>) -> String {
    match (process, jail, reason) {
        (Some(process), Some(jail), _) => {
            format!("models are computed in process {process}; jail {jail}")
        }
        (_, _, Some(reason)) => format!("the engine process {reason}; it is started again"),
        _ => "the engine process is being started".to_owned(),
    }
}

fn engine_text(view: &RemoteView) -> String {
    let kind = view.kind.as_deref().unwrap_or("of a kind not known yet");
    let version = view.version.as_deref().unwrap_or_default();
    let address = &view.address;
    let names: Vec<_> = view.models.iter().map(|it| it.name.as_str()).collect();
    match &view.state {
        RemoteState::Starting => format!("the foreign engine at {address} was not looked at yet"),
        RemoteState::Down { reason } => {
            format!("the foreign engine at {address} is not used: it {reason}; trying again")
        }
        RemoteState::Up if names.is_empty() => {
            format!("the foreign engine at {address} ({kind} {version}) lists no model")
        }
        RemoteState::Up => {
            format!("the foreign engine at {address} ({kind} {version}) has {}", names.join(", "))
        }
    }
}

fn ready_text(ready: &Ready) -> String {
    let dir = quote(&ready.data_dir);
    let models = if ready.models.is_empty() {
        "none here; those of the mesh can be asked for".to_owned()
    } else {
        ready.models.join(", ")
    };
    format!(
        "ready\n\
         \x20 API     {api}/v1\n\
         \x20 models  {models}\n\
         \x20 mesh    {mesh:?}\n\
         \x20 peer    {peer}\n\
         \x20 chat    commons chat --data-dir {dir}\n\
         \x20 stop    commons stop --data-dir {dir}   (or Ctrl-C)",
        api = ready.api,
        mesh = ready.mesh_name,
        peer = ready.peer,
    )
}

fn join_text(mesh_name: &str, state: &JoinState) -> String {
    match state {
        JoinState::Joined => format!("joined the mesh {mesh_name:?}"),
        JoinState::Trying { trouble: None } => format!("joining the mesh {mesh_name:?}"),
        JoinState::Trying { trouble: Some(trouble) } => {
            format!("not in the mesh {mesh_name:?} yet: {trouble}; trying again")
        }
        JoinState::Refused { reason } => {
            format!("the mesh {mesh_name:?} did not let this node in: {reason}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    /// Standard output whose reader went away.
    struct Closed;

    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A benchmark read the ready line and closed the pipe; the next reading of the meter ended
    /// the node, and with it an answer that a peer was reading.
    #[test]
    fn a_node_goes_on_when_nobody_reads_its_events() {
        for format in [Format::Text, Format::Json] {
            let mut closed = Closed;
            let mut out = Output::new(format, &mut closed);
            let told = Teller::new(&mut out).tell(&Event::Stopped);
            assert!(told.is_ok(), "{format:?}: {told:?}");
        }
    }
}
