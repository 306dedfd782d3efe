//! Both copies of a receipt, verified on files by a program that knows nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use commons_gateway::control::ClientError;
use commons_node::api::Opening;
use commons_record::Hash;
use commons_record::evidence::Evidence;
use serde::Deserialize;
use tokio::process::Command;

use super::child::Child;
use super::question::Answer;
use crate::runtime::Stopwatch;

/// Both nodes store the receipt before they speak of it; a copy that had to be offered again
/// comes within moments.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A receipt of which both copies hold and are the same.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) receipt: Hash,
    pub(super) completion_tokens: u32,
    /// The slower of the two verifications, start of the program included.
    pub(super) verify: Duration,
}

/// What `commons receipts verify --json` says, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Verdict {
    valid: bool,
    failure: Option<Failure>,
    claim: Option<Claim>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    reason: String,
}

#[derive(Debug, Deserialize)]
struct Claim {
    receipt: Hash,
    two_sided: bool,
    usage: commons_record::mesh::Usage,
}

/// Fetches both copies, verifies each offline, and compares them.
pub(super) async fn check(
    folder: &Path,
    provider: &Child,
    requester: &Child,
    answer: &Answer,
) -> anyhow::Result<Proof> {
    let request = answer.proof.request.to_string();
    let mut proofs = Vec::new();
    let mut records = Vec::new();
    for holder in [provider, requester] {
        let bytes = fetch(holder, &request).await?;
        let evidence = Evidence::decode(&bytes).context("a copy is no evidence")?;
        records.push((evidence.order, evidence.receipt, evidence.voucher));
        let file = folder.join(format!("{request}-{}.evidence", holder.name()));
        std::fs::write(&file, &bytes).context("failed to write a copy of the receipt")?;
        proofs.push(verify(&file, holder.name()).await?);
    }
    let same = records.windows(2).all(|pair| pair[0] == pair[1]);
    ensure!(same, "the two copies of the receipt are different records");
    let slowest = proofs.into_iter().max_by_key(|proof| proof.verify);
    let proof = slowest.context("no copy was verified")?;
    let told = answer.proof.receipt;
    ensure!(
        told.is_none_or(|told| told == proof.receipt),
        "the response told of another receipt than the nodes hold"
    );
    Ok(proof)
}

/// Asks for the evidence until the node holds all of it.
async fn fetch(holder: &Child, request: &str) -> anyhow::Result<Vec<u8>> {
    loop {
        match holder.client.evidence(request, Opening::Omit).await {
            Ok(bytes) => return Ok(bytes),
            Err(ClientError::Refused { code, .. }) if code == "not_found" => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(error) => {
                let who = holder.name();
                return Err(error).with_context(|| format!("{who} did not give the receipt"));
            }
        }
    }
}

/// Runs this program as a stranger would: on the file alone.
async fn verify(file: &PathBuf, whose: &str) -> anyhow::Result<Proof> {
    let program = std::env::current_exe().context("failed to find this program")?;
    let watch = Stopwatch::start();
    let mut command = Command::new(program);
    command.args(["receipts", "verify", "--json"]).arg(file).kill_on_drop(true);
    let output = command.output().await.context("failed to run `commons receipts verify`")?;
    let verify = watch.elapsed();
    let verdict: Verdict = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no verdict: {}", String::from_utf8_lossy(&output.stderr)))?;
    if let Some(failure) = verdict.failure {
        bail!("{whose}'s copy of the receipt does not hold: {}", failure.reason);
    }
    ensure!(verdict.valid && output.status.success(), "{whose}'s copy was not verified");
    let claim = verdict.claim.context("a verified receipt claims nothing")?;
    ensure!(claim.two_sided, "{whose}'s copy is not signed for by both sides");
    let completion_tokens = claim.usage.completion_tokens;
    Ok(Proof { receipt: claim.receipt, completion_tokens, verify })
}
