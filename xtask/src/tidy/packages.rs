//! Every package inherits from the workspace: its name, its lints, its dependencies' versions.

use super::{Problem, Tree};

const RULE: &str = "package";

/// Names follow folders, lints and dependencies come from the workspace.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in tree.packages() {
        let (path, manifest) = (package.path, &package.manifest);
        let mut report = |line, message: String| {
            problems.push(Problem::new(path, line, RULE, message));
        };
        if manifest.value("lints", "workspace") != Some("true") {
            report(1, "add `[lints]` with `workspace = true`".to_owned());
        }
        let room = package.room();
        let name = if room == "xtask" { "xtask".to_owned() } else { format!("commons-{room}") };
        if manifest.value("package", "name") != Some(&format!("\"{name}\"")) {
            report(1, format!("call the package `{name}`, after its folder"));
        }
        for dependency in manifest.dependencies().iter().filter(|it| !it.is_inherited) {
            let name = dependency.name;
            let message =
                format!("take `{name}` from `[workspace.dependencies]`: `{name}.workspace = true`");
            report(dependency.line, message);
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::check;

    const GOOD: &str = "[package]\nname = \"commons-a\"\n[lints]\nworkspace = true\n";

    #[test]
    fn what_is_not_inherited_is_named() {
        let path = "crates/a/Cargo.toml";
        let with = |text: &str| format!("{GOOD}{text}");
        check(super::check, &[(path, GOOD)], &[]);
        check(super::check, &[(path, &GOOD.replace("true", "false"))], &["crates/a/Cargo.toml:1"]);
        check(super::check, &[(path, &GOOD.replace("-a", "-b"))], &["crates/a/Cargo.toml:1"]);

        let good = with("[dev-dependencies]\nx.workspace = true\ny = { workspace = true }\n");
        check(super::check, &[(path, &good)], &[]);
        let bad = with("[dev-dependencies]\nx = \"1\"\n[build-dependencies]\ny.path = \"..\"\n");
        check(super::check, &[(path, &bad)], &["crates/a/Cargo.toml:6", "crates/a/Cargo.toml:8"]);
    }
}
