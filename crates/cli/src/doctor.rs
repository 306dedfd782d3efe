//! What stands in the way of a node on this machine: independent checks, each with its cause
//! and the next step.
//!
//! * `system`: processor, memory, accelerators, open files and the clock;
//! * `folder`: the data folder, its keys and its lock;
//! * `process`: how the process is jailed that computes models;
//! * `reach`: the running node, ports and model files.
//!
//! A fault keeps a node from working; a note is worth knowing.

mod folder;
mod process;
mod reach;
mod system;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Serialize;

use crate::settings::Settings;

/// What is examined.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) settings: Settings,
    pub(crate) models: Vec<PathBuf>,
    pub(crate) api: SocketAddr,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// All is well.
    Ok,
    /// A node works; this is worth knowing.
    Note,
    /// A node does not work, or not as it was asked to.
    Fault,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was checked.
    pub(crate) check: &'static str,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// What is there, and where something is wrong, why.
    pub(crate) detail: String,
    /// What to do about it.
    pub(crate) next: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, detail: detail.into(), next: None }
    }

    fn note(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        let (detail, next) = (detail.into(), Some(next.into()));
        Self { check, verdict: Verdict::Note, detail, next }
    }

    fn fault(check: &'static str, detail: impl Into<String>, next: impl Into<String>) -> Self {
        let (detail, next) = (detail.into(), Some(next.into()));
        Self { check, verdict: Verdict::Fault, detail, next }
    }
}

/// Runs every check. None of them stops another.
pub(crate) async fn examine(subject: &Subject) -> Vec<Finding> {
    let mut findings = system::examine();
    findings.push(process::examine(&subject.models));
    findings.extend(folder::examine(&subject.settings));
    findings.extend(reach::examine(subject).await);
    findings
}

/// The findings for people.
pub(crate) fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for Finding { check, verdict, detail, next } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Note => "note",
            Verdict::Fault => "FAIL",
        };
        let _ = writeln!(text, "{mark}  {check:<12} {detail}");
        if let Some(next) = next {
            let _ = writeln!(text, "{:<18} -> {next}", "");
        }
    }
    let count = findings.iter().filter(|it| it.verdict == Verdict::Fault).count();
    let _ = match count {
        0 => writeln!(text, "\nnothing stands in the way of a node"),
        1 => writeln!(text, "\n1 fault"),
        count => writeln!(text, "\n{count} faults"),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_names_its_next_step() {
        let findings = [
            Finding::ok("memory", "8 GiB"),
            Finding::fault("clock", "it is 1970", "set the clock"),
        ];
        let text = text(&findings);
        assert!(text.contains("ok    memory       8 GiB\n"), "{text}");
        assert!(text.contains("FAIL  clock        it is 1970\n"), "{text}");
        assert!(text.contains("-> set the clock\n\n1 fault\n"), "{text}");
    }
}
