//! `commons receipts verify`: what a stranger can say about a file of evidence, offline.
//!
//! Every record is checked by itself first, so that each verdict is named; then the rules that
//! bind the records to each other are checked by [`Evidence::verify`], which is the judge.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use commons_record::envelope::{Expect, Record, Unverified, VerifyError};
use commons_record::evidence::{Checked, EVIDENCE_SIZE_MAX, Evidence, EvidenceError};
use commons_record::manifest::ModelManifest;
use commons_record::mesh::{MeshGenesis, Policy, Usage};
use commons_record::order::Order;
use commons_record::settlement::{EndReason, EngineClass, RanAdapter, Receipt, Scope, Voucher};
use commons_record::{Credits, Hash, OwnerId, PeerId, RequestId};
use serde::Serialize;

use crate::output::Output;

/// Check a file of evidence: needs no node, no network and no key
///
/// Exits with 1 and names the rule if the evidence does not hold.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file that `commons receipts export` wrote
    file: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut Output<'_>) -> anyhow::Result<ExitCode> {
    let read = || -> std::io::Result<Vec<u8>> {
        // One byte more than evidence can have, so that a larger file is seen as such.
        let limit = u64::try_from(EVIDENCE_SIZE_MAX).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        std::fs::File::open(&args.file)?.take(limit).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("failed to read {}", args.file.display()))?;
    let report = Report::of(&bytes);
    out.value(&report, text)?;
    Ok(report.exit_code())
}

/// What was found in a file of evidence.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether everything holds.
    pub(crate) valid: bool,
    /// What was checked, in order.
    checks: Vec<Check>,
    /// Why it does not hold, if it does not.
    pub(crate) failure: Option<Failure>,
    /// What the receipt says, if it holds.
    pub(crate) claim: Option<Claim>,
}

/// One thing that was checked.
#[derive(Debug, Serialize)]
struct Check {
    holds: bool,
    what: String,
}

/// Why evidence does not hold.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    /// A stable code.
    pub(crate) code: &'static str,
    /// The rule of `docs/PROTOCOL.md`, where one was broken.
    pub(crate) rule: Option<&'static str>,
    /// The reason, with its causes.
    pub(crate) reason: String,
}

/// What a receipt that holds says.
#[derive(Debug, Serialize)]
pub(crate) struct Claim {
    pub(crate) receipt: Hash,
    order: Hash,
    request: RequestId,
    mesh: Hash,
    mesh_name: String,
    scope: Scope,
    pub(crate) provider: PeerId,
    provider_owner: OwnerId,
    pub(crate) requester: PeerId,
    requester_owner: OwnerId,
    model: Hash,
    model_name: Option<String>,
    quantisation: String,
    adapter: Option<RanAdapter>,
    engine: EngineClass,
    pub(crate) usage: Usage,
    amount: Credits,
    end: EndReason,
    pub(crate) acknowledged: bool,
    /// Whether two parties signed for everything that is claimed.
    pub(crate) two_sided: bool,
    /// Whether the tokens were in the file and led to the signed roots.
    opened: bool,
    /// The hash of the answer, if it was in the file: equal answers have equal ones (Rule E16).
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Hash>,
}

impl Report {
    /// Checks the bytes of a file.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut report = Self { valid: false, checks: Vec::new(), failure: None, claim: None };
        match report.judge(bytes) {
            Ok(checked) => {
                report.valid = true;
                report.add_rules(&checked);
                report.claim = Some(Claim::of(&checked));
            }
            Err(error) => report.failure = Some(Failure::of(error)),
        }
        report
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        if self.valid { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn judge(&mut self, bytes: &[u8]) -> Result<Checked, EvidenceError> {
        let decoded = Evidence::decode(bytes);
        self.add(decoded.is_ok(), "the file is canonical evidence of a version that is known here");
        let evidence = decoded?;
        let mesh = self.record::<MeshGenesis>("genesis", &evidence.genesis, Expect::default());
        // Without a genesis nothing says which mesh the others must belong to.
        let expect = mesh.map_or_else(Expect::default, Expect::mesh);
        self.record::<Policy>("policy", &evidence.policy, expect);
        self.record::<Order>("order", &evidence.order, expect);
        self.record::<Receipt>("receipt", &evidence.receipt, expect);
        if let Some(bytes) = &evidence.voucher {
            self.record::<Voucher>("voucher", bytes, expect);
        }
        if let Some(bytes) = &evidence.manifest {
            self.record::<ModelManifest>("manifest", bytes, expect);
        }
        evidence.verify()
    }

    /// Checks one record by itself; its id if it holds.
    fn record<T: Record>(&mut self, name: &str, bytes: &[u8], expect: Expect) -> Option<Hash> {
        let verified = Unverified::<T>::decode(bytes).and_then(|it| it.verify(&expect));
        let what = format!("the {name} is a {} and its signatures hold", T::TYPE);
        self.add(verified.is_ok(), &what);
        verified.ok().map(|record| record.id())
    }

    fn add(&mut self, holds: bool, what: &str) {
        self.checks.push(Check { holds, what: what.to_owned() });
    }

    /// The rules that [`Evidence::verify`] has checked, in words.
    fn add_rules(&mut self, checked: &Checked) {
        let receipt = checked.receipt.body();
        let mut rules = vec![
            "E5: the policy is by an authority of the mesh and the one that the order names",
            "E6: the receipt is for this order",
            "E7: the requester signed the order, and the provider that it names signed the receipt",
            "E8: the amount is what the policy charges, and not over the order's ceiling",
            "E10: what ran is what was ordered, and no more tokens are claimed than were allowed",
            "S3: the seed is the one that the order committed to",
            "E12: the receipt's scope is what its parties are",
        ];
        rules.push(match &receipt.voucher {
            Some(_) => {
                "E11: the receipt claims exactly what the requester's last voucher signs for"
            }
            None => "E11: nothing was acknowledged, and nothing is claimed",
        });
        if checked.manifest.is_some() {
            rules.push("E10: the model's description is the provider's and of the model that ran");
        }
        if checked.is_opened {
            rules.push("E10: the tokens in the file lead to the roots that were signed");
        }
        for rule in rules {
            self.add(true, rule);
        }
    }
}

impl Failure {
    fn of(error: EvidenceError) -> Self {
        let rule = match &error {
            EvidenceError::Broken { rule, .. } => Some(*rule),
            _ => None,
        };
        let code = match &error {
            EvidenceError::Record { source: VerifyError::BadSignature { .. }, .. } => {
                "bad_signature"
            }
            other => other.code(),
        };
        Self { code, rule, reason: format!("{:#}", anyhow::Error::from(error)) }
    }
}

impl Claim {
    fn of(checked: &Checked) -> Self {
        let (order, receipt) = (&checked.order, &checked.receipt);
        let body = receipt.body();
        Self {
            receipt: receipt.id(),
            order: order.id(),
            request: order.body().request,
            mesh: checked.genesis.id(),
            mesh_name: checked.genesis.body().name.clone(),
            scope: body.scope,
            provider: receipt.node(),
            provider_owner: receipt.owner(),
            requester: order.node(),
            requester_owner: order.owner(),
            model: body.ran.model,
            model_name: checked.manifest.as_ref().map(|it| it.body().name.clone()),
            quantisation: body.ran.quantisation.clone(),
            adapter: body.ran.adapter.clone(),
            engine: body.ran.engine.clone(),
            usage: body.usage,
            amount: body.amount,
            end: body.end,
            acknowledged: body.acknowledged,
            two_sided: checked.is_two_sided(),
            opened: checked.is_opened,
            output: checked.output,
        }
    }
}

/// The report for people.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for check in &report.checks {
        let mark = if check.holds { "ok  " } else { "FAIL" };
        let _ = writeln!(text, "{mark}  {}", check.what);
    }
    if let Some(failure) = &report.failure {
        let _ = writeln!(text, "\nNOT VALID ({}): {}", failure.code, failure.reason);
    }
    if let Some(claim) = &report.claim {
        let _ = write!(text, "\n{}", claim_text(claim));
    }
    text
}

/// What stands for the hash of an answer that is not in the file.
const NOT_OPENED: &str = "(the answer is not in the file; export it with --with-text)";

fn claim_text(claim: &Claim) -> String {
    let standing = match (claim.scope, claim.two_sided) {
        (Scope::Local, _) => {
            "VALID, local: one node served itself; it is no credit and no evidence"
        }
        (Scope::Mesh, true) => "VALID and two-sided: both parties signed for all that is claimed",
        (Scope::Mesh, false) => {
            "VALID and unacknowledged: the requester did not sign for all that was sent; the \
             receipt claims what it signed for and no more"
        }
    };
    let Usage { prompt_tokens, cached_tokens, completion_tokens } = claim.usage;
    let model = claim.model_name.as_deref().unwrap_or("(its description is not in the file)");
    let engine = &claim.engine;
    format!(
        "{standing}\n\
         receipt    {receipt}\n\
         mesh       {mesh_name:?} {mesh}\n\
         provider   {provider}\n\
         requester  {requester}\n\
         model      {model} {quantisation} {hash}\n\
         engine     {device}, {kernels}, {version}\n\
         tokens     {prompt_tokens} prompt ({cached_tokens} cached), {completion_tokens} answer\n\
         output     {output}\n\
         credits    {amount}\n\
         ended by   {end}\n",
        receipt = claim.receipt,
        mesh_name = claim.mesh_name,
        mesh = claim.mesh,
        provider = claim.provider,
        requester = claim.requester,
        quantisation = claim.quantisation,
        hash = claim.model,
        device = engine.device,
        kernels = engine.kernels,
        version = engine.version,
        output = claim.output.map_or_else(|| NOT_OPENED.to_owned(), |it| it.to_string()),
        amount = claim.amount,
        end = end_text(claim.end),
    )
}

fn end_text(end: EndReason) -> &'static str {
    match end {
        EndReason::Stop => "the model",
        EndReason::StopString => "a stop string",
        EndReason::Length => "the token limit",
        EndReason::Cancelled => "the requester's wish",
        EndReason::Vanished => "the requester's silence",
        EndReason::Deadline => "the deadline",
        EndReason::Failed => "the provider's failure",
    }
}
