//! What a node reaches and is reached by: the running node, its ports and model files.

use std::net::SocketAddr;
use std::path::Path;

use commons_gateway::bind_tcp;
use commons_gateway::control::{Client, ClientError};
use commons_node::api::{JoinState, StatusView};

use super::{Finding, Subject};
use crate::model_path;
use crate::output::{bytes, span};
use crate::settings::quote;

pub(super) async fn examine(subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_running = node(subject, &mut findings).await;
    if !is_running {
        findings.push(api_port(subject.api).await);
        findings.push(mesh_socket().await);
    }
    findings.extend(subject.models.iter().map(|path| model_file(path)));
    findings
}

/// Asks the node on the folder, if one runs.
async fn node(subject: &Subject, findings: &mut Vec<Finding>) -> bool {
    const CHECK: &str = "node";
    let Ok(path) = subject.settings.control_path() else { return false }; // Told elsewhere.
    match Client::new(path).status().await {
        Ok(status) => {
            findings.extend(healthy(&status));
            true
        }
        Err(ClientError::NotRunning { .. }) => {
            let next = format!("`{}` starts one", subject.settings.up_command());
            findings.push(Finding::note(CHECK, "none runs on this folder", next));
            false
        }
        Err(error) => {
            let detail = format!("one runs and does not answer: {:#}", anyhow::Error::from(error));
            let next = "see its log, or end it with Ctrl-C and start it again";
            findings.push(Finding::fault(CHECK, detail, next));
            true
        }
    }
}

fn healthy(status: &StatusView) -> Vec<Finding> {
    let (version, uptime) = (&status.version, span(status.uptime_ms));
    let peer = status.peer;
    let mut findings = vec![Finding::ok("node", format!("{version}, up for {uptime}, {peer}"))];
    let (name, count) = (&status.mesh_name, status.peer_count);
    findings.push(Finding::ok("mesh", format!("{name:?}, other members known: {count}")));
    findings.push(if status.addrs.is_empty() {
        let next = "start the node again with `--listen`, or without it for free ports";
        Finding::note("network", "the node listens nowhere: it serves its owner alone", next)
    } else {
        Finding::ok("network", status.addrs.join(" "))
    });
    match status.join.as_ref().map(|join| (&join.mesh_name, &join.state)) {
        Some((mesh, JoinState::Trying { trouble })) => {
            let trouble = trouble.as_deref().unwrap_or("nothing went wrong so far");
            let next = "see that the inviter's node runs and can be reached; it is tried again";
            findings.push(Finding::note("join", format!("not in {mesh:?} yet: {trouble}"), next));
        }
        Some((mesh, JoinState::Refused { reason })) => {
            let next = "ask for a new ticket, and join again";
            findings.push(Finding::fault("join", format!("refused by {mesh:?}: {reason}"), next));
        }
        Some((_, JoinState::Joined)) | None => {}
    }
    if status.model_count == 0 && count == 0 {
        let next = "start the node with `--model FILE`, or join a mesh with `commons join TICKET`";
        findings.push(Finding::note("models", "none here and no peer: nothing can be asked", next));
    } else {
        findings.push(Finding::ok("models", format!("{} here", status.model_count)));
    }
    findings
}

async fn api_port(addr: SocketAddr) -> Finding {
    const CHECK: &str = "API port";
    // Whether a key is needed is asked when one is known; here only whether it is free.
    match bind_tcp(addr, true).await {
        Ok(_closed_at_once) => Finding::ok(CHECK, format!("{addr} is free")),
        Err(error) => {
            let next = "choose another with `commons up --api 127.0.0.1:PORT`; port 0 finds one";
            Finding::fault(CHECK, format!("{:#}", anyhow::Error::from(error)), next)
        }
    }
}

/// Whether QUIC has a socket to run on.
async fn mesh_socket() -> Finding {
    const CHECK: &str = "mesh socket";
    match tokio::net::UdpSocket::bind("127.0.0.1:0").await {
        Ok(_closed_at_once) => Finding::ok(CHECK, "UDP can be used"),
        Err(error) => Finding::note(
            CHECK,
            format!("no UDP socket can be opened: {error}"),
            "a node works alone; look at the firewall or the container's rules",
        ),
    }
}

/// What can be said of a model's file without loading it.
fn model_file(path: &Path) -> Finding {
    const CHECK: &str = "model";
    let name = path.display();
    if path.is_dir() {
        return match model_path::checked(path) {
            Ok(_) => Finding::ok(CHECK, format!("{name}, a model's folder")),
            Err(error) => Finding::fault(CHECK, error.to_string(), "name another path"),
        };
    }
    let examined = std::fs::metadata(path).and_then(|meta| {
        use std::io::Read as _;
        let mut head = [0; 4];
        std::fs::File::open(path)?.read_exact(&mut head)?;
        Ok((meta.len(), head))
    });
    match examined {
        Ok((size, [b'G', b'G', b'U', b'F'])) => {
            let memory = crate::machine::memory();
            match memory.filter(|memory| memory.available < size) {
                Some(memory) => Finding::fault(
                    CHECK,
                    format!(
                        "{name} has {}, and {} of memory is available",
                        bytes(size),
                        bytes(memory.available)
                    ),
                    "choose a smaller quantisation, or let a peer with more memory hold it",
                ),
                None => Finding::ok(CHECK, format!("{name}, GGUF, {}", bytes(size))),
            }
        }
        Ok(_) => Finding::fault(
            CHECK,
            format!("{name} is no GGUF file"),
            "choose the model's .gguf file, or the folder that holds its .safetensors files",
        ),
        Err(error) => Finding::fault(
            CHECK,
            format!("{name} cannot be read: {error}"),
            format!("check the path: `ls -l {}`", quote(path)),
        ),
    }
}
