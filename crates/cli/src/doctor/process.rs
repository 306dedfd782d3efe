//! The process that computes models: how it would be jailed on this machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use commons_port::process::{Jail, JailLevel};

use super::Finding;

const CHECK: &str = "engine jail";

/// Starts a process that closes the jail around itself and tries every way out.
pub(super) fn examine(models: &[PathBuf]) -> Finding {
    match measure(models) {
        Ok(jail) => finding(&jail),
        Err(error) => Finding::fault(
            CHECK,
            format!("the engine process does not start: {error:#}"),
            "start the node with `--engine-process inline`, and tell us what you see",
        ),
    }
}

fn measure(models: &[PathBuf]) -> anyhow::Result<Jail> {
    let program = std::env::current_exe().context("failed to find this program's own file")?;
    let mut command = Command::new(program);
    command.args(["engine", "--probe", "--json"]);
    for model in models {
        command.arg("--read").arg(model);
    }
    command.env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().context("failed to start it")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("it ended with {} and told nothing", output.status))
}

fn finding(jail: &Jail) -> Finding {
    let detail = jail.to_string();
    match jail.level() {
        JailLevel::Full => Finding::ok(CHECK, detail),
        JailLevel::Partial => {
            let open: Vec<&str> = jail.open().collect();
            let next =
                format!("what a model file could do that it should not: {}", open.join(", "));
            Finding::note(CHECK, detail, next)
        }
        JailLevel::None => Finding::note(
            CHECK,
            detail,
            "models are computed in a process of their own, which sees what you see: load only \
             models of people whom you trust, or use a Linux of 2021 or newer",
        ),
    }
}

#[cfg(test)]
mod tests {
    use commons_port::process::{Attempt, SyscallFilter};

    use super::super::Verdict;
    use super::*;

    #[test]
    fn what_was_possible_is_named() {
        let attempt = |name: &str, refused: Option<&str>| Attempt {
            name: name.to_owned(),
            refused: refused.map(str::to_owned),
        };
        let jail = |attempts| Jail {
            landlock: Some(4),
            syscalls: Some(SyscallFilter::Allowed),
            attempts,
            ..Jail::default()
        };
        let whole = finding(&jail(vec![attempt("run a program", Some("EPERM"))]));
        assert_eq!((whole.verdict, whole.next), (Verdict::Ok, None));
        let open = finding(&jail(vec![attempt("run a program", None)]));
        assert_eq!(open.verdict, Verdict::Note);
        assert!(open.next.is_some_and(|it| it.contains("run a program")));
        assert_eq!(finding(&Jail::default()).verdict, Verdict::Note);
    }
}
