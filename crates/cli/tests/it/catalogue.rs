//! Releases as people use them: published, found on another machine, chosen, followed back.

use std::path::Path;

use crate::support::{
    Node, arg, failure, folder, json as command, noise_model, run, string, text, until,
};

fn write(folder: &Path, name: &str, content: &[u8]) {
    std::fs::create_dir_all(folder).expect("a folder");
    std::fs::write(folder.join(name), content).expect("a file");
}

fn publish(node: &Node, path: &Path, name: &str, more: &[&str]) -> serde_json::Value {
    let args = ["publish", arg(path), "--name", name, "--version", "1", "--licence", "Apache-2.0"];
    command(node.dir(), &[&args, more].concat())
}

#[test]
fn a_release_is_found_chosen_and_followed_back_on_another_machine() {
    let folder = folder();
    let model = noise_model(folder.path());
    let a = Node::up(&folder.path().join("a"), &["--share", "--model", arg(&model)]);
    let b = Node::up(&folder.path().join("b"), &[]);
    b.join(&a);
    let (base, poet) = (folder.path().join("base"), folder.path().join("poet"));
    write(&base, "model.gguf", b"weights");
    write(&poet, "adapter.safetensors", b"low rank");
    write(&poet, "README.md", b"");

    // The founder is an authority: its word is the mesh's.
    let published = publish(&a, &base, "acme/base", &["--tag", "english"]);
    assert_eq!(published["is_bound"], true, "{published}");
    let base = string(&published, "/release").to_owned();
    let seen = until("the release on the other machine", || {
        let shown = run(b.dir(), &["--json", "show", "acme/base"]);
        shown.status.success().then(|| command(b.dir(), &["show", "acme/base"]))
    });
    assert_eq!(seen["release"], base.as_str(), "{seen}");
    let blob = commons_record::Hash::of_content(b"weights").to_string();
    assert_eq!(seen["body"]["files"][0]["blob"], blob.as_str(), "{seen}");

    // A member's word is its own until somebody chooses.
    let unknown = "7".repeat(64);
    let more = [
        ["--from", "adapter-of=acme/base"],
        ["--from", &format!("trained-on={unknown}")],
        ["--kind", "adapter"],
    ];
    let published = publish(&b, &poet, "bob/poet", more.as_flattened());
    assert_eq!(published["is_bound"], false, "{published}");
    let poet = string(&published, "/release").to_owned();
    let found = until("the adapter on the first machine", || {
        let found = command(a.dir(), &["search", "POET"]);
        (!found.as_array().expect("a list").is_empty()).then_some(found)
    });
    assert_eq!(
        (&found[0]["release"], &found[0]["is_named"]),
        (&poet.as_str().into(), &false.into())
    );
    let refused = failure(a.dir(), &["show", "bob/poet"]);
    for part in ["neither you nor an authority", &poet, "commons pin bob/poet"] {
        assert!(refused.contains(part), "{refused} does not say {part}");
    }
    command(a.dir(), &["pin", "bob/poet", &poet]);
    assert_eq!(command(a.dir(), &["pin"])[0]["release"], poet.as_str());
    let lineage = run(a.dir(), &["lineage", "bob/poet"]);
    let lineage = text(&lineage.stdout);
    let lines: Vec<&str> = lineage.lines().collect();
    assert!(lines[0].starts_with("bob/poet@1  Apache-2.0  signed by .."), "{lineage}");
    assert!(
        lines[1].starts_with("  adapter of acme/base@1  Apache-2.0  signed by .."),
        "{lineage}"
    );
    assert!(
        lines[2].starts_with(&format!("  trained on file {unknown}: not known here")),
        "{lineage}"
    );
    command(a.dir(), &["unpin", "bob/poet"]);
    failure(a.dir(), &["show", "bob/poet"]);
    command(a.dir(), &["bind", "bob/poet", &poet]);
    command(a.dir(), &["show", "bob/poet@1"]);
    let shown = text(&run(a.dir(), &["show", "bob/poet"]).stdout);
    assert!(shown.contains("README.md") && shown.contains("licence   Apache-2.0"), "{shown}");
}

#[test]
fn what_cannot_be_published_is_refused_with_a_reason() {
    let folder = folder();
    let node = Node::up(&folder.path().join("a"), &[]);
    let file = folder.path().join("model.gguf");
    std::fs::write(&file, b"weights").expect("a file");
    let strange = folder.path().join("a:b");
    std::fs::write(&strange, b"weights").expect("a file");
    let file = arg(&file);
    for (args, words) in [
        (
            ["publish", file, "--name", "acme/m", "--version", "1", "--licence", "Llama-3"],
            "LicenseRef",
        ),
        (
            ["publish", file, "--name", "acme/m", "--version", "1", "--licence", "NOASSERTION"],
            "NOASSERTION",
        ),
        (["publish", file, "--name", "../m", "--version", "1", "--licence", "MIT"], "is no name"),
        (["publish", file, "--name", "acme/m", "--version", "main", "--licence", "MIT"], "current"),
        (
            ["publish", arg(&strange), "--name", "acme/m", "--version", "1", "--licence", "MIT"],
            "is no path of a file",
        ),
        (
            ["publish", "nowhere", "--name", "acme/m", "--version", "1", "--licence", "MIT"],
            "no file at",
        ),
    ] {
        let refused = run(node.dir(), &args);
        // 2 for what was typed wrong, 1 for what the node refuses.
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{args:?}");
        let refused = text(&refused.stderr);
        assert!(refused.contains(words), "{refused} does not say {words}");
    }
    assert_eq!(command(node.dir(), &["search"]), serde_json::json!([]));
}
