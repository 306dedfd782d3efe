//! The workspace keeps its own rules, so `cargo test` alone is enough to see one broken.

use std::process::Command;

#[test]
fn the_workspace_is_tidy() {
    let output = Command::new(env!("CARGO_BIN_EXE_xtask")).arg("tidy").output();
    let output = output.expect("xtask starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "\n{told}");
}
