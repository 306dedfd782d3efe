//! The rooms of `ARCHITECTURE.md` and which may lean on which: arrows point down only.
//!
//! Dev-dependencies are free: a test may build what it likes, and no user links it.

use super::{Problem, Tree};

/// What a room may lean on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Pure: only the pure rooms named.
    Pure(&'static [&'static str]),
    /// Kernels: no room of ours and no I/O, but justified `unsafe`.
    Kernels,
    /// I/O: every pure room and the kernels, no other.
    Io,
    /// Joins: every pure room and the joins named.
    Join(&'static [&'static str]),
    /// The binary puts everything together.
    Binary,
    /// Automation leans on nothing of ours.
    Tool,
}

const BASE: &[&str] = &["port", "record"];

/// Every room, in the order of `ARCHITECTURE.md`. A room need not be built to stand here.
const ROOMS: &[(&str, Kind)] = &[
    ("record", Kind::Pure(&[])),
    ("port", Kind::Pure(&["record"])),
    ("ledger", Kind::Pure(BASE)),
    ("verify", Kind::Pure(BASE)),
    ("charter", Kind::Pure(&["port", "record", "verify"])), // For its verdict types.
    ("route", Kind::Pure(BASE)),
    ("exchange", Kind::Pure(BASE)),
    ("swarm", Kind::Pure(BASE)),
    ("onion", Kind::Pure(BASE)),
    ("training", Kind::Pure(BASE)),
    ("archive", Kind::Pure(BASE)),
    ("schedule", Kind::Pure(&[])),
    ("kernels", Kind::Kernels),
    ("engine", Kind::Io),
    ("mesh", Kind::Io),
    ("store", Kind::Io),
    ("sandbox", Kind::Io),
    ("remote", Kind::Io),
    ("settle", Kind::Io),
    ("node", Kind::Join(&[])),
    ("gateway", Kind::Join(&["node"])),
    ("portal", Kind::Join(&["node", "gateway"])),
    ("sim", Kind::Join(&["node"])),
    ("cli", Kind::Binary),
    ("xtask", Kind::Tool),
];

/// Whether this room may do no I/O at all, and holds no `unsafe`.
pub(super) fn is_pure(room: &str) -> bool {
    matches!(kind_of(room), Some(Kind::Pure(_)))
}

/// Whether this room may do no I/O at all, whatever else it may.
pub(super) fn is_without_io(room: &str) -> bool {
    matches!(kind_of(room), Some(Kind::Pure(_) | Kind::Kernels))
}

fn kind_of(room: &str) -> Option<Kind> {
    ROOMS.iter().find(|(name, _)| *name == room).map(|&(_, kind)| kind)
}

fn may_lean(kind: Kind, on: &str) -> bool {
    match kind {
        Kind::Pure(rooms) => rooms.contains(&on),
        Kind::Io => is_without_io(on),
        Kind::Join(rooms) => is_pure(on) || rooms.contains(&on),
        Kind::Binary => true,
        Kind::Kernels | Kind::Tool => false,
    }
}

/// Every package is a known room and leans only on what it may.
pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for package in tree.packages() {
        let room = package.room();
        let Some(kind) = kind_of(room) else {
            let message = format!("`{room}` is no room: add it to ARCHITECTURE.md and to ROOMS");
            problems.push(Problem::new(package.path, 1, "arrows", message));
            continue;
        };
        for dependency in package.manifest.dependencies() {
            let ours = dependency.name.strip_prefix("commons-");
            if let (Some(on), false) = (ours, dependency.is_dev)
                && !may_lean(kind, on)
            {
                let message = format!("`{room}` may not lean on `{on}`: move what they share down");
                problems.push(Problem::new(package.path, dependency.line, "arrows", message));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::{super::check as check_rule, *};

    fn arrow(room: &str, on: &str, is_allowed: bool) {
        let path = format!("crates/{room}/Cargo.toml");
        let text = format!("[dependencies]\ncommons-{on}.workspace = true\n");
        let want = format!("{path}:2");
        let want: &[&str] = if is_allowed { &[] } else { &[&want] };
        check_rule(check, &[(&path, &text)], want);
    }

    #[test]
    fn arrows_point_down_only() {
        for (room, on) in [
            ("port", "record"),
            ("exchange", "port"),
            ("charter", "verify"),
            ("engine", "verify"),
            ("engine", "kernels"),
            ("engine", "schedule"),
            ("node", "route"),
            ("sim", "node"),
            ("cli", "mesh"),
        ] {
            arrow(room, on, true);
        }
        for (room, on) in [
            ("record", "port"),
            ("route", "verify"),
            ("engine", "store"),
            ("kernels", "record"),
            ("schedule", "record"),
            ("node", "kernels"),
            ("mesh", "node"),
            ("node", "mesh"),
            ("node", "gateway"),
            ("gateway", "engine"),
            ("sim", "store"),
        ] {
            arrow(room, on, false);
        }
    }

    #[test]
    fn an_unknown_room_is_named() {
        let path = "crates/utils/Cargo.toml";
        check_rule(check, &[(path, "")], &["crates/utils/Cargo.toml:1"]);
    }

    #[test]
    fn tests_and_tools_lean_as_they_must() {
        let dev = "[dev-dependencies]\ncommons-sim.workspace = true\n";
        check_rule(check, &[("crates/node/Cargo.toml", dev)], &[]);
        let tool = "[dependencies]\ncommons-record.workspace = true\n";
        check_rule(check, &[("xtask/Cargo.toml", tool)], &["xtask/Cargo.toml:2"]);
    }
}
